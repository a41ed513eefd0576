// @ts-check
/**
 * The tiles that the page has, and the asking for those that it lacks.
 *
 * @typedef {import("./tile.js").Tile} Tile
 * @typedef {import("./source.js").Source} Source
 *
 * @typedef {object} Slot A tile of one stream: pieces that follow each other, as a run that grows sends only what is new.
 * @property {Tile[]} pieces Those columns count that lie before the next piece.
 * @property {number} columns
 * @property {number} settled
 * @property {number} version Changes with the columns.
 * @property {number} used When it was drawn last.
 * @property {number} bytes
 * @property {boolean} stale
 * @property {string} error Sentence, if it could not be had.
 *
 * @typedef {{key: string, id: number, phase: string, width: number, index: number, skip: number, few: boolean}} Want
 */
import { readTiles } from "./tile.js";

/** Streams in one question, of tiles that have few columns and of others, and questions under way at once. */
const MANY_TOGETHER = 64;
const TOGETHER = 16;
const AT_ONCE = 3;
/** Tiles that all batches of a stream are taken from at most: as many as a wide panel is drawn from. */
const MOST_OF_WHOLE = 4;
/** Pieces of a slot, beyond which it is asked for anew in one. */
const MOST_PIECES = 12;
/** Bytes of tiles that are kept. */
const MOST_BYTES = 256e6;
/** Milliseconds after which what failed is asked for again. */
const RETRY = 4000;

export class TileStore {
  /**
   * @param {Source} source
   * @param {() => void} onChange Called after tiles have come.
   */
  constructor(source, onChange) {
    this.source = source;
    this.onChange = onChange;
    /** @type {Map<string, Slot>} */
    this.slots = new Map();
    /** @type {Map<string, Want>} */
    this.wanted = new Map();
    /** @type {Set<string>} */
    this.underWay = new Set();
    this.asking = 0;
    this.clock = 0;
    this.bytes = 0;
    this.scheduled = false;
    this.closed = false;
    /** Whether any tile has come yet. */
    this.taken = false;
  }

  /**
   * Return a tile if it is there, and see to it that it comes if it is not, or not up to date.
   * @param {number} id
   * @param {string} phase
   * @param {number} width
   * @param {number} index
   * @param {boolean} [few] Whether it has few columns.
   * @returns {Slot | undefined}
   */
  want(id, phase, width, index, few = false) {
    const key = `${id} ${phase} ${width} ${index}`;
    const slot = this.slots.get(key);
    if (slot) slot.used = ++this.clock;
    if ((!slot || slot.stale) && !this.underWay.has(key)) {
      const skip = slot && slot.pieces.length < MOST_PIECES ? slot.settled : 0;
      this.wanted.set(key, { key, id, phase, width, index, skip, few });
      if (!this.scheduled) {
        this.scheduled = true;
        queueMicrotask(() => {
          this.scheduled = false;
          this.askNext();
        });
      }
    }
    return slot;
  }

  /**
   * Return the tiles of all batches of a stream, if they are there; null while they are on their way.
   * @param {number} id
   * @param {string} phase
   * @param {number[]} widths The widest first.
   * @param {number} end Number of batches.
   * @param {number} tile Columns of a tile.
   * @returns {{slots: Slot[], width: number} | null | undefined}
   */
  whole(id, phase, widths, end, tile) {
    let coming;
    for (const width of widths) {
      const number = Math.ceil(end / (width * tile));
      if (number > MOST_OF_WHOLE) break;
      /** @type {Slot[]} */
      const slots = [];
      let index = 0;
      for (; index < number; index++) {
        const key = `${id} ${phase} ${width} ${index}`;
        const slot = this.slots.get(key);
        if (slot?.pieces.length) slots.push(slot);
        else if (!this.wanted.has(key) && !this.underWay.has(key)) break;
      }
      if (slots.length === number) return { slots, width };
      if (index === number) coming = null;
    }
    return coming;
  }

  /** Forget what was wanted and is not under way: a new picture says anew what it needs. */
  forgetWanted() {
    this.wanted.clear();
  }

