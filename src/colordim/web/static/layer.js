// @ts-check
/**
 * The page of one layer: its large map with a column's histogram beside it, and tabs with what belongs to it.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./run.js").Stream} Stream
 * @typedef {import("./run.js").Phase} Phase
 */
import { Chart } from "./chart.js";
import { choice, make, shortName } from "./dom.js";
import { EpochSlider, epochOf } from "./epochs.js";
import { exportButtons } from "./export.js";
import { factList } from "./facts.js";
import { percentText, plural } from "./format.js";
import { Histogram } from "./histogram.js";
import { Panel } from "./panel.js";
import { drawPins, pinned, pinsOf, PinTable } from "./pins.js";
import { layerOf, neighboursOf, streamsOf } from "./related.js";
import { phasesOf } from "./state.js";
import { ColumnTable } from "./table.js";
import { tabList } from "./tabs.js";
import { TwinChart } from "./twin.js";
import { scalarRow } from "./wall.js";

/** Milliseconds that the cursor rests before exact numbers are asked for. */
const RESTS = 120;
const KIND_TABS = ["activation", "gradient", "weight", "weight_gradient", "update"];

/**
 * @param {App} app
 * @param {HTMLElement} content
 */
export function showLayer(app, content) {
  const model = app.need();
  const stream = model.find(app.state.layer, app.state.kind);
  if (!stream) {
    const back = make("button", { type: "button", text: "all layers", on: { click: () => app.back() } });
    content.append(make("p", { class: "cd-empty", text: `The run has no ${app.state.kind.replace("_", " ")} of a layer named ${shortName(app.state.layer)}. ` }, [back]));
    return;
  }
  new LayerPage(app, stream).show(content);
}

class LayerPage {
  /**
   * @param {App} app
   * @param {Stream} stream
   */
  constructor(app, stream) {
    this.app = app;
    this.model = app.need();
    this.stream = stream;
    this.layer = layerOf(this.model, stream);
    /** @type {import("./histogram.js").Hover} */
    this.hover = null;
    this.rest = 0;
    /** @type {(() => void)[]} Called before each frame. */
    this.updates = [];
    app.onClick = (panel, batch) => {
      app.set({ pins: pinned(app.state.pins, panel.phase, batch) });
      const last = pinsOf(app.state.pins).at(-1);
      app.spoken.textContent = last ? `Pinned ${last.letter}: ${last.phase} batch ${last.batch}.` : "";
    };
    app.hovered = (panel, batch) => this.point(panel, batch);
    app.frames.push(() => this.updates.forEach((update) => update()));
    app.leaving.push(() => {
      clearTimeout(this.rest);
      app.onClick = app.hovered = null;
    });
  }

  /**
   * @param {Panel | null} panel
   * @param {number | null} batch
   */
  point(panel, batch) {
    const before = this.hover;
    this.hover = panel && batch !== null ? { phase: panel.phase, batch: Math.floor(batch), rested: false } : null;
    if (before?.batch === this.hover?.batch && before?.phase === this.hover?.phase) {
      this.hover = before;
      return;
    }
    clearTimeout(this.rest);
    this.app.stage.invalidate();
    if (!this.hover) return;
    this.rest = window.setTimeout(() => {
      if (this.hover) this.hover.rested = true;
      this.app.stage.invalidate();
    }, RESTS);
  }

  /** Phases whose maps are shown. */
  get phases() {
    return phasesOf(this.app.state);
  }

  /** @param {HTMLElement} content */
  show(content) {
    const { app } = this;
    content.append(this.heading());
    const grid = make("div", { class: "cd-layer" });
    const scalars = scalarRow(app);
    const logged = app.charts.slice(0, 2);
    if (logged.length) grid.append(make("div", { class: "cd-logged" }, logged.map((chart) => chart.element)));
    // what was logged in training alone has no line over the validation
    this.updates.push(() => {
      const come = app.scalarsOf(this.model, this.phases[0]) !== undefined;
      for (const chart of logged) chart.element.hidden = come && !chart.curves().length;
    });
    for (const chart of app.charts.splice(2)) app.stage.remove(chart.plot);
    scalars.remove();
    const facts = make("aside", { class: "cd-layer-facts", "aria-label": "facts of the layer" });
    grid.append(facts);
    this.updates.push(() => this.showFacts(facts));
    const mains = this.phases.map((phase) => this.map(this.stream, phase, "layer"));
    for (const panel of mains) grid.append(...this.row(panel));
    content.append(grid);
    const pins = new PinTable(app, mains[0]);
    app.stage.add({ element: pins.element, draw: () => pins.update() });
    content.append(pins.element, ...this.tabs(mains));
  }

