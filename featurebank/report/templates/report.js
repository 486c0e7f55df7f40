(() => {
"use strict";
const byId = (id) => document.getElementById(id);
const points = JSON.parse(byId("points").textContent);
const n = points.paths.length;

// --- reading what the page carries ---------------------------------------------------------------------------------

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const numbers = (text, Kind) => new Kind(bytesOf(text).buffer);
// Control characters and halves of surrogate pairs are shown as what they are; text is only ever set as text.
const shown = (text) => String(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
  (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
const source = numbers(points.source, Uint32Array);
const tile = numbers(points.tile, Int32Array);
const sizes = numbers(points.sizes, Uint8Array);
const columns = points.columns.map((column) => column.kind === "class"
  ? { ...column, codes: numbers(column.codes, Uint32Array) }
  : { ...column, values: numbers(column.values, Float64Array) });
const cells = Object.fromEntries(Object.entries(points.cells).map(([name, text]) => [name, numbers(text, Int32Array)]));

const textOf = (value) => Number.isNaN(value) ? "missing" : String(Number.isInteger(value) ? value : +value.toPrecision(6));
const valueOf = (column, row) => {
  if (column.kind === "number") return textOf(column.values[row]);
  return column.codes[row] ? column.names[column.codes[row] - 1] : "missing";
};
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// --- pictures ------------------------------------------------------------------------------------------------------

const sheetTexts = document.querySelectorAll("script.sheet");
const sheetAddresses = [];
const sheetAddress = (number) => {
  sheetAddresses[number] ??= URL.createObjectURL(new Blob([bytesOf(sheetTexts[number].textContent)], { type: "image/webp" }));
  return sheetAddresses[number];
};

function showPicture(element, row) {
  const number = tile[row];
  element.classList.toggle("none", number < 0);
  if (number < 0) { element.textContent = "no picture"; return element; }
  const perSheet = points.across ** 2, place = number % perSheet;
  element.style.width = `${sizes[2 * number]}px`;
  element.style.height = `${sizes[2 * number + 1]}px`;
  element.style.backgroundImage = `url("${sheetAddress(Math.floor(number / perSheet))}")`;
  element.style.backgroundPosition = `-${place % points.across * points.side}px -${Math.floor(place / points.across) * points.side}px`;
  return element;
}

function figureOf(row, text) {
  const picture = make("span", { className: "picture" });
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", shown(points.paths[row]));
  return make("figure", {}, showPicture(picture, row),
    make("figcaption", {}, make("b", { textContent: shown(points.paths[row]) }), " ", shown(text)));
}

// --- the map: state ------------------------------------------------------------------------------------------------

const MOST_LISTED = 120, MOST_CLASSES = 30, MOST_ROUND = 10000, REACH = 14, MARGIN = 12;
const COLOURS = ["#4e79a7", "#e8812b", "#4f9d4a", "#d9484b", "#a56fa0", "#3fa39b", "#c9a227", "#e06f9a", "#8f6a50", "#7d8597"];
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const SHADES = 32;
const canvas = byId("map-canvas"), pen = canvas.getContext("2d"), tip = byId("map-tip"), status = byId("map-status");
const maps = points.maps.map((map) => ({ name: map.name, places: Float32Array.from(numbers(map.places, Uint16Array), (v) => v / 65535) }));
let places, span, column, paint, shades, order, hidden = new Set();
let found = null, chosen = new Uint8Array(n), cursor = -1, lasso = null;
let view = { scale: 1, x: 0, y: 0 }, box = { width: 1, height: 1, unit: 1 };
let grid;

const colourOf = (code) => code === 0 ? "#8a8f98" : code <= COLOURS.length ? COLOURS[code - 1]
  : `hsl(${(code * 137.508) % 360} 55% 52%)`;

function viridis(share) {
  const at = Math.min(share, 0.9999) * (VIRIDIS.length - 1), low = Math.floor(at);
  return `rgb(${VIRIDIS[low].map((from, k) => Math.round(from + (at - low) * (VIRIDIS[low + 1][k] - from))).join(" ")})`;
}

// Every point gets the number of its colour, so that drawing changes the colour once for all points of one.
function setColumn(next) {
  column = next;
  hidden = new Set();
  if (column.kind === "class") {
    paint = column.codes;
    shades = Array.from({ length: column.names.length + 1 }, (_, code) => colourOf(code));
  } else {
    const known = column.values.filter(Number.isFinite);
    column.low ??= known.reduce((a, b) => Math.min(a, b), Infinity);
    column.high ??= known.reduce((a, b) => Math.max(a, b), -Infinity);
    const range = column.high - column.low || 1;
    paint = Uint32Array.from(column.values, (value) => !Number.isFinite(value) ? 0
      : 1 + Math.min(SHADES - 1, Math.floor((value - column.low) / range * SHADES)));
    shades = ["#8a8f98", ...Array.from({ length: SHADES }, (_, k) => viridis(k / (SHADES - 1)))];
  }
  // In layers of mixed points, so that no class hides another; within a layer by colour.
  const rank = Float64Array.from(paint, (code, row) => ((row * 2654435761 >>> 0) >>> 27) * 4294967296 + code);
  order = Uint32Array.from(paint.keys()).sort((a, b) => rank[a] - rank[b]);
  showLegend();
  draw();
}
const isVisible = (row) => !hidden.has(paint[row]);
const screenX = (row) => (places[2 * row] - 0.5) * box.unit * view.scale + box.width / 2 + view.x;
const screenY = (row) => (0.5 - places[2 * row + 1]) * box.unit * view.scale + box.height / 2 + view.y;

// --- the map: drawing ----------------------------------------------------------------------------------------------

let isDue = false;
function draw() {
  if (isDue || !places) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; paintAll(); });
}

function paintAll() {
  const ratio = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, box.width, box.height);
  const size = Math.max(2, Math.min(7, 260 / Math.sqrt(n))) * Math.min(2, Math.sqrt(view.scale)), half = size / 2;
  // Points of one colour are one path; squares are drawn faster than circles.
  const put = (isWanted, alpha) => {
    let last = -1;
    pen.globalAlpha = alpha;
    pen.beginPath();
    for (const row of order) {
      if (!isVisible(row) || !isWanted(row)) continue;
      const x = screenX(row), y = screenY(row);
      if (x < -size || y < -size || x > box.width + size || y > box.height + size) continue;
      if (paint[row] !== last) {
        pen.fill();
        pen.beginPath();
        last = paint[row];
        pen.fillStyle = shades[last];
      }
      if (n > MOST_ROUND) pen.rect(x - half, y - half, size, size);
      else { pen.moveTo(x + half, y); pen.arc(x, y, half, 0, 2 * Math.PI); }
    }
    pen.fill();
  };
  if (found) put((row) => !found[row], 0.12);
  put((row) => !found || found[row], 0.85);
  pen.globalAlpha = 1;
  pen.strokeStyle = style.getPropertyValue("--ink");
  pen.lineWidth = 1;
  for (const row of order) if (chosen[row] && isVisible(row)) pen.strokeRect(screenX(row) - half - 1, screenY(row) - half - 1, size + 2, size + 2);
  if (cursor >= 0) {
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(screenX(cursor), screenY(cursor), size + 4, 0, 2 * Math.PI);
    pen.stroke();
  }
  if (lasso) {
    pen.setLineDash([4, 3]);
    pen.beginPath();
    lasso.forEach(([x, y], k) => k ? pen.lineTo(x, y) : pen.moveTo(x, y));
    pen.stroke();
    pen.setLineDash([]);
  }
  canvas.dataset.drawn = String(n);
}

function resize() {
  const ratio = window.devicePixelRatio || 1;
  box.width = canvas.clientWidth;
  box.height = canvas.clientHeight;
  box.unit = Math.min((box.width - 2 * MARGIN) / span.x, (box.height - 2 * MARGIN) / span.y);
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  draw();
}

function showLegend() {
  const legend = byId("map-legend");
  legend.replaceChildren();
  if (column.kind === "number") {
    const scale = make("span", { className: "scale" });
    scale.style.cssText = `height:.8rem;background:linear-gradient(to right, ${VIRIDIS.map((c) => `rgb(${c.join(" ")})`).join(",")})`;
    legend.append(textOf(column.low), scale, textOf(column.high));
    return;
  }
  const counts = new Map();
  for (const code of column.codes) counts.set(code, (counts.get(code) || 0) + 1);
  const codes = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  for (const code of codes.slice(0, MOST_CLASSES).sort((a, b) => a - b)) {
    const dot = make("i");
    dot.style.background = colourOf(code);
    const button = make("button", { type: "button" }, dot, `${shown(code ? column.names[code - 1] : "missing")} (${counts.get(code)})`);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      if (!hidden.delete(code)) hidden.add(code);
      button.setAttribute("aria-pressed", String(!hidden.has(code)));
      draw();
    });
    legend.append(button);
  }
  if (codes.length > MOST_CLASSES) legend.append(`and ${codes.length - MOST_CLASSES} more`);
}

