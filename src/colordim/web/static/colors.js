// @ts-check
/**
 * Colours: tables of 256 steps, and the logarithmic scale that all panels share.
 *
 * viridis, magma and PuOr are those of Matplotlib (CC0), berlin is Crameri's (2018, MIT), whose middle is dark, cividis is Nunez, Anderton and Renslow's (2018), made so that
 * readers with and without colour vision deficiency see the same. All but the last are perceptually uniform.
 */

/** @type {{[name: string]: string}} Red, green and blue of each step, base64. */
const TABLES = {
  viridis:
    "RAFURAJVRANXRQVYRQZaRQhbRglcRgteRgxfRg5hRw9iRxFjRxJlRxRmRxVnRxZpRxhqSBlrSBpsSBxuSB1vSB5wSCBxSCFySCJzSCN0RyV1Ry" +
    "Z2Ryd3Ryh4Ryp5Ryt6Ryx7Ri18Ri98RjB9RjF+RTJ/RTR/RTWARTaBRDeBRDmCQzqDQzuDQzyEQj2EQj6FQkCFQUGGQUKGQEOHQESHP0WHP0eI" +
    "PkiIPkmJPUqJPUuJPUyJPE2KPE6KO1CKO1GKOlKLOlOLOVSLOVWLOFaLOFeMN1iMN1mMNlqMNluMNVyMNV2MNF6NNF+NM2CNM2GNMmKNMmONMW" +
    "SNMWWNMWaNMGeNMGiNL2mNL2qNLmuOLmyOLm2OLW6OLW+OLHCOLHGOLHKOK3OOK3SOKnWOKnaOKneOKXiOKXmOKHqOKHqOKHuOJ3yOJ32OJ36O" +
    "Jn+OJoCOJoGOJYKOJYONJISNJIWNJIaNI4eNI4iNI4mNIomNIoqNIouNIYyNIY2MIY6MII+MIJCMIJGMH5KMH5OLH5SLH5WLH5aLHpeKHpiKHp" +
    "mKHpmKHpqJHpuJHpyJHp2IHp6IHp+IHqCHH6GHH6KGH6OGIKSFIKWFIaaFIaeEIqeEI6iDI6mCJKqCJauBJqyBJ62AKK5/Ka9/KrB+K7F9LLF9" +
    "LrJ8L7N7MLR6MrV6M7Z5Nbd4Nrh3OLl2Obl2O7p1Pbt0PrxzQL1yQr5xRL5wRb9vR8BuScFtS8JsTcJrT8NpUcRoU8VnVcZmV8ZlWcdkW8hiXs" +
    "lhYMlgYspfZMtdZ8xcacxba81Zbc5YcM5Wcs9VdNBUd9BSedFRfNJPftJOgdNMg9NLhtRJiNVHi9VGjdZEkNZDktdBldc/l9g+mtg8ndk6n9k4" +
    "oto3pdo1p9szqtsyrdwwr9wust0std0rt90put4nvd4mv98kwt8ixd8hx+AfyuAezeAdz+Ec0uEb1OEa1+IZ2uIY3OIY3+MY4eMY5OMY5+QZ6e" +
    "QZ7OQa7uUb8eUc8+Ue9uYf+OYh+uYi/eck",
  cividis:
    "ACJNACNPACNQACRSACVUACZVACZXACdZAChbAChcACleACpgACpiACtkACxmACxnAC1pAC5rAC9tAC9vADBwADBwADFwADFwBDJwCDNwCzNwDj" +
    "RwETVvFDZvFjZvGDdvGjhvHDhuHTluHzpuITtuIjtuJDxuJT1tJz1tKD5tKj9tKz9tLEBtLkFsL0JsMEJsMUNsMkRsNERsNUVsNkZsN0ZsOEds" +
    "OUhsOkhrO0lrPUprPktrP0trQExrQU1rQk1rQ05rRE9rRU9rRlBrR1FrSFFrSVJrSlNrS1RsTFRsTVVsTlZsTlZsT1dsUFhsUVhsUllsU1psVF" +
    "psVVttVlxtV11tWF1tWV5tWV9tWl9tW2BuXGFuXWFuXmJuX2NuYGRuYWRvYWVvYmZvY2ZvZGdvZWhwZmlwZ2lwaGpwaGtxaWtxamxxa21xbG1y" +
    "bW5ybm9ybnBzb3BzcHFzcXJzcnN0c3N0dHR1dHV1dXV1dnZ2d3d2eHh2eXh3eXl3enp3e3t3fHt4fXx4fn14f314gH54gX94goB4g4B4hIF4hY" +
    "J4hYN4hoN4h4R4iIV4iYZ4ioZ4i4d4jIh4jYl4jol4j4p3kIt3kYx3kox3k413lI53lY93lo93l5B2mJF2mZJ2mpN2m5N2nJR2nZV1npZ1n5Z1" +
    "oJd1oZh0opl0o5p0pJp0pZtzppxzp51zqJ5zqZ5yqp9yq6ByrKFxraJxrqJxr6NwsKRwsaVwsqZvs6ZvtKdvtahutqlut6ptuKttuattuqxsu6" +
    "1svK5rva9rvrBqv7BqwbFpwrJpw7NoxLRoxbVnxrVnx7ZmyLdlybhlyrlky7pkzLtjzbxizrxiz71h0L5g0r9g08Bf1MFe1cJe1sNd18Nc2MRb" +
    "2cVa2sZa28dZ3MhY3slX38pW4MtV4cxU4sxT481S5M5R5c9Q5tBP6NFO6dJN6tNM69RL7NVK7dZI7tdH79hG8dlE8tpD89pC9NtA9dw/9t09+N" +
    "47+d86+uA4++E2/eI0/eMz/eU0/eY2/ec3",
  magma:
    "AAADAAAEAAAGAQAHAQEJAQELAgINAgIPAwMRBAMTBAQVBQQXBgUZBwUbCAYdCQcfCgciCwgkDAkmDQooDgoqDwssEAwvEQwxEg0zFA01FQ44Fg" +
    "46Fw88GA8/GhBBGxBEHBBGHhBJHxFLIBFNIhFQIxFSJRFVJhFXKBFZKhFcKxFeLRBgLxBiMBBlMhBnNBBoNQ9qNw9sOQ9uOw9vPA9xPg9yQA9z" +
    "Qg90Qw91RQ92Rw93SBB4ShB5SxB5TRF6TxF7UBJ7UhJ8UxN8VRN9VxR9WBV+WhV+WxZ+XRd+Xhd/YBh/YRh/Yxl/ZRqAZhqAaBuAaRyAaxyAbB" +
    "2Abh6Bbx6BcR+Bcx+BdCCBdiGBdyGBeSKBeiKBfCOBfiSBfySBgSWBgiWBhCaBhSaBhyeBiSiBiiiBjCmAjSmAjyqAkSqAkiuAlCuAlSyAlyx/" +
    "mS1/mi1/nC5/ni5+ny9+oS9+ozB+pDB9pjF9pzF9qTJ8qzN8rDN7rjR7sDR7sTV6szV6tTZ5tjZ5uDd4uTd4uzh3vTl3vjl2wDp1wjp1wzt0xT" +
    "x0xjxzyD1yyj5yyz5xzT9wzkBw0EFv0UJu00Jt1ENt1kRs10Vr2UZq2kdp3Ehp3Ulo3kpn4Etm4Uxm4k1l5E5k5VBj5lFi51Ji6FRh6lVg61Zg" +
    "7Fhf7Vlf7lte7l1d715d8GBd8WFc8mNc82Vc82db9Ghb9Wpb9Wxb9m5b9nBb93Fb93Nc+HVc+Hdc+Xlc+Xtd+X1d+n9e+oBe+oJf+4Rg+4Zg+4" +
    "hh+4pi/Ixj/I5j/JBk/JJl/JNm/ZVn/Zdo/Zlp/Ztq/Z1r/Z9s/aFu/aJv/aRw/qZx/qhz/qp0/qx1/q52/q94/rF5/rN7/rV8/rd9/rl//ruA" +
    "/ryC/r6D/sCF/sKG/sSI/saJ/seL/smN/suO/c2Q/c+S/dGT/dKV/dSX/daY/dia/dqc/dyd/d2f/d+h/eGj/OOl/OWm/Oao/Oiq/Oqs/Oyu/O" +
    "6w/PCx/PGz/PO1/PW3+/e5+/m7+/q9+/y/",
  difference:
    "LQBLLgFNMANPMQRSMwZUNAdWNglZNwpbOQxeOg1gPA9iPRBlPxJnQBNqQhVsQxZuRRhxRxpzSBt2Sh14Sx56TSB9TiF/UCOCUSSEUyaGVCiIVi" +
    "uKWC6LWjGMWzSOXTePXzqRYD2SYkCUZEOVZkaWZ0mYaUyZa0+bbVKcblWdcFifclugc16idWGjd2SkeWememqnfG2pfnCqgHOsgXWtg3euhXmw" +
    "h3uxiX2zi4C0jYK2j4S3kYa5k4i6lYu8l429mY+/m5HAnZPCn5bDoZjFo5rGpZzIp57JqaHLq6PMraXOr6fPsanRsqvStK3Tta/Ut7HVuLPWur" +
    "XXu7bYvbjZvrrawLzbwb7cw8DdxMLexsPfx8XgycfhysnizMvjzc3kz87l0NDm0tLn09To1dbp1tjq2Nrr2dvr2tzr293s3N7s3t/t3+Dt4OHu" +
    "4ePu4uTv5OXv5ebw5ufw5+jx6enx6uvy6+zy7O3z7e7z7+/z8PD08fH08vP18/T19fX29vb29/b19/Xz9/Tw9/Pu+PLr+PLo+PHm+fDj+e/h+e" +
    "7e+e3c+uzZ+uvX+urU+unS++nP++jM++fK/ObH/OXF/OTC/OPA/eK9/eG7/eC4/uC2/d6y/dyv/dus/dmo/dil/dai/dWf/dOb/dGY/dCV/c6S" +
    "/c2O/cuL/cqI/ciF/caB/cV+/cN7/cJ4/cB0/b9x/b1u/btr/bpn/bhk/LZh+7Re+rJb+bBY965V9qxR9apO9KhL86ZI8qNF8aFC758/7p087Z" +
    "s57Jk265cy6pUv6ZIs55Ap5o4m5Ywj5Iog44gd4oYa4YQX4IIU3oAT3H4S2n0S2HsR13kR1XgQ03YQ0XQP0HMPznEOzG8Nym4NyWwMx2oMxWkL" +
    "w2cLwmYKwGQKvmIJvGEJul8IuV0Ht1wHtVoGs1gGsVcGr1YGrVUGq1QGqVIGp1EGpVAGo08GoU4Gn00GnUwGm0oGmUkGl0gHlUcHk0YHkUUHj0" +
    "QHjUIHi0EHiUAHhz8HhT4Hgz0HgTwHfzsI",
  differenceOnDark:
    "nq/+nK/9ma/8l6/7la76kq75kK74jq73i632ia31h630hK3ygqzxf6zwfazve6vueKvtdqrrc6rqcanpbqnnbKjmaajkZ6fjZKbhYqbgX6XeXa" +
    "TcWqPaWKLZVaHXU6DVUZ/TTp7RTJzOSpvMSJnKRpjIRJbFQpXDQJPAP5G+PZC7PI65Ooy2OYq0N4mxNoevNYWsNIOqM4GnMn+lMX2jMHygL3qe" +
    "LnibLnaZLXSWLHKUK3CRKm6PKm2NKWuKKGmIJ2eFJ2WDJmOBJWJ+JWB8JF56I1x3I1p1IllzIVdwIFVuIFNsH1FpHlBnHk5lHUxjHUpgHEleG0" +
    "dcG0VaGkRXGUJVGUBTGD5RFz1PFztMFjlKFjhIFTZGFTVEFDNCFDFAEzA+Ey48Ei05Eis3Eio1ESgzEScxESUvECQuECIsECEqEB8oEB4mEB0k" +
    "EBwiEBohEBkfEBgdEBccEBYaEBUZERQXERMWERIVEhETEhASEw8QFA4PFQ4OFg0MFwwLGAwKGQsIGgsHGwsGHAsFHQsEHgsEHwsDIAsCIQsCIg" +
    "sCIwwBJAwBJgwBJw0AKA0AKQ0AKg0ALA4ALQ4ALg4ALw4AMQ4AMg8AMw8ANQ8ANg8AOBAAORAAOhAAPBEAPREAPxEAQBIAQhIAQxMBRRMBRhQB" +
    "SBQBSRUBSxUCTBYCThYCUBcDUhgDUxkEVRkFVxoFWRsGWxwHXR0IXx4JYSALYyEMZSINZyMOaSUPayYRbigScCkUcisVdC0Xdi4YeTAaezIcfT" +
    "MefzUggTchgzkjhTsliDwnij4pjEArjkIukEQwkkUylEc0lkk2mEs4mk06nE88nlE/oFJBolRDpFZFpVhHp1pKqVxMq15OrWBQr2FTsWNVs2VX" +
    "tWdZt2lcuWteu21gvW9jv3FlwnNnxHVqxndsyHhuynpxzHxzzn510IB40oJ61IR81oZ/2IiB2oqD3IyG346I4ZCL45KN5ZSP55aS6ZiU65qX7Z" +
    "yZ756c8qGe9KOh9qWj+Kel+qmo/Kuq/q2t",
};

