// @ts-check
/**
 * Twin peaks: what a layer says at the end of an epoch's training against its validation. As colordim/charts/twin_peaks.py,
 * but with the values to the right.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./stage.js").Box} Box
 * @typedef {import("./run.js").Stream} Stream
 * @typedef {{batches: number, size: number, counts: Float64Array, rows: Float64Array, share: Float64Array}} Side
 *   `counts` of all bins, `rows` of the window and of what lies below and above it, `share` of the values in each row.
 * @typedef {{epoch: number, edges: Float64Array, train: Side | null, valid: Side | null}} TwinData
 */
import { axisOf, project } from "./axis.js";
import { make, shortName } from "./dom.js";
import { compactText, percentText, plural, valueText } from "./format.js";
import { line, write } from "./marks.js";
import { GUTTER } from "./panel.js";
import { findPeaks } from "./peaks.js";
import { denseCounts, projectSum, rowsFor } from "./profile.js";
import { forward, linearTicks, rowEdges, windowTicks } from "./window.js";

const SIDES = /** @type {("train" | "valid")[]} */ (["train", "valid"]);
const WHAT = { train: "training, last quarter of the epoch", valid: "validation, the whole pass" };

export class TwinChart {
  /**
   * @param {App} app
   * @param {Stream} stream
   * @param {() => number | null} epoch
   * @param {{title: string, small?: boolean, window: () => import("./window.js").Window, most?: () => number}} options
   *   `most`: the highest bar of all charts that share an axis.
   */
  constructor(app, stream, epoch, options) {
    this.app = app;
    this.stream = stream;
    this.epoch = epoch;
    this.options = options;
    this.plot = make("div", { class: options.small ? "cd-twin cd-small" : "cd-twin", role: "img", "aria-label": options.title });
    this.note = make("span", { class: "cd-note" });
    this.missing = make("p", { class: "cd-type" });
    this.element = make("article", { class: "cd-panel" }, [
      make("header", {}, [make("h3", {}, [make("bdi", { text: shortName(options.title) })]), this.note, options.small ? null : this.missing]),
      this.plot,
    ]);
    /** @type {TwinData | null} What is drawn: the last that has come. */
    this.data = null;
    this.answer = null;
    this.made = "";
    this.trouble = "";
    app.stage.add({ element: this.plot, prepare: () => this.take(), draw: (ctx, box, ratio) => this.draw(ctx, box, ratio) });
  }

  /** The answer for the epoch that is wanted. */
  asked() {
    const epoch = this.epoch();
    return epoch === null ? null : this.app.need().known("twin", { stream: this.stream.id, epoch });
  }

  take() {
    const answer = this.asked();
    if (answer instanceof Error) this.trouble = answer.message;
    else if (answer) {
      this.trouble = "";
      this.answer = answer;
    }
    if (!this.answer) return;
    const found = this.answer;
    const shown = this.options.window();
    const sizes = SIDES.map((side) => found[side].counters.size).filter((size) => size > 0);
    const number = rowsFor(sizes.length ? Math.min(...sizes) : 0);
    const made = `${found.epoch} ${sizes.join()} ${number} ${shown.lo} ${shown.hi} ${shown.scale} ${shown.linthresh}`;
    if (made === this.made && this.data) return;
    this.made = made;
    const edges = rowEdges(shown, number);
    const projection = project(axisOf(this.stream.axis), edges);
    /** @param {"train" | "valid"} side @returns {Side | null} */
    const sideOf = (side) => {
      const { size } = found[side].counters;
      if (!size) return null;
      const rows = projectSum(found[side], projection);
      return { batches: found[side].batches, size, counts: denseCounts(found[side], this.stream.axis), rows, share: rows.map((count) => count / size) };
    };
    this.data = { epoch: found.epoch, edges, train: sideOf("train"), valid: sideOf("valid") };
    Object.assign(this.plot, { cdData: this.data });
    this.describe(this.data);
  }

  /**
   * Heights of the bars of a side: shares, or counts a batch.
   * @param {Side} side
   */
  heights(side) {
    return this.app.state.color === "count" ? side.rows.map((count) => count / Math.max(side.batches, 1)) : side.share;
  }

  /** The highest bar. */
  get highest() {
    const { data } = this;
    let most = 0;
    for (const side of SIDES) {
      const values = data?.[side];
      if (values) this.heights(values).subarray(1, -1).forEach((value) => (most = Math.max(most, value)));
    }
    return most;
  }

