// --- finish: the real fit, beside the present predictor, written where the person says --------------------------------
import { get, post } from "./api.js";
import { curveOf } from "./curve.js";
import { byId, make, shown } from "./reading.js";
import { register } from "./views.js";

const OFTEN = 600;
const tell = (text) => { byId("finish-status").textContent = text; };
let watched = 0, asked = "", offered = "";

async function start(event) {
  event.preventDefault();
  const options = {
    folds: Number(byId("finish-folds").value) || 5,
    calibrate: byId("finish-calibrate").checked ? "auto" : null,
    learning_curve: byId("finish-curve").checked,
  };
  asked = byId("finish-path").value.trim();
  byId("finish-start").disabled = true;
  tell("Fitting …");
  try { await post("finish", { path: asked || null, options }); } catch (error) { tell(error.message); byId("finish-start").disabled = false; return; }
  watch();
}

// The newest watch counts: what one before was told may be older than the fit that has begun since.
async function watch() {
  const mine = ++watched;
  for (;;) {
    const found = await get("finish").catch(() => null);
    if (mine !== watched) return;
    if (found) show(found);
    if (found && found.state !== "running") return;
    await new Promise((done) => setTimeout(done, OFTEN));
  }
}

// A free place for the next one, unless another was typed.
function offer(proposed, isDone) {
  const field = byId("finish-path");
  if (!["", offered, isDone ? asked : ""].includes(field.value.trim())) return;
  field.value = offered = proposed;
}

function show({ state, progress, comparison, path, proposed, written, message }) {
  const isRunning = state === "running";
  offer(proposed, state === "done");
  byId("finish-start").disabled = isRunning;
  byId("finish-bar-part").hidden = !isRunning;
  if (isRunning) showProgress(progress);
  if (state === "failed") tell(shown(message));
  if (state === "done") tell(`Written: ${shown(path)}. ${shown(message)}`);
  byId("finish-found").hidden = state !== "done" || !comparison;
  if (comparison) showComparison(comparison);
  byId("finish-written").hidden = !written;
  if (written) showWritten(written);
}

function showProgress(progress) {
  const bar = byId("finish-bar");
  if (progress.total) bar.value = progress.done / progress.total;
  else bar.removeAttribute("value");
  tell("Fitting …");
}

function showComparison({ text, rows }) {
  byId("finish-text").textContent = shown(text);
  byId("finish-rows").replaceChildren(...(rows ?? []).map(([name, ...cells]) =>
    make("tr", {}, make("th", { scope: "row", textContent: shown(name) }), ...cells.map((cell) => make("td", { textContent: shown(cell) })))));
}

function showWritten({ commands, curve, verdict }) {
  byId("finish-commands").textContent = commands.map(shown).join("\n");
  byId("finish-learning").hidden = !verdict;
  byId("finish-verdict").textContent = verdict ?? "";
  byId("finish-points").replaceChildren(...(curve.length > 1 ? curveOf(curve) : []));
}

byId("finish-form").addEventListener("submit", start);
register("finish", { whenShown: watch });
