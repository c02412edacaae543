// The right side: class histogram, flips, members, accuracy, reliability, guards.
import { byId, el, number, percent } from "./dom.js";
import { store } from "./store.js";

const panel = byId("numbers");
const quick = el("div"), slow = el("div");
panel.append(quick, slow);
const MANY = 40;

export function showNumbers(see) {
  const known = store.numbers;
  quick.replaceChildren(...[flips(known.flips, see), accuracy(known.accuracy), histogram(known, see), outcomes(known.outcomes)].filter(Boolean));
}

export function showSlow(see) {
  const known = store.effects;
  slow.replaceChildren(...[members(known), twoWay(known, see), reliability(known.reliability), confusion(known)].filter(Boolean));
}

const box = (title, ...children) => el("div", { class: "box" }, el("h3", {}, title), children);

function flips(known, see) {
  if (!known) return null;
  const name = label => store.classes[label];
  return box(`Flips since ${store.baseline.title}`, el("p", { class: "large" }, el("b", { id: "flips" }, number(known.count)), ` of ${number(store.images)} labels`), el("p", {}, known.seen),
    known.pairs.length > 0 && el("ul", { class: "pairs" }, known.pairs.map(pair => el("li", {}, el("button", { type: "button", class: "quiet", onclick: () => see({ kind: "flips", before: pair.before, label: pair.now }) },
      `${name(pair.before)} → ${name(pair.now)}`), el("span", {}, number(pair.images), pair.better !== undefined && ` (${pair.better} better, ${pair.worse} worse)`)))),
    known.more > 0 && el("p", {}, `and ${known.more} more pairs`));
}

function accuracy(known) {
  return known && box("Accuracy", el("p", { class: "large" }, el("b", { id: "accuracy" }, percent(known.value, 2)), ` ± ${percent(known.noise, 2)}`));
}

function histogram(known, see) {
  const most = Math.max(1, ...known.counts, ...(known.baseline ?? []), ...known.expected);
  const bar = (kind, count) => { const made = el("i", { class: kind }); made.style.width = `${100 * count / most}%`; return made; };
  const order = known.counts.map((_, label) => label);
  if (order.length > MANY) order.sort((a, b) => Math.abs(known.offPrior[b]) - Math.abs(known.offPrior[a]));
  return box("Classes", el("p", { class: "legend" }, el("i", { class: "now" }), "now ", el("i", { class: "then" }), "baseline ", el("i", { class: "prior" }), known.expectation),
    el("table", { class: "histogram", id: "histogram" }, el("tbody", {}, order.slice(0, MANY).map(label => el("tr", { data: { count: known.counts[label] } },
      el("th", { scope: "row" }, el("button", { type: "button", class: "quiet", onclick: () => see({ kind: "class", label }) }, store.classes[label])),
      el("td", { class: "bars" }, bar("now", known.counts[label]), known.baseline && bar("then", known.baseline[label]), bar("prior", known.expected[label])),
      el("td", { class: "number" }, number(known.counts[label])),
      el("td", { class: "number soft" }, change(known, label)))))),
    order.length > MANY && el("p", {}, `the ${MANY} furthest from the prior, of ${order.length}`));
}

function change(known, label) {
  const by = known.baseline ? known.counts[label] - known.baseline[label] : 0;
  return by ? `${by > 0 ? "+" : "−"}${number(Math.abs(by))}` : "";
}

function outcomes(all) {
  return all.length > 0 && box("Refinement", all.map(one => el("p", { class: one.refused ? "forbidden" : "" }, el("b", {}, one.step),
    one.refused ? ` not kept: ${one.refused}` : ` ${number(one.changed)} labels changed${one.withheld ? `, ${number(one.withheld)} held back` : ""}`)));
}

function members(known) {
  if (!known?.members.length) return null;
  return box("Members", el("table", {}, el("thead", {}, el("tr", {}, ["member", "says otherwise", "flip without it", known.members[0].accuracy !== undefined && "accuracy"].filter(Boolean).map(text => el("th", { scope: "col" }, text)))),
    el("tbody", {}, known.members.map(one => el("tr", {}, el("th", { scope: "row" }, one.member), el("td", { class: "number" }, number(one.dissents)), el("td", { class: "number" }, one.flips === null ? "" : number(one.flips)), one.accuracy !== undefined && el("td", { class: "number" }, percent(one.accuracy)))))),
  known.members.length > 1 && el("p", {}, `They disagree about ${number(known.apart)} images.`), known.fragile !== null && el("p", {}, `${number(known.fragile)} labels hang on one prompt.`));
}

function matrix(title, corner, values, see) {
  const most = Math.max(1, ...values.flat());
  return box(title, el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": title }, el("table", { class: "matrix" },
    el("thead", {}, el("tr", {}, el("th", { class: "corner" }, corner), store.classes.map(name => el("th", { scope: "col" }, el("span", {}, name))))),
    el("tbody", {}, values.map((line, row) => el("tr", {}, el("th", { scope: "row" }, store.classes[row]), line.map((count, column) => {
      const cell = el("td", { class: row === column ? "same" : "other", onclick: see && count ? () => see(row, column) : undefined }, count ? number(count) : "");
      cell.style.setProperty("--shade", `${100 * count / most}%`);
      return cell;
    })))))));
}

const twoWay = (known, see) => known?.twoWay && matrix("Where members disagree", "label \\ a member says", known.twoWay, () => see({ kind: "disagree" }));
const confusion = known => known?.confusion && matrix("Confusion", "true \\ label", known.confusion);

function reliability(known) {
  if (!known) return null;
  const side = 180, space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", `0 0 ${side} ${side}`);
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", "Reliability: share of right labels by certainty");
  const add = (name, values) => { const made = document.createElementNS(space, name); for (const [key, value] of Object.entries(values)) made.setAttribute(key, value); drawing.append(made); };
  add("path", { d: `M0 ${side} L${side} 0`, class: "ideal" });
  const total = known.bins.reduce((sum, one) => sum + one[2], 0);
  for (const [sure, right, images] of known.bins) add("circle", { cx: side * sure, cy: side * (1 - right), r: 2 + 8 * Math.sqrt(images / total) });
  return box("Reliability", drawing, el("p", {}, `calibration error ${percent(known.error)}; right of which share, by certainty`));
}
