// The prompts of each set: shared templates, and per class its names, templates, sentences, and all that come of them.
import { atWork, el } from "./dom.js";
import { edit } from "./socket.js";
import { store } from "./store.js";

const opened = new Set(["0:shared"]);
let weighed = [];  // the controls of weights: a function each that shows the present one
const WORDS = { templates: "template", aliases: "alias", prompts: "whole sentence", without: "left out" };

// All that decides which elements there are: where it is the same, weights alone have changed.
export const shape = () => JSON.stringify(store.sets, (key, value) => (key === "columns" ? value.map(([prompt, , template]) => [prompt, template]) : value));

export const showWeights = () => weighed.forEach(show => show());

export function prompts() {
  weighed = [];
  return store.sets.map((set, number) => el("div", { class: "box" }, el("h3", {}, `prompts/${set.name}/`),
    section(`${number}:shared`, `Templates of every class (${set.templates.length})`, () => list(set, null, "templates", set.templates)),
    set.classes.map((own, label) => section(`${number}:${label}`, `${own.class} (${own.columns.length})`, () => ofClass(set, own, label, number === 0), number === 0 ? { label } : {}))));
}

// A part that is only made once it is opened: of a thousand classes most stay closed.
function section(key, title, make, data = {}) {
  const body = el("div");
  const part = el("details", { open: opened.has(key) }, el("summary", { data: { key: `open${key}` } }, el("span", {}, title), el("span", { class: "stat", data: { class: data.label ?? "" } })), body);
  const fill = () => body.childElementCount || body.append(...[make()].flat());
  if (part.open) fill();
  part.addEventListener("toggle", () => {
    if (part.open) { opened.add(key); fill(); showEffects(body); } else opened.delete(key);
  });
  return part;
}

function ofClass(set, own, label, first) {
  const name = el("input", { type: "text", value: own.name, "aria-label": `Name of ${own.class} in templates`, data: { key: `name${set.name}${label}` }, onchange: event => edit({ kind: "name", prompt_set: set.name, label, value: event.target.value.trim() }) });
  return [el("label", { class: "line" }, "name ", name), ...["aliases", "templates", "prompts", "without"].map(key => list(set, label, key, own[key])),
    section(`${set.name}:${label}:all`, `All ${own.columns.length} prompts`, () => own.columns.map(([prompt], at) => columnLine(set, label, prompt, own.first + at, first)))];
}

function list(set, label, key, items) {
  const change = (what, index, more = {}) => edit({ kind: "list", prompt_set: set.name, label, key, do: what, index, found: items[index], ...more });
  const where = `${set.name}:${label}:${key}`;
  const lines = items.map((item, index) => itemLine(set, label, key, item, index, change, where));
  const add = el("input", { type: "text", class: "add", placeholder: `+ ${WORDS[key]}`, "aria-label": `New ${WORDS[key]}${label === null ? "" : ` of ${set.classes[label].class}`}`, data: { key: `add${where}` }, onchange: event => {
    const value = event.target.value.trim();
    event.target.value = "";
    if (value) change("add", items.length, { value });
  } });
  return el("div", { class: "list" }, label !== null && items.length > 0 && el("h4", {}, key), lines, add);
}

function itemLine(set, label, key, item, index, change, where) {
  const line = el("div", { class: "line prompt", draggable: false });
  const handle = el("span", { class: "handle", draggable: true, title: "Drag; or Alt+Up, Alt+Down in the text", "aria-hidden": "true" }, "⠿");
  handle.addEventListener("dragstart", event => event.dataTransfer.setData("text/plain", `${where}|${index}`));
  line.addEventListener("dragover", event => event.preventDefault());
  line.addEventListener("drop", event => {
    event.preventDefault();
    const [from, old] = event.dataTransfer.getData("text/plain").split("|");
    if (from === where && Number(old) !== index) dropped(set, label, key, Number(old), index);
  });
  const text = el("input", { type: "text", value: item, "aria-label": `${WORDS[key]} ${index + 1}${label === null ? "" : ` of ${set.classes[label].class}`}`, data: { key: `${where}:${index}` }, onchange: event => event.target.value.trim() && event.target.value !== item && change("replace", index, { value: event.target.value.trim() }) });
  text.addEventListener("keydown", event => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!event.altKey || !by) return;
    event.preventDefault();
    if (index + by >= 0) change("move", index, { to: index + by });
  });
  const columns = key === "prompts" ? columnsOf(set, label, column => column[2] === "" && column[0] === item)
    : key === "templates" ? columnsOf(set, label, column => column[2] === item) : [];
  line.append(handle, ...(columns.length ? weighing(set, columns, item) : []), text,
    el("span", { class: "stat", data: { columns: columns.map(one => one.at).join(" ") } }),
    el("button", { type: "button", class: "quiet", "aria-label": `Remove ${item}`, onclick: () => change("remove", index) }, "×"));
  return line;
}

