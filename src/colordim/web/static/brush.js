// @ts-check
/**
 * The strip of the whole run: what is between its handles is what the page shows.
 *
 * @typedef {import("./app.js").App} App
 */
import { curvesOf } from "./chart.js";
import { make } from "./dom.js";
import { countText } from "./format.js";

export class Brush {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.left = this.handle("first batch on show", 0);
    this.right = this.handle("last batch on show", 1);
    this.range = make("div", { class: "cd-range" });
    this.label = make("span", { class: "cd-brush-label" });
    this.all = make("button", { type: "button", class: "cd-all", text: "whole run", on: { click: () => app.set({ x: "" }) } });
    this.track = make("div", { class: "cd-track" }, [this.canvas, this.range, this.left, this.right]);
    this.element = make("div", { class: "cd-brush", role: "group", "aria-label": "batches on show" }, [this.track, this.label, this.all]);
    /** @type {{kind: "move" | "left" | "right", x: number, from: number, to: number} | null} */
    this.drag = null;
    this.track.addEventListener("pointerdown", (event) => this.down(event));
    this.track.addEventListener("pointermove", (event) => this.move(event));
    this.track.addEventListener("pointerup", () => (this.drag = null));
    this.track.addEventListener("pointercancel", () => (this.drag = null));
    this.drawn = "";
    this.size = { w: 0, h: 0 };
  }

  /** Note its size while the page is laid out: to ask after anything was written would lay it out again. */
  measure() {
    this.size = { w: this.track.clientWidth, h: this.track.clientHeight };
  }

  /**
   * @param {string} label
   * @param {0 | 1} side
   */
  handle(label, side) {
    return make("div", {
      class: "cd-handle", role: "slider", tabindex: 0, "aria-label": label,
      on: { keydown: (/** @type {KeyboardEvent} */ event) => this.key(event, side) },
    });
  }

  get view() {
    const phase = this.app.state.phase === "valid" ? "valid" : "train";
    return this.app.viewOf(this.app.need(), phase);
  }

  /**
   * @param {KeyboardEvent} event
   * @param {0 | 1} side
   */
  key(event, side) {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    const { from, to, end } = this.view;
    const ends = event.key === "Home" ? 0 : event.key === "End" ? end : null;
    if (!step && ends === null) return;
    event.preventDefault();
    event.stopPropagation();
    const by = (step ?? 0) * Math.max(end / 100, 1);
    if (side) this.app.showBatches(from, Math.max(ends ?? to + by, from + 1));
    else this.app.showBatches(Math.min(ends ?? from + by, to - 1), to);
  }

  /** @param {PointerEvent} event */
  down(event) {
    const rect = this.track.getBoundingClientRect();
    const { from, to, end } = this.view;
    const batch = ((event.clientX - rect.left) / rect.width) * end;
    const near = (10 / rect.width) * end;
    this.track.setPointerCapture(event.pointerId);
    if (event.target === this.left || Math.abs(batch - from) < near) this.drag = { kind: "left", x: batch, from, to };
    else if (event.target === this.right || Math.abs(batch - to) < near) this.drag = { kind: "right", x: batch, from, to };
    else if (batch > from && batch < to && to - from < 0.98 * end) this.drag = { kind: "move", x: batch, from, to };
    else {
      this.drag = { kind: "right", x: batch, from: batch, to: batch };
    }
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!this.drag) return;
    const rect = this.track.getBoundingClientRect();
    const { end } = this.view;
    const batch = ((event.clientX - rect.left) / rect.width) * end;
    const { kind, x, from, to } = this.drag;
    if (kind === "move") this.app.showBatches(from + batch - x, to + batch - x);
    else if (kind === "left") this.app.showBatches(Math.min(batch, to - 1), to);
    else this.app.showBatches(Math.min(from, batch), Math.max(from + 1, batch));
  }

  draw() {
    const { app } = this;
    const model = app.need();
    const phase = app.state.phase === "valid" ? "valid" : "train";
    const { from, to, end } = this.view;
    const left = `${(100 * Math.max(from, 0)) / Math.max(end, 1)}%`;
    const right = `${(100 * Math.min(to, end)) / Math.max(end, 1)}%`;
    this.left.style.left = left;
    this.right.style.left = right;
    this.range.style.left = left;
    this.range.style.right = `calc(100% - ${right})`;
    const first = Math.max(Math.floor(from), 0);
    const last = Math.max(Math.min(Math.ceil(to), end) - 1, 0);
    for (const [handle, now] of /** @type {[HTMLElement, number][]} */ ([[this.left, first], [this.right, last]])) {
      handle.setAttribute("aria-valuemin", "0");
      handle.setAttribute("aria-valuemax", String(Math.max(end - 1, 0)));
      handle.setAttribute("aria-valuenow", String(now));
      handle.setAttribute("aria-valuetext", `batch ${countText(now)}`);
    }
    this.label.textContent = end ? `${phase} batches ${countText(first)}–${countText(last)} of ${countText(end)}` : "no batches yet";
    this.all.disabled = !app.state.x;
    const answer = app.scalarsOf(model, phase);
    const name = model.marks.scalars.includes("loss") ? "loss" : model.marks.scalars[0];
    const curves = name ? curvesOf(answer, name, app.inks.lines) : [];
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const { w, h } = this.size;
    const drawn = `${w} ${h} ${ratio} ${end} ${app.inks.ink} ${curves.map((c) => c.points.length + (c.points.at(-1)?.[1] ?? 0)).join()}`;
    if (drawn === this.drawn || !w) return;
    this.drawn = drawn;
    this.canvas.width = Math.round(w * ratio);
    this.canvas.height = Math.round(h * ratio);
    const ctx = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    ctx.scale(ratio, ratio);
    for (const { points, color } of curves.slice(0, 1)) {
      const values = points.map(([, y]) => y);
      const low = values.reduce((a, b) => Math.min(a, b), Infinity);
      const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
      ctx.strokeStyle = color;
      ctx.beginPath();
      points.forEach(([x, y], i) => {
        const px = (x / Math.max(end, 1)) * w;
        const py = 3 + ((h - 6) * (high - y)) / (high - low || 1);
        if (i) ctx.lineTo(px, py);
        else ctx.moveTo(px, py);
      });
      ctx.stroke();
    }
    ctx.strokeStyle = app.inks.epoch;
    ctx.globalAlpha = 0.35;
    const marks = /** @type {number[]} */ (model.marks.epochs[phase].first);
    if (marks.length < w / 6) {
      for (const mark of marks) {
        const x = Math.round((mark / Math.max(end, 1)) * w) + 0.5;
        ctx.beginPath();
        ctx.moveTo(x, 0);
        ctx.lineTo(x, h);
        ctx.stroke();
      }
    }
  }
}
