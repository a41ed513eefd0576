// @ts-check
/**
 * Strips below a panel, on its axis of batches: the share of its units that are dead, and how large its updates are.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./run.js").RunModel} RunModel
 * @typedef {import("./run.js").Stream} Stream
 * @typedef {import("./run.js").Phase} Phase
 * @typedef {import("./stage.js").Box} Box
 * @typedef {{from: number, to: number, value: number}} StripCell Batches, and the share or the logarithm.
 */
import { colorTable, cssColor } from "./colors.js";
import { meanAndStd } from "./columns.js";
import { make, shortName } from "./dom.js";
import { percentText, valueText } from "./format.js";
import { write } from "./marks.js";
import { GUTTER } from "./panel.js";
import { layerOf, streamsOf } from "./related.js";

/** What the rule of thumb asks for, log10 of std(update) / std(weight), and where steps count as too small or too large. */
const TARGET = -3;
const TOO_SMALL = -4;
const TOO_LARGE = -1;
const ANY_WINDOW = { lo: -1, hi: 1, scale: /** @type {"linear"} */ ("linear"), linthresh: 1 };

/**
 * A strip with its plot on the stage.
 * @param {App} app
 * @param {RunModel} model
 * @param {Stream} stream Of the panel above it.
 * @param {Phase} phase
 * @param {"dead" | "update"} kind
 * @returns {HTMLElement}
 */
export function stripOf(app, model, stream, phase, kind) {
  const element = make("div", { class: "cd-strip", role: "img", "aria-label": `${kind === "dead" ? "dead units" : "updates"} of ${shortName(stream.name, 80)}` });
  const matrices = kind === "update" ? weightsOf(model, stream) : [];
  /** @type {StripCell[] | string} */
  let cells = "…";
  app.stage.add({
    element,
    prepare: (box, ratio) => {
      cells = kind === "dead" ? deadCells(model, stream, phase) : updateCells(app, model, matrices, phase, Math.floor(box.w / ratio) - GUTTER.left);
      Object.assign(element, { cdData: cells });
      describeStrip(element, stream, kind, cells);
    },
    draw: (ctx, box, ratio) => drawStrip(app, ctx, box, ratio, app.viewOf(model, phase), kind, cells),
  });
  return element;
}

/**
 * The matrices among a layer's weights, each with its updates.
 * @param {RunModel} model
 * @param {Stream} stream
 */
function weightsOf(model, stream) {
  const layer = layerOf(model, stream);
  return streamsOf(model, layer, "weight").flatMap((weight) => {
    const update = model.find(weight.name, "update");
    return update && weight.shape.includes(",") ? [{ weight, update }] : [];
  });
}

/**
 * @param {RunModel} model
 * @param {Stream} stream
 * @param {Phase} phase
 * @returns {StripCell[] | string}
 */
function deadCells(model, stream, phase) {
  const found = model.known("units", { stream: stream.id, phase });
  if (!found) return "…";
  if (found instanceof Error || !found.first.length) return "its units were not recorded";
  return found.first.map((/** @type {number} */ from, /** @type {number} */ i) => ({ from, to: found.last[i] + 1, value: found.dead[i] }));
}

/**
 * @param {App} app
 * @param {RunModel} model
 * @param {{weight: Stream, update: Stream}[]} matrices
 * @param {Phase} phase
 * @param {number} pixels
 * @returns {StripCell[] | string}
 */
function updateCells(app, model, matrices, phase, pixels) {
  if (phase === "valid") return "no updates in validation";
  if (!matrices.length) return "no updates of a matrix were recorded";
  const view = app.viewOf(model, phase);
  /** Variances times elements. @type {Map<number, {to: number, update: number, weight: number}>} */
  const sums = new Map();
  let complete = true;
  for (const { weight, update } of matrices) {
    const [weights, updates] = [weight, update].map((each) => {
      const heat = model.heat(each, phase, "strip");
      complete = heat.prepare(view, pixels, ANY_WINDOW, 2, "share").complete && complete;
      return heat;
    });
    updates.forEach(view, (columns, at, batch) => {
      const other = weights.at(batch);
      if (!other || !columns.of.finite[at]) return;
      const values = columns.of.finite[at] / Math.max(columns.of.number[at], 1);
      const cell = sums.get(batch) ?? { to: batch + columns.width, update: 0, weight: 0 };
      cell.update += values * meanAndStd(columns, at).std ** 2;
      cell.weight += values * meanAndStd(other.columns, other.at).std ** 2;
      sums.set(batch, cell);
    });
  }
  if (!sums.size && !complete) return "…";
  return [...sums].sort((a, b) => a[0] - b[0]).map(([from, { to, update, weight }]) => ({ from, to, value: Math.log10(update / weight) / 2 }));
}

