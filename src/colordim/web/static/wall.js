// @ts-check
/**
 * The wall: a panel for each layer in call order, grouped by block, under loss and learning rate.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./run.js").Stream} Stream
 * @typedef {import("./run.js").Phase} Phase
 */
import { Chart, curvesOf } from "./chart.js";
import { showPairs } from "./compare.js";
import { make, newId, shortName } from "./dom.js";
import { plural } from "./format.js";
import { Panel } from "./panel.js";
import { trouble } from "./run.js";
import { phasesOf, stripsOf } from "./state.js";
import { stripOf } from "./strips.js";

/** Layers beyond which blocks are rows and roles columns, folded. */
const MANY = 100;
/** Layers that have room for taller panels. */
const FEW = 16;
/** Columns of roles at most; of more, panels follow each other. */
const MOST_ROLES = 8;

/**
 * Fill the page with the wall.
 * @param {App} app
 * @param {HTMLElement} content
 */
export function showWall(app, content) {
  const { state } = app;
  const streams = orderedStreams(app);
  content.append(scalarRow(app));
  if (!streams.length) {
    const why = state.find ? `No layer is named like “${state.find}”.` : emptyReason(app);
    content.append(make("p", { class: "cd-empty", text: why }));
    return;
  }
  if (app.other) {
    showPairs(app, content, streams);
    return;
  }
  if (streams.length > MANY && state.order === "call") {
    content.append(foldedBlocks(app, streams));
    return;
  }
  const groups = state.order === "call" ? blocksOf(streams) : [{ name: "", streams }];
  for (const group of groups) {
    const id = newId();
    const wall = make("div", { class: streams.length <= FEW ? "cd-wall cd-few" : "cd-wall" }, group.streams.flatMap((stream) => panelsOf(app, stream)));
    const heading = groups.length > 1 && group.name ? make("h2", { class: "cd-block", id }, [make("bdi", { text: shortName(group.name) })]) : null;
    content.append(make("section", heading ? { "aria-labelledby": id } : { "aria-label": "layers" }, [heading, wall]));
  }
}

/**
 * @param {App} app
 * @param {Stream} stream
 * @returns {HTMLElement[]}
 */
function panelsOf(app, stream) {
  const model = app.need();
  const phases = phasesOf(app.state);
  return phases.map((phase) => {
    const panel = app.panel(new Panel(app, model, stream, phase, { mark: phases.length > 1 ? phase : "" }));
    for (const kind of stripsOf(app.state)) panel.element.append(stripOf(app, model, stream, phase, kind));
    return panel.element;
  });
}

/**
 * The streams on show, in the order that was chosen.
 * @param {App} app
 * @returns {Stream[]}
 */
export function orderedStreams(app) {
  const model = app.need();
  const { kind, order, find, phase } = app.state;
  const wanted = find.toLowerCase();
  const streams = model.whole(kind).filter((s) => !wanted || s.name.toLowerCase().includes(wanted) || s.module.toLowerCase().includes(wanted));
  if (order === "call") return streams;
  const of = phase === "both" ? "train" : phase;
  const summaries = new Map(streams.map((stream) => [stream, model.summary(stream, of)]));
  if (model.head.batches[of] && [...summaries.values()].some((summary) => !summary)) {
    // put in order as soon as all is known
    app.frames.push(() => {
      if (streams.map((stream) => model.summary(stream, of)).every(Boolean)) queueMicrotask(() => app.render());
    });
  }
  /** @param {Stream} stream */
  const rank = (stream) => {
    const summary = summaries.get(stream);
    return (order === "zeros" ? 0 : trouble(summary)) + (summary?.zeros || 0) / 2;
  };
  const { findings } = model;
  if (order === "trouble" && findings.diagnosis) {
    const ranks = new Map(streams.map((stream) => [stream, findings.rank(stream)]));
    const of_ = (/** @type {Stream} */ stream) => ranks.get(stream) ?? Infinity;
    return [...streams].sort((a, b) => (of_(a) !== of_(b) ? of_(a) - of_(b) : rank(b) - rank(a)));
  }
  /** @param {Stream} stream */
  const odd = (stream) => summaries.get(stream)?.odd ?? Infinity;
  // of those with NaN the first comes first: the others follow from it
  return [...streams].sort((a, b) => (order === "trouble" && odd(a) !== odd(b) ? odd(a) - odd(b) : rank(b) - rank(a)));
}

/** @param {App} app */
function emptyReason(app) {
  const model = app.need();
  const { kind } = app.state;
  if (!model.streams.length) return model.state === "live" ? "Nothing was recorded yet: the first batch is on its way." : "Nothing was recorded in this run.";
  return `The run has no ${kind.replace("_", " ")}s: pass kinds="all" to colordim.record.`;
}

