// @ts-check
/**
 * What every chart over batches is marked with: zero, epochs, NaN and infinities, axes.
 *
 * @typedef {import("./stage.js").Box} Box
 * @typedef {import("./heat.js").View} View
 * @typedef {{ink: string, muted: string, rule: string, paper: string, zero: string, epoch: string, notFinite: string, bad: string, problem: string, warning: string, note: string, lines: string[]}} Inks
 */
import { countText, valueText } from "./format.js";
import { forward, linearTicks, windowTicks } from "./window.js";

/** Fewest pixels of CSS between two epoch marks. */
const EPOCH_APART = 9;

/**
 * The place of a value in a box, from its top.
 * @param {import("./window.js").Window} window
 * @param {number} value
 * @param {{y: number, h: number}} box
 */
export function valuePlace(window, value, box) {
  const low = forward(window, window.lo);
  const high = forward(window, window.hi);
  return box.y + (box.h * (high - forward(window, value))) / (high - low);
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {Box} box Of the window.
 * @param {import("./window.js").Window} window
 * @param {Inks} inks
 * @param {number} ratio
 */
export function drawZero(ctx, box, window, inks, ratio) {
  if (window.lo > 0 || window.hi < 0) return;
  const y = Math.round(valuePlace(window, 0, box)) + 0.5;
  ctx.strokeStyle = inks.zero;
  ctx.lineWidth = Math.max(0.7 * ratio, 1);
  // dashed, so that the row of the zeros themselves can be seen through it
  ctx.setLineDash([5 * ratio, 4 * ratio]);
  line(ctx, box.x, y, box.x + box.w, y);
  ctx.setLineDash([]);
}

/**
 * Draw a line where each epoch begins; of many only every 2nd, 5th, 10th, ... .
 * @param {CanvasRenderingContext2D} ctx
 * @param {Box} box
 * @param {View} view
 * @param {{first: number[], number: number[]}} epochs
 * @param {Inks} inks
 * @param {number} ratio
 * @param {boolean} [named] Whether the marks are numbered, above the box.
 */
export function drawEpochs(ctx, box, view, epochs, inks, ratio, named = false) {
  const scale = box.w / (view.to - view.from);
  const inside = epochs.first.map((first, i) => ({ first, number: epochs.number[i] })).filter((e) => e.first >= view.from && e.first < view.to);
  const room = (named ? 26 : EPOCH_APART) * ratio;
  const apart = inside.length > 1 ? (scale * (inside[inside.length - 1].first - inside[0].first)) / (inside.length - 1) : Infinity;
  let step = 1;
  while (step * apart < room && step < inside.length) step *= String(step).startsWith("2") ? 2.5 : 2;
  ctx.strokeStyle = inks.epoch;
  ctx.lineWidth = Math.max(0.5 * ratio, 1);
  let word = "epoch ";
  for (const { first, number } of inside) {
    if (number % step) continue;
    const x = Math.round(box.x + (first - view.from) * scale) + 0.5;
    ctx.globalAlpha = 0.5;
    line(ctx, x, box.y, x, box.y + box.h);
    ctx.globalAlpha = 1;
    if (named) {
      const text = `${word}${number}`;
      write(ctx, text, x + 2 * ratio, box.y - 8 * ratio, { size: 10 * ratio, color: inks.epoch });
      word = "";
    }
  }
}

/**
 * Mark the columns that hold NaN or infinities: a bar over the panel, and a tint.
 * @param {CanvasRenderingContext2D} ctx
 * @param {Box} box
 * @param {View} view
 * @param {import("./heat.js").HeatMap} heat
 * @param {Inks} inks
 * @param {number} ratio
 */
export function drawNotFinite(ctx, box, view, heat, inks, ratio) {
  const scale = box.w / (view.to - view.from);
  ctx.fillStyle = inks.notFinite;
  heat.forEach(view, (columns, at, batch) => {
    const { nan, pos_inf, neg_inf } = columns.of;
    if (!(nan[at] + pos_inf[at] + neg_inf[at])) return;
    const left = Math.max(box.x + (batch - view.from) * scale, box.x);
    const wide = Math.min(Math.max(columns.width * scale, 2 * ratio), box.x + box.w - left);
    ctx.globalAlpha = 0.13;
    ctx.fillRect(left, box.y, wide, box.h);
    ctx.globalAlpha = 1;
    ctx.fillRect(left, box.y - 3 * ratio, wide, 3 * ratio);
  });
}

/**
 * Draw the values at the left of a panel and the batches below it.
 * @param {CanvasRenderingContext2D} ctx
 * @param {Box} box
 * @param {import("./window.js").Window} window
 * @param {Inks} inks
 * @param {number} ratio
 */
export function drawValues(ctx, box, window, inks, ratio) {
  ctx.strokeStyle = inks.rule;
  ctx.lineWidth = 1;
  let last = Infinity;
  for (const tick of windowTicks(window, Math.max(Math.floor(box.h / (24 * ratio)), 3))) {
    const y = valuePlace(window, tick, box);
    if (y < box.y - 1 || y > box.y + box.h + 1 || Math.abs(last - y) < 12 * ratio) continue;
    line(ctx, box.x - 3 * ratio, Math.round(y) + 0.5, box.x, Math.round(y) + 0.5);
    write(ctx, valueText(tick), box.x - 5 * ratio, y + 3.5 * ratio, { size: 10 * ratio, color: inks.muted, align: "right" });
    last = y;
  }
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {Box} box
 * @param {View} view
 * @param {Inks} inks
 * @param {number} ratio
 */
export function drawBatches(ctx, box, view, inks, ratio) {
  ctx.strokeStyle = inks.rule;
  ctx.lineWidth = 1;
  const y = box.y + box.h;
  for (const tick of linearTicks(Math.max(view.from, 0), view.to, Math.max(Math.floor(box.w / (80 * ratio)), 2))) {
    if (tick % 1) continue;
    const x = box.x + ((tick - view.from) * box.w) / (view.to - view.from);
    line(ctx, Math.round(x) + 0.5, y, Math.round(x) + 0.5, y + 3 * ratio);
    const align = x > box.x + box.w - 20 * ratio ? "right" : x < box.x + 12 * ratio ? "left" : "center";
    write(ctx, countText(tick), x, y + 13 * ratio, { size: 10 * ratio, color: inks.muted, align });
  }
}

/**
 * Draw the frame of a panel's window.
 * @param {CanvasRenderingContext2D} ctx
 * @param {Box} box
 * @param {Inks} inks
 */
export function drawFrame(ctx, box, inks) {
  ctx.strokeStyle = inks.rule;
  ctx.lineWidth = 1;
  ctx.strokeRect(box.x + 0.5, box.y + 0.5, box.w - 1, box.h - 1);
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {number} x1
 * @param {number} y1
 * @param {number} x2
 * @param {number} y2
 */
export function line(ctx, x1, y1, x2, y2) {
  ctx.beginPath();
  ctx.moveTo(x1, y1);
  ctx.lineTo(x2, y2);
  ctx.stroke();
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} text
 * @param {number} x
 * @param {number} y Of the base line.
 * @param {{size: number, color: string, align?: CanvasTextAlign, weight?: string, halo?: string}} style
 */
export function write(ctx, text, x, y, { size, color, align = "left", weight = "400", halo }) {
  ctx.font = `${weight} ${size}px system-ui, sans-serif`;
  ctx.textAlign = align;
  if (halo) {
    ctx.strokeStyle = halo;
    ctx.lineWidth = size / 4;
    ctx.lineJoin = "round";
    ctx.strokeText(text, x, y);
  }
  ctx.fillStyle = color;
  ctx.fillText(text, x, y);
}
