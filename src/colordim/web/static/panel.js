// @ts-check
/**
 * A panel: the heat map of one stream on the stage, with its title above it and what can be done with it.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./run.js").RunModel} RunModel
 * @typedef {import("./run.js").Stream} Stream
 * @typedef {import("./run.js").Phase} Phase
 * @typedef {import("./stage.js").Box} Box
 */
import { make, shortName } from "./dom.js";
import { drawFindings } from "./findings.js";
import { countText, percentText, valueText } from "./format.js";
import { bands } from "./heat.js";
import { drawBatches, drawEpochs, drawFrame, drawNotFinite, drawValues, drawZero, valuePlace, write } from "./marks.js";
import { meanAndStd } from "./columns.js";
import { isTroubled } from "./run.js";
import { badgeOf } from "./verdict.js";

/** Room beside and below the map, in pixels of CSS. */
export const GUTTER = { left: 40, bottom: 16, top: 8 };

/** Opacity of the maps of layers without trouble, where these are to stand back. */
const FAINT = 0.3;

export class Panel {
  /**
   * @param {App} app
   * @param {RunModel} model
   * @param {Stream} stream
   * @param {Phase} phase
   * @param {{use?: string, mark?: string, named?: boolean, large?: boolean,
   *   overlay?: (ctx: CanvasRenderingContext2D, box: Box, ratio: number) => void}} [options]
   *   `mark` tells this panel from another of the same layer; `named`: the marks of epochs are numbered; `overlay` draws
   *   over the map.
   */
  constructor(app, model, stream, phase, options = {}) {
    this.app = app;
    this.model = model;
    this.stream = stream;
    this.phase = phase;
    this.options = options;
    this.heat = model.heat(stream, phase, options.use);
    /** @type {import("./heat.js").Prepared} */
    this.prepared = { least: Infinity, most: 0, complete: false, error: "" };
    this.plot = make("div", { class: "cd-plot", role: "img", "aria-label": `Histogram of ${shortName(stream.name)} in each ${phase} batch as colours` });
    this.cursor = make("i", { class: "cd-cursor" });
    this.plot.append(this.cursor);
    /** What was known to be wrong when the badge was made. */
    this.marked = "";
    this.note = make("span", { class: "cd-note" });
    const title = options.mark ? `${stream.name} · ${options.mark}` : stream.name;
    this.name = make("button", { class: "cd-name", type: "button", title: shortName(title, 400), on: { click: () => app.openLayer(stream) } }, [
      make("bdi", { text: shortName(title) }),
    ]);
    const type = [stream.module, stream.shape].filter(Boolean).join("  ");
    this.title = make("div", { class: "cd-title" }, [make("h3", {}, [this.name])]);
    this.element = make("article", { class: "cd-panel", "data-stream": stream.id, "data-phase": phase }, [
      make("header", {}, [this.title, this.note, make("p", { class: "cd-type", title: `${stream.module}(${shortName(stream.arguments, 300)})`, text: type })]),
      this.plot,
    ]);
    app.stage.add({ element: this.plot, foresee: (box, ratio) => this.foresee(box, ratio), prepare: (box, ratio) => this.prepare(box, ratio), draw: (ctx, box, ratio) => this.draw(ctx, box, ratio) });
    app.pointer.attach(this);
  }

  /** Batches on show. */
  get view() {
    return this.app.viewOf(this.model, this.phase);
  }

  get window() {
    return this.app.windowOf(this.model, this.stream, this.phase);
  }

  /**
   * The map within the plot.
   * @param {Box} box
   * @param {number} ratio
   * @returns {Box}
   */
  inner(box, ratio) {
    const left = Math.round(GUTTER.left * ratio);
    const top = Math.round((this.options.named ? 18 : GUTTER.top) * ratio);
    return { x: box.x + left, y: box.y + top, w: Math.max(box.w - left - 1, 1), h: Math.max(box.h - top - Math.round(GUTTER.bottom * ratio), 8) };
  }

  /**
   * Ask for what will be drawn before the window is known, which may follow from it.
   * @param {Box} box
   * @param {number} ratio
   */
  foresee(box, ratio) {
    if (!this.heat.projection) this.heat.prefetch(this.view, Math.floor(this.inner(box, ratio).w / ratio));
  }

