"""`tracekit demo`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click

from tracekit.formats.units import format_ns


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
