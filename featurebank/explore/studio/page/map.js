// --- the map: the report's, with live labels and a lasso that labels -------------------------------------------------
import { get, pictureAddress } from "./api.js";
import { save, whenUndone } from "./answers.js";
import { chosenRows } from "./choosing.js";
import { classNames } from "./classes.js";
import { canvas, setColumn, status } from "./drawing.js";
import { setMap } from "./finding.js";
import { openPictures } from "./pictures.js";
import { byId } from "./reading.js";
import { scene } from "./scene.js";
import { seldom } from "./seldom.js";
import { clearChosen, listenToMap } from "./steering.js";
import { remember, store, whenState } from "./store.js";
import { isShown, register } from "./views.js";
import { count, say } from "./words.js";

let digests = [], since = 0, revision = null;

// As classes, with the numbers that the other views give them, so that a class has one colour.
function classColumn(name, values) {
  const names = [...new Set([...classNames(), ...values.filter((value) => value !== null)])];
  const codes = new Map(names.map((each, position) => [each, position + 1]));
  return { name, kind: "class", names, codes: Uint32Array.from(values, (value) => codes.get(value) ?? 0) };
}

const numberColumn = (name, values) => ({ name, kind: "number", values: Float64Array.from(values, (value) => value ?? NaN) });

// Both axes in the same units, the larger one from 0 to 1, as the report's maps are.
function placed(x, y) {
  const ends = [x, y].map((values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]));
  const span = Math.max(...ends.map(([low, high]) => high - low), 1e-9);
  const unit = (value, [low, high]) => (value - (low + high) / 2) / span + 0.5;
  const found = new Float32Array(2 * x.length);
  for (let row = 0; row < x.length; row++) { found[2 * row] = unit(x[row], ends[0]); found[2 * row + 1] = unit(y[row], ends[1]); }
  return found;
}

function take(found) {
  const isSame = digests.length === found.digests.length && digests.every((digest, row) => digest === found.digests[row]);
  ({ digests, since } = found);
  scene.n = digests.length;
  scene.paths = found.names;
  if (!isSame) scene.chosen = new Uint8Array(scene.n);
  const [predictions, doubt] = [found.predictions, found.doubt].map((values) => values.length ? values : new Array(scene.n).fill(null));
  scene.columns = [classColumn("label", found.labels), classColumn("prediction", predictions), numberColumn("doubt", doubt)];
  setColumn(scene.columns[Number(byId("map-colour").value)]);
  if (!isSame || !scene.coordinates) setMap({ coordinates: placed(found.x, found.y) });
}

const reading = seldom(3000, async () => {
  const wanted = revisionOf(store.state);
  try {
    const found = await get("map");
    if (found.digests.length) { take(found); revision = wanted; }
    if (!chosenRows().length) status.textContent = scene.n ? count(scene.n, "image") : "The map is being made …";
  } catch (error) { status.textContent = error.message; }
});

const revisionOf = (state) => `${state?.revision} ${state?.model_revision}`;

function itemAt(row) {
  const column = scene.columns[0];
  const label = column.codes[row] ? column.names[column.codes[row] - 1] : null;
  return remember([{ digest: digests[row], name: scene.paths[row], label }], since)[0];
}

async function answer(label) {
  const rows = chosenRows();
  const items = rows.map(itemAt).filter((item) => item.label === null);
  if (!items.length) { say(rows.length ? "All that is selected has a label already; open it in the grid to change labels." : "Draw around some points first, then choose their class."); return; }
  const saved = save(items, label);
  clearChosen();
  await saved;
  if (items.length < rows.length) status.textContent = `${count(rows.length - items.length, "image")} had a label and kept it.`;
  await reading.now();
}

function openChosen() {
  const items = chosenRows().map(itemAt);
  if (items.length) openPictures({ title: `${count(items.length, "image")} of the map`, load: async () => ({ items }), lacks: () => "No image of the region is left." });
}

scene.showPicture = (element, row) => {
  element.style.backgroundImage = `url("${pictureAddress(digests[row], 96)}")`;
  return element;
};
scene.whenChosen = (rows) => { byId("chosen-clear").disabled = byId("chosen-open").disabled = !rows.length; };
byId("map-colour").addEventListener("change", (event) => setColumn(scene.columns[event.target.value]));
byId("chosen-open").addEventListener("click", openChosen);
whenUndone(() => { if (isShown("map")) reading.now(); });
whenState((state) => { if (isShown("map") && state.ready && revisionOf(state) !== revision && reading.isRested()) reading.now(); });
listenToMap();
register("map", {
  answer,
  keys: { Enter: openChosen },
  whenShown: () => { canvas.focus({ preventScroll: true }); if (store.state?.ready) reading.now(); },
});
