// --- keys of the whole page ------------------------------------------------------------------------------------------
import { undo } from "./answers.js";
import { chooseClass, nameClass } from "./classes.js";
import { byId } from "./reading.js";
import { currentView, go } from "./views.js";

const VIEWS = { l: "label", g: "grid", m: "map", p: "progress", t: "try", f: "finish" };

const isTyping = (element) => element.closest("input, textarea, select, dialog") !== null;
// Space and Enter press the button that has the focus.
const isPressing = (element, key) => (key === " " || key === "Enter") && element.closest("button, a, label") !== null;

// Who speaks to the computer, or types by accident, can switch single keys off.
const switched = byId("single-keys");
switched.checked = localStorage.getItem("single-keys") !== "off";
switched.addEventListener("change", () => localStorage.setItem("single-keys", switched.checked ? "on" : "off"));
const isOff = (key) => !switched.checked && key.length === 1 && key !== "?";

document.addEventListener("keydown", (event) => {
  if (isOff(event.key) || event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target) || isPressing(event.target, event.key)) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, own = currentView().keys?.[key];
  if (own) own();
  else if (key >= "1" && key <= "9") chooseClass(Number(key) - 1);
  else if (key in VIEWS) go(VIEWS[key]);
  else if (key === "u") undo();
  else if (key === "n" && currentView().answer) nameClass();
  else if (key === "?") byId("help").showModal();
  else return;
  event.preventDefault();
});
byId("undo").addEventListener("click", undo);
byId("help-open").addEventListener("click", () => byId("help").showModal());
