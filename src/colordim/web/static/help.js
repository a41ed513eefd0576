// @ts-check
/** How to read this: what is behind the question mark. */
import { make } from "./dom.js";

const READING = [
  ["What a panel is", "Each column is the histogram of all values of one layer in one batch: x is the batch, y the value, the colour how many of the values are there, on a logarithmic scale. Blank is truly none. Zoomed out, a column is the exact sum of several batches."],
  ["A steady band", "that spreads a little while the network learns is healthy."],
  ["Rise and crash to a line at zero", "once or several times: the learning rate is too high for this initialisation. Each crash throws away what was learned."],
  ["One bright line at zero and nothing above", "in a ReLU: the layer is dead. The title says “only zeros since batch …”, or “NaN or Inf from batch …”."],
  ["Colour in the strips at the edges", "is what lies outside the window. It is counted, only not in view: choose another window."],
  ["Magenta bars over columns", "are batches with NaN or infinite values."],
  ["A bracket over columns, and the same sign beside a name", "mark the batches and the layers of a finding: ▲ and a solid line for a problem, ◆ and dashes for a warning, ● and dots for what is worth knowing. The sentence under the title says the worst; “why” says what to try."],
  ["Thin vertical lines", "are the beginnings of epochs; the dashed line is zero."],
];

const KEYS = [
  ["/", "find a layer"], ["arrows", "go from panel to panel"], ["Enter", "open the layer"], ["Esc", "go back"],
  ["+ and −", "zoom batches"], ["i and o", "zoom values in and out"], ["[ and ]", "move through the batches"], ["0", "the whole run"],
  ["m", "mean and standard deviation"], ["w", "next window: shared, own, symmetric-log"], ["t", "light or dark"], ["?", "this page"],
];

const MOUSE = [
  ["drag", "move through the batches, in all panels"], ["Shift and drag", "show just these batches"], ["Ctrl and wheel", "zoom batches (on a large map without a key)"],
  ["Alt and wheel", "zoom values"], ["Shift and wheel", "move through the batches"], ["click", "open the layer; on its page pin the column, to compare it with another"],
];

/** @returns {HTMLDialogElement} */
export function helpDialog() {
  /** @param {string[][]} rows */
  const list = (rows) => make("dl", {}, rows.flatMap(([term, text]) => [make("dt", { text: term }), make("dd", { text })]));
  /** @param {string[][]} rows */
  const keys = (rows) => make("dl", { class: "cd-keys" }, rows.flatMap(([term, text]) => [make("dt", {}, [make("kbd", { text: term })]), make("dd", { text })]));
  const dialog = make("dialog", { class: "cd-help", "aria-label": "How to read this" });
  const close = make("button", { type: "button", class: "cd-close", text: "Close", on: { click: () => dialog.close() } });
  dialog.append(
    close, make("h2", { text: "How to read this" }), list(READING),
    make("h2", { text: "Keys" }), keys(KEYS), make("h2", { text: "Mouse" }), keys(MOUSE),
  );
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return dialog;
}