  /**
   * @param {Box} box
   * @param {number} ratio
   */
  prepare(box, ratio) {
    const window = this.app.knownWindow(this.model, this.stream, this.phase);
    this.prepared = { least: Infinity, most: 0, complete: false, error: "" };
    const inner = this.inner(box, ratio);
    this.mark();
    if (!window) return;
    const rows = 2 * Math.max(Math.round(bands(inner.h).window / ratio / 2), 4);
    this.prepared = this.heat.prepare(this.view, Math.floor(inner.w / ratio), window, rows, this.app.state.color);
    this.app.sawCells(this.prepared);
    this.describe();
  }

  /**
   * @param {CanvasRenderingContext2D} ctx
   * @param {Box} box
   * @param {number} ratio
   */
  draw(ctx, box, ratio) {
    const { app, view, window, model } = this;
    const inner = this.inner(box, ratio);
    if (!this.heat.projection) {
      drawFrame(ctx, inner, app.inks); // nothing has come yet
      return;
    }
    const inks = app.inks;
    const faint = app.state.dim === "healthy" && !isTroubled(model, this.stream, this.phase);
    this.element.classList.toggle("cd-faint", faint);
    if (faint) ctx.globalAlpha = FAINT;
    this.heat.paint(ctx, inner, view, app.scale, app.colors);
    ctx.globalAlpha = 1;
    const { top, window: height } = bands(inner.h);
    const field = { x: inner.x, y: inner.y + top, w: inner.w, h: height };
    ctx.save();
    ctx.beginPath();
    ctx.rect(inner.x, inner.y - 4 * ratio, inner.w, inner.h + 4 * ratio);
    ctx.clip();
    drawZero(ctx, field, window, inks, ratio);
    drawNotFinite(ctx, inner, view, this.heat, inks, ratio);
    if (app.state.lines === "mean") this.drawMean(ctx, field, ratio);
    ctx.restore();
    drawEpochs(ctx, inner, view, model.marks.epochs[this.phase], inks, ratio, this.options.named);
    if (this.phase === "train") drawFindings(ctx, inner, view, model.findings.of(this.stream), inks, ratio);
    this.options.overlay?.(ctx, inner, ratio);
    drawFrame(ctx, field, inks);
    drawValues(ctx, field, window, inks, ratio);
    drawBatches(ctx, inner, view, inks, ratio);
    const text = { size: 10 * ratio, color: inks.ink, align: /** @type {CanvasTextAlign} */ ("right"), halo: inks.paper };
    const outside = this.outside();
    if (outside.over > 0) write(ctx, `${percentText(outside.over)} above`, inner.x + inner.w - 4 * ratio, field.y + 11 * ratio, text);
    if (outside.under > 0) write(ctx, `${percentText(outside.under)} below`, inner.x + inner.w - 4 * ratio, field.y + field.h - 4 * ratio, text);
    if (this.prepared.error) write(ctx, this.prepared.error, inner.x + 6 * ratio, field.y + field.h / 2, { size: 11 * ratio, color: inks.muted });
  }

  /** Put a badge beside the name if something is wrong with the layer. */
  mark() {
    const { findings } = this.model;
    if (this.marked === findings.text) return;
    this.marked = findings.text;
    const badge = badgeOf(this.app, this.model, this.stream);
    this.title.querySelector(".cd-badge")?.remove();
    if (badge) this.title.append(badge);
  }

  /** Shares of the values on show that lie outside the window. */
  outside() {
    let under = 0;
    let over = 0;
    let size = 0;
    this.heat.forEach(this.view, (columns, at) => {
      if (columns.known[at] !== 1) return;
      under += columns.sums[at];
      over += columns.sums[(columns.rows + 1) * columns.length + at];
      size += columns.of.size[at];
    });
    return { under: under / size, over: over / size };
  }

