// --- the confusion matrix as a table whose cells open their pictures -------------------------------------------------
import { make, shown } from "./reading.js";

export function confusionTable({ classes, counts }, open) {
  const corner = make("th", { scope: "col", textContent: "answered \\ predicted" });
  const head = make("tr", {}, corner, ...classes.map((name) => make("th", { scope: "col", className: "said", textContent: shown(name) })));
  const rows = classes.map((truth, i) => {
    const all = counts[i].reduce((a, b) => a + b, 0) || 1;
    return make("tr", {}, make("th", { scope: "row", textContent: shown(truth) }), ...classes.map((predicted, j) => cellOf(counts[i][j], counts[i][j] / all, i === j, truth, predicted, open)));
  });
  return make("table", {}, make("caption", { className: "unseen", textContent: "Confusion matrix" }), make("thead", {}, head), make("tbody", {}, ...rows));
}

function cellOf(number, share, isRight, truth, predicted, open) {
  const tint = make("span", { className: "tint" });
  tint.style.opacity = String(0.6 * share);
  if (!number) return make("td", { className: "cell" }, tint, make("span", { className: "nobody", textContent: "0" }));
  const button = make("button", { type: "button", textContent: String(number) });
  button.setAttribute("aria-label", `${number} answered ${shown(truth)}, predicted ${shown(predicted)}: show`);
  button.addEventListener("click", () => open(truth, predicted));
  return make("td", { className: isRight ? "cell right" : "cell" }, tint, button);
}
