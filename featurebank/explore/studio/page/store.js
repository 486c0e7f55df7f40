// --- what the server says of the bank, asked for again and again ----------------------------------------------------
import { get } from "./api.js";
import { unwarn, warn } from "./words.js";

const OFTEN = 700, SELDOM = 2500;
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
  plan(!store.state?.ready || store.state.extracting ? OFTEN : SELDOM);
}

function plan(milliseconds) {
  clearTimeout(waiting);
  waiting = setTimeout(refresh, milliseconds);
}

export const refreshSoon = () => plan(150);

// Items are one object in all views, so that a label given in one is seen in the others.
export function remember(items) {
  return items.map((item) => {
    const mine = Object.assign(known.get(item.digest) ?? {}, item);
    known.set(item.digest, mine);
    return mine;
  });
}

export const itemOf = (digest) => remember([known.get(digest) ?? { digest, name: digest.slice(0, 12), label: null, suggestion: null, why: null }])[0];
