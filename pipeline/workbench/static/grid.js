// The images of the view: only those that are on the screen exist as elements, cut from sheets of thumbnails.
import { byId, el, percent } from "./dom.js";
import { half, store } from "./store.js";
import { ask } from "./socket.js";

const TILE = 96, ACROSS = 8, SHEET = 64, BLOCK = 1024, CAPTION = 38, GAP = 8, TALLEST = 2e7;
const grid = byId("grid"), tall = byId("tall");
const pool = new Map();  // place in the view -> tile
const names = new Map();  // block -> promise of its names
let side = TILE, at = 0, asked = false, open = () => {};

export const current = () => store.rows[at];
export const zoomed = () => side;
export function onOpen(action) { open = action; }

// Everything that the page's layout decides, read once before anything is written.
function measured() {
  const wide = grid.clientWidth, tallness = grid.clientHeight, line = side + CAPTION + GAP;
  const across = Math.max(1, Math.floor((wide - GAP) / (side + GAP)));
  const height = Math.ceil(store.rows.length / across) * line + GAP, bar = Math.min(height, TALLEST);
  // scroll bars have an end: of very many images a pixel of the bar stands for several of the grid
  const factor = Math.max(1, (height - tallness) / Math.max(1, bar - tallness));
  const scrolled = grid.scrollTop;
  return { across, line, bar, factor, scrolled, top: scrolled * factor, tallness };
}

export function nameOf(row) {
  const block = Math.floor(row / BLOCK);
  if (!names.has(block)) names.set(block, fetch(`names/${block}.json`).then(answer => answer.json()));
  return names.get(block).then(found => found[row % BLOCK]);
}

export function thumbnail(element, row, size) {
  const sheet = Math.floor(row / SHEET), place = row % SHEET;
  element.style.backgroundImage = `url("sheet/${sheet}.jpg")`;
  element.style.backgroundSize = `${size * ACROSS}px`;
  element.style.backgroundPosition = `${-(place % ACROSS) * size}px ${-Math.floor(place / ACROSS) * size}px`;
}

function made() {
  const picture = el("div", { class: "thumb" });
  const label = el("b"), detail = el("span");
  const tile = el("div", { class: "tile", role: "option" }, picture, label, detail);
  tile.addEventListener("click", () => { select(tile.place); grid.focus({ preventScroll: true }); });
  tile.addEventListener("dblclick", () => open(current()));
  Object.assign(tile, { picture, label, detail, row: -1 });
  return tile;
}

function fill(tile, place, { across, line, scrolled, factor }) {
  const row = store.rows[place], label = store.labels[row], before = store.before[row];
  if (tile.row !== row || tile.side !== side) {
    thumbnail(tile.picture, row, side);
    if (tile.side !== side) {
      tile.picture.style.height = `${side}px`;
      tile.style.width = `${side}px`;
    }
    Object.assign(tile, { row, side });
    nameOf(row).then(text => { if (tile.row === row) tile.title = `${row} · ${text}`; });
  }
  const marked = store.marked.has(row), looks = `${row} ${label} ${before} ${marked}`;
  if (tile.looks !== looks) {
    const name = store.classes[label], said = before === label ? name : `${store.classes[before]} → ${name}`;
    tile.label.textContent = said;
    tile.classList.toggle("flipped", before !== label);
    tile.classList.toggle("marked", marked);
    tile.setAttribute("aria-selected", marked);
    tile.setAttribute("aria-label", `Image ${row}: ${said}`);
    tile.looks = looks;
  }
  const lead = `ahead by ${percent(half(store.margins[row]))}`;
  if (tile.lead !== lead) tile.detail.textContent = tile.lead = lead;
  tile.classList.toggle("current", place === at);
  if (tile.place !== place) tile.id = `tile-${place}`;
  tile.place = place;
  const x = GAP + (place % across) * (side + GAP), y = GAP + Math.floor(place / across) * line - scrolled * (factor - 1);
  const shift = `translate(${x}px, ${y}px)`;
  if (tile.shift !== shift) tile.style.transform = tile.shift = shift;
}

export function paint() {
  asked = false;
  const known = measured(), total = store.rows.length, { across, line, top } = known;
  const height = `${known.bar}px`;
  if (tall.style.height !== height) tall.style.height = height;
  const first = Math.max(0, Math.floor(top / line) - 1) * across;
  const last = Math.min(total, (Math.ceil((top + known.tallness) / line) + 1) * across);
  const free = [...pool].filter(([place]) => place < first || place >= last);
  free.forEach(([place]) => pool.delete(place));
  for (let place = first; place < last; place += 1) {
    if (!pool.has(place)) {
      const tile = free.pop()?.[1] ?? made();
      if (!tile.parentNode) tall.append(tile);
      pool.set(place, tile);
    }
    fill(pool.get(place), place, known);
  }
  free.forEach(([, tile]) => tile.remove());
  if (pool.has(at) && total > 0) grid.setAttribute("aria-activedescendant", `tile-${at}`);
  else grid.removeAttribute("aria-activedescendant");
}

export function soon() {
  if (!asked) requestAnimationFrame(paint);
  asked = true;
}

export function select(place) {
  if (!store.rows.length) return;
  at = Math.max(0, Math.min(store.rows.length - 1, place));
  const { across, line, top, factor, tallness } = measured();
  const y = Math.floor(at / across) * line;
  if (y < top) grid.scrollTop = y / factor;
  else if (y + line > top + tallness) grid.scrollTop = (y + line + GAP - tallness) / factor;
  soon();
}

export const move = by => select(at + by);
export const moveLine = by => select(at + by * measured().across);

export function mark() {
  const row = current();
  if (row !== undefined) ask("mark", { rows: [row], on: !store.marked.has(row) });
}

export function zoom(value) {
  side = Math.max(56, Math.min(240, value));
  byId("zoom").value = side;
  soon();
}

// Another view: from its beginning, with the selection on the same image if it is there.
export function renew(keep) {
  const row = keep ? current() : undefined;
  return () => {
    const place = row === undefined ? -1 : store.rows.indexOf(row);
    at = place >= 0 ? place : Math.min(at, Math.max(0, store.rows.length - 1));
    if (!keep) { at = 0; grid.scrollTop = 0; }
    paint();
  };
}

grid.addEventListener("scroll", soon, { passive: true });
new ResizeObserver(soon).observe(grid);
byId("zoom").addEventListener("input", event => zoom(Number(event.target.value)));
