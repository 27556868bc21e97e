// Figures. Each panel says what it shows; here it gets colours, a language, and its place on the screen. A panel is
// drawn when it comes near the screen, and plotly itself is read when the first one does: the page opens at once.

const { columns, panels } = read("panels");
for (const { traces } of Object.values(panels)) {
  for (const t of traces) [t.x, t.y] = [columns[t.x], columns[t.y]];
}
const drawn = new Set();

function plotly() {
  if (!window.Plotly) {
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }
  return window.Plotly;
}

function colour(name) {
  return getComputedStyle(root).getPropertyValue(`--${name}`).trim();
}

function faded(hex, share) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${share})`;
}

// A style's look: what plotly calls it. `c` is the colour of what the trace stands for.
const styles = {
  raw: (t, c) => ({ mode: "lines", line: { color: faded(c, 0.38), width: 1.2 } }),
  smooth: (t, c) => ({ mode: "lines", line: { color: c, width: 2.4 } }),
  trail: (t, c) => ({ mode: "lines+markers", line: { color: faded(c, 0.7), width: 1.6 }, marker: { color: faded(c, 0.7), size: 4 } }),
  eval: (t, c) => ({ mode: "lines+markers", line: { color: c, width: 1.6, dash: "dot" }, marker: { color: c, size: 7 } }),
  outline: (t, c) => ({ mode: "lines", line: { color: c, width: 2, shape: "hv" }, fill: "tozeroy", fillcolor: faded(c, 0.1) }),
  guide: (t, c) => ({ mode: "lines", line: { color: c, width: 2, dash: "dash" } }),
  points: (t, c) => ({
    mode: "markers",
    marker: { color: faded(c, 0.55), size: 6, symbol: { base: "square", sft: "circle", ppo: "triangle-up" }[t.color] },
    text: t.samples.map((number) => `${say("chart.sample")} ${number}`),
    customdata: t.samples,
  }),
  path: (t, c) => ({
    mode: "markers",
    marker: { color: t.steps, size: 7, colorscale: [[0, faded(c, 0.18)], [1, c]], line: { color: faded(c, 0.6), width: 0.6 } },
    text: t.steps.map((step) => String(step)),
  }),
  published: (t) => ({
    mode: "markers",
    marker: { symbol: "diamond", size: 10, color: colour("card"), line: { color: colour("ink"), width: 1.8 } },
  }),
  measured: (t, c) => ({
    mode: "lines+markers",
    line: { color: faded(c, 0.5), width: 1.5 },
    marker: { color: c, size: 9 },
    text: t.margins.map((margins) => `${say("chart.margins")} ${margins}`),
    error_y: whiskers(t),
  }),
  bar: (t, c) => ({ type: "bar", marker: { color: c }, error_y: whiskers(t), text: t.counts?.map((n) => `n = ${n}`), textposition: "none" }),
};

function whiskers(trace) {
  return { type: "data", symmetric: false, array: trace.above, arrayminus: trace.below, color: colour("ink"), thickness: 1.4, width: 4 };
}

function trace(t, panel) {
  const given = styles[t.style](t, colour(t.color));
  const group = t.group ? { offsetgroup: t.group } : {};
  return {
    type: "scatter",
    ...given,
    ...group,
    x: panel.names ? t.x.map((key) => wrapped(say(key))) : t.x,
    y: t.y,
    name: say(t.label),
    showlegend: !t.unlisted,
    cliponaxis: false, // a point at the edge is drawn whole
    legendgroup: t.style === "published" ? "published" : undefined,
    hovertemplate: given.text ? `<b>${say(t.label)}</b>, %{text}<br>${say(panel.x)}: %{x}<br>${say(panel.y)}: %{y}<extra></extra>` : undefined,
    connectgaps: false,
  };
}

// A name below a bar, broken between words so that it stands upright.
function wrapped(name) {
  const lines = [""];
  for (const word of name.split(" ")) {
    const line = lines.at(-1);
    if (line && line.length + word.length > 9) lines.push(word);
    else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  return lines.join("<br>");
}

function axis(key, percent) {
  return {
    title: { text: say(key), font: { size: 12, color: colour("soft") }, standoff: 8 },
    gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"),
    tickfont: { color: colour("soft"), size: 11 },
    tickformat: percent ? ".1~%" : undefined,
    automargin: true, nticks: 7, exponentformat: "power",
  };
}

function layout(panel) {
  const overSteps = panel.x === "axis.step";
  const categories = panel.x === "axis.none";
  const lines = panel.zero ? [{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: colour("ink"), width: 1.4, dash: "dash" } }] : [];
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: colour("ink"), size: 12 },
    margin: { l: 48, r: 10, t: 8, b: 36 },
    xaxis: { ...axis(panel.x, panel.x_percent), showgrid: !categories, type: categories ? "category" : "linear", tickangle: categories ? 0 : "auto" },
    yaxis: { ...axis(panel.y, panel.percent), rangemode: panel.percent || categories ? "tozero" : "normal" },
    barmode: panel.names ? "overlay" : "group", scattermode: panel.names ? "overlay" : "group", bargap: panel.names ? 0.45 : 0.25,
    showlegend: !panel.no_legend && !panel.title,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 }, itemclick: "toggle" },
    hovermode: overSteps ? "x unified" : "closest",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") }, namelength: -1 },
    shapes: lines,
    // a finger scrolls the page; a mouse may zoom
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
  };
}

function draw(plot) {
  const panel = panels[plot.dataset.panel];
  const empty = panel.traces.every((t) => t.y.every((value) => value === null));
  plotly().react(plot, empty ? [] : panel.traces.map((t) => trace(t, panel)), layout(panel), { displayModeBar: false, responsive: true });
  if (!drawn.has(plot)) {
    drawn.add(plot);
    plot.on("plotly_click", ({ points: [point] }) => {
      if (point?.customdata) location.hash = `#sample-${point.customdata}`;
    });
  }
}

