// @ts-check
/**
 * Evenly spaced columns: what a panel shows, no more of them than it has pixels. As colordim/charts/columns.py.
 *
 * @typedef {import("./axis.js").Projection} Projection
 * @typedef {import("./tiles.js").TileStore} TileStore
 * @typedef {{width: number, kept: number}[]} Levels Of a phase: batches a column, and the first batch that has such columns.
 *
 * @typedef {object} Columns Some adjacent columns, each the sum of `width` batches.
 * @property {number} first Batch at the left edge of the first.
 * @property {number} width
 * @property {number} length
 * @property {number} rows
 * @property {Float64Array} sums `[rows + 2, length]`: the counts in each row, of what lies below the window, and above it.
 * @property {Uint8Array} known 1 where the column has come.
 * @property {boolean} complete
 * @property {string} error
 * @property {{[name: string]: Float64Array}} of Of each column: number, size, zeros, under, over, nan, pos_inf, neg_inf,
 *   calls, finite, sum, sum_sq, min, max.
 */
import { COUNT_OF_CODE } from "./codes.js";

/** What is added up of the columns of tiles. */
const ADDED = ["number", "size", "zeros", "under", "over", "nan", "pos_inf", "neg_inf", "calls"];

/**
 * Return how many batches a drawn column adds up, and those of the tiles that it is made of: the coarsest that are not
 * wider than they need be.
 * @param {number} batches
 * @param {number} pixels
 * @param {Levels} levels
 * @param {number} start First batch on show.
 * @returns {{width: number, base: number}}
 */
export function columnWidth(batches, pixels, levels, start) {
  const least = Math.max(Math.ceil(batches / Math.max(pixels, 1)), 1);
  const usable = levels.filter((level) => level.kept <= start);
  let base = (usable.length ? usable : levels.slice(-1))[0].width;
  for (const { width } of usable) if (width <= least) base = Math.max(base, width);
  return { width: Math.ceil(least / base) * base, base };
}

/**
 * Add columns of tiles up to `length` columns of `width` batches from the batch `first` on, and project them.
 * @param {TileStore} store
 * @param {{id: number, phase: string}} stream
 * @param {{first: number, width: number, length: number, base: number, tile: number, end: number}} span
 *   `base`: batches a column of the tiles; `tile`: columns of a tile; `end`: number of batches of the phase.
 * @param {Projection} projection
 * @returns {Columns}
 */
