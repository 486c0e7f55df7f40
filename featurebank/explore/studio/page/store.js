// --- what the server says of the bank, asked for again and again ----------------------------------------------------
import { get } from "./api.js";
import { unwarn, warn } from "./words.js";

const AT_ONCE = 150, OFTEN = 700, SELDOM = 2500;
const listeners = [];
const known = new Map();
let waiting = null, isAsking = false;

// `state` is the answer of api/state; what is learned by fits is asked for when `model_revision` has changed.
export const store = { state: null };

export const whenState = (listener) => listeners.push(listener);

export async function refresh() {
  if (isAsking) { plan(200); return; }
  isAsking = true;
  try {
    const before = store.state;
    store.state = await get("state");
    unwarn("gone");
    for (const listener of listeners) listener(store.state, before);
  } catch (error) {
    warn("gone", `The studio does not answer (${error.message}). Is its command still running? What was said to be saved is safe.`);
  }
  isAsking = false;
  plan(pause(store.state));
}

function pause(state) {
  if (!state?.ready) return state && !state.message ? AT_ONCE : OFTEN;
  return state.extracting || state.reading ? OFTEN : SELDOM;
}

function plan(milliseconds) {
  clearTimeout(waiting);
  waiting = setTimeout(refresh, milliseconds);
}

export const refreshSoon = () => plan(150);

// Items are one object in all views, so that a label given in one is seen in the others; what was asked for before an
// answer was saved does not know of it.
export function remember(items, since = performance.now()) {
  return items.map((item) => {
    const mine = known.get(item.digest) ?? { waiting: 0, answeredAt: -1 };
    const isNewer = mine.waiting > 0 || mine.answeredAt >= since;
    Object.assign(mine, item, { why: item.why ?? mine.why ?? null }, isNewer ? { label: mine.label } : {});
    known.set(item.digest, mine);
    return mine;
  });
}

export function itemOf(digest, name) {
  const item = known.get(digest) ?? remember([{ digest, label: null, suggestion: null, why: null }])[0];
  item.name ??= name;
  return item;
}
