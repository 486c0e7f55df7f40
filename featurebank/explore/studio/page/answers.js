// --- answers: saved one after the other, undone, and what another tab had said meanwhile ----------------------------
import { Refused, post, tab } from "./api.js";
import { showConflicts } from "./conflicts.js";
import { byId, shown } from "./reading.js";
import { itemOf, refreshSoon } from "./store.js";
import { count, say, unwarn, warn } from "./words.js";

const LONGEST = 8000;
const undoListeners = [];
let chain = Promise.resolve(), waiting = 0;

export const whenUndone = (listener) => undoListeners.push(listener);

// The next image is shown before this is saved; only the server's answer lets the page say "saved".
export function save(items, label, why = null) {
  const answers = items.map((item) => ({ digest: item.digest, label, seen: item.label ?? null, why }));
  for (const item of items) { item.label = label; item.waiting += 1; }
  return inTurn(async () => {
    const found = await sent("labels", { tab, answers }).catch((error) => refused(error, answers));
    for (const item of items) { item.waiting -= 1; item.answeredAt = performance.now(); }
    const saved = new Set(found.saved);
    showConflicts(found.conflicts, answers, correct);
    if (saved.size) say(saved.size === 1 ? `Saved: ${shown(itemOf(found.saved[0]).name)} is ${shown(label)}.` : `Saved: ${count(saved.size, "image")} as ${shown(label)}.`);
    return saved;
  });
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

window.addEventListener("beforeunload", (event) => { if (waiting) event.preventDefault(); });
