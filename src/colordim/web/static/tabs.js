// @ts-check
/** Tabs: a list that arrows move through, and the part of the page that belongs to the chosen one. */
import { make, newId } from "./dom.js";

/**
 * @param {[string, string][]} tabs Key and text.
 * @param {string} chosen
 * @param {(key: string) => void} onChange
 * @param {string} label
 * @returns {{list: HTMLElement, body: HTMLElement}}
 */
export function tabList(tabs, chosen, onChange, label) {
  const bodyId = newId();
  const own = newId();
  const buttons = tabs.map(([key, text]) =>
    make("button", {
      type: "button", role: "tab", id: key === chosen ? own : null, "aria-selected": String(key === chosen), "aria-controls": key === chosen ? bodyId : null,
      tabindex: key === chosen ? 0 : -1, "data-key": `tab ${key}`, text, on: { click: () => onChange(key) },
    }),
  );
  const list = make("div", { class: "cd-tabs", role: "tablist", "aria-label": label, on: { keydown: (/** @type {KeyboardEvent} */ event) => {
    const here = tabs.findIndex(([key]) => key === chosen);
    const next = { ArrowRight: (here + 1) % tabs.length, ArrowLeft: (here + tabs.length - 1) % tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    buttons[next].focus(); // so that the page, built anew, gives it back
    onChange(tabs[next][0]);
  } } }, buttons);
  const body = make("div", { class: "cd-tab", role: "tabpanel", id: bodyId, "aria-labelledby": own, tabindex: 0 });
  return { list, body };
}