function dropped(set, label, key, from, to) {
  const items = label === null ? set.templates : set.classes[label][key];
  edit({ kind: "list", prompt_set: set.name, label, key, do: "move", index: from, to, found: items[from] });
}

// The columns of one class, or of all: {label, prompt, at: place among all columns}.
function columnsOf(set, label, wanted) {
  const classes = label === null ? set.classes.map((_, at) => at) : [label];
  return classes.flatMap(one => set.classes[one].columns.flatMap((column, at) =>
    wanted(column) ? [{ label: one, prompt: column[0], at: set.classes[one].first + at }] : []));
}

function weighing(set, columns, item) {
  const present = () => {
    const { classes } = store.sets.find(one => one.name === set.name), weights = new Set(columns.map(one => classes[one.label].columns[one.at - classes[one.label].first][1]));
    return weights.size === 1 ? [...weights][0] : "";
  };
  const give = (value, control) => edit({ kind: "weigh", prompt_set: set.name, prompts: columns.map(one => [one.label, one.prompt]), weight: value }, control);
  const key = `${set.name}${columns[0].label}${columns[0].prompt}`;
  const use = el("input", { type: "checkbox", "aria-label": `Use ${item}`, data: { key: `on${key}` }, onchange: event => give(event.target.checked ? 1 : 0, "") });
  const weight = el("input", { type: "number", class: "weight", min: 0, step: 0.1, placeholder: "…", "aria-label": `Weight of ${item}`, data: { key: `w${key}` }, oninput: event => event.target.value !== "" && give(Number(event.target.value), `weigh:${key}`) });
  const show = () => {
    const value = present();
    use.checked = value !== 0;
    if (!atWork(weight)) weight.value = value;
  };
  show();
  weighed.push(show);
  return [use, weight];
}

function columnLine(set, label, prompt, at, known) {
  return el("div", { class: "line prompt" }, weighing(set, [{ label, prompt, at }], prompt),
    el("span", { class: "text" }, prompt), el("span", { class: "stat", data: { columns: known ? at : "" } }));
}

// Beside every prompt: how many labels hang on it, and how many right ones it adds.
export function showEffects(parent) {
  const effects = store.effects?.prompts ?? [];
  for (const place of parent.querySelectorAll("[data-columns]")) {
    const columns = place.dataset.columns.split(" ").filter(Boolean).map(Number).filter(at => effects[at]);
    place.textContent = columns.length ? told(columns.map(at => effects[at])) : "";
    place.title = "labels that flip without it; with known labels, how many more are right with it";
  }
  for (const place of parent.querySelectorAll("[data-class]")) {
    const own = place.dataset.class === "" ? null : store.sets[0]?.classes[Number(place.dataset.class)];
    const columns = own ? own.columns.map((_, at) => effects[own.first + at]).filter(Boolean) : [];
    place.textContent = columns.length ? `${columns.reduce((sum, one) => sum + one[0], 0)} hang` : "";
  }
}

function told(columns) {
  const hang = columns.reduce((sum, one) => sum + one[0], 0);
  if (columns[0][1] === null) return `${hang}`;
  const adds = -columns.reduce((sum, one) => sum + one[1], 0);
  return `${hang} (${adds > 0 ? "+" : ""}${adds})`;
}
