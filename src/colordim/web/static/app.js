// @ts-check
/**
 * The page: what is on show, in one element, for the browser, the report and the notebook alike.
 *
 * @typedef {import("./source.js").Source} Source
 * @typedef {import("./state.js").State} State
 * @typedef {import("./run.js").Stream} Stream
 * @typedef {import("./run.js").Phase} Phase
 *
 * @typedef {object} Options
 * @property {Source} [source] Of the only run.
 * @property {() => Promise<any>} [runs] Lists the runs, where there are several.
 * @property {(path: string) => Source} [openRun]
 * @property {boolean} [hash] Whether the address holds the view.
 * @property {Partial<State>} [start] View to begin with.
 */
import { Brush } from "./brush.js";
import { COLOR_MAPS, colorScale } from "./colors.js";
import { choice, make, shortName, toggle } from "./dom.js";
import { countText, percentText, plural } from "./format.js";
import { saveButtons } from "./export.js";
import { helpDialog } from "./help.js";
import { showLayer } from "./layer.js";
import { colorsOf, Legend } from "./legend.js";
import { Pointer } from "./pointer.js";
import { neighboursOf } from "./related.js";
import { RunModel } from "./run.js";
import { showRuns } from "./runs.js";
import { askJson } from "./source.js";
import { RIM, Stage } from "./stage.js";
import { DEFAULTS, fragmentOf, pair, possible, stateFrom, stripsOf } from "./state.js";
import { orderedStreams, showWall } from "./wall.js";
import { fillExplanation, verdicts } from "./verdict.js";
import { symmetricWindow } from "./window.js";

/** Changes of these build the page anew; all others only draw it anew. */
const STRUCTURE = ["run", "with", "layer", "kind", "phase", "order", "find", "strips", "tab", "open", "theme"];
/** What is drawn below the panels on request. */
const STRIPS = /** @type {["dead" | "update", string][]} */ ([["dead", "dead units"], ["update", "updates"]]);
/** Milliseconds within which what comes is drawn together. */
const TOGETHER = 100;
/** Milliseconds between two looks at the list of runs. */
const LOOK = 3000;

/**
 * Show the page in an element; returns what removes it again.
 * @param {HTMLElement} element
 * @param {Options} options
 * @returns {() => void}
 */
export function mountApp(element, options) {
  const app = new App(element, options);
  app.begin();
  return () => app.close();
}

export class App {
  /**
   * @param {HTMLElement} element
   * @param {Options} options
   */
  constructor(element, options) {
    this.options = options;
    /** @type {State} */
    this.state = { ...DEFAULTS, ...options.start };
    if (options.hash) this.state = { ...stateFrom(location.hash), ...options.start };
    this.state = possible(this.state);
    /** @type {import("./run.js").RunModel | null} */
    this.model = null;
    /** The run that it is compared with. @type {import("./run.js").RunModel | null} */
    this.other = null;
    /** @type {import("./panel.js").Panel[]} */
    this.panels = [];
    /** @type {import("./chart.js").Chart[]} */
    this.charts = [];
    /** @type {(() => void)[]} Called when the page is built anew. */
    this.leaving = [];
    /** Called before each frame. @type {(() => void)[]} */
    this.frames = [];
    /** Extremes of the cells in view. */
    this.cells = { least: Infinity, most: 0 };
    this.scale = colorScale(0.01, 1);
    this.error = "";
    this.closed = false;
    this.looking = 0;
    this.opened = 0;
    this.top = make("header", { class: "cd-top" });
    this.verdict = make("section", { class: "cd-verdicts", "aria-label": "diagnosis", "aria-live": "polite" });
    this.explanation = make("aside", { class: "cd-explanation", hidden: true });
    this.controls = make("div", { class: "cd-controls", role: "toolbar", "aria-label": "what is shown" });
    this.content = make("div", { class: "cd-content" });
    this.scroller = make("main", { class: "cd-scroll", tabindex: -1 }, [this.content]);
    this.spoken = make("p", { class: "cd-hidden", "aria-live": "polite" });
    this.help = helpDialog();
    this.root = element;
    element.classList.add("colordim");
    /** @type {any} */ (element).colordim = this; // for scripts and tests of the page
    element.replaceChildren(this.top, this.verdict, this.controls, make("div", { class: "cd-middle" }, [this.scroller, this.explanation]), this.spoken, this.help);
    this.stage = new Stage(this.scroller, this.content);
    this.pointer = new Pointer(this);
    this.brush = new Brush(this);
    this.legend = new Legend();
    element.append(this.brush.element);
    this.stage.before = () => this.beforeFrame();
    this.stage.foreseen = () => this.askNext();
    this.stage.prepared = () => this.afterPrepare();
    this.darkness = matchMedia("(prefers-color-scheme: dark)");
    this.onTheme = () => this.render();
    this.onHash = () => {
      const state = possible(stateFrom(location.hash));
      if (fragmentOf(state) !== fragmentOf(this.state)) this.take(state);
    };
    this.onKey = (/** @type {KeyboardEvent} */ event) => this.key(event);
  }

