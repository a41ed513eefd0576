// @ts-check
/**
 * What the mouse does: one cursor through all panels, the exact numbers under it, panning and zooming.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./panel.js").Panel} Panel
 */
import { axisOf } from "./axis.js";
import { COUNT_OF_CODE } from "./codes.js";
import { meanAndStd } from "./columns.js";
import { make, shortName } from "./dom.js";
import { countText, percentText, valueText } from "./format.js";
import { askJson } from "./source.js";
import { forward, inverse } from "./window.js";

/** Pixels that the mouse may move in a click. */
const CLICK = 4;
/** Milliseconds of rest after which the exact numbers are asked for. */
const REST = 90;

export class Pointer {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    /** @type {Set<Panel>} */
    this.panels = new Set();
    this.tip = make("div", { class: "cd-tip", hidden: true });
    app.root.append(this.tip);
    this.rest = 0;
    this.asked = 0;
    /** @type {{panel: Panel, x: number, y: number, view: [number, number], moved: boolean, select: boolean} | null} */
    this.drag = null;
    /** @type {number | null} */
    this.batch = null;
  }

  clear() {
    this.panels.clear();
    this.leave();
  }

  /** @param {Panel} panel */
  attach(panel) {
    this.panels.add(panel);
    const { plot } = panel;
    plot.addEventListener("pointermove", (event) => this.move(panel, event));
    plot.addEventListener("pointerleave", () => this.leave());
    plot.addEventListener("pointerdown", (event) => this.down(panel, event));
    plot.addEventListener("pointerup", (event) => this.up(panel, event));
    plot.addEventListener("pointercancel", () => (this.drag = null));
    plot.addEventListener("wheel", (event) => this.wheel(panel, event), { passive: false });
  }

  /**
   * @param {Panel} panel
   * @param {PointerEvent} event
   */
  move(panel, event) {
    if (this.drag && event.buttons) {
      const { drag, app } = this;
      if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > CLICK) drag.moved = true;
      if (!drag.moved) return;
      const width = panel.at(drag.x, drag.y)?.width ?? panel.plot.clientWidth;
      const [from, to] = drag.view;
      const shift = ((event.clientX - drag.x) / width) * (to - from);
      if (drag.select) this.point(panel, event);
      else app.showBatches(from - shift, to - shift, drag.panel.phase);
      return;
    }
    this.drag = null;
    this.point(panel, event);
  }

  /**
   * @param {Panel} panel
   * @param {PointerEvent} event
   */
  point(panel, event) {
    const at = panel.at(event.clientX, event.clientY);
    if (!at) {
      this.leave();
      return;
    }
    this.batch = at.batch;
    for (const each of this.panels) each.point(each.phase === panel.phase ? at.batch : null);
    this.app.onCursor(panel, at.batch);
    const found = panel.heat.at(at.batch);
    clearTimeout(this.rest);
    if (!found) {
      this.tip.hidden = true;
      return;
    }
    const cell = cellAt(panel, at.place);
    this.tell(panel, found, cell, null, event);
    const asked = ++this.asked;
    this.rest = window.setTimeout(() => this.askExactly(panel, found, cell, event, asked), REST);
  }

  /**
   * @param {Panel} panel
   * @param {{columns: import("./columns.js").Columns, at: number}} found
   * @param {Cell} cell
   * @param {PointerEvent} event
   * @param {number} asked
   */
  async askExactly(panel, found, cell, event, asked) {
    const { columns, at } = found;
    const start = columns.first + at * columns.width;
    if (columns.known[at] !== 1) return;
    try {
      const exact = await askJson(panel.model.source, "column", {
        stream: panel.stream.id, phase: panel.phase, start, batches: columns.width, width: panel.heat.base,
      });
      if (asked === this.asked && !this.tip.hidden) this.tell(panel, found, cell, exact, event);
    } catch {
      // a report has no more than what it shows: the estimate stands, and says that it is one
    }
  }

  /**
   * @param {Panel} panel
   * @param {{columns: import("./columns.js").Columns, at: number}} found
   * @param {Cell} cell
   * @param {any} exact
   * @param {PointerEvent} event
   */
  tell(panel, found, cell, exact, event) {
    const { columns, at } = found;
    const { of, width } = columns;
    const first = columns.first + at * width;
    const last = Math.min(first + width, panel.view.end) - 1;
    const epochs = panel.model.marks.epochs[panel.phase];
    const epoch = epochs.number[epochs.first.findLastIndex((/** @type {number} */ e) => e <= first)];
    const size = exact ? exact.counters.size : of.size[at];
    let count = estimate(panel, found, cell);
    let said = count > 0 && count < 1 ? "less than 1" : `≈ ${countText(Math.round(count))}`;
    if (exact) {
      count = exactCount(panel, cell, exact);
      said = countText(count);
    }
    const { mean, std } = meanAndStd(columns, at);
    const where = width === 1 ? `batch ${countText(first)}` : `batches ${countText(first)}–${countText(last)}, added up`;
    const held = columns.known[at] === 2 ? " (not recorded: as the one before)" : "";
    const bad = of.nan[at] + of.pos_inf[at] + of.neg_inf[at];
    const lines = [
      make("b", { text: `${shortName(panel.stream.name, 60)}${panel.options.mark ? ` · ${panel.options.mark}` : ""}` }),
      make("span", { text: `${panel.phase} ${where}${held}${epoch === undefined ? "" : ` · epoch ${epoch}`}` }),
      make("span", { text: cell.text }),
      make("span", { class: "cd-count", text: `${said} of ${countText(size)} values · ${percentText(count / size)}` }),
      make("span", { text: of.finite[at] ? `mean ${valueText(mean)} · std ${valueText(std)} · ${valueText(of.min[at])} to ${valueText(of.max[at])}` : "no finite values" }),
      make("span", { text: `${countText(of.zeros[at])} exact zeros · ${percentText(of.zeros[at] / of.size[at])}` }),
      bad > 0 && make("span", { class: "cd-bad", text: `NaN ${countText(of.nan[at])} · Inf ${countText(of.pos_inf[at])} · −Inf ${countText(of.neg_inf[at])}` }),
    ];
    this.tip.replaceChildren(...lines.filter((each) => each instanceof Node));
    this.tip.hidden = false;
    const frame = this.app.root.getBoundingClientRect();
    const x = event.clientX - frame.left;
    const y = event.clientY - frame.top;
    this.tip.style.left = `${Math.max(Math.min(x + 14, frame.width - this.tip.offsetWidth - 8), 4)}px`;
    this.tip.style.top = `${y + 18 + this.tip.offsetHeight > frame.height ? y - this.tip.offsetHeight - 12 : y + 18}px`;
  }

  /** What the tip says is no longer there. */
  hide() {
    clearTimeout(this.rest);
    this.asked++;
    this.tip.hidden = true;
  }

  leave() {
    clearTimeout(this.rest);
    this.asked++;
    this.batch = null;
    this.tip.hidden = true;
    for (const each of this.panels) each.point(null);
    this.app.onCursor(null, null);
  }

  /**
   * @param {Panel} panel
   * @param {PointerEvent} event
   */
  down(panel, event) {
    const at = panel.at(event.clientX, event.clientY);
    if (!at || event.button) return;
    const { from, to } = panel.view;
    this.drag = { panel, x: event.clientX, y: event.clientY, view: [from, to], moved: false, select: event.shiftKey };
    panel.plot.setPointerCapture(event.pointerId);
  }

  /**
   * @param {Panel} panel
   * @param {PointerEvent} event
   */
  up(panel, event) {
    const { drag } = this;
    this.drag = null;
    if (!drag) return;
    if (!drag.moved) {
      const at = panel.at(event.clientX, event.clientY);
      if (at) this.app.clicked(panel, Math.floor(at.batch));
    } else if (drag.select) {
      const one = panel.at(drag.x, drag.y);
      const other = panel.at(event.clientX, event.clientY);
      if (one && other) this.app.showBatches(Math.min(one.batch, other.batch), Math.max(one.batch, other.batch), panel.phase);
    }
  }

  /**
   * On the wall the wheel scrolls: Ctrl zooms batches, Alt values, Shift pans. On a large map it zooms without a key.
   * @param {Panel} panel
   * @param {WheelEvent} event
   */
  wheel(panel, event) {
    const at = panel.at(event.clientX, event.clientY);
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const zooms = event.ctrlKey || event.metaKey || event.altKey;
    if (!at || !(zooms || event.shiftKey || sideways || panel.options.large)) return;
    const { from, to } = panel.view;
    const delta = (sideways ? event.deltaX : event.deltaY) * (event.deltaMode === 1 ? 16 : 1);
    if (!zooms && !event.shiftKey && !sideways && delta > 0 && !this.app.state.x) return; // nothing to zoom out: the page scrolls
    event.preventDefault();
    if (event.altKey) {
      this.zoomValues(panel, Math.exp(delta * 0.002), at.place);
    } else if (event.shiftKey || sideways) {
      const shift = (delta / at.width) * (to - from);
      this.app.showBatches(from + shift, to + shift, panel.phase);
    } else {
      const factor = Math.exp(delta * 0.002);
      this.app.showBatches(at.batch - (at.batch - from) * factor, at.batch + (to - at.batch) * factor, panel.phase);
    }
  }

  /**
   * @param {Panel} panel
   * @param {number} factor
   * @param {number} place From the top of the window, as a share of its height.
   */
  zoomValues(panel, factor, place) {
    const { window: shown } = panel;
    const low = forward(shown, shown.lo);
    const high = forward(shown, shown.hi);
    let at = high - place * (high - low);
    if (low === -high && Math.abs(at) < 0.15 * high) at = 0; // zero stays where it is, if one points near it
    const lo = inverse(shown, at - (at - low) * factor);
    const hi = inverse(shown, at + (high - at) * factor);
    if (hi - lo > 1e-12 && hi < 1e30 && lo > -1e30) this.app.set({ window: `${Number(lo.toPrecision(4))},${Number(hi.toPrecision(4))}` });
  }
}

