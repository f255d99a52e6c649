"""The table for people and the page, both from what stands in the JSON alone."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figures import BY_KEY, FIGURES, LINES, THEMES, Figure

HERE = Path(__file__).resolve().parent
COMMAND = "python tests/benchmarks/run.py --json docs/performance.json --page docs/performance.md"
WIDTH = 150


def number(value: float | None, unit: str) -> str:
    """A measured value with its unit."""
    if value is None:
        return "-"
    if unit == "B":
        return f"{value:.6f} B"
    if unit == "1/s":
        return f"{value / 1e6:.2f} M/s"
    if unit in ("ms", "MB"):
        return f"{value:,.0f} {unit}"
    return f"{value:.2f}"


def target(figure: Figure) -> str:
    """What must hold."""
    if figure.target is None:
        return ""
    sign = ">=" if figure.least else "<="
    told = f"{figure.target:g} B" if figure.unit == "B" else number(figure.target, figure.unit)
    return f"{sign} {told}"


def verdict(figure: Figure, told: dict[str, Any] | None) -> str:
    """met, MISSED, not available, not measured; nothing where there is no target."""
    if told is None:
        return "not measured"
    if told["measured"] is None:
        return "not available"
    met = figure.is_met(told["measured"])
    return "" if met is None else "met" if met else "MISSED"


def spread(figure: Figure, told: dict[str, Any]) -> str:
    """Least to greatest of the rounds."""
    values = told["values"]
    if len(values) < 2:
        return ""
    return f"{number(min(values), figure.unit)} to {number(max(values), figure.unit)}"


def table(results: dict[str, Any]) -> str:
    """For a terminal."""
    rows = [("figure", "", "target", "measured", "min to max", "")]
    for figure in FIGURES:
        told = results["figures"].get(figure.key)
        if told is None:
            continue
        measured = number(told["measured"], figure.unit)
        rows.append((figure.key, figure.what, target(figure), measured, spread(figure, told), verdict(figure, told)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def page(results: dict[str, Any]) -> str:
    """docs/performance.md."""
    return "\n".join([*_head(results), *_figures(results), *_misses(results), *_details(results)]) + "\n"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _head(results: dict[str, Any]) -> Iterator[str]:
    c = results["conditions"]
    yield "# Performance"
    yield ""
    yield from _wrapped(
        f"Written by `{COMMAND}`, not by hand. Every figure is a ratio of whole processes that were run side by side in one go, in interleaved rounds; "
        "the median of the rounds' ratios stands, beside it the least and the greatest. Peers are Debian's packages on the same kernel and initramfs; bare "
        "Unicorn is the floor; pyarrow and polars alone are the ceilings of storing and asking."
    )
    yield ""
    versions = ", ".join(f"{name} {version}" for name, version in c["versions"].items())
    ages = {age for told in results["themes"].values() if (age := told.get("date"))}
    when = c["date"] if len(ages) < 2 else f"{min(ages)} to {max(ages)}"
    loads = "; ".join(
        f"{name} {told['load_before'][0]:g} to {told['load_after'][0]:g}" for name, told in results["themes"].items()
    )
    seconds = sum(told["seconds"] for told in results["themes"].values())
    rows = {
        "measured": f"{when}, {c['rounds']} round{'s' if c['rounds'] > 1 else ''}{' (--quick)' if c['quick'] else ''}, {seconds / 60:.0f} minutes in all",
        "tree": f"commit {c['commit']}" if c["commit"] else "no git here",
        "machine": f"{c['cpu']}, {c['cores']} cores, {c['memory_gib']} GiB; {c['kernel']}",
        "versions": versions,
        "tracekit": "installed in a fresh virtual environment"
        if c["environment"] == "fresh"
        else "an environment that was given",
        "peer": c["qemu"] or "QEMU is not here",
        "guest": f"Debian's {c['guest_kernel']}, `samples/linux/init`, 1 vCPU, 512 MiB" if c["guest_kernel"] else "no kernel",
        "load average": f"{loads} (this suite keeps 1 core busy itself)",
    }
    yield "| conditions | |"
    yield "|---|---|"
    for name, text in rows.items():
        yield f"| {name} | {text} |"
    yield ""


def _figures(results: dict[str, Any]) -> Iterator[str]:
    held = [(figure, results["figures"].get(figure.key)) for figure in FIGURES if figure.target is not None]
    verdicts = [verdict(figure, told) for figure, told in held]
    yield "## Figures"
    yield ""
    parts = [f"{verdicts.count(word)} {word.lower()}" for word in ("met", "MISSED", "not available", "not measured")]
    yield f"Of {len(held)} targets: {', '.join(part for part in parts if not part.startswith('0 '))}. A number without a unit is a ratio."
    yield ""
    yield "| figure | target | measured | min to max | |"
    yield "|---|---|---|---|---|"
    for line, text in LINES.items():
        yield f"| **{text}** | | | | |"
        for figure in FIGURES:
            if figure.line != line:
                continue
            told = results["figures"].get(figure.key)
            word = verdict(figure, told)
            shown = word if word in ("met", "") else f"**{word}**" if word == "MISSED" else word
            measured = number(told["measured"], figure.unit) if told else "-"
            yield f"| {figure.what} | {target(figure)} | {measured} | {spread(figure, told) if told else ''} | {shown} |"
    yield ""


def _misses(results: dict[str, Any]) -> Iterator[str]:
    missed = [key for key, told in results["figures"].items() if verdict(BY_KEY[key], told) == "MISSED"]
    if not missed:
        return
    reasons: dict[str, str] = tomllib.loads((HERE / "explanations.toml").read_text())
    yield "## Where a target is missed, and why"
    yield ""
    yield "Shares of the command's samples (`perf record -e cpu-clock`), all its processes and threads."
    yield ""
    for key in missed:
        figure, told = BY_KEY[key], results["figures"][key]
        yield f"### {LINES[figure.line]}: {figure.what}"
        yield ""
        yield f"Target {target(figure)}, measured {number(told['measured'], figure.unit)}."
        if key in reasons:
            yield from _wrapped(reasons[key].strip())
        yield ""
        if told.get("profile"):
            yield "| where the time goes | % |"
            yield "|---|---|"
            for word, share in told["profile"]:
                yield f"| {word} | {share} |"
        else:
            yield f"No profile: {told.get('no_profile') or 'none was asked for'}."
        yield ""


def _details(results: dict[str, Any]) -> Iterator[str]:
    yield "## Commands and raw values"
    yield ""
    yield "In capitals: the folder of a run, Debian's kernel, the sample's initramfs. Medians of whole processes."
    yield ""
    for theme in THEMES:
        keys = [figure.key for figure in FIGURES if figure.theme == theme and figure.key in results["figures"]]
        if not keys:
            continue
        yield f"### `python tests/benchmarks/run.py --only {theme}`"
        yield ""
        for key in keys:
            told = results["figures"][key]
            yield f"- **{LINES[BY_KEY[key].line]}: {BY_KEY[key].what}** ({key})"
            if told["unavailable"]:
                yield f"  Not available: {told['unavailable']}."
            if told["command"]:
                yield f"  `{told['command']}`"
            if told["note"]:
                yield f"  {told['note']}."
        yield ""
