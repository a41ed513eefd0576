// @ts-check
/** The counts that the codes of a tile stand for; colordim/web/codes.py defines them. */

const EXACT_CODES = 16;
const STEPS_AN_OCTAVE = 6;

/** Count of each of the 256 codes. */
export const COUNT_OF_CODE = Float64Array.from({ length: 256 }, (_, code) =>
  code <= EXACT_CODES ? code : EXACT_CODES * 2 ** ((code - EXACT_CODES) / STEPS_AN_OCTAVE),
);
