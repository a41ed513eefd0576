// @ts-check
/** Numbers as people read them; the same words as in the figures (colordim/charts/labels.py). */

/**
 * A value with four digits and the minus sign of typography.
 * @param {number} value
 */
export function valueText(value) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size < 1e-3 || size >= 1e6 ? value.toExponential(3) : String(Number(value.toPrecision(4)));
  return text
    .replace(/\.?0+e/, "e")
    .replace(/e\+?(-?)0*(\d)/, "e$1$2")
    .replaceAll("-", "−");
}

/**
 * A share in per cent with two digits; 0 % and 100 % are said only of none and of all.
 * @param {number} share
 */
export function percentText(share) {
  if (!Number.isFinite(share)) return "no values";
  const value = 100 * share;
  if (value <= 0 || value === 100) return `${value.toFixed(0)} %`;
  if (value < 0.01) return "< 0.01 %";
  if (value > 99.99) return "> 99.99 %";
  if (value > 99) return `${Number(Math.min(value, 99.99).toPrecision(4))} %`;
  return `${Number(value.toPrecision(2))} %`;
}

/**
 * A count in few characters: 640, 1.2k, 3M.
 * @param {number} count
 */
export function compactText(count) {
  for (const [limit, unit] of /** @type {[number, string][]} */ ([[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])) {
    if (count >= limit) return `${Number((count / limit).toPrecision(3))}${unit}`;
  }
  return String(Number(count.toPrecision(3)));
}

/**
 * A whole number in full; of another one at most three decimals.
 * @param {number} count
 */
export function countText(count) {
  // not by Intl, whose tables take a tenth of the time in which the page is built
  const [whole, part] = String(Math.round(1e3 * count) / 1e3).split(".");
  return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part ? `.${part}` : "");
}

/**
 * "1 batch", "2 batches".
 * @param {number} number
 * @param {string} one
 * @param {string} [many]
 */
export function plural(number, one, many = `${one}s`) {
  return `${countText(number)} ${number === 1 ? one : many}`;
}