// --- the map: finding points ---------------------------------------------------------------------------------------

const SIDE = 128;
const cellOf = (v) => Math.min(SIDE - 1, Math.max(0, Math.floor(v * SIDE)));
function setMap(next) {
  places = next.places;
  span = { x: extent(0), y: extent(1) };
  grid = Array.from({ length: SIDE * SIDE }, () => []);
  for (let row = 0; row < n; row++) grid[cellOf(places[2 * row + 1]) * SIDE + cellOf(places[2 * row])].push(row);
  resize();
}

function extent(axis) {
  let low = 1, high = 0;
  for (let k = axis; k < 2 * n; k += 2) { low = Math.min(low, places[k]); high = Math.max(high, places[k]); }
  return Math.max(high - low, 1e-3);
}

function nearest(x, y) {
  const unit = box.unit * view.scale;
  const u = (x - box.width / 2 - view.x) / unit + 0.5, v = 0.5 - (y - box.height / 2 - view.y) / unit, reach = REACH / unit;
  let best = -1, least = REACH ** 2;
  for (let j = cellOf(v - reach); j <= cellOf(v + reach); j++) for (let i = cellOf(u - reach); i <= cellOf(u + reach); i++) {
    for (const row of grid[j * SIDE + i]) {
      const distance = (screenX(row) - x) ** 2 + (screenY(row) - y) ** 2;
      if (distance < least && isVisible(row)) [best, least] = [row, distance];
    }
  }
  return best;
}