const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      near.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "400px" });
const plots = [...document.querySelectorAll(".plot")];
for (const plot of plots) near.observe(plot);
addEventListener("beforeprint", () => plots.filter((plot) => plot.offsetParent && !drawn.has(plot)).forEach(draw));
changed.push(() => [...drawn].forEach(draw));

// The numbers behind a figure, as a table: for a reader who cannot see the drawing, and for one who takes them along.
function numbers(details) {
  details.querySelectorAll(".scroll, .save").forEach((each) => each.remove());
  if (!details.open) return;
  const { figure } = details.dataset;
  const head = ["chart.series", "x", "y", "chart.low", "chart.high"].map((key) => (words[key] ? say(key) : key));
  const rows = Object.entries(panels).filter(([name]) => name.replace(/-\d+$/, "") === figure).flatMap(([, panel]) => panel.traces.flatMap((t) => {
    const series = panel.title ? `${say(panel.title)}: ${say(t.label)}` : say(t.label);
    return t.x.map((x, i) => {
      const ends = t.above ? [t.y[i] - t.below[i], t.y[i] + t.above[i]].map((end) => Number(end.toPrecision(5))) : ["", ""];
      return [series, panel.names ? say(x) : x, t.y[i] ?? "", ...ends];
    });
  }));
  const button = (key, act) => {
    const made = make("button", { type: "button" }, say(key));
    made.addEventListener("click", act);
    return made;
  };
  const line = (tag, cells, more = {}) => make("tr", {}, ...cells.map((cell) => make(tag, more, String(cell))));
  const table = make("table", {}, make("thead", {}, line("th", head, { scope: "col" })), make("tbody", {}, ...rows.map((row) => line("td", row))));
  const label = document.getElementById(`heading-${figure}`).innerText;
  details.append(
    make("div", { class: "save" }, button("browser.download", () => saveCsv(`${figure}.csv`, [head, ...rows])), button("chart.png", () => saveImages(details, label))),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table),
  );
}

// Each drawing of the figure as a PNG file, on the card's ground and under its name, at twice the size on the screen.
async function saveImages(details, label) {
  for (const plot of details.closest("figure").querySelectorAll(".plot")) {
    draw(plot);
    const { title } = panels[plot.dataset.panel];
    const text = title ? `${label}: ${say(title)}` : label;
    const framed = { ...plot.layout, paper_bgcolor: colour("card"), title: { text, font: { size: 14 }, x: 0.02, y: 0.98, yanchor: "top" } };
    framed.margin = { ...framed.margin, t: framed.showlegend ? 80 : 40 };
    const size = { width: plot.clientWidth, height: plot.clientHeight + framed.margin.t, scale: 2 };
    await plotly().downloadImage({ data: plot.data, layout: framed }, { format: "png", filename: plot.dataset.panel, ...size });
  }
}
for (const details of document.querySelectorAll(".numbers")) details.addEventListener("toggle", () => numbers(details));
changed.push(() => document.querySelectorAll(".numbers[open]").forEach(numbers));
