"use strict";
// Times as people write them, colours out of the style sheet, and the tooltip.

const UNITS = [["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]];
const DATA = JSON.parse(document.getElementById("data").textContent);
const WORDS = {
  run: "runs", poll: "polls in WFI", wait: "waits (runnable)", woken: "waits since a wake-up", yield: "waits after a yield",
  sleep: "blocked", offline: "offline", pause: "paused", suspend: "suspended",
};

/** A duration in its own unit, to the nanosecond. */
function duration(ns) {
  if (typeof ns === "string") return `${ns} ns`;
  const size = Math.abs(ns);
  const [unit, scale] = UNITS.find(([, one]) => size >= one) || UNITS[3];
  return `${Number((ns / scale).toFixed(scale === 1 ? 0 : Math.round(Math.log10(scale))))} ${unit}`;
}

/** A place on an axis whose ticks are a part of `span` ns apart. */
function timeText(ns, span) {
  const [unit, scale] = UNITS.find(([, one]) => Math.max(Math.abs(ns), span / 20) >= one) || UNITS[3];
  const digits = Math.max(0, Math.min(9, Math.ceil(Math.log10((20 * scale) / Math.max(span, 1)))));
  return ns === 0 ? "0" : `${Number((ns / scale).toFixed(digits))} ${unit}`;
}

/** The style sheet's colours, as they are now. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(`--${name}`).trim();
  const named = {};
  for (const state of Object.keys(WORDS)) named[state] = get(state);
  return {
    ink: get("ink"), quiet: get("quiet"), rule: get("rule"), lane: get("lane"), onThread: get("on-thread"), finding: get("finding"), directive: get("directive"),
    stranger: get("stranger"), states: named, threads: Array.from({ length: 8 }, (_, index) => get(`thread-${index}`)),
    lineTrue: get("line-true"), lineTold: get("line-told"), lineRead: get("line-read"), lineAccounted: get("line-accounted"),
    font: getComputedStyle(document.body).fontFamily,
  };
}

/** What Vega draws axes and titles with. */
function config(colors) {
  return {
    background: null,
    axis: { domainColor: colors.rule, gridColor: colors.rule, tickColor: colors.rule, labelColor: colors.quiet, titleColor: colors.quiet, labelFont: colors.font, titleFont: colors.font, labelFontSize: 11.5, titleFontWeight: "normal", titleFontSize: 12 },
    title: { color: colors.ink, font: colors.font },
  };
}

const tip = document.getElementById("tip");

/** Show lines of text beside a place; the first is bold. Only ever text, never markup. */
function showTip(lines, x, y) {
  tip.replaceChildren(...lines.map((line, index) => Object.assign(document.createElement(index ? "div" : "b"), { textContent: line })));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 12) : y + 18}px`;
}

function hideTip() {
  tip.hidden = true;
}

/** A Vega tooltip handler; `describe` makes lines of a datum and a pointer's event. */
function tooltips(describe) {
  return (_, event, __, value) => {
    const lines = value && describe(value, event);
    if (lines) showTip(lines, event.clientX, event.clientY);
    else hideTip();
  };
}
