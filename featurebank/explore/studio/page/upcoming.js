// --- the images that come next, fetched and decoded before they are wanted ------------------------------------------
import { get, pictureAddress } from "./api.js";
import { remember } from "./store.js";

const AHEAD = 8, MOST_SKIPPED = 100;
const queue = [];
const passed = [];
let isFilling = false, isOutdated = false;

// A picture is ready once it is decoded, or once it is known that it cannot be shown.
export function prepared(item) {
  const picture = new Image();
  picture.src = pictureAddress(item.digest, 1024);
  return { item, picture, ready: picture.decode().then(() => true, () => false) };
}

export const take = () => queue.shift() ?? null;
export const putBack = (entry) => queue.unshift(entry);

// What came at random, before there was a model, makes room for what the model asks for.
export const renew = () => { isOutdated = true; };

// What was skipped does not come again until all else has come.
export function skipped(item) {
  passed.push(item.digest);
  if (passed.length > MOST_SKIPPED) passed.shift();
}

async function ask(kept, shownNow) {
  const skip = [...kept.map(({ item }) => item.digest), ...shownNow, ...passed];
  const { items, since } = await get("next", { count: AHEAD, skip: skip.join(",") });
  return remember(items, since).filter(({ label }) => label === null);
}

export async function fill(shownNow) {
  if (isFilling || (queue.length >= AHEAD && !isOutdated)) return;
  isFilling = true;
  const isRenewing = isOutdated, kept = () => queue.filter(({ item }) => !isRenewing || item.why !== "any");
  try {
    let items = await ask(kept(), shownNow);
    if (!items.length && !queue.length && passed.length) { passed.length = 0; items = await ask([], shownNow); }
    queue.splice(0, queue.length, ...kept());
    if (isRenewing) isOutdated = false;
    const there = new Set([...queue.map(({ item }) => item.digest), ...shownNow]);
    queue.push(...items.filter(({ digest }) => !there.has(digest)).map(prepared));
  } finally { isFilling = false; }
}

// What other views have labelled need not be asked any more.
export function dropLabelled() {
  for (let k = queue.length - 1; k >= 0; k--) if (queue[k].item.label !== null) queue.splice(k, 1);
}
