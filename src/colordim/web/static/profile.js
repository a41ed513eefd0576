// @ts-check
/** Histograms as rows: what a column or an epoch holds, in the rows of a chart. */
import { axisOf } from "./axis.js";

/** Rows of a chart, of many values and of few, so that the curves are no comb. */
const MOST_ROWS = 160;
const FEWEST_ROWS = 40;

/**
 * @typedef {{bins: number[], counts: number[], counters: {[name: string]: number}}} Sum Of some batches, as the routes
 *   `column` and `twin` have it.
 */

/**
 * The counts of all bins.
 * @param {Sum} sum
 * @param {import("./axis.js").AxisSpec} axis
 */
export function denseCounts(sum, axis) {
  const counts = new Float64Array(axisOf(axis).bins);
  sum.bins.forEach((bin, i) => (counts[bin] = sum.counts[i]));
  return counts;
}

/**
 * The counts in each row: first what lies below the window, last what lies above it.
 * @param {Sum} sum
 * @param {import("./axis.js").Projection} projection
 */
export function projectSum(sum, projection) {
  const rows = new Float64Array(projection.rows + 2);
  sum.bins.forEach((bin, i) => {
    for (let k = projection.start[bin]; k < projection.start[bin + 1]; k++) rows[projection.row[k]] += projection.part[k] * sum.counts[i];
  });
  rows[0] += sum.counters.under;
  rows[rows.length - 1] += sum.counters.over;
  return rows;
}

/**
 * An even number of rows for so many values: as the Rice rule, 2 n^(1/3), for the width of a peak, not of all.
 * @param {number} values
 */
export function rowsFor(values) {
  return Math.min(Math.max(2 * Math.round(2 * Math.cbrt(values)), FEWEST_ROWS), MOST_ROWS);
}

/**
 * Values that are neither NaN nor infinite.
 * @param {{[name: string]: number}} counters
 */
export function finiteOf({ size, nan, pos_inf, neg_inf }) {
  return size - nan - pos_inf - neg_inf;
}
