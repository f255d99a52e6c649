"""`tracekit replay`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from tracekit.formats.errors import InputError
from tracekit.formats.progress import progress_for
from tracekit.formats.reader import Trace
from tracekit.formats.units import format_ns, parse_count
from tracekit.replay.divergence import Divergence, Event, Result
from tracekit.replay.naming import Namer, namer_for, no_names
from tracekit.replay.options import ReplayOptions
from tracekit.replay.verify import verify


class Position(click.ParamType[int]):
    """Instructions retired: 1000000, 1_000_000, 1M."""

    name = "position"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Errors: InputError, usage."""
        try:
            return parse_count(str(value).replace("_", ""))
        except InputError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--from", "from_position", type=Position(), help="Begin at the last checkpoint at or before this position (instructions)."
)
@click.option("--to", "to_position", type=Position(), help="Stop at this position.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, help="Verify the stretches between checkpoints in so many processes."
)
@click.option("--capture", type=click.Choice(["thin", "writes", "full"]), help="What to capture (default: as recorded).")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the run with what is captured, between --from and --to, as a new trace.",
)
@click.option("--force", is_flag=True, help="Replace an existing OUTPUT once the new one is whole.")
@click.option(
    "--engine",
    type=click.Choice(["fast", "exact", "safe"]),
    default="fast",
    help="As for record; it need not be the recording's.",
)
@click.option("--page-size", type=click.Choice(["4096", "1024"]), default="4096", help="The engine's own page size.")
@click.option("--counting", type=click.Choice(["block", "instruction"]), default="block", help="instruction: the slow reference.")
@click.option(
    "--symbols",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Names for a divergence: an ELF file of the guest, or a vmlinux (default: the kernel Image's own).",
)
@click.option("--progress", type=click.Choice(["auto", "plain", "none"]), default="auto", help="auto: a bar on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def replay(
    trace: Path,
    output: Path | None,
    force: bool,
    engine: str,
    page_size: str,
    progress: str,
    as_json: bool,
    jobs: int,
    symbols: Path | None,
    **options: Any,
) -> None:
    """Replay TRACE from its own content alone and compare everything that happens.

    Exit code 0: identical up to the recorded end. 1: it diverged; the first divergence is printed. 2: the trace is unusable.
    """
    chosen = ReplayOptions(mode=engine, page_size=int(page_size), **options)
    opened = Trace.open(trace, verify="lazy" if output is None else "all")
    with progress_for(progress, f"replaying {trace.name}", opened.manifest["end"]["position"]) as bar:

        def on_progress(position: int) -> None:
            bar.tell(position, 0)

        if output is None:
            result = verify(opened, chosen, jobs=jobs, on_progress=on_progress, on_note=note)
        else:
            from tracekit.replay.capture import capture, plan_of  # what merging takes is not loaded for a verdict

            plan = plan_of(opened, chosen.capture, chosen.from_position, chosen.to_position)
            result = capture(trace, output, plan, chosen, jobs=jobs, force=force, on_progress=on_progress)
    for warning in result.warnings:
        note(warning)
    named = namer_for(opened, result, symbols, note)
    if as_json:
        click.echo(json.dumps(as_dict(result, opened, named)))
    else:
        tell(result, opened, trace, named)
    sys.exit(0 if result.is_identical else 1)


def note(text: str) -> None:
    """Something to know beside the verdict."""
    click.echo(f"tracekit: {text}", err=True)


def tell(result: Result, trace: Trace, path: Path, named: Namer = no_names) -> None:
    """The verdict for people."""
    recovered = trace.manifest.get("recovered")
    if result.is_identical:
        since = f"from position {result.from_position:,} " if result.from_position else ""
        until = "to the recorded end" if result.is_whole else f"to position {result.position:,}, where it was asked to stop"
        click.echo(
            f"{path}: identical {since}{until}: {result.events:,} events, {result.position:,} instructions, {format_ns(result.vtime_ns)}"
        )
        if recovered:
            click.echo(f"{path}: the trace was recovered; what came after position {result.position:,} is not in it")
        return
    assert result.divergence is not None
    divergence = result.divergence
    since = f", replaying from position {result.from_position:,}" if result.from_position else ""
    click.echo(f"{path}: DIVERGED at position {divergence.position:,} ({format_ns(divergence.vtime_ns)}){since}")
    for line in explain(divergence, named):
        click.echo(f"  {line}")


def explain(d: Divergence, named: Namer = no_names) -> list[str]:
    """The proof, line by line."""
    pc = f", pc {d.pc:#x}{_name(d.pc, named)}" if d.pc is not None else ""
    lines = [
        f"what:  {d.what}",
        f"where: position {d.position}, vtime {d.vtime_ns} ns, vCPU {d.vcpu}{pc}",
        f"cause: {d.cause.value}",
    ]
    for field in d.fields:
        names = [_name(value, named) if field.name == "pc" else "" for value in (field.recorded, field.replayed)]
        lines.append(
            f"  {field.name}: recorded {_number(field.recorded)}{names[0]}, replayed {_number(field.replayed)}{names[1]}"
        )
    if d.recorded is not None:
        lines.append(f"recorded: {_event(d.recorded, named)}")
    if d.replayed is not None:
        lines.append(f"replayed: {_event(d.replayed, named)}")
    lines.append(f"last state check that agreed: position {d.last_check_position}")
    lines.append("events before it, all equal:")
    lines += [f"  {_event(event, named)}" for event in d.before]
    return lines


def _number(value: Any) -> str:
    if isinstance(value, int) and value > 9:
        return f"{value} ({value:#x})"
    return "nothing" if value is None else str(value)


def _name(pc: Any, named: Namer) -> str:
    found = named(pc)
    return "" if found is None else f" {found}"


def _named(event: Event | None, named: Namer) -> dict[str, Any] | None:
    if event is None:
        return None
    found = event.as_dict()
    return {**found, "symbol": named(found["pc"])} if "pc" in found else found


def _event(event: Event, named: Namer) -> str:
    columns = _named(event, named) or {}
    parts = [f"{key}={value}" for key, value in columns.items() if key != "table" and value is not None]
    return f"{event.table}: {' '.join(parts)}"


def as_dict(result: Result, trace: Trace, named: Namer = no_names) -> dict[str, Any]:
    """The verdict for programs."""
    out: dict[str, Any] = {
        "trace": str(trace.path),
        "verdict": "identical" if result.is_identical else "diverged",
        "from_position": result.from_position,
        "position": result.position,
        "vtime_ns": result.vtime_ns,
        "events": result.events,
        "whole": result.is_whole,
        "recovered": bool(trace.manifest.get("recovered")),
        "warnings": list(result.warnings),
    }
    if result.divergence is not None:
        d = result.divergence
        out["divergence"] = {
            "position": d.position,
            "vtime_ns": d.vtime_ns,
            "vcpu": d.vcpu,
            "pc": d.pc,
            "symbol": named(d.pc),
            "what": d.what,
            "cause": d.cause.name.lower(),
            "fields": [{"name": f.name, "recorded": f.recorded, "replayed": f.replayed} for f in d.fields],
            "recorded": _named(d.recorded, named),
            "replayed": _named(d.replayed, named),
            "before": [_named(event, named) for event in d.before],
            "last_check_position": d.last_check_position,
        }
    return out
