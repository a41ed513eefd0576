// @ts-check
/**
 * The table behind a map: its columns in numbers.
 *
 * @typedef {import("./panel.js").Panel} Panel
 */
import { meanAndStd } from "./columns.js";
import { make, shortName } from "./dom.js";
import { countText, percentText, valueText } from "./format.js";

/** Rows at a time. */
const PAGE_ROWS = 200;
/** Columns of a level that one question may read; as answers.py. */
const MOST_READ = 4096;

/**
 * The names of the numbers of a column.
 * @type {[string, string][]}
 */
const FIELDS = [
  ["size", "values"], ["mean", "mean"], ["std", "std"], ["min", "min"], ["max", "max"], ["zeros", "zeros"], ["under", "below the bins"],
  ["over", "above the bins"], ["nan", "NaN"], ["pos_inf", "+Inf"], ["neg_inf", "−Inf"],
];

/**
 * What a source says of adjacent columns.
 * @typedef {object} MomentRows
 * @property {number} start
 * @property {number} width Batches a column.
 * @property {boolean} exact
 * @property {{[name: string]: number[]}} of Arrays: number, held, size, ...
 */

/**
 * The numbers of the columns on show, as far as they are known by now.
 * @param {Panel} panel
 * @param {number} start Multiple of the map's width.
 * @param {number} columns
 * @returns {MomentRows | null}
 */
function shownMoments(panel, start, columns) {
  const { heat, model, stream, phase } = panel;
  const { width, base } = heat;
  const answer = model.known("moments", { stream: stream.id, phase, start, columns, width, base });
  if (answer && !(answer instanceof Error)) return { start, width, exact: true, of: answer };
  if (!answer) return null;
  return tileMoments(panel, start, columns);
}

/**
 * The same from the tiles: mean and std to seven digits.
 * @param {Panel} panel
 * @param {number} start
 * @param {number} columns
 * @returns {MomentRows}
 */
export function tileMoments({ heat }, start, columns) {
  /** @type {{[name: string]: number[]}} */
  const of = Object.fromEntries(["number", "held", ...FIELDS.map(([name]) => name)].map((name) => [name, []]));
  for (let i = 0; i < columns; i++) {
    const found = heat.at(start + i * heat.width);
    if (!found) break;
    const { columns: chunk, at } = found;
    const values = { ...Object.fromEntries(Object.entries(chunk.of).map(([name, array]) => [name, array[at]])), ...meanAndStd(chunk, at), held: chunk.known[at] === 2 ? 1 : 0 };
    for (const name of Object.keys(of)) of[name].push(/** @type {any} */ (values)[name]);
  }
  return { start, width: heat.width, exact: false, of };
}

export class ColumnTable {
  /** @param {Panel} panel */
  constructor(panel) {
    this.panel = panel;
    this.page = 0;
    this.said = "";
    this.caption = make("caption");
    this.body = make("tbody");
    this.before = make("button", { type: "button", text: "previous rows", "data-key": `rows before ${panel.phase}`, on: { click: () => this.turn(-1) } });
    this.after = make("button", { type: "button", text: "next rows", "data-key": `rows after ${panel.phase}`, on: { click: () => this.turn(1) } });
    this.where = make("span", { class: "cd-note", "aria-live": "polite" });
    const head = ["batch", ...FIELDS.map(([, text]) => text)].map((text) => make("th", { scope: "col", text }));
    this.table = make("table", { class: "cd-numbers" }, [this.caption, make("thead", {}, [make("tr", {}, head)]), this.body]);
    this.element = make("section", { class: "cd-table", "aria-label": `table of the ${panel.phase} batches` }, [
      make("div", { class: "cd-line" }, [this.before, this.after, this.where]),
      make("div", { class: "cd-list", tabindex: 0, role: "group", "aria-label": "table, scrolls" }, [this.table]),
    ]);
    panel.app.stage.add({ element: this.element, draw: () => this.update() });
  }

  /** @param {number} by */
  turn(by) {
    this.page += by;
    this.panel.app.stage.invalidate();
  }

  update() {
    const { panel } = this;
    const { view, heat } = panel;
    const { width, base } = heat;
    const begin = Math.floor(Math.max(view.from, 0) / width) * width;
    const number = Math.max(Math.ceil((Math.min(view.to, view.end) - begin) / width), 0);
    const rows = Math.max(Math.min(PAGE_ROWS, Math.floor((MOST_READ * base) / width)), 1);
    this.page = Math.max(Math.min(this.page, Math.ceil(number / rows) - 1), 0);
    const start = begin + this.page * rows * width;
    const columns = Math.min(rows, number - this.page * rows);
    const found = columns > 0 ? shownMoments(panel, start, columns) : null;
    const said = `${start} ${columns} ${width} ${found?.exact} ${found?.of.size.length} ${found?.of.size.at(-1)}`;
    if (said === this.said) return;
    this.said = said;
    this.before.disabled = this.page === 0;
    this.after.disabled = (this.page + 1) * rows >= number;
    this.where.textContent = number ? `rows ${countText(this.page * rows + 1)} to ${countText(this.page * rows + Math.max(columns, 0))} of ${countText(number)}` : "no batches";
    const digits = found && !found.exact ? "; mean and std to seven digits" : "";
    this.caption.textContent = `${shortName(panel.stream.name)}, ${panel.stream.kind.replace("_", " ")}: ${panel.phase} batches on show${width > 1 ? `, ${countText(width)} batches a row` : ""}${digits}`;
    Object.assign(this.table, { cdData: found });
    if (!found) {
      if (!columns) this.body.replaceChildren();
      return;
    }
    this.body.replaceChildren(...found.of.size.map((_, i) => rowOf(found, i, view.end)));
  }
}

/**
 * @param {MomentRows} found
 * @param {number} i
 * @param {number} end
 */
function rowOf({ start, width, of }, i, end) {
  const first = start + i * width;
  const last = Math.min(first + width, end) - 1;
  const batch = `${countText(first)}${last > first ? `–${countText(last)}` : ""}${of.held[i] ? " (not recorded: as the one before)" : ""}`;
  const cells = FIELDS.map(([name]) => {
    const value = of[name][i] ?? NaN;
    let text = countText(value);
    if (["mean", "std", "min", "max"].includes(name)) text = Number.isFinite(value) ? valueText(value) : "–";
    else if (name === "zeros" && of.size[i]) text += ` (${percentText(value / of.size[i])})`;
    return make("td", { text, class: ["nan", "pos_inf", "neg_inf"].includes(name) && value > 0 ? "cd-bad" : null });
  });
  return make("tr", {}, [make("th", { scope: "row", text: batch }), ...cells]);
}
