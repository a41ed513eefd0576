// @ts-check
/**
 * What is on show, and the address that holds it: all of it, so that a link reopens the same view.
 *
 * @typedef {object} State
 * @property {string} run Path of the run; empty for the only one, or for the list of runs.
 * @property {string} with Path of the run that it is compared with; empty for none.
 * @property {string} layer Name of the stream of the layer page; empty for the wall.
 * @property {string} kind
 * @property {"train" | "valid" | "both"} phase
 * @property {string} window "shared", "own", "symlog", or "LO,HI".
 * @property {"share" | "count"} color
 * @property {string} map Name of the colour table.
 * @property {"auto" | "light" | "dark"} theme
 * @property {string} x "FROM,TO" in batches; empty for the whole run.
 * @property {"call" | "zeros" | "trouble"} order
 * @property {string} find Part of the names of the layers on show.
 * @property {string} strips What is drawn below the panels: "dead", "update", with commas between.
 * @property {string} lines "mean" for mean and standard deviation over the maps.
 * @property {string} dim "healthy" for layers without trouble drawn faintly.
 * @property {string} tab Of the layer page.
 * @property {string} epoch Of twin peaks; empty for the last.
 * @property {string} pins Batches that are compared, "A" or "A,B"; those of the validation as "v12".
 * @property {"" | "log"} counts Scale of the bars of a column's histogram.
 * @property {string} why Number of the finding that is explained beside the panels; empty for none.
 * @property {string} open Blocks that are unfolded, with commas between.
 */

/** @type {State} */
export const DEFAULTS = {
  run: "", with: "", layer: "", kind: "activation", phase: "train", window: "shared", color: "share", map: "viridis",
  theme: "auto", x: "", order: "call", find: "", strips: "", lines: "", dim: "", tab: "", epoch: "", pins: "", counts: "", why: "", open: "",
};

/** What may be in an address, where it is not free text. @type {{[name: string]: RegExp}} */
const ALLOWED = {
  kind: /^(activation|gradient|weight|weight_gradient|update)$/,
  phase: /^(train|valid|both)$/,
  window: /^(shared|own|symlog|[-+.\de]+,[-+.\de]+)$/,
  color: /^(share|count)$/,
  dim: /^(|healthy)$/,
  map: /^(viridis|cividis|magma)$/,
  theme: /^(auto|light|dark)$/,
  x: /^$|^-?[\d.]+,[\d.]+$/,
  order: /^(call|zeros|trouble)$/,
  epoch: /^\d*$/,
  pins: /^$|^v?\d{1,12}(,v?\d{1,12})?$/,
  counts: /^(log)?$/,
  why: /^\d{0,2}$/,
};

/**
 * Read a view from the fragment of an address; what it does not understand is left as it is by default.
 * @param {string} fragment
 * @returns {State}
 */
export function stateFrom(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  /** @type {{[name: string]: string}} */
  const state = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    const value = given.get(name);
    if (value !== null && (ALLOWED[name]?.test(value) ?? true)) state[name] = value;
  }
  if (pair(state.window) && !(/** @type {number[]} */ (pair(state.window))[0] < /** @type {number[]} */ (pair(state.window))[1])) state.window = "shared";
  return /** @type {State} */ (/** @type {unknown} */ (state));
}

/**
 * Return a view of which nothing is empty for sure: of other things than activations there are only training batches.
 * @param {State} state
 * @returns {State}
 */
export function possible(state) {
  if (state.kind === "activation" || state.phase === "train") return state;
  return { ...state, phase: "train", x: state.phase === "valid" ? "" : state.x };
}

/**
 * The phases on show.
 * @param {State} state
 * @returns {("train" | "valid")[]}
 */
export function phasesOf({ phase }) {
  return phase === "both" ? ["train", "valid"] : [phase];
}

/**
 * The fragment that {@link stateFrom} reads.
 * @param {State} state
 */
export function fragmentOf(state) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (value !== /** @type {{[name: string]: string}} */ (/** @type {unknown} */ (DEFAULTS))[name]) parts.set(name, value);
  }
  return parts.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
}

/**
 * The strips below the panels.
 * @param {State} state
 */
export function stripsOf(state) {
  return /** @type {("dead" | "update")[]} */ (state.strips.split(",").filter((name) => name === "dead" || name === "update"));
}

/**
 * Two numbers with a comma between; null if it is not that.
 * @param {string} text
 * @returns {[number, number] | null}
 */
export function pair(text) {
  const numbers = text.split(",").map(Number);
  return text && numbers.length === 2 && numbers.every(Number.isFinite) ? [numbers[0], numbers[1]] : null;
}
