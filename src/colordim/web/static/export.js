// @ts-check
/**
 * What leaves the page: a picture, a table, a line of Python.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./run.js").Stream} Stream
 */
import { csvText } from "./csv.js";
import { make } from "./dom.js";
import { pictureOf } from "./picture.js";
import { pythonOf } from "./python.js";

/**
 * Save what is on show as a picture.
 * @param {App} app
 */
async function exportPng(app) {
  await exporting(app, "picture", async () => {
    const canvas = await pictureOf(app);
    const blob = await new Promise((/** @type {(blob: Blob | null) => void} */ resolve) => canvas.toBlob(resolve, "image/png"));
    if (!blob) throw new Error("the picture is too large for this browser: show fewer layers");
    download(blob, `${fileName(app)}.png`);
  });
}

/**
 * Save the numbers of the columns on show.
 * @param {App} app
 */
async function exportCsv(app) {
  await exporting(app, "table", async () => download(new Blob([await csvText(app)], { type: "text/csv" }), `${fileName(app)}.csv`));
}

/**
 * Put the Python that draws a layer into the clipboard.
 * @param {App} app
 * @param {Stream} stream
 */
async function copyPython(app, stream) {
  const code = pythonOf(app, stream);
  try {
    await navigator.clipboard.writeText(code);
    app.spoken.textContent = "The Python that draws this was copied.";
    return true;
  } catch {
    showText(app, code);
    return false;
  }
}

/**
 * The buttons of a layer's page.
 * @param {App} app
 * @param {Stream} stream
 */
export function exportButtons(app, stream) {
  const copy = make("button", { type: "button", "data-key": "python", text: "copy Python", title: "copy the Python that draws this", on: { click: async () => {
    if (!(await copyPython(app, stream))) return;
    copy.textContent = "copied ✓";
    setTimeout(() => (copy.textContent = "copy Python"), 1600);
  } } });
  return [copy, ...saveButtons(app)];
}

/**
 * The buttons that save what is on show.
 * @param {App} app
 */
export function saveButtons(app) {
  return [
    make("button", { type: "button", "data-key": "png", text: "PNG", title: "save as a picture", "aria-label": "save as a picture, PNG", on: { click: () => exportPng(app) } }),
    make("button", { type: "button", "data-key": "csv", text: "CSV", title: "save the numbers", "aria-label": "save the numbers, CSV", on: { click: () => exportCsv(app) } }),
  ];
}

/**
 * Where the clipboard is closed: the code, selected.
 * @param {App} app
 * @param {string} code
 */
function showText(app, code) {
  const area = make("textarea", { readonly: true, rows: 4, "aria-label": "Python that draws this", class: "cd-code" });
  area.value = code;
  const close = make("button", { type: "button", text: "Close", on: { click: () => dialog.close() } });
  const dialog = make("dialog", { class: "cd-help", "aria-label": "Python that draws this" }, [make("p", { text: "The clipboard cannot be written to: copy this." }), area, make("p", {}, [close])]);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  app.root.append(dialog);
  dialog.showModal();
  area.focus();
  area.select();
}

/**
 * @param {App} app
 * @param {string} what
 * @param {() => Promise<void>} work
 */
async function exporting(app, what, work) {
  app.spoken.textContent = `Making the ${what}.`;
  try {
    await work();
    app.spoken.textContent = `The ${what} was saved.`;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    app.spoken.textContent = `The ${what} was not saved: ${why}`;
    console.warn(`colordim: the ${what} was not saved: ${why}`);
  }
}

/**
 * @param {Blob} blob
 * @param {string} name
 */
function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** @param {App} app */
function fileName(app) {
  const parts = [app.model?.head.name || "run", app.state.layer || "all layers", app.state.kind === "activation" ? "" : app.state.kind];
  return parts.filter(Boolean).join(" ").replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[.-]+/, "").slice(0, 80) || "colordim";
}