  /** Name, type, and the way to the neighbours. */
  heading() {
    const { app, model, stream } = this;
    const { before, after, number, of } = neighboursOf(model, stream.name, stream.kind);
    /**
     * @param {string} text
     * @param {Stream | null} to
     * @param {1 | -1} by
     */
    const button = (text, to, by) => make("button", { type: "button", text, disabled: !to, "data-key": `layer ${by}`, "aria-label": to ? `${by > 0 ? "next" : "previous"} layer, ${shortName(to.name, 60)}` : `${by > 0 ? "next" : "previous"} layer: there is none`, on: { click: () => app.neighbour(by) } });
    const back = make("button", { type: "button", "data-key": "back", text: "← all layers", title: "Esc", on: { click: () => app.back() } });
    const counts = choice("bars", [["", "linear"], ["log", "logarithmic"]], app.state.counts, (value) => app.set({ counts: /** @type {any} */ (value) }));
    const select = counts.querySelector("select");
    if (select) select.dataset.key = "bars";
    const where = stream.facet ? `part ${stream.facet.index} of ${stream.facet.of}: ${stream.facet.label}` : "";
    return make("div", { class: "cd-heading" }, [
      make("nav", { class: "cd-line", "aria-label": "layers" }, [back, button("‹", before, -1), make("span", { class: "cd-note", text: `${number} of ${of}` }), button("›", after, 1)]),
      make("div", { class: "cd-heading-name" }, [
        make("h2", { title: shortName(stream.name, 400) }, [make("bdi", { text: shortName(stream.name) })]),
        make("p", { class: "cd-muted" }, [make("bdi", { text: [stream.kind === "activation" ? "" : stream.kind.replace("_", " ") + " of", `${stream.module}(${shortName(stream.arguments, 300)})`, stream.shape, where && `· ${shortName(where)}`].filter(Boolean).join("  ") })]),
      ]),
      make("div", { class: "cd-line cd-actions" }, [counts, ...exportButtons(app, stream)]),
    ]);
  }

  /** @param {HTMLElement} element */
  showFacts(element) {
    const facts = this.model.known("facts", { stream: this.stream.id });
    if (!facts || facts instanceof Error || element.dataset.shown) return;
    element.dataset.shown = "yes";
    element.replaceChildren(factList(facts));
  }

  /**
   * A map of the page; a click pins one of its columns.
   * @param {Stream} stream
   * @param {Phase} phase
   * @param {string} use
   */
  map(stream, phase, use) {
    const mark = this.phases.length > 1 ? (phase === "train" ? "training" : "validation") : "";
    const large = use === "layer";
    const panel = this.app.panel(new Panel(this.app, this.model, stream, phase, { use, mark, named: true, large, overlay: (ctx, box, ratio) => drawPins(ctx, box, panel, ratio) }));
    panel.element.classList.add(large ? "cd-large" : "cd-medium");
    return panel;
  }

  /**
   * A map with the histogram of a column beside it.
   * @param {Panel} panel
   */
  row(panel) {
    const histogram = new Histogram(this.app, panel, () => this.hover);
    histogram.element.classList.add(panel.options.large ? "cd-large" : "cd-medium");
    return [panel.element, histogram.element];
  }

  /** @param {Panel[]} mains */
  tabs(mains) {
    const { app, model, stream } = this;
    const parts = model.facets(stream);
    /** @type {[string, string, (body: HTMLElement) => void][]} */
    const all = [["twin", "twin peaks", (body) => this.twin(body)]];
    for (const kind of KIND_TABS) {
      const streams = kind === stream.kind ? [] : streamsOf(model, this.layer, kind);
      if (streams.length) all.push([kind, kind.replace("_", " "), (body) => this.maps(body, streams)]);
    }
    if (stream.kind === "activation") all.push(["dead", "dead units", (body) => this.dead(body, mains[0])]);
    if (parts.length) all.push(["classes", parts.every((part) => /^\d+$/.test(part.facet?.label ?? "")) ? "parts" : "classes", (body) => this.classes(body, parts)]);
    all.push(["table", "table", (body) => body.append(...mains.map((panel) => new ColumnTable(panel).element))]);
    const [key, , fill] = all.find(([each]) => each === app.state.tab) ?? all[0];
    const { list, body } = tabList(all.map(([each, text]) => [each, text]), key, (tab) => app.set({ tab }), "what belongs to this layer");
    fill(body);
    return [list, body];
  }

