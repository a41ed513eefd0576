// @ts-check
/** The page in the browser: takes the token out of the address, and shows what the server has. */
import { mountApp } from "./app.js";
import { Server } from "./source_server.js";

const base = new URL("./", location.href).pathname;
const kept = `colordim-token ${base}`;
const given = new URLSearchParams(location.search).get("token");
if (given) {
  localStorage.setItem(kept, given);
  history.replaceState(null, "", location.pathname + location.hash);
}
const server = new Server(base, given ?? localStorage.getItem(kept) ?? "");
mountApp(/** @type {HTMLElement} */ (document.getElementById("colordim")), {
  runs: () => server.runs(),
  openRun: (path) => server.open(path),
  hash: true,
});
