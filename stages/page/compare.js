// The answers: search, order, and the table as a CSV file. Without this file all of them can still be read.

const rows = [...document.querySelectorAll(".row")];
const list = document.getElementById("rows");
const search = document.getElementById("search");
const sort = document.getElementById("sort");

function show() {
  const wanted = search.value.trim().toLowerCase();
  const ranges = [];
  let count = 0;
  for (const row of rows) {
    const texts = [...row.querySelectorAll(".text:not([data-empty])")].filter((text) => text.textContent.toLowerCase().includes(wanted));
    row.hidden = wanted !== "" && texts.length === 0;
    count += !row.hidden;
    if (wanted) texts.forEach((text) => ranges.push(...hits(text, wanted)));
  }
  globalThis.CSS?.highlights?.set("found", new Highlight(...ranges));
  document.getElementById("found").textContent = count ? say("browser.found", { count, total: rows.length }) : say("browser.none");
}

// Every place of `wanted` in the element, also where a mark begins or ends inside of it.
function hits(element, wanted) {
  const nodes = [];
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let length = 0;
  while (walker.nextNode()) {
    nodes.push([walker.currentNode, length]);
    length += walker.currentNode.data.length;
  }
  const text = element.textContent.toLowerCase();
  if (text.length !== length) return []; // a letter whose lower case is longer
  const place = (at, end) => nodes.findLast(([, start]) => (end ? start < at : start <= at));
  const found = [];
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
    const range = new Range();
    const [first, start] = place(at, false);
    const [last, before] = place(at + wanted.length, true);
    range.setStart(first, at - start);
    range.setEnd(last, at + wanted.length - before);
    found.push(range);
  }
  return found;
}

function order() {
  const key = sort.value;
  const value = (row) => (key === "number" ? -Number(row.dataset.number) : Math.abs(Number(row.getAttribute(`data-${key}`))));
  rows.sort((a, b) => value(b) - value(a) || a.dataset.number - b.dataset.number);
  list.append(...rows);
}

function csv() {
  const names = [...new Set([...list.querySelectorAll("[data-metric]")].map((each) => each.dataset.metric))];
  const lines = [["number", "run", "question", "doctor", "answer", ...names]];
  for (const row of rows.filter((each) => !each.hidden)) {
    const [question, doctor] = [".asked", ".reference"].map((name) => row.querySelector(name).textContent);
    for (const side of row.querySelectorAll("[data-run]")) {
      const text = side.querySelector(".answer-text:not([data-empty])")?.textContent ?? "";
      const numbers = names.map((name) => side.querySelector(`[data-metric="${name}"]`)?.textContent.replace("−", "-"));
      lines.push([Number(row.dataset.number), side.dataset.run, question, doctor, text, ...numbers.map((each) => (each ? Number(each) : ""))]);
    }
  }
  saveCsv("answers.csv", lines);
}

search.addEventListener("input", show);
sort.addEventListener("change", order);
document.getElementById("csv").addEventListener("click", csv);
changed.push(() => {
  search.placeholder = say("browser.placeholder");
  for (const option of sort.options) option.textContent = say(option.dataset.say);
  show();
});
look();
