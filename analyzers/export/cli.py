"""`tracekit export`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tracekit.formats.units import format_bytes, parse_duration_ns


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--to", "to", required=True, type=click.Choice(["perfetto", "chrome", "parquet", "csv"]), help="The format.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write. [default: the trace's name, here]")
@click.option("--tables", help="Only these tables, by commas. [default: all that the format can show]")
@click.option("--from", "from_position", type=click.IntRange(min=0), default=0, help="First position.")
@click.option("--to-position", type=click.IntRange(min=0), help="Position to stop before.")
@click.option("--from-time", default="0ns", help="First virtual time, for example 1.5s.")
@click.option("--to-time", help="Virtual time to stop before.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option(
    "--symbols",
    is_flag=False,
    flag_value="",
    metavar="[=FILE]",
    help="perfetto, chrome: name each pc, out of the kernel's own Image, or of an ELF FILE (docs/symbols.md).",
)
@click.option("--progress", type=click.Choice(["auto", "plain", "none"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(
    trace: Path,
    to: str,
    output: Path | None,
    tables: str | None,
    from_position: int,
    to_position: int | None,
    from_time: str,
    to_time: str | None,
    force: bool,
    symbols: str | None,
    progress: str,
    as_json: bool,
) -> None:
    """Write TRACE in the format of other tools.

    perfetto: a trace for the Perfetto UI. chrome: trace event JSON. Both are one file, packed if its name ends with .gz.
    parquet: TABLE/run=NAME/part-*.parquet. csv: TABLE.csv. Both are a folder with export.json, which tells what is in it.
    Exit code 0: written, 2: trouble.
    """
    from tracekit.analyzers.export.export import export as write
    from tracekit.analyzers.export.window import Window
    from tracekit.formats.progress import progress_for

    end_ns = None if to_time is None else parse_duration_ns(to_time)
    window = Window(from_position, to_position, parse_duration_ns(from_time), end_ns)
    chosen = None if tables is None else [name.strip() for name in tables.split(",") if name.strip()]
    with progress_for(progress, f"exporting {trace.name}") as display:
        done = write(trace, to, output, tables=chosen, window=window, force=force, symbols=symbols, tell=display.tell)
    if as_json:
        click.echo(json.dumps(done.as_json()))
        return
    what = ", ".join(f"{count:,} {name}" for name, count in done.counts.items())
    click.echo(f"{done.output}: {format_bytes(done.size)}: {what}")
