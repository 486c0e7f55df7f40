// --- the map: search and selection ---------------------------------------------------------------------------------

function search(text) {
  const wanted = text.trim().toLowerCase();
  found = null;
  if (wanted) {
    const named = columns.filter((each) => each.kind === "class").map((each) =>
      [each.codes, Uint8Array.from(["missing", ...each.names], (name) => String(name).toLowerCase().includes(wanted))]);
    found = Uint8Array.from(points.paths, (path, row) =>
      path.toLowerCase().includes(wanted) || named.some(([codes, is]) => is[codes[row]]));
  }
  const count = found ? found.reduce((a, b) => a + b, 0) : 0;
  byId("chosen-found").disabled = !count;
  status.textContent = found ? `${count} of ${n} images found` : "";
  draw();
}

const chosenRows = () => { const rows = []; chosen.forEach((is, row) => { if (is) rows.push(row); }); return rows; };

function showChosen() {
  const rows = chosenRows();
  for (const id of ["chosen-export", "chosen-clear"]) byId(id).disabled = !rows.length;
  byId("chosen").replaceChildren(...rows.slice(0, MOST_LISTED).map((row) => figureOf(row, valueOf(column, row))));
  status.textContent = rows.length ? `${rows.length} of ${n} images selected${rows.length > MOST_LISTED ? `, the first ${MOST_LISTED} shown` : ""}` : "Nothing is selected";
  draw();
}

// A spreadsheet must not run a path.
function csvCell(text) {
  const safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// A byte of a file name that is no UTF-8 came as half of a surrogate pair, and goes out as that byte again.
const LONE = /((?<![\ud800-\udbff])[\udc80-\udcff])/;
const fileParts = (text) => text.split(LONE).map((part) => LONE.test(part) ? new Uint8Array([part.charCodeAt(0) & 0xff]) : part);

function exportChosen() {
  const lines = chosenRows().map((row) => `${csvCell(points.sources[source[row]])},${csvCell(points.paths[row])}`);
  const link = make("a", { download: "selected.csv", href: URL.createObjectURL(new Blob(fileParts(["source,path", ...lines, ""].join("\n")), { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
