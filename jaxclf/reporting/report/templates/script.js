"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const data = id => JSON.parse(document.getElementById(id)?.textContent ?? "null");
const tip = document.getElementById("tip");

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = !text;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + height + 28 > innerHeight ? y - height - 10 : y + 18}px`;
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.style.colorScheme ? root.style.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.style.colorScheme = dark ? "light" : "dark";
});

for (const item of all("[data-tip]")) {
  item.addEventListener("pointermove", event => showTip(item.dataset.tip, event.clientX, event.clientY));
  item.addEventListener("pointerleave", () => showTip("", 0, 0));
}

for (const button of all(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const curve of all(".curve", button.closest("section")))
      if (curve.dataset.series === button.dataset.series) curve.toggleAttribute("hidden", !shown);
  });
}

const [names, support, pictures] = ["names", "support", "pictures"].map(data);
const panel = document.getElementById("examples");

function element(tag, text, parent) {
  const made = parent.appendChild(document.createElement(tag));
  made.textContent = text;
  return made;
}

function describe(cell) {
  const [label, predicted] = cell.dataset.cell.split(",").map(Number);
  const n = Number(cell.dataset.n);
  const images = `${n.toLocaleString("en")} of ${support[label].toLocaleString("en")} (${(n / support[label] * 100).toFixed(2)}%)`;
  return label === predicted ? `${names[label]}, correct: ${images}` : `${names[label]} predicted as ${names[predicted]}: ${images}`;
}

function show(cell) {
  for (const other of all("[data-cell]")) other.toggleAttribute("aria-current", other.dataset.cell === cell.dataset.cell);
  const kept = pictures[cell.dataset.cell] ?? [];
  const [label, predicted] = cell.dataset.cell.split(",");
  panel.replaceChildren();
  element("h3", describe(cell), panel);
  const list = element("ul", "", panel);
  for (const { i, p, src } of kept) {
    const item = element("li", "", list);
    const image = element("img", "", item);
    image.src = src;
    image.alt = `image ${i}`;
    element("span", `confidence ${p}`, item);
    element("span", `image ${i.toLocaleString("en")}`, item);
  }
  const order = label === predicted ? "lowest confidence first" : "highest confidence first";
  const text = kept.length ? (kept.length < cell.dataset.n ? `${kept.length} of ${cell.dataset.n}, ${order}` : "") : "Its images did not fit into this page.";
  element("p", text, panel).className = "small";
}

const cells = all(".matrix button");
for (const cell of all("[data-cell]")) {
  cell.addEventListener("click", () => show(cell));
  if (!cells.includes(cell)) continue;
  cell.addEventListener("pointermove", event => showTip(describe(cell), event.clientX, event.clientY));
  cell.addEventListener("pointerleave", () => showTip("", 0, 0));
}
if (cells.length) {
  cells[0].tabIndex = 0;
  const place = cell => cell.dataset.cell.split(",").map(Number);
  cells[0].closest("table").addEventListener("keydown", event => {
    const move = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [1, -1], ArrowRight: [1, 1] }[event.key];
    const from = document.activeElement;
    if (!move || !from.dataset.cell) return;
    event.preventDefault();
    const [axis, way] = move, here = place(from);
    const ahead = cells.filter(cell => place(cell)[axis] * way > here[axis] * way && place(cell)[1 - axis] === here[1 - axis]);
    const next = way > 0 ? ahead[0] : ahead.at(-1);
    if (!next) return;
    from.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
const first = document.querySelector(".pairs [data-cell]") ?? cells[0];
if (first) show(first);

for (const slider of all("[data-opacity]"))
  slider.addEventListener("input", () => slider.closest("section").style.setProperty("--opacity", slider.value / 100));

for (const table of all(".sortable")) {
  const headings = all("thead th", table);
  const value = (row, column) => row.cells[column].textContent.replace(/[,%\s]/g, "");
  for (const button of all("thead button", table)) {
    button.addEventListener("click", () => {
      const heading = button.closest("th"), column = headings.indexOf(heading);
      const down = heading.getAttribute("aria-sort") !== "descending";
      for (const each of headings) each.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = new Intl.Collator("en", { numeric: true });
      const compare = (a, b) => {
        const [x, y] = [a, b].map(row => value(row, column));
        return x === "" || y === "" || isNaN(x) || isNaN(y) ? order.compare(x, y) : x - y;
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(a, b) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  }
}
