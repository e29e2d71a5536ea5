// Draws a session's metrics, what it uses of GPUs, and the scores of a model's versions, with uPlot. The page carries the
// numbers as JSON.
"use strict";

const MOST = 12; // charts
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]; // between two versions
const made = new Map();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// series: [[label, values, colour], ...]; apart: the steps that no line leads to from the step before
function chart(title, below, steps, series, into, apart) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  const box = document.createElement("div");
  box.className = "chart";
  into.append(box);
  const plot = new uPlot(
    {
      title,
      width: box.clientWidth || 400,
      height: 220,
      // Bytes and percent begin at nothing; a metric's curve fills its chart.
      scales: { x: { time: false }, ...(below === "seconds" && { y: { range: (_, __, most) => [0, most * 1.05 || 1] } }) },
      axes: [{ ...axis, label: below, ...(below === "version" && { incrs: WHOLE }) }, { ...axis, size: 60 }],
      series: [
        { label: below },
        ...series.map(([label, , name]) => ({
          label,
          stroke: colour(name),
          width: 2,
          points: { show: apart.length > 0 || steps.length < 60 },
          ...(apart.length > 0 && { gaps: (plot) => between(plot, steps, apart) }),
        })),
      ],
    },
    [steps, ...series.map(([, values]) => values)],
    box,
  );
  return { plot, box, last: steps.at(-1) };
}

// Where the line is left out, in pixels.
function between(plot, steps, apart) {
  return apart.map((step) => [steps[steps.indexOf(step) - 1], step].map((one) => plot.valToPos(one, "x", true)));
}

function show(title, below, steps, series, into, apart = []) {
  const key = `${below} ${title}`;
  const known = made.get(key);
  if (!known) made.set(key, chart(title, below, steps, series, into, apart));
  else if (known.last !== steps.at(-1)) {
    known.last = steps.at(-1);
    known.plot.setData([steps, ...series.map(([, values]) => values)]);
  }
}

function draw() {
  const source = document.querySelector("[data-curves]");
  const place = document.querySelector("[data-charts]");
  const used = document.querySelector("[data-usage-charts]");
  if (!source || !place) return;
  const curves = JSON.parse(source.dataset.curves).filter(([, steps]) => steps.length > 1).slice(0, MOST);
  place.hidden = curves.length === 0;
  for (const [name, steps, values, apart] of curves) {
    show(name, source.dataset.below || "step", steps, [[name, values, "--used"]], place.querySelector(".charts"), apart);
  }
  if (!used) return;
  const usage = JSON.parse(source.dataset.usage);
  used.hidden = usage.length === 0;
  for (const [title, seconds, series] of usage) {
    const coloured = series.map(([label, values], number) => [
      label,
      values,
      series.length > 1 && number === 0 ? "--reserved" : "--used",
    ]);
    show(title, "seconds", seconds, coloured, used.querySelector(".charts"));
  }
}

function again() {
  for (const { plot, box } of made.values()) {
    plot.destroy();
    box.remove();
  }
  made.clear();
  draw();
}

document.addEventListener("fresh", draw);
window.addEventListener("resize", () => {
  for (const { plot, box } of made.values()) plot.setSize({ width: box.clientWidth, height: 220 });
});
new MutationObserver(again).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
draw();