  begin() {
    this.darkness.addEventListener("change", this.onTheme);
    if (this.options.hash) addEventListener("hashchange", this.onHash);
    (this.options.hash ? document : this.root).addEventListener("keydown", /** @type {EventListener} */ (this.onKey));
    this.open();
  }

  close() {
    this.closed = true;
    clearTimeout(this.looking);
    clearTimeout(this.gathering);
    this.darkness.removeEventListener("change", this.onTheme);
    removeEventListener("hashchange", this.onHash);
    (this.options.hash ? document : this.root).removeEventListener("keydown", /** @type {EventListener} */ (this.onKey));
    this.model?.close();
    this.other?.close();
    this.stage.close();
    this.root.replaceChildren();
    this.root.classList.remove("colordim");
  }

  /** The run on show. */
  need() {
    if (!this.model) throw new Error("no run is open");
    return this.model;
  }

  // What is on show.

  /**
   * Change what is on show.
   * @param {Partial<State>} patch
   * @param {boolean} [page] Whether it is another page, to which the browser's back button leads back.
   */
  set(patch, page = false) {
    const state = possible({ ...this.state, ...patch });
    this.remember(state, page);
    this.take(state);
  }

  /**
   * @param {State} state
   * @param {boolean} page
   */
  remember(state, page) {
    if (!this.options.hash) return;
    const address = `${location.pathname}${location.search}#${fragmentOf(state)}`;
    try {
      if (page) history.pushState(null, "", address);
      else history.replaceState(null, "", address);
    } catch {
      // browsers bound how often an address may change; the next change takes all with it
    }
  }

  /** @param {State} state */
  take(state) {
    const before = this.state;
    this.state = state;
    this.pointer.hide();
    /** @param {string} name */
    const changed = (name) => /** @type {any} */ (before)[name] !== /** @type {any} */ (state)[name];
    if (changed("run") || changed("with")) this.open();
    else if (STRUCTURE.some(changed)) this.render();
    else {
      if (["window", "color", "map", "lines"].some(changed)) this.showControls();
      if (changed("why")) {
        this.showVerdict();
        if (state.why) /** @type {HTMLElement | null} */ (this.explanation.querySelector(`[data-number="${state.why}"] summary`) ?? this.explanation.querySelector("h2"))?.focus();
      }
      this.stage.invalidate();
    }
  }

  /**
   * Show batches; all panels follow.
   * @param {number} from
   * @param {number} to
   * @param {Phase} [phase] Whose batches these are.
   */
  showBatches(from, to, phase) {
    const model = this.need();
    const main = this.state.phase === "valid" ? "valid" : "train";
    if (phase && phase !== main) return; // of two phases side by side, validation follows the training
    const end = Math.max(model.head.batches[main], this.other?.head.batches[main] ?? 0, 1);
    const span = Math.min(Math.max(to - from, Math.min(4, end)), end);
    if (from < 0) from = 0;
    else if (from + span > end) from = end - span;
    const whole = span >= end * 0.9999;
    this.set({ x: whole ? "" : `${Number(from.toFixed(2))},${Number((from + span).toFixed(2))}` });
  }

