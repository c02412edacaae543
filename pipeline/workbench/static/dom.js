import { store } from "./store.js";

// Elements from names, properties and children. Text is only ever text: nothing here reads markup.
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "data") Object.assign(made.dataset, value);
    else if (key === "class") made.className = value;
    else if (key in made && !key.startsWith("aria") && key !== "role" && key !== "list") made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return made;
}

export const byId = id => document.getElementById(id);

// Whether a number is being typed, which what comes from the server would disturb.
export const atWork = control => control === document.activeElement && control.type === "number" && !store.stepping;

export const number = value => value.toLocaleString("en");

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

export function colourOf(label) {
  const styles = getComputedStyle(document.documentElement);
  return label < 10 ? styles.getPropertyValue(`--c${label}`).trim() : `hsl(${(label * 137.5) % 360} 55% 52%)`;
}

// Put new content in the place of the old, with the focus where it was: on the element of the same data-key.
export function replaceKept(parent, ...children) {
  const active = parent.contains(document.activeElement) ? document.activeElement : null;
  const key = active?.dataset.key;
  const range = active && "selectionStart" in active && active.type === "text" ? [active.selectionStart, active.selectionEnd] : null;
  const unsaved = active?.type === "text" && active.value !== active.defaultValue ? active.value : null;
  const top = parent.scrollTop;
  parent.replaceChildren(...children);
  parent.scrollTop = top;
  const again = key && [...parent.querySelectorAll("[data-key]")].find(other => other.dataset.key === key);
  if (!again) return;
  if (unsaved !== null) again.value = unsaved;
  again.focus({ preventScroll: true });
  if (range && again.type === "text") again.setSelectionRange(...range);
}
