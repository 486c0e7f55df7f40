// --- the studio's page: its views, its head, and the start -----------------------------------------------------------
import "./label.js";
import "./map.js";
import "./progress.js";
import "./try.js";
import "./finish.js";
import "./keys.js";
import { byId, shown } from "./reading.js";
import { refresh, whenState } from "./store.js";
import { showView } from "./views.js";
import { count } from "./words.js";

function headline({ target, labelled, images, by, ready, extracting }) {
  if (!ready) return "Opening the bank …";
  if (extracting && !images) return "No image is ready yet";
  return `${labelled} of ${images} labelled${target ? ` (${shown(target)})` : ""}${by ? ` by ${shown(by)}` : ""}`;
}

function showHead(state) {
  const { title } = state;
  byId("title").textContent = shown(title ?? "featurebank studio");
  document.title = `${shown(title ?? "studio")}: featurebank studio`;
  byId("labelled").textContent = headline(state);
  byId("undo").disabled = false;
}

const timeText = (seconds) => seconds < 90 ? count(Math.max(1, Math.round(seconds)), "second") : count(Math.round(seconds / 60), "minute");

function showExtracting(extracting) {
  byId("extracting").hidden = !extracting;
  if (!extracting) return;
  const { done, total, rate, left } = extracting, bar = byId("extracting-bar");
  bar.max = total || 1;
  if (done) bar.value = done;
  else bar.removeAttribute("value");
  byId("extracting-text").textContent = !done ? `Loading the network${total ? ` for ${count(total, "image")}` : ""} …` : `Extracting: ${done} of ${total} images${rate ? `, ${rate.toFixed(rate < 10 ? 1 : 0)} a second` : ""}${left ? `, about ${timeText(left)} left` : ""}. What is there can be labelled already.`;
}

function showMessage(message) {
  byId("message").hidden = !message;
  byId("message").textContent = message ? shown(message) : "";
}

whenState((state) => {
  showHead(state);
  showExtracting(state.extracting);
  showMessage(state.message);
});
window.addEventListener("hashchange", showView);
showView();
refresh();
