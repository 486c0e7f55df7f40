// --- progress: scores, curve, confusion, suspected errors, counts ----------------------------------------------------
import { get } from "./api.js";
import { whenUndone } from "./answers.js";
import { confusionTable } from "./confusion.js";
import { curveOf } from "./curve.js";
import { barRow, strip } from "./lists.js";
import { openPictures } from "./pictures.js";
import { byId, make, shown } from "./reading.js";
import { seldom } from "./seldom.js";
import { store, whenState } from "./store.js";
import { isShown, register } from "./views.js";
import { count, percent } from "./words.js";

const MOST_ISSUES = 12;
let revision = null;

const reading = seldom(1500, async () => {
  const wanted = store.state.model_revision;
  try {
    const found = await get("progress");
    showHeadline(found);
    if (isShown("progress")) { show(found); showIssues((await get("issues")).items); }
    revision = wanted;
  } catch { /* the next answer of the state asks again */ }
});

function showHeadline({ honest }) {
  byId("honest-short").textContent = honest.score !== null ? `· test part: ${percent(honest.score)} right (${percent(honest.low)} to ${percent(honest.high)})` : "";
}

function show(found) {
  showScore("honest", found.honest);
  showScore("validated", found.cross_validated);
  byId("verdict").textContent = found.verdict.text;
  byId("paid").textContent = found.paid.text;
  byId("model").textContent = found.features ? `Now: ${shown(found.model)} over ${shown(found.features)}.` : "";
  if (found.curve.length > 1) byId("curve").replaceChildren(...curveOf(found.curve));
  if (found.confusion.classes.length) byId("confusion").replaceChildren(confusionTable(found.confusion, openCell));
  showCounts(found.counts);
}

function showScore(name, { score, low, high, text }) {
  byId(`${name}-score`).textContent = score !== null ? percent(score) : "–";
  byId(`${name}-text`).textContent = text;
  const bar = byId(`${name}-reach`);
  bar.hidden = score === null;
  if (bar.hidden) return;
  const reach = make("span"), mean = make("i");
  Object.assign(reach.style, { left: `${100 * low}%`, right: `${100 * (1 - high)}%` });
  mean.style.left = `${100 * score}%`;
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
  lacks: () => "No image is in this cell any more.",
});

byId("issues-open").addEventListener("click", () => openPictures({
  title: "Suspected label errors", load: () => get("issues"), lacks: () => "No label is suspected any more.",
}));
whenState((state) => { if (state.ready && state.model_revision !== revision && reading.isRested()) reading.now(); });
whenUndone(() => { revision = null; });
register("progress", { whenShown: () => { if (store.state?.ready) reading.now(); } });
