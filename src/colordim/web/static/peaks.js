// @ts-check
/** Peaks of a profile, as colordim/statistics.py and colordim/charts/twin_peaks.py find them. */

/** Smoothing as a share of the rows, and in rows at least; least prominences. */
const SMOOTHING = 0.02;
const LEAST_SMOOTHING = 1.6;
const OF_HIGHEST = 0.02;
const OF_OWN = 0.25;

/**
 * The profile convolved with a Gaussian of `sigma` elements, renormalised at the ends.
 * @param {ArrayLike<number>} profile
 * @param {number} sigma
 */
function smoothed(profile, sigma) {
  const size = profile.length;
  const reach = Math.min(Math.ceil(4 * sigma), size - 1);
  const kernel = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-0.5 * ((i - reach) / sigma) ** 2));
  return Float64Array.from({ length: size }, (_, at) => {
    let sum = 0;
    let weight = 0;
    for (let k = Math.max(-reach, -at); k <= Math.min(reach, size - 1 - at); k++) {
      sum += profile[at + k] * kernel[k + reach];
      weight += kernel[k + reach];
    }
    return sum / weight;
  });
}

/**
 * The rows of the (at most) two most prominent peaks, ascending.
 * @param {ArrayLike<number>} profile
 * @returns {number[]}
 */
export function findPeaks(profile) {
  const inner = smoothed(profile, Math.max(SMOOTHING * profile.length, LEAST_SMOOTHING));
  const height = [0, ...inner, 0]; // what breaks off at the border peaks there
  const highest = Math.max(...height);
  if (!(highest > 0)) return [];
  const starts = height.map((_, i) => i).filter((i) => !i || height[i] !== height[i - 1]); // plateaus count once
  const level = starts.map((i) => height[i]);
  const ends = [...starts.slice(1), height.length];
  /** @type {{at: number, prominence: number}[]} */
  const found = [];
  for (let i = 1; i < level.length - 1; i++) {
    if (!(level[i - 1] < level[i] && level[i] > level[i + 1])) continue;
    const prominence = level[i] - Math.max(lowestBefore(level, i, -1), lowestBefore(level, i, 1));
    if (prominence >= Math.max(OF_HIGHEST * highest, OF_OWN * level[i])) found.push({ at: Math.floor((starts[i] + ends[i] - 1) / 2) - 1, prominence });
  }
  found.sort((a, b) => b.prominence - a.prominence);
  return found.slice(0, 2).map(({ at }) => at).sort((a, b) => a - b);
}

/**
 * Lowest level on the way to higher ground, or to the end.
 * @param {number[]} level
 * @param {number} from
 * @param {1 | -1} by
 */
function lowestBefore(level, from, by) {
  let lowest = Infinity;
  for (let i = from + by; i >= 0 && i < level.length && level[i] <= level[from]; i += by) lowest = Math.min(lowest, level[i]);
  return lowest;
}
