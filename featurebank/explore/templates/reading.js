// --- elements and texts --------------------------------------------------------------------------------------------
// The report and the map have these scripts joined into one, the studio loads them as modules: see explore/page.py.

export const byId = (id) => document.getElementById(id);
export const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
export const numbers = (text, Kind) => new Kind(bytesOf(text).buffer);
// Control characters and halves of surrogate pairs are shown as what they are; text is only ever set as text.
export const shown = (text) => String(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
  (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
export const textOf = (value) => Number.isNaN(value) ? "missing" : String(Number.isInteger(value) ? value : +value.toPrecision(6));
export const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
