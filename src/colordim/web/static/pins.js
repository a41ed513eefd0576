// @ts-check
/**
 * The columns that are compared: which ones, what they hold, where they are marked.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./panel.js").Panel} Panel
 * @typedef {import("./run.js").Phase} Phase
 * @typedef {{phase: Phase, batch: number, letter: "A" | "B"}} Pin
 *
 * @typedef {object} Column One drawn column.
 * @property {Phase} phase
 * @property {number} first First and last batch.
 * @property {number} last
 * @property {number} number Batches in which the layer ran.
 * @property {Float64Array} rows Counts in the rows of the map, and of what lies below and above.
 * @property {Float64Array | null} counts Of all bins; null if they are not known.
 * @property {{[name: string]: number}} counters
 * @property {{mean: number, std: number, min: number, max: number}} moments
 * @property {boolean} exact Whether the counts are the source's own, and not those of a tile's codes.
 * @property {boolean} held Not recorded: as the one before.
 */
import { meanAndStd } from "./columns.js";
import { make } from "./dom.js";
import { countText, percentText, valueText } from "./format.js";
import { line, write } from "./marks.js";
import { denseCounts, finiteOf, projectSum } from "./profile.js";

/** Place among the colours of lines of A, of B, and of their difference. */
export const PIN_COLORS = { A: 1, B: 2, difference: 3 };
const COUNTED = ["under", "over", "nan", "pos_inf", "neg_inf", "zeros", "size", "calls"];

/**
 * @param {string} text Of the address: "12", "12,v3".
 * @returns {Pin[]}
 */
export function pinsOf(text) {
  return text
    .split(",")
    .filter((each) => /^v?\d+$/.test(each))
    .slice(0, 2)
    .map((each, i) => ({ phase: each.startsWith("v") ? "valid" : "train", batch: Number(each.replace("v", "")), letter: i ? "B" : "A" }));
}

/**
 * The pins after a column was clicked: first A, then B, then A anew.
 * @param {string} text
 * @param {Phase} phase
 * @param {number} batch
 */
export function pinned(text, phase, batch) {
  const added = `${phase === "valid" ? "v" : ""}${batch}`;
  return pinsOf(text).length === 1 ? `${text},${added}` : added;
}

/**
 * What a map shows of a batch, as exactly as it can be had.
 * @param {Panel} panel Whose rows are taken.
 * @param {Phase} phase
 * @param {number} batch
 * @param {boolean} ask Whether the exact numbers are asked for.
 * @returns {Column | null} null if nothing is known yet, or there is none.
 */
export function columnAt(panel, phase, batch, ask) {
  const { model, stream } = panel;
  const heat = phase === panel.phase ? panel.heat : model.heat(stream, phase, panel.options.use);
  const { projection } = panel.heat;
  const end = model.head.batches[phase];
  if (!projection || batch >= end) return null;
  const { width, base } = heat;
  const first = Math.floor(batch / width) * width;
  const found = heat.at(batch);
  const last = Math.min(first + width, end) - 1;
  const held = found?.columns.known[found.at] === 2;
  const exact = ask && !held ? model.known("column", { stream: stream.id, phase, start: first, batches: width, width: base }) : undefined;
  if (exact && !(exact instanceof Error)) {
    const { counters } = exact;
    const finite = finiteOf(counters);
    const mean = exact.moments.sum / finite;
    return {
      phase, first, last, number: exact.recorded, rows: projectSum(exact, projection), counts: denseCounts(exact, stream.axis), counters,
      moments: { mean, std: Math.sqrt(Math.max(exact.moments.sum_sq / finite - mean * mean, 0)), min: exact.moments.min ?? NaN, max: exact.moments.max ?? NaN },
      exact: true, held: false,
    };
  }
  if (!found || phase !== panel.phase) return null;
  const { columns, at } = found;
  const rows = Float64Array.from({ length: columns.rows + 2 }, (_, row) => columns.sums[row * columns.length + at]);
  const counters = Object.fromEntries(COUNTED.map((name) => [name, columns.of[name][at]]));
  const { min, max } = columns.of;
  return { phase, first, last, number: columns.of.number[at], rows, counts: null, counters, moments: { ...meanAndStd(columns, at), min: min[at], max: max[at] }, exact: false, held };
}

