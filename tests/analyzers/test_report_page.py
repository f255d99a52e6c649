"""The report's page in a real Chromium: it renders, answers the hand and the keyboard, logs nothing and asks nobody for anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from fault_runs import with_faults
from handmade import Handmade
from support import busy_host, recorded, scenario

from tracekit.analyzers.report import thinning
from tracekit.analyzers.report.make import page_of
from tracekit.recorder.record import record

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="PEER MISSING: no chromium; the report's page is looked at by nobody")

LEFT, TOP, LANE = 92, 22, 34  # of the timeline, px: page/timeline.json and timeline.js


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good run, and the same beside one with a fault."""
    folder = tmp_path_factory.mktemp("pages")
    recorded(folder / "good.tkt", "steal", host=busy_host())
    record(with_faults(scenario("steal", host=busy_host()), "wrong-unit"), folder / "bad.tkt")
    names = {"one": ["good.tkt"], "two": ["good.tkt", "bad.tkt"]}
    for name, traces in names.items():
        (folder / f"{name}.html").write_text(page_of([folder / one for one in traces]))
    return {name: folder / f"{name}.html" for name in names}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    with Browser() as one:
        yield one


def opened(browser: Browser, page: Path, width: int = 1280, *, is_dark: bool = False) -> None:
    """A page, drawn, in a window of its own size."""
    browser.said.clear()
    browser.asked.clear()
    browser.resize(width, 900)
    browser.set_dark(is_dark)
    browser.open(page)


def lane_at(browser: Browser, share: float, lane: int = 0) -> tuple[float, float]:
    """Where a lane of the first timeline is, at a share of its length."""
    browser.run("document.getElementById('timeline-0').scrollIntoView({block: 'center'})")
    browser.settle()
    left, top, width = browser.run(
        "(() => { const box = document.getElementById('timeline-0').getBoundingClientRect(); return [box.left, box.top, box.width]; })()"
    )
    return left + LEFT + (width - LEFT - 14) * share, top + TOP + lane * (LANE + 7) + LANE - 2


def span(browser: Browser) -> list[float]:
    """The part of the time that is shown."""
    browser.settle()
    browser.settle()
    found: list[float] = browser.run("shared.span")
    return found


@pytest.mark.parametrize(
    ("name", "width", "is_dark"), [("one", 1280, False), ("one", 420, True), ("two", 1280, True), ("two", 420, False)]
)
def test_it_renders(browser: Browser, pages: dict[str, Path], name: str, width: int, is_dark: bool) -> None:
    """Every plot has ink; nothing is logged or fetched; a narrow window scrolls only what is wide."""
    opened(browser, pages[name], width, is_dark=is_dark)
    plots = browser.run(
        "[...document.querySelectorAll('[data-plot]')].map((one) => [one.dataset.plot, one.querySelectorAll('canvas, svg').length])"
    )
    runs = 2 if name == "two" else 1
    assert sorted(plots) == sorted([["timeline", 1], ["curves", 2], ["bars", 1], ["bars", 1]] * runs)
    ink = """[...document.querySelectorAll('.timeline canvas')].map((one) => {
        const data = one.getContext('2d').getImageData(0, 0, one.width, one.height).data;
        return new Set(Array.from({length: data.length / 4}, (_, at) => data[4 * at] << 16 | data[4 * at + 1] << 8 | data[4 * at + 2])).size; })"""
    assert all(colors > 20 for colors in browser.run(ink))
    lines = browser.run(
        "[...document.querySelectorAll('.curves svg')].map((one) => one.querySelectorAll('.mark-line path').length)"
    )
    assert lines and all(count >= 3 for count in lines)
    assert browser.said == [] and browser.asked == [pages[name].as_uri()]
    assert browser.run("document.documentElement.scrollWidth") <= width
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(15, 20, 25)" if is_dark else "rgb(255, 255, 255)")


def test_colours_follow_the_system(browser: Browser, pages: dict[str, Path]) -> None:
    """Plots are drawn anew when the preference changes."""
    opened(browser, pages["one"])
    before = browser.run("document.documentElement.dataset.drawn")
    browser.set_dark(True)
    browser.wait(f"document.documentElement.dataset.drawn !== '{before}'")
    assert browser.run("shared.views[0].view.signal('theme').ink") == "#e6e9ed"


