// Curves of all metrics in a served report: hover tells values, dragging zooms, a double click zooms back.
"use strict";
const curves = new Map(); // name of a metric -> its chart
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function runningMean(values, window) {
  const last = [];
  return values.map(value => {
    if (value === null) return null;
    last.push(value);
    if (last.length > window) last.shift();
    return last.reduce((sum, one) => sum + one, 0) / last.length;
  });
}

function short(value) {
  return value == null ? "-" : Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(4);
}

function makeCurve(metric, data) {
  const home = document.getElementById("curves");
  const place = home.appendChild(document.createElement("div"));
  const label = metric.unit ? `${metric.title}, ${metric.unit}` : metric.title;
  place.setAttribute("role", "group");
  place.setAttribute("aria-label", `${label}, by step`);
  const values = (_, splits) => splits.map(value => value === null ? "" : Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 8 }));
  const axis = { values, stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false } };
  const size = () => ({ width: place.clientWidth, height: 170 });
  const chart = new uPlot({
    ...size(),
    title: label,
    scales: { x: { time: false } },
    axes: [{ ...axis, size: 30 }, { ...axis, size: 62 }],
    cursor: { sync: { key: "steps" } },
    series: [
      { label: "step", value: (_, value) => short(value) },
      { label: "value", stroke: colour("--soft"), width: 0.6, value: (_, value) => short(value) },
      { label: "running mean", stroke: colour("--c0"), width: 2, value: (_, value) => short(value) },
    ],
  }, data, place);
  new ResizeObserver(() => chart.setSize(size())).observe(place);
  return chart;
}

function isZoomed(chart) {
  const { min, max } = chart.scales.x, x = chart.data[0];
  return x.length > 1 && (min > x[0] || max < x[x.length - 1]);
}

function drawCurves() {
  const steps = JSON.parse(document.getElementById("steps").textContent);
  for (const metric of steps.metrics) {
    const data = [steps.x, metric.values, runningMean(metric.values, Math.max(1, Math.floor(steps.x.length / 30)))];
    const chart = curves.get(metric.name);
    if (!chart) curves.set(metric.name, makeCurve(metric, data));
    else if (isZoomed(chart)) { chart.setData(data, false); chart.redraw(); }
    else chart.setData(data);
  }
}
drawCurves();
