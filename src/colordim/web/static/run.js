// @ts-check
/**
 * One run as the page knows it: its head, its tiles, and what follows from them.
 *
 * @typedef {import("./source.js").Source} Source
 * @typedef {import("./heat.js").View} View
 * @typedef {{id: number, name: string, kind: string, module: string, arguments: string, shape: string,
 *   axis: import("./axis.js").AxisSpec, facet: {of: string, index: number, label: string} | null}} Stream
 * @typedef {"train" | "valid"} Phase
 *
 * @typedef {object} Summary Of all that a stream has in a phase.
 * @property {number} half Window that holds nearly all values: from -half to half.
 * @property {number} largest Magnitude.
 * @property {number} zeros Share.
 * @property {number} notFinite Values.
 * @property {number} size Values.
 * @property {number} odd First batch with NaN or infinite values, as near as the columns tell; Infinity without.
 * @property {boolean} dead Whether there were only zeros in the end.
 * @property {number} number Batches in which it fired.
 * @property {Float64Array} counts Of the bins.
 */
import { axisOf } from "./axis.js";
import { COUNT_OF_CODE } from "./codes.js";
import { Findings } from "./findings.js";
import { HeatMap } from "./heat.js";
import { askJson } from "./source.js";
import { TileStore } from "./tiles.js";
import { halfWidth, pairWindow, sharedHalf, symlogWindow, symmetricWindow } from "./window.js";

/** Seconds without a batch after which a run that has not ended counts as cut off. */
const QUIET = 60;
/**
 * How much is wrong with a layer by what can be counted: 2 for NaN or infinite values, 1 for only zeros in the end.
 * @param {Summary | undefined} summary
 */
export function trouble(summary) {
  return summary ? (summary.notFinite > 0 ? 2 : 0) + (summary.dead ? 1 : 0) : 0;
}

/**
 * Whether something is wrong with a layer: by the diagnosis, or by what can be counted as long as there is none.
 * @param {RunModel} model
 * @param {Stream} stream
 * @param {Phase} phase
 */
export function isTroubled(model, stream, phase) {
  if (model.findings.diagnosis) return model.findings.rank(stream) < Infinity;
  return trouble(model.summary(stream, phase)) > 0;
}

/** Share of them that has to be known before anything is drawn; the window hardly ever changes with the others. */
const ENOUGH = 0.5;
/** Questions that take reading all batches, and milliseconds that they wait at most for the first picture. */
const HEAVY = ["marks", "scalars"];
const FIRST_PICTURE = 2000;
/** Layers that a shared window is taken from at most. */
const MOST_SHARING = 32;

const NO_EPOCHS = { first: [], number: [], at: [] };
const NO_MARKS = { epochs: { train: NO_EPOCHS, valid: NO_EPOCHS }, scalars: [], seconds: null, cost: null, note: "" };

export class RunModel {
  /**
   * @param {Source} source
   * @param {any} head
   * @param {string} path
   * @param {() => void} onData Called when tiles have come.
   * @param {() => void} [onFindings] Called when something else is known to be wrong.
   */
  constructor(source, head, path, onData, onFindings = onData) {
    this.source = source;
    this.head = head;
    this.path = path;
    this.store = new TileStore(source, onData);
    this.findings = new Findings(source, onFindings);
    /** @type {Map<string, HeatMap>} */
    this.heats = new Map();
    /** @type {Map<string, {version: number, summary: Summary}>} */
    this.summaries = new Map();
    /** @type {Map<string, {value: any, fresh: boolean, asked: boolean}>} */
    this.answers = new Map();
    if (head.marks) this.answers.set("marks {}", { value: head.marks, fresh: true, asked: false });
    this.onData = onData;
    this.begun = false;
    this.waiting = 0;
    this.heard = Date.now();
    this.loaded = performance.now();
    /** @type {() => void} */
    this.stop = () => {};
  }

  /** @returns {Stream[]} */
  get streams() {
    return this.head.streams;
  }

  /** What is known of the batches: epochs, logged names, cost; empty until it has come. */
  get marks() {
    const found = this.known("marks");
    return found && !(found instanceof Error) ? found : NO_MARKS;
  }

  /** Whether that has come. */
  get marked() {
    return this.answers.get("marks {}")?.value !== undefined;
  }

  /** Kinds that were recorded, in the order of the choice. */
  get kinds() {
    const there = new Set(this.streams.map((stream) => stream.kind));
    return ["activation", "gradient", "weight", "weight_gradient", "update"].filter((kind) => there.has(kind));
  }

