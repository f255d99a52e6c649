"""The benchmark suite: python tests/benchmarks/run.py [--only NAME ...] [--rounds N] [--quick] [--json FILE] [--page docs/performance.md].

tracekit is measured as installed: a fresh virtual environment is made from this tree. QEMU (Debian's qemu-system-arm), perf, and apt for Debian's
kernel are used where they are; what is missing is said. About 20 minutes on 2 idle cores, a quarter of that with --quick.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import profiles
from bench import CACHE, Bench, environment
from conditions import conditions, load, now
from figures import BY_KEY, FIGURES, THEMES, Result
from harness import BenchmarkError, NotAvailableError
from page import page, table


def arguments_of(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Every figure of docs/performance.md.")
    parser.add_argument("--only", nargs="+", choices=list(THEMES), action="extend", metavar="NAME", help=", ".join(THEMES))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--quick", action="store_true", help="1 round, and the long parts left out")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--page", type=Path, help="write the page here")
    parser.add_argument("--update", type=Path, help="results of an earlier run: figures that are measured now replace theirs")
    parser.add_argument("--render", type=Path, help="measure nothing: take these results")
    parser.add_argument("--python", type=Path, help="measure this interpreter's tracekit instead of a fresh environment's")
    parser.add_argument("--no-profiles", action="store_true", help="do not profile what misses its target")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.rounds = 1
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    return arguments


def tell(text: str) -> None:
    """What is going on, on stderr."""
    print(text, file=sys.stderr, flush=True)


def shown(bench: Bench, words: Sequence[str]) -> str:
    """A command without the paths of this machine."""
    out = []
    for word in words:
        if word == str(bench.python):
            word = "python"
        elif word == bench.tracekit[0]:
            word = "tracekit"
        for path, name in (
            (str(bench.folder), "FOLDER"),
            (str(bench.shared.get("kernel_path", "\0")), "KERNEL"),
            (str(Path(__file__).resolve().parent.parent.parent) + os.sep, ""),
        ):
            word = word.replace(path, name)
        out.append(f'"{word}"' if " " in word or ";" in word else word)
    told = " ".join(out).replace("python -P -m tracekit.cli", "tracekit").replace("FOLDER/initramfs.cpio", "INITRAMFS")
    return told if len(told) < 400 else told[:400] + " ..."


def measure_theme(bench: Bench, theme: str) -> list[Result]:
    """Its figures; all of them not available where what it needs is not here, or where it fails."""
    keys = [figure.key for figure in FIGURES if figure.theme == theme]
    try:
        results: list[Result] = importlib.import_module(THEMES[theme]).run(bench)
    except NotAvailableError as error:
        return [Result.missing(key, str(error)) for key in keys]
    except BenchmarkError as error:
        tell(f"{theme}: {error}")
        return [Result.missing(key, str(error)) for key in keys]
    assert sorted(result.key for result in results) == sorted(keys), (theme, [result.key for result in results])
    return results


def measured(bench: Bench, themes: Sequence[str], no_profile: str | None) -> dict[str, Any]:
    """All results, as they stand in the JSON."""
    out: dict[str, Any] = {"conditions": conditions(bench), "themes": {}, "figures": {}}
    bench.shared["kernel_path"] = bench.kernel if out["conditions"]["guest_kernel"] else "\0"
    for theme in themes:
        tell(f"{theme} ...")
        before, start = load(), time.monotonic()
        results = measure_theme(bench, theme)
        seconds = round(time.monotonic() - start, 1)
        out["themes"][theme] = {"load_before": before, "load_after": load(), "seconds": seconds, "date": now()}
        for result in results:
            told = {
                "measured": result.measured,
                "values": result.values,
                "command": shown(bench, result.command),
                "note": result.note,
                "unavailable": result.unavailable and shown(bench, [result.unavailable]).strip('"'),
            }
            if result.measured is not None and BY_KEY[result.key].is_met(result.measured) is False:
                if no_profile is None and result.profiled:
                    told["profile"] = profiles.profile(result.profiled, bench.folder)
                else:
                    told["no_profile"] = no_profile or "the figure is no time"
            out["figures"][result.key] = told
        tell(f"{theme}: {seconds:.0f} s")
    return out


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The newer conditions, the union of the figures in their order."""
    figures = {**old["figures"], **new["figures"]}
    return {
        "conditions": new["conditions"],
        "themes": {name: told for name in THEMES if (told := {**old["themes"], **new["themes"]}.get(name))},
        "figures": {figure.key: figures[figure.key] for figure in FIGURES if figure.key in figures},
    }


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print or write."""
    arguments = arguments_of([*(words or []), *sys.argv[1:]])
    if arguments.render is not None:
        results = json.loads(arguments.render.read_text())
    else:
        results = run(arguments)
        if arguments.update is not None:
            results = joined(json.loads(arguments.update.read_text()), results)
    print(table(results))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.page is not None:
        arguments.page.write_text(page(results))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Set up, measure, clear away. Exits with 2 where not even the environment can be made."""
    try:
        if arguments.python is not None:
            python = arguments.python.absolute()
        else:
            for name in ("PYTHONPATH", "PYTHONHOME"):  # another tree's tracekit must not stand before the installed one
                os.environ.pop(name, None)
            python = environment(tell)
    except BenchmarkError as error:
        tell(f"run: {error}")
        sys.exit(2)
    no_profile = "--no-profiles" if arguments.no_profiles else profiles.available()
    scratch = CACHE if arguments.python is None else None
    with tempfile.TemporaryDirectory(dir=scratch, prefix="run-") as folder:
        os.environ["TRACEKIT_TIMINGS"] = str(Path(folder) / "timings")  # not the user's
        bench = Bench(python, Path(folder), arguments.rounds, arguments.quick, tell)
        return measured(bench, arguments.only or list(THEMES), no_profile)


if __name__ == "__main__":
    main()
