// --- answers: saved one after the other, undone, and what another tab had said meanwhile ----------------------------
import { Refused, isReload, post, tab } from "./api.js";
import { showConflicts } from "./conflicts.js";
import { byId, shown } from "./reading.js";
import { itemOf, refreshSoon } from "./store.js";
import { count, say, unwarn, warn } from "./words.js";

const LONGEST = 8000;
const undoListeners = [];
const unsaved = new Map();
let chain = Promise.resolve(), waiting = 0, numbered = 0;

export const whenUndone = (listener) => undoListeners.push(listener);

// The next image is shown before this is saved; only the server's answer lets the page say "saved".
export function save(items, label) {
  return send(items.map((item) => ({ digest: item.digest, label, seen: item.label ?? null })));
}

function send(answers) {
  const items = answers.map(({ digest }) => itemOf(digest)), number = numbered++, { label } = answers[0];
  for (const item of items) { item.label = label; item.waiting += 1; }
  keep(number, answers);
  return inTurn(async () => {
    const found = await sent("labels", { tab, answers }).catch((error) => refused(error, answers));
    keep(number, null);
    for (const item of items) { item.waiting -= 1; item.answeredAt = performance.now(); }
    showConflicts(found.conflicts.filter((each) => each.label !== label), answers, correct);
    if (found.saved.length) say(found.saved.length === 1 ? `Saved: ${shown(items[0].name ?? "the image")} is ${shown(label)}.` : `Saved: ${count(found.saved.length, "image")} as ${shown(label)}.`);
  });
}

// What is not saved yet outlives a reload of the tab, which then sends it again.
function keep(number, answers) {
  if (answers) unsaved.set(number, answers);
  else unsaved.delete(number);
  sessionStorage.setItem("unsaved", JSON.stringify([...unsaved.values()]));
}

function sendUnsaved() {
  const left = isReload ? JSON.parse(sessionStorage.getItem("unsaved") ?? "[]") : [];
  for (const answers of left) send(answers);
}

function correct(item, label, seen) {
  item.label = seen;
  return save([item], label);
}

export function undo() {
  return inTurn(async () => {
    const found = await sent("undo", { tab }).catch((error) => refused(error, []));
    const items = found.answers.map(({ digest, label, name }) => Object.assign(itemOf(digest, name), { label, answeredAt: performance.now() }));
    showConflicts(found.conflicts, [], correct);
    say(items.length ? `Undone: ${items.length === 1 ? shown(items[0].name) : count(items.length, "answer")}.` : "There is nothing to undo.");
    for (const listener of undoListeners) if (items.length) listener(items);
  });
}

// Answers and undos reach the server in the order in which they were given.
function inTurn(job) {
  waiting += 1;
  showWaiting();
  const done = chain.then(job).finally(() => { waiting -= 1; showWaiting(); refreshSoon(); });
  chain = done.catch(() => {});
  return done;
}

// A server that does not answer is asked again until it does; what it refuses is not.
async function sent(name, body) {
  for (let pause = 500; ; pause = Math.min(LONGEST, 2 * pause)) {
    try {
      const found = await post(name, body);
      unwarn("unsaved");
      return found;
    } catch (error) {
      if (error instanceof Refused) throw error;
      warn("unsaved", `${count(waiting, "answer")} not saved yet: the studio does not answer. It is tried again; keep this tab open.`);
      await new Promise((done) => setTimeout(done, pause));
    }
  }
}

function refused(error, answers) {
  for (const { digest, seen } of answers) itemOf(digest).label = seen;
  warn("refused", `Not saved: ${error.message}`);
  return { saved: [], answers: [], conflicts: [] };
}

function showWaiting() {
  byId("saving").textContent = waiting ? `saving ${waiting} …` : "all answers are saved";
  byId("saving").dataset.waiting = String(waiting);
}

sendUnsaved();
window.addEventListener("beforeunload", (event) => { if (waiting) event.preventDefault(); });
