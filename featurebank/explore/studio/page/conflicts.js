// --- conflicts: an image that another tab or command has labelled meanwhile -----------------------------------------
import { pictureAddress } from "./api.js";
import { make, shown } from "./reading.js";
import { itemOf } from "./store.js";
import { count, warn } from "./words.js";

// Nothing was overwritten; the person says whose answer stays. `correct(item, label, seen)` gives mine again.
export function showConflicts(conflicts, answers, correct) {
  if (!conflicts.length) return;
  const mine = new Map(answers.map(({ digest, label }) => [digest, label]));
  const rows = conflicts.map((each) => rowOf(each, mine.get(each.digest), correct));
  warn("conflict", `${count(conflicts.length, "image")} had another answer by now. Nothing was overwritten:`, make("ul", { className: "conflicts" }, ...rows));
}

function rowOf({ digest, name, label, by, when }, mine, correct) {
  const item = Object.assign(itemOf(digest, name), { label });
  const there = label === null ? "no label" : `“${shown(label)}”`;
  const text = `${shown(item.name)} has ${there}${by ? ` by ${shown(by)}` : ""}${when ? `, ${new Date(when).toLocaleString()}` : ""}`;
  const row = make("li", {}, make("img", { src: pictureAddress(digest, 96), alt: "" }), make("span", { textContent: text }));
  if (mine === undefined || mine === label) return row;
  const keep = make("button", { type: "button", textContent: `Keep ${there}` });
  const take = make("button", { type: "button", textContent: `Make it “${shown(mine)}”` });
  keep.addEventListener("click", () => settle(row));
  take.addEventListener("click", () => { settle(row); correct(item, mine, label); });
  row.append(keep, take);
  return row;
}

function settle(row) {
  const alert = row.closest(".warning");
  row.remove();
  if (!alert.querySelector("li")) alert.remove();
}