  /**
   * @param {CanvasRenderingContext2D} ctx
   * @param {Box} box
   * @param {number} ratio
   */
  draw(ctx, box, ratio) {
    const { app, data, options } = this;
    const { inks } = app;
    const left = (options.small ? 4 : GUTTER.left) * ratio;
    const inner = { x: box.x + left, y: box.y + 4 * ratio, w: Math.max(box.w - left - 1, 1), h: Math.max(box.h - 4 * ratio - GUTTER.bottom * ratio, 8) };
    const shown = options.window();
    const low = forward(shown, shown.lo);
    const high = forward(shown, shown.hi);
    /** @param {number} value */
    const px = (value) => inner.x + (inner.w * (forward(shown, value) - low)) / (high - low);
    const bottom = inner.y + inner.h;
    ctx.strokeStyle = inks.rule;
    ctx.lineWidth = 1;
    line(ctx, inner.x, bottom + 0.5, inner.x + inner.w, bottom + 0.5);
    for (const tick of windowTicks(shown, Math.max(Math.floor(inner.w / (70 * ratio)), 2))) {
      const x = px(tick);
      line(ctx, Math.round(x) + 0.5, bottom, Math.round(x) + 0.5, bottom + 3 * ratio);
      const align = x > inner.x + inner.w - 16 * ratio ? "right" : x < inner.x + 16 * ratio ? "left" : "center";
      write(ctx, valueText(tick), x, bottom + 13 * ratio, { size: 10 * ratio, color: inks.muted, align });
    }
    if (!data) {
      write(ctx, this.trouble || (this.epoch() === null ? "The run has no epochs yet." : "…"), inner.x + 8 * ratio, inner.y + inner.h / 2, { size: 11 * ratio, color: inks.muted });
      return;
    }
    const highest = (options.most?.() || this.highest) || 1;
    const top = (options.small ? 1.08 : 1.45) * highest;
    /** @param {number} value */
    const py = (value) => bottom - (inner.h * value) / top;
    if (!options.small) {
      const counts = app.state.color === "count";
      for (const tick of linearTicks(0, highest, Math.max(Math.floor(inner.h / (40 * ratio)), 2))) {
        const y = Math.round(py(tick)) + 0.5;
        line(ctx, inner.x - 3 * ratio, y, inner.x, y);
        write(ctx, counts ? compactText(tick) : percentText(tick).replace(" %", "%"), inner.x - 5 * ratio, y + 3.5 * ratio, { size: 10 * ratio, color: inks.muted, align: "right" });
      }
    }
    ctx.save();
    ctx.beginPath();
    ctx.rect(inner.x, inner.y - 2, inner.w, inner.h + 3);
    ctx.clip();
    if (shown.lo < 0 && shown.hi > 0) {
      ctx.strokeStyle = inks.zero;
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.lineWidth = Math.max(0.7 * ratio, 1);
      line(ctx, Math.round(px(0)) + 0.5, inner.y, Math.round(px(0)) + 0.5, bottom);
      ctx.setLineDash([]);
    }
    SIDES.forEach((side, number) => {
      const values = data[side];
      if (!values) return;
      const heights = this.heights(values).subarray(1, -1);
      const path = new Path2D();
      path.moveTo(px(data.edges[0]), bottom);
      heights.forEach((value, row) => {
        path.lineTo(px(data.edges[row]), py(value));
        path.lineTo(px(data.edges[row + 1]), py(value));
      });
      ctx.strokeStyle = ctx.fillStyle = inks.lines[number];
      ctx.lineWidth = 1.3 * ratio;
      ctx.lineJoin = "round";
      ctx.stroke(path);
      path.lineTo(px(data.edges[heights.length]), bottom);
      ctx.globalAlpha = 0.16;
      ctx.fill(path);
      ctx.globalAlpha = 1;
    });
    ctx.restore();
    if (!options.small) SIDES.forEach((side, number) => data[side] && this.drawPeaks(ctx, inner, px, py((1.1 + 0.18 * number) * highest), data[side], inks.lines[number], ratio));
    if (this.trouble) write(ctx, this.trouble, inner.x + 8 * ratio, inner.y + 12 * ratio, { size: 11 * ratio, color: inks.muted });
  }