// The next image in a direction: the nearest one, distance across the direction counting twice.
function neighbour(row, dx, dy) {
  let best = -1, least = Infinity;
  const x = screenX(row), y = screenY(row);
  for (let other = 0; other < n; other++) {
    const along = (screenX(other) - x) * dx + (screenY(other) - y) * dy;
    const across = Math.abs((screenX(other) - x) * dy) + Math.abs((screenY(other) - y) * dx);
    if (along <= 1e-6 || across > 2 * along || !isVisible(other)) continue;
    if (along + 2 * across < least) [best, least] = [other, along + 2 * across];
  }
  return best;
}

function inside(x, y, polygon) {
  let is = false;
  for (let a = 0, b = polygon.length - 1; a < polygon.length; b = a++) {
    const [xa, ya] = polygon[a], [xb, yb] = polygon[b];
    if ((ya > y) !== (yb > y) && x < (xb - xa) * (y - ya) / (yb - ya) + xa) is = !is;
  }
  return is;
}

function setCursor(row, isSpoken) {
  if (row === cursor && !isSpoken) return;
  cursor = row;
  tip.hidden = row < 0;
  if (row >= 0) {
    const facts = columns.map((each) => make("p", { textContent: `${shown(each.name)}: ${shown(valueOf(each, row))}` }));
    tip.replaceChildren(showPicture(make("span", { className: "picture" }), row), make("b", { textContent: shown(points.paths[row]) }), ...facts);
    const x = screenX(row), y = screenY(row), isRight = x > box.width / 2, isLow = y > box.height / 2;
    tip.style.left = isRight ? "auto" : `${x + 14}px`;
    tip.style.right = isRight ? `${box.width - x + 14}px` : "auto";
    tip.style.top = isLow ? "auto" : `${y + 14}px`;
    tip.style.bottom = isLow ? `calc(100% - ${y - 14}px)` : "auto";
    tip.dataset.row = String(row);
    if (isSpoken) status.textContent = `${shown(points.paths[row])}, ${shown(column.name)} ${shown(valueOf(column, row))}${chosen[row] ? ", selected" : ""}`;
  }
  draw();
}

