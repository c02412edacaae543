// The page: what the server sends is shown, what the user does is asked of the server.
import * as address from "./address.js";
import * as dialogs from "./dialogs.js";
import { byId, el, number } from "./dom.js";
import * as grid from "./grid.js";
import { listen } from "./keys.js";
import * as map from "./map.js";
import { showNumbers, showSlow } from "./numbers.js";
import { showEffects } from "./prompts.js";
import { showMembers, showRecipe } from "./recipe.js";
import { ask, connect } from "./socket.js";
import { receive, store } from "./store.js";

const VIEWS = [["flips", "flips"], ["uncertain", "least certain"], ["disagree", "members disagree"], ["class", "a class"], ["all", "all"], ["fragile", "hang on one prompt"], ["marked", "marked"], ["wrong", "wrong"]];
const first = address.read();
const view = byId("view"), pair = byId("pair"), ofClass = byId("class"), sort = byId("sort"), status = byId("status"), banner = byId("banner");
let painted = 0;

function see(more) {
  const next = { kind: "flips", sort: sort.value, region: store.view.region ?? [], ...more };
  if (next.kind === "class" && next.label === undefined) next.label = 0;
  ask("view", { view: next });
}

function hear(frame) {
  const { header } = frame, before = JSON.stringify(store.view);
  const keep = grid.renew(header.type === "state" || (header.type === "rows" && JSON.stringify(header.view) === before));
  receive(frame);
  const heard = { state: () => state(header, keep), rows: () => { keep(); shownView(); map.draw(); }, effects: showAll, map: map.draw,
    image: () => dialogs.image(header, see), diff: () => dialogs.diff(header.text), submitted: () => dialogs.submitted(header),
    said: () => tell(header.text), refused: () => tell(header.why, true), offer: () => offer(header.edits) };
  heard[header.type]?.();
  address.write(() => ({ map: map.isOpen() ? "1" : "", zoom: grid.zoomed() === 96 ? "" : String(grid.zoomed()), image: dialogs.imageShown() }));
  if (header.type === "state" || header.type === "rows") after();
}

// Counts what is on the screen, for whoever measures.
function after() {
  requestAnimationFrame(() => setTimeout(() => { painted += 1; document.documentElement.dataset.painted = painted; }));
}

function state(header, keep) {
  if (header.task) opened();
  keep();
  showRecipe(Boolean(header.recipe.sets), Boolean(header.choices));
  showNumbers(see);
  shownView();
  map.draw();
  const { changed, undo, redo, conflicts } = store.draft;
  byId("undo").disabled = !undo;
  byId("redo").disabled = !redo;
  byId("save").textContent = changed.length ? `Save ${changed.length}` : "Save";
  byId("submit").hidden = byId("submissions").hidden = store.task.kind !== "competitions";
  for (const notice of header.notices) tell(notice);
  banners(conflicts);
  store.stepping = false;
}

function opened() {
  document.title = `${store.task.name} · workbench`;
  byId("title").textContent = `${store.task.name}, ${number(store.images)} images`;
  view.replaceChildren(...VIEWS.filter(([kind]) => kind !== "wrong" || store.truth).map(([value, text]) => el("option", { value }, text)));
  ofClass.replaceChildren(...store.classes.map((name, label) => el("option", { value: label }, name)));
  map.show(map.isOpen());
  if (first.image !== null && first.image !== undefined) ask("image", { row: Number(first.image) });
  first.image = null;
}

function shownView() {
  const now = store.view;
  if ([...view.options].some(option => option.value === now.kind)) view.value = now.kind;
  else view.selectedIndex = -1;
  byId("pair-label").hidden = now.kind !== "flips";
  byId("class-label").hidden = now.kind !== "class";
  if (now.kind === "class") ofClass.value = now.label;
  sort.value = now.sort;
  const pairs = store.numbers?.flips?.pairs ?? [];
  pair.replaceChildren(el("option", { value: "" }, "all"), ...pairs.map(one => el("option", { value: `${one.before} ${one.now}`, selected: one.before === now.before && one.now === now.label }, `${store.classes[one.before]} → ${store.classes[one.now]} (${one.images})`)));
  const what = { text: `like “${now.text}”`, like: `like image ${now.row}`, name: `named “${now.text}”` }[now.kind] ?? "";
  byId("count").textContent = `${number(store.rows.length)} ${what}${now.region?.length ? " in the region" : ""}`;
  byId("grid").classList.toggle("none", !store.rows.length);
  for (const kind of ["csv", "parquet"]) byId(kind).href = `export/${kind}?view=${encodeURIComponent(JSON.stringify(now))}`;
}

