// --- the map: state ------------------------------------------------------------------------------------------------

const MOST_LISTED = 120, MOST_CLASSES = 30, MOST_ROUND = 10000, REACH = 14, MARGIN = 12;
const COLOURS = ["#4e79a7", "#e8812b", "#4f9d4a", "#d9484b", "#a56fa0", "#3fa39b", "#c9a227", "#e06f9a", "#8f6a50", "#7d8597"];
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const SHADES = 32, UNKNOWN = "#8a8f98";
const canvas = byId("map-canvas"), pen = canvas.getContext("2d"), tip = byId("map-tip"), status = byId("map-status");
const maps = points.maps.map((map) => ({ name: map.name, coordinates: Float32Array.from(numbers(map.coordinates, Uint16Array), (v) => v / 65535) }));
let coordinates, span, column, paint, shades, order, hidden = new Set();
let found = null, chosen = new Uint8Array(n), cursor = -1, lasso = null;
let view = { scale: 1, x: 0, y: 0 }, box = { width: 1, height: 1, unit: 1 };
let grid;

const colourOf = (code) => code === 0 ? UNKNOWN : code <= COLOURS.length ? COLOURS[code - 1]
  : `hsl(${(code * 137.508) % 360} 55% 52%)`;

function viridis(share) {
  const at = Math.min(share, 0.9999) * (VIRIDIS.length - 1), low = Math.floor(at);
  return `rgb(${VIRIDIS[low].map((from, k) => Math.round(from + (at - low) * (VIRIDIS[low + 1][k] - from))).join(" ")})`;
}

// Every point gets the number of its colour, so that drawing changes the colour once for all points of one.
function paintClasses() {
  paint = column.codes;
  shades = Array.from({ length: column.names.length + 1 }, (_, code) => colourOf(code));
}

function paintNumbers() {
  const known = column.values.filter(Number.isFinite);
  column.low ??= known.reduce((a, b) => Math.min(a, b), Infinity);
  column.high ??= known.reduce((a, b) => Math.max(a, b), -Infinity);
  const range = column.high - column.low || 1;
  paint = Uint32Array.from(column.values, (value) => !Number.isFinite(value) ? 0
    : 1 + Math.min(SHADES - 1, Math.floor((value - column.low) / range * SHADES)));
  shades = [UNKNOWN, ...Array.from({ length: SHADES }, (_, k) => viridis(k / (SHADES - 1)))];
}

function setColumn(next) {
  column = next;
  hidden = new Set();
  if (column.kind === "class") paintClasses();
  else paintNumbers();
  // In layers of mixed points, so that no class hides another; within a layer by colour.
  const rank = Float64Array.from(paint, (code, row) => ((row * 2654435761 >>> 0) >>> 27) * 4294967296 + code);
  order = Uint32Array.from(paint.keys()).sort((a, b) => rank[a] - rank[b]);
  showLegend();
  draw();
}
const isVisible = (row) => !hidden.has(paint[row]);
const screenX = (row) => (coordinates[2 * row] - 0.5) * box.unit * view.scale + box.width / 2 + view.x;
const screenY = (row) => (0.5 - coordinates[2 * row + 1]) * box.unit * view.scale + box.height / 2 + view.y;

// --- the map: drawing ----------------------------------------------------------------------------------------------

let isDue = false;
function draw() {
  if (isDue || !coordinates) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; paintAll(); });
}

function paintAll() {
  const ratio = window.devicePixelRatio || 1;
  const size = Math.max(2, Math.min(7, 260 / Math.sqrt(n))) * Math.min(2, Math.sqrt(view.scale));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, box.width, box.height);
  if (found) putPoints((row) => !found[row], 0.12, size);
  putPoints((row) => !found || found[row], 0.85, size);
  pen.globalAlpha = 1;
  pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  markChosen(size);
  if (cursor >= 0) markCursor(size);
  if (lasso) drawLasso();
  canvas.dataset.drawn = String(n);
}

// Points of one colour are one path; squares are drawn faster than circles.
function putPoints(isWanted, alpha, size) {
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
    if (n > MOST_ROUND) pen.rect(x - size / 2, y - size / 2, size, size);
    else { pen.moveTo(x + size / 2, y); pen.arc(x, y, size / 2, 0, 2 * Math.PI); }
  }
  pen.fill();
}

function markChosen(size) {
  pen.lineWidth = 1;
  const half = size / 2 + 1;
  for (const row of order) if (chosen[row] && isVisible(row)) pen.strokeRect(screenX(row) - half, screenY(row) - half, size + 2, size + 2);
}

function markCursor(size) {
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(screenX(cursor), screenY(cursor), size + 4, 0, 2 * Math.PI);
  pen.stroke();
}

function drawLasso() {
  pen.setLineDash([4, 3]);
  pen.beginPath();
  lasso.forEach(([x, y], k) => k ? pen.lineTo(x, y) : pen.moveTo(x, y));
  pen.stroke();
  pen.setLineDash([]);
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
  byId("map-legend").replaceChildren(...column.kind === "number" ? scaleLegend() : classLegend());
}

function scaleLegend() {
  const scale = make("span", { className: "scale" });
  scale.style.cssText = `height:.8rem;background:linear-gradient(to right, ${VIRIDIS.map((c) => `rgb(${c.join(" ")})`).join(",")})`;
  return [textOf(column.low), scale, textOf(column.high)];
}

function classLegend() {
  const counts = new Map();
  for (const code of column.codes) counts.set(code, (counts.get(code) || 0) + 1);
  const codes = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const buttons = codes.slice(0, MOST_CLASSES).sort((a, b) => a - b).map((code) => classButton(code, counts.get(code)));
  return codes.length > MOST_CLASSES ? [...buttons, `and ${codes.length - MOST_CLASSES} more`] : buttons;
}

function classButton(code, count) {
  const dot = make("i");
  dot.style.background = colourOf(code);
  const button = make("button", { type: "button" }, dot, `${shown(code ? column.names[code - 1] : "missing")} (${count})`);
  button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => {
    if (!hidden.delete(code)) hidden.add(code);
    button.setAttribute("aria-pressed", String(!hidden.has(code)));
    draw();
  });
  return button;
}
