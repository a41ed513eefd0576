// @ts-check
/**
 * The histogram of a column beside its map, on the map's own axis of values.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./panel.js").Panel} Panel
 * @typedef {import("./stage.js").Box} Box
 * @typedef {import("./pins.js").Column} Column
 * @typedef {{phase: string, batch: number, rested: boolean} | null} Hover The column under the cursor.
 */
import { make } from "./dom.js";
import { compactText, countText, percentText, valueText } from "./format.js";
import { bands } from "./heat.js";
import { drawFrame, drawValues, drawZero, line, write } from "./marks.js";
import { batchesText, columnAt, PIN_COLORS, pinDifference, pinsOf } from "./pins.js";
import { linearTicks } from "./window.js";

export class Histogram {
  /**
   * @param {App} app
   * @param {Panel} panel
   * @param {() => Hover} hover
   */
  constructor(app, panel, hover) {
    this.app = app;
    this.panel = panel;
    this.hover = hover;
    this.plot = make("div", { class: "cd-plot", role: "img", "aria-label": "histogram of a column" });
    this.note = make("p", { class: "cd-type" });
    this.element = make("article", { class: "cd-panel cd-histogram" }, [make("header", {}, [make("h3", { text: "one column" }), this.note]), this.plot]);
    this.said = "";
    app.stage.add({ element: this.plot, draw: (ctx, box, ratio) => this.draw(ctx, box, ratio) });
  }

  /** The columns on show. */
  columns() {
    const { app, panel } = this;
    const { view } = panel;
    const hover = this.hover();
    const pins = pinsOf(app.state.pins).map((pin) => columnAt(panel, pin.phase, pin.batch, true));
    let own = null;
    if (hover && hover.phase === panel.phase) own = columnAt(panel, panel.phase, Math.floor(hover.batch), hover.rested);
    else if (!pins.length) own = columnAt(panel, panel.phase, Math.max(Math.min(Math.ceil(view.to), view.end) - 1, 0), true);
    return { own, hovered: Boolean(hover), a: pins[0] ?? null, b: pins[1] ?? null };
  }

  /**
   * @param {CanvasRenderingContext2D} ctx
   * @param {Box} box
   * @param {number} ratio
   */
  draw(ctx, box, ratio) {
    const { app, panel } = this;
    const { inks } = app;
    const inner = panel.inner(box, ratio);
    const { top, strip, window: height } = bands(inner.h);
    const field = { x: inner.x, y: inner.y + top, w: inner.w, h: height };
    drawFrame(ctx, field, inks);
    drawValues(ctx, field, panel.window, inks, ratio);
    drawZero(ctx, field, panel.window, inks, ratio);
    const shown = this.columns();
    const { own, a, b } = shown;
    const counts = app.state.color === "count";
    /** @param {Column | null} column */
    const heights = (column) => column && column.rows.map((count) => count / Math.max(counts ? column.number : column.counters.size, 1));
    const [mine, first, second] = [own, a, b].map(heights);
    const difference = first && second ? second.map((each, i) => each - first[i]) : null;
    this.describe(shown);
    Object.assign(this.plot, { cdData: { ...shown, difference: pinDifference([a, b]), rows: { own: mine, a: first, b: second, difference } } });
    const all = [mine, first, second, difference].flatMap((each) => (each ? [...each] : []));
    if (!all.length) return;
    const most = all.reduce((p, q) => Math.max(p, q), 0) || 1;
    const least = all.reduce((p, q) => Math.min(p, q), 0);
    const faintest = all.reduce((p, q) => (q > 0 && q < p ? q : p), most);
    const logs = app.state.counts === "log";
    // with a linear part below the faintest bar, so that none of it is nothing
    /** @param {number} v */
    const f = (v) => (logs ? Math.sign(v) * Math.log10(1 + (3 * Math.abs(v)) / faintest) : v);
    const [low, high] = [f(least), f(most) * 1.06];
    /** @param {number} v */
    const px = (v) => field.x + ((f(v) - low) / (high - low)) * field.w;
    const rows = (mine ?? first ?? second ?? []).length - 2;
    /**
     * Bottom and height of a row; those outside of the window lie in the strips.
     * @param {number} row
     * @returns {[number, number]}
     */
    const place = (row) => {
      if (row === 0) return [inner.y + inner.h - strip, strip];
      if (row === rows + 1) return [inner.y, strip];
      return [field.y + (field.h * (rows - row)) / rows, field.h / rows];
    };
    /**
     * @param {Float64Array} values
     * @param {string} color
     * @param {number} alpha
     */
    const fill = (values, color, alpha) => {
      ctx.fillStyle = color;
      ctx.globalAlpha = alpha;
      values.forEach((value, row) => {
        if (!value) return;
        const [y, tall] = place(row);
        const x = px(value);
        ctx.fillRect(Math.min(x, px(0)), y, Math.max(Math.abs(x - px(0)), ratio), Math.max(tall, 1));
      });
      ctx.globalAlpha = 1;
    };
    /**
     * @param {Float64Array} values
     * @param {string} color
     */
    const outline = (values, color) => {
      ctx.strokeStyle = color;
      ctx.lineWidth = 1.3 * ratio;
      ctx.beginPath();
      for (let row = rows; row >= 1; row--) {
        const [y, tall] = place(row);
        ctx.lineTo(px(values[row]), y);
        ctx.lineTo(px(values[row]), y + tall);
      }
      ctx.stroke();
    };
    if (mine) fill(mine, first ? inks.muted : inks.lines[0], first ? 0.35 : 0.85);
    if (difference) fill(difference, inks.lines[PIN_COLORS.difference], 0.6);
    if (first) outline(first, inks.lines[PIN_COLORS.A]);
    if (second) outline(second, inks.lines[PIN_COLORS.B]);
    if (low < 0) {
      ctx.strokeStyle = inks.muted;
      ctx.lineWidth = 1;
      line(ctx, px(0), field.y, px(0), field.y + field.h);
    }
    /** @param {number} v */
    const text = (v) => (counts ? compactText(Math.abs(v)) : percentText(Math.abs(v)).replace(" %", "%"));
    const ticks = logs ? decadeTicks(faintest, most, least) : linearTicks(least, most * 1.06, Math.max(Math.floor(field.w / (56 * ratio)), 2));
    const y = inner.y + inner.h;
    ctx.font = `${10 * ratio}px system-ui, sans-serif`;
    let right = -Infinity;
    ticks.forEach((tick) => {
      const x = px(tick);
      const said = `${tick < 0 ? "−" : ""}${text(tick)}`;
      const half = ctx.measureText(said).width / 2;
      const middle = Math.min(Math.max(x, field.x + half), field.x + field.w - half);
      if (middle - half < right + 6 * ratio) return;
      right = middle + half;
      ctx.strokeStyle = inks.rule;
      line(ctx, x, y, x, y + 3 * ratio);
      write(ctx, said, middle, y + 13 * ratio, { size: 10 * ratio, color: inks.muted, align: "center" });
    });
  }