/**
 * @typedef {{from: number, to: number, first: number, last: number, text: string, side: number}} Cell The values
 * that are pointed at: the bins from `first` to before `last`, whole, so that their count is exact. `side`: -1 below the
 * window, 1 above.
 */

/**
 * The bins of the row at a place, from the top of the window, as a share of its height.
 * @param {Panel} panel
 * @param {number} place
 * @returns {Cell}
 */
export function cellAt(panel, place) {
  const { edges } = axisOf(panel.stream.axis);
  const shown = panel.window;
  const rows = panel.heat.projection?.rows ?? 2;
  if (place < 0) {
    const from = edges.find((edge) => edge >= shown.hi) ?? Infinity;
    return { from, to: Infinity, first: 0, last: 0, side: 1, text: `values above ${valueText(Math.min(from, edges[edges.length - 1]))}` };
  }
  if (place >= 1) {
    const to = edges.findLast((edge) => edge <= shown.lo) ?? -Infinity;
    return { from: -Infinity, to, first: 0, last: 0, side: -1, text: `values below ${valueText(Math.max(to, edges[0]))}` };
  }
  const low = forward(shown, shown.lo);
  const high = forward(shown, shown.hi);
  const row = Math.floor((1 - place) * rows);
  const bottom = inverse(shown, low + ((high - low) * row) / rows);
  const top = inverse(shown, low + ((high - low) * (row + 1)) / rows);
  // each bin belongs to the one row that its middle lies in; of a bin that is wider all rows tell the same
  const bins = edges.length - 1;
  const middle = (/** @type {number} */ bin) => (edges[bin] + edges[bin + 1]) / 2;
  let first = 0;
  while (first < bins && middle(first) < bottom) first++;
  let last = first;
  while (last < bins && middle(last) < top) last++;
  if (first === last) {
    const center = (bottom + top) / 2;
    first = Math.max(Math.min(edges.findLastIndex((edge) => edge <= center), bins - 1), 0);
    last = first + 1;
  }
  return { from: edges[first], to: edges[last], first, last, side: 0, text: `values from ${valueText(edges[first])} to ${valueText(edges[last])}` };
}

