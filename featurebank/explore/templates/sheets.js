// --- what the report's page carries: columns, pictures -------------------------------------------------------------
import { byId, bytesOf, numbers } from "./reading.js";
import { scene } from "./scene.js";

const points = JSON.parse(byId("points").textContent);
export const sources = Array.from(numbers(points.source, Uint32Array), (code) => points.sources[code]);
export const tile = numbers(points.tile, Int32Array);
const sizes = numbers(points.sizes, Uint8Array);
export const cells = Object.fromEntries(Object.entries(points.cells).map(([name, text]) => [name, numbers(text, Int32Array)]));
export const maps = points.maps.map((map) => ({ name: map.name, coordinates: Float32Array.from(numbers(map.coordinates, Uint16Array), (v) => v / 65535) }));

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

Object.assign(scene, { n: points.paths.length, paths: points.paths, chosen: new Uint8Array(points.paths.length), showPicture });
scene.columns = points.columns.map((column) => column.kind === "class"
  ? { ...column, codes: numbers(column.codes, Uint32Array) }
  : { ...column, values: numbers(column.values, Float64Array) });
