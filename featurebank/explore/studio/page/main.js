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

function headline({ target, labelled, images, by, ready, message }) {
  if (!ready && !message) return "Opening the bank …";
  if (!images) return "No image is ready yet";
  return `${labelled} of ${images} labelled${target && target !== "label" ? ` (${shown(target)})` : ""}${by ? ` by ${shown(by)}` : ""}`;
}

function showHead(state) {
  const { title } = state;
  byId("title").textContent = shown(title ?? "featurebank studio");
  document.title = `${shown(title ?? "studio")}: featurebank studio`;
  byId("labelled").textContent = headline(state);
  byId("undo").disabled = false;
}

const timeText = (seconds) => seconds < 90 ? count(Math.max(1, Math.round(seconds)), "second") : count(Math.round(seconds / 60), "minute");

const rateText = (rate) => `${rate.toFixed(rate < 10 ? 1 : 0)} a second`;

function extractingText({ done, total, rate, left }) {
  if (!total) return "Listing the images …";
  if (!done) return `Loading the network for ${count(total, "image")} …`;
  return `Embedding: ${done} of ${total} images${rate ? `, ${rateText(rate)}` : ""}${left ? `, about ${timeText(left)} left` : ""}. What is there can be labelled already.`;
}

// What is under way before the model can learn: images are embedded, or the embeddings of a bank are read.
function showUnderWay({ extracting, reading, images }) {
  byId("extracting").hidden = !extracting && !reading;
  const { done = 0, total = 0 } = extracting ?? {}, bar = byId("extracting-bar");
  bar.max = total || 1;
  if (done) bar.value = done;
  else bar.removeAttribute("value");
  if (extracting) byId("extracting-text").textContent = extractingText(extracting);
  else if (reading) byId("extracting-text").textContent = `Reading the embeddings of ${count(images, "image")}. Until then they come at random.`;
}

function showMessage(message) {
  byId("message").hidden = !message;
  byId("message").textContent = message ? shown(message) : "";
}

whenState((state) => {
  showHead(state);
  showUnderWay(state);
  showMessage(state.message);
});
window.addEventListener("hashchange", showView);
showView();
refresh();