def test_hovering_tells(browser: Browser, pages: dict[str, Path]) -> None:
    """State, time, position, reason, and for whom the vCPU waits."""
    opened(browser, pages["one"])
    piece = browser.run("(() => { const {thread, blame, start, length} = DATA.runs[0].pieces; const at = thread.findIndex((one, index) => one === 0 && blame[index].length); return [start[at], length[at]]; })()")  # fmt: skip
    end = browser.run("DATA.runs[0].end")
    browser.mouse("mouseMoved", *lane_at(browser, (piece[0] + piece[1] / 2) / end))
    browser.settle()
    assert browser.run("tip.hidden") is False
    said = browser.run("tip.innerText").splitlines()
    assert (
        said[0].startswith("vCPU 0 waits")
        and "position " in said[2]
        and "reason " in said[2]
        and said[3].startswith("waits for ")
    )
    browser.mouse("mouseMoved", 5, 5)
    browser.settle()
    assert browser.run("tip.hidden") is True and browser.said == []


def test_the_wheel_zooms_where_the_pointer_is(browser: Browser, pages: dict[str, Path]) -> None:
    """With Ctrl; without it the page scrolls. Dragging moves; the button shows the whole run again."""
    opened(browser, pages["one"])
    whole = span(browser)
    x, y = lane_at(browser, 0.25)
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=0.5)
    assert span(browser) == whole
    x, y = lane_at(browser, 0.25)
    for _ in range(6):
        browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100, modifiers=2)
    near = span(browser)
    length = whole[1] - whole[0]
    assert near[1] - near[0] < length / 5 and abs((near[0] + (near[1] - near[0]) * 0.25) / length - 0.25) < 0.01
    browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    browser.mouse("mouseMoved", x - 100, y, button="left", buttons=1)
    browser.mouse("mouseReleased", x - 100, y, button="left", clickCount=1)
    moved = span(browser)
    assert moved[0] > near[0] and abs((moved[1] - moved[0]) - (near[1] - near[0])) < 2
    curves = browser.run("shared.views[1].view.signal('span')")
    assert curves == moved
    browser.run("document.querySelector('[data-zoom=reset]').click()")
    assert span(browser) == whole and browser.said == []


def test_the_keyboard_reaches_everything(browser: Browser, pages: dict[str, Path]) -> None:
    """Zoom, move, and each interval with what hovering tells, spoken."""
    opened(browser, pages["one"])
    whole = span(browser)
    browser.run("document.getElementById('timeline-0').focus()")
    browser.key("+")
    near = span(browser)
    assert near[1] - near[0] < whole[1] - whole[0]
    browser.key("ArrowRight")
    assert span(browser)[0] > near[0]
    browser.key("0")
    assert span(browser) == whole
    for key, starts in (("n", "vCPU 0 "), ("j", "vCPU 1 "), ("n", "vCPU 1 ")):
        browser.key(key)
        browser.settle()
        assert browser.run("document.getElementById('spoken').textContent").startswith(starts)
    assert browser.run("tip.hidden") is False
    assert browser.run("document.activeElement.id") == "timeline-0" and browser.said == []


def test_a_finding_is_shown_where_it_is(browser: Browser, pages: dict[str, Path]) -> None:
    """Its button moves the timeline there, and its mark tells it."""
    opened(browser, pages["two"])
    at = browser.run("Number(document.querySelector('#findings .show').dataset.from)")
    browser.run("document.querySelector('#findings .show').click()")
    shown = span(browser)
    assert shown[0] < at < shown[1] and shown[1] - shown[0] < browser.run("DATA.runs[1].end") / 50
    marks = browser.run(
        "shared.timelines[1].view.data('marks').filter((one) => one.kind === 'finding').map((one) => [one.at, one.title])"
    )
    assert marks == [[at, "U1 is broken"]]
    assert (
        browser.run("document.querySelector('#findings .command code').textContent").startswith("tracekit dump ")
        and browser.said == []
    )


