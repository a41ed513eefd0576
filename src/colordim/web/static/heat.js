// @ts-check
/**
 * One heat map: its columns in chunks that are made once, and painted wherever the view has moved to.
 *
 * @typedef {import("./columns.js").Columns} Columns
 * @typedef {import("./axis.js").Axis} Axis
 * @typedef {import("./window.js").Window} Window
 * @typedef {import("./colors.js").ColorScale} ColorScale
 * @typedef {import("./tiles.js").TileStore} TileStore
 *
 * @typedef {object} View What is on show of a phase.
 * @property {number} from First batch, not rounded.
 * @property {number} to
 * @property {number} end Number of batches of the phase.
 * @property {import("./columns.js").Levels} levels
 * @property {number} tile Columns of a tile.
 *
 * @typedef {object} Chunk
 * @property {Columns} columns
 * @property {string} versions
 * @property {Float32Array} cells What is coloured: the share, or the count a batch, of each of the sums.
 * @property {HTMLCanvasElement | null} picture
 * @property {string} painted
 * @property {number} least
 * @property {number} most
 *
 * @typedef {{least: number, most: number, complete: boolean, error: string}} Prepared
 */
import { project } from "./axis.js";
import { columnWidth, takeColumns } from "./columns.js";
import { rowEdges } from "./window.js";

/** Drawn columns of a chunk. */
const CHUNK = 128;
/** Height of the strip of what lies outside the window, and of the gap beside it, as shares of the window's height. */
const STRIP_SHARE = 0.045;
const GAP_SHARE = 0.012;

/** Colours are looked up by the first 17 bits of the float32 of a cell: sign, exponent, 8 bits of mantissa. */
const KEY_SHIFT = 15;
/** Canvases to paint the next chunks on. @type {HTMLCanvasElement[]} */
const spares = [];
let scratch = new ImageData(1, 1);
/** @type {Map<string, Uint32Array>} */
const lookups = new Map();

/**
 * Return the pixel of each key of a cell's float32.
 * @param {ColorScale} scale
 * @param {Uint32Array} table
 * @param {string} name Of the table.
 */
function lookup(scale, table, name) {
  const key = `${scale.low} ${scale.high} ${name}`;
  let made = lookups.get(key);
  if (!made) {
    made = new Uint32Array(1 << 16);
    const float = new Float32Array(1);
    const bits = new Uint32Array(float.buffer);
    const span = Math.log(scale.high / scale.low);
    for (let k = 1; k < 1 << 16; k++) {
      bits[0] = k << KEY_SHIFT;
      const place = Math.log(float[0] / scale.low) / span;
      made[k] = table[Math.max(0, Math.min(255, Math.floor(256 * place) || 0))];
    }
    if (lookups.size > 32) lookups.clear();
    lookups.set(key, made);
  }
  return made;
}

/**
 * Where the window and its strips lie in a panel, from the top, in the unit of `height`.
 * @param {number} height
 */
export function bands(height) {
  const strip = Math.max(Math.round(STRIP_SHARE * height), 3);
  const gap = Math.max(Math.round(GAP_SHARE * height), 1);
  return { strip, gap, top: strip + gap, window: height - 2 * (strip + gap) };
}

export class HeatMap {
  /**
   * @param {{id: number, phase: "train" | "valid", axis: Axis}} stream
   * @param {TileStore} store
   */
  constructor(stream, store) {
    this.stream = stream;
    this.store = store;
    /** @type {Map<number, Chunk>} */
    this.chunks = new Map();
    this.key = "";
    this.width = 1;
    this.base = 1;
    /** @type {import("./axis.js").Projection | null} */
    this.projection = null;
    /** @type {{width: number, chunks: Map<number, Chunk>} | null} What is shown until the new chunks are complete. */
    this.before = null;
    /** @type {Window | null} */
    this.window = null;
  }

  /**
   * See to it that the tiles of a view come, while the window that they are drawn in is not known yet.
   * @param {View} view
   * @param {number} pixels
   */
  prefetch(view, pixels) {
    const { base } = columnWidth(view.to - view.from, pixels, view.levels, Math.max(Math.floor(view.from), 0));
    const span = view.tile * base;
    for (let t = Math.max(Math.floor(view.from / span), 0); t * span < Math.min(view.to, view.end); t++) this.store.want(this.stream.id, this.stream.phase, base, t);
  }

