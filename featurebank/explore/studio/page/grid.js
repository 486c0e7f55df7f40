// --- a grid of pictures of which any can be selected: by click, Shift and click, a dragged box, or keys --------------
import { pictureAddress } from "./api.js";
import { make, shown } from "./reading.js";
import { percent } from "./words.js";

const SLACK = 6;

const captionOf = ({ name, label, suggestion }) => {
  const said = suggestion ? `${label === null ? "" : "→ "}${shown(suggestion.label)} ${percent(suggestion.probability)}` : "";
  return make("span", { className: "caption" }, make("b", { textContent: label === null ? said : `${shown(label)} ${said}` }), make("span", { textContent: shown(name) }));
};

export function makeGrid(box, whenChanged) {
  const grid = { items: [], chosen: new Set(), cursor: 0, anchor: 0 };
  const tiles = () => [...box.querySelectorAll("[role=option]")];

  function tileOf(item, position) {
    const picture = make("img", { src: pictureAddress(item.digest, 224), alt: "", draggable: false, loading: "lazy" });
    const tile = make("div", { id: `${box.id}-${position}` }, picture, captionOf(item));
    tile.setAttribute("role", "option");
    return tile;
  }

  grid.show = (items) => {
    grid.items = items;
    grid.chosen = new Set(items.filter((item) => grid.chosen.has(item)));
    grid.cursor = Math.min(grid.cursor, Math.max(0, items.length - 1));
    grid.anchor = grid.cursor;
    box.replaceChildren(...items.map(tileOf));
    tell();
  };
  grid.selected = () => grid.items.filter((item) => grid.chosen.has(item));
  grid.select = (items) => { grid.chosen = new Set(items); tell(); };

  function tell() {
    tiles().forEach((tile, position) => {
      tile.setAttribute("aria-selected", String(grid.chosen.has(grid.items[position])));
      tile.classList.toggle("cursor", position === grid.cursor);
    });
    if (grid.items.length) box.setAttribute("aria-activedescendant", `${box.id}-${grid.cursor}`);
    else box.removeAttribute("aria-activedescendant");
    whenChanged(grid);
  }

  const between = (a, b) => grid.items.slice(Math.min(a, b), Math.max(a, b) + 1);

  function toggle(position) {
    const item = grid.items[position];
    if (!grid.chosen.delete(item)) grid.chosen.add(item);
    grid.cursor = grid.anchor = position;
    tell();
  }

  function extendTo(position) {
    for (const item of between(grid.anchor, position)) grid.chosen.add(item);
    grid.cursor = position;
    tell();
  }

  function move(step, isExtending) {
    const next = Math.min(grid.items.length - 1, Math.max(0, grid.cursor + step));
    if (isExtending) extendTo(next);
    else { grid.cursor = grid.anchor = next; tell(); }
    tiles()[next]?.scrollIntoView({ block: "nearest" });
  }

  function across() {
    const tops = tiles().map((tile) => tile.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  }

  box.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across(), ArrowDown: across(), Home: -grid.cursor, End: grid.items.length };
    if (event.key in steps) move(steps[event.key], event.shiftKey);
    else if (event.key === " " && grid.items.length) toggle(grid.cursor);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) grid.select(grid.items);
    else if (event.key === "Escape") grid.select([]);
    else return;
    event.preventDefault();
  });

  listenToPointer(box, {
    whenClicked(tile, event) {
      const position = tiles().indexOf(tile);
      if (event.shiftKey) extendTo(position);
      else toggle(position);
    },
    whenBoxed(isInside, isAdding) {
      const inside = grid.items.filter((_, position) => isInside(tiles()[position]));
      grid.select(isAdding ? [...grid.chosen, ...inside] : inside);
    },
  });
  return grid;
}

// A mouse that moves while it is pressed draws a box; a finger scrolls, and its tap is a click.
function listenToPointer(box, { whenClicked, whenBoxed }) {
  let from = null, frame = null;
  const reach = (event) => ({ left: Math.min(from.x, event.clientX), right: Math.max(from.x, event.clientX), top: Math.min(from.y, event.clientY), bottom: Math.max(from.y, event.clientY) });
  box.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    from = { x: event.clientX, y: event.clientY };
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    if (!from || (!frame && Math.hypot(event.clientX - from.x, event.clientY - from.y) < SLACK)) return;
    frame ??= box.appendChild(make("div", { className: "frame" }));
    const { left, right, top, bottom } = reach(event);
    Object.assign(frame.style, { left: `${left}px`, top: `${top}px`, width: `${right - left}px`, height: `${bottom - top}px` });
  });
  box.addEventListener("pointerup", (event) => {
    if (frame) {
      const drawn = reach(event);
      frame.remove();
      whenBoxed((tile) => meets(tile.getBoundingClientRect(), drawn), event.shiftKey || event.ctrlKey);
    } else {
      const tile = document.elementFromPoint(event.clientX, event.clientY)?.closest("[role=option]");
      if (tile && box.contains(tile)) whenClicked(tile, event);
    }
    from = frame = null;
  });
  box.addEventListener("pointercancel", () => { frame?.remove(); from = frame = null; });
}

const meets = (a, b) => a.left < b.right && a.right > b.left && a.top < b.bottom && a.bottom > b.top;