// --- the map: search and selection ---------------------------------------------------------------------------------

function search(text) {
  const wanted = text.trim().toLowerCase();
  found = null;
  if (wanted) {
    const named = columns.filter((each) => each.kind === "class").map((each) =>
      [each.codes, Uint8Array.from(["missing", ...each.names], (name) => String(name).toLowerCase().includes(wanted))]);
    found = Uint8Array.from(points.paths, (path, row) =>
      path.toLowerCase().includes(wanted) || named.some(([codes, is]) => is[codes[row]]));
  }
  const count = found ? found.reduce((a, b) => a + b, 0) : 0;
  byId("chosen-found").disabled = !count;
  status.textContent = found ? `${count} of ${n} images found` : "";
  draw();
}

const chosenRows = () => { const rows = []; chosen.forEach((is, row) => { if (is) rows.push(row); }); return rows; };

function showChosen() {
  const rows = chosenRows();
  for (const id of ["chosen-export", "chosen-clear"]) byId(id).disabled = !rows.length;
  byId("chosen").replaceChildren(...rows.slice(0, MOST_LISTED).map((row) => figureOf(row, valueOf(column, row))));
  status.textContent = rows.length ? `${rows.length} of ${n} images selected${rows.length > MOST_LISTED ? `, the first ${MOST_LISTED} shown` : ""}` : "Nothing is selected";
  draw();
}

