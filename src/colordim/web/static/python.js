// @ts-check
/**
 * The Python that draws what is on show.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./run.js").Stream} Stream
 */

/** Letters that turn the direction of writing, or cannot be seen: code must not look like other code. */
const UNSEEN = /[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/**
 * A text as a literal of Python; those of JSON are that.
 * @param {string} value
 */
export function pythonText(value) {
  return JSON.stringify(value).replace(UNSEEN, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * @param {App} app
 * @param {Stream} stream
 */
export function pythonOf(app, stream) {
  const model = app.need();
  const { state } = app;
  const phase = state.phase === "valid" ? "valid" : "train";
  const options = [];
  if (stream.kind !== "activation") options.push(`kind=${pythonText(stream.kind)}`);
  if (state.phase === "both") options.push('phase=("train", "valid")');
  else if (phase === "valid") options.push('phase="valid"');
  if (state.x) {
    const { from, to, end } = app.viewOf(model, phase);
    if (Math.floor(from) > 0) options.push(`start=${Math.floor(from)}`);
    if (Math.ceil(to) < end) options.push(`stop=${Math.ceil(to)}`);
  }
  if (state.window === "own" || state.window === "symlog") {
    // what is not of activations has a window of its own by default
    if (state.window !== "own" || stream.kind === "activation") options.push(`window=${pythonText(state.window)}`);
  } else if (state.window !== "shared" || stream.kind === "activation") {
    // the window that all layers share, which one layer alone would not have
    const { lo, hi } = app.windowOf(model, stream, phase);
    options.push(`window=(${lo}, ${hi})`);
  }
  if (state.color === "count") options.push('color="count"');
  if (state.lines === "mean") options.push("mean=True");
  const call = [pythonText(stream.name), ...options].join(", ");
  return `import colordim\n\ncolordim.open(${pythonText(model.head.path)}).colorful(${call})\n`;
}
