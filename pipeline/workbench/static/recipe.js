// The left side: members, keys and refinement of the ensemble. Each control is one edit.
import { atWork, byId, el, percent, replaceKept } from "./dom.js";
import { prompts, shape, showEffects, showWeights } from "./prompts.js";
import { edit } from "./socket.js";
import { store } from "./store.js";

const panel = byId("recipe");
const holder = el("div"), promptHolder = el("div");
panel.append(holder, promptHolder);
let drawn = "", drawnPrompts = "";

// With `anew` also what is typed and was refused gives way to what holds.
export function showRecipe(withPrompts, anew) {
  const own = JSON.stringify([store.recipe.members.map(one => one.member), store.recipe.refine, store.recipe.keys.witness, store.choices]);
  if (anew || own !== drawn) replaceKept(holder, head(), members(), keys(), refinement());
  drawn = own;
  renew();
  if (!withPrompts) return;
  const texts = shape();
  if (!anew && texts === drawnPrompts) {
    showWeights();
    return;
  }
  drawnPrompts = texts;
  replaceKept(promptHolder, ...prompts());
  showMembers();
  showEffects(panel);
}

// Values that changed elsewhere (another tab), where nobody is at work; after undo also there.
function renew() {
  for (const one of store.recipe.members) {
    for (const control of holder.querySelectorAll("[data-member]")) {
      if (control.dataset.member !== one.member) continue;
      if (control.matches("output")) control.textContent = percent(one.share, 0);
      else if (!atWork(control)) control.value = one.weight;
    }
  }
  for (const control of holder.querySelectorAll("[data-name]")) {
    const value = store.recipe.keys[control.dataset.name];
    if (control.type === "checkbox") control.checked = value;
    else if (!atWork(control)) control.value = value;
  }
}

export function showMembers() {
  for (const one of store.effects?.members ?? []) {
    for (const place of holder.querySelectorAll("[data-effect]")) {
      if (place.dataset.effect !== one.member) continue;
      place.textContent = one.flips === null ? "" : `${one.flips} labels flip without it`;
    }
  }
}

const head = () => el("h2", {}, `ensembles/${store.recipe.ensemble}.yaml`);

function members() {
  const all = store.recipe.members;
  const most = Math.max(1, ...all.map(one => one.weight));
  const known = new Set(all.map(one => one.member));
  const free = store.choices.members.filter(member => !known.has(member));
  return el("div", { class: "box" }, el("h3", {}, "Members"), all.map(one => el("div", { class: "member" },
    el("div", { class: "line" }, el("b", {}, one.member), one.prompts && el("small", {}, `prompts ${one.prompts}`),
      el("output", { data: { member: one.member } }, percent(one.share, 0)),
      all.length > 1 && el("button", { type: "button", class: "quiet", "aria-label": `Take ${one.member} out`, onclick: () => weigh(one.key, null) }, "×")),
    el("div", { class: "line" },
      el("input", { type: "range", min: 0, max: most, step: 0.01, value: one.weight, "aria-label": `Weight of ${one.member}`, data: { member: one.member, key: `m${one.member}` }, oninput: event => weigh(one.key, Number(event.target.value)) }),
      el("input", { type: "number", min: 0, step: 0.01, value: one.weight, "aria-label": `Weight of ${one.member}, as a number`, data: { member: one.member, key: `n${one.member}` }, oninput: event => event.target.value !== "" && weigh(one.key, Number(event.target.value)) })),
    el("small", { data: { effect: one.member } }))),
  free.length > 0 && el("label", {}, "Add ", el("select", { "aria-label": "Add a member whose features are cached", onchange: event => event.target.value && weigh(event.target.value, 1) },
    el("option", { value: "" }, "a member …"), free.map(member => el("option", { value: member }, member)))));
}

const weigh = (member, weight) => edit({ kind: "member", member, weight }, weight === null ? "" : `member:${member}`);

const set = (key, value, control = "") => edit({ kind: "set", key, value }, control);

