// --- the map: pointer and keys -------------------------------------------------------------------------------------
import { showChosen } from "./choosing.js";
import { canvas, draw, isVisible, resize, screenX, screenY } from "./drawing.js";
import { inside, nearest, neighbour, setCursor } from "./finding.js";
import { byId } from "./reading.js";
import { scene } from "./scene.js";

function zoom(factor, x = scene.box.width / 2, y = scene.box.height / 2) {
  const scale = Math.min(400, Math.max(0.5, scene.view.scale * factor)), real = scale / scene.view.scale;
  scene.view = { scale, x: (x - scene.box.width / 2) * (1 - real) + scene.view.x * real, y: (y - scene.box.height / 2) * (1 - real) + scene.view.y * real };
  setCursor(-1);
  draw();
}

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  const isLasso = event.shiftKey || byId("map-lasso").getAttribute("aria-pressed") === "true";
  drag = { x: event.offsetX, y: event.offsetY, from: { ...scene.view } };
  scene.lasso = isLasso ? [[event.offsetX, event.offsetY]] : null;
});
canvas.addEventListener("pointermove", (event) => {
  if (scene.lasso) { scene.lasso.push([event.offsetX, event.offsetY]); draw(); return; }
  if (!drag) { setCursor(nearest(event.offsetX, event.offsetY)); return; }
  scene.view = { ...drag.from, x: drag.from.x + event.offsetX - drag.x, y: drag.from.y + event.offsetY - drag.y };
  setCursor(-1);
  draw();
});
canvas.addEventListener("pointerup", () => {
  if (scene.lasso && scene.lasso.length > 2) {
    for (let row = 0; row < scene.n; row++) if (isVisible(row) && (!scene.found || scene.found[row]) && inside(screenX(row), screenY(row), scene.lasso)) scene.chosen[row] = 1;
    showChosen();
  }
  drag = scene.lasso = null;
  draw();
});
canvas.addEventListener("pointercancel", () => { drag = scene.lasso = null; draw(); });
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
    const start = scene.cursor >= 0 ? neighbour(scene.cursor, ...ARROWS[event.key]) : firstVisible();
    if (start >= 0) setCursor(start, true);
  } else if ((event.key === "Enter" || event.key === " ") && scene.cursor >= 0) {
    scene.chosen[scene.cursor] ^= 1;
    showChosen();
  } else if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "Escape") clearChosen();
  else return;
  event.preventDefault();
});

function firstVisible() {
  let best = -1, least = Infinity;
  for (let row = 0; row < scene.n; row++) {
    const distance = (screenX(row) - scene.box.width / 2) ** 2 + (screenY(row) - scene.box.height / 2) ** 2;
    if (distance < least && isVisible(row)) [best, least] = [row, distance];
  }
  return best;
}

export function clearChosen() {
  scene.chosen = new Uint8Array(scene.n);
  showChosen();
}

export function listenToMap() {
  byId("map-lasso").addEventListener("click", ({ currentTarget: button }) =>
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true")));
  byId("map-reset").addEventListener("click", () => { scene.view = { scale: 1, x: 0, y: 0 }; setCursor(-1); draw(); });
  byId("chosen-clear").addEventListener("click", clearChosen);
  new ResizeObserver(resize).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
