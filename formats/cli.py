"""info, dump, verify, recover, pack, unpack: what can be done with a trace without running it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from tracekit.formats.captures import is_whole, thin_note, told
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.formats.units import format_bytes, format_ns

TRACE = click.argument("trace", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
FORCE = click.option("--force", is_flag=True, help="Replace an existing output.")
OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write.")


@click.command()
@TRACE
@JSON
def info(trace: Path, as_json: bool) -> None:
    """What TRACE holds and how its run ended."""
    opened = Trace.open(trace)
    manifest = opened.manifest
    if as_json:
        click.echo(json.dumps(manifest, sort_keys=True))
        return
    scenario, machine, end = manifest.get("scenario", {}), manifest.get("machine", {}), manifest["end"]
    host, hypervisor = scenario.get("host", {}), scenario.get("hypervisor", {})
    faults = "".join(f", fault {fault.get('name')}" for fault in hypervisor.get("faults", []))
    detail = f" ({end['detail']})" if end.get("detail") else ""
    lines = [
        (
            "trace",
            f"{trace}, format {manifest['format']['major']}.{manifest['format']['minor']}, digest {manifest['digest'][:16]}",
        ),
        (
            "guest",
            f"{scenario.get('image')}, {machine.get('vcpus')} vCPU(s) {machine.get('cpu')}, {format_bytes(machine.get('ram_size', 0))} RAM",
        ),
        ("host", f"{host.get('pcpus')} pCPU(s), {host.get('policy')}, {len(host.get('neighbours', []))} neighbour(s)"),
        ("hypervisor", f"{hypervisor.get('profile')}, publication {hypervisor.get('publication')}{faults}"),
        ("capture", told(manifest)),
        ("engine", f"Unicorn {manifest.get('engine', {}).get('unicorn')}, {manifest.get('engine', {}).get('mode')}"),
        (
            "end",
            f"{str(end.get('reason')).replace('_', ' ')}{detail}, position {end['position']:,}, {format_ns(end['vtime_ns'])}",
        ),
    ]
    checkpoints = manifest.get("checkpoints", [])
    if checkpoints:
        pages, size = (sum(one[key] for one in checkpoints) for key in ("pages", "bytes"))
        each = checkpoints[-1]["position"] // len(checkpoints)
        lines.append(
            ("checkpoints", f"{len(checkpoints)}, one each {each:,} instructions, {pages:,} pages, {format_bytes(size)}")
        )
    if manifest.get("recovered"):
        lines.append(("recovered", "; ".join(manifest["recovered"].get("missing", []))))
    for key, value in lines:
        click.echo(f"{key:<11} {value}")
    for image in manifest["images"]:
        click.echo(
            f"{'image':<11} {image['role']}: {image['name']}, {format_bytes(image['size'])}, sha256 {image['sha256'][:16]}"
        )
    click.echo(f"\n{'table':<15}{'rows':>12}{'bytes':>12}{'batches':>9}")
    for name in TABLES:
        table = manifest["tables"][name]
        click.echo(f"{name:<15}{table['rows']:>12,}{table['bytes']:>12,}{len(table['batches']):>9}")


@click.command()
@TRACE
@click.argument("table", type=click.Choice(list(TABLES)))
@click.option("--raw", is_flag=True, help="console and inputs only: the bytes as they were.")
@click.option("--from", "from_position", type=click.IntRange(min=0), default=0, help="First position.")
@click.option("--to", "to_position", type=click.IntRange(min=0), help="Position to stop before.")
@click.option("--vcpu", type=click.IntRange(min=0), help="Only this vCPU.")
@click.option("--limit", type=click.IntRange(min=0), help="At most so many rows.")
@click.option(
    "--symbols",
    is_flag=False,
    flag_value="",
    metavar="[=FILE]",
    help="Name each pc: out of the Linux kernel's own Image, or of an ELF FILE (the guest with its symbols, or a vmlinux).",
)
@JSON
@click.pass_context
def dump(
    context: click.Context,
    trace: Path,
    table: str,
    raw: bool,
    from_position: int,
    to_position: int | None,
    vcpu: int | None,
    limit: int | None,
    symbols: str | None,
    as_json: bool,
) -> None:
    """Print the rows of TABLE."""
    if raw and table not in ("console", "inputs"):
        raise click.UsageError("--raw is for console and inputs", context)
    names = [column.name for column in TABLES[table].columns]
    if symbols is not None and "pc" not in names:
        raise click.UsageError(f"--symbols is for tables with a pc, and {table} has none", context)
    opened = Trace.open(trace)
    if not is_whole(opened.manifest, table):
        click.echo(f"tracekit: {thin_note(str(trace), told(opened.manifest), table)}", err=True)
    rows = _selected(opened, table, from_position, to_position, vcpu, limit)
    if raw:
        data = TABLES[table].index("data")
        for row in rows:
            sys.stdout.buffer.write(row[data])
        sys.stdout.buffer.flush()
        return
    if symbols is not None:
        known = context.obj(opened, Path(symbols) if symbols else None)
        click.echo(f"tracekit: {known.how}", err=True)
        rows = _named(rows, names.index("pc"), known.text)
        names = [*names, "symbol"]
    if as_json:
        for row in rows:
            values = [value.hex() if isinstance(value, bytes) else value for value in row]
            click.echo(json.dumps(dict(zip(names, values, strict=True))))
        return
    _print_aligned(names, rows)


def _named(rows: Iterator[tuple[Any, ...]], pc: int, text: Callable[[int | None], str | None]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield *row, text(row[pc])


def _selected(
    trace: Trace, table: str, first: int, before: int | None, vcpu: int | None, limit: int | None
) -> Iterator[tuple[Any, ...]]:
    from tracekit.formats.arrow import rows_of

    left = limit
    for batch in trace.batches(table, from_position=first):
        for row in rows_of(batch):
            if before is not None and row[0] >= before:
                return
            if left == 0:
                return
            if row[0] >= first and (vcpu is None or row[3] == vcpu):
                yield row
                left = None if left is None else left - 1


def _print_aligned(names: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    widths = [len(name) for name in names]
    shown: list[list[str]] = []

    def flush() -> None:
        for texts in shown:
            for index, text in enumerate(texts):
                widths[index] = max(widths[index], len(text))
        for texts in shown:
            click.echo("  ".join(text.rjust(width) for text, width in zip(texts, widths, strict=True)).rstrip())
        shown.clear()

    shown.append(names)
    for row in rows:
        shown.append([_cell(name, value) for name, value in zip(names, row, strict=True)])
        if len(shown) >= 1000:
            flush()
    flush()


_HEX = frozenset({"pc", "ipa", "value", "function_id", *(f"x{n}" for n in range(8)), *(f"ret{n}" for n in range(4))})


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bytes):
        return value.hex()[:16] if name != "data" else repr(value)[1:]
    return f"{value:#x}" if name in _HEX else str(value)


@click.command()
@TRACE
@JSON
def verify(trace: Path, as_json: bool) -> None:
    """Check every hash, schema and cross-reference of TRACE. Exit code 0: whole, 2: damaged."""
    from tracekit.formats.verify import verify as find

    findings = find(trace)
    if as_json:
        click.echo(
            json.dumps(
                {"trace": str(trace), "whole": not findings, "findings": [{"where": f.where, "what": f.what} for f in findings]}
            )
        )
    else:
        for finding in findings:
            click.echo(f"{finding.where}: {finding.what}")
        click.echo(f"{trace}: {'whole' if not findings else f'damaged, {len(findings)} finding(s)'}")
    sys.exit(2 if findings else 0)


@click.command()
@TRACE
@OUTPUT
@FORCE
@JSON
def recover(trace: Path, output: Path | None, force: bool, as_json: bool) -> None:
    """Save what is whole of an unfinished recording or a damaged trace.

    Exit code 0: something is usable, and what is missing is printed. 2: nothing is.
    """
    from tracekit.formats.recovery import recover as save

    saved = save(trace, output, force=force)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "trace": str(saved.path),
                    "position": saved.position,
                    "vtime_ns": saved.vtime_ns,
                    "rows": saved.rows,
                    "missing": list(saved.missing),
                }
            )
        )
        return
    click.echo(f"{saved.path}: {saved.rows:,} rows up to position {saved.position:,} ({format_ns(saved.vtime_ns)})")
    for text in saved.missing:
        click.echo(f"missing: {text}")


@click.command()
@TRACE
@OUTPUT
@FORCE
@JSON
def pack(trace: Path, output: Path | None, force: bool, as_json: bool) -> None:
    """Make one file of TRACE (default: its name with .packed.tkt)."""
    from tracekit.formats.pack import pack as make

    target = output or trace.with_name(trace.name.removesuffix(".tkt") + ".packed.tkt")
    make(trace, target, force=force)
    size = target.stat().st_size
    click.echo(json.dumps({"trace": str(target), "bytes": size}) if as_json else f"{target}: {format_bytes(size)}")


@click.command()
@TRACE
@OUTPUT
@FORCE
@JSON
def unpack(trace: Path, output: Path | None, force: bool, as_json: bool) -> None:
    """Make a directory of the packed TRACE (default: its name with .unpacked.tkt)."""
    from tracekit.formats.pack import unpack as make

    target = output or trace.with_name(trace.name.removesuffix(".tkt").removesuffix(".packed") + ".unpacked.tkt")
    make(trace, target, force=force)
    click.echo(json.dumps({"trace": str(target)}) if as_json else str(target))
