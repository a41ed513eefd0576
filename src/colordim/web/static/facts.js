// @ts-check
/** What is known of a layer besides its values: arguments, parameters, what follows it. */
import { make, shortName } from "./dom.js";
import { countText, valueText } from "./format.js";

/**
 * @param {any} facts Answer of the route of that name.
 * @returns {HTMLElement}
 */
export function factList(facts) {
  const { module, parameters, follower } = facts;
  const rows = [];
  if (module?.parameters) {
    const frozen = module.parameters - module.trainable;
    rows.push(["parameters", `${countText(module.parameters)}${frozen ? `, ${frozen === module.parameters ? "all" : countText(frozen)} frozen` : ""}`]);
  }
  if (follower) rows.push(["followed by", `${shortName(follower.name, 60)} (${follower.module})`]);
  const lines = make("dl", { class: "cd-facts-list" }, rows.flatMap(([term, text]) => [make("dt", { text: term }), make("dd", {}, [make("bdi", { text })])]));
  if (!parameters.length) return lines;
  const head = ["parameter", "shape, type", "initial std", "lr, group"];
  const table = make("table", { class: "cd-numbers" }, [
    make("caption", { class: "cd-hidden", text: "Parameters of this layer when recording began" }),
    make("thead", {}, [make("tr", {}, head.map((text) => make("th", { scope: "col", text })))]),
    make("tbody", {}, parameters.map((/** @type {any} */ row) => {
      const grouped = typeof row.group === "number";
      const cells = [
        [`[${(row.shape ?? []).join(", ")}]`, `${row.dtype}${row.requires_grad ? "" : ", frozen"}`],
        [typeof row.std === "number" ? valueText(row.std) : "–", ""],
        grouped ? [typeof row.lr === "number" ? valueText(row.lr) : "–", `group ${row.group}`] : ["–", "no optimiser"],
      ];
      const own = String(row.path ?? "");
      const name = row.module && own.startsWith(`${row.module}.`) ? own.slice(row.module.length + 1) : own;
      return make("tr", {}, [
        make("th", { scope: "row" }, [make("bdi", { text: shortName(name, 40) })]),
        ...cells.map(([text, small]) => make("td", { text }, [small ? make("small", { text: small }) : null])),
      ]);
    })),
  ]);
  return make("div", {}, [lines, make("div", { class: "cd-list", tabindex: 0, role: "group", "aria-label": "parameters" }, [table])]);
}