/**
 * The count of a cell as the codes of the tiles have it.
 * @param {Panel} panel
 * @param {{columns: import("./columns.js").Columns, at: number}} found
 * @param {Cell} cell
 */
function estimate(panel, { columns, at }, cell) {
  const { heat, view, model, stream, phase } = panel;
  const [start, width] = [columns.first + at * columns.width, columns.width];
  if (cell.side) return columns.sums[(cell.side < 0 ? 0 : columns.rows + 1) * columns.length + at];
  let sum = 0;
  const span = view.tile * heat.base;
  for (let index = Math.floor(start / span); index * span < start + width; index++) {
    const slot = model.store.want(stream.id, phase, heat.base, index);
    slot?.pieces.forEach((piece, p) => {
      const stop = Math.min(slot.pieces[p + 1]?.start ?? Infinity, piece.start + piece.columns * heat.base, start + width);
      const from = Math.max((start - piece.start) / heat.base, 0);
      const fresh = columns.known[at] === 1;
      let held = false;
      for (let c = from; c < (stop - piece.start) / heat.base; c++) {
        if (fresh ? piece.arrays.held[c] : held) continue;
        held = true;
        piece.bins.forEach((bin, b) => {
          const code = b * piece.columns + c;
          if (bin >= cell.first && bin < cell.last) sum += piece.counts ? piece.counts[code] : COUNT_OF_CODE[piece.codes[code]];
        });
      }
    });
  }
  return sum;
}

/**
 * @param {Panel} panel
 * @param {Cell} cell
 * @param {any} exact
 */
function exactCount(panel, cell, exact) {
  const { edges } = axisOf(panel.stream.axis);
  let sum = cell.side < 0 ? exact.counters.under : cell.side > 0 ? exact.counters.over : 0;
  exact.bins.forEach((/** @type {number} */ bin, /** @type {number} */ i) => {
    const lower = edges[bin];
    const upper = edges[bin + 1];
    const inside = cell.side ? lower >= cell.from && upper <= cell.to : bin >= cell.first && bin < cell.last;
    if (inside) sum += exact.counts[i];
  });
  return sum;
}