  /**
   * Make the chunks of a view.
   * @param {View} view
   * @param {number} pixels Columns at most.
   * @param {Window} window
   * @param {number} rows Even.
   * @param {"share" | "count"} color
   * @returns {Prepared}
   */
  prepare(view, pixels, window, rows, color) {
    const { width, base } = columnWidth(view.to - view.from, pixels, view.levels, Math.max(Math.floor(view.from), 0));
    const key = `${width} ${base} ${rows} ${window.lo} ${window.hi} ${window.scale} ${window.linthresh}`;
    if (key !== this.key) {
      const sameRows = this.key.split(" ").slice(2).join() === key.split(" ").slice(2).join();
      const shown = [...this.chunks.values()].some((chunk) => chunk.picture);
      if (this.before) this.spare(this.before.chunks);
      this.before = sameRows && shown ? { width: this.width, chunks: this.chunks } : null;
      if (!this.before) this.spare(this.chunks);
      this.chunks = new Map();
      if (!sameRows || !this.projection) this.projection = project(this.stream.axis, rowEdges(window, rows));
      Object.assign(this, { key, width, base, window });
    }
    let least = Infinity;
    let most = 0;
    let complete = true;
    let error = "";
    const span = CHUNK * width;
    const first = Math.floor(Math.max(view.from, 0) / span);
    for (let i = first; i * span < Math.min(view.to, view.end); i++) {
      const chunk = this.chunk(i, view, color);
      complete &&= chunk.columns.complete;
      error ||= chunk.columns.error;
      least = Math.min(least, chunk.least);
      most = Math.max(most, chunk.most);
    }
    if (complete && this.before) {
      this.spare(this.before.chunks);
      this.before = null;
    }
    if (this.chunks.size > 64) for (const i of this.chunks.keys()) if (i < first - 8 || i > first + 32) this.chunks.delete(i);
    return { least, most, complete, error };
  }

  /**
   * Keep the pictures of chunks that are no longer needed: to make a canvas takes longer than to paint one.
   * @param {Map<number, Chunk>} chunks
   */
  spare(chunks) {
    for (const { picture } of chunks.values()) if (picture && spares.length < 256) spares.push(picture);
  }

  /**
   * @param {number} i
   * @param {View} view
   * @param {"share" | "count"} color
   */
  chunk(i, view, color) {
    const { id, phase } = this.stream;
    const span = CHUNK * this.width;
    const tileSpan = view.tile * this.base;
    let versions = color;
    for (let t = Math.floor((i * span) / tileSpan); t * tileSpan < Math.min((i + 1) * span, view.end); t++) {
      versions += ` ${this.store.want(id, phase, this.base, t)?.version ?? 0}`;
    }
    const known = this.chunks.get(i);
    if (known && known.versions === versions) return known;
    const columns = takeColumns(
      this.store,
      { id, phase },
      { first: i * span, width: this.width, length: CHUNK, base: this.base, tile: view.tile, end: view.end },
      /** @type {import("./axis.js").Projection} */ (this.projection),
    );
    const whole = color === "share" ? columns.of.size : columns.of.number;
    let least = Infinity;
    let most = 0;
    const { sums } = columns;
    const cells = new Float32Array(sums.length);
    const parts = Float64Array.from(whole, (size) => 1 / (size || 1));
    for (let row = 0; row < columns.rows + 2; row++) {
      for (let c = 0, at = row * CHUNK; c < CHUNK; c++, at++) {
        if (sums[at] > 0) {
          const cell = sums[at] * parts[c];
          cells[at] = cell;
          if (cell < least) least = cell;
          if (cell > most) most = cell;
        }
      }
    }
    const chunk = { columns, versions, cells, picture: known?.picture ?? null, painted: "", least, most };
    this.chunks.set(i, chunk);
    return chunk;
  }

