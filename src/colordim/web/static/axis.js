// @ts-check
/**
 * The value axes of the histograms, as colordim/axis.py has them: edges of the bins, and how they fall into rows.
 *
 * @typedef {{type: "linear", lo: number, hi: number, bins: number} | {type: "signed_log", bits: number}} AxisSpec
 *
 * @typedef {object} Axis
 * @property {string} key Equal for equal axes.
 * @property {number} bins
 * @property {Float64Array} edges Ascending, one more than bins.
 */

const LOWEST_EXPONENT = -40;
const HIGHEST_EXPONENT = 23;
/** Share of a bin below which an overlap with a row is the rounding of their edges. */
const ROUNDING = 1e-9;

/** @type {Map<string, Axis>} */
const axes = new Map();

/**
 * @param {AxisSpec} spec
 * @returns {Axis}
 */
export function axisOf(spec) {
  const key = JSON.stringify(spec);
  let axis = axes.get(key);
  if (!axis) {
    const edges = spec.type === "linear" ? linearEdges(spec) : signedLogEdges(spec.bits);
    axis = { key, bins: edges.length - 1, edges };
    axes.set(key, axis);
  }
  return axis;
}

/** @param {{lo: number, hi: number, bins: number}} spec */
function linearEdges({ lo, hi, bins }) {
  const step = (hi - lo) / bins;
  const edges = Float64Array.from({ length: bins + 1 }, (_, i) => lo + i * step);
  edges[bins] = hi;
  return edges;
}

/** @param {number} bits */
function signedLogEdges(bits) {
  const parts = 2 ** bits;
  const positive = [];
  for (let e = LOWEST_EXPONENT; e <= HIGHEST_EXPONENT; e++) {
    for (let m = 0; m < parts; m++) positive.push(2 ** e * (1 + m / parts));
  }
  positive.push(2 ** (HIGHEST_EXPONENT + 1));
  positive[0] = 0; // the innermost bucket holds everything smaller
  return Float64Array.from([...positive.map((x) => 0 - x).reverse(), ...positive]);
}

/**
 * How bins fall into the rows of a picture. Row 0 is what lies below the window, the last what lies above; the parts of
 * bin b are those from `start[b]` to `start[b + 1]`, and add up to one.
 * @typedef {{rows: number, start: Uint32Array, row: Uint32Array, part: Float64Array}} Projection
 */

/**
 * Split each bin in proportion to its overlap with each row; a bin without width (the zero of the signed-log axis) goes
 * whole to the row that holds it.
 * @param {Axis} axis
 * @param {Float64Array} rowEdges Strictly ascending.
 * @returns {Projection}
 */
export function project(axis, rowEdges) {
  const { bins, edges } = axis;
  const rows = rowEdges.length - 1;
  const start = new Uint32Array(bins + 1);
  /** @type {number[]} */
  const row = [];
  /** @type {number[]} */
  const part = [];
  let from = 0; // rows whose upper edge is below the bin
  for (let b = 0; b < bins; b++) {
    const lower = edges[b];
    const upper = edges[b + 1];
    start[b] = row.length;
    while (from < rows && rowEdges[from + 1] < lower) from++;
    let before = 0;
    for (let r = Math.max(from - 1, -1); r <= rows; r++) {
      // the share of the bin below the upper edge of row r, where row -1 is what is below the window
      const edge = r === rows ? Infinity : rowEdges[r + 1];
      let below;
      if (r === rows) below = 1;
      else if (upper === lower) below = edge > lower || (r === rows - 1 && edge >= lower) ? 1 : 0;
      else {
        below = Math.min(Math.max((edge - lower) / (upper - lower), 0), 1);
        if (below < ROUNDING) below = 0;
        if (below > 1 - ROUNDING) below = 1;
      }
      if (below > before) {
        row.push(r + 1);
        part.push(below - before);
        before = below;
      }
      if (below >= 1) break;
    }
  }
  start[bins] = row.length;
  return { rows, start, row: Uint32Array.from(row), part: Float64Array.from(part) };
}
