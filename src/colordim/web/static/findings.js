// @ts-check
/**
 * What is wrong with a run, as the diagnosis has found it: asked for, kept, and looked up by layer.
 *
 * @typedef {import("./source.js").Source} Source
 * @typedef {"problem" | "warning" | "note"} Severity
 * @typedef {{symptom: string, severity: Severity, title: string, layers: string[], first: number, last: number,
 *   numbers: {text: string}[], why: string, remedies: {key: string, text: string}[], page: string,
 *   consequences: Finding[]}} Finding
 * @typedef {{sentence: string, healthy: boolean, severity: Severity | null, batches: number, findings: Finding[],
 *   declined: {symptom: string, why: string}[], muted: string[]}} Diagnosis
 * @typedef {{finding: Finding, root: number, place: number}} Told A finding, the root cause that it is under, and which it is of all.
 */
import { askJson } from "./source.js";

/** Seconds after which is asked again if nothing could be heard. */
const ASK_AGAIN = 5;

/** @type {Severity[]} The worst first. */
const SEVERITIES = ["problem", "warning", "note"];

/** Signs of the severities: colour alone would not do. */
export const SIGNS = { problem: "▲", warning: "◆", note: "●", healthy: "✓" };

export class Findings {
  /**
   * @param {Source} source
   * @param {() => void} onChange Called when there is something new.
   */
  constructor(source, onChange) {
    this.source = source;
    this.onChange = onChange;
    /** @type {Diagnosis | null} */
    this.diagnosis = null;
    /** @type {{[symptom: string]: string[]}} What the manual says, in paragraphs. */
    this.explained = {};
    /** Why there is none. */
    this.error = "";
    /** Whether the run was asked for, and has answered. */
    this.begun = this.settled = false;
    this.closed = false;
    this.waiting = 0;
    this.text = "";
    /** @type {Map<string, Told[]>} By the names of layers, root causes first. */
    this.byLayer = new Map();
  }

  /** Ask, and again whenever there may be something new; a second call does nothing. */
  begin() {
    if (!this.begun) {
      this.begun = true;
      this.ask();
    }
  }

  close() {
    this.closed = true;
    clearTimeout(this.waiting);
  }

  async ask() {
    /** @type {{diagnosis: Diagnosis | null, explained?: {[symptom: string]: string[]}, error: string | null, again: number | null}} */
    let answer;
    try {
      answer = await askJson(this.source, "findings");
    } catch (error) {
      answer = { diagnosis: null, error: error instanceof Error ? error.message : String(error), again: ASK_AGAIN };
    }
    if (this.closed) return;
    const text = JSON.stringify([answer.diagnosis, answer.error]);
    this.settled = Boolean(answer.diagnosis || answer.error) || answer.again === null;
    if (text !== this.text && (answer.diagnosis || !this.diagnosis)) {
      this.text = text;
      this.explained = answer.explained ?? {};
      this.take(answer.diagnosis, answer.error ?? "");
      this.onChange();
    }
    if (answer.again !== null) this.waiting = window.setTimeout(() => (document.hidden ? this.later() : this.ask()), 1000 * answer.again);
  }

  /** Of a page that nobody sees nothing is asked. */
  later() {
    document.addEventListener("visibilitychange", () => this.closed || this.ask(), { once: true });
  }

  /**
   * @param {Diagnosis | null} diagnosis
   * @param {string} error
   */
  take(diagnosis, error) {
    this.diagnosis = diagnosis;
    this.error = error;
    this.byLayer.clear();
    let place = 0;
    diagnosis?.findings.forEach((root, number) => {
      for (const finding of withConsequences(root)) {
        const told = { finding, root: number, place: place++ };
        for (const layer of finding.layers) {
          const known = this.byLayer.get(layer);
          if (known) known.push(told);
          else this.byLayer.set(layer, [told]);
        }
      }
    });
  }

  /**
   * What was found of a stream: of its layer, of its parameters for the layer that owns them.
   * @param {import("./run.js").Stream} stream
   * @returns {Told[]} The worst first.
   */
  of(stream) {
    if (!this.byLayer.size) return [];
    const name = stream.facet ? stream.facet.of : stream.name.split("[")[0];
    const output = stream.kind === "activation" || stream.kind === "gradient";
    const found = new Set();
    for (const [layer, told] of this.byLayer) {
      const own = layer === name || layer === stream.name;
      const parameter = output && layer.startsWith(`${name}.`) && !layer.slice(name.length + 1).includes(".");
      if (own || parameter) for (const each of told) found.add(each);
    }
    return [...found].sort((a, b) => SEVERITIES.indexOf(a.finding.severity) - SEVERITIES.indexOf(b.finding.severity) || a.place - b.place);
  }

  /**
   * Where a stream stands among the troubled ones: the first cause of the worst finding first; Infinity for a healthy one.
   * @param {import("./run.js").Stream} stream
   */
  rank(stream) {
    const worst = this.of(stream).find(({ finding }) => finding.severity !== "note");
    if (!worst) return Infinity;
    const layers = worst.finding.layers.length + 1;
    const at = worst.finding.layers.findIndex((layer) => layer === stream.name || layer.startsWith(stream.name));
    return 1e3 * SEVERITIES.indexOf(worst.finding.severity) + worst.place + (at < 0 ? layers : at) / layers;
  }
}

/**
 * A finding and all that it explains.
 * @param {Finding} finding
 * @returns {Finding[]}
 */
export function withConsequences(finding) {
  return [finding, ...finding.consequences.flatMap(withConsequences)];
}

/**
 * Mark the batches of findings above a panel: a bracket, whose line tells how severe it is.
 * @param {CanvasRenderingContext2D} ctx
 * @param {import("./stage.js").Box} box
 * @param {import("./heat.js").View} view
 * @param {Told[]} told
 * @param {import("./marks.js").Inks} inks
 * @param {number} ratio
 */
export function drawFindings(ctx, box, view, told, inks, ratio) {
  const scale = box.w / (view.to - view.from);
  for (const { finding } of told.toReversed()) {
    const left = Math.max(box.x, box.x + (finding.first - view.from) * scale);
    const right = Math.min(box.x + box.w, Math.max(box.x + (finding.last + 1 - view.from) * scale, left + 3 * ratio));
    if (right <= box.x || left >= box.x + box.w) continue;
    const y = box.y - 5 * ratio;
    ctx.strokeStyle = inks[finding.severity];
    ctx.lineWidth = (finding.severity === "problem" ? 3 : 2) * ratio;
    if (finding.severity !== "problem") ctx.setLineDash((finding.severity === "warning" ? [6, 3] : [2, 3]).map((dash) => dash * ratio));
    ctx.beginPath();
    ctx.moveTo(left, y);
    ctx.lineTo(right, y);
    ctx.stroke();
    ctx.setLineDash([]);
    // where it begins and ends, if that is in view
    ctx.fillStyle = ctx.strokeStyle;
    if (finding.first >= view.from) ctx.fillRect(left, y - 2 * ratio, 2 * ratio, 4 * ratio);
    if (finding.last + 1 < view.to) ctx.fillRect(right - 2 * ratio, y - 2 * ratio, 2 * ratio, 4 * ratio);
  }
}