  /**
   * Paint what was prepared into a rectangle of the canvas, in its pixels.
   * @param {CanvasRenderingContext2D} ctx
   * @param {{x: number, y: number, w: number, h: number}} box
   * @param {View} view
   * @param {ColorScale} scale
   * @param {{name: string, table: Uint32Array}} map
   */
  paint(ctx, box, view, scale, map) {
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.w, box.h);
    ctx.clip();
    ctx.imageSmoothingEnabled = false;
    const colors = lookup(scale, map.table, map.name);
    const painted = `${scale.low} ${scale.high} ${map.name}`;
    if (this.before) this.place(ctx, box, view, this.before.chunks, this.before.width, () => true);
    const span = CHUNK * this.width;
    this.place(ctx, box, view, this.chunks, this.width, (chunk, i) => {
      if ((i + 1) * span <= view.from || i * span >= view.to) return false;
      if (chunk.painted !== painted || !chunk.picture) {
        chunk.picture = paintChunk(chunk, colors);
        chunk.painted = painted;
      }
      return !this.before || chunk.columns.complete;
    });
    ctx.restore();
  }

  /**
   * @param {CanvasRenderingContext2D} ctx
   * @param {{x: number, y: number, w: number, h: number}} box
   * @param {View} view
   * @param {Map<number, Chunk>} chunks
   * @param {number} width
   * @param {(chunk: Chunk, i: number) => boolean} shown
   */
  place(ctx, box, view, chunks, width, shown) {
    const scale = box.w / (view.to - view.from);
    const { strip, top, window } = bands(box.h);
    const span = CHUNK * width;
    for (const [i, chunk] of chunks) {
      if (!shown(chunk, i) || !chunk.picture) continue;
      // whole pixels, so that neighbours neither overlap nor leave a seam
      const left = Math.round(box.x + (i * span - view.from) * scale);
      const right = Math.round(box.x + ((i + 1) * span - view.from) * scale);
      if (right <= box.x || left >= box.x + box.w) continue;
      const { rows } = chunk.columns;
      ctx.clearRect(left, box.y, right - left, box.h);
      ctx.drawImage(chunk.picture, 0, 1, CHUNK, rows, left, box.y + top, right - left, window);
      ctx.drawImage(chunk.picture, 0, 0, CHUNK, 1, left, box.y, right - left, strip);
      ctx.drawImage(chunk.picture, 0, rows + 1, CHUNK, 1, left, box.y + box.h - strip, right - left, strip);
    }
  }

  /**
   * Return the columns at a batch, and which of them it is, if they were prepared.
   * @param {number} batch
   * @returns {{columns: Columns, at: number} | null}
   */
  at(batch) {
    const chunk = this.chunks.get(Math.floor(batch / (CHUNK * this.width)));
    if (!chunk) return null;
    const at = Math.floor((batch - chunk.columns.first) / this.width);
    return chunk.columns.known[at] ? { columns: chunk.columns, at } : null;
  }

  /**
   * Call back for every drawn column of a view, in order.
   * @param {View} view
   * @param {(columns: Columns, at: number, batch: number) => void} each
   */
  forEach(view, each) {
    const end = Math.min(view.to, view.end);
    for (const i of [...this.chunks.keys()].sort((a, b) => a - b)) {
      const { columns } = /** @type {Chunk} */ (this.chunks.get(i));
      for (let at = 0; at < CHUNK; at++) {
        const batch = columns.first + at * columns.width;
        if (batch + columns.width > view.from && batch < end && columns.known[at]) each(columns, at, batch);
      }
    }
  }
}

/**
 * Return a chunk as a picture: the highest row first, what lies outside the window in its first and last row.
 * @param {Chunk} chunk
 * @param {Uint32Array} colors
 */
function paintChunk(chunk, colors) {
  const { rows, length } = chunk.columns;
  const picture = chunk.picture ?? spares.pop() ?? document.createElement("canvas");
  if (picture.width !== length || picture.height !== rows + 2) {
    picture.width = length;
    picture.height = rows + 2;
  }
  const ctx = /** @type {CanvasRenderingContext2D} */ (picture.getContext("2d"));
  if (scratch.width !== length || scratch.height !== rows + 2) scratch = new ImageData(length, rows + 2);
  const pixels = new Uint32Array(scratch.data.buffer);
  const bits = new Uint32Array(chunk.cells.buffer);
  for (let row = 0; row < rows + 2; row++) {
    const line = row * length;
    const out = (rows + 1 - row) * length;
    for (let c = 0; c < length; c++) pixels[out + c] = bits[line + c] ? colors[bits[line + c] >>> KEY_SHIFT] || colors[1] : 0;
  }
  ctx.putImageData(scratch, 0, 0);
  return picture;
}
