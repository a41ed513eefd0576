// @ts-check
/**
 * The source of a report: answers that lie in the page itself, as colordim/web/report.py wrote them, unpacked when asked for.
 *
 * @typedef {import("./source.js").Source} Source
 * @typedef {import("./source.js").Parameters} Parameters
 */
import { inflated } from "./source.js";
import { readTiles } from "./tile.js";

/**
 * @param {Document} page
 * @returns {Source}
 */
export function reportSource(page) {
  /** @type {Map<string, Element>} */
  const blocks = new Map();
  for (const element of page.querySelectorAll("script[data-key]")) {
    blocks.set(/** @type {HTMLElement} */ (element).dataset.key ?? "", element);
  }

  /** @param {string} key */
  async function bytes(key) {
    const element = blocks.get(key);
    if (!element) throw new Error("This report does not hold that: write it anew with more layers or phases.");
    return inflated(decoded(element.textContent ?? ""));
  }

  /** @param {string} key */
  async function json(key) {
    return JSON.parse(new TextDecoder().decode(await bytes(key)));
  }

  const headOfReport = blocks.has("head") ? json("head") : Promise.reject(new Error("This file is not a whole report."));

  /** @param {Parameters} parameters */
  async function tiles(parameters) {
    const head = await headOfReport;
    const phase = String(parameters.phase ?? "train");
    if (Number(parameters.width) !== head.levels[phase]?.[0].width) {
      throw new Error(`This report holds ${phase} columns of ${head.levels[phase]?.[0].width} batches: write it anew with --columns.`);
    }
    if (Number(parameters.exact ?? 0) && !head.exact) throw new Error("This report holds counts within 6 %: write it anew with --exact.");
    const ids = String(parameters.streams).split(",");
    const parts = await Promise.all(ids.map((id) => bytes(`tiles ${phase} ${id}`)));
    const out = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.byteLength, 0));
    let at = 0;
    for (const part of parts) {
      new DataView(out.buffer).setUint32(at, part.byteLength, true);
      out.set(new Uint8Array(part), at + 4);
      at += 4 + part.byteLength;
    }
    return out.buffer;
  }

  /**
   * The sum of whole columns; only an exact report can give it.
   * @param {Parameters} parameters
   */
  async function column(parameters) {
    const head = await headOfReport;
    if (!head.exact) throw new Error("This report holds counts within 6 %: write it anew with --exact.");
    const phase = String(parameters.phase ?? "train");
    const { width } = head.levels[phase][0];
    const from = Number(parameters.start) / width;
    const to = Math.min(Math.ceil((Number(parameters.start) + Number(parameters.batches)) / width), Math.ceil(head.batches[phase] / width));
    if (!Number.isInteger(from) || from >= to) throw new Error(`This report holds ${phase} columns of ${width} batches.`);
    const [tile] = readTiles(await tiles({ streams: parameters.stream, phase, width, index: 0, exact: 1 }));
    return sumOfColumns(tile, from, to, Math.min(to * width, head.batches[phase]));
  }

  /** @type {{[route: string]: (parameters: Parameters) => Promise<any>}} */
  const routes = {
    head: () => headOfReport,
    growth: () => headOfReport,
    marks: async () => (await headOfReport).marks,
    // reports of before have none
    findings: async () => (blocks.has("findings") ? json("findings") : { diagnosis: null, error: null, again: null }),
    column,
    scalars: ({ phase = "train" }) => json(`scalars ${phase}`),
    // of the epochs that are there, the one nearest to what is asked for; the answer says which
    twin: async ({ stream, epoch }) => {
      /** @type {{epoch: number}[]} */
      const all = await json(`twin ${stream}`);
      return all.reduce((a, b) => (Math.abs(b.epoch - Number(epoch)) < Math.abs(a.epoch - Number(epoch)) ? b : a));
    },
    units: async ({ stream, phase = "train" }) =>
      (await json(`units ${stream}`))[phase] ?? { first: [], last: [], dead: [], units: 0, judged_on: "" },
    facts: async ({ stream }) => (await json("facts"))[stream] ?? { module: null, parameters: [], follower: null },
  };

  return {
    kind: "report",
    ask: async (route, parameters = {}) => {
      if (route === "tiles") return tiles(parameters);
      if (!Object.hasOwn(routes, route)) throw new Error(`There is no route ${route}.`);
      return new TextEncoder().encode(JSON.stringify(await routes[route](parameters))).buffer;
    },
    onGrowth: () => () => {},
  };
}

/**
 * @param {string} text In base64.
 * @returns {Uint8Array<ArrayBuffer>}
 */
function decoded(text) {
  /** @type {any} */
  const newer = Uint8Array; // has fromBase64 in browsers since 2025
  if (newer.fromBase64) return newer.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length); // a loop takes a fifth of what Uint8Array.from() with a function does
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/**
 * @param {import("./tile.js").Tile} tile
 * @param {number} from Column.
 * @param {number} to
 * @param {number} end Batch after the last.
 */
function sumOfColumns(tile, from, to, end) {
  const { arrays, counts } = tile;
  /** @type {number[]} */
  const taken = [];
  for (let c = from; c < to; c++) if (!arrays.held[c]) taken.push(c);
  /** @param {(c: number) => number} of */
  const added = (of) => taken.reduce((sum, c) => sum + of(c), 0);
  /** @type {number[]} */
  const bins = [];
  /** @type {number[]} */
  const sums = [];
  tile.bins.forEach((bin, b) => {
    const sum = added((c) => counts?.[b * tile.columns + c] ?? 0);
    if (sum) {
      bins.push(bin);
      sums.push(sum);
    }
  });
  /** @param {number} c */
  const finite = (c) => arrays.size[c] - arrays.nan[c] - arrays.pos_inf[c] - arrays.neg_inf[c];
  const filled = taken.filter((c) => finite(c) > 0);
  return {
    bins,
    counts: sums,
    counters: Object.fromEntries(
      ["under", "over", "nan", "pos_inf", "neg_inf", "zeros", "size", "calls"].map((name) => [name, added((c) => arrays[name][c])]),
    ),
    first: tile.start + from * tile.width,
    last: end - 1,
    recorded: added((c) => arrays.number[c]),
    moments: {
      sum: filled.reduce((sum, c) => sum + arrays.mean[c] * finite(c), 0),
      sum_sq: filled.reduce((sum, c) => sum + (arrays.std[c] ** 2 + arrays.mean[c] ** 2) * finite(c), 0),
      min: filled.length ? Math.min(...filled.map((c) => arrays.min[c])) : null,
      max: filled.length ? Math.max(...filled.map((c) => arrays.max[c])) : null,
    },
  };
}
