// Draws a session's metrics with uPlot: a chart for each, whose numbers the page carries as JSON.
"use strict";

const MOST = 12; // charts
const made = new Map();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function chart(name, data, into) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  const box = document.createElement("div");
  box.className = "chart";
  into.append(box);
  const plot = new uPlot(
    {
      title: name,
      width: box.clientWidth || 400,
      height: 220,
      scales: { x: { time: false } },
      axes: [{ ...axis, label: "step" }, { ...axis, size: 60 }],
      series: [
        { label: "step" },
        { label: name, stroke: colour("--used"), width: 2, points: { show: data[0].length < 60 } },
      ],
    },
    data,
    box,
  );
  return { plot, box };
}

function draw() {
  const source = document.querySelector("[data-curves]");
  const place = document.querySelector("[data-charts]");
  if (!source || !place) return;
  const curves = JSON.parse(source.dataset.curves).filter(([, steps]) => steps.length > 1).slice(0, MOST);
  place.hidden = curves.length === 0;
  for (const [name, steps, values] of curves) {
    const known = made.get(name);
    if (!known) made.set(name, { ...chart(name, [steps, values], place.querySelector(".charts")), size: steps.length });
    else if (known.size !== steps.length) {
      known.size = steps.length;
      known.plot.setData([steps, values]);
    }
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
