// --- the grid's view: suggestions, what looks like an image, a region of the map, a cell, suspected errors ----------
import { get, pictureAddress } from "./api.js";
import { save, whenUndone } from "./answers.js";
import { makeGrid } from "./grid.js";
import { byId, make, shown } from "./reading.js";
import { remember, store, whenState } from "./store.js";
import { go, isShown, register } from "./views.js";
import { count, say } from "./words.js";

const MOST = 48;
const suggestions = {
  title: "Suggestions",
  load: () => get("grid", { count: MOST, ...(byId("grid-wanted").value ? { label: byId("grid-wanted").value } : {}) }),
  lacks: ({ tests }) => {
    const wanted = byId("grid-wanted").value;
    if (wanted) return `No image is suggested as ${shown(wanted)} any more. Choose another class, or any.`;
    if (tests) return `All images here have a label. ${count(tests, "image")} of the test part ${tests === 1 ? "is" : "are"} left: Label (L) shows them one at a time.`;
    return "No image without a label is left.";
  },
};
// `load()` gives {items, …}; `lacks(…)` says from the rest that there are none.
let source = suggestions, asked = 0;
const grid = makeGrid(byId("grid"), tellSelection);

function tellSelection({ items }) {
  const selected = grid.selected().length;
  byId("grid-clear").disabled = byId("grid-similar").disabled = !selected;
  byId("grid-count").textContent = !items.length ? "" : selected ? `${selected} of ${items.length} selected: a class labels them all.` : `${count(items.length, "image")}. Select some, then choose their class.`;
}

async function load() {
  const mine = ++asked;
  const { items, since, error, ...rest } = await source.load().catch((error) => ({ items: [], error }));
  if (mine !== asked) return;
  grid.show(remember(items, since));
  if (!items.length) byId("grid-count").textContent = error?.message ?? source.lacks(rest);
}

export function openPictures(next) {
  source = next;
  byId("grid-title").textContent = source.title;
  byId("grid-picture").hidden = !source.digest;
  if (source.digest) byId("grid-picture").src = pictureAddress(source.digest, 96);
  byId("grid-wanted-part").hidden = source !== suggestions;
  byId("grid-back").hidden = source === suggestions;
  grid.show([]);
  if (isShown("grid")) showGrid();
  else go("grid");
}

export const openSimilar = (item) => openPictures({
  title: `Looks like ${shown(item.name)}`,
  digest: item.digest,
  load: () => get("similar", { digest: item.digest, count: MOST }),
  lacks: () => "No image without a label is left that could look like it.",
});

async function answer(label) {
  const items = grid.selected();
  if (!items.length) { say("Select images first, then choose their class."); return; }
  const saved = save(items, label);
  const gone = new Set(items);
  grid.show(grid.items.filter((item) => !gone.has(item)));
  await saved;
  if (source === suggestions || source.digest) load();
}

function showGrid() {
  byId("grid").focus({ preventScroll: true });
  load();
}

function openSelected() {
  const [first] = grid.selected();
  openSimilar(first ?? grid.items[grid.cursor]);
}

whenUndone(() => { if (isShown("grid")) load(); });
whenState((state, before) => {
  const names = state.classes.map(({ name }) => name), options = [...byId("grid-wanted").options].slice(1).map(({ value }) => value);
  if (names.join("\n") !== options.join("\n")) {
    const { value } = byId("grid-wanted");
    byId("grid-wanted").replaceChildren(byId("grid-wanted").options[0], ...names.map((name) => make("option", { value: name, textContent: shown(name) })));
    byId("grid-wanted").value = names.includes(value) ? value : "";
  }
  const lacksModel = !grid.selected().length && !grid.items.some(({ suggestion }) => suggestion);
  const isLate = !before?.ready || (lacksModel && state.model_revision !== before.model_revision);
  if (isShown("grid") && state.ready && isLate) load();
});
byId("grid-wanted").addEventListener("change", load);
byId("grid-back").addEventListener("click", () => openPictures(suggestions));
byId("grid-all").addEventListener("click", () => grid.select(grid.items));
byId("grid-clear").addEventListener("click", () => grid.select([]));
byId("grid-similar").addEventListener("click", openSelected);
register("grid", {
  answer,
  keys: { s: () => grid.items.length && openSelected(), g: () => openPictures(suggestions) },
  whenShown: () => { if (store.state?.ready) showGrid(); },
});
