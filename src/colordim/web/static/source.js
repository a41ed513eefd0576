// @ts-check
/**
 * What the page asks its questions of: the server, the blocks of a report, or the kernel of a notebook.
 *
 * The routes, their parameters and answers are those of colordim/web/answers.py; an answer is its bytes.
 *
 * @typedef {{[name: string]: string | number}} Parameters
 *
 * @typedef {object} Source
 * @property {"server" | "report" | "notebook"} kind
 * @property {(route: string, parameters?: Parameters) => Promise<ArrayBuffer>} ask
 *   Rejects with an Error whose message is a sentence: what was asked for is not there, or the connection is lost.
 * @property {(callback: (growth: any) => void) => (() => void)} onGrowth
 *   Calls back with the answer of the route `growth` whenever the run has grown; returns what stops that.
 */

const utf8 = new TextDecoder();

/**
 * Ask for JSON.
 * @param {Source} source
 * @param {string} route
 * @param {Parameters} [parameters]
 * @returns {Promise<any>}
 */
export async function askJson(source, route, parameters = {}) {
  return JSON.parse(utf8.decode(await source.ask(route, parameters)));
}

/**
 * The text that names a question: the route and its parameters in alphabetical order.
 * @param {string} route
 * @param {Parameters} parameters
 */
export function questionKey(route, parameters) {
  const names = Object.keys(parameters).sort();
  return `${route}?${names.map((name) => `${name}=${encodeURIComponent(String(parameters[name]))}`).join("&")}`;
}

/**
 * @param {Uint8Array<ArrayBuffer>} packed Deflated bytes.
 * @returns {Promise<ArrayBuffer>}
 */
export function inflated(packed) {
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}