  /**
   * Listen to the run while it grows.
   * @param {(streams: boolean) => void} onGrowth Told whether there are new streams.
   */
  follow(onGrowth) {
    if (this.head.ended) return;
    this.stop = this.source.onGrowth(async (growth) => {
      this.heard = Date.now();
      const more = growth.count !== this.head.count;
      const before = this.head.batches;
      Object.assign(this.head, growth);
      if (more) this.head = await askJson(this.source, "head");
      const less = Object.entries(before).some(([phase, number]) => number > this.head.batches[phase]);
      if (less) {
        // resumed, and what was behind the checkpoint is gone
        this.store.clear();
        this.heats.clear();
      }
      for (const kept of this.answers.values()) kept.fresh = false;
      this.store.grow(this.head.batches, this.head.tile, Boolean(this.head.ended));
      onGrowth(more);
    });
  }

  close() {
    this.stop();
    clearTimeout(this.waiting);
    this.findings.close();
    this.store.close();
  }

  /** "live", "ended", or "cut off"; of a report of a run that had not ended, "not ended". */
  get state() {
    if (this.head.ended) return "ended";
    if (this.head.made) return "not ended";
    return (this.marks.seconds ?? 0) + (Date.now() - this.heard) / 1000 > QUIET ? "cut off" : "live";
  }

  /**
   * @param {string} kind
   * @returns {Stream[]} Of whole layers.
   */
  whole(kind) {
    return this.streams.filter((stream) => stream.kind === kind && !stream.facet);
  }

  /**
   * @param {string} name
   * @param {string} kind
   */
  find(name, kind) {
    return this.streams.find((stream) => stream.name === name && stream.kind === kind);
  }

  /**
   * The classes or channels of a layer that were recorded apart.
   * @param {Stream} stream
   */
  facets(stream) {
    return this.streams.filter((s) => s.facet && s.facet.of === stream.name && s.kind === stream.kind);
  }

  /**
   * @param {Phase} phase
   * @param {[number, number] | null} x Batches on show; null for all.
   * @returns {View}
   */
  view(phase, x) {
    const end = Math.max(this.head.batches[phase], 1);
    const [from, to] = x && x[0] < end ? x : [0, end];
    return { from, to, end: this.head.batches[phase], levels: this.head.levels[phase], tile: this.head.tile };
  }

  /**
   * The validation batches that ran while the training batches `x` did.
   * @param {[number, number] | null} x
   * @returns {[number, number] | null}
   */
  validWithin(x) {
    if (!x) return null;
    const { first, at } = this.marks.epochs.valid;
    const end = this.head.batches.valid;
    const inside = at.map((/** @type {number} */ place, /** @type {number} */ i) => (place > x[0] && place <= x[1] ? i : -1)).filter((/** @type {number} */ i) => i >= 0);
    if (!inside.length) return null;
    const last = inside[inside.length - 1];
    return [first[inside[0]], first[last + 1] ?? end];
  }

  /**
   * The training batches during which the validation batches `x` ran: the other way round.
   * @param {[number, number] | null} x
   * @returns {[number, number] | null}
   */
  trainAround(x) {
    if (!x) return null;
    const { first, at } = this.marks.epochs.valid;
    const end = this.head.batches.valid;
    const inside = first.map((/** @type {number} */ from, /** @type {number} */ i) => (from < x[1] && (first[i + 1] ?? end) > x[0] ? i : -1)).filter((/** @type {number} */ i) => i >= 0);
    if (!inside.length) return null;
    const [from, to] = [at[inside[0] - 1] ?? 0, at[inside[inside.length - 1]]];
    return from < to ? [from, to] : null;
  }

  /**
   * @param {Stream} stream
   * @param {Phase} phase
   * @param {string} [use] Panels of different sizes have maps of their own.
   */
  heat(stream, phase, use = "") {
    const key = `${stream.id} ${phase} ${use}`;
    let heat = this.heats.get(key);
    if (!heat) {
      heat = new HeatMap({ id: stream.id, phase, axis: axisOf(stream.axis) }, this.store);
      this.heats.set(key, heat);
    }
    return heat;
  }