/** Names of the tables that people choose from. */
export const COLOR_MAPS = ["viridis", "cividis", "magma"];

/** @type {Map<string, Uint32Array>} */
const made = new Map();

/**
 * Return a table as pixels of an ImageData: 256 numbers, opaque. On dark ground its darkest eighth is left out, else the
 * faintest cells could not be told from empty ones.
 * @param {string} name
 * @param {boolean} dark
 */
export function colorTable(name, dark) {
  const key = `${name} ${dark}`;
  const known = made.get(key);
  if (known) return known;
  const own = name === "difference" && dark ? "differenceOnDark" : name;
  const bytes = Uint8Array.from(atob(TABLES[own] ?? TABLES.viridis), (letter) => letter.charCodeAt(0));
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const at = 3 * (dark && name !== "difference" ? Math.round(32 + (i * 223) / 255) : i);
    table[i] = (255 << 24) | (bytes[at + 2] << 16) | (bytes[at + 1] << 8) | bytes[at];
  }
  made.set(key, table);
  return table;
}

/**
 * Return a step of a table for CSS.
 * @param {Uint32Array} table
 * @param {number} step
 */
export function cssColor(table, step) {
  const pixel = table[Math.max(0, Math.min(255, Math.round(step)))];
  return `rgb(${pixel & 255}, ${(pixel >> 8) & 255}, ${(pixel >> 16) & 255})`;
}

