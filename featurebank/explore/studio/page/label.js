// --- one image at a time --------------------------------------------------------------------------------------------
import { pictureAddress } from "./api.js";
import { save, whenUndone } from "./answers.js";
import { showSuggestion } from "./classes.js";
import { openSimilar } from "./pictures.js";
import { byId, make, shown } from "./reading.js";
import { store, whenState } from "./store.js";
import { dropLabelled, fill, prepared, putBack, renew, skipped, take } from "./upcoming.js";
import { isShown, register } from "./views.js";
import { percent, say } from "./words.js";

const REMEMBERED = 10;
const WHY = {
  coverage: "stands for a group of images, far from all that have a label",
  uncertain: "the model is unsure of it",
  any: "drawn at random, without a model",
  random: "drawn at random: it tests the model, so nothing is suggested",
};
const recent = [];
let current = null;

// No suggestion where the answer is to test the model.
const suggestionOf = (item) => item.why === "random" || item.label !== null ? null : item.suggestion;

function show(entry) {
  current = entry;
  entry.picture.alt = shown(entry.item.name);
  byId("stage").replaceChildren(entry.picture);
  byId("stage").dataset.digest = entry.item.digest;
  entry.ready.then((isReadable) => { if (!isReadable && current === entry) showEmpty("This picture cannot be shown. Skip it, or answer all the same."); });
  const suggestion = suggestionOf(entry.item);
  byId("stage-name").textContent = shown(entry.item.name);
  byId("stage-why").textContent = entry.item.label === null ? WHY[entry.item.why] ?? "opened again" : `labelled ${shown(entry.item.label)}`;
  showSuggestion(suggestion);
  byId("stage").setAttribute("aria-label", `${shown(entry.item.name)}${suggestion ? `, perhaps ${shown(suggestion.label)}, ${percent(suggestion.probability)}` : ""}`);
}

function showEmpty(text) {
  byId("stage").replaceChildren(make("p", { className: "empty", textContent: text }));
}

function showNext() {
  dropLabelled();
  const entry = take();
  current = null;
  if (entry) show(entry);
  else waitForMore();
  refill();
}

function waitForMore() {
  delete byId("stage").dataset.digest;
  byId("stage-name").textContent = byId("stage-why").textContent = "";
  showSuggestion(null);
  showEmpty(waitingFor(store.state));
}

function waitingFor(state) {
  if (!state?.ready && !state?.message) return "Opening the bank …";
  if (state.extracting && !state.images) return "The network is loading and the first images are being embedded, which takes some seconds. The first one appears here by itself.";
  if (!state.images) return "There is no image to label yet.";
  if (state.labelled < state.images) return "Looking for the next image …";
  return state.extracting ? "All images so far have a label. The next ones appear once they are embedded." : "All images have a label. Look at Progress, or Finish.";
}

async function refill() {
  if (!store.state?.ready) return;
  try { await fill(current ? [current.item.digest] : []); } catch { return; }  // the state's question says what is wrong
  if (current) return;
  const entry = take();
  if (entry) { show(entry); refill(); } else waitForMore();
}

function answer(label) {
  if (!current) return;
  const { item } = current;
  save([item], label).then(showRecent);
  recent.unshift(item);
  showNext();
  showRecent();
}

function skip() {
  if (!current) return;
  skipped(current.item);
  say(`Skipped ${shown(current.item.name)}.`);
  showNext();
}

function reopen(item) {
  if (current?.item === item) { show(current); return; }
  if (current && current.item.label === null) putBack(current);
  show(prepared(item));
}

function showRecent() {
  const items = [...new Set(recent)].filter((item) => item.label !== null).slice(0, REMEMBERED);
  recent.length = Math.min(recent.length, 4 * REMEMBERED);
  byId("recent-part").hidden = !items.length;
  byId("recent").replaceChildren(...items.map((item) => {
    const button = make("button", { type: "button", title: shown(item.name) }, make("img", { src: pictureAddress(item.digest, 96), alt: "" }), make("span", { textContent: shown(item.label) }));
    button.setAttribute("aria-label", `${shown(item.name)}, ${shown(item.label)}: open again`);
    button.addEventListener("click", () => reopen(item));
    return make("li", {}, button);
  }));
}

whenUndone((items) => {
  showRecent();
  if (items.length === 1 && isShown("label")) reopen(items[0]);
});
whenState((state, before) => {
  if (!current && state.ready) refill();
  else if (!state.ready) waitForMore();
  if (!before || before.model_revision === state.model_revision) return;
  if (!before.model_revision || before.extracting) renew();
  if (current) refill();
});
byId("skip").addEventListener("click", skip);
byId("similar").addEventListener("click", () => current && openSimilar(current.item));
register("label", {
  answer,
  keys: { " ": skip, s: () => current && openSimilar(current.item) },
  whenShown: () => { if (!current || current.item.label !== null) showNext(); else showSuggestion(suggestionOf(current.item)); },
  whenHidden: () => showSuggestion(null),
});
