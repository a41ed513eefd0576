// @ts-check
/**
 * The source of a notebook: the kernel answers, by messages of a widget (colordim/web/widget.py).
 *
 * While a cell runs the kernel answers nothing; what it has sent by itself meanwhile, the head, the growth and the newest
 * columns of what was looked at, is answered from here.
 *
 * @typedef {import("./source.js").Source} Source
 * @typedef {import("./source.js").Parameters} Parameters
 * @typedef {import("./tile_cache.js").State} State
 *
 * @typedef {object} Model What anywidget gives to render().
 * @property {(name: string) => any} get
 * @property {(content: any) => void} send
 * @property {(event: string, callback: (content: any, buffers: DataView[]) => void) => void} on
 * @property {(event: string, callback: (content: any, buffers: DataView[]) => void) => void} off
 *
 * @typedef {object} Question
 * @property {string} id
 * @property {string} route
 * @property {Parameters} parameters
 * @property {Promise<ArrayBuffer>} answer
 * @property {(answer: ArrayBuffer) => void} resolve
 * @property {(error: Error) => void} reject
 */
import { inflated, questionKey } from "./source.js";
import { TileCache } from "./tile_cache.js";

/** Questions that the kernel has at once. */
const MOST_UNDER_WAY = 8;
/** Milliseconds after which the kernel counts as busy. */
const PATIENCE = 10_000;

/**
 * @param {Model} model
 * @returns {Source & {close: () => void}}
 */
export function notebookSource(model) {
  /** @type {Map<string, Question>} By their keys; those after the first MOST_UNDER_WAY have not been sent. */
  const questions = new Map();
  /** @type {Set<string>} */
  const sent = new Set();
  /** @type {Set<(growth: any) => void>} */
  const callbacks = new Set();
  const session = Math.random().toString(36).slice(2); // several views share the model, and hear each other's answers
  let number = 0;
  let before = Promise.resolve();
  let growth = model.get("head");
  /** @type {Map<string, ArrayBuffer>} What was logged, and the marks, by route and phase, as they were last sent. */
  const logged = new Map();
  const cache = new TileCache(growth.tile);

  function sendNext() {
    for (const [key, question] of questions) {
      if (sent.size >= MOST_UNDER_WAY) break;
      if (sent.has(key)) continue;
      sent.add(key);
      const parameters = Object.fromEntries(Object.entries(question.parameters).map(([name, value]) => [name, String(value)]));
      model.send({ id: question.id, route: question.route, parameters });
    }
  }

  /**
   * @param {string} key
   * @param {(question: Question) => void} settle
   */
  function done(key, settle) {
    const question = questions.get(key);
    if (!question) return;
    questions.delete(key);
    sent.delete(key);
    settle(question);
    sendNext();
  }

  // one after the other: the columns come before the growth that tells of them
  /** @type {(content: any, buffers: DataView[]) => void} */
  const onMessage = (content, buffers) => {
    before = before.then(() => take(content, buffers)).catch((error) => console.error(error));
  };

  /**
   * @param {any} content
   * @param {DataView[]} buffers
   */
  async function take(content, buffers) {
    const key = [...questions].find(([, question]) => question.id === content.id)?.[0] ?? "";
    if (content.error) {
      done(key, ({ reject }) => reject(new Error(content.error)));
      return;
    }
    if (!content.push && !key) return; // another view's
    const answer = await unpacked(buffers[0], content.deflated);
    if (content.route === "tiles" && !content.exact) cache.add(answer, content.state);
    done(key, ({ resolve }) => resolve(answer));
    if (content.push && content.route === "growth") {
      const now = JSON.parse(new TextDecoder().decode(answer));
      const less = Object.entries(growth.batches).some(([phase, batches]) => batches > now.batches[phase]);
      if (less) cache.tiles.clear(); // resumed, and what was behind the checkpoint is gone
      growth = now;
      for (const callback of callbacks) callback(growth);
    }
    if (content.push && ["scalars", "marks", "findings"].includes(content.route)) logged.set(`${content.route} ${content.phase}`, answer);
    if (content.push) answerFromCache();
  }

  function answerFromCache() {
    for (const [key, { route, parameters }] of [...questions]) {
      const answer = route === "tiles" && cache.answer(parameters, growth);
      if (answer) done(key, ({ resolve }) => resolve(answer));
    }
  }

  /**
   * @param {string} route
   * @param {Parameters} parameters
   */
  function askKernel(route, parameters) {
    const key = questionKey(route, parameters);
    let question = questions.get(key);
    if (!question) {
      /** @type {any} */
      const parts = {};
      const answer = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
      answer.catch(() => {}); // whoever asked has been told that the kernel is busy
      question = /** @type {Question} */ ({ id: `${session} ${++number}`, route, parameters, answer, ...parts });
      questions.set(key, question);
      sendNext();
    }
    const instead = logged.get(route === "marks" || route === "findings" ? `${route} ` : `${route} ${parameters.phase ?? "train"}`);
    return Promise.race([question.answer, busy(key, instead)]);
  }

  /**
   * @param {string} key
   * @param {ArrayBuffer} [instead] What will do if the kernel is busy.
   * @returns {Promise<ArrayBuffer>}
   */
  async function busy(key, instead) {
    await new Promise((resolve) => setTimeout(resolve, instead ? 500 : PATIENCE));
    if (!sent.has(key)) questions.delete(key); // it will be asked anew; those that were sent are not, so that they do not pile up
    if (instead) return instead;
    throw new Error("The kernel is busy with a cell: this comes when the cell has ended.");
  }

  model.on("msg:custom", onMessage);
  model.send({ view: 1 });
  return {
    kind: "notebook",
    ask: async (route, parameters = {}) => {
      if (route === "head") return encoded({ ...model.get("head"), ...growth });
      if (route === "growth") return encoded(growth);
      return (route === "tiles" && cache.answer(parameters, growth)) || askKernel(route, parameters);
    },
    onGrowth: (callback) => {
      callbacks.add(callback);
      return () => void callbacks.delete(callback);
    },
    close: () => {
      model.off("msg:custom", onMessage);
      model.send({ view: -1 });
      callbacks.clear();
    },
  };
}

/** @param {any} value */
function encoded(value) {
  return new TextEncoder().encode(JSON.stringify(value)).buffer;
}

/**
 * @param {DataView} buffer
 * @param {boolean} deflated
 * @returns {Promise<ArrayBuffer>}
 */
async function unpacked(buffer, deflated) {
  const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength).slice();
  if (!deflated) return bytes.buffer;
  return inflated(bytes);
}