/**
 * Return a table as a background of CSS, its beginning at the left.
 * @param {Uint32Array} table
 * @param {number} steps
 */
export function cssGradient(table, steps) {
  return `linear-gradient(to right, ${Array.from({ length: steps }, (_, i) => cssColor(table, (255 * i) / (steps - 1))).join(", ")})`;
}

/**
 * A logarithmic scale of colours: of shares of a layer's values, or of counts a batch.
 * @typedef {{low: number, high: number}} ColorScale
 */

/** Decades of the scale at most; what is fainter has its lowest colour, which is still not blank. */
const DECADES = 6;

/**
 * Return the scale for cells between two extremes: its ends are 1 or 3 times a power of ten, so that it stays as it is
 * while the picture moves a little.
 * @param {number} least
 * @param {number} most
 * @returns {ColorScale}
 */
export function colorScale(least, most) {
  if (!(most > 0)) return { low: 0.01, high: 1 };
  const high = snapped(most, Math.ceil);
  const low = Math.max(snapped(least, Math.floor), high / 10 ** DECADES);
  return { low: Math.min(low, high / 10), high };
}

/**
 * @param {number} value
 * @param {(value: number) => number} round
 */
function snapped(value, round) {
  const half = round(2 * Math.log10(value) - (round === Math.ceil ? 1e-6 : -1e-6));
  return half % 2 === 0 ? 10 ** (half / 2) : 3 * 10 ** ((half - 1) / 2);
}

/**
 * Return the step of a table for a value on a scale: `floor(256 (log x - log low) / (log high - log low))`, clipped.
 * @param {ColorScale} scale
 * @param {number} value
 */
export function colorStep(scale, value) {
  const place = Math.log(value / scale.low) / Math.log(scale.high / scale.low);
  return Math.max(0, Math.min(255, Math.floor(256 * place)));
}