/**
 * @param {Column} column
 */
export function batchesText({ phase, first, last }) {
  return first === last ? `${phase} batch ${countText(first)}` : `${phase} batches ${countText(first)}–${countText(last)}`;
}

/**
 * Mark the pinned columns on a map.
 * @param {CanvasRenderingContext2D} ctx
 * @param {import("./stage.js").Box} box Of the map.
 * @param {Panel} panel
 * @param {number} ratio
 */
export function drawPins(ctx, box, panel, ratio) {
  const { app, view, phase, heat } = panel;
  for (const pin of pinsOf(app.state.pins)) {
    if (pin.phase !== phase || pin.batch >= view.end) continue;
    const middle = Math.floor(pin.batch / heat.width) * heat.width + heat.width / 2;
    if (middle < view.from || middle > view.to) continue;
    const x = Math.round(box.x + ((middle - view.from) / (view.to - view.from)) * box.w) + 0.5;
    ctx.lineWidth = 3 * ratio;
    ctx.strokeStyle = app.inks.paper;
    line(ctx, x, box.y, x, box.y + box.h);
    ctx.lineWidth = 1.4 * ratio;
    ctx.strokeStyle = app.inks.lines[PIN_COLORS[pin.letter]];
    line(ctx, x, box.y, x, box.y + box.h);
    const size = 13 * ratio;
    ctx.fillStyle = app.inks.lines[PIN_COLORS[pin.letter]];
    const left = Math.min(Math.max(x - size / 2, box.x), box.x + box.w - size);
    ctx.fillRect(left, box.y, size, size);
    write(ctx, pin.letter, left + size / 2, box.y + 10 * ratio, { size: 10 * ratio, color: app.inks.paper, align: "center", weight: "700" });
  }
}

/** The exact numbers of the pinned columns, their choice by key, and the button that clears them. */
export class PinTable {
  /**
   * @param {App} app
   * @param {Panel} panel The large map.
   */
  constructor(app, panel) {
    this.app = app;
    this.panel = panel;
    this.said = "";
    /** @type {HTMLInputElement[]} */
    this.inputs = ["A", "B"].map((letter) =>
      make("input", {
        type: "number", min: 0, step: 1, "aria-label": `batch of column ${letter}`, "data-key": `pin ${letter}`, class: "cd-pin",
        on: {
          change: () => this.take(),
          keydown: (/** @type {KeyboardEvent} */ event) => event.key !== "Escape" && event.stopPropagation(),
        },
      }),
    );
    this.clear = make("button", { type: "button", text: "clear", "aria-label": "clear the pinned columns", "data-key": "clear pins", on: { click: () => app.set({ pins: "" }) } });
    this.table = make("table", { class: "cd-numbers" });
    this.hint = make("span", { class: "cd-note", text: "a click on the map pins a column, the next one another" });
    const labels = this.inputs.map((input, i) => make("label", { class: "cd-choice" }, [make("b", { class: `cd-pin-${i ? "b" : "a"}`, text: i ? "B" : "A" }), input]));
    this.element = make("section", { class: "cd-pins", "aria-label": "pinned columns" }, [
      make("div", { class: "cd-line" }, [make("span", { class: "cd-muted", text: "compare the batches" }), ...labels, this.clear, this.hint]),
      make("div", { class: "cd-list" }, [this.table]),
    ]);
  }

  take() {
    const prefix = this.panel.phase === "valid" ? "v" : "";
    const pins = pinsOf(this.app.state.pins);
    const texts = this.inputs.map((input, i) => (input.value === "" ? "" : `${pins[i]?.phase === "valid" ? "v" : pins[i] ? "" : prefix}${Math.max(Math.floor(Number(input.value)) || 0, 0)}`));
    this.app.set({ pins: texts.filter(Boolean).join(",") });
  }

