// --- the map: what it shows and what is chosen in it ---------------------------------------------------------------
import { make, shown, textOf } from "./reading.js";

// Of every image a name, a place and a value of every column; the page that has the map says how a picture is shown.
export const scene = {
  n: 0, paths: [], columns: [], coordinates: null, span: null, grid: null,
  column: null, paint: null, shades: null, order: null, hidden: new Set(),
  found: null, chosen: new Uint8Array(0), cursor: -1, lasso: null,
  view: { scale: 1, x: 0, y: 0 }, box: { width: 1, height: 1, unit: 1 },
  showPicture: (element) => element, whenChosen: () => {},
};

export const valueOf = (column, row) => {
  if (column.kind === "number") return textOf(column.values[row]);
  return column.codes[row] ? column.names[column.codes[row] - 1] : "missing";
};

export function figureOf(row, text) {
  const picture = make("span", { className: "picture" });
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", shown(scene.paths[row]));
  return make("figure", {}, scene.showPicture(picture, row),
    make("figcaption", {}, make("b", { textContent: shown(scene.paths[row]) }), " ", shown(text)));
}
