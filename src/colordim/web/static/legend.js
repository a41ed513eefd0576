// @ts-check
/** From colours to numbers: the scale that all panels share, and the counts that they are. */
import { colorTable, cssGradient } from "./colors.js";
import { make } from "./dom.js";
import { compactText, percentText } from "./format.js";

export class Legend {
  constructor() {
    this.element = make("div", { class: "cd-legend", role: "img" });
    this.drawn = "";
  }

  /**
   * @param {import("./colors.js").ColorScale} scale
   * @param {{name: string, table: Uint32Array}} colors
   * @param {"share" | "count"} color
   * @param {number} size Values a batch of the layer whose counts are told as well; 0 for none.
   */
  draw(scale, colors, color, size) {
    const drawn = `${scale.low} ${scale.high} ${colors.name} ${color} ${size}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const bar = make("div", { class: "cd-bar" });
    bar.style.background = cssGradient(colors.table, 24);
    const decades = Math.log10(scale.high / scale.low);
    const every = Math.ceil(decades / 4);
    const ticks = make("div", { class: "cd-ticks" });
    const said = [];
    for (let e = Math.ceil(Math.log10(scale.low) - 1e-9); e <= Math.log10(scale.high) + 1e-9; e += every) {
      const value = 10 ** e;
      const text = color === "share" ? percentText(value).replace(" %", "%") : compactText(value);
      const tick = make("span", { text: color === "share" && e < -4 ? `1e${e + 2}%` : text });
      if (size && color === "share") tick.append(make("small", { text: `${compactText(value * size)}` }));
      tick.style.left = `${(100 * (e - Math.log10(scale.low))) / decades}%`;
      said.push(tick.textContent);
      ticks.append(tick);
    }
    const what = color === "share" ? (size ? "share of the values in a cell, and their count a batch" : "share of the values in a cell") : "values in a cell, a batch";
    this.element.replaceChildren(make("span", { class: "cd-what", text: color === "share" ? (size ? "share, count" : "share") : "count" }), make("div", { class: "cd-scale" }, [bar, ticks]));
    this.element.title = what;
    this.element.setAttribute("aria-label", `Colours are the ${what}, on a logarithmic scale: ${said.join(", ")}; blank is none.`);
  }
}

/**
 * The table of a name for the ground that it is drawn on.
 * @param {string} name
 * @param {boolean} dark
 */
export function colorsOf(name, dark) {
  return { name: `${name} ${dark}`, table: colorTable(name, dark) };
}