  /**
   * @param {CanvasRenderingContext2D} ctx
   * @param {Box} field
   * @param {number} ratio
   */
  drawMean(ctx, field, ratio) {
    const { view, window, app } = this;
    const scale = field.w / (view.to - view.from);
    /** @type {[number, number, number][]} */
    const points = [];
    this.heat.forEach(view, (columns, at, batch) => {
      const { mean, std } = meanAndStd(columns, at);
      points.push([field.x + (batch + columns.width / 2 - view.from) * scale, mean, std]);
    });
    for (const [sign, dash, wide] of /** @type {[number, number[], number][]} */ ([[0, [], 1.4], [1, [4, 3], 0.9], [-1, [4, 3], 0.9]])) {
      ctx.setLineDash(dash.map((d) => d * ratio));
      for (const [color, extra] of /** @type {[string, number][]} */ ([[app.inks.ink, 1.2], ["#fff", 0]])) {
        ctx.strokeStyle = color;
        ctx.lineWidth = (wide + extra) * ratio;
        ctx.beginPath();
        let pen = false;
        for (const [x, mean, std] of points) {
          const value = mean + sign * std;
          if (!Number.isFinite(value)) pen = false;
          else {
            const y = Math.max(field.y, Math.min(field.y + field.h, valuePlace(window, value, field)));
            if (pen) ctx.lineTo(x, y);
            else ctx.moveTo(x, y);
            pen = true;
          }
        }
        ctx.stroke();
      }
    }
    ctx.setLineDash([]);
  }

  /** Write what the panel shows in words: beside its title, and for those who do not see it. */
  describe() {
    let size = 0;
    let zeros = 0;
    let bad = 0;
    /** First batch from which on there are nothing but zeros. */
    let only = -1;
    /** First batch with NaN or infinite values. */
    let odd = -1;
    let ran = false;
    this.heat.forEach(this.view, (columns, at, batch) => {
      if (!columns.of.size[at]) return;
      ran = true;
      if (columns.known[at] === 1) {
        size += columns.of.size[at];
        zeros += columns.of.zeros[at];
        if (columns.of.nan[at] + columns.of.pos_inf[at] + columns.of.neg_inf[at]) {
          bad += columns.of.number[at];
          if (odd < 0) odd = batch;
        }
      }
      if (columns.of.zeros[at] < columns.of.size[at]) only = -1;
      else if (only < 0) only = batch;
    });
    if (!this.prepared.complete && !ran) return;
    const parts = [];
    if (!ran) parts.push("never ran");
    else if (only >= 0) parts.push(zeros === size ? "only zeros" : `only zeros since batch ${countText(only)}`);
    else parts.push(`zeros ${percentText(zeros / size)}`);
    const text = parts.join(" · ");
    const not = bad ? `NaN or Inf from batch ${countText(odd)}` : "";
    if (this.note.dataset.text === text + not) return;
    this.note.dataset.text = text + not;
    this.note.textContent = text;
    this.note.classList.toggle("cd-dead", ran && only >= 0);
    if (not) this.note.prepend(make("b", { class: "cd-bad", text: `${not} ` }));
    const { lo, hi } = this.window;
    this.plot.setAttribute(
      "aria-label",
      `Histogram of ${shortName(this.stream.name)} in each ${this.phase} batch as colours, values from ${valueText(lo)} to ${valueText(hi)}; ${text}${bad ? `; NaN or infinite values in ${bad} batches` : ""}.`,
    );
  }

  /**
   * The batch and the value at a place of the page; null outside of the map.
   * @param {number} clientX
   * @param {number} clientY
   */
  at(clientX, clientY) {
    const rect = this.plot.getBoundingClientRect();
    const inner = this.inner({ x: 0, y: 0, w: rect.width, h: rect.height }, 1);
    const x = clientX - rect.left - inner.x;
    const y = clientY - rect.top - inner.y;
    if (x < 0 || x >= inner.w || y < 0 || y >= inner.h) return null;
    const { top, window: height } = bands(inner.h);
    const { from, to } = this.view;
    const batch = from + (x / inner.w) * (to - from);
    const place = (y - top) / height;
    return { batch, place, width: inner.w };
  }

  /**
   * Show the cursor at a batch.
   * @param {number | null} batch
   */
  point(batch) {
    const { from, to } = this.view;
    const shown = batch !== null && batch >= from && batch < to;
    this.cursor.style.display = shown ? "block" : "none";
    if (!shown) return;
    const width = this.plot.clientWidth;
    const inner = this.inner({ x: 0, y: 0, w: width, h: this.plot.clientHeight }, 1);
    this.cursor.style.transform = `translateX(${inner.x + ((batch - from) / (to - from)) * inner.w}px)`;
  }
}

