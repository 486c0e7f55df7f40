// --- the map: colours ----------------------------------------------------------------------------------------------
import { byId, make, shown, textOf } from "./reading.js";
import { scene } from "./scene.js";

const MOST_CLASSES = 30, MOST_ROUND = 10000, MARGIN = 12;
const COLOURS = ["#4e79a7", "#e8812b", "#4f9d4a", "#d9484b", "#a56fa0", "#3fa39b", "#c9a227", "#e06f9a", "#8f6a50", "#7d8597"];
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const SHADES = 32, UNKNOWN = "#8a8f98";
export const canvas = byId("map-canvas"), status = byId("map-status");
const pen = canvas.getContext("2d");

export const colourOf = (code) => code === 0 ? UNKNOWN : code <= COLOURS.length ? COLOURS[code - 1]
  : `hsl(${(code * 137.508) % 360} 55% 52%)`;

function viridis(share) {
  const at = Math.min(share, 0.9999) * (VIRIDIS.length - 1), low = Math.floor(at);
  return `rgb(${VIRIDIS[low].map((from, k) => Math.round(from + (at - low) * (VIRIDIS[low + 1][k] - from))).join(" ")})`;
}

// Every point gets the number of its colour, so that drawing changes the colour once for all points of one.
function paintClasses() {
  scene.paint = scene.column.codes;
  scene.shades = Array.from({ length: scene.column.names.length + 1 }, (_, code) => colourOf(code));
}

function paintNumbers() {
  const known = scene.column.values.filter(Number.isFinite);
  scene.column.low ??= known.reduce((a, b) => Math.min(a, b), Infinity);
  scene.column.high ??= known.reduce((a, b) => Math.max(a, b), -Infinity);
  const range = scene.column.high - scene.column.low || 1;
  scene.paint = Uint32Array.from(scene.column.values, (value) => !Number.isFinite(value) ? 0
    : 1 + Math.min(SHADES - 1, Math.floor((value - scene.column.low) / range * SHADES)));
  scene.shades = [UNKNOWN, ...Array.from({ length: SHADES }, (_, k) => viridis(k / (SHADES - 1)))];
}

export function setColumn(next) {
  scene.column = next;
  scene.hidden = new Set();
  if (scene.column.kind === "class") paintClasses();
  else paintNumbers();
  // In layers of mixed points, so that no class hides another; within a layer by colour.
  const rank = Float64Array.from(scene.paint, (code, row) => ((row * 2654435761 >>> 0) >>> 27) * 4294967296 + code);
  scene.order = Uint32Array.from(scene.paint.keys()).sort((a, b) => rank[a] - rank[b]);
  showLegend();
  draw();
}

export const isVisible = (row) => !scene.hidden.has(scene.paint[row]);
export const screenX = (row) => (scene.coordinates[2 * row] - 0.5) * scene.box.unit * scene.view.scale + scene.box.width / 2 + scene.view.x;
export const screenY = (row) => (0.5 - scene.coordinates[2 * row + 1]) * scene.box.unit * scene.view.scale + scene.box.height / 2 + scene.view.y;

// --- the map: drawing ----------------------------------------------------------------------------------------------

let isDue = false;
export function draw() {
  if (isDue || !scene.coordinates) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; paintAll(); });
}

function paintAll() {
  const ratio = window.devicePixelRatio || 1;
  const size = Math.max(2, Math.min(7, 260 / Math.sqrt(scene.n))) * Math.min(2, Math.sqrt(scene.view.scale));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, scene.box.width, scene.box.height);
  if (scene.found) putPoints((row) => !scene.found[row], 0.12, size);
  putPoints((row) => !scene.found || scene.found[row], 0.85, size);
  pen.globalAlpha = 1;
  pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  markChosen(size);
  if (scene.cursor >= 0) markCursor(size);
  if (scene.lasso) drawLasso();
  canvas.dataset.drawn = String(scene.n);
}

// Points of one colour are one path; squares are drawn faster than circles.
function putPoints(isWanted, alpha, size) {
  let last = -1;
  pen.globalAlpha = alpha;
  pen.beginPath();
  for (const row of scene.order) {
    if (!isVisible(row) || !isWanted(row)) continue;
    const x = screenX(row), y = screenY(row);
    if (x < -size || y < -size || x > scene.box.width + size || y > scene.box.height + size) continue;
    if (scene.paint[row] !== last) {
      pen.fill();
      pen.beginPath();
      last = scene.paint[row];
      pen.fillStyle = scene.shades[last];
    }
    if (scene.n > MOST_ROUND) pen.rect(x - size / 2, y - size / 2, size, size);
    else { pen.moveTo(x + size / 2, y); pen.arc(x, y, size / 2, 0, 2 * Math.PI); }
  }
  pen.fill();
}

function markChosen(size) {
  pen.lineWidth = 1;
  const half = size / 2 + 1;
  for (const row of scene.order) if (scene.chosen[row] && isVisible(row)) pen.strokeRect(screenX(row) - half, screenY(row) - half, size + 2, size + 2);
}

function markCursor(size) {
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(screenX(scene.cursor), screenY(scene.cursor), size + 4, 0, 2 * Math.PI);
  pen.stroke();
}

function drawLasso() {
  pen.setLineDash([4, 3]);
  pen.beginPath();
  scene.lasso.forEach(([x, y], k) => k ? pen.lineTo(x, y) : pen.moveTo(x, y));
  pen.stroke();
  pen.setLineDash([]);
}

export function resize() {
  if (!scene.span) return;
  const ratio = window.devicePixelRatio || 1;
  scene.box.width = canvas.clientWidth;
  scene.box.height = canvas.clientHeight;
  scene.box.unit = Math.min((scene.box.width - 2 * MARGIN) / scene.span.x, (scene.box.height - 2 * MARGIN) / scene.span.y);
  canvas.width = Math.round(scene.box.width * ratio);
  canvas.height = Math.round(scene.box.height * ratio);
  draw();
}

function showLegend() {
  byId("map-legend").replaceChildren(...scene.column.kind === "number" ? scaleLegend() : classLegend());
}

function scaleLegend() {
  const scale = make("span", { className: "scale" });
  scale.style.cssText = `height:.8rem;background:linear-gradient(to right, ${VIRIDIS.map((c) => `rgb(${c.join(" ")})`).join(",")})`;
  return [textOf(scene.column.low), scale, textOf(scene.column.high)];
}

function classLegend() {
  const counts = new Map();
  for (const code of scene.column.codes) counts.set(code, (counts.get(code) || 0) + 1);
  const codes = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const buttons = codes.slice(0, MOST_CLASSES).sort((a, b) => a - b).map((code) => classButton(code, counts.get(code)));
  return codes.length > MOST_CLASSES ? [...buttons, `and ${codes.length - MOST_CLASSES} more`] : buttons;
}

function classButton(code, count) {
  const dot = make("i");
  dot.style.background = colourOf(code);
  const button = make("button", { type: "button" }, dot, `${shown(code ? scene.column.names[code - 1] : "missing")} (${count})`);
  button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => {
    if (!scene.hidden.delete(code)) scene.hidden.add(code);
    button.setAttribute("aria-pressed", String(!scene.hidden.has(code)));
    draw();
  });
  return button;
}
