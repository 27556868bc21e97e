// The answer browser: a list to search and sort, and one question with its answers. The address after # names it.

const PAGE = 100; // entries of the list that are made at once

const { texts, models, metrics, samples: packed } = read("samples"); // a metric: [key, name, digits, scale]
const samples = packed.map(([history, question, reference, outputs, numbers], index) => ({
  number: index + 1,
  history: history.map((at) => texts[at]),
  question: texts[question],
  reference: texts[reference],
  answers: models.map((model, m) => ({
    model,
    text: texts[outputs[m]],
    ...Object.fromEntries(metrics.map(([key], n) => [key, numbers[m][n]])),
  })),
}));
const [BASE, SFT, PPO] = [0, 1, 2]; // without preferences there is no PPO
const sorts = {
  order: null,
  gain_sft: (s) => s.answers[SFT]["rouge-l"] - s.answers[BASE]["rouge-l"],
  ...(models[PPO] && {
    gain_ppo: (s) => s.answers[PPO]["rouge-l"] - s.answers[SFT]["rouge-l"],
    longer: (s) => s.answers[PPO].response_length - s.answers[SFT].response_length,
    reward: (s) => s.answers[PPO].reward,
    reward_gain: (s) => s.answers[PPO].reward - s.answers[SFT].reward,
  }),
};

const place = document.getElementById("browser");
const state = { search: "", sort: "order", descending: true, shown: PAGE, number: 0 };
let found = samples;

const searchable = (s) => (s.searchable ??= [...s.history, s.question, s.reference, ...s.answers.map((a) => a.text)].join("\n").toLowerCase());
const signed = (value, digits) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
const plain = (value, digits) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
const wanted = () => state.search.trim().toLowerCase().split(/\s+/).filter(Boolean);

function select() {
  found = samples.filter((s) => wanted().every((word) => searchable(s).includes(word)));
  const key = sorts[state.sort];
  const sign = state.descending ? -1 : 1;
  if (key) found.sort((a, b) => sign * (key(a) - key(b)) || a.number - b.number);
}

// What stays while the list changes: made anew only for another language, so that the cursor stays in the search.
function build() {
  const option = (value, key, chosen) => make("option", chosen ? { value, selected: "" } : { value }, say(key));
  const input = make("input", { type: "search", placeholder: say("browser.placeholder"), autocomplete: "off" });
  input.value = state.search;
  const sort = make("select", { id: "sort" }, ...Object.keys(sorts).map((key) => option(key, `browser.${key}`, key === state.sort)));
  const direction = make("select", {}, option("down", "browser.descending", state.descending), option("up", "browser.ascending", !state.descending));
  const count = make("output", { "aria-live": "polite" });
  const list = make("nav", { class: "list", "aria-label": say("browser.list") });
  const detail = make("article", { class: "detail" });
  const label = (key, control, kind) => make("label", { class: kind }, say(key), control);
  const download = make("button", { type: "button", title: say("browser.csv") }, say("browser.download"));
  download.addEventListener("click", save);

  function refresh() {
    state.shown = PAGE;
    direction.disabled = state.sort === "order";
    select();
    fill();
  }
  // After a search or another order the first of the list is the chosen one.
  function chooseFirst() {
    refresh();
    state.number = found[0]?.number ?? 0;
    show();
  }
  function fill() {
    count.textContent = say("browser.found", { count: found.length, total: samples.length });
    const items = make("ol");
    for (const s of found.slice(0, state.shown)) {
      const key = sorts[state.sort];
      const digits = state.sort === "longer" ? 0 : 2;
      const value = !key ? "" : state.sort === "reward" ? plain(key(s), digits) : signed(key(s), digits);
      const link = make(
        "a", { href: `#sample-${s.number}`, tabindex: "-1" },
        make("span", { class: "at" }, String(s.number)), make("span", { class: "asked", dir: "auto", lang: "zh" }, s.question), make("span", { class: "key" }, value),
      );
      items.append(make("li", {}, link));
    }
    list.replaceChildren(found.length ? items : make("p", {}, say("browser.none")));
    if (found.length > state.shown) {
      const more = make("button", { type: "button" }, say("browser.more"));
      more.addEventListener("click", () => {
        const first = state.shown;
        state.shown += PAGE;
        fill();
        list.querySelectorAll("a")[first].focus();
      });
      list.append(more);
    }
    mark(list);
  }
  // One stop for the Tab key: within the list the arrows move, so that the answers are not a hundred stops away.
  list.addEventListener("keydown", (event) => {
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    if (links[to]) stop(links, links[to]).focus();
  });
  input.addEventListener("input", () => { state.search = input.value; chooseFirst(); });
  sort.addEventListener("change", () => { state.sort = sort.value; chooseFirst(); });
  direction.addEventListener("change", () => { state.descending = direction.value === "down"; chooseFirst(); });

  place.replaceChildren(
    make("div", { class: "controls" }, label("browser.search", input, "search"), label("browser.sort", sort), label("browser.direction", direction), count, download),
    make("div", { class: "browser" }, list, detail),
  );
  refresh();
  show();
}

// A text with the searched words marked, and with the characters that `before` lacks.
function spoken(text, before) {
  if (!text) return make("p", { class: "text none" }, say("browser.empty"));
  const hits = hit(text);
  const added = before === undefined ? new Set() : additions(before, text);
  const parts = [];
  for (let at = 0, end; at < text.length; at = end) {
    const kind = (i) => (hits.has(i) ? "mark" : added.has(i) ? "ins" : "");
    for (end = at + 1; end < text.length && kind(end) === kind(at); ) end += 1;
    const part = text.slice(at, end);
    parts.push(kind(at) ? make(kind(at), {}, part) : part);
  }
  return make("p", { class: "text", dir: "auto", lang: "zh" }, ...parts); // for the voice and the glyphs
}

