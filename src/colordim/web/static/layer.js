// @ts-check
/**
 * The page of one layer.
 *
 * @typedef {import("./app.js").App} App
 */
import { make } from "./dom.js";
import { Panel } from "./panel.js";

/**
 * @param {App} app
 * @param {HTMLElement} content
 */
export function showLayer(app, content) {
  const model = app.need();
  const stream = model.find(app.state.layer, app.state.kind);
  if (!stream) {
    content.append(make("p", { class: "cd-empty", text: `The run has no layer ${app.state.layer}.` }));
    return;
  }
  const panel = app.panel(new Panel(app, model, stream, app.state.phase === "valid" ? "valid" : "train", { use: "layer", named: true, large: true }));
  panel.element.classList.add("cd-large");
  content.append(panel.element);
}
