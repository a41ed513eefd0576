// @ts-check
/**
 * The window: which values a panel shows, and on what scale. As colordim/charts/window.py.
 *
 * @typedef {{lo: number, hi: number, scale: "linear" | "symlog", linthresh: number}} Window
 */

/** A shared window holds this share of the values of this share of the layers. */
const SHARE = 0.995;
const SHARE_OF_LAYERS = 0.9;
const STEPS = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/**
 * Where a value lies on the drawn axis.
 * @param {Window} window
 * @param {number} value
 */
export function forward(window, value) {
  if (window.scale === "linear") return value;
  // Matplotlib's symmetrical logarithm: linear up to linthresh, where both meet with the same slope but for a factor
  const size = Math.abs(value);
  const { linthresh } = window;
  const stretch = 1 / (1 - 1 / 10);
  const out = size <= linthresh ? size * stretch : linthresh * (stretch + Math.log10(size / linthresh));
  return Math.sign(value) * out;
}

/**
 * The value at a place of the drawn axis.
 * @param {Window} window
 * @param {number} place
 */
export function inverse(window, place) {
  if (window.scale === "linear") return place;
  const size = Math.abs(place);
  const { linthresh } = window;
  const stretch = 1 / (1 - 1 / 10);
  const out = size <= linthresh * stretch ? size / stretch : linthresh * 10 ** (size / linthresh - stretch);
  return Math.sign(place) * out;
}

/**
 * The values at the edges of rows of equal height. In a symmetric window with an even number of rows one is exactly zero.
 * @param {Window} window
 * @param {number} rows
 */
export function rowEdges(window, rows) {
  const low = forward(window, window.lo);
  const high = forward(window, window.hi);
  const edges = Float64Array.from({ length: rows + 1 }, (_, i) => inverse(window, low + ((high - low) * i) / rows));
  edges[0] = window.lo;
  edges[rows] = window.hi;
  if (window.lo === -window.hi) {
    for (let i = 0; i <= rows / 2; i++) {
      const half = (edges[rows - i] - edges[i]) / 2;
      edges[i] = -half;
      edges[rows - i] = half;
    }
  }
  return edges;
}

/**
 * The next number of one or two digits.
 * @param {number} value
 */
function roundUp(value) {
  const exponent = Math.floor(Math.log10(value));
  for (const step of STEPS) {
    const candidate = Number(`${step}e${exponent}`);
    if (candidate >= value * (1 - 1e-9)) return candidate;
  }
  return Number(`1e${exponent + 1}`);
}

/**
 * @param {number} half
 * @returns {Window}
 */
export function symmetricWindow(half) {
  const hi = Number.isFinite(half) && half > 0 ? roundUp(half) : 1;
  return { lo: -hi, hi, scale: "linear", linthresh: 1 };
}

/**
 * The half width that is wide enough for most layers.
 * @param {number[]} halves NaN for layers without values.
 */
export function sharedHalf(halves) {
  const known = halves.filter((half) => !Number.isNaN(half)).sort((a, b) => a - b);
  return known.length ? known[Math.max(Math.ceil(SHARE_OF_LAYERS * known.length - 1e-9), 1) - 1] : NaN;
}

/**
 * A window on the symmetric logarithmic scale that shows everything up to `largest`.
 * @param {number[]} halves
 * @param {number} largest
 * @returns {Window}
 */
export function symlogWindow(halves, largest) {
  const hi = roundUp(Number.isFinite(largest) && largest > 0 ? largest : 1);
  const narrow = Math.min(hi, ...halves.filter((half) => half > 0));
  const linthresh = 10 ** Math.floor(Math.log10(Math.max(Math.min(narrow, hi) / 10, hi * 1e-9)));
  return { lo: -hi, hi, scale: "symlog", linthresh };
}

/**
 * The smallest w such that -w <= x <= w holds nearly all values of a histogram; NaN without values.
 * @param {Float64Array} counts Of the bins.
 * @param {Float64Array} edges
 * @param {number} outside Underflow and overflow.
 */
export function halfWidth(counts, edges, outside) {
  let total = outside;
  let last = 0;
  /** @type {[number, number, number][]} nearer and farther end of each bin's distances from zero, and its count */
  const parts = [];
  for (let b = 0; b < counts.length; b++) {
    if (!counts[b]) continue;
    total += counts[b];
    const [a, z] = [edges[b], edges[b + 1]];
    if (a < 0 && z > 0) parts.push([0, -a, (counts[b] * -a) / (z - a)], [0, z, (counts[b] * z) / (z - a)]);
    else parts.push(a >= 0 ? [a, z, counts[b]] : [-z, -a, counts[b]]);
  }
  if (!total) return NaN;
  parts.sort((p, q) => p[1] - q[1]);
  const target = SHARE * total * (1 - 1e-12);
  let held = 0;
  for (const [near, far, count] of parts) {
    if (held + count >= target) return far - ((far - near) * (held + count - target)) / count;
    held += count;
    last = far;
  }
  return held >= target ? last : Infinity;
}

/**
 * Values for the ticks of an axis, about `number` of them.
 * @param {Window} window
 * @param {number} number
 */
export function windowTicks(window, number) {
  if (window.scale === "linear") return linearTicks(window.lo, window.hi, number);
  const top = Math.log10(Math.max(Math.abs(window.lo), Math.abs(window.hi)));
  const bottom = Math.log10(window.linthresh);
  const every = Math.max(Math.ceil((top - bottom + 1) / Math.max(number / 2, 1)), 1);
  /** @type {number[]} */
  const ticks = [0];
  for (let e = Math.floor(top + 1e-9); e >= bottom - 1e-9; e -= every) {
    const value = Number(`1e${e}`);
    if (value <= window.hi) ticks.push(value);
    if (-value >= window.lo) ticks.unshift(-value);
  }
  return ticks.filter((tick) => tick >= window.lo && tick <= window.hi);
}

/**
 * Round numbers between two.
 * @param {number} lo
 * @param {number} hi
 * @param {number} number
 */
export function linearTicks(lo, hi, number) {
  const raw = (hi - lo) / Math.max(number, 1);
  if (!(raw > 0) || !Number.isFinite(raw)) return [];
  const decade = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((s) => s * decade).find((s) => s >= raw * (1 - 1e-9)) ?? 10 * decade;
  /** @type {number[]} */
  const ticks = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

/**
 * The window that an address names as "LO,HI"; null if it names another.
 * @param {string} choice
 * @returns {Window | null}
 */
export function pairWindow(choice) {
  const [lo, hi, ...rest] = choice.split(",").map(Number);
  return !rest.length && Number.isFinite(lo) && Number.isFinite(hi) && lo < hi ? { lo, hi, scale: "linear", linthresh: 1 } : null;
}