  /** @param {{own: Column | null, hovered: boolean, a: Column | null, b: Column | null}} shown */
  describe({ own, hovered, a, b }) {
    const { inks } = this.app;
    /** @type {[string, string][]} */
    const parts = [];
    if (a) parts.push([`A ${batchesText(a)}`, inks.lines[PIN_COLORS.A]]);
    if (b) parts.push([`B ${batchesText(b)}`, inks.lines[PIN_COLORS.B]]);
    if (a && b) parts.push(["B − A", inks.lines[PIN_COLORS.difference]]);
    if (own) parts.push([`${hovered || a ? "" : "the last: "}${batchesText(own)}${own.exact ? "" : own.held ? " (as the one before)" : " (estimated)"}`, a ? inks.muted : inks.lines[0]]);
    const said = parts.map(([text]) => text).join("; ");
    if (said === this.said) return;
    this.said = said;
    this.note.replaceChildren(...parts.flatMap(([text, color], i) => {
      const span = make("span", { text });
      span.style.color = color;
      return i ? [" · ", span] : [span];
    }));
    this.note.title = said;
    const words = [own, a, b].filter((each) => each !== null).map((column) => {
      const { counters, moments } = column;
      return `${batchesText(column)}: ${countText(counters.size)} values, mean ${valueText(moments.mean)}, standard deviation ${valueText(moments.std)}, zeros ${percentText(counters.zeros / counters.size)}`;
    });
    this.plot.setAttribute("aria-label", words.length ? `Histogram of ${words.join("; ")}.` : "Histogram of a column: no values yet.");
  }
}

/**
 * Decades between the faintest and the largest bar, to both sides.
 * @param {number} faintest
 * @param {number} most
 * @param {number} least
 */
function decadeTicks(faintest, most, least) {
  const ticks = [0];
  for (let e = Math.floor(Math.log10(most)); e >= Math.log10(faintest) - 0.5; e--) {
    ticks.push(10 ** e);
    if (least < 0 && -(10 ** e) >= least) ticks.push(-(10 ** e));
  }
  return ticks.sort((p, q) => p - q);
}
