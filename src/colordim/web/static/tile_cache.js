// @ts-check
/**
 * Tiles that were sent without being asked for, put together with those that were: what a page that asks a busy kernel gets.
 *
 * @typedef {import("./tile.js").Tile} Tile
 * @typedef {import("./source.js").Parameters} Parameters
 * @typedef {{batches: {[phase: string]: number}, ended: string | null}} State How far the run was.
 */
import { ARRAY_NAMES, readTiles } from "./tile.js";

/** Tiles that are kept: those of 64 streams in some widths. */
const MOST_TILES = 512;

export class TileCache {
  /** @param {number} length Columns of a tile. */
  constructor(length) {
    this.length = length;
    /** @type {Map<string, {tile: Tile, first: number, state: State}>} `first`: its first column. */
    this.tiles = new Map();
  }

  /**
   * @param {ArrayBuffer} frames An answer of the route `tiles`.
   * @param {State} state
   */
  add(frames, state) {
    for (const tile of readTiles(frames)) {
      const key = `${tile.id} ${tile.phase} ${tile.width} ${tile.index}`;
      const first = tile.start / tile.width - tile.index * this.length;
      const before = this.tiles.get(key);
      const joins = before && before.first <= first && first <= before.first + before.tile.columns;
      this.tiles.delete(key);
      this.tiles.set(
        key,
        joins ? { tile: joinTiles(before.tile, tile, first - before.first), first: before.first, state } : { tile, first, state },
      );
    }
    for (const key of this.tiles.keys()) {
      if (this.tiles.size <= MOST_TILES) break;
      this.tiles.delete(key);
    }
  }

  /**
   * Return the answer of the route `tiles`, if it is here and nothing has been recorded since.
   * @param {Parameters} parameters
   * @param {State} now
   * @returns {ArrayBuffer | null}
   */
  answer(parameters, now) {
    const { streams, phase, width, index, skip = 0, exact = 0 } = parameters;
    if (Number(exact)) return null;
    const parts = [];
    for (const id of String(streams).split(",")) {
      const found = this.tiles.get(`${id} ${phase} ${width} ${index}`);
      if (!found || found.first > Number(skip)) return null;
      const { tile, state } = found;
      const current = state.batches[String(phase)] === now.batches[String(phase)] && state.ended === now.ended;
      if (!current && tile.settled < this.length) return null;
      parts.push(tileBytes(tile, Math.min(Number(skip) - found.first, tile.columns)));
    }
    const out = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 0));
    let at = 0;
    for (const part of parts) {
      new DataView(out.buffer).setUint32(at, part.length, true);
      out.set(part, at + 4);
      at += 4 + part.length;
    }
    return out.buffer;
  }
}

/**
 * Put two tiles together.
 * @param {Tile} old
 * @param {Tile} fresh
 * @param {number} keep Columns of the old one that lie before the fresh one.
 * @returns {Tile}
 */
function joinTiles(old, fresh, keep) {
  const columns = keep + fresh.columns;
  const bins = Uint32Array.from(new Set([...old.bins, ...fresh.bins])).sort();
  const place = new Map([...bins].map((bin, i) => [bin, i]));
  const codes = new Uint8Array(bins.length * columns);
  old.bins.forEach((bin, b) => {
    const at = (place.get(bin) ?? 0) * columns;
    codes.set(old.codes.subarray(b * old.columns, b * old.columns + keep), at);
  });
  fresh.bins.forEach((bin, b) => {
    const at = (place.get(bin) ?? 0) * columns + keep;
    codes.set(fresh.codes.subarray(b * fresh.columns, (b + 1) * fresh.columns), at);
  });
  /** @type {{[name: string]: Float64Array}} */
  const arrays = {};
  for (const name of ARRAY_NAMES) {
    arrays[name] = new Float64Array(columns);
    arrays[name].set(old.arrays[name].subarray(0, keep));
    arrays[name].set(fresh.arrays[name], keep);
  }
  return { ...fresh, start: old.start, columns, bins, codes, arrays, counts: null };
}

/**
 * Lay a tile out as colordim/web/tile.py does, without its first columns.
 * @param {Tile} tile
 * @param {number} skip
 */
function tileBytes(tile, skip) {
  const columns = tile.columns - skip;
  const { id, phase, index, width, settled, bins } = tile;
  const header = { id, phase, index, settled, start: tile.start + skip * width, width, columns, bins: bins.length, exact: false };
  let text = JSON.stringify(header);
  text += " ".repeat((8 - ((4 + text.length) % 8)) % 8);
  const of = (8 - ((4 * bins.length) % 8)) % 8;
  const values = ARRAY_NAMES.length * columns;
  const codesAt = 4 + text.length + 4 * bins.length + of + 8 * values;
  const out = new Uint8Array(codesAt + Math.ceil((bins.length * columns) / 8) * 8);
  const view = new DataView(out.buffer);
  view.setUint32(0, text.length, true);
  out.set(new TextEncoder().encode(text), 4);
  bins.forEach((bin, i) => view.setUint32(4 + text.length + 4 * i, bin, true));
  const all = new Float64Array(values);
  ARRAY_NAMES.forEach((name, i) => all.set(tile.arrays[name].subarray(skip), i * columns));
  const bytes = new Uint8Array(all.buffer);
  const arraysAt = codesAt - 8 * values;
  for (let byte = 0; byte < 8; byte++) {
    for (let i = 0; i < values; i++) out[arraysAt + byte * values + i] = bytes[8 * i + byte];
  }
  bins.forEach((_, b) => {
    out.set(tile.codes.subarray(b * tile.columns + skip, (b + 1) * tile.columns), codesAt + b * columns);
  });
  return out;
}
