// --- talking to the server: every address is relative to the page's ---------------------------------------------------

// A reload is the same tab, so that it can still undo; a copy of a tab is another one.
export const isReload = performance.getEntriesByType("navigation")[0]?.type === "reload";
export const tab = (isReload && sessionStorage.getItem("tab")) || crypto.randomUUID();
sessionStorage.setItem("tab", tab);

// What the server refused, in its words; that it cannot yet (503), or does not answer, is any other error.
export class Refused extends Error {}

async function answerOf(response) {
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new (response.status === 503 ? Error : Refused)(found.error || `the studio answered ${response.status}`);
  return found;
}

// `since` is when it was asked: an answer given later is not known to what was found.
export async function get(name, parameters = {}) {
  const query = new URLSearchParams(parameters).toString(), since = performance.now();
  return { since, ...await answerOf(await fetch(`api/${name}${query ? `?${query}` : ""}`)) };
}

export async function post(name, body) {
  const text = JSON.stringify(body);
  const headers = { "Content-Type": "application/json" };
  // What is short is sent even when the tab closes.
  return answerOf(await fetch(`api/${name}`, { method: "POST", body: text, headers, keepalive: text.length < 30000 }));
}

export async function postPicture(name, blob) {
  return answerOf(await fetch(`api/${name}`, { method: "POST", body: blob, headers: { "Content-Type": "application/octet-stream" } }));
}

export const pictureAddress = (digest, size) => `api/image/${digest}?size=${size}`;