  /**
   * Show a phase, and of it what ran while the batches on show did.
   * @param {State["phase"]} phase
   */
  showPhase(phase) {
    const model = this.need();
    let x = pair(this.state.x);
    if (phase === "valid") x = model.validWithin(x);
    else if (this.state.phase === "valid") x = model.trainAround(x);
    this.set({ phase, x: x ? x.join() : "" });
  }

  /**
   * The batches of a phase on show.
   * @param {RunModel} model
   * @param {Phase} phase
   */
  viewOf(model, phase) {
    const x = pair(this.state.x);
    if (phase === "valid" && this.state.phase === "both") return model.view(phase, model.validWithin(x));
    if (!this.other) return model.view(phase, x);
    const both = [this.need(), this.other];
    const view = model.view(phase, x ?? [0, Math.max(1, ...both.map((each) => each.head.batches[phase]))]);
    // columns of the same batches, so that they can be subtracted
    const [own, others] = both.map((each) => /** @type {import("./columns.js").Levels} */ (each.head.levels[phase]));
    const levels = own.flatMap(({ width, kept }) => others.filter((level) => level.width === width).map((level) => ({ width, kept: Math.max(kept, level.kept) })));
    return { ...view, levels: levels.length ? levels : own };
  }

  /**
   * @param {RunModel} model
   * @param {Stream} stream
   * @param {Phase} phase
   * @param {boolean} [joint] Whether it is asked for the sake of the other run.
   * @returns {import("./window.js").Window | null} That of the run which needs more, if two are compared; null while unknown.
   */
  knownWindow(model, stream, phase, joint = false) {
    const choice_ = this.state.window;
    const key = `${model.path} ${phase} ${stream.kind} ${choice_}`;
    let found = this.windows.get(key);
    if (!found) {
      found = model.windows(model.whole(stream.kind), phase, choice_ === "shared" && stream.kind !== "activation" ? "own" : choice_);
      this.windows.set(key, found);
    }
    const own = found(stream);
    const against = model === this.model ? this.other : this.model;
    const twin = this.other && against?.find(stream.name, stream.kind);
    if (!twin || !own || joint) return own;
    const others = this.knownWindow(/** @type {RunModel} */ (against), twin, phase, true);
    return others && others.hi > own.hi ? others : others && own;
  }

  /**
   * Values on show; a window of one as long as it is not known what is needed.
   * @param {RunModel} model
   * @param {Stream} stream
   * @param {Phase} phase
   */
  windowOf(model, stream, phase) {
    return this.knownWindow(model, stream, phase) ?? symmetricWindow(1);
  }

  /** @type {Map<string, (stream: Stream) => import("./window.js").Window | null>} Of this frame. */
  windows = new Map();

  /**
   * What was logged, at the resolution of the view.
   * @param {RunModel} model
   * @param {Phase} phase
   */
  scalarsOf(model, phase) {
    return model.known("scalars", { phase, points: 1500 });
  }

  // Opening.

  async open() {
    const opened = ++this.opened;
    clearTimeout(this.looking);
    this.model?.close();
    this.other?.close();
    this.model = this.other = null;
    this.error = "";
    const { run, with: other } = this.state;
    const { source, openRun, runs } = this.options;
    try {
      if (source) this.model = await this.load(source, "");
      else if (run && openRun) {
        this.model = await this.load(openRun(run), run);
        if (other && opened === this.opened) this.other = await this.load(openRun(other), other);
      } else if (runs) {
        const answer = await runs();
        if (opened !== this.opened || this.closed) return;
        if (answer.runs.length === 1 && answer.runs[0].path === ".") {
          this.set({ run: "." });
          return;
        }
        this.listed = answer;
        this.looking = window.setTimeout(() => {
          if (!this.state.run && !this.closed) this.open();
        }, LOOK);
      }
    } catch (error) {
      if (opened !== this.opened) return;
      this.error = error instanceof Error ? error.message : String(error);
    }
    if (opened === this.opened && !this.closed) this.render();
  }

