"""`tracekit analyze`, `tracekit compare`, `tracekit diff`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.formats.units import parse_duration_ns

NAMES = ("steal", "invariants", "runtime", "hypercalls")
DEFAULT = ("steal", "invariants")


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.argument(
    "names",
    nargs=-1,
    metavar="[steal|invariants|runtime|hypercalls]...",
    shell_complete=lambda context, parameter, incomplete: [name for name in NAMES if name.startswith(incomplete)],
)
@click.option(
    "--tolerance", default="0ns", show_default=True, help="Greatest error of a total at guest entry that is still good."
)
@click.option("--over", metavar="TIME", help="steal, runtime: over steps of this length, for example 100ms.")
@click.option(
    "--by", type=click.Choice(["vcpu", "pc"]), help="hypercalls: those of each vCPU, or of each place in the code, apart."
)
@click.option(
    "--symbols",
    is_flag=False,
    flag_value="",
    metavar="[=FILE]",
    help="hypercalls --by pc: name each place, out of the kernel's own Image, or of an ELF FILE (docs/symbols.md).",
)
@click.option("--policy", help="The publication policy whose formula is the truth. [default: the recorded one]")
@click.option("--progress", type=click.Choice(["auto", "plain", "none"]), default="auto", help="auto: a bar on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def analyze(
    trace: Path,
    names: tuple[str, ...],
    tolerance: str,
    over: str | None,
    by: str | None,
    symbols: str | None,
    policy: str | None,
    progress: str,
    as_json: bool,
) -> None:
    """How true the stolen time of TRACE was, and which invariants are broken; where its time went, and what it asked of its hypervisor.

    steal: what was stolen, published, read and accounted, to the ns. invariants: every invariant that a trace can decide. Default: both.
    runtime: each vCPU's run, wait and for whom, block, wake-up latency, migrations, instructions from switch-in to switch-out.
    hypercalls: of each function the calls, results, failures and costs. docs/analysis.md explains the columns.
    Exit code 0: nothing found, 1: a finding or an error beyond the tolerance, 2: trouble.
    """
    from tracekit.analyzers.analysis import analyse
    from tracekit.formats.progress import progress_for

    for name in names:
        if name not in NAMES:
            raise InputError(f"no analysis {name!r}; there are {', '.join(NAMES)}")
    tolerance_ns = parse_duration_ns(tolerance)
    over_ns = None if over is None else parse_duration_ns(over)
    if over is not None and names and not {"steal", "runtime"} & set(names):
        raise InputError("--over belongs to steal and runtime, which were not asked for")
    if by is not None and "hypercalls" not in names:
        raise InputError("--by belongs to hypercalls, which was not asked for")
    if symbols is not None and by != "pc":
        raise InputError("--symbols belongs to hypercalls --by pc, which was not asked for")
    opened = Trace.open(trace)
    try:
        named = None
        if symbols is not None:
            from tracekit.symbols.symbols import Symbols

            known = Symbols.for_trace(opened, symbols or None)
            click.echo(f"tracekit: {known.how}", err=True)
            named = known.text
        with progress_for(progress, f"analysing {trace.name}", opened.manifest["end"]["position"]) as bar:
            done = analyse(opened, names or DEFAULT, policy=policy, over_ns=over_ns, by=by, symbols=named, tell=bar.tell)
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


FORMATS = ("text", "json", "markdown", "junit", "sarif", "github")


class _TwoSides(click.Command):
    """Takes every path behind `--against` as one of the second side, up to the next option: a shell expands patterns into many words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        is_second = False
        for word in args:
            if word == "--against":
                is_second = True
            elif is_second and not word.startswith("-"):
                spread += ["--against", word]
            else:
                is_second = False
                spread.append(word)
        return super().parse_args(ctx, spread)


@click.command(cls=_TwoSides)
@click.argument("paths", nargs=-1, metavar="A... [B]")
@click.option("--against", multiple=True, metavar="B...", help="The second side; every path up to the next option.")
@click.option("--thresholds", type=click.Path(path_type=Path), help="A TOML file: how much each metric may change, and why.")
@click.option("--metric", "only", multiple=True, help="Only this metric or pattern, for example 'steal.*'. Repeatable.")
@click.option("--parts", is_flag=True, help="Sets of runs also by vCPU, function, table and invariant.")
@click.option("--all", "every", is_flag=True, help="Show metrics that are the same, too.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How the result is printed."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--list", "is_listing", is_flag=True, help="List the metrics and exit.")
def compare(
    paths: tuple[str, ...], against: tuple[str, ...], thresholds: Path | None, only: tuple[str, ...], parts: bool, every: bool,
    form: str, as_json: bool, is_listing: bool,
) -> None:  # fmt: skip
    """Whether the runs B are as good as the runs A.

    A and B are traces, folders of *.tkt or patterns; `compare A B`, or several on a side with --against. One run each of the same scenario and
    seed: compared exactly, any difference is real. Sets of runs: as distributions. One run each that differ in seed or scenario: inconclusive.

    Exit code 0: same or better, 1: worse or different, 2: trouble, 3: inconclusive.
    """
    from tracekit.analyzers.compare import compare as compare_sides
    from tracekit.analyzers.compare import expand
    from tracekit.analyzers.metric import CATALOGUE
    from tracekit.analyzers.rendering import rendered
    from tracekit.analyzers.thresholds import Thresholds, read_thresholds

    if is_listing:
        if as_json or form == "json":
            click.echo(json.dumps([asdict(kind) for kind in CATALOGUE.values()]))
            return
        for kind in CATALOGUE.values():
            click.echo(
                f"{kind.name:<22} {kind.unit:<13} {kind.better:<7} {kind.means}{f'; by {kind.parts}' if kind.parts else ''}"
            )
        return
    if not against:
        if len(paths) != 2:
            raise click.UsageError(
                "two sides are needed: `compare A B`, or `compare A... --against B...`", click.get_current_context()
            )
        paths, against = paths[:1], paths[1:]
    if not paths:
        raise click.UsageError("the first side is missing: `compare A... --against B...`", click.get_current_context())
    rules = read_thresholds(thresholds) if thresholds is not None else Thresholds()
    with ExitStack() as stack:
        sides: list[list[Trace]] = []
        for texts, name in ((paths, "A"), (against, "B")):
            sides.append([])
            for path in expand(texts, name):
                opened = Trace.open(path)
                stack.callback(opened.close)
                sides[-1].append(opened)
        done = compare_sides(sides[0], sides[1], rules, only=only, parts=parts)
    click.echo(rendered(done, "json" if as_json else form, every=every), nl=False)
    sys.exit(done.exit_code)
