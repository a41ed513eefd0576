// @ts-check
/**
 * The diagnosis on the page: a sentence under the title, and beside the panels what is behind it.
 *
 * @typedef {import("./app.js").App} App
 * @typedef {import("./findings.js").Finding} Finding
 * @typedef {import("./run.js").Stream} Stream
 */
import { make, newId, shortName } from "./dom.js";
import { SIGNS, withConsequences } from "./findings.js";
import { countText, plural } from "./format.js";

/** Layers that are named in a list at most. */
const MOST_NAMED = 12;
/** Kinds in which a layer of a symptom is looked for, where they were recorded. */
const KIND_OF = /** @type {{[symptom: string]: string}} */ ({ "exploding-gradients": "gradient", "vanishing-gradients": "gradient", "no-gradient": "gradient" });

/**
 * The sentence, and the way to what it speaks of.
 * @param {App} app
 * @returns {HTMLElement[]} One for each run on show.
 */
export function verdicts(app) {
  return [app.model, app.other].flatMap((model, i) => {
    if (!model) return [];
    const { diagnosis, error, settled } = model.findings;
    if (!diagnosis && settled && !error) return []; // a report of before
    const severity = diagnosis ? diagnosis.severity ?? "healthy" : "";
    const text = diagnosis?.sentence ?? (error ? `Not diagnosed: ${error}` : "Looking for what may be wrong …");
    const name = app.other ? make("b", {}, [make("bdi", { text: `${shortName(model.head.name || model.path, 40)}: ` })]) : null;
    const parts = [
      make("span", { class: diagnosis ? "cd-sentence" : "cd-sentence cd-muted" }, [diagnosis ? sign(severity) : null, " ", name, said(shortName(text, 600))]),
    ];
    if (diagnosis && i === 0) {
      const [worst] = diagnosis.findings;
      const others = diagnosis.findings.length - 1;
      const line = [];
      if (worst?.layers.length) line.push(make("button", { type: "button", "data-key": "show me", text: "show me", on: { click: () => showMe(app, worst) } }));
      if (worst || diagnosis.declined.length || diagnosis.muted.length) {
        const open = app.state.why !== "";
        const word = worst ? (others > 0 ? `why, and ${others} more` : "why") : "what was judged";
        line.push(make("button", { type: "button", "data-key": "why", "aria-expanded": open, text: word, on: { click: () => app.set({ why: open ? "" : "0" }) } }));
      }
      parts.push(make("span", { class: "cd-ways" }, line));
    }
    return [make("div", { class: "cd-verdict" }, parts)];
  });
}

/**
 * @param {string} severity
 * @param {boolean} [word] Whether it is said in a word as well.
 */
function sign(severity, word = false) {
  const name = severity === "healthy" ? "healthy" : severity;
  return make("span", { class: `cd-sign cd-is-${severity}` }, [
    make("span", { "aria-hidden": "true", text: SIGNS[/** @type {keyof typeof SIGNS} */ (severity)] ?? "" }),
    make("span", { class: word ? "" : "cd-hidden", text: word ? ` ${name}:` : `${name}: ` }),
  ]);
}

/**
 * A sentence that holds names of layers, without the characters with which a name could turn what is written around it.
 * @param {string} text
 */
