// --- the confusion matrix ------------------------------------------------------------------------------------------
import { MOST_LISTED, search, showChosen } from "./choosing.js";
import { setColumn } from "./drawing.js";
import { exportChosen } from "./exporting.js";
import { setMap } from "./finding.js";
import { byId, make, shown } from "./reading.js";
import { figureOf, scene } from "./scene.js";
import { cells, maps, tile } from "./sheets.js";
import { listenToMap } from "./steering.js";

function openCell(button) {
  const [i, j] = [Number(button.dataset.true), Number(button.dataset.predicted)], rows = [];
  for (let row = 0; row < scene.n; row++) if (cells.true[row] === i && cells.predicted[row] === j) rows.push(row);
  rows.sort((a, b) => (tile[a] < 0) - (tile[b] < 0));
  const more = rows.length > MOST_LISTED ? `, the first ${MOST_LISTED} shown` : "";
  byId("cell-title").textContent = button.getAttribute("aria-label").replace(/: show$/, "") + more;
  byId("cell-pictures").replaceChildren(...rows.slice(0, MOST_LISTED).map((row) => figureOf(row, "")));
  byId("cell").showModal();
}

// --- start ---------------------------------------------------------------------------------------------------------

function fillControls() {
  maps.forEach((map, k) => byId("map-choice").append(make("option", { value: String(k), textContent: shown(map.name) })));
  scene.columns.forEach((each, k) => byId("map-colour").append(make("option", { value: String(k), textContent: shown(each.name) })));
}

function listenToControls() {
  let waiting;
  byId("map-choice").addEventListener("change", (event) => setMap(maps[event.target.value]));
  byId("map-colour").addEventListener("change", (event) => setColumn(scene.columns[event.target.value]));
  byId("map-search").addEventListener("input", (event) => { clearTimeout(waiting); waiting = setTimeout(search, 120, event.target.value); });
  byId("chosen-found").addEventListener("click", () => { scene.found.forEach((is, row) => { if (is) scene.chosen[row] = 1; }); showChosen(); });
  byId("chosen-export").addEventListener("click", exportChosen);
  listenToMap();
  scene.whenChosen = (rows) => { for (const id of ["chosen-export", "chosen-clear"]) byId(id).disabled = !rows.length; };
}

function start() {
  for (const element of document.querySelectorAll("[data-row].picture")) scene.showPicture(element, Number(element.dataset.row));
  for (const button of document.querySelectorAll("button[data-true]")) button.addEventListener("click", () => openCell(button));
  byId("cell-close")?.addEventListener("click", () => byId("cell").close());
  fillControls();
  listenToControls();
  setColumn(scene.columns[0]);
  setMap(maps[0]);
  document.documentElement.dataset.ready = "true";
}

// What is static is painted first; the map follows.
requestAnimationFrame(() => setTimeout(start));