def contrast(one: str, other: str) -> float:
    """Of two colours #rrggbb. Spec: WCAG 2.2, 1.4.3."""

    def light(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = ((part / 12.92) if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("is_dark", [False, True])
def test_contrast(browser: Browser, pages: dict[str, Path], is_dark: bool) -> None:
    """Text 4.5 to 1 on what it stands on, also names on the lanes; what is drawn 3 to 1."""
    opened(browser, pages["one"], is_dark=is_dark)
    names = browser.run("[...document.styleSheets[0].cssRules[0].style].filter((one) => one.startsWith('--'))")
    colors: dict[str, Any] = {
        name: browser.run(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()") for name in names
    }
    for ink, paper in (
        ("ink", "paper"), ("quiet", "paper"), ("accent", "paper"), ("good", "good-paper"), ("bad", "bad-paper"), ("ink", "good-paper"),
        ("ink", "bad-paper"), ("ink", "raised"), ("quiet", "raised"), ("ink", "lane"), ("paper", "bad"), ("accent", "raised"),
        ("on-thread", "stranger"), *(("on-thread", f"thread-{index}") for index in range(8)),
    ):  # fmt: skip
        assert contrast(colors[f"--{ink}"], colors[f"--{paper}"]) >= 4.5, (ink, paper)
    drawn = ("run", "poll", "wait", "woken", "yield", "pause", "suspend", "sleep", "offline", "finding", "directive")
    for mark in (*drawn, "line-true", "line-told", "line-read", "line-accounted"):
        assert contrast(colors[f"--{mark}"], colors["--paper"]) >= 3, mark


def test_many_intervals_are_merged_and_it_says_so(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts on the page; shares where intervals were; the longest are still there."""
    made = Handmade(1, neighbours=1).begin()
    made.schedule(0, 1, "online", "start")
    now = 0
    for turn in range(1200):
        made.schedule(now, 0, "run", "slice")
        now += 1000 + (5000 if turn == 600 else 0)
        made.schedule(now, 0, "preempt", "slice")
        made.schedule(now, 1, "run", "slice")
        now += 1000
        made.schedule(now, 1, "preempt", "slice")
    made.end_ns = now
    monkeypatch.setattr(thinning.thin, "__kwdefaults__", {"pieces_max": 200, "bins_max": 256})
    (tmp_path / "page.html").write_text(page_of([made.write(tmp_path / "a.tkt")]))
    opened(browser, tmp_path / "page.html")
    note = browser.run("document.querySelector('#timeline .note').textContent")
    kept = browser.run("DATA.runs[0].pieces.start.length")
    assert kept <= 200 and f"{kept:,} are on this page exactly" in note and "merged into shares" in note
    assert "--from TIME --to TIME" in note
    assert 6000 in browser.run("DATA.runs[0].pieces.length")
    browser.mouse("mouseMoved", *lane_at(browser, 0.3))
    browser.settle()
    said = browser.run("tip.innerText").splitlines()
    shares = {line.rsplit(" ", 2)[0]: int(line.split(" ")[-2]) for line in said[2:]}
    assert said[0] == "vCPU 0: merged intervals" and set(shares) == {"runs", "waits (runnable)"}
    assert sum(shares.values()) in (99, 100) and all(40 < share < 60 for share in shares.values())
    assert browser.said == []


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    """A trace that means harm is shown, not run."""
    evil = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
    made = Handmade(1, neighbours=1).begin()
    made._manifest["threads"][1]["name"] = evil
    made._manifest["scenario"]["image"] = evil
    made.schedule(0, 0, "run", "start")
    made.schedule(100, 0, "preempt", "slice")
    made.schedule(100, 1, "online", "start")
    made.schedule(100, 1, "run", "slice")
    made.row("console", 10, 0, data=evil.encode())
    made.end_ns = 1000
    (tmp_path / "page.html").write_text(page_of([made.write(tmp_path / "a.tkt")]))
    opened(browser, tmp_path / "page.html")
    browser.mouse("mouseMoved", *lane_at(browser, 0.5))
    browser.settle()
    assert evil in browser.run("tip.innerText") and evil in browser.run("document.querySelector('h1').innerText")
    assert browser.run("typeof window.owned") == "undefined" and browser.run("document.images.length") == 0
    assert browser.said == [] and browser.asked == [(tmp_path / "page.html").as_uri()]
