// --- the confusion matrix ------------------------------------------------------------------------------------------

function openCell(button) {
  const [i, j] = [Number(button.dataset.true), Number(button.dataset.predicted)], rows = [];
  for (let row = 0; row < n; row++) if (cells.true[row] === i && cells.predicted[row] === j) rows.push(row);
  rows.sort((a, b) => (tile[a] < 0) - (tile[b] < 0));
  const more = rows.length > MOST_LISTED ? `, the first ${MOST_LISTED} shown` : "";
  byId("cell-title").textContent = button.getAttribute("aria-label").replace(/: show$/, "") + more;
  byId("cell-pictures").replaceChildren(...rows.slice(0, MOST_LISTED).map((row) => figureOf(row, "")));
  byId("cell").showModal();
}

// --- start ---------------------------------------------------------------------------------------------------------

function fillControls() {
  maps.forEach((map, k) => byId("map-choice").append(make("option", { value: String(k), textContent: shown(map.name) })));
  columns.forEach((each, k) => byId("map-colour").append(make("option", { value: String(k), textContent: shown(each.name) })));
}

function listenToControls() {
  let waiting;
  byId("map-choice").addEventListener("change", (event) => setMap(maps[event.target.value]));
  byId("map-colour").addEventListener("change", (event) => setColumn(columns[event.target.value]));
  byId("map-search").addEventListener("input", (event) => { clearTimeout(waiting); waiting = setTimeout(search, 120, event.target.value); });
  byId("map-lasso").addEventListener("click", ({ currentTarget: button }) =>
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true")));
  byId("map-reset").addEventListener("click", () => { view = { scale: 1, x: 0, y: 0 }; setCursor(-1); draw(); });
  byId("chosen-found").addEventListener("click", () => { found.forEach((is, row) => { if (is) chosen[row] = 1; }); showChosen(); });
  byId("chosen-export").addEventListener("click", exportChosen);
  byId("chosen-clear").addEventListener("click", clearChosen);
}

function start() {
  for (const element of document.querySelectorAll("[data-row].picture")) showPicture(element, Number(element.dataset.row));
  for (const button of document.querySelectorAll("button[data-true]")) button.addEventListener("click", () => openCell(button));
  byId("cell-close")?.addEventListener("click", () => byId("cell").close());
  fillControls();
  listenToControls();
  setColumn(columns[0]);
  setMap(maps[0]);
  new ResizeObserver(resize).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.documentElement.dataset.ready = "true";
}

// What is static is painted first; the map follows.
requestAnimationFrame(() => setTimeout(start));
