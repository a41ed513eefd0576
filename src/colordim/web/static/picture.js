// @ts-check
/**
 * The page as one picture: all plots drawn anew at twice the size, with the words around them.
 *
 * @typedef {import("./app.js").App} App
 */
import { colorStep, cssColor } from "./colors.js";

const SCALE = 2;
/** Longest side and most pixels of a picture that browsers draw. */
const LONGEST = 16_000;
const MOST_PIXELS = 120e6;
const MARGIN = 16;
const TOP = 52;
/** Milliseconds that what has not come yet is waited for. */
const LONGEST_WAIT = 15_000;
/** Elements that are no part of the picture. */
const LEFT_OUT = "canvas, input, select, .cd-heading nav, .cd-actions, .cd-tabs, .cd-epochs button, .cd-hidden, .cd-pins .cd-line, .cd-table .cd-line";

/**
 * @param {App} app
 * @returns {Promise<HTMLCanvasElement>}
 */
export async function pictureOf(app) {
  const { content, stage } = app;
  const width = content.scrollWidth;
  const origin = content.getBoundingClientRect();
  const lowest = [...content.children].filter((element) => element !== stage.canvas).map((element) => element.getBoundingClientRect().bottom);
  const height = Math.ceil(Math.max(...lowest, origin.top) - origin.top) + MARGIN;
  const ratio = Math.min(SCALE, LONGEST / (height + TOP), LONGEST / width, Math.sqrt(MOST_PIXELS / (width * (height + TOP))));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round((height + TOP) * ratio);
  const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const shown = [...stage.plots.values()].flatMap((plot) => {
    const rect = plot.element.getBoundingClientRect();
    if (!rect.width || !rect.height) return [];
    const x = Math.round((rect.left - origin.left) * ratio);
    const y = Math.round((rect.top - origin.top + TOP) * ratio);
    return [{ plot, box: { x, y, w: Math.round(rect.width * ratio), h: Math.round(rect.height * ratio) } }];
  });
  const began = performance.now();
  for (;;) {
    app.beforeFrame();
    for (const { plot, box } of shown) plot.prepare?.(box, ratio);
    drawPlots(ctx, shown, ratio);
    ctx.clearRect(0, 0, canvas.width, canvas.height);
    // questions are sent when this task is over
    await new Promise((resolve) => setTimeout(resolve, 30));
    if (![app.model, app.other].some((model) => model?.busy) || performance.now() - began > LONGEST_WAIT) break;
  }
  app.beforeFrame();
  for (const { plot, box } of shown) plot.prepare?.(box, ratio);
  app.afterPrepare();
  drawPlots(ctx, shown, ratio);
  ctx.save();
  ctx.scale(ratio, ratio);
  drawHead(ctx, app, width);
  drawWords(ctx, content, origin.left, origin.top - TOP);
  ctx.restore();
  // last and behind everything, as a map clears what it is drawn on
  ctx.globalCompositeOperation = "destination-over";
  ctx.fillStyle = getComputedStyle(app.root).backgroundColor;
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  stage.invalidate();
  return canvas;
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {{plot: import("./stage.js").Plot, box: import("./stage.js").Box}[]} shown
 * @param {number} ratio
 */
function drawPlots(ctx, shown, ratio) {
  for (const { plot, box } of shown) {
    ctx.save();
    plot.draw(ctx, box, ratio);
    ctx.restore();
  }
}

/**
 * The title of the run, and the bar of colours with its numbers.
 * @param {CanvasRenderingContext2D} ctx
 * @param {App} app
 * @param {number} width
 */
function drawHead(ctx, app, width) {
  const { inks, scale, colors, legend } = app;
  const bar = { w: Math.min(230, width * 0.4), h: 10, x: 0, y: 8 };
  bar.x = width - bar.w - MARGIN - 14;
  const name = app.root.querySelector(".cd-top h1")?.textContent ?? "";
  const facts = [...app.root.querySelectorAll(".cd-top .cd-state, .cd-top .cd-facts")].map((element) => element.textContent).join(" · ");
  ctx.textBaseline = "alphabetic";
  clippedText(ctx, name, MARGIN, 20, bar.x - 2 * MARGIN, "650 16px system-ui, sans-serif", inks.ink);
  clippedText(ctx, facts, MARGIN, 38, bar.x - 2 * MARGIN, "400 12px system-ui, sans-serif", inks.muted);
  if (!app.panels.length) return;
  const span = Math.log(scale.high / scale.low);
  for (let x = 0; x < bar.w; x++) {
    ctx.fillStyle = cssColor(colors.table, colorStep(scale, scale.low * Math.exp((span * (x + 0.5)) / bar.w)));
    ctx.fillRect(bar.x + x, bar.y, 1.5, bar.h);
  }
  ctx.textAlign = "center";
  ctx.font = "400 10px system-ui, sans-serif";
  ctx.fillStyle = inks.muted;
  for (const tick of /** @type {NodeListOf<HTMLElement>} */ (legend.element.querySelectorAll(".cd-ticks > span"))) {
    const x = bar.x + (bar.w * parseFloat(tick.style.left)) / 100;
    const small = tick.querySelector("small")?.textContent ?? "";
    ctx.fillText((tick.firstChild?.textContent ?? "").trim(), x, bar.y + 22);
    if (small) ctx.fillText(small, x, bar.y + 34);
  }
  ctx.textAlign = "right";
  ctx.fillText(legend.element.querySelector(".cd-what")?.textContent ?? "", bar.x - 8, bar.y + 9);
  ctx.textAlign = "left";
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} text
 * @param {number} x
 * @param {number} y
 * @param {number} room
 * @param {string} font
 * @param {string} color
 */
function clippedText(ctx, text, x, y, room, font, color) {
  ctx.font = font;
  ctx.fillStyle = color;
  let said = text;
  while (said.length > 1 && ctx.measureText(said).width > room) said = `${said.slice(0, Math.floor(said.length * 0.9) - 1)}…`;
  ctx.fillText(said, x, y);
}

/**
 * Draw the words of the page where they stand.
 * @param {CanvasRenderingContext2D} ctx
 * @param {HTMLElement} root
 * @param {number} left
 * @param {number} top
 */
function drawWords(ctx, root, left, top) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = /** @type {HTMLElement} */ (node.parentElement);
    if (!node.textContent?.trim() || parent.closest(LEFT_OUT) || !parent.checkVisibility()) continue;
    const style = getComputedStyle(parent);
    ctx.font = `${style.fontStyle} ${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    ctx.fillStyle = style.color;
    ctx.textBaseline = "alphabetic";
    ctx.textAlign = "left";
    const frame = clipOf(parent, root);
    for (const { text, rect } of linesOfText(node, range)) {
      if (rect.right <= frame.left || rect.left >= frame.right || rect.bottom <= frame.top || rect.top >= frame.bottom) continue;
      const measured = ctx.measureText(text);
      const ascent = measured.fontBoundingBoxAscent;
      const y = rect.top + (rect.height - ascent - measured.fontBoundingBoxDescent) / 2 + ascent;
      ctx.save();
      ctx.beginPath();
      ctx.rect(frame.left - left, frame.top - top, frame.right - frame.left, frame.bottom - frame.top);
      ctx.clip();
      ctx.fillText(text, rect.left - left, y - top);
      ctx.restore();
    }
  }
}

/**
 * What of the page the element's words can be seen in.
 * @param {HTMLElement} element
 * @param {HTMLElement} root
 */
function clipOf(element, root) {
  const frame = { left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity };
  for (let each = /** @type {HTMLElement | null} */ (element); each && each !== root.parentElement; each = each.parentElement) {
    if (each !== root && getComputedStyle(each).overflow === "visible") continue;
    const rect = each.getBoundingClientRect();
    frame.left = Math.max(frame.left, rect.left);
    frame.top = Math.max(frame.top, rect.top);
    frame.right = Math.min(frame.right, rect.right);
    frame.bottom = Math.min(frame.bottom, rect.bottom);
  }
  return frame;
}

/**
 * The lines that a text is broken into.
 * @param {Node} node
 * @param {Range} range
 */
function linesOfText(node, range) {
  const text = node.textContent ?? "";
  range.selectNodeContents(node);
  const rects = [...range.getClientRects()];
  if (rects.length <= 1) return rects.map((rect) => ({ text: text.replace(/\s+/g, " "), rect }));
  /** @type {{text: string, rect: DOMRect}[]} */
  const lines = [];
  for (let i = 0; i < Math.min(text.length, 2000); i++) {
    range.setStart(node, i);
    range.setEnd(node, i + 1);
    const rect = range.getBoundingClientRect();
    if (!rect.width) continue;
    const last = lines[lines.length - 1];
    if (last && Math.abs(last.rect.top - rect.top) < rect.height / 2) {
      last.text += text[i];
      last.rect = new DOMRect(last.rect.x, last.rect.y, rect.right - last.rect.x, last.rect.height);
    } else lines.push({ text: text[i], rect });
  }
  return lines;
}