export function takeColumns(store, stream, span, projection) {
  const { first, width, length, base, tile, end } = span;
  const rows = projection.rows;
  const sums = new Float64Array((rows + 2) * length);
  const known = new Uint8Array(length);
  /** @type {{[name: string]: Float64Array}} */
  const of = {};
  for (const name of [...ADDED, "finite", "sum", "sum_sq"]) of[name] = new Float64Array(length);
  of.min = new Float64Array(length).fill(Infinity);
  of.max = new Float64Array(length).fill(-Infinity);
  let complete = true;
  let error = "";
  const begin = Math.max(first, 0);
  const stop = Math.min(first + length * width, end);
  const span_ = tile * base;
  for (let index = Math.floor(begin / span_); index * span_ < stop; index++) {
    const slot = store.want(stream.id, stream.phase, base, index);
    if (!slot || !slot.pieces.length) {
      complete = false;
      error ||= slot?.error ?? "";
      continue;
    }
    slot.pieces.forEach((piece, p) => {
      const next = slot.pieces[p + 1];
      const until = Math.min(next ? next.start : Infinity, piece.start + piece.columns * base, stop);
      const from = Math.max(Math.ceil((begin - piece.start) / base), 0);
      const to = Math.ceil((until - piece.start) / base);
      if (to > from) addPiece(piece, from, to);
    });
  }
  return { first, width, length, rows, sums, known, complete, error, of };

  /**
   * @param {import("./tile.js").Tile} piece
   * @param {number} from
   * @param {number} to
   */
  function addPiece(piece, from, to) {
    const { arrays, codes, bins, columns, counts } = piece;
    const { start, row, part } = projection;
    const each = width / base;
    const cell = new Uint32Array(to - from);
    const use = new Uint8Array(to - from);
    const offset = (piece.start - first) / base;
    // of a drawn column the recorded batches count; where there are none, what the last one said is held
    for (let c = from; c < to; c++) {
      const at = Math.floor((c + offset) / each);
      cell[c - from] = at;
      const fresh = !arrays.held[c];
      if (fresh || !known[at]) use[c - from] = 1;
      if (fresh && known[at] === 2) clearColumn(at);
      if (use[c - from]) known[at] = fresh ? 1 : 2;
      if (fresh || use[c - from]) addMoments(arrays, c, at);
    }
    for (let i = 0; i < cell.length; i++) if (use[i] && arrays.held[from + i] && known[cell[i]] === 1) use[i] = 0;
    // each bin is added up within the drawn columns first, and split over rows then: most bins lie in two rows or more
    const low = cell[0];
    const cells = cell[cell.length - 1] - low + 1;
    const line = new Float64Array(cells);
    const of_ = new Int32Array(to - from);
    let plain = each === 1 && !counts; // a column of the tile to each that is drawn, as most often
    for (let i = 0; i < of_.length; i++) {
      of_[i] = use[i] ? cell[i] - low : -1;
      plain &&= of_[i] === i;
    }
    for (let b = 0; b < bins.length; b++) {
      const at = b * columns + from;
      let any = 0;
      if (plain) {
        for (let i = 0; i < cells; i++) {
          const code = codes[at + i];
          any |= code;
          line[i] = COUNT_OF_CODE[code];
        }
      } else {
        for (let i = 0; i < of_.length; i++) {
          const code = codes[at + i];
          if (code !== 0 && of_[i] >= 0) {
            line[of_[i]] += counts ? counts[at + i] : COUNT_OF_CODE[code];
            any = 1;
          }
        }
      }
      if (!any) continue;
      for (let k = start[bins[b]]; k < start[bins[b] + 1]; k++) {
        const share = part[k];
        const to_ = row[k] * length + low;
        for (let i = 0; i < cells; i++) sums[to_ + i] += share * line[i];
      }
      line.fill(0);
    }
    for (let c = from; c < to; c++) {
      if (!use[c - from]) continue;
      sums[cell[c - from]] += arrays.under[c];
      sums[(rows + 1) * length + cell[c - from]] += arrays.over[c];
    }
  }

  /**
   * @param {{[name: string]: Float64Array}} arrays
   * @param {number} c
   * @param {number} at
   */
  function addMoments(arrays, c, at) {
    for (const name of ADDED) of[name][at] += arrays[name][c];
    const finite = arrays.size[c] - arrays.nan[c] - arrays.pos_inf[c] - arrays.neg_inf[c];
    if (!finite) return;
    of.finite[at] += finite;
    of.sum[at] += arrays.mean[c] * finite;
    of.sum_sq[at] += (arrays.std[c] ** 2 + arrays.mean[c] ** 2) * finite;
    of.min[at] = Math.min(of.min[at], arrays.min[c]);
    of.max[at] = Math.max(of.max[at], arrays.max[c]);
  }

  /** @param {number} at */
  function clearColumn(at) {
    for (const name of [...ADDED, "finite", "sum", "sum_sq"]) of[name][at] = 0;
    of.min[at] = Infinity;
    of.max[at] = -Infinity;
    for (let row = 0; row < rows + 2; row++) sums[row * length + at] = 0;
  }
}

/**
 * Mean and standard deviation of a drawn column; NaN without finite values.
 * @param {Columns} columns
 * @param {number} at
 */
export function meanAndStd(columns, at) {
  const { finite, sum, sum_sq } = columns.of;
  if (!finite[at]) return { mean: NaN, std: NaN };
  const mean = sum[at] / finite[at];
  return { mean, std: Math.sqrt(Math.max(sum_sq[at] / finite[at] - mean * mean, 0)) };
}