// A spreadsheet must not run a path.
function csvCell(text) {
  const safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// A byte of a file name that is no UTF-8 came as half of a surrogate pair, and goes out as that byte again.
const LONE = /((?<![\ud800-\udbff])[\udc80-\udcff])/;
const fileParts = (text) => text.split(LONE).map((part) => LONE.test(part) ? new Uint8Array([part.charCodeAt(0) & 0xff]) : part);

function exportChosen() {
  const lines = chosenRows().map((row) => `${csvCell(points.sources[source[row]])},${csvCell(points.paths[row])}`);
  const link = make("a", { download: "selected.csv", href: URL.createObjectURL(new Blob(fileParts(["source,path", ...lines, ""].join("\n")), { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// --- the map: pointer and keys -------------------------------------------------------------------------------------

function zoom(factor, x = box.width / 2, y = box.height / 2) {
  const scale = Math.min(400, Math.max(0.5, view.scale * factor)), real = scale / view.scale;
  view = { scale, x: (x - box.width / 2) * (1 - real) + view.x * real, y: (y - box.height / 2) * (1 - real) + view.y * real };
  setCursor(-1);
  draw();
}

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  const isLasso = event.shiftKey || byId("map-lasso").getAttribute("aria-pressed") === "true";
  drag = { x: event.offsetX, y: event.offsetY, from: { ...view } };
  lasso = isLasso ? [[event.offsetX, event.offsetY]] : null;
});
canvas.addEventListener("pointermove", (event) => {
  if (lasso) { lasso.push([event.offsetX, event.offsetY]); draw(); return; }
  if (!drag) { setCursor(nearest(event.offsetX, event.offsetY)); return; }
  view = { ...drag.from, x: drag.from.x + event.offsetX - drag.x, y: drag.from.y + event.offsetY - drag.y };
  setCursor(-1);
  draw();
});
canvas.addEventListener("pointerup", () => {
  if (lasso && lasso.length > 2) {
    for (let row = 0; row < n; row++) if (isVisible(row) && (!found || found[row]) && inside(screenX(row), screenY(row), lasso)) chosen[row] = 1;
    showChosen();
  }
  drag = lasso = null;
  draw();
});
canvas.addEventListener("pointercancel", () => { drag = lasso = null; draw(); });
canvas.addEventListener("pointerleave", () => { if (!drag) setCursor(-1); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("blur", () => setCursor(-1));

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in ARROWS) {
    const start = cursor >= 0 ? neighbour(cursor, ...ARROWS[event.key]) : firstVisible();
    if (start >= 0) setCursor(start, true);
  } else if ((event.key === "Enter" || event.key === " ") && cursor >= 0) {
    chosen[cursor] ^= 1;
    showChosen();
  } else if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "Escape") clearChosen();
  else return;
  event.preventDefault();
});

function firstVisible() {
  let best = -1, least = Infinity;
  for (let row = 0; row < n; row++) {
    const distance = (screenX(row) - box.width / 2) ** 2 + (screenY(row) - box.height / 2) ** 2;
    if (distance < least && isVisible(row)) [best, least] = [row, distance];
  }
  return best;
}

function clearChosen() {
  chosen = new Uint8Array(n);
  showChosen();
}

// --- the confusion matrix ------------------------------------------------------------------------------------------

function openCell(button) {
  const [i, j] = [Number(button.dataset.true), Number(button.dataset.predicted)], rows = [];
  for (let row = 0; row < n; row++) if (cells.true[row] === i && cells.predicted[row] === j) rows.push(row);
  rows.sort((a, b) => (tile[a] < 0) - (tile[b] < 0));
  byId("cell-title").textContent = button.getAttribute("aria-label").replace(/: show$/, "");
  byId("cell-pictures").replaceChildren(...rows.slice(0, MOST_LISTED).map((row) => figureOf(row, "")));
  byId("cell").showModal();
}

// --- start ---------------------------------------------------------------------------------------------------------

function start() {
  for (const element of document.querySelectorAll("[data-row].picture")) showPicture(element, Number(element.dataset.row));
  for (const button of document.querySelectorAll("button[data-true]")) button.addEventListener("click", () => openCell(button));
  byId("cell-close").addEventListener("click", () => byId("cell").close());
  maps.forEach((map, k) => byId("map-choice").append(make("option", { value: String(k), textContent: shown(map.name) })));
  columns.forEach((each, k) => byId("map-colour").append(make("option", { value: String(k), textContent: shown(each.name) })));
  byId("map-choice").addEventListener("change", (event) => setMap(maps[event.target.value]));
  byId("map-colour").addEventListener("change", (event) => setColumn(columns[event.target.value]));
  byId("map-lasso").addEventListener("click", (event) => {
    const is = event.currentTarget.getAttribute("aria-pressed") !== "true";
    event.currentTarget.setAttribute("aria-pressed", String(is));
  });
  byId("map-reset").addEventListener("click", () => { view = { scale: 1, x: 0, y: 0 }; setCursor(-1); draw(); });
  let waiting;
  byId("map-search").addEventListener("input", (event) => { clearTimeout(waiting); waiting = setTimeout(search, 120, event.target.value); });
  byId("chosen-found").addEventListener("click", () => { found.forEach((is, row) => { if (is) chosen[row] = 1; }); showChosen(); });
  byId("chosen-export").addEventListener("click", exportChosen);
  byId("chosen-clear").addEventListener("click", clearChosen);
  setColumn(columns[0]);
  setMap(maps[0]);
  new ResizeObserver(resize).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.documentElement.dataset.ready = "true";
}

// What is static is painted first; the map follows.
requestAnimationFrame(() => setTimeout(start));
})();
