// The view, the baseline and the unsaved edits in the address: reload and share.
import { store } from "./store.js";

export function read() {
  const found = new URLSearchParams(location.hash.slice(1));
  let view = null;
  try { view = JSON.parse(found.get("view")); } catch { /* not ours: the usual view */ }
  return { view, edits: found.get("edits") || "", image: found.get("image"), map: found.get("map") === "1", zoom: Number(found.get("zoom")) || 0 };
}

let timer = 0;
export function write(more) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const parts = new URLSearchParams();
    const view = Object.fromEntries(Object.entries(store.view).filter(([, value]) => value !== null && value !== "" && value.length !== 0));
    parts.set("view", JSON.stringify(view));
    for (const [key, value] of Object.entries(more())) if (value) parts.set(key, value);
    if (store.draft.link) parts.set("edits", store.draft.link);
    history.replaceState(null, "", `#${parts}`);
  }, 200);
}