/**
 * The colour of log10 of a ratio: neutral at the target, one hue below, another above.
 * @param {number} value
 */
function updateColor(value) {
  const table = colorTable("difference", false);
  const far = value < TARGET ? (value - TARGET) / (TARGET - TOO_SMALL) : (value - TARGET) / (TOO_LARGE - TARGET);
  return cssColor(table, 127.5 * (1 + Math.max(-1, Math.min(1, far))));
}

/**
 * @param {App} app
 * @param {CanvasRenderingContext2D} ctx
 * @param {Box} box
 * @param {number} ratio
 * @param {import("./heat.js").View} view
 * @param {"dead" | "update"} kind
 * @param {StripCell[] | string} cells
 */
function drawStrip(app, ctx, box, ratio, view, kind, cells) {
  const { inks } = app;
  const left = box.x + Math.round(GUTTER.left * ratio);
  const inner = { x: left, y: box.y + 2 * ratio, w: Math.max(box.w - (left - box.x) - 1, 1), h: Math.max(box.h - 4 * ratio, 2) };
  const text = { size: 10 * ratio, color: inks.muted };
  write(ctx, kind, left - 5 * ratio, box.y + 10.5 * ratio, { ...text, align: "right" });
  if (typeof cells === "string") {
    write(ctx, cells, left + 4 * ratio, box.y + 10.5 * ratio, text);
    return;
  }
  const scale = inner.w / (view.to - view.from);
  ctx.save();
  ctx.beginPath();
  ctx.rect(inner.x, inner.y, inner.w, inner.h);
  ctx.clip();
  for (const { from, to, value } of cells) {
    const x = inner.x + (from - view.from) * scale;
    const wide = (to - from) * scale;
    if (x + wide < inner.x || x > inner.x + inner.w || Number.isNaN(value)) continue;
    if (kind === "dead") {
      ctx.globalAlpha = value;
      ctx.fillStyle = inks.bad;
    } else ctx.fillStyle = updateColor(value);
    ctx.fillRect(x, inner.y, wide + 0.5, inner.h);
    ctx.globalAlpha = 1;
  }
  ctx.restore();
  ctx.strokeStyle = inks.rule;
  ctx.lineWidth = 1;
  ctx.strokeRect(inner.x + 0.5, inner.y + 0.5, inner.w - 1, inner.h - 1);
  const last = cells.findLast(({ from }) => from < view.to);
  if (!last) return;
  const said = kind === "dead" ? percentText(last.value) : ratioText(last.value);
  write(ctx, said, inner.x + inner.w - 4 * ratio, box.y + 10.5 * ratio, { size: 10 * ratio, color: inks.ink, align: "right", halo: inks.paper });
}

/** @param {number} value */
function ratioText(value) {
  return Number.isFinite(value) ? valueText(Number((10 ** value).toPrecision(1))) : "none";
}

/**
 * @param {HTMLElement} element
 * @param {Stream} stream
 * @param {"dead" | "update"} kind
 * @param {StripCell[] | string} cells
 */
function describeStrip(element, stream, kind, cells) {
  const name = shortName(stream.name, 80);
  let said = typeof cells === "string" ? `${kind === "dead" ? "Dead units" : "Updates"} of ${name}: ${cells}.` : "";
  if (typeof cells !== "string") {
    const last = cells[cells.length - 1];
    if (!last) said = `${name}: nothing yet.`;
    else if (kind === "dead") said = `Share of the units of ${name} that were not active even once: ${percentText(last.value)} in the last window.`;
    else {
      const judged = last.value < TOO_SMALL ? "small" : last.value > TOO_LARGE ? "large" : "usual";
      said = `Standard deviation of the updates of ${name} over that of its weights: ${ratioText(last.value)} at the end, which is ${judged}.`;
    }
  }
  if (element.getAttribute("aria-label") === said) return;
  element.setAttribute("aria-label", said);
  element.title = said;
}
