// @ts-check
/**
 * The columns on show as comma-separated values, exactly where the source has them so.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./panel.js").Panel} Panel
 */
import { askJson } from "./source.js";
import { tileMoments } from "./table.js";

/** Rows of a file, and columns in one question. */
const MOST_LINES = 200_000;
const FEWEST_LINES = 1000;
const AT_A_TIME = 1024;

const HEADING = [
  "layer", "kind", "phase", "first", "last", "recorded", "values", "mean", "std", "min", "max", "zeros", "under", "over", "nan", "pos_inf", "neg_inf",
  "sum", "sum_sq", "exact",
];
const NUMBERS = ["size", "mean", "std", "min", "max", "zeros", "under", "over", "nan", "pos_inf", "neg_inf", "sum", "sum_sq"];

/**
 * A field as RFC 4180 has it; what a spreadsheet would take for a formula is marked as text.
 * @param {string | number | null | undefined} value
 */
export function csvField(value) {
  if (value === null || value === undefined || (typeof value === "number" && Number.isNaN(value))) return "";
  let field = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(field) && !(field.trim() !== "" && Number.isFinite(Number(field)))) field = `'${field}`;
  return /[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field;
}

/**
 * The text of the file: of every panel on show the finest columns of its batches that are not too many.
 * @param {App} app
 */
export async function csvText(app) {
  const panels = app.panels.filter((panel, i) => app.panels.findIndex((each) => each.stream === panel.stream && each.phase === panel.phase && each.model === panel.model) === i);
  const runs = app.other ? ["run"] : [];
  const lines = [[...runs, ...HEADING].map(csvField).join(",")];
  const most = Math.max(Math.floor(MOST_LINES / Math.max(panels.length, 1)), FEWEST_LINES);
  for (const panel of panels) {
    const { stream, phase, model } = panel;
    for (const part of await columnsOnShow(panel, most)) {
      const { start, width, of, exact } = part;
      for (let i = 0; i < of.size.length; i++) {
        const first = start + i * width;
        if (first + width <= panel.view.from || first >= Math.min(panel.view.to, panel.view.end)) continue;
        const last = Math.min(first + width, panel.view.end) - 1;
        // what was not recorded is not made up
        const numbers = of.held[i] ? [] : NUMBERS.map((name) => of[name]?.[i]);
        const cells = [stream.name, stream.kind, phase, first, last, of.held[i] ? 0 : of.number[i], ...numbers, ...Array(NUMBERS.length - numbers.length).fill(""), exact ? "yes" : "mean and std to 7 digits"];
        lines.push([...(runs.length ? [model.head.name] : []), ...cells].map(csvField).join(","));
      }
    }
  }
  return `${lines.join("\r\n")}\r\n`;
}

/**
 * @param {Panel} panel
 * @param {number} most
 */
async function columnsOnShow(panel, most) {
  const { view, model, stream, phase, heat } = panel;
  const from = Math.max(Math.floor(view.from), 0);
  const to = Math.min(Math.ceil(view.to), view.end);
  const usable = view.levels.filter(({ width, kept }) => kept <= from && (to - from) / width <= most);
  const { width } = usable[0] ?? view.levels[view.levels.length - 1];
  const parts = [];
  try {
    for (let start = Math.floor(from / width) * width; start < to; start += AT_A_TIME * width) {
      const columns = Math.min(AT_A_TIME, Math.ceil((to - start) / width));
      const of = await askJson(model.source, "moments", { stream: stream.id, phase, start, columns, width, base: width });
      parts.push({ start, width, exact: true, of });
    }
    return parts;
  } catch {
    // a report has no more than what it shows
    const start = Math.floor(from / heat.width) * heat.width;
    return [tileMoments(panel, start, Math.ceil((to - start) / heat.width))];
  }
}