  update() {
    const { app, panel } = this;
    const pins = pinsOf(app.state.pins);
    const columns = pins.map((pin) => columnAt(panel, pin.phase, pin.batch, true));
    const difference = pinDifference(columns);
    const data = { A: columns[0] ?? null, B: columns[1] ?? null, difference };
    const said = JSON.stringify([app.state.pins, columns.map((column) => column && [column.first, column.last, column.exact, column.counters, column.moments])]);
    if (said === this.said) return;
    this.said = said;
    Object.assign(this.element, { cdData: data });
    this.inputs.forEach((input, i) => {
      input.max = String(Math.max(panel.model.head.batches[pins[i]?.phase ?? panel.phase] - 1, 0));
      input.disabled = i > 0 && !pins.length;
      const value = pins[i] ? String(pins[i].batch) : "";
      if (input.value !== value && document.activeElement !== input) input.value = value;
      else if (!pins[i]) input.value = "";
    });
    this.clear.disabled = !pins.length;
    this.hint.hidden = pins.length > 0;
    this.table.hidden = !pins.length;
    if (!pins.length) {
      this.table.replaceChildren();
      return;
    }
    const names = ["", "batches", "values", "mean", "std", "min", "max", "zeros", "below the bins", "above the bins", "NaN", "Inf", "numbers"];
    const rows = pins.map((pin, i) => {
      const column = columns[i];
      const cells = column ? [batchesText(column), ...numbersOf(column), column.exact ? "exact" : column.held ? "not recorded: as the one before" : "bins estimated"] : ["…"];
      return pinRow(pin.letter, `cd-pin-${pin.letter.toLowerCase()}`, cells);
    });
    const [a, b] = columns;
    if (a && b) {
      const { moments: m, counters: c } = a;
      const { moments: n, counters: d } = b;
      const share = (/** @type {string} */ name) => signedPercent(d[name] / d.size - c[name] / c.size);
      rows.push(
        pinRow("B − A", "cd-pin-difference", ["", signedCount(d.size - c.size), ...[n.mean - m.mean, n.std - m.std, n.min - m.min, n.max - m.max].map(signedText), share("zeros"),
          ...["under", "over", "nan"].map((name) => signedCount(d[name] - c[name])), signedCount(d.pos_inf + d.neg_inf - c.pos_inf - c.neg_inf), ""]),
      );
    }
    this.table.replaceChildren(
      make("caption", { class: "cd-hidden", text: "Numbers of the pinned columns and their difference" }),
      make("thead", {}, [make("tr", {}, names.map((text) => (text ? make("th", { scope: "col", text }) : make("td"))))]),
      make("tbody", {}, rows),
    );
  }
}

/**
 * Bin by bin B less A, and the same of the shares in the rows; null unless both are known.
 * @param {(Column | null)[]} columns
 */
export function pinDifference([a, b]) {
  if (!a || !b) return null;
  const shares = b.rows.map((count, i) => count / Math.max(b.counters.size, 1) - a.rows[i] / Math.max(a.counters.size, 1));
  const { counts } = a;
  return { rows: shares, counts: counts && b.counts ? b.counts.map((count, i) => count - counts[i]) : null, exact: a.exact && b.exact };
}

/** @param {Column} column */
function numbersOf({ counters, moments }) {
  const { size } = counters;
  return [
    countText(size), ...[moments.mean, moments.std, moments.min, moments.max].map(valueText), percentText(counters.zeros / size),
    countText(counters.under), countText(counters.over), countText(counters.nan), countText(counters.pos_inf + counters.neg_inf),
  ];
}

/**
 * @param {string} letter
 * @param {string} className
 * @param {string[]} cells
 */
function pinRow(letter, className, cells) {
  return make("tr", {}, [make("th", { scope: "row", class: className, text: letter }), ...cells.map((text) => make("td", { text }))]);
}

/** @param {number} value */
function signedText(value) {
  return value > 0 ? `+${valueText(value)}` : valueText(value);
}

/** @param {number} value */
function signedCount(value) {
  return `${value > 0 ? "+" : value < 0 ? "−" : ""}${countText(Math.abs(value))}`;
}

/** @param {number} share */
function signedPercent(share) {
  return `${share > 0 ? "+" : share < 0 ? "−" : ""}${percentText(Math.abs(share))}`;
}
