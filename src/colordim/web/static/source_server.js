// @ts-check
/**
 * The server as a source: questions are requests, and a run that grows is heard of by server-sent events.
 *
 * @typedef {import("./source.js").Source} Source
 */

/** Milliseconds before a lost connection is tried again. */
const AGAIN = 2000;

export class Server {
  /**
   * @param {string} base Address of the page, up to and including the last slash.
   * @param {string} token
   */
  constructor(base, token) {
    this.base = base;
    this.token = token;
  }

  /**
   * @param {string} route
   * @param {import("./source.js").Parameters} parameters
   * @param {AbortSignal} [signal]
   */
  async fetch(route, parameters, signal) {
    const query = new URLSearchParams(Object.entries(parameters).map(([name, value]) => [name, String(value)]));
    let response;
    try {
      response = await fetch(`${this.base}api/${route}?${query}`, { headers: { Authorization: `Bearer ${this.token}` }, signal, cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Error("The server cannot be reached: is colordim view still running?");
    }
    if (response.status === 401) throw new Error("This page needs the token in the link that colordim view printed: open that link.");
    if (!response.ok) {
      const said = await response.json().catch(() => ({}));
      throw new Error(said.error ?? `The server answered ${response.status}.`);
    }
    return response;
  }

  /** All runs of the folder. */
  async runs() {
    return (await this.fetch("runs", {})).json();
  }

  /**
   * @param {string} run Path of the run in the folder.
   * @returns {Source}
   */
  open(run) {
    return {
      kind: "server",
      ask: async (route, parameters = {}) => (await this.fetch(route, { run, ...parameters })).arrayBuffer(),
      onGrowth: (callback) => {
        const abort = new AbortController();
        this.listen(run, callback, abort.signal);
        return () => abort.abort();
      },
    };
  }

  /**
   * @param {string} run
   * @param {(growth: any) => void} callback
   * @param {AbortSignal} signal
   */
  async listen(run, callback, signal) {
    while (!signal.aborted) {
      try {
        // not an EventSource, which cannot send the token in a header
        const response = await this.fetch("events", { run }, signal);
        const decoder = new TextDecoder();
        const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
        let text = "";
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          text += decoder.decode(value, { stream: true });
          const events = text.split("\n\n");
          text = events.pop() ?? "";
          for (const event of events) {
            const data = event.split("\n").filter((each) => each.startsWith("data:")).map((each) => each.slice(5)).join("");
            if (!data) continue;
            if (event.startsWith("event: gone") || event.startsWith("event:gone")) return;
            const growth = JSON.parse(data);
            callback(growth);
            if (growth.ended) return;
          }
        }
      } catch {
        // tried again below: the server may be back, or the machine awake
      }
      if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  }
}
