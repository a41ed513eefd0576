// @ts-check
/**
 * Tiles as they come: colordim/web/tile.py says how they are laid out.
 *
 * @typedef {object} Tile
 * @property {number} id Of the stream.
 * @property {"train" | "valid"} phase
 * @property {number} index
 * @property {number} start Batch at the left edge of the first column.
 * @property {number} width Batches a column.
 * @property {number} columns
 * @property {number} settled So many columns, from the beginning of the tile, never change.
 * @property {Uint32Array} bins Those that are occupied.
 * @property {Uint8Array} codes `[bins, columns]`
 * @property {{[name: string]: Float64Array}} arrays Of each column: see ARRAY_NAMES.
 * @property {Float64Array | null} counts `[bins, columns]`, exact.
 */

/** What a tile holds of each column, in this order. */
export const ARRAY_NAMES = [
  "number", "held", "under", "over", "nan", "pos_inf", "neg_inf", "zeros", "size", "calls", "mean", "std", "min", "max",
];

const text = new TextDecoder();

/**
 * Read the frames of an answer.
 * @param {ArrayBuffer} buffer
 * @returns {Tile[]}
 */
export function readTiles(buffer) {
  const view = new DataView(buffer);
  /** @type {Tile[]} */
  const tiles = [];
  let at = 0;
  while (at < buffer.byteLength) {
    const length = view.getUint32(at, true);
    tiles.push(readTile(new Uint8Array(buffer.slice(at + 4, at + 4 + length))));
    at += 4 + length;
  }
  return tiles;
}

/**
 * @param {Uint8Array} bytes
 * @returns {Tile}
 */
function readTile(bytes) {
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(text.decode(bytes.subarray(4, 4 + length)));
  let at = 4 + length;
  const bins = new Uint32Array(bytes.buffer, at, header.bins);
  at += padded(4 * header.bins);
  const all = unshuffled(bytes.subarray(at, at + 8 * ARRAY_NAMES.length * header.columns));
  at += 8 * ARRAY_NAMES.length * header.columns;
  const codes = bytes.subarray(at, at + header.bins * header.columns);
  at += padded(codes.length);
  const counts = header.exact ? unshuffled(bytes.subarray(at, at + 8 * codes.length)) : null;
  /** @type {{[name: string]: Float64Array}} */
  const arrays = {};
  ARRAY_NAMES.forEach((name, i) => {
    arrays[name] = all.subarray(i * header.columns, (i + 1) * header.columns);
  });
  const { id, phase, index, start, width, columns, settled } = header;
  return { id, phase, index, start, width, columns, settled, bins, codes, arrays, counts };
}

/** @param {number} length */
function padded(length) {
  return length + ((8 - (length % 8)) % 8);
}

/**
 * Put the bytes of numbers together that were sorted by their place in the number.
 * @param {Uint8Array} bytes
 */
function unshuffled(bytes) {
  const number = bytes.length / 8;
  const halves = new Uint32Array(2 * number); // little-endian, as the tile is
  for (let half = 0; half < 2; half++) {
    const [a, b, c, d] = [0, 1, 2, 3].map((byte) => bytes.subarray((4 * half + byte) * number, (4 * half + byte + 1) * number));
    for (let i = 0; i < number; i++) halves[2 * i + half] = a[i] | (b[i] << 8) | (c[i] << 16) | (d[i] << 24);
  }
  return new Float64Array(halves.buffer);
}