  /**
   * @param {CanvasRenderingContext2D} ctx
   * @param {Box} inner
   * @param {(value: number) => number} px
   * @param {number} y Of the labels.
   * @param {Side} side
   * @param {string} color
   * @param {number} ratio
   */
  drawPeaks(ctx, inner, px, y, side, color, ratio) {
    const { inks } = this.app;
    const values = this.peaksOf(side);
    const size = 11 * ratio;
    const bottom = inner.y + inner.h;
    ctx.strokeStyle = color;
    ctx.lineWidth = ratio;
    for (const value of values) {
      ctx.setLineDash([1.5 * ratio, 3 * ratio]);
      line(ctx, px(value), y, px(value), bottom);
    }
    ctx.setLineDash([]);
    if (values.length === 2 && px(values[1]) - px(values[0]) > 110 * ratio) {
      const [from, to] = [px(values[0]) + 26 * ratio, px(values[1]) - 26 * ratio];
      line(ctx, from, y, to, y);
      for (const [x, by] of [[from, 4], [to, -4]]) {
        line(ctx, x, y, x + by * ratio, y - 3 * ratio);
        line(ctx, x, y, x + by * ratio, y + 3 * ratio);
      }
      this.label(ctx, valueText(Number((values[1] - values[0]).toPrecision(3))), (from + to) / 2, y, 10 * ratio, inks.paper, "", ratio);
    }
    for (const value of values) this.label(ctx, signedValue(value), px(value), y, size, inks.paper, color, ratio);
  }

  /**
   * A word on a box of its own.
   * @param {CanvasRenderingContext2D} ctx
   * @param {string} text
   * @param {number} x
   * @param {number} y
   * @param {number} size
   * @param {string} paper
   * @param {string} border
   * @param {number} ratio
   */
  label(ctx, text, x, y, size, paper, border, ratio) {
    ctx.font = `${border ? 600 : 400} ${size}px system-ui, sans-serif`;
    const wide = ctx.measureText(text).width + 6 * ratio;
    const tall = size + 4 * ratio;
    ctx.fillStyle = paper;
    ctx.fillRect(x - wide / 2, y - tall / 2, wide, tall);
    if (border) {
      ctx.strokeStyle = border;
      ctx.strokeRect(x - wide / 2, y - tall / 2, wide, tall);
    }
    write(ctx, text, x, y + 0.36 * size, { size, color: this.app.inks.ink, align: "center", weight: border ? "600" : "400" });
  }

  /**
   * The values at the peaks of a side.
   * @param {Side} side
   */
  peaksOf(side) {
    const { edges } = /** @type {TwinData} */ (this.data);
    return findPeaks(side.share.subarray(1, -1)).map((row) => (edges[row] + edges[row + 1]) / 2);
  }

  /** @param {TwinData} data */
  describe(data) {
    const { lines } = this.app.inks;
    const there = SIDES.filter((side) => data[side]);
    const spans = there.map((side) => {
      const { batches } = /** @type {Side} */ (data[side]);
      const span = make("span", { text: `${WHAT[side]}: ${plural(batches, "batch", "batches")}` });
      span.style.color = lines[SIDES.indexOf(side)];
      return span;
    });
    const notes = SIDES.flatMap((side) => {
      const values = data[side];
      if (!values) return [`no ${side === "train" ? "training" : "validation"} in epoch ${data.epoch}`];
      const outside = values.share[0] + values.share[values.share.length - 1];
      return outside > 0 ? [`${side}: ${percentText(outside)} beyond the window`] : [];
    });
    if (!this.options.small) this.note.textContent = `epoch ${data.epoch}`;
    else this.note.textContent = there.length === 2 ? "" : notes[0] ?? "";
    this.missing.replaceChildren(...spans.flatMap((span, i) => (i ? [" · ", span] : [span])), ...notes.map((text) => ` · ${text}`));
    const words = there.map((side) => {
      const values = this.peaksOf(/** @type {Side} */ (data[side]));
      return `${WHAT[side]}: ${values.length ? `peaks at ${values.map(signedValue).join(" and ")}` : "no peak in the window"}`;
    });
    this.plot.setAttribute("aria-label", `${shortName(this.stream.name)}, epoch ${data.epoch}: histograms of the values; ${[...words, ...notes].join("; ")}.`);
  }
}

/** @param {number} value */
function signedValue(value) {
  const text = valueText(Number(value.toPrecision(3)));
  return value > 0 ? `+${text}` : text;
}
