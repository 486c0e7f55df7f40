// --- rows with bars, and strips of small pictures --------------------------------------------------------------------
import { pictureAddress } from "./api.js";
import { make, shown } from "./reading.js";

export function barRow(name, share, text) {
  const filled = make("span");
  filled.style.width = `${100 * share}%`;
  const head = make("th", { scope: "row", textContent: shown(name) });
  return make("tr", {}, head, make("td", {}, make("span", { className: "bar" }, filled)), make("td", { className: "number", textContent: text }));
}

export const strip = (items, textOf) => items.map((item) => make("li", {}, make("img", { src: pictureAddress(item.digest, 96), alt: "" }), make("span", { textContent: shown(textOf(item)) })));
