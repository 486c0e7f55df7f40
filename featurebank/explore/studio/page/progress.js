// --- progress: scores, curve, confusion, suspected errors, counts ----------------------------------------------------
import { get } from "./api.js";
import { whenUndone } from "./answers.js";
import { confusionTable } from "./confusion.js";
import { curveOf } from "./curve.js";
import { barRow, strip } from "./lists.js";
import { openPictures } from "./pictures.js";
import { byId, make, shown } from "./reading.js";
import { store, whenState } from "./store.js";
import { isShown, register } from "./views.js";
import { count, percent } from "./words.js";

const MOST_ISSUES = 12, PATIENCE = 1500;
let revision = null, isReading = false, readAt = 0, took = 0;

async function read() {
  if (isReading) return;
  isReading = true;
  const started = performance.now(), wanted = store.state.model_revision;
  try {
    const found = await get("progress");
    showHeadline(found);
    if (isShown("progress")) { show(found); showIssues((await get("issues")).items); }
    revision = wanted;
  } catch { /* the next answer of the state asks again */ }
  took = performance.now() - started;
  readAt = performance.now();
  isReading = false;
}

function showHeadline({ honest }) {
  byId("honest-short").textContent = honest?.score != null ? `· test part: ${percent(honest.score)} right (${percent(honest.low)} to ${percent(honest.high)})` : "";
}

function show(found) {
  showScore("honest", found.honest, "It begins once some images of the random tenth have a label.");
  showScore("validated", found.cross_validated, "It begins with a few labels of two classes.");
  byId("verdict").textContent = found.verdict?.text ?? "Nothing can be said yet.";
  byId("paid").textContent = found.paid?.text ?? "";
  byId("model").textContent = found.features ? `Now: ${[found.model, found.features].filter(Boolean).map(shown).join(" over ")}.` : "";
  if (found.curve?.length > 1) byId("curve").replaceChildren(...curveOf(found.curve));
  if (found.confusion?.classes?.length) byId("confusion").replaceChildren(confusionTable(found.confusion, openCell));
  showCounts(found.counts ?? {});
}

function showScore(name, found, lacking) {
  const isKnown = found?.score != null;
  byId(`${name}-score`).textContent = isKnown ? percent(found.score) : "–";
  byId(`${name}-text`).textContent = found?.text || lacking;
  const bar = byId(`${name}-reach`);
  bar.hidden = !isKnown || found.low == null;
  if (bar.hidden) return;
  const reach = make("span"), mean = make("i");
  Object.assign(reach.style, { left: `${100 * found.low}%`, right: `${100 * (1 - found.high)}%` });
  mean.style.left = `${100 * found.score}%`;
  bar.replaceChildren(reach, mean);
}

function showCounts(counts) {
  const most = Math.max(1, ...Object.values(counts));
  byId("counts").tBodies[0].replaceChildren(...Object.entries(counts).map(([name, number]) => barRow(name, number / most, String(number))));
}

function showIssues(items) {
  byId("issues-text").textContent = items.length ? `${count(items.length, "label")} that the model contradicts, the most suspicious first.` : "None so far.";
  byId("issues").replaceChildren(...strip(items.slice(0, MOST_ISSUES), ({ label, suggestion }) => `${label} → ${suggestion?.label ?? "?"}`));
  byId("issues-open").hidden = !items.length;
}

const openCell = (truth, predicted) => openPictures({
  title: `Answered ${shown(truth)}, predicted ${shown(predicted)}`,
  load: () => get("confusion", { truth, predicted }),
  lacks: "No image is in this cell any more.",
});

byId("issues-open").addEventListener("click", () => openPictures({
  title: "Suspected label errors", load: () => get("issues"), lacks: "No label is suspected any more.",
}));
whenState((state) => {
  const isDue = performance.now() - readAt > Math.max(PATIENCE, 10 * took);
  if (state.ready && state.model_revision !== revision && isDue) read();
});
whenUndone(() => { revision = null; });
register("progress", { whenShown: () => { if (store.state?.ready) read(); } });