/**
 * Loss, learning rate and whatever else was logged, on the axis of the batches.
 * @param {App} app
 */
export function scalarRow(app) {
  const model = app.need();
  const phase = app.state.phase === "valid" ? "valid" : "train";
  const names = /** @type {string[]} */ (model.marks.scalars);
  const first = ["loss", "lr"].filter((name) => names.includes(name));
  const chosen = [...first, ...names.filter((name) => !first.includes(name))].slice(0, 4);
  const row = make("section", { class: "cd-scalars", "aria-label": "what was logged" });
  for (const name of chosen) {
    const chart = new Chart(
      app,
      name,
      () => app.viewOf(model, phase),
      () => app.other ? twoCurves(app, phase, name) : curvesOf(app.scalarsOf(model, phase), name, app.inks.lines),
      { epochs: () => model.marks.epochs[phase] },
    );
    app.charts.push(chart);
    row.append(chart.element);
  }
  return row;
}

/**
 * A logged name of both runs that are compared.
 * @param {App} app
 * @param {Phase} phase
 * @param {string} name
 */
function twoCurves(app, phase, name) {
  return [app.need(), /** @type {import("./run.js").RunModel} */ (app.other)].flatMap((model, i) => {
    const curve = curvesOf(app.scalarsOf(model, phase), name, app.inks.lines.slice(i))[0];
    return curve ? [{ ...curve, name: shortName(model.head.name || model.path, 24) }] : [];
  });
}

/**
 * Layers in call order, grouped by the part of their names before the last: block.0.conv is in block.0.
 * @param {Stream[]} streams
 */
function blocksOf(streams) {
  /** @type {{name: string, streams: Stream[]}[]} */
  const groups = [];
  for (const stream of streams) {
    const name = blockName(stream.name);
    const last = groups[groups.length - 1];
    if (last && last.name === name) last.streams.push(stream);
    else groups.push({ name, streams: [stream] });
  }
  return groups;
}

/**
 * The block of a layer: its path up to the last number, or else to the last part.
 * @param {string} name
 */
function blockName(name) {
  const parts = name.split(".");
  const number = parts.findLastIndex((part, i) => /^\d+$/.test(part) && i < parts.length - 1);
  return parts.slice(0, number >= 0 ? number + 1 : parts.length > 1 ? 1 : 0).join(".");
}

/**
 * Of many layers: a row for each block, a column for each role in it; each cell shows the last layer of its role, and a
 * block unfolds into all of its layers.
 * @param {App} app
 * @param {Stream[]} streams
 */
function foldedBlocks(app, streams) {
  const list = make("div", { class: "cd-blocks" });
  const open = new Set(app.state.open.split(",").filter(Boolean));
  const groups = blocksOf(streams);
  const roles = [...new Set(groups.filter((group) => group.streams.length > 1).flatMap((group) => group.streams.map((stream) => roleOf(stream, group.name))))];
  list.style.setProperty("--cd-roles", String(Math.min(Math.max(roles.length, 1), MOST_ROLES)));
  groups.forEach((group, number) => {
    const id = newId();
    const key = String(number);
    const unfolded = open.has(key);
    const last = new Map(group.streams.map((stream) => [roleOf(stream, group.name), stream]));
    const body = make("div", { class: unfolded ? "cd-wall" : "cd-wall cd-roles", id });
    for (const stream of unfolded ? group.streams : last.values()) {
      const panels = panelsOf(app, stream);
      const column = roles.indexOf(roleOf(stream, group.name));
      if (!unfolded && panels.length === 1 && group.streams.length > 1 && roles.length <= MOST_ROLES) panels[0].style.gridColumn = String(column + 1);
      body.append(...panels);
    }
    const hidden = group.streams.length - (unfolded ? group.streams.length : last.size);
    const button = make("button", { class: "cd-fold", type: "button", "data-key": `fold ${key}`, "aria-expanded": unfolded, "aria-controls": id, on: { click: () => {
      if (unfolded) open.delete(key);
      else open.add(key);
      app.set({ open: [...open].join(",") });
    } } }, [
      make("bdi", { text: shortName(group.name || "model") }),
      make("span", { class: "cd-type", text: hidden ? `${plural(group.streams.length, "layer")}, ${hidden} folded` : plural(group.streams.length, "layer") }),
    ]);
    list.append(make("section", { class: "cd-fold-block" }, [make("h2", { class: "cd-block" }, [button]), body]));
  });
  return list;
}

/**
 * What a layer does in its block: the part of its name behind the block's.
 * @param {Stream} stream
 * @param {string} block
 */
function roleOf(stream, block) {
  return stream.name.slice(block ? block.length + 1 : 0).split(".")[0] || stream.module;
}
