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
