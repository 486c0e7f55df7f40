// --- views: one at a time, named by the address after # -------------------------------------------------------------
import { byId } from "./reading.js";

const views = new Map();
let current = "label";

// A view may have `whenShown()`, `answer(label)` for the classes' keys, `keys` of its own, and `whenHidden()`.
export const register = (name, view) => views.set(name, view);
export const currentView = () => views.get(current);
export const isShown = (name) => current === name;
export const go = (name) => { location.hash = name; };

export function showView() {
  const wanted = location.hash.slice(1);
  views.get(current).whenHidden?.();
  current = views.has(wanted) ? wanted : "label";
  document.body.dataset.view = current;
  for (const name of views.keys()) byId(`view-${name}`).hidden = name !== current;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("answers").hidden = !views.get(current).answer;
  views.get(current).whenShown?.();
}