  /** @type {any} The list of runs. */
  listed = null;

  /**
   * @param {Source} source
   * @param {string} path
   */
  async load(source, path) {
    const model = new RunModel(source, await askJson(source, "head"), path, () => this.came(), () => this.found());
    model.follow((streams) => this.grown(model, streams));
    return model;
  }

  /**
   * @param {RunModel} model
   * @param {boolean} streams Whether there are new ones.
   */
  grown(model, streams) {
    if (this.closed || (model !== this.model && model !== this.other)) return;
    const x = pair(this.state.x);
    const main = this.state.phase === "valid" ? "valid" : "train";
    const end = model.head.batches[main];
    // who looks at the newest batches goes on doing so
    if (x && this.lastEnd && x[1] >= this.lastEnd - 0.5 && end > this.lastEnd) this.set({ x: `${x[0] + end - this.lastEnd},${end}` });
    this.lastEnd = end;
    if (streams) this.render();
    else {
      this.showTop();
      this.stage.invalidate();
    }
  }

  /** Something has come; what comes soon after is drawn together with it, as a frame takes as long for a part as for all. */
  came() {
    const more = this.model?.store.busy || this.other?.store.busy;
    if (!more) {
      clearTimeout(this.gathering);
      this.gathering = 0;
      this.stage.invalidate();
    } else if (!this.gathering) {
      this.gathering = window.setTimeout(() => {
        this.gathering = 0;
        this.stage.invalidate();
      }, TOGETHER);
    }
  }

  /** Timer. */
  gathering = 0;

  /** Something else is known to be wrong. */
  found() {
    if (this.closed) return;
    if (this.state.order === "trouble") this.render();
    else {
      this.showVerdict();
      this.stage.invalidate();
    }
  }

  /** The sentence under the title, and what is behind it. */
  showVerdict() {
    const key = this.verdict.contains(document.activeElement) || this.explanation.contains(document.activeElement) ? this.focusKey() : "";
    this.verdict.replaceChildren(...verdicts(this));
    this.verdict.hidden = !this.verdict.firstChild;
    fillExplanation(this, this.explanation);
    if (key) this.refocus(key);
  }

  closeWhy() {
    this.set({ why: "" });
    this.refocus('[data-key="why"]');
  }

  /** Batches when the run was heard of last. */
  lastEnd = 0;

  // Building the page.

  render() {
    if (this.closed) return;
    const focused = this.focusKey();
    const { scrollTop } = this.scroller;
    for (const leave of this.leaving.splice(0)) leave();
    this.pointer.clear();
    this.stage.clear();
    this.panels = [];
    this.charts = [];
    this.frames = [];
    this.model?.store.forgetWanted();
    this.other?.store.forgetWanted();
    this.dark = this.state.theme === "dark" || (this.state.theme === "auto" && this.darkness.matches);
    this.root.dataset.theme = this.dark ? "dark" : "light";
    this.inks = readInks(this.root);
    this.content.replaceChildren(this.stage.canvas);
    this.noteMarks();
    this.showTop();
    this.showVerdict();
    this.showControls();
    this.brush.element.hidden = !this.model;
    const page = this.model ? (this.state.layer ? `layer ${this.state.layer}` : "wall") : "runs";
    if (this.error) this.content.append(make("p", { class: "cd-empty", role: "alert", text: this.error }));
    else if (!this.model) {
      if (this.listed) showRuns(this, this.content, this.listed);
    } else if (this.state.layer) showLayer(this, this.content);
    else showWall(this, this.content);
    if (this.page === page) this.scroller.scrollTop = scrollTop;
    else this.scroller.scrollTop = 0;
    this.page = page;
    if (this.options.hash) document.title = [this.state.layer, this.model?.head.name, "colordim"].filter(Boolean).map((part) => shortName(String(part), 60)).join(" · ");
    this.refocus(focused);
    this.stage.invalidate();
  }

  noteMarks() {
    this.shownMarks = this.model?.marks;
    this.shownNames = this.shownMarks?.scalars.join("\n") ?? "";
  }

