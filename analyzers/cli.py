"""`tracekit analyze`, `tracekit diff`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from tracekit.formats.errors import InputError
from tracekit.formats.units import parse_duration_ns

NAMES = ("steal", "invariants")


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, metavar="[steal|invariants]...")
@click.option(
    "--tolerance", default="0ns", show_default=True, help="Greatest error of a total at guest entry that is still good."
)
@click.option("--over", metavar="TIME", help="steal: also a table over steps of this length, for example 100ms.")
@click.option("--policy", help="The publication policy whose formula is the truth. [default: the recorded one]")
@click.option("--progress", type=click.Choice(["auto", "plain", "none"]), default="auto", help="auto: a bar on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def analyze(
    trace: Path, names: tuple[str, ...], tolerance: str, over: str | None, policy: str | None, progress: str, as_json: bool
) -> None:
    """How true the stolen time of TRACE was, and which invariants are broken.

    steal: what was stolen, published, read and accounted, to the ns. invariants: every invariant that a trace can decide. Default: both.
    Exit code 0: nothing found, 1: a finding or an error beyond the tolerance, 2: trouble.
    """
    from tracekit.analyzers.analysis import analyse
    from tracekit.formats.progress import progress_for
    from tracekit.formats.reader import Trace

    for name in names:
        if name not in NAMES:
            raise InputError(f"no analysis {name!r}; there are {', '.join(NAMES)}")
    tolerance_ns = parse_duration_ns(tolerance)
    over_ns = None if over is None else parse_duration_ns(over)
    if over is not None and names and "steal" not in names:
        raise InputError("--over belongs to steal, which was not asked for")
    opened = Trace.open(trace)
    try:
        with progress_for(progress, f"analysing {trace.name}", opened.manifest["end"]["position"]) as bar:
            done = analyse(opened, names or NAMES, policy=policy, over_ns=over_ns, tell=bar.tell)
    finally:
        opened.close()
    found: dict[str, Any] = done.as_json(str(trace), tolerance_ns)
    if as_json:
        click.echo(json.dumps(found))
    else:
        for line in done.lines(str(trace), tolerance_ns):
            click.echo(line)
    sys.exit(0 if done.is_good(tolerance_ns) else 1)


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--ignore", multiple=True, metavar="COLUMN", help="Do not compare this column. May be repeated.")
@click.option("--tables", metavar="TABLE,TABLE", help="Compare only these tables. [default: all]")
@click.option(
    "--context", type=click.IntRange(0, 1000), default=5, show_default=True, help="Events before and after the difference."
)
@click.option("--limit", type=click.IntRange(0, 10_000), default=5, show_default=True, help="Changes listed of each table.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(a: Path, b: Path, ignore: tuple[str, ...], tables: str | None, context: int, limit: int, as_json: bool) -> None:
    """Compare the events of two traces: the first difference, its cause where the traces show it, and what differs after it.

    Up to the first difference events are aligned by their place, after it by their content. Exit code 0: same, 1: different, 2: trouble.
    """
    from tracekit.analyzers.diff import diff as compare
    from tracekit.analyzers.diff_text import lines
    from tracekit.formats.reader import Trace

    names = None if tables is None else [name.strip() for name in tables.split(",") if name.strip()]
    opened_a = Trace.open(a)
    opened_b = Trace.open(b)
    try:
        found = compare(opened_a, opened_b, ignore=ignore, tables=names, context=context, limit=limit)
    finally:
        opened_a.close()
        opened_b.close()
    if as_json:
        click.echo(json.dumps(found.as_json()))
    else:
        for line in lines(found, limit):
            click.echo(line)
    sys.exit(0 if found.is_same else 1)