function showAll() {
  showEffects(byId("recipe"));
  showMembers();
  showSlow(see);
  document.documentElement.dataset.effects = painted;
}

function tell(text, wrong = false) {
  status.textContent = text;
  status.classList.toggle("forbidden", wrong);
}

function banners(conflicts) {
  const asked = conflicts.map(file => el("p", {}, `${file} was edited elsewhere, and here in the same place. `,
    el("button", { type: "button", onclick: () => ask("resolve", { file, keep: "mine" }) }, "Keep this page’s"), el("button", { type: "button", onclick: () => ask("resolve", { file, keep: "theirs" }) }, "Take the file’s")));
  if (store.viewing) asked.push(el("p", {}, `Submission ${store.viewing} as it was. `, el("button", { type: "button", onclick: () => ask("look", { number: 0 }) }, "Back to the draft")));
  banner.replaceChildren(...asked);
  banner.hidden = !asked.length;
}

function offer(edits) {
  banner.replaceChildren(el("p", {}, "This address holds other edits than the unsaved ones here. ",
    el("button", { type: "button", onclick: () => ask("open", { edits }) }, "Open them (undo brings the present back)"), el("button", { type: "button", onclick: () => { banner.hidden = true; } }, "Keep the present")));
  banner.hidden = false;
}

function search(event) {
  event.preventDefault();
  const text = byId("query").value.trim();
  if (!text) return;
  const number = /^\d+$/.test(text) && byId("by").value === "text" && Number(text) < store.images;
  see(number ? { kind: "like", row: Number(text) } : { kind: byId("by").value, text });
  byId("grid").focus();
}

function submit() {
  if (store.draft.changed.length) return tell("Save first: a submission is made of the files.", true);
  tell("submitting …");
  return ask("submit");
}

const look = by => () => {
  grid.move(by);
  if (dialogs.imageShown() !== undefined) ask("image", { row: grid.current() });
};
const openImage = () => grid.current() !== undefined && ask("image", { row: grid.current() });
const step = word => () => { store.stepping = true; ask(word); };
const toggleMap = () => map.show(!map.isOpen());

byId("search").addEventListener("submit", search);
view.addEventListener("change", () => see({ kind: view.value, label: view.value === "class" ? Number(ofClass.value) : null }));
pair.addEventListener("change", () => { const [before, label] = pair.value.split(" ").map(Number); see(pair.value ? { kind: "flips", before, label } : { kind: "flips" }); });
ofClass.addEventListener("change", () => see({ kind: "class", label: Number(ofClass.value) }));
sort.addEventListener("change", () => ask("view", { view: { ...store.view, sort: sort.value } }));
byId("undo").addEventListener("click", step("undo"));
byId("redo").addEventListener("click", step("redo"));
byId("save").addEventListener("click", () => ask("diff"));
byId("submit").addEventListener("click", submit);
byId("submissions").addEventListener("click", dialogs.submissions);
byId("help").addEventListener("click", dialogs.help);
byId("show-map").addEventListener("click", toggleMap);
grid.onOpen(row => ask("image", { row }));
map.onChoose(region => ask("view", { view: { ...store.view, kind: store.view.kind === "flips" && region.length ? "all" : store.view.kind, before: null, region } }));
listen({ j: look(1), k: look(-1), ArrowRight: look(1), ArrowLeft: look(-1), ArrowDown: () => grid.moveLine(1), ArrowUp: () => grid.moveLine(-1),
  Enter: openImage, " ": grid.mark, x: () => { dialogs.close(); see({ kind: "like", row: grid.current() }); }, "/": () => byId("query").focus(), v: () => view.focus(),
  f: () => see({ kind: "flips" }), c: () => see({ kind: "uncertain" }), d: () => see({ kind: "disagree" }), "+": () => grid.zoom(grid.zoomed() + 16), "-": () => grid.zoom(grid.zoomed() - 16),
  g: () => grid.select(0), G: () => grid.select(store.rows.length - 1), e: () => byId("recipe").focus(), i: () => byId("grid").focus(), n: () => byId("numbers").focus(), m: toggleMap,
  u: step("undo"), r: step("redo"), s: () => ask("diff"), p: dialogs.submissions, "?": dialogs.help }, dialogs.isOpen);
document.addEventListener("visibilitychange", () => (document.hidden ? ask("sleep") : ask("hello", { view: store.view })));
if (first.map) map.show(true);
if (first.zoom) grid.zoom(first.zoom);
connect(hear, open => tell(open ? "" : "the workbench is not running; start it again, nothing is lost", !open),
  () => ({ do: "hello", view: store.images ? store.view : first.view, edits: store.images ? "" : first.edits }));
