// @ts-check
/** Making elements: text goes in as text, never as markup. */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {{[name: string]: any}} [properties] Attributes; `text`, and `on` with listeners by event.
 * @param {(Node | string | null | undefined | false)[]} [children]
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, properties = {}, children = []) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, /** @type {EventListener} */ (listener));
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

let numbered = 0;

/** An id that no other element has. */
export function newId() {
  return `cd-${++numbered}`;
}

/**
 * A name of any length in a title: its beginning and its end.
 * @param {string} name
 * @param {number} [most]
 */
export function shortName(name, most = 120) {
  return name.length <= most ? name : `${name.slice(0, most / 2)}…${name.slice(-most / 2)}`;
}

/**
 * A choice with a label.
 * @param {string} label
 * @param {[string, string][]} options Value and text.
 * @param {string} value
 * @param {(value: string) => void} onChange
 */
export function choice(label, options, value, onChange) {
  const select = make("select", { on: { change: () => onChange(select.value) } });
  for (const [each, text] of options) select.append(make("option", { value: each, text, selected: each === value }));
  if (!options.some(([each]) => each === value)) select.append(make("option", { value, text: value, selected: true }));
  return make("label", { class: "cd-choice" }, [make("span", { text: label }), select]);
}

/**
 * A switch with a label.
 * @param {string} label
 * @param {boolean} on
 * @param {(on: boolean) => void} onChange
 */
export function toggle(label, on, onChange) {
  const box = make("input", { type: "checkbox", checked: on, on: { change: () => onChange(box.checked) } });
  return make("label", { class: "cd-toggle" }, [box, make("span", { text: label })]);
}