  page = "";
  /** What is known of the batches, as it was when it was shown last. @type {any} */
  shownMarks = null;
  shownNames = "";
  dark = false;
  /** @type {import("./marks.js").Inks} */
  inks = { ink: "#000", muted: "#666", rule: "#ccc", paper: "#fff", zero: "#d00", epoch: "#225", notFinite: "#e0218a", bad: "#b3125f", problem: "#b8400a", warning: "#8a6100", note: "#0063a5", lines: ["#0072B2"] };

  /** What has the focus, in a way that outlives building the page anew. */
  focusKey() {
    const active = document.activeElement;
    if (!(active instanceof HTMLElement) || !this.root.contains(active)) return "";
    const panel = /** @type {HTMLElement | null} */ (active.closest(".cd-panel"));
    if (panel) return `.cd-panel[data-stream="${panel.dataset.stream}"][data-phase="${panel.dataset.phase}"] .cd-name`;
    return active.dataset.key ? `[data-key="${active.dataset.key}"]` : "";
  }

  /** @param {string} key */
  refocus(key) {
    if (!key) return;
    const element = /** @type {HTMLElement | null} */ (this.root.querySelector(key));
    if (element && element !== document.activeElement) {
      element.focus({ preventScroll: true });
      if (element instanceof HTMLInputElement && element.type === "search") element.setSelectionRange(element.value.length, element.value.length);
    }
  }

  /** The line at the top: which run, how far it is, what recording it cost. */
  showTop() {
    const { model } = this;
    const home = this.options.runs
      ? make("a", { class: "cd-home", href: "#", text: "colordim", title: "all runs", on: { click: (/** @type {Event} */ event) => {
          event.preventDefault();
          this.set({ ...DEFAULTS, theme: this.state.theme, map: this.state.map }, true);
        } } })
      : make("span", { class: "cd-home", text: "colordim" });
    const parts = [home];
    if (model) {
      const { head } = model;
      const { state } = model;
      parts.push(make("h1", { title: shortName(head.path, 500) }, [make("bdi", { text: shortName(head.name || head.path || "run") }), this.other ? make("span", { text: " with " }) : null, this.other ? make("bdi", { text: shortName(this.other.head.name || this.other.path) }) : null]));
      const ended = head.ended && head.ended !== "stopped" ? `ended: ${shortName(head.ended)}` : state;
      parts.push(make("span", { class: `cd-state cd-${state.replace(" ", "-")}`, text: ended }));
      const { cost } = model.marks;
      const facts = [
        extentText(model) + (this.other ? ` (${shortName(this.other.head.name || this.other.path, 40)}: ${extentText(this.other)})` : ""),
        plural(model.whole(this.state.kind).length, this.state.kind === "activation" || this.state.kind === "gradient" ? "layer" : "parameter"),
        "all values counted",
        head.made ? `report of ${head.made}` : "",
        cost !== null ? `recording took ${percentText(cost)} of the training time` : "",
      ];
      parts.push(make("span", { class: "cd-facts", text: facts.filter(Boolean).join(" · ") }));
      if (head.problems.length) parts.push(make("span", { class: "cd-bad", role: "status", text: `INCOMPLETE: ${head.problems[0]}`, title: head.problems.join("\n") }));
      if (head.recorded.train < head.batches.train) parts[parts.length - (head.problems.length ? 2 : 1)].append(` · ${countText(head.recorded.train)} of the batches recorded`);
    } else parts.push(make("h1", { text: this.listed ? "runs" : "" }));
    const dark = make("button", { type: "button", "data-key": "theme", text: this.dark ? "light" : "dark", "aria-label": `${this.dark ? "light" : "dark"} colours`, on: { click: () => this.nextTheme() } });
    const help = make("button", { type: "button", "data-key": "help", text: "?", "aria-label": "how to read this", on: { click: () => this.help.showModal() } });
    parts.push(make("nav", { "aria-label": "page" }, [dark, help]));
    if (this.top.contains(document.activeElement)) {
      const key = this.focusKey();
      this.top.replaceChildren(...parts);
      this.refocus(key);
    } else this.top.replaceChildren(...parts);
  }

