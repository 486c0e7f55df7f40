// --- what the page says: the status, alerts, numbers in words -------------------------------------------------------
import { byId, make } from "./reading.js";

export const say = (text) => { byId("status").textContent = text; };
export const percent = (share) => `${(100 * share).toFixed(share > 0.995 && share < 1 ? 1 : 0)} %`;
export const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

// An alert stays until it is closed; another one of the same id takes its place.
export function warn(id, text, ...more) {
  const close = make("button", { type: "button", textContent: "Close" });
  const alert = make("div", { id: `alert-${id}`, className: "warning" }, make("p", { textContent: text }), ...more, close);
  close.addEventListener("click", () => alert.remove());
  unwarn(id);
  byId("alerts").append(alert);
  return alert;
}

export const unwarn = (id) => byId(`alert-${id}`)?.remove();
