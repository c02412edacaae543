// The map: every image a dot on a canvas, the classes' texts with their names; a line drawn around dots selects them.
import { byId, colourOf } from "./dom.js";
import { half, store } from "./store.js";

const canvas = byId("plane"), holder = byId("map"), toggle = byId("show-map"), colour = byId("colour");
let line = [], choose = () => {}, asked = false;

export const isOpen = () => !holder.hidden;
export function onChoose(action) { choose = action; }

export function show(open) {
  holder.hidden = !open;
  toggle.setAttribute("aria-pressed", open);
  draw();
}

export function draw() {
  if (!asked && isOpen()) requestAnimationFrame(paint);
  asked = isOpen();
}

const scale = () => Math.min(canvas.width, canvas.height) / 2.1;
const place = (x, y) => [canvas.width / 2 + x * scale(), canvas.height / 2 - y * scale()];

function rgb(text) {
  const one = document.createElement("canvas").getContext("2d");
  one.fillStyle = text;
  one.fillRect(0, 0, 1, 1);
  return [...one.getImageData(0, 0, 1, 1).data];
}

// (row) -> number of a colour, and the colours.
function colouring() {
  const styles = getComputedStyle(document.documentElement), variable = name => styles.getPropertyValue(name).trim();
  if (colour.value === "label") return [row => store.labels[row], store.classes.map((_, label) => rgb(colourOf(label)))];
  const shades = [...Array(9)].map((_, step) => rgb(`color-mix(in srgb, ${variable("--warm")} ${step * 12.5}%, ${variable("--soft")})`));
  if (colour.value === "flip") return [row => (store.labels[row] === store.before[row] ? 0 : 8), shades];
  if (colour.value === "margin") return [row => Math.round(8 * (1 - half(store.margins[row]))), shades];
  return [row => Math.round(8 * store.dissent[row] / 255), shades];
}

function paint() {
  asked = false;
  const ratio = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const context = canvas.getContext("2d");
  if (!store.points || !canvas.width) return;
  const { width, height } = canvas, picture = context.createImageData(width, height), pixels = new Uint32Array(picture.data.buffer);
  const [colourNumber, colours] = colouring();
  const packed = colours.map(([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
  const size = Math.max(1, Math.round(ratio * (store.images > 50000 ? 1 : store.images > 5000 ? 2 : 4)));
  const inView = store.rows.length < store.images ? new Uint8Array(store.images) : null;
  if (inView) for (const row of store.rows) inView[row] = 1;
  const dot = (row, alpha) => {
    const [x, y] = place(store.points[2 * row], store.points[2 * row + 1]).map(Math.round);
    const value = alpha ? packed[colourNumber(row)] : (packed[colourNumber(row)] & 0xffffff) | (50 << 24);
    for (let j = 0; j < size; j += 1) for (let i = 0; i < size; i += 1) {
      const px = x + i, py = y + j;
      if (px >= 0 && py >= 0 && px < width && py < height) pixels[py * width + px] = value;
    }
  };
  if (inView) for (let row = 0; row < store.images; row += 1) if (!inView[row]) dot(row, false);
  for (let row = 0; row < store.images; row += 1) if (!inView || inView[row]) dot(row, true);
  context.putImageData(picture, 0, 0);
  texts(context, ratio);
  outline(context, ratio);
}

function texts(context, ratio) {
  const styles = getComputedStyle(document.documentElement);
  context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
  context.lineWidth = 3 * ratio;
  context.strokeStyle = styles.getPropertyValue("--panel");
  context.fillStyle = styles.getPropertyValue("--ink");
  for (let label = 0; label < Math.min(store.classes.length, 60); label += 1) {
    const at = 2 * (store.images + label);
    if (at >= store.points.length) return;
    const [x, y] = place(store.points[at], store.points[at + 1]);
    context.strokeText(`◆ ${store.classes[label]}`, x, y);
    context.fillText(`◆ ${store.classes[label]}`, x, y);
  }
}

function outline(context, ratio) {
  const region = line.length ? line : store.view.region ?? [];
  if (region.length < 2) return;
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  context.lineWidth = 2 * ratio;
  context.beginPath();
  region.forEach(([x, y], at) => context[at ? "lineTo" : "moveTo"](...place(x, y)));
  context.closePath();
  context.stroke();
}

function point(event) {
  const ratio = devicePixelRatio || 1;
  return [(event.offsetX * ratio - canvas.width / 2) / scale(), (canvas.height / 2 - event.offsetY * ratio) / scale()];
}

canvas.addEventListener("pointerdown", event => { line = [point(event)]; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointermove", event => {
  if (!line.length) return;
  line.push(point(event));
  draw();
});
canvas.addEventListener("pointerup", () => {
  const every = Math.max(1, Math.ceil(line.length / 500)), region = line.filter((_, at) => at % every === 0);
  line = [];
  if (region.length > 2) choose(region.map(([x, y]) => [Number(x.toFixed(4)), Number(y.toFixed(4))]));
  draw();
});
byId("whole").addEventListener("click", () => choose([]));
colour.addEventListener("change", draw);
new ResizeObserver(draw).observe(canvas);
