// --- the map: finding points ---------------------------------------------------------------------------------------
import { draw, isVisible, resize, screenX, screenY, status } from "./drawing.js";
import { byId, make, shown } from "./reading.js";
import { scene, valueOf } from "./scene.js";

const SIDE = 128, REACH = 14, tip = byId("map-tip");
const cellOf = (v) => Math.min(SIDE - 1, Math.max(0, Math.floor(v * SIDE)));

export function setMap(next) {
  scene.coordinates = next.coordinates;
  scene.span = { x: extent(0), y: extent(1) };
  scene.grid = Array.from({ length: SIDE * SIDE }, () => []);
  for (let row = 0; row < scene.n; row++) scene.grid[cellOf(scene.coordinates[2 * row + 1]) * SIDE + cellOf(scene.coordinates[2 * row])].push(row);
  resize();
}

function extent(axis) {
  let low = 1, high = 0;
  for (let k = axis; k < 2 * scene.n; k += 2) { low = Math.min(low, scene.coordinates[k]); high = Math.max(high, scene.coordinates[k]); }
  return Math.max(high - low, 1e-3);
}

export function nearest(x, y) {
  const unit = scene.box.unit * scene.view.scale;
  const u = (x - scene.box.width / 2 - scene.view.x) / unit + 0.5, v = 0.5 - (y - scene.box.height / 2 - scene.view.y) / unit, reach = REACH / unit;
  let best = -1, least = REACH ** 2;
  for (let j = cellOf(v - reach); j <= cellOf(v + reach); j++) for (let i = cellOf(u - reach); i <= cellOf(u + reach); i++) {
    for (const row of scene.grid[j * SIDE + i]) {
      const distance = (screenX(row) - x) ** 2 + (screenY(row) - y) ** 2;
      if (distance < least && isVisible(row)) [best, least] = [row, distance];
    }
  }
  return best;
}

// The next image in a direction: the nearest one, distance across the direction counting twice.
export function neighbour(row, dx, dy) {
  let best = -1, least = Infinity;
  const x = screenX(row), y = screenY(row);
  for (let other = 0; other < scene.n; other++) {
    const along = (screenX(other) - x) * dx + (screenY(other) - y) * dy;
    const across = Math.abs((screenX(other) - x) * dy) + Math.abs((screenY(other) - y) * dx);
    if (along <= 1e-6 || across > 2 * along || !isVisible(other)) continue;
    if (along + 2 * across < least) [best, least] = [other, along + 2 * across];
  }
  return best;
}

export function inside(x, y, polygon) {
  let is = false;
  for (let a = 0, b = polygon.length - 1; a < polygon.length; b = a++) {
    const [xa, ya] = polygon[a], [xb, yb] = polygon[b];
    if ((ya > y) !== (yb > y) && x < (xb - xa) * (y - ya) / (yb - ya) + xa) is = !is;
  }
  return is;
}

export function setCursor(row, isSpoken) {
  if (row === scene.cursor && !isSpoken) return;
  scene.cursor = row;
  tip.hidden = row < 0;
  if (row >= 0) {
    showTip(row);
    if (isSpoken) status.textContent = `${shown(scene.paths[row])}, ${shown(scene.column.name)} ${shown(valueOf(scene.column, row))}${scene.chosen[row] ? ", selected" : ""}`;
  }
  draw();
}

function showTip(row) {
  const facts = scene.columns.map((each) => make("p", { textContent: `${shown(each.name)}: ${shown(valueOf(each, row))}` }));
  tip.replaceChildren(scene.showPicture(make("span", { className: "picture" }), row), make("b", { textContent: shown(scene.paths[row]) }), ...facts);
  const x = screenX(row), y = screenY(row), isRight = x > scene.box.width / 2, isLow = y > scene.box.height / 2;
  tip.style.left = isRight ? "auto" : `${x + 14}px`;
  tip.style.right = isRight ? `${scene.box.width - x + 14}px` : "auto";
  tip.style.top = isLow ? "auto" : `${y + 14}px`;
  tip.style.bottom = isLow ? `calc(100% - ${y - 14}px)` : "auto";
}
