// --- the classes: their keys, counts, the suggested one, and a field for new names ----------------------------------
import { colourOf } from "./drawing.js";
import { byId, make, shown } from "./reading.js";
import { store, whenState } from "./store.js";
import { currentView } from "./views.js";
import { percent } from "./words.js";

let suggestion = null, made = [];

// A class that was just named has its key before the server has counted it.
function classesNow() {
  const there = store.state?.classes ?? [], names = new Set(there.map(({ name }) => name));
  made = made.filter((name) => !names.has(name));
  return [...there, ...made.map((name) => ({ name, count: 0 }))];
}

export const classNames = () => classesNow().map(({ name }) => name);

export function showSuggestion(next) {
  suggestion = next;
  showClasses();
}

export function chooseClass(position) {
  const name = classNames()[position];
  if (name !== undefined) currentView().answer?.(name);
}

// Buttons are kept and only told what is new, so that no focus and no click is lost.
function showClasses() {
  const classes = classesNow(), list = byId("classes");
  while (list.children.length > classes.length) list.lastChild.remove();
  while (list.children.length < classes.length) list.append(make("li", {}, buttonOf(list.children.length)));
  classes.forEach((each, position) => tellButton(list.children[position].firstChild, each, position));
}

function buttonOf(position) {
  const button = make("button", { type: "button" }, make("kbd"), make("i"), make("b"), make("span", { className: "perhaps" }), make("span", { className: "many" }));
  button.addEventListener("click", () => chooseClass(position));
  return button;
}

function tellButton(button, { name, count }, position) {
  const [key, dot, text, perhaps, many] = button.children;
  const isSuggested = suggestion !== null && suggestion.label === name;
  key.textContent = position < 9 ? String(position + 1) : "";
  key.hidden = position >= 9;
  dot.style.background = colourOf(position + 1);
  text.textContent = shown(name);
  perhaps.textContent = isSuggested ? `perhaps, ${percent(suggestion.probability)}` : "";
  many.textContent = String(count);
  many.setAttribute("aria-label", `${count} labelled`);
  button.classList.toggle("suggested", isSuggested);
}

// Names that look alike are one class, however their accents and spaces were typed.
const tidied = (name) => name.normalize("NFC").replace(/\s+/g, " ").trim();

function listenToName() {
  const field = byId("name");
  byId("name-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = tidied(field.value), name = classNames().find((each) => tidied(each) === typed) ?? typed;
    if (!name) return;
    field.value = "";
    field.blur();
    addClass(name);
    currentView().answer?.(name);
  });
  field.addEventListener("keydown", (event) => { if (event.key === "Escape") { field.value = ""; field.blur(); } });
}

function addClass(name) {
  if (classNames().includes(name)) return;
  made.push(name);
  showClasses();
}

export function nameClass() {
  byId("name").focus();
  byId("name").select();
}

whenState(() => {
  showClasses();
  byId("names").replaceChildren(...classNames().map((name) => make("option", { value: name })));
});
listenToName();
