// --- the map: search and selection ---------------------------------------------------------------------------------
import { draw, status } from "./drawing.js";
import { byId } from "./reading.js";
import { figureOf, scene, valueOf } from "./scene.js";

export const MOST_LISTED = 120;

export function search(text) {
  const wanted = text.trim().toLowerCase();
  scene.found = null;
  if (wanted) {
    const named = scene.columns.filter((each) => each.kind === "class").map((each) =>
      [each.codes, Uint8Array.from(["missing", ...each.names], (name) => String(name).toLowerCase().includes(wanted))]);
    scene.found = Uint8Array.from(scene.paths, (path, row) =>
      path.toLowerCase().includes(wanted) || named.some(([codes, is]) => is[codes[row]]));
  }
  const count = scene.found ? scene.found.reduce((a, b) => a + b, 0) : 0;
  byId("chosen-found").disabled = !count;
  status.textContent = scene.found ? `${count} of ${scene.n} images found` : "";
  draw();
}

export const chosenRows = () => { const rows = []; scene.chosen.forEach((is, row) => { if (is) rows.push(row); }); return rows; };

export function showChosen() {
  const rows = chosenRows();
  byId("chosen").replaceChildren(...rows.slice(0, MOST_LISTED).map((row) => figureOf(row, valueOf(scene.column, row))));
  status.textContent = rows.length ? `${rows.length} of ${scene.n} images selected${rows.length > MOST_LISTED ? `, the first ${MOST_LISTED} shown` : ""}` : "Nothing is selected";
  scene.whenChosen(rows);
  draw();
}
