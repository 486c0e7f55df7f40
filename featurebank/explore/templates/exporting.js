// --- the chosen images as a file -----------------------------------------------------------------------------------
import { chosenRows } from "./choosing.js";
import { make } from "./reading.js";
import { scene } from "./scene.js";
import { sources } from "./sheets.js";

// A spreadsheet must not run a path.
function csvCell(text) {
  const safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// A byte of a file name that is no UTF-8 came as half of a surrogate pair, and goes out as that byte again.
const LONE = /((?<![\ud800-\udbff])[\udc80-\udcff])/;
const fileParts = (text) => text.split(LONE).map((part) => LONE.test(part) ? new Uint8Array([part.charCodeAt(0) & 0xff]) : part);

export function exportChosen() {
  const lines = chosenRows().map((row) => `${csvCell(sources[row])},${csvCell(scene.paths[row])}`);
  const link = make("a", { download: "selected.csv", href: URL.createObjectURL(new Blob(fileParts(["source,path", ...lines, ""].join("\n")), { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
