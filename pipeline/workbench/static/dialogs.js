// What lies above the page for a while: one image, the diff before saving, the submissions, the keys.
import { byId, el, number, percent } from "./dom.js";
import { nameOf, thumbnail } from "./grid.js";
import { KEYS } from "./keys.js";
import { ask } from "./socket.js";
import { store } from "./store.js";

const dialog = byId("dialog"), body = byId("dialog-body"), title = byId("dialog-title");
let shown = "", row = -1;

function open(kind, heading, ...children) {
  shown = kind;
  title.textContent = heading;
  body.replaceChildren(...children);
  if (!dialog.open) dialog.showModal();
}

export const isOpen = () => dialog.open;
export const imageShown = () => (dialog.open && shown === "image" ? row : undefined);
export const close = () => dialog.close();
export function onClose(action) { dialog.addEventListener("close", action); }

export function image(known, see) {
  row = known.row;
  const name = label => store.classes[label];
  const facts = [["label", name(known.label)], [store.baseline.title, name(known.baseline)], known.truth !== null && ["true", name(known.truth)], ["size", known.size.join(" × ")]].filter(Boolean);
  const seen = known.preprocess.map((recipe, at) => el("figure", {}, el("img", { src: `seen/${known.row}/${at}.png`, alt: `After ${recipe}` }), el("figcaption", {}, recipe)));
  open("image", `${known.row} · ${known.id}`, el("div", { class: "one" },
    el("div", {}, el("img", { class: "picture", src: `image/${known.row}.jpg`, alt: `Image ${known.row}` }), el("div", { class: "seen" }, seen)),
    el("div", {}, el("dl", {}, facts.map(([what, value]) => [el("dt", {}, what), el("dd", {}, value)])),
      el("h3", {}, "Classes"), el("table", {}, el("tbody", {}, order(known.shares).slice(0, 8).map(label => el("tr", {}, el("th", { scope: "row" }, name(label)), el("td", { class: "number" }, percent(known.shares[label])))))),
      known.members.map(member => [el("h3", {}, member.member), el("table", {}, el("tbody", {}, member.prompts.map(([prompt, label, prob]) => el("tr", {}, el("td", {}, prompt), el("td", { class: "soft" }, name(label)), el("td", { class: "number" }, percent(prob, 2))))))]),
      known.submissions.length > 0 && [el("h3", {}, "In the submissions"), el("table", {}, el("tbody", {}, known.submissions.map(one => el("tr", {}, el("td", {}, one.submission), el("td", {}, name(one.label))))))],
      el("h3", {}, "Nearest"), el("div", { class: "near" }, known.neighbours.map(([other, cosine]) => near(other, cosine))),
      el("button", { type: "button", onclick: () => { close(); see({ kind: "like", row: known.row }); } }, "All by likeness to this"))));
}

const order = shares => shares.map((_, label) => label).sort((a, b) => shares[b] - shares[a]);

function near(other, cosine) {
  const picture = el("button", { type: "button", class: "thumb", "aria-label": `Image ${other}, ${store.classes[store.labels[other]]}`, onclick: () => ask("image", { row: other }) });
  thumbnail(picture, other, 64);
  nameOf(other).then(text => { picture.title = text; });
  return el("span", {}, picture, el("small", {}, `${store.classes[store.labels[other]]} ${cosine}`));
}

export function diff(text) {
  const lines = text.split("\n").map(line => el("span", { class: line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : "" }, `${line}\n`));
  const files = store.draft.changed;
  open("diff", files.length ? `Save ${files.join(", ")}` : "Nothing to save", el("pre", { tabIndex: 0, role: "region", "aria-label": "What would change" }, lines),
    files.length > 0 && el("button", { type: "button", id: "write", onclick: () => { ask("save"); close(); } }, "Write these files"));
}

export function submitted(known) {
  open("submitted", `Submission ${known.number}`, el("p", {}, known.path), el("pre", { tabIndex: 0, role: "region", "aria-label": "What make submit said" }, known.said));
}

export function submissions() {
  const head = ["no", "time", "recipe", "flipped", "public", "private", "note", ""].map(text => el("th", { scope: "col" }, text || el("span", { class: "hidden" }, "do")));
  const button = (text, word, value) => el("button", { type: "button", "aria-label": `${text} submission ${value}`, onclick: () => { ask(word, { number: value }); close(); } }, text);
  const lines = store.submissions.map(one => el("tr", { class: one.number === store.baseline.number ? "pinned" : "" },
    [one.number, one.time.slice(0, 16).replace("T", " "), one.recipe, one.flipped_previous, one.public + (one.best ? " best" : ""), one.private, one.note].map(text => el("td", {}, String(text))),
    el("td", {}, button("Pin", "pin", one.number), button("Open", "look", one.number), button("Restore", "restore", one.number))));
  open("submissions", "Submissions", lines.length ? el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Table of submissions" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, lines))) : el("p", {}, "None yet."),
    el("p", {}, "Pin: compare with it. Open: see it as it was. Restore: its recipes become the draft, one step of undo."),
    el("button", { type: "button", onclick: () => { ask("pin", { number: 0 }); close(); } }, "Compare with the labels the page was opened with"));
}

export function help() {
  open("help", "Keys", el("table", {}, el("tbody", {}, KEYS.map(([keys, what]) => el("tr", {}, el("th", { scope: "row" }, el("kbd", {}, keys)), el("td", {}, what))))), el("p", {}, `${number(store.images)} images.`));
}
