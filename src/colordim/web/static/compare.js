// @ts-check
/**
 * Two runs side by side, and what differs between them.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./run.js").Stream} Stream
 * @typedef {import("./run.js").Phase} Phase
 * @typedef {import("./heat.js").Chunk} Chunk
 */
import { colorTable, cssGradient } from "./colors.js";
import { make, shortName } from "./dom.js";
import { bands } from "./heat.js";
import { drawBatches, drawFrame, drawValues, drawZero } from "./marks.js";
import { Panel } from "./panel.js";

/** Opacity of the faintest difference. */
const FAINTEST = 0.25;

/**
 * A row for each layer: the one run, the other, the difference.
 * @param {App} app
 * @param {HTMLElement} content
 * @param {Stream[]} streams
 */
export function showPairs(app, content, streams) {
  const model = app.need();
  const other = /** @type {import("./run.js").RunModel} */ (app.other);
  const phase = /** @type {Phase} */ (app.state.phase === "valid" ? "valid" : "train");
  const names = [model, other].map((each) => shortName(each.head.name || each.path, 40));
  if (names[0] === names[1]) [model, other].forEach((each, i) => (names[i] = shortName(each.path, 40)));
  content.append(differenceLegend(app, names));
  const list = make("div", { class: "cd-pairs" });
  for (const stream of streams) {
    const twin = other.find(stream.name, stream.kind);
    const row = make("section", { class: "cd-pair", "aria-label": shortName(stream.name) });
    const one = app.panel(new Panel(app, model, stream, phase, { use: "pair", mark: names[0] }));
    row.append(one.element);
    if (twin) {
      const two = app.panel(new Panel(app, other, twin, phase, { use: "pair", mark: names[1] }));
      row.append(two.element, new DifferencePanel(app, one, two).element);
    } else row.append(make("p", { class: "cd-empty", text: `${names[1]} has no such layer.` }));
    list.append(row);
  }
  content.append(list);
  const only = other.whole(app.state.kind).filter((stream) => !model.find(stream.name, stream.kind));
  if (only.length && !app.state.find) content.append(make("p", { class: "cd-empty", text: `Only ${names[1]} has ${only.slice(0, 12).map((stream) => shortName(stream.name, 60)).join(", ")}${only.length > 12 ? ", …" : ""}.` }));
}

/**
 * @param {App} app
 * @param {string[]} names
 */
function differenceLegend(app, names) {
  const table = colorTable("difference", app.dark);
  const bar = make("div", { class: "cd-bar" });
  bar.style.background = cssGradient(table, 17);
  return make("div", { class: "cd-difference", role: "img", "aria-label": `Colours of the difference: one end is values that only ${names[1]} has, the other those that only ${names[0]} has, the middle is equal shares.` }, [
    make("span", { text: `only in ${names[1]}` }), bar, make("span", { text: `only in ${names[0]}` }),
    make("small", { text: "(a − b) / (a + b) of the shares a and b of the values in a cell; the fainter, the fewer values" }),
  ]);
}

/** The difference of two panels that show the same batches and values. */
class DifferencePanel {
  /**
   * @param {App} app
   * @param {Panel} one
   * @param {Panel} two
   */
  constructor(app, one, two) {
    this.app = app;
    this.one = one;
    this.two = two;
    /** @type {Map<number, Chunk>} */
    this.chunks = new Map();
    /** What the chunks were made of. @type {Map<number, [import("./columns.js").Columns, import("./columns.js").Columns, string]>} */
    this.made = new Map();
    this.plot = make("div", { class: "cd-plot", role: "img", "aria-label": `Difference of the two runs in ${shortName(one.stream.name)}.` });
    this.note = make("span", { class: "cd-note" });
    this.element = make("article", { class: "cd-panel" }, [make("header", {}, [make("h3", { text: "difference" }), this.note, make("p", { class: "cd-type" })]), this.plot]);
    app.stage.add({ element: this.plot, draw: (ctx, box, ratio) => this.draw(ctx, box, ratio) });
  }

  /**
   * @param {CanvasRenderingContext2D} ctx
   * @param {import("./stage.js").Box} box
   * @param {number} ratio
   */
  draw(ctx, box, ratio) {
    const { app, one, two } = this;
    const inner = one.inner(box, ratio);
    const { view } = one;
    const { top, window: height } = bands(inner.h);
    const field = { x: inner.x, y: inner.y + top, w: inner.w, h: height };
    if (one.heat.width === two.heat.width) {
      for (const [i, chunk] of one.heat.chunks) {
        const against = two.heat.chunks.get(i);
        if (against) this.make(i, chunk, against);
      }
      for (const i of this.chunks.keys()) if (!one.heat.chunks.has(i) || !two.heat.chunks.has(i)) this.chunks.delete(i);
      ctx.save();
      ctx.beginPath();
      ctx.rect(inner.x, inner.y, inner.w, inner.h);
      ctx.clip();
      ctx.imageSmoothingEnabled = false;
      one.heat.place(ctx, inner, view, this.chunks, one.heat.width, () => true);
      ctx.restore();
    }
    drawZero(ctx, field, one.window, app.inks, ratio);
    drawFrame(ctx, field, app.inks);
    drawValues(ctx, field, one.window, app.inks, ratio);
    drawBatches(ctx, inner, view, app.inks, ratio);
  }

  /**
   * @param {number} i
   * @param {Chunk} chunk
   * @param {Chunk} against
   */
  make(i, chunk, against) {
    const { scale, dark } = this.app;
    const look = `${scale.low} ${scale.high} ${dark}`;
    const known = this.made.get(i);
    if (known && known[0] === chunk.columns && known[1] === against.columns && known[2] === look && this.chunks.has(i)) return;
    const table = colorTable("difference", dark);
    const [a, b] = [chunk.columns, against.columns];
    const { rows, length } = a;
    if (b.rows !== rows) return;
    const picture = this.chunks.get(i)?.picture ?? document.createElement("canvas");
    picture.width = length;
    picture.height = rows + 2;
    const ctx = /** @type {CanvasRenderingContext2D} */ (picture.getContext("2d"));
    const image = ctx.createImageData(length, rows + 2);
    const pixels = new Uint32Array(image.data.buffer);
    const span = Math.log(scale.high / scale.low);
    for (let row = 0; row < rows + 2; row++) {
      for (let c = 0; c < length; c++) {
        if (!a.known[c] || !b.known[c]) continue;
        const x = a.sums[row * length + c] / (a.of.size[c] || 1);
        const y = b.sums[row * length + c] / (b.of.size[c] || 1);
        if (!(x + y)) continue;
        const step = Math.round(127.5 + (127.5 * (x - y)) / (x + y));
        const strength = Math.max(0, Math.min(1, Math.log(Math.max(x, y) / scale.low) / span));
        const alpha = Math.round(255 * (FAINTEST + (1 - FAINTEST) * strength));
        pixels[(rows + 1 - row) * length + c] = ((table[step] & 0xffffff) | (alpha << 24)) >>> 0;
      }
    }
    ctx.putImageData(image, 0, 0);
    this.chunks.set(i, { ...chunk, picture });
    this.made.set(i, [a, b, look]);
  }
}