  /** Whether anything is missing that was wanted. */
  get busy() {
    return this.wanted.size > 0 || this.asking > 0;
  }

  /**
   * Note that the run has grown.
   * @param {{[phase: string]: number}} batches
   * @param {number} tile Columns of a tile.
   * @param {boolean} ended Whether it was the last time.
   */
  grow(batches, tile, ended) {
    for (const [key, slot] of this.slots) {
      const [, phase, width, index] = key.split(" ");
      const end = Math.min((Number(index) + 1) * tile * Number(width), batches[phase] ?? 0);
      const known = Number(index) * tile * Number(width) + slot.columns * Number(width);
      const whole = slot.settled >= tile;
      if (!whole && (known < end || slot.settled < slot.columns || ended)) slot.stale = true;
    }
  }

  /** Forget everything: the run was begun anew. */
  clear() {
    this.slots.clear();
    this.wanted.clear();
    this.bytes = 0;
  }

  close() {
    this.closed = true;
    this.clear();
  }

  askNext() {
    while (this.asking < AT_ONCE && this.wanted.size && !this.closed) {
      const first = /** @type {Want} */ (this.wanted.values().next().value);
      const alike = [...this.wanted.values()].filter(
        (w) => w.phase === first.phase && w.width === first.width && w.index === first.index && w.skip === first.skip,
      );
      this.ask(alike.slice(0, first.few ? MANY_TOGETHER : TOGETHER));
    }
  }

  /** @param {Want[]} wants */
  async ask(wants) {
    const { phase, width, index, skip } = wants[0];
    for (const want of wants) {
      this.wanted.delete(want.key);
      this.underWay.add(want.key);
    }
    this.asking++;
    try {
      const streams = wants.map((want) => want.id).join(",");
      const tiles = readTiles(await this.source.ask("tiles", { streams, phase, width, index, skip }));
      tiles.forEach((tile, i) => this.take(wants[i].key, tile, skip));
      for (const want of wants) this.underWay.delete(want.key);
    } catch (error) {
      const sentence = error instanceof Error ? error.message : String(error);
      for (const { key } of wants) {
        const slot = this.slots.get(key);
        if (slot) slot.error = sentence;
        else this.slots.set(key, { ...emptySlot(), error: sentence });
      }
      setTimeout(() => {
        for (const { key } of wants) {
          this.underWay.delete(key);
          const slot = this.slots.get(key);
          if (slot) slot.stale = true;
        }
        if (!this.closed) this.onChange();
      }, RETRY);
    } finally {
      this.asking--;
      if (!this.closed) {
        this.onChange();
        this.askNext();
      }
    }
  }

  /**
   * @param {string} key
   * @param {Tile} tile
   * @param {number} skip
   */
  take(key, tile, skip) {
    this.taken = true;
    const slot = this.slots.get(key) ?? emptySlot();
    if (skip === 0) slot.pieces = [];
    if (tile.columns || !slot.pieces.length) slot.pieces.push(tile);
    slot.columns = skip + tile.columns;
    slot.settled = tile.settled;
    slot.version++;
    slot.stale = false;
    slot.error = "";
    const bytes = slot.pieces.reduce((sum, piece) => sum + piece.codes.length * (piece.counts ? 9 : 1) + 112 * piece.columns, 0);
    this.bytes += bytes - slot.bytes;
    slot.bytes = bytes;
    slot.used = ++this.clock;
    this.slots.set(key, slot);
    if (this.bytes > MOST_BYTES) this.drop();
  }

  /** Drop the tiles that were not drawn for longest. */
  drop() {
    const oldest = [...this.slots].sort((a, b) => a[1].used - b[1].used);
    for (const [key, slot] of oldest) {
      if (this.bytes < 0.75 * MOST_BYTES) break;
      this.slots.delete(key);
      this.bytes -= slot.bytes;
    }
  }
}

/** @returns {Slot} */
function emptySlot() {
  return { pieces: [], columns: 0, settled: 0, version: 0, used: 0, bytes: 0, stale: false, error: "" };
}