  /**
   * What a stream has in all; undefined until it has come.
   * @param {Stream} stream
   * @param {Phase} phase
   * @returns {Summary | undefined}
   */
  summary(stream, phase) {
    const { levels, batches, tile } = this.head;
    const key = `${stream.id} ${phase}`;
    const known = this.summaries.get(key);
    if (!batches[phase]) return known?.summary;
    const widths = levels[phase].map((/** @type {{width: number}} */ level) => level.width).reverse();
    // the widest columns are the fewest; what is drawn anyway serves as well
    let found = this.store.whole(stream.id, phase, widths, batches[phase], tile);
    if (found === null) return known?.summary;
    if (!found || found.width === widths[0]) {
      const slot = this.store.want(stream.id, phase, widths[0], 0, true);
      found = slot && { slots: [slot], width: widths[0] };
    }
    if (!found?.slots.every((slot) => slot.pieces.length)) return known?.summary;
    const { slots, width } = found;
    const version = slots.reduce((sum, slot) => sum + slot.version, 1e6 * width);
    if (known?.version === version) return known.summary;
    const axis = axisOf(stream.axis);
    const counts = new Float64Array(axis.bins);
    const sums = { under: 0, over: 0, zeros: 0, size: 0, nan: 0, pos_inf: 0, neg_inf: 0, number: 0 };
    const names = /** @type {(keyof typeof sums)[]} */ (Object.keys(sums));
    let largest = 0;
    let dead = false;
    let odd = Infinity;
    const pieces = slots.flatMap((slot) => slot.pieces);
    pieces.forEach((piece, p) => {
      const next = pieces[p + 1];
      const stop = next ? Math.min((next.start - piece.start) / width, piece.columns) : piece.columns;
      for (let c = 0; c < stop; c++) {
        if (piece.arrays.held[c]) continue;
        for (const name of names) sums[name] += piece.arrays[name][c];
        const { min, max, size, zeros } = piece.arrays;
        if (size[c]) dead = zeros[c] === size[c];
        if (odd === Infinity && piece.arrays.nan[c] + piece.arrays.pos_inf[c] + piece.arrays.neg_inf[c]) odd = piece.start + c * width;
        if (min[c] <= max[c]) largest = Math.max(largest, Math.abs(min[c]), Math.abs(max[c]));
      }
      const { codes, counts: exact } = piece;
      const held = piece.arrays.held.subarray(0, stop).some(Boolean) ? piece.arrays.held : null;
      piece.bins.forEach((bin, b) => {
        let sum = 0;
        for (let c = 0, at = b * piece.columns; c < stop; c++, at++) {
          if (!held?.[c]) sum += exact ? exact[at] : COUNT_OF_CODE[codes[at]];
        }
        counts[bin] += sum;
      });
    });
    const summary = {
      half: halfWidth(counts, axis.edges, sums.under + sums.over),
      largest,
      zeros: sums.zeros / sums.size,
      notFinite: sums.nan + sums.pos_inf + sums.neg_inf,
      size: sums.size,
      dead,
      odd,
      number: sums.number,
      counts,
    };
    this.summaries.set(key, { version, summary });
    return summary;
  }

  /**
   * The window of each stream; null while it is not known.
   * @param {Stream[]} streams Those that share one.
   * @param {Phase} phase
   * @param {string} choice
   * @returns {(stream: Stream) => import("./window.js").Window | null}
   */
  windows(streams, phase, choice) {
    const fixed = pairWindow(choice);
    if (fixed) return () => fixed;
    // an overview of all of them is small, and a window that settles down step by step would have all drawn several times
    // of very many layers an even choice tells as much
    const every = Math.ceil(streams.length / MOST_SHARING);
    if (every > 1) streams = streams.filter((_, i) => i % every === 0);
    if (choice !== "own" && this.head.batches[phase]) {
      const known = streams.filter((stream) => this.summary(stream, phase));
      if (known.length < ENOUGH * streams.length) return () => null;
    }
    /** @param {Stream} stream */
    const half = (stream) => this.summary(stream, phase)?.half ?? NaN;
    if (choice === "own") return (stream) => (this.summary(stream, phase) || !this.head.batches[phase] ? symmetricWindow(half(stream)) : null);
    const halves = streams.map(half);
    const largest = Math.max(0, ...streams.map((stream) => this.summary(stream, phase)?.largest ?? 0));
    const one = choice === "symlog" ? symlogWindow(halves, largest) : symmetricWindow(sharedHalf(halves));
    return () => one;
  }

  /** Whether anything is under way. */
  get busy() {
    return this.store.busy || [...this.answers.values()].some((answer) => answer.asked);
  }

  /**
   * Ask once, and again when the run has grown; what is known stands until the new answer has come.
   * @param {string} route
   * @param {import("./source.js").Parameters} [parameters]
   * @returns {any} undefined until it has come; an Error if it cannot be had.
   */
  known(route, parameters = {}) {
    const key = `${route} ${JSON.stringify(parameters)}`;
    let kept = this.answers.get(key);
    if (kept?.fresh) return kept.value;
    // what takes reading all batches of the run waits for the first picture
    if (!this.begun && HEAVY.includes(route)) {
      const waited = performance.now() - this.loaded;
      if (!this.waiting) this.waiting = window.setTimeout(this.onData, FIRST_PICTURE); // tiles that come call back, too
      const nothing = !this.head.batches.train && !this.head.batches.valid;
      if (!nothing && (this.store.busy || !this.store.taken) && waited < FIRST_PICTURE) return kept?.value;
      clearTimeout(this.waiting);
      this.begun = true;
    }
    if (!kept) {
      if (this.answers.size > 500) this.answers.clear();
      kept = { value: undefined, fresh: false, asked: false };
      this.answers.set(key, kept);
    }
    if (!kept.asked) {
      kept.asked = true;
      kept.fresh = true;
      /** @param {any} value */
      const take = (value) => {
        kept.value = value;
        kept.asked = false;
        this.onData();
      };
      askJson(this.source, route, parameters).then(take, take);
    }
    return kept.value;
  }
}
