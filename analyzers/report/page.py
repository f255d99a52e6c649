"""One HTML file out of the contents of one run or two: nothing in it is fetched, and the same traces give the same bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

from tracekit import __version__
from tracekit.analyzers.distribution import Distribution
from tracekit.analyzers.report import sections, wording
from tracekit.analyzers.report.bundle import library
from tracekit.analyzers.report.content import Content
from tracekit.analyzers.report.data import data_of
from tracekit.analyzers.report.histogram import Bin, aligned, histogram
from tracekit.analyzers.report.markup import Html, joined, tag, text

SCRIPTS = ("format.js", "timeline.js", "charts.js", "page.js")
SPECS = ("timeline", "curves", "bars")


def render(contents: list[Content], differences: Html | None = None) -> str:
    """The page. differences: what differs between two runs, as markup. Errors: InputError where the library is missing."""
    version, script = library()
    own = "\n".join(_asset(name) for name in SCRIPTS)
    errors = aligned(*(histogram(_steal(one).counts) for one in contents))
    latencies = aligned(*(histogram(one.latencies.counts) for one in contents))
    data = {
        "runs": [data_of(one, *bins) for one, *bins in zip(contents, errors, latencies, strict=True)],
        "specs": {name: json.loads(_asset(f"{name}.json")) for name in SPECS},
    }
    hashes = " ".join(f"'sha256-{_hash(one)}'" for one in (script, own))
    values = {
        "policy": f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:",
        "title": text("tracekit report: " + " and ".join(one.name for one in contents)),
        "style": _asset("page.css"),
        "body": _body(contents, errors, latencies, differences),
        "footer": text(f"tracekit {__version__}, Vega {version}. This page is complete: it loads nothing and sends nothing."),
        "data": _json(data),
        "library": script,
        "script": own,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return resources.files("tracekit.analyzers.report").joinpath("page", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(data: dict[str, Any]) -> str:
    """JSON that cannot end its script element."""
    out = json.dumps(data, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return out.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _steal(content: Content) -> Distribution:
    assert content.analysis.steal is not None
    return content.analysis.steal.entry_errors


def _body(contents: list[Content], errors: list[list[Bin]], latencies: list[list[Bin]], differences: Html | None) -> Html:
    """The sections in their order."""
    parts: list[Html] = [
        _section(
            "summary",
            "Summary",
            _each(contents, lambda one, _: joined([sections.verdict(one), sections.facts(one), sections.summary(one)])),
        ),
    ]
    if differences is not None:
        parts.append(_section("differences", "What differs", differences))
    parts += [
        _section("findings", "Findings", _each(contents, sections.findings)),
        _section("timeline", "Who ran, who waited", _timeline(contents)),
        _section("stolen", "Stolen time", _stolen(contents)),
        _section("errors", "Error of what was published", _bars(contents, errors, "error", "Error at guest entries, published minus true, absolute", _steal)),
        _section("latency", "Wake-up latency", _bars(contents, latencies, "latency", "From a vCPU's wake-up to its next run", lambda one: one.latencies)),
        _section("calls", "Hypercalls", _each(contents, lambda one, _: sections.calls(one))),
        _section("outside", "Directives and console", _each(contents, lambda one, _: joined([sections.directives(one), _console(one)]))),
    ]  # fmt: skip
    names = [("summary", "Summary"), *([("differences", "What differs")] if differences is not None else []), ("findings", "Findings"),
             ("timeline", "Timeline"), ("stolen", "Stolen time"), ("errors", "Errors"), ("latency", "Latency"), ("calls", "Hypercalls"),
             ("outside", "Directives")]  # fmt: skip
    links = joined(tag("a", label, href=f"#{anchor}") for anchor, label in names)
    runs = joined(
        tag("p", *_badge(contents, index), tag("code", one.name), class_="run-name") for index, one in enumerate(contents)
    )
    header = tag("header", tag("p", "tracekit report", class_="kicker"), tag("h1", _title(contents)), runs)
    return joined([header, tag("nav", links, aria_label="Sections"), tag("main", joined(parts), id="main")])


def _title(contents: list[Content]) -> str:
    guests = list(dict.fromkeys(str(one.manifest.get("scenario", {}).get("image") or "a run") for one in contents))
    return " and ".join(guests) if len(contents) == 1 or len(guests) > 1 else f"Two runs of {guests[0]}"


def _badge(contents: list[Content], index: int) -> list[Html]:
    return [tag("span", "AB"[index], class_="letter")] if len(contents) > 1 else []


def _section(anchor: str, title: str, content: Html) -> Html:
    return tag("section", tag("h2", title, id=f"{anchor}-title"), content, id=anchor, aria_labelledby=f"{anchor}-title")


def _each(contents: list[Content], make: Callable[[Content, int], Html]) -> Html:
    """One column for each run."""
    parts = [make(one, index) for index, one in enumerate(contents)]
    if len(parts) == 1:
        return parts[0]
    columns = (
        tag("div", tag("h3", *_badge(contents, index), tag("code", contents[index].name)), part)
        for index, part in enumerate(parts)
    )
    return tag("div", joined(columns), class_="pair")


def _timeline(contents: list[Content]) -> Html:
    """One timeline over the other, under one pair of controls: they share their time axis."""
    buttons = [
        ("in", "+", "Zoom in"),
        ("out", "−", "Zoom out"),
        ("left", "←", "Earlier"),
        ("right", "→", "Later"),
        ("reset", "Whole run", "Show the whole run"),
    ]
    controls = [
        tag("button", label, type="button", data_zoom=name, aria_label=title, title=title) for name, label, title in buttons
    ]
    help_ = tag(
        "p", "Drag to move, Ctrl and wheel (or pinch) to zoom, Shift and drag to zoom into a part. With the keyboard: arrows, + and −, 0 for all, "
        "J and K for the lane below and above, N and P for its next and previous interval.", class_="quiet", id="timeline-help",
    )  # fmt: skip
    plots = []
    for index, one in enumerate(contents):
        name = f"Timeline of {one.name}"
        plot = tag("div", class_="plot timeline", id=f"timeline-{index}", tabindex="0", role="application", aria_label=name, aria_describedby="timeline-help", data_plot="timeline", data_run=index)  # fmt: skip
        plots.append(
            tag(
                "div",
                *([tag("h3", *_badge(contents, index), tag("code", one.name))] if len(contents) > 1 else []),
                plot,
                sections.thinning(one),
            )
        )
    tables = _each(contents, _waits)
    span = tag("output", id="span", class_="span", aria_live="polite")
    return joined([tag("div", *controls, span, class_="controls"), sections.legend(contents), joined(plots), help_, tables])


def _waits(content: Content, run: int) -> Html:
    """The timeline's tables."""
    small = tag("div", tag("div", sections.waited_for(content)), tag("div", sections.states(content)), class_="tables")
    return joined([sections.waits(content, run), small])


def _stolen(contents: list[Content]) -> Html:
    items = [tag("li", tag("i", class_=f"line {name}", aria_hidden="true"), said) for name, said in wording.STEAL.items()]
    legend = tag("ul", joined(items), class_="legend", aria_label="Legend")
    plots = _each(contents, lambda one, run: joined([tag("div", class_="curves", data_plot="curves", data_run=run), tag("details", tag("summary", "As a table"), sections.over(one))]))  # fmt: skip
    note = tag("p", "Lines that agree lie on each other. The time axis follows the timeline above.", class_="quiet")
    return joined([legend, note, plots])


def _bars(
    contents: list[Content], bins: list[list[Bin]], kind: str, caption: str, pick: Callable[[Content], Distribution]
) -> Html:
    def one(content: Content, run: int) -> Html:
        plot = tag("div", class_="plot bars", data_plot="bars", data_kind=kind, data_run=run) if bins[run] else ""
        return tag("div", plot, sections.spread(caption, pick(content)), class_="beside")

    return _each(contents, one)


def _console(content: Content) -> Html:
    if not content.console.strip():
        return tag("p", "The guest printed nothing.", class_="quiet")
    return tag("details", tag("summary", "The end of the guest's console"), tag("pre", content.console, tabindex="0"))
