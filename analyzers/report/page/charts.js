// Views of Vega: they are made anew when the window or the colours change, and share one span of time.

const shared = { whole: [Math.min(...DATA.runs.map((run) => run.begin)), Math.max(...DATA.runs.map((run) => run.end))], views: [], timelines: [] };
shared.span = [...shared.whole];

/** A view, before its data. Expressions are interpreted, not compiled: the page allows no `eval`. */
async function make(name, element, width, height, colors, describe, renderer, data = {}) {
  const spec = structuredClone(DATA.specs[name]);
  spec.width = Math.max(120, width - spec.padding.left - spec.padding.right);
  spec.height = height;
  spec.signals.find((signal) => signal.name === "theme").value = colors;
  for (const one of spec.data) if (data[one.name]) one.values = data[one.name];
  const { view } = await vegaEmbed(element, spec, {
    mode: "vega", renderer, actions: false, ast: true, defaultStyle: false, hover: true, tooltip: tooltips(describe), config: config(colors), expressionFunctions: { timeText },
  });
  return view;
}

/** One run's timeline. */
async function drawTimeline(element, colors) {
  const run = DATA.runs[Number(element.dataset.run)];
  const lanes = element.lanes || (element.lanes = lanesOf(run));
  const last = lanes[lanes.length - 1];
  const view = await make("timeline", element, element.clientWidth, last.y + last.height + 4, colors, (datum, event) => describe(run, datum, timeAt(timelineOf(element), event.clientX)), "canvas");
  const marks = run.marks.map((mark) => ({
    ...mark, fill: mark.kind === "finding" ? colors.finding : colors.directive, weight: mark.kind === "finding" ? 2 : 1, dash: mark.kind === "finding" ? [1, 0] : [3, 3],
    shape: mark.kind === "finding" ? "triangle-down" : "diamond", size: mark.kind === "finding" ? 110 : 45,
  })).reverse(); // findings above directives
  view.data("lanes", lanes.map(({ name, y, height }) => ({ name, y, height })));
  const refresh = () => {
    const [from, to] = shared.span;
    const { items, names, shares } = itemsOf(run, lanes, shared.span, view.width(), colors);
    view.signal("span", shared.span).data("items", items).data("shares", shares).data("names", names).data("marks", marks.filter((mark) => mark.at >= from && mark.at <= to));
    view.data("cursor", element.cursor ? [element.cursor] : []);
    return view.runAsync();
  };
  shared.views.push({ view, refresh });
  shared.timelines.push({ element, view, run, lanes });
  return refresh();
}

/** One run's stolen time: a plot for each vCPU. */
function drawCurves(element, colors) {
  const run = DATA.runs[Number(element.dataset.run)];
  element.replaceChildren();
  const kinds = ["true", "told", "read", "accounted"];
  const words = { true: "true", told: "published", read: "seen", accounted: "accounted", untold: "not yet told", error: "greatest error" };
  const boxes = run.curves.map(() => element.appendChild(Object.assign(document.createElement("div"), { className: "plot" })));
  return Promise.all(run.curves.map(async (curve, index) => {
    const points = kinds.flatMap((kind) => curve.at.flatMap((at, step) => (typeof curve[kind][step] === "number" ? [{ kind, at, value: curve[kind][step] }] : [])));
    const steps = curve.at.map((at, step) => Object.fromEntries([["at", at], ["begin", curve.begin[step]], ...Object.keys(words).map((kind) => [kind, curve[kind][step]])]));
    const values = points.map((point) => point.value);
    const lines = (datum) => [
      `vCPU ${curve.vcpu} at ${duration(datum.at)}`,
      ...Object.keys(words).filter((kind) => datum[kind] !== null).map((kind) => `${words[kind]} ${duration(datum[kind])}`),
    ];
    const name = `vCPU ${curve.vcpu}${values.length ? "" : ": it never asked for its stolen time"}`;
    const view = await make("curves", boxes[index], boxes[index].clientWidth, 150, colors, lines, "svg", { points, steps });
    view.description(`Stolen time of vCPU ${curve.vcpu} over virtual time: true, published, seen and accounted. The table below says the same.`);
    view.signal("name", name).signal("range", [values.reduce((a, b) => Math.min(a, b), 0), values.reduce((a, b) => Math.max(a, b), 1)]);
      const refresh = () => view.signal("span", shared.span).runAsync();
    shared.views.push({ view, refresh });
    return refresh();
  }));
}

/** A distribution. */
async function drawBars(element, colors) {
  const run = DATA.runs[Number(element.dataset.run)];
  const kind = element.dataset.kind;
  element.style.maxWidth = `${Math.max(300, 90 + 84 * run.bars[kind].length)}px`;
  const view = await make("bars", element, element.clientWidth, 190, colors, (datum) => [datum.text, `${datum.count.toLocaleString("en-US")} time${datum.count === 1 ? "" : "s"}`], "svg", { bins: run.bars[kind] });
  view.description(`Distribution of ${kind === "error" ? "errors" : "wake-up latencies"}. The table beside it has the percentiles.`);
  view.signal("fill", kind === "error" ? colors.lineTold : colors.states.woken);
  shared.views.push({ view, refresh: () => Promise.resolve() });
  return view.runAsync();
}

const DRAW = { timeline: drawTimeline, curves: drawCurves, bars: drawBars };

/** Everything, anew. */
async function drawAll() {
  for (const { view } of shared.views) view.finalize();
  Object.assign(shared, { views: [], timelines: [] });
  hideTip();
  const colors = theme();
  for (const element of document.querySelectorAll("[data-plot]")) {
    element.replaceChildren();
    await DRAW[element.dataset.plot](element, colors);
  }
  tellSpan();
  document.documentElement.dataset.drawn = String(performance.now());
}

function tellSpan() {
  const [from, to] = shared.span;
  document.getElementById("span").textContent = `${duration(Math.round(from))} to ${duration(Math.round(to))} (${duration(Math.round(to - from))})`;
}

let isAsked = false;

/** Show another part of the time, at the next frame. */
function setSpan(from, to) {
  const [begin, end] = shared.whole;
  const length = Math.min(Math.max(to - from, 100), Math.max(end - begin, 1));
  const start = Math.min(Math.max(from, begin), end - length);
  shared.span = [start, start + length];
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(async () => {
    isAsked = false;
    tellSpan();
    await Promise.all(shared.views.map((one) => one.refresh()));
    document.documentElement.dataset.span = shared.span.join(" ");
  });
}

/** Zoom by a factor around a time. */
function zoom(factor, around = (shared.span[0] + shared.span[1]) / 2) {
  const [from, to] = shared.span;
  setSpan(around - (around - from) * factor, around + (to - around) * factor);
}