  nextTheme() {
    this.set({ theme: this.dark ? "light" : "dark" });
  }

  showControls() {
    const { model, state } = this;
    this.controls.hidden = !model;
    if (!model) return;
    const focused = this.controls.contains(document.activeElement) ? this.focusKey() : "";
    const kinds = /** @type {[string, string][]} */ (model.kinds.map((kind) => [kind, kind.replace("_", " ")]));
    const phases = /** @type {[string, string][]} */ (model.head.batches.valid && state.kind === "activation" ? [["train", "training"], ["valid", "validation"], ["both", "both"]] : [["train", "training"]]);
    /** @param {string} name @returns {(value: string) => void} */
    const setter = (name) => (value) => this.set(/** @type {any} */ ({ [name]: value }));
    const find = make("input", { type: "search", placeholder: "find a layer", "aria-label": "find a layer", "data-key": "find", value: state.find, on: { input: () => this.set({ find: find.value }) } });
    const parts = [
      choice("kind", kinds, state.kind, setter("kind")),
      choice("phase", phases, state.phase, (value) => this.showPhase(/** @type {State["phase"]} */ (value))),
      // of other kinds than activations the layers differ by orders of magnitude, so that each has its own
      choice("window", [...(state.kind === "activation" ? [/** @type {[string, string]} */ (["shared", "shared"])] : []), ["own", "own"], ["symlog", "symmetric log"]], state.window === "shared" && state.kind !== "activation" ? "own" : state.window, setter("window")),
      choice("colour", [["share", "share"], ["count", "count"]], state.color, setter("color")),
      choice("map", COLOR_MAPS.map((name) => [name, name === "cividis" ? "cividis (CVD-safe)" : name]), state.map, setter("map")),
      state.layer ? null : choice("order", [["call", "call order"], ["trouble", "troubled first"], ["zeros", "most zeros first"]], state.order, setter("order")),
      state.layer ? null : toggle("dim healthy", state.dim === "healthy", (on) => this.set({ dim: on ? "healthy" : "" })),
      toggle("mean ± std", state.lines === "mean", (on) => this.set({ lines: on ? "mean" : "" })),
      ...(state.layer ? [] : [...STRIPS.filter(([name]) => name === "dead" || model.kinds.includes("update")).map(([name, text]) => toggle(text, stripsOf(state).includes(name), (on) => this.setStrip(name, on))), find, ...saveButtons(this)]),
      this.legend.element,
    ];
    this.controls.replaceChildren(...parts.filter((part) => part instanceof Node));
    let number = 0;
    for (const element of this.controls.querySelectorAll("select, input")) if (!(/** @type {HTMLElement} */ (element).dataset.key)) /** @type {HTMLElement} */ (element).dataset.key = `control ${number++}`;
    if (focused) this.refocus(focused);
  }

  /**
   * @param {"dead" | "update"} name
   * @param {boolean} on
   */
  setStrip(name, on) {
    this.set({ strips: STRIPS.map(([each]) => each).filter((each) => (each === name ? on : stripsOf(this.state).includes(each))).join() });
  }

  /**
   * @template {import("./panel.js").Panel} T
   * @param {T} panel
   * @returns {T}
   */
  panel(panel) {
    this.panels.push(panel);
    return panel;
  }

  // Drawing.

  beforeFrame() {
    this.cells = { least: Infinity, most: 0 };
    this.windows.clear();
    this.model?.store.forgetWanted();
    this.other?.store.forgetWanted();
    const marks = this.model?.marks;
    if (marks !== this.shownMarks) {
      const before = this.shownNames;
      this.noteMarks();
      if (before !== this.shownNames) queueMicrotask(() => this.render());
      else this.showTop();
    }
    if (this.model?.begun) this.model.findings.begin();
    if (this.other?.begun || this.model?.begun) this.other?.findings.begin();
    for (const each of this.frames) each();
    this.brush.measure();
  }

  askNext() {
    this.model?.store.askNext();
    this.other?.store.askNext();
  }

