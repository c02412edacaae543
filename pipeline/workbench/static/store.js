// What the page knows: arrays over all images, and the last of each header. Every module reads it; `receive` writes it.
export const store = {
  images: 0, classes: [], truth: false,
  labels: new Uint8Array(0), before: new Uint8Array(0), margins: new Uint16Array(0), dissent: new Uint8Array(0),
  rows: new Uint32Array(0), points: null, marked: new Set(),
  recipe: null, sets: [], choices: null, numbers: null, draft: { changed: [], conflicts: [] }, effects: null,
  baseline: { number: 0, title: "" }, submissions: [], viewing: 0, view: { kind: "flips" },
  stepping: false,  // an undo or redo is under way
};

const KINDS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float16: Uint16Array, float32: Float32Array };

// A frame: 4 bytes of length, a header in JSON, the arrays that it names.
export function parse(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  let at = 4 + length;
  for (const [name, [kind, size]] of Object.entries(header.arrays)) {
    arrays[name] = new KINDS[kind](buffer, at, size);
    at += Math.ceil(arrays[name].byteLength / 8) * 8;
  }
  return { header, arrays };
}

// What a frame changes.
export function receive({ header, arrays }) {
  if (header.task) Object.assign(store, { images: header.task.images, classes: header.task.classes, truth: header.task.truth, task: header.task });
  for (const name of ["labels", "before", "margins", "dissent", "rows", "points"]) if (arrays[name]) store[name] = arrays[name];
  if (arrays.changedRows) arrays.changedRows.forEach((row, at) => { store.labels[row] = arrays.changedLabels[at]; });
  if (header.type === "state") {
    for (const name of ["recipe", "choices", "numbers", "draft", "baseline", "submissions", "viewing", "view"]) {
      if (header[name] !== undefined) store[name] = header[name];
    }
    if (header.recipe.sets) store.sets = header.recipe.sets;
    store.marked = new Set(header.marked);
  }
  if (header.type === "rows") store.view = header.view;
  if (header.type === "effects") store.effects = header;
}

// IEEE half precision, as its 16 bits.
export function half(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const value = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return bits >> 15 ? -value : value;
}