// Places of the characters that belong to a searched word.
function hit(text) {
  const places = new Set();
  const lower = text.toLowerCase();
  if (lower.length !== text.length) return places; // a letter whose lower case is longer: the places do not fit
  for (const word of wanted()) {
    for (let at = lower.indexOf(word); at >= 0; at = lower.indexOf(word, at + 1)) {
      for (let i = at; i < at + word.length; i += 1) places.add(i);
    }
  }
  return places;
}

// Places of the characters of `after` that are not in the longest common subsequence with `before`.
function additions(before, after) {
  const common = Array.from({ length: before.length + 1 }, () => new Uint16Array(after.length + 1));
  for (let i = before.length - 1; i >= 0; i -= 1) {
    for (let j = after.length - 1; j >= 0; j -= 1) {
      common[i][j] = before[i] === after[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const places = new Set();
  for (let i = 0, j = 0; j < after.length; ) {
    if (i < before.length && before[i] === after[j]) { i += 1; j += 1; }
    else if (i < before.length && common[i + 1][j] >= common[i][j + 1]) i += 1;
    else { places.add(j); j += 1; }
  }
  return places;
}

// The questions of the list as a CSV file.
function save() {
  const columns = models.flatMap((model) => [model, ...metrics.map(([key]) => `${model}.${key}`)]);
  const rows = found.map((s) => [
    s.number, s.history.join("\n"), s.question, s.reference,
    ...s.answers.flatMap((a) => [a.text, ...metrics.map(([key]) => a[key])]),
  ]);
  saveCsv("answers.csv", [["number", "history", "question", "doctor", ...columns], ...rows]);
}

// The chosen question; the steps beside its number follow the list as it is searched and sorted now.
function show() {
  const sample = samples[state.number - 1];
  const detail = place.querySelector(".detail");
  detail.hidden = !sample;
  if (!sample) return;
  const at = found.indexOf(sample);
  const stepped = [...detail.querySelectorAll(".step")].indexOf(document.activeElement);
  const step = (key, other) => make("a", { class: "step", href: other ? `#sample-${other.number}` : undefined }, say(key));
  const heading = make("h3", { tabindex: "-1" }, say("browser.number", { number: sample.number }));
  const parts = [make("div", { class: "top" }, heading, step("browser.previous", found[at - 1]), step("browser.next", found[at + 1]))];
  if (sample.history.length) {
    const turns = sample.history.map((text, i) => {
      const who = i % 2 ? "doctor" : "patient";
      return make("div", { class: `turn ${who}` }, make("b", {}, say(`browser.${who}`)), spoken(text));
    });
    parts.push(make("h4", {}, say("browser.history")), make("div", { class: "turns" }, ...turns));
  }
  parts.push(
    make("h4", {}, say("browser.question")), make("div", { class: "quote question" }, spoken(sample.question)),
    make("h4", {}, say("browser.reference")), make("div", { class: "quote reference" }, spoken(sample.reference)),
    make("div", { class: "models", style: `--models: ${models.length}` }, ...sample.answers.map((a) => answer(a, sample))),
  );
  detail.replaceChildren(...parts);
  detail.querySelectorAll(".step")[stepped]?.focus(); // so that Next, Next, Next works from the keyboard
  mark(place.querySelector(".list"));
}

// The chosen question's entry is the current one, and the Tab key's stop; the first entry is, where that is not shown.
function mark(list) {
  const links = [...list.querySelectorAll("a")];
  for (const link of links) {
    if (link.hash === `#sample-${state.number}`) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  stop(links, links.find((link) => link.hasAttribute("aria-current")) ?? links[0]);
}

function stop(links, chosen) {
  for (const link of links) link.tabIndex = link === chosen ? 0 : -1;
  return chosen;
}

function answer(a, sample) {
  const shown = metrics.filter(([key]) => key !== "eos" && a[key] !== null);
  const value = (key, digits, scale) => (scale === 1 && digits === 1 ? String(a[key]) : plain(a[key] * scale, key === "reward" ? 3 : digits)); // a length is whole
  const rows = shown.map(([key, name, digits, scale]) => [say(`metric.${name}`), value(key, digits, scale)]);
  const list = make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  list.append(make("dt", { class: "ending" }, say(a.eos ? "browser.ended" : "browser.cut")));
  const before = a.model === "ppo" ? sample.answers[SFT].text : undefined;
  const text = spoken(a.text, before);
  if (text.querySelector("ins")) list.append(make("dt", { class: "ending" }, make("ins", {}, say("browser.differs"))));
  const card = make("article", {}, make("h4", {}, say(`model.${a.model}`)), text, list);
  card.style.setProperty("--model", `var(--${a.model})`);
  return card;
}

// #sample-12 opens question 12. At the first opening the page goes there as well.
function follow() {
  const number = Number(/^#sample-(\d+)$/.exec(location.hash)?.[1]);
  if (!samples[number - 1]) return false;
  state.number = number;
  show();
  const detail = place.querySelector(".detail");
  const { top } = detail.getBoundingClientRect();
  if (top < 0 || top > innerHeight * 0.7) detail.scrollIntoView({ block: "start" });
  if (!place.contains(document.activeElement) || !document.activeElement.isConnected) detail.querySelector("h3").focus({ preventScroll: true });
  return true;
}

state.number = 1;
changed.push(build);
look();
follow();
addEventListener("hashchange", follow);