function keys() {
  const limit = store.recipe.keys.threshold;
  return el("div", { class: "box" }, el("h3", {}, "How they become classes"),
    el("div", { class: "line" }, el("label", { for: "threshold" }, "threshold"),
      el("input", { type: "range", min: 0, max: Math.max(0.02, 2 * limit), step: 0.0005, value: limit, "aria-label": "Threshold", data: { name: "threshold", key: "threshold-range" }, oninput: event => set("threshold", Number(event.target.value), "threshold") }),
      el("input", { id: "threshold", type: "number", min: 0, max: 0.999, step: 0.0005, value: limit, data: { name: "threshold", key: "threshold" }, oninput: event => event.target.value !== "" && set("threshold", Number(event.target.value), "threshold") })),
    ["pooling", "blend", "space", "match", "prompt_weights"].map(choice));
}

function choice(key) {
  const options = store.choices[key];
  return el("div", {}, el("div", { class: "line" }, el("label", { for: key }, key),
    el("select", { id: key, data: { name: key, key }, onchange: event => set(key, event.target.value) }, options.map(one =>
      el("option", { value: one.name, disabled: Boolean(one.forbidden), title: one.about, selected: store.recipe.keys[key] === one.name }, one.forbidden ? `${one.name} (forbidden)` : one.name)))),
  forbidden(options));
}

// What the rules forbid, with the reason, each reason once.
function forbidden(options) {
  const reasons = new Set(options.map(one => one.forbidden).filter(Boolean));
  return [...reasons].map(why => el("small", { class: "forbidden" }, `Forbidden: ${options.filter(one => one.forbidden === why).map(one => one.name).join(", ")} (${why})`));
}

function refinement() {
  const steps = store.recipe.refine, known = store.choices.refine;
  const change = (what, index, more = {}) => edit({ kind: "list", key: "refine", do: what, index, found: steps[index], ...more });
  return el("div", { class: "box" }, el("h3", {}, "Refinement"),
    steps.map((step, index) => el("div", { class: "line" },
      el("input", { type: "text", class: "code", value: JSON.stringify(step), "aria-label": `Refinement step ${index + 1}, as JSON`, data: { key: `step${index}` }, onchange: event => changeStep(event.target, step, index, change) }),
      index > 0 && el("button", { type: "button", class: "quiet", "aria-label": `Step ${index + 1} earlier`, onclick: () => change("move", index, { to: index - 1 }) }, "↑"),
      el("button", { type: "button", class: "quiet", "aria-label": `Take step ${index + 1} out`, onclick: () => change("remove", index) }, "×"))),
    el("label", {}, "Add ", el("select", { "aria-label": "Add a refinement step", data: { key: "add-step" }, onchange: event => event.target.value && change("add", steps.length, { value: event.target.value }) },
      el("option", { value: "" }, "a step …"), known.map(one => el("option", { value: one.name, disabled: Boolean(one.forbidden), title: one.about }, one.forbidden ? `${one.name} (forbidden)` : one.name)))),
    el("label", { class: "line" }, el("input", { type: "checkbox", checked: store.recipe.keys.guards, data: { name: "guards", key: "guards" }, onchange: event => set("guards", event.target.checked) }), "guards: a step that something speaks against is not kept"),
    forbidden(known), witness(steps.length > 0));
}

// It takes part in refinement alone; the present one may have come from an editor after the page was opened.
function witness(used) {
  const now = store.recipe.keys.witness, options = store.choices.witness;
  const all = options.some(one => one.name === now) ? options : [...options, { name: now, forbidden: "" }];
  return el("div", {}, el("label", { class: "line" }, "witness",
    el("select", { "aria-label": "Witness of the refinement", disabled: !used, data: { name: "witness", key: "witness" }, onchange: event => set("witness", event.target.value || null) }, all.map(one =>
      el("option", { value: one.name, disabled: Boolean(one.forbidden), title: one.forbidden, selected: one.name === now }, one.name || "none")))),
  used ? forbidden(options) : el("small", {}, "A witness needs a step"));
}

function changeStep(input, step, index, change) {
  let value = input.value.trim();
  try { value = JSON.parse(value); } catch { /* a bare name */ }
  if (JSON.stringify(value) !== JSON.stringify(step)) change("replace", index, { value });
}