  afterPrepare() {
    // what is missing is asked for before what is there is painted
    this.askNext();
    if (!this.stage.rim && this.panels.length && !this.model?.store.busy) {
      this.stage.rim = Number.MIN_VALUE;
      setTimeout(() => {
        this.stage.rim = RIM;
        this.stage.invalidate();
      }, 300);
    }
    const { least, most } = this.cells;
    if (most > 0) this.scale = colorScale(least, most);
    this.legend.draw(this.scale, this.colors, this.state.color, this.legendSize());
    if (this.model) this.brush.draw();
  }

  /** Values a batch, where the counts of one layer are told beside the shares. */
  legendSize() {
    const panels = new Set(this.panels.map((panel) => panel.stream.id));
    if (panels.size !== 1) return 0;
    const summary = this.panels[0].model.summary(this.panels[0].stream, this.panels[0].phase);
    return summary?.number ? summary.size / summary.number : 0;
  }

  /** @param {import("./heat.js").Prepared} prepared */
  sawCells({ least, most }) {
    this.cells.least = Math.min(this.cells.least, least);
    this.cells.most = Math.max(this.cells.most, most);
  }

  get colors() {
    return colorsOf(this.state.map, this.dark);
  }

  /** Whether everything has come that is in view, and what is known of the batches. */
  get settled() {
    return this.drawn && [this.model, this.other].every((model) => !model || (model.marked && model.findings.settled));
  }

  /** Whether all maps in view are drawn. */
  get drawn() {
    return !this.stage.frame && !this.model?.store.busy && !this.other?.store.busy && this.panels.every((panel) => panel.prepared.complete || panel.prepared.most === 0);
  }

  // What people do.

  /** @param {Stream} stream */
  openLayer(stream) {
    this.set({ layer: stream.name, kind: stream.kind }, true);
  }

  back() {
    this.set({ layer: "", tab: "", pins: "", epoch: "" }, true);
  }

  /**
   * @param {import("./panel.js").Panel} panel
   * @param {number} batch
   */
  clicked(panel, batch) {
    if (this.onClick) this.onClick(panel, batch);
    else this.openLayer(panel.stream);
  }

  /** What a click on a map does, if it does not open the layer. @type {((panel: import("./panel.js").Panel, batch: number) => void) | null} */
  onClick = null;

  /**
   * @param {import("./panel.js").Panel | null} panel
   * @param {number | null} batch
   */
  onCursor(panel, batch) {
    const main = this.state.phase === "valid" ? "valid" : "train";
    for (const chart of this.charts) chart.point(panel?.phase === main ? batch : null);
    this.hovered?.(panel, batch);
  }

