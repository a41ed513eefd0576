// @ts-check
/**
 * Lines over the batches: loss, learning rate, whatever was logged.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./stage.js").Box} Box
 * @typedef {{name: string, color: string, points: [number, number][], band?: [number, number, number][], dots?: boolean}} Curve
 *   `points`: batch and value; `band`: batch, least and most.
 */
import { make } from "./dom.js";
import { valueText } from "./format.js";
import { drawBatches, drawEpochs, line, write } from "./marks.js";
import { GUTTER } from "./panel.js";
import { linearTicks } from "./window.js";

export class Chart {
  /**
   * @param {App} app
   * @param {string} title
   * @param {() => import("./heat.js").View} view
   * @param {() => Curve[]} curves
   * @param {{epochs?: () => {first: number[], number: number[]}, className?: string, batches?: boolean,
   *   range?: [number, number], text?: (value: number) => string}} [options] `range`: values at the ends of the axis; `text`
   *   says a value.
   */
  constructor(app, title, view, curves, options = {}) {
    this.app = app;
    this.title = title;
    this.view = view;
    this.curves = curves;
    this.options = options;
    this.plot = make("div", { class: `cd-chart ${options.className ?? ""}`, role: "img", "aria-label": title });
    this.cursor = make("i", { class: "cd-cursor" });
    this.plot.append(this.cursor);
    this.value = make("span", { class: "cd-note" });
    this.element = make("article", { class: "cd-panel cd-scalar" }, [make("header", {}, [make("h3", { text: title }), this.value]), this.plot]);
    app.stage.add({ element: this.plot, draw: (ctx, box, ratio) => this.draw(ctx, box, ratio) });
  }

  /**
   * @param {CanvasRenderingContext2D} ctx
   * @param {Box} box
   * @param {number} ratio
   */
  draw(ctx, box, ratio) {
    const { app } = this;
    const inks = app.inks;
    const view = this.view();
    const inner = {
      x: box.x + GUTTER.left * ratio,
      y: box.y + 6 * ratio,
      w: Math.max(box.w - GUTTER.left * ratio - 1, 1),
      h: Math.max(box.h - 6 * ratio - (this.options.batches ? GUTTER.bottom : 4) * ratio, 4),
    };
    const curves = this.curves();
    const values = curves.flatMap((curve) => [
      ...curve.points.filter(([x]) => x >= view.from && x <= view.to).map(([, y]) => y),
      ...(curve.band ?? []).filter(([x]) => x >= view.from && x <= view.to).flatMap(([, a, b]) => [a, b]),
    ]);
    const known = values.filter(Number.isFinite);
    let low = known.reduce((a, b) => Math.min(a, b), Infinity);
    let high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    const text_ = this.options.text ?? valueText;
    if (this.options.range) [low, high] = this.options.range;
    const logs = !this.options.range && low > 0 && high / low > 100; // more than two decades, all positive
    if (!known.length) return;
    if (high === low) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    /** @param {number} v */
    const f = (v) => (logs ? Math.log10(v) : v);
    const pad = 0.06 * (f(high) - f(low));
    const [bottom, top] = [f(low) - pad, f(high) + pad];
    /** @param {number} batch */
    const px = (batch) => inner.x + ((batch - view.from) / (view.to - view.from)) * inner.w;
    /** @param {number} value */
    const py = (value) => inner.y + (inner.h * (top - f(value))) / (top - bottom);
    ctx.strokeStyle = inks.rule;
    ctx.lineWidth = 1;
    line(ctx, inner.x + 0.5, inner.y, inner.x + 0.5, inner.y + inner.h);
    const number = Math.max(Math.floor(inner.h / (18 * ratio)), 3);
    const ticks = logs ? linearTicks(Math.ceil(bottom), Math.floor(top), number).filter((t) => t % 1 === 0).map((t) => 10 ** t) : linearTicks(low - (this.options.range ? 0 : pad), high + (this.options.range ? 0 : pad), number);
    let last = Infinity;
    for (const tick of ticks) {
      const y = py(tick);
      if (last - y < 12 * ratio || y < inner.y - 1 || y > inner.y + inner.h + 1) continue;
      line(ctx, inner.x - 3 * ratio, Math.round(y) + 0.5, inner.x, Math.round(y) + 0.5);
      write(ctx, text_(tick), inner.x - 5 * ratio, y + 3.5 * ratio, { size: 10 * ratio, color: inks.muted, align: "right" });
      last = y;
    }
    ctx.save();
    ctx.beginPath();
    ctx.rect(inner.x, inner.y - 2, inner.w, inner.h + 4);
    ctx.clip();
    for (const { points, band, color, dots } of curves) {
      ctx.strokeStyle = color;
      ctx.fillStyle = color;
      if (band) {
        ctx.globalAlpha = 0.22;
        ctx.beginPath();
        for (const [x, a, b] of band) {
          if (!Number.isFinite(a)) continue;
          ctx.rect(px(x) - 0.5, py(b), Math.max(ratio, 1), Math.max(py(a) - py(b), 1));
        }
        ctx.fill();
        ctx.globalAlpha = 1;
      }
      ctx.lineWidth = 1.4 * ratio;
      ctx.lineJoin = "round";
      ctx.beginPath();
      let pen = false;
      for (const [x, y] of points) {
        if (!Number.isFinite(y)) pen = false;
        else {
          if (pen) ctx.lineTo(px(x), py(y));
          else ctx.moveTo(px(x), py(y));
          pen = true;
        }
      }
      ctx.stroke();
      if (dots) {
        for (const [x, y] of points) {
          ctx.beginPath();
          ctx.arc(px(x), py(y), 2.4 * ratio, 0, 2 * Math.PI);
          ctx.fill();
        }
      }
    }
    ctx.restore();
    if (this.options.epochs) drawEpochs(ctx, inner, view, this.options.epochs(), inks, ratio);
    if (this.options.batches) drawBatches(ctx, inner, view, inks, ratio);
    const latest = curves.flatMap((curve) => {
      const last = curve.points.findLast(([x, y]) => x <= view.to && Number.isFinite(y));
      return last ? [{ curve, said: `${curve.name ? `${curve.name} ` : ""}${this.options.text?.(last[1]) ?? valueText(last[1])}${endedBefore(curve, view) ? ` (nothing after batch ${Math.floor(last[0])})` : ""}   ` }] : [];
    });
    const text = latest.map(({ said }) => said).join("");
    if (this.value.textContent !== text) {
      this.value.replaceChildren(
        ...latest.map(({ curve, said }) => {
          const part = make("span", { text: said });
          part.style.color = curve.color;
          return part;
        }),
      );
      this.plot.setAttribute("aria-label", `${this.title} over the batches; at the end of what is shown ${text}.`);
    }
  }

