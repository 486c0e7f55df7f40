// --- what the page carries: columns, pictures ----------------------------------------------------------------

const byId = (id) => document.getElementById(id);
const points = JSON.parse(byId("points").textContent);
const n = points.paths.length;
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