  /** Told of the column under the cursor. @type {((panel: import("./panel.js").Panel | null, batch: number | null) => void) | null} */
  hovered = null;

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || this.help.open) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const writing = target instanceof HTMLInputElement && target.type === "search";
    if (writing && event.key !== "Escape" && event.key !== "Enter") return;
    if (target instanceof HTMLSelectElement) return;
    if (this.act(event.key, target, writing)) event.preventDefault();
  }

  /**
   * @param {string} key
   * @param {HTMLElement} target
   * @param {boolean} writing
   * @returns {boolean} Whether the key did something.
   */
  act(key, target, writing) {
    if (key === "?") this.help.showModal();
    else if (key === "t") this.nextTheme();
    else if (!this.model) return false;
    else if (key === "/") /** @type {HTMLElement | null} */ (this.controls.querySelector("[type=search]"))?.focus();
    else if (key === "Escape") {
      if (writing) {
        if (this.state.find) this.set({ find: "" });
        else target.blur();
      } else if (this.explanation.contains(target)) this.closeWhy();
      else if (this.state.layer) this.back();
      else if (this.state.find) this.set({ find: "" });
      else return false;
    } else if (key === "Enter" && writing) {
      const first = orderedStreams(this)[0];
      if (first) this.openLayer(first);
    } else if (key === "m") this.set({ lines: this.state.lines ? "" : "mean" });
    else if (key === "w") this.set({ window: { shared: "own", own: "symlog" }[this.state.window] ?? "shared" });
    else if (key === "0") this.set({ x: "" });
    else if ("+=-_".includes(key)) this.zoom("+=".includes(key) ? 0.7 : 1 / 0.7);
    else if ((key === "i" || key === "o") && this.panels.length) this.pointer.zoomValues(this.panels[0], key === "i" ? 0.7 : 1 / 0.7, 0.5);
    else if (key === "[" || key === "]") this.shift(key === "[" ? -0.25 : 0.25);
    else if (key.startsWith("Arrow")) return this.step(key, target);
    else return false;
    return true;
  }

  /** @param {number} factor */
  zoom(factor) {
    const { from, to } = this.viewOf(this.need(), this.state.phase === "valid" ? "valid" : "train");
    const middle = (from + to) / 2;
    this.showBatches(middle - ((to - from) * factor) / 2, middle + ((to - from) * factor) / 2);
  }

  /** @param {number} share */
  shift(share) {
    const { from, to } = this.viewOf(this.need(), this.state.phase === "valid" ? "valid" : "train");
    this.showBatches(from + share * (to - from), to + share * (to - from));
  }

  /**
   * Go from panel to panel, or on the page of a layer to the next.
   * @param {string} key
   * @param {HTMLElement} target
   */
  step(key, target) {
    const names = this.panels.map((panel) => panel.name);
    const forward_ = key === "ArrowRight" || key === "ArrowDown";
    if (this.state.layer) {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return false;
      this.neighbour(forward_ ? 1 : -1);
      return true;
    }
    if (!names.length) return false;
    const here = names.findIndex((name) => name === target);
    if (here < 0) {
      if (target !== document.body && target !== this.scroller && target !== this.root) return false;
      names[0].focus();
      return true;
    }
    let next = here + (forward_ ? 1 : -1);
    if (key === "ArrowUp" || key === "ArrowDown") {
      // the nearest in the next row
      const x = names[here].getBoundingClientRect().left;
      const y = names[here].getBoundingClientRect().top;
      const rows = names
        .map((name, i) => ({ i, rect: name.getBoundingClientRect() }))
        .filter(({ rect }) => (forward_ ? rect.top > y + 8 : rect.top < y - 8))
        .sort((a, b) => Math.abs(a.rect.top - y) - Math.abs(b.rect.top - y) || Math.abs(a.rect.left - x) - Math.abs(b.rect.left - x));
      next = rows[0]?.i ?? here;
    }
    names[Math.max(0, Math.min(names.length - 1, next))].focus();
    return true;
  }

  /**
   * Open the previous or the next layer.
   * @param {1 | -1} by
   */
  neighbour(by) {
    const { before, after } = neighboursOf(this.need(), this.state.layer, this.state.kind);
    const next = by > 0 ? after : before;
    if (next) this.set({ layer: next.name, pins: "" });
  }
}

/**
 * How far a run has come.
 * @param {RunModel} model
 */
function extentText({ head, marks }) {
  const { number } = marks.epochs.train;
  const batches = plural(head.batches.train, "batch", "batches") + (head.batches.valid ? ` and ${countText(head.batches.valid)} of validation` : "");
  return number.length ? `${batches} · ${plural(number[number.length - 1] + 1, "epoch")}` : batches;
}

/**
 * The colours of the page, as its style sheet has them.
 * @param {HTMLElement} root
 * @returns {import("./marks.js").Inks}
 */
function readInks(root) {
  const style = getComputedStyle(root);
  /** @param {string} name */
  const of = (name) => style.getPropertyValue(`--cd-${name}`).trim();
  return {
    ink: of("ink"), muted: of("muted"), rule: of("rule"), paper: of("paper"), zero: of("zero"), epoch: of("epoch"), notFinite: of("not-finite"), bad: of("bad"), problem: of("problem"), warning: of("warning"), note: of("note"),
    lines: [of("line-1"), of("line-2"), of("line-3"), of("line-4"), of("line-5"), of("line-6")],
  };
}
