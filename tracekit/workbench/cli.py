"""`tracekit baseline`, `tracekit completion`, `tracekit demo`, `tracekit query` and `tracekit who-wrote`."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from tracekit.formats.errors import DiskError, InputError
from tracekit.formats.units import format_ns

if TYPE_CHECKING:
    from tracekit.workbench.tables import Tables


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Keep the trace here (default: a temporary place).")
@click.option("--force", is_flag=True, help="Replace an existing OUTPUT.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def demo(output: Path | None, force: bool, as_json: bool) -> None:
    """Record a bundled guest on a contended host, replay it, show its steal report."""
    from tracekit.workbench.demo import run

    with tempfile.TemporaryDirectory(prefix="tracekit-demo-") as folder:
        path = output or Path(folder) / "demo.tkt"
        shown = run(path, force=force, tell=lambda text: click.echo(text, err=True))
        good = shown.result.is_identical and shown.recorded.end.reason.is_good and all(not s.error_ns for s in shown.steal)
        if as_json:
            steal = [
                {"vcpu": s.vcpu, "reads": s.reads, "told_ns": s.told_ns, "true_ns": s.true_ns, "error_ns": s.error_ns}
                for s in shown.steal
            ]
            verdict = "identical" if shown.result.is_identical else "diverged"
            click.echo(
                json.dumps({"verdict": verdict, "position": shown.result.position, "console": shown.console, "steal": steal})
            )
        else:
            for line in shown.console.splitlines():
                click.echo(f"  guest | {line}")
            click.echo(
                f"\nrecorded  {shown.recorded.end.position:,} instructions, {format_ns(shown.recorded.end.vtime_ns)} of virtual time"
            )
            verdict = "identical" if shown.result.is_identical else f"DIVERGED ({shown.result.divergence})"
            click.echo(f"replayed  {verdict}: {shown.result.events:,} events compared")
            click.echo(f"\n{'vCPU':>4}{'reads':>8}{'told':>16}{'true':>16}{'error':>10}")
            for s in shown.steal:
                click.echo(f"{s.vcpu:>4}{s.reads:>8,}{f'{s.told_ns:,} ns':>16}{f'{s.true_ns:,} ns':>16}{f'{s.error_ns} ns':>10}")
            if output is not None:
                click.echo(f"\ntrace     {path}")
    sys.exit(0 if good else 1)


SUFFIXES = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".ipc": "arrow",
}


@click.command()
@click.argument("words", nargs=-1, required=True, metavar='RUN... "SELECT ..."')
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "csv", "json", "parquet", "arrow"]),
    help="Default: table, or as -o's suffix says.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the answer to this file.")
@click.option("--force", is_flag=True, help="Replace an existing OUTPUT.")
@click.option("--limit", type=click.IntRange(min=0), help="At most so many rows.")
@click.option("--json", "as_json", is_flag=True, help="As --format json: one object on each line.")
def query(words: tuple[str, ...], kind: str | None, output: Path | None, force: bool, limit: int | None, as_json: bool) -> None:
    """Ask the tables of one or many traces in polars' SQL; with several, every table has a leading column `run`.

    Tables: schedule, directives, hypercalls, memory_writes, memory_reads, pvtime, interrupts, console, inputs, states, blocks (formats/SPEC.md),
    threads and runs. RUN: a trace or a pattern. A range of `position` or `vtime_ns` reads only what it needs. Rows have an order only
    where the query says ORDER BY. Bytes are hexadecimal text in csv and json. Exit code 0, or 2 where the query is wrong.
    """
    from tracekit.analyzers.query import collected, table_lines
    from tracekit.formats.captures import WHOLE_AT
    from tracekit.workbench.many import open_many, paths_of
    from tracekit.workbench.trace import open as open_one

    *runs, text = words
    if not runs:
        raise click.UsageError("which trace? RUN goes before the query", click.get_current_context())
    chosen = "json" if as_json else kind or SUFFIXES.get(output.suffix if output is not None else "", "table")
    if output is None and chosen in ("parquet", "arrow") and sys.stdout.isatty():
        raise click.UsageError(f"{chosen} is not for a terminal; -o FILE writes it", click.get_current_context())
    paths = paths_of(runs)
    view: Tables = open_one(paths[0]) if len(paths) == 1 else open_many(paths)
    for name in WHOLE_AT:
        note = view.thin_note(name) if re.search(rf"\b{name}\b", text, re.IGNORECASE) else None
        if note is not None:
            click.echo(f"tracekit: {note}", err=True)
    if chosen == "table" and output is None:
        for line in table_lines(collected(view.relations(), text, limit=limit)):
            click.echo(line)
        return
    _save(view, text, chosen, output, force, limit)


def _save(view: Tables, text: str, kind: str, output: Path | None, force: bool, limit: int | None) -> None:
    """The answer into a file, which takes its name when it is whole, or to stdout. Errors: TracekitError."""
    from tracekit.analyzers.query import collected, table_lines, write

    if output is None:
        try:
            write(view.relations(), text, kind, sys.stdout.buffer, limit=limit)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise DiskError(f"cannot write the output: {error.strerror or error}") from None
        return
    if output.is_dir():
        raise InputError(f"{output} is a folder; -o names a file")
    if output.exists() and not force:
        raise InputError(f"{output} exists; --force replaces it")
    if output.exists() and not output.is_file():
        raise InputError(f"{output} is no regular file (a device or a pipe); without -o the answer goes to stdout")
    if not output.parent.is_dir():
        raise DiskError(f"cannot write {output}: the folder {output.parent} does not exist")
    temporary = output.with_name(output.name + ".writing")
    try:
        if kind == "table":
            lines = table_lines(collected(view.relations(), text, limit=limit))
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        else:
            with temporary.open("wb") as file:  # by handle: polars takes no name that is no UTF-8
                write(view.relations(), text, kind, file, limit=limit)
        temporary.replace(output)
    except OSError as error:
        raise DiskError(f"cannot write {output}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


@click.command("who-wrote")
@click.argument("trace", type=click.Path(path_type=Path))
@click.argument("address")
@click.option("--before", type=click.IntRange(min=0), metavar="P", help="Only writes at positions below P (default: all).")
@click.option("--size", type=click.IntRange(min=1), help="Bytes from ADDRESS on (default 1: any write that covers it).")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="The N newest (default: those that account for every byte)."
)
@click.option(
    "--symbols",
    is_flag=False,
    flag_value="",
    metavar="[=FILE]",
    help="Name the code, out of the kernel's own Image, or of an ELF FILE (docs/symbols.md).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def who_wrote(
    trace: Path, address: str, before: int | None, size: int | None, limit: int | None, symbols: str | None, as_json: bool
) -> None:
    """The writes of guest and host to a physical ADDRESS, the newest first: position, time, code, value and cause, each with its proof.

    ADDRESS: hexadecimal or decimal; pvtime:N is the stolen time of vCPU N. The table memory_writes answers where it holds all writes to the
    range (--capture writes or full, watched ranges, stolen-time structures); a stretch where it does not is replayed, the last one first, which
    stderr tells. Exit code 0, also where nothing wrote (a line says what the memory holds then); 2: trouble; 3: the run does not replay.
    """
    from tracekit.formats.reader import Trace
    from tracekit.replay.who_wrote import place_of
    from tracekit.replay.who_wrote import who_wrote as ask
    from tracekit.workbench.writes import as_dict, lines

    opened = Trace.open(trace)
    ipa, natural = place_of(opened, address)
    answer = ask(
        opened, ipa, size=size or natural, before=before, limit=limit, tell=lambda text: click.echo(f"tracekit: {text}", err=True)
    )
    names = None
    if symbols is not None:
        from tracekit.symbols.symbols import Symbols

        known = Symbols.for_trace(opened, symbols or None)
        click.echo(f"tracekit: {known.how}", err=True)
        names = known.text
    if as_json:
        click.echo(json.dumps(as_dict(opened, answer, names)))
        return
    for line in lines(opened, answer, names):
        click.echo(line)


@click.group()
def baseline() -> None:
    """Keep the metrics of named scenarios beside your code, and check that runs still have them."""


@baseline.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("scenarios", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SCENARIO.toml...")
@click.option("--force", is_flag=True, help="Replace a baseline that belongs to another scenario.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def save(folder: Path, scenarios: tuple[Path, ...], force: bool, as_json: bool) -> None:
    """Record each SCENARIO and keep its metrics in FOLDER/NAME.json: one a line, to be reviewed and committed."""
    from tracekit.workbench import baseline as baselines

    stems = [path.stem for path in scenarios]
    if len(set(stems)) < len(stems):
        raise click.UsageError("two scenarios have the same name", click.get_current_context())
    done = []
    with tempfile.TemporaryDirectory(prefix="tracekit-baseline-") as scratch:
        for scenario in scenarios:
            click.echo(f"recording {scenario}", err=True)
            done.append(str(baselines.save(folder, scenario, Path(scratch) / f"{scenario.stem}.tkt", force=force)))
    click.echo(json.dumps({"saved": done}) if as_json else "\n".join(done))


@baseline.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--update", is_flag=True, help="Write what the new runs have into the files.")
@click.option("--thresholds", type=click.Path(path_type=Path), help="[default: FOLDER/thresholds.toml, if it is there]")
@click.option("--traces", type=click.Path(path_type=Path), help="Keep the new traces in this folder.")
@click.option("--all", "every", is_flag=True, help="Show metrics that are the same, too.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "markdown", "junit", "sarif", "github"]), default="text",
    show_default=True, help="How the result is printed.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def check(
    folder: Path, names: tuple[str, ...], update: bool, thresholds: Path | None, traces: Path | None, every: bool, form: str, as_json: bool
) -> None:  # fmt: skip
    """Record the scenarios of FOLDER's baselines (or the NAMEs) anew and compare their metrics, exactly.

    Exit code 0: same or better, or updated; 1: worse or different; 2: trouble.
    """
    from tracekit.analyzers.rendering import rendered_all
    from tracekit.workbench import baseline as baselines

    with ExitStack() as stack:
        if traces is None:
            traces = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tracekit-baseline-")))
        done = baselines.check(
            folder, names, traces, thresholds=thresholds, is_updating=update, tell=lambda text: click.echo(text, err=True)
        )
    click.echo(rendered_all([one.comparison for one in done], "json" if as_json else form, every=every), nl=False)
    for one in done:
        if one.is_updated:
            click.echo(f"{folder / one.name}.json: updated", err=True)
    sys.exit(0 if update else max(one.comparison.exit_code for one in done))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, tables, analyses and faults in SHELL.

    For bash put `eval "$(tracekit completion bash)"` into ~/.bashrc, for zsh `eval "$(tracekit completion zsh)"` into ~/.zshrc; for fish
    `tracekit completion fish > ~/.config/fish/completions/tracekit.fish`.
    """
    kind = get_completion_class(shell)
    assert kind is not None, shell
    click.echo(kind(context.find_root().command, {}, "tracekit", "_TRACEKIT_COMPLETE").source())