  /**
   * @param {number | null} batch
   */
  point(batch) {
    const { from, to } = this.view();
    const shown = batch !== null && batch >= from && batch < to;
    this.cursor.style.display = shown ? "block" : "none";
    if (shown) this.cursor.style.transform = `translateX(${GUTTER.left + ((batch - from) / (to - from)) * (this.plot.clientWidth - GUTTER.left - 1)}px)`;
  }
}

/**
 * Whether a curve ends long before the run does: what is NaN is not logged, and a line that just stops is overlooked.
 * @param {Curve} curve
 * @param {import("./heat.js").View} view
 */
function endedBefore({ points, dots }, view) {
  const last = points.findLast(([, y]) => Number.isFinite(y));
  if (!last || dots || points.length < 2) return false;
  const apart = (points[points.length - 1][0] - points[0][0]) / (points.length - 1);
  return view.end - last[0] > 3 * apart + 1 && view.to > last[0] + 3 * apart;
}

/**
 * The curves of a logged name, from the answer of the route `scalars`.
 * @param {any} answer
 * @param {string} name
 * @param {string[]} colors Of the training and the validation.
 * @returns {Curve[]}
 */
export function curvesOf(answer, name, colors) {
  if (!answer || answer instanceof Error) return [];
  const { start, width, names, valid } = answer;
  /** @type {Curve[]} */
  const curves = [];
  const own = names[name];
  /** @param {number} i */
  const at = (i) => start + (i + 0.5) * width;
  if (own) {
    const points = /** @type {[number, number][]} */ (own.mean.map((/** @type {number | null} */ y, /** @type {number} */ i) => [at(i), y ?? NaN]));
    // what was logged every few batches is one line all the same
    const filled = points.filter(([, y]) => Number.isFinite(y));
    const band = width > 1 ? own.min.map((/** @type {number | null} */ low, /** @type {number} */ i) => [at(i), low ?? NaN, own.max[i] ?? NaN]) : undefined;
    curves.push({ name: valid[name] ? "train" : "", color: colors[0], points: filled, band });
  }
  if (valid[name]) {
    const points = valid[name].at.map((/** @type {number} */ x, /** @type {number} */ i) => [x, valid[name].mean[i] ?? NaN]);
    curves.push({ name: "valid", color: colors[1], points, dots: points.length <= 60 });
  }
  return curves;
}
