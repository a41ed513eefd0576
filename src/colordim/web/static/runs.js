// @ts-check
/**
 * The list of runs.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {{path: string, name: string, state: string, problem?: string | null, batches?: {train: number, valid: number},
 *   epochs?: number | null, streams?: number | null, last_loss?: number | null, created?: number | string | null, size?: number}} RunRow
 */
import { make, shortName } from "./dom.js";
import { countText, valueText } from "./format.js";

/**
 * @param {App} app
 * @param {HTMLElement} content
 * @param {{runs: RunRow[], more?: number, pending?: number, folder?: string}} answer
 */
export function showRuns(app, content, answer) {
  const { runs } = answer;
  if (!runs.length) {
    content.append(make("p", { class: "cd-empty", text: "There are no runs here yet. colordim.record(model, folder=…) writes one, and it appears as soon as it does." }));
    return;
  }
  const head = ["", "run", "state", "train", "valid", "epochs", "streams", "last loss", "created", "size"];
  const table = make("table", { class: "cd-runs" }, [
    make("caption", { text: `Runs${answer.folder ? ` in ${answer.folder}` : ""}` }),
    make("thead", {}, [make("tr", {}, head.map((text) => (text ? make("th", { scope: "col", text }) : make("td", {}, [make("span", { class: "cd-hidden", text: "compare" })]))))]),
  ]);
  /** @type {Set<string>} */
  const chosen = new Set();
  const compare = make("button", { type: "button", class: "cd-compare", text: "Compare two runs", disabled: true, on: { click: () => {
    const [one, other] = chosen;
    app.set({ run: one, with: other }, true);
  } } });
  const body = make("tbody");
  for (const run of runs) {
    const readable = run.state !== "unreadable";
    const box = make("input", { type: "checkbox", "aria-label": `compare ${shortName(run.name || run.path)}`, disabled: !readable, on: { change: () => {
      if (box.checked) chosen.add(run.path);
      else chosen.delete(run.path);
      compare.disabled = chosen.size !== 2;
      compare.textContent = chosen.size === 2 ? "Compare these two" : "Compare two runs";
    } } });
    const name = shortName(run.path && run.path !== "." ? run.path : run.name);
    const link = make("a", { href: `#run=${encodeURIComponent(run.path)}`, title: shortName(run.name, 300), on: { click: (/** @type {Event} */ event) => {
      event.preventDefault();
      app.set({ run: run.path }, true);
    } } }, [make("bdi", { text: name })]);
    const cells = [
      run.batches && countText(run.batches.train), run.batches && countText(run.batches.valid), run.epochs, run.streams,
      typeof run.last_loss === "number" ? valueText(run.last_loss) : "", dateText(run.created), sizeText(run.size),
    ];
    body.append(
      make("tr", {}, [
        make("td", {}, [box]), make("th", { scope: "row" }, [readable ? link : make("bdi", { text: name })]),
        make("td", {}, [make("span", { class: `cd-state cd-${run.state.replace(" ", "-")}`, text: run.state, title: run.problem ?? "" }), run.problem ? make("span", { class: "cd-why", text: ` ${run.problem}` }) : null]),
        ...cells.map((text) => make("td", { class: "cd-number", text: text ?? "" })),
      ]),
    );
  }
  table.append(body);
  content.append(make("div", { class: "cd-list" }, [table, make("p", {}, [compare]), answer.pending ? make("p", { class: "cd-empty", text: `${countText(answer.pending)} more are being read.` }) : null, answer.more ? make("p", { class: "cd-empty", text: `${countText(answer.more)} older runs are not listed.` }) : null]));
}

/** @param {number | undefined} size */
function sizeText(size) {
  if (size === undefined) return "";
  let value = size;
  for (const unit of ["B", "kB", "MB"]) {
    if (value < 1000) return `${Number(value.toPrecision(3))} ${unit}`;
    value /= 1000;
  }
  return `${Number(value.toPrecision(3))} GB`;
}

/**
 * A time of the clock, in the reader's own time zone.
 * @param {number | string | null | undefined} time Seconds since 1970, or as ISO 8601 has it.
 */
function dateText(time) {
  const date = new Date(typeof time === "number" ? 1000 * time : (time ?? ""));
  /** @param {number} number */
  const two = (number) => String(number).padStart(2, "0");
  if (Number.isNaN(date.getTime())) return "";
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
}