function said(text) {
  return make("bdi", { text: text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd") });
}

/**
 * Go to the layers and the batches of a finding.
 * @param {App} app
 * @param {Finding} finding
 */
export function showMe(app, finding) {
  const stream = streamOf(app, finding);
  const length = app.need().head.batches.train;
  const span = finding.last + 1 - finding.first;
  const room = Math.max(0.15 * span, 8);
  const from = Math.max(finding.first - room, 0);
  const to = Math.min(finding.last + 1 + room, Math.max(length, 1));
  const x = to - from >= 0.9 * length ? "" : `${Number(from.toFixed(2))},${Number(to.toFixed(2))}`;
  app.set({ layer: "", tab: "", pins: "", phase: "train", find: "", order: "call", x, ...(stream ? { kind: stream.kind } : {}) }, true);
  if (!stream) return;
  const find = () => app.panels.find((panel) => panel.stream.id === stream.id);
  if (!find()) app.set({ find: stream.name }); // in a block that is folded
  const panel = find();
  panel?.element.scrollIntoView({ block: "center" });
  panel?.name.focus({ preventScroll: true });
}

/**
 * The stream in which a finding is to be seen.
 * @param {App} app
 * @param {Finding} finding
 * @returns {Stream | undefined}
 */
function streamOf(app, finding) {
  const model = app.need();
  const [layer] = finding.layers;
  if (layer === undefined) return undefined;
  for (const kind of new Set([KIND_OF[finding.symptom] ?? "activation", "activation", ...model.kinds])) {
    const streams = model.whole(kind);
    const found = streams.find((s) => s.name === layer) ?? streams.find((s) => s.name.split("[")[0] === layer);
    if (found) return found;
  }
  return model.whole("activation").find((s) => layer.startsWith(`${s.name}.`)); // a parameter that was not recorded itself
}

/**
 * What is behind the sentence: every finding, why, what to try, and what it explains.
 * @param {App} app
 * @param {HTMLElement} element Filled; hidden where nothing is to be explained.
 */
export function fillExplanation(app, element) {
  const diagnosis = app.model?.findings.diagnosis;
  element.hidden = app.state.why === "" || !diagnosis;
  if (element.hidden || !diagnosis) {
    element.replaceChildren();
    return;
  }
  const id = newId();
  element.setAttribute("aria-labelledby", id);
  const close = make("button", { type: "button", class: "cd-close", "data-key": "close why", text: "Close", on: { click: () => app.closeWhy() } });
  /** @type {HTMLElement[]} */
  const parts = [close, make("h2", { id, tabindex: -1, text: "Diagnosis" })];
  parts.push(make("p", { class: "cd-muted", text: `Of ${plural(diagnosis.batches, "training batch", "training batches")}.` }));
  const reasons = new Set();
  diagnosis.findings.forEach((finding, number) => {
    parts.push(explained(app, finding, number, reasons.has(finding.why)));
    reasons.add(finding.why);
  });
  if (!diagnosis.findings.length) parts.push(make("p", {}, [said(diagnosis.sentence)]));
  if (diagnosis.declined.length) {
    const rows = diagnosis.declined.map(({ symptom, why }) => make("li", {}, [make("b", { text: symptom }), ` ${why}`]));
    parts.push(make("details", {}, [make("summary", { text: `Not judged, for want of evidence: ${diagnosis.declined.length}` }), make("ul", {}, rows)]));
  }
  if (diagnosis.muted.length) parts.push(make("p", { class: "cd-muted", text: `Muted: ${diagnosis.muted.join(", ")}.` }));
  element.replaceChildren(...parts);
}

/**
 * @param {App} app
 * @param {Finding} finding
 * @param {number} number
 * @param {boolean} again Whether why was said of another one already.
 */
function explained(app, finding, number, again) {
  const when = finding.first === finding.last ? `batch ${countText(finding.first)}` : `batches ${countText(finding.first)} to ${countText(finding.last)}`;
  const consequences = withConsequences(finding).slice(1);
  const row = (/** @type {string} */ term, /** @type {(Node | string | null)[]} */ children) => [make("dt", { text: term }), make("dd", {}, children)];
  const body = make("dl", {}, [
    ...row("Where", finding.layers.length ? [layerList(app, finding.layers)] : ["the whole model"]),
    ...row("When", [when, " ", finding.layers.length ? make("button", { type: "button", "data-key": `show ${number}`, text: "show me", "aria-label": `show me ${shortName(finding.title, 80)}`, on: { click: () => showMe(app, finding) } }) : null]),
    ...row("Seen", [make("ul", {}, finding.numbers.map(({ text }) => make("li", {}, [said(text)])))]),
    ...(again ? [] : row("Why", [said(finding.why)])),
    ...(again || !finding.remedies.length ? [] : row("What to try", [make("ol", {}, finding.remedies.map(({ text }) => make("li", {}, [said(text)])))])),
    ...(consequences.length ? row("Leads to", [make("ul", {}, consequences.map((each) => make("li", {}, [said(each.title), ` (from batch ${countText(each.first)} on)`])))]) : []),
    ...row("More", again ? ["as above"] : more(app, finding)),
  ]);
  return make("details", { class: "cd-finding", "data-number": number, open: String(number) === app.state.why }, [
    make("summary", { "data-key": `finding ${number}` }, [sign(finding.severity, true), " ", said(finding.title)]),
    body,
  ]);
}

/**
 * What the manual says of a finding: a page of the server; in a report and a notebook, which have none, the text itself.
 * @param {App} app
 * @param {Finding} finding
 */
function more(app, finding) {
  const { source, findings } = app.need();
  if (source.kind === "server") {
    return [make("a", { href: `manual/${finding.page}`, target: "_blank", rel: "noopener", "data-key": `more ${finding.symptom}`, text: `what ${finding.symptom} means` })];
  }
  const paragraphs = findings.explained[finding.symptom] ?? [];
  const parts = paragraphs.map((text) => make("p", { text }));
  return [parts.length ? make("details", {}, [make("summary", { text: `what ${finding.symptom} means` }), ...parts]) : `colordim docs ${finding.symptom}`];
}

/**
 * @param {App} app
 * @param {string[]} layers
 */
function layerList(app, layers) {
  const model = app.need();
  const shown = layers.slice(0, MOST_NAMED).flatMap((layer, i) => {
    const stream = model.find(layer, app.state.kind) ?? model.streams.find((each) => each.name === layer);
    const name = make("bdi", { text: shortName(layer, 80) });
    const part = stream ? make("button", { type: "button", class: "cd-link", on: { click: () => app.openLayer(stream) } }, [name]) : name;
    return i ? [", ", part] : [part];
  });
  const more = layers.length - MOST_NAMED;
  return make("span", {}, [...shown, more > 0 ? ` and ${more} more` : ""]);
}

/**
 * The badge of a layer, beside its name; null if nothing is wrong with it.
 * @param {App} app
 * @param {import("./run.js").RunModel} model
 * @param {Stream} stream
 */
export function badgeOf(app, model, stream) {
  const told = model.findings.of(stream);
  if (!told.length) return null;
  const [{ finding, root }] = told;
  const names = [...new Set(told.map((each) => each.finding.symptom))].join(", ");
  const text = `${finding.severity}: ${names}`;
  const options = { class: `cd-badge cd-is-${finding.severity}`, title: `${shortName(finding.title, 300)}${told.length > 1 ? `, and ${told.length - 1} more` : ""}` };
  const parts = [make("span", { "aria-hidden": "true", text: SIGNS[finding.severity] }), make("span", { class: "cd-hidden", text })];
  if (model !== app.model) return make("span", options, parts);
  return make("button", { ...options, type: "button", on: { click: () => app.set({ why: String(root) }) } }, parts);
}
