// @ts-check
/** The choice of an epoch: a slider, and a button that plays through them. */
import { make } from "./dom.js";

/** Milliseconds that each epoch is shown for. */
const SHOWN = 700;

/**
 * The numbers of the epochs that a run has, ascending.
 * @param {import("./run.js").RunModel} model
 * @returns {number[]}
 */
function epochsOf(model) {
  const { train, valid } = model.marks.epochs;
  return [...new Set([...train.number, ...valid.number])].sort((a, b) => a - b);
}

/**
 * The epoch of the address, or the last.
 * @param {import("./app.js").App} app
 * @returns {number | null}
 */
export function epochOf(app) {
  const all = epochsOf(app.need());
  if (!all.length) return null;
  const wanted = Number(app.state.epoch);
  if (app.state.epoch === "") {
    const { train, valid } = app.need().marks.epochs;
    // the last that has been validated: of the one that goes on there is but one side
    const both = all.filter((number) => train.number.includes(number) && valid.number.includes(number));
    return (both.length ? both : all)[(both.length ? both : all).length - 1];
  }
  return all.reduce((best, number) => (Math.abs(number - wanted) < Math.abs(best - wanted) ? number : best), all[0]);
}

export class EpochSlider {
  /**
   * @param {import("./app.js").App} app
   * @param {() => boolean} ready Whether what belongs to the epoch is drawn, so that the next may come.
   */
  constructor(app, ready) {
    this.app = app;
    this.ready = ready;
    this.timer = 0;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.slider = make("input", {
      type: "range", min: 0, step: 1, "aria-label": "epoch", "data-key": "epoch",
      on: {
        input: () => {
          const at = Number(this.slider.value); // which stopping would set back
          this.stop();
          this.choose(at);
        },
        keydown: (/** @type {KeyboardEvent} */ event) => /^(Arrow|Home|End|Page)/.test(event.key) && event.stopPropagation(),
      },
    });
    this.button = make("button", { type: "button", "data-key": "play", on: { click: () => this.press() } });
    this.value = make("output", { class: "cd-note" });
    this.element = make("div", { class: "cd-line cd-epochs" }, [this.button, this.slider, this.value]);
    app.leaving.push(() => this.stop());
    this.update();
  }

  /** @param {number} at Place in the list. */
  choose(at) {
    const all = epochsOf(this.app.need());
    this.app.set({ epoch: String(all[Math.max(0, Math.min(all.length - 1, at))]) });
  }

  /** Place in the list. */
  get at() {
    return epochsOf(this.app.need()).indexOf(epochOf(this.app) ?? -1);
  }

  update() {
    const all = epochsOf(this.app.need());
    const epoch = epochOf(this.app);
    const text = epoch === null ? "no epochs yet" : `epoch ${epoch} of ${all[0]}–${all[all.length - 1]}`;
    this.slider.max = String(Math.max(all.length - 1, 0));
    if (this.slider.value !== String(this.at)) this.slider.value = String(this.at);
    this.slider.setAttribute("aria-valuetext", text);
    this.slider.disabled = this.button.disabled = all.length < 2;
    if (this.value.textContent !== text) this.value.textContent = text;
    const word = this.timer ? "pause" : this.calm.matches ? "next epoch" : "play";
    if (this.button.textContent !== word) {
      this.button.textContent = word;
      this.button.setAttribute("aria-label", { pause: "pause", play: "play through the epochs", "next epoch": "next epoch" }[word] ?? word);
    }
  }

  press() {
    const last = epochsOf(this.app.need()).length - 1;
    if (this.timer) this.stop();
    else if (this.calm.matches) this.choose(this.at >= last ? 0 : this.at + 1);
    else {
      if (this.at >= last) this.choose(0);
      this.timer = window.setInterval(() => this.next(), SHOWN);
    }
    this.update();
  }

  next() {
    if (!this.ready()) return;
    const last = epochsOf(this.app.need()).length - 1;
    if (this.at >= last) this.stop();
    else this.choose(this.at + 1);
    this.update();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    if (!this.app.closed && this.app.model) this.update();
  }
}