  /** @param {HTMLElement} body */
  twin(body) {
    const { app, stream } = this;
    const chart = new TwinChart(app, stream, () => epochOf(app), { title: "end of training and validation", window: () => app.windowOf(this.model, stream, "train") });
    const slider = new EpochSlider(app, () => chart.asked() !== undefined);
    this.updates.push(() => slider.update());
    body.append(slider.element, chart.element);
  }

  /**
   * @param {HTMLElement} body
   * @param {Stream[]} streams
   */
  maps(body, streams) {
    const grid = make("div", { class: "cd-layer" });
    for (const stream of streams) {
      for (const phase of stream.kind === "activation" ? this.phases : /** @type {Phase[]} */ (["train"])) {
        grid.append(...this.row(this.map(stream, phase, "tab")));
      }
    }
    body.append(grid);
  }

  /**
   * @param {HTMLElement} body
   * @param {Panel} panel
   */
  dead(body, panel) {
    const { app, model, stream } = this;
    const { phase } = panel;
    const answer = () => model.known("units", { stream: stream.id, phase });
    const options = { range: /** @type {[number, number]} */ ([0, 1]), text: (/** @type {number} */ value) => percentText(value).replace(" %", "%"), epochs: () => model.marks.epochs[phase], batches: true, className: "cd-tall" };
    const said = make("p", { class: "cd-muted" });
    const units = new Chart(app, "share of units that were not active even once, window by window", () => app.viewOf(model, phase), () => {
      const found = answer();
      if (!found || found instanceof Error || !found.first.length) return [];
      /** @type {[number, number][]} */
      const points = found.first.flatMap((/** @type {number} */ first, /** @type {number} */ i) => [[first, found.dead[i]], [found.last[i] + 1, found.dead[i]]]);
      return [{ name: "", color: app.inks.lines[3], points }];
    }, options);
    Object.defineProperty(units.plot, "cdData", { get: answer });
    const zeros = new Chart(app, "share of zeros in each column", () => app.viewOf(model, phase), () => {
      /** @type {[number, number][]} */
      const points = [];
      panel.heat.forEach(panel.view, (columns, at, batch) => {
        if (columns.of.size[at]) points.push([batch + columns.width / 2, columns.of.zeros[at] / columns.of.size[at]]);
      });
      return [{ name: "", color: app.inks.lines[0], points }];
    }, options);
    app.charts.push(units, zeros);
    const rows = make("div", { class: "cd-layer" }, [make("div", { class: "cd-logged cd-one" }, [units.element, zeros.element])]);
    this.updates.push(() => {
      const found = answer();
      let text = "";
      if (found instanceof Error) text = found.message;
      else if (found && !found.first.length) text = "The units of this layer were not recorded: they are those of layers whose output an activation function with exact zeros follows.";
      else if (found) text = `${plural(found.units, "unit")}, judged on the output of ${shortName(found.judged_on || stream.name, 80)}`;
      if (said.textContent !== text) said.textContent = text;
      units.element.hidden = !found || found instanceof Error || !found.first.length;
    });
    body.append(said, rows);
  }

  /**
   * @param {HTMLElement} body
   * @param {Stream[]} parts
   */
  classes(body, parts) {
    const { app, model, stream } = this;
    const phase = this.phases[0];
    /** @type {TwinChart[]} */
    const charts = [];
    const most = () => charts.reduce((high, chart) => Math.max(high, chart.highest), 0);
    const list = make("div", { class: "cd-wall cd-classes" });
    for (const part of parts) {
      const { label = "", index = 0 } = part.facet ?? {};
      const title = label === String(index) ? part.name : label;
      const chart = new TwinChart(app, part, () => epochOf(app), { title, small: true, most, window: () => app.windowOf(model, stream, "train") });
      chart.plot.dataset.part = String(index);
      charts.push(chart);
      const panel = this.map(part, phase, "part");
      panel.element.classList.remove("cd-medium");
      list.append(make("section", { "aria-label": shortName(title) }, [chart.element, panel.element]));
    }
    const slider = new EpochSlider(app, () => charts.every((chart) => !chart.answer || chart.asked() !== undefined));
    this.updates.push(() => slider.update());
    const key = make("p", { class: "cd-muted" }, [
      make("span", { class: "cd-line-1", text: "training, last quarter of the epoch" }), " · ", make("span", { class: "cd-line-2", text: "validation, the whole pass" }),
      " · the same scale for all",
    ]);
    body.append(make("div", { class: "cd-line" }, [slider.element, key]), list);
  }
}
