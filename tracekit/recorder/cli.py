"""`tracekit record`."""

from __future__ import annotations

import inspect
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tracekit.formats.errors import InputError
from tracekit.formats.progress import progress_for
from tracekit.formats.units import format_ns, parse_count, parse_duration_ns, parse_size
from tracekit.host.config import Neighbour
from tracekit.hypervisor.fault import describe
from tracekit.recorder.faults import catalogue, load_fault
from tracekit.recorder.record import Recorded
from tracekit.recorder.record import record as record_scenario
from tracekit.recorder.scenario import Input, Scenario, parse_watch, read_input_file, read_scenario
from tracekit.recorder.session import EndReason, Progress, Recording

PROGRESS = click.Choice(["auto", "plain", "none"])


@click.command()
@click.argument("guest", required=False)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The new trace, by custom NAME.tkt.")
@click.option(
    "--scenario", type=click.Path(path_type=Path), help="A TOML file with the run's configuration; options go before it."
)
@click.option("--vcpus", type=int, help="Virtual CPUs, 1 to 8 (default 1).")
@click.option("--pcpus", type=int, help="Physical CPUs of the modelled host (default 1).")
@click.option("--ram", help="Guest memory (default 512M).")
@click.option("--cpu", help="CPU model: a53 (default), a72 or max.")
@click.option("--initrd", type=click.Path(), help="Initial RAM disk.")
@click.option("--append", help="Kernel command line, behind the console's.")
@click.option("--format", "guest_format", help="auto (default), elf, image or flat.")
@click.option("--conduit", help="How the device tree tells the guest to call the hypervisor: hvc (default) or smc.")
@click.option("--policy", help="Host scheduler: round-robin (default), fair or chaos.")
@click.option("--slice", "slice_", help="Time slice (default 3ms).")
@click.option("--quantum", help="How far one pCPU may run ahead of another (default 200us).")
@click.option("--neighbour", multiple=True, help="Load on the host: DUTY[:PERIOD][@PCPU], for example 50%:10ms@0. Repeatable.")
@click.option("--profile", help="Whose hypervisor is modelled: kvm-5.5, kvm-5.10, kvm-6.4 or kvm (default, the newest).")
@click.option("--publication", help="What counts as stolen: kvm (default), spec-min, xen or kvm-x86-suspend.")
@click.option(
    "--fault",
    multiple=True,
    help="Make the hypervisor wrong: a NAME of the catalogue or FILE.py:Class. Repeatable.",
    shell_complete=lambda context, parameter, incomplete: [name for name in catalogue() if name.startswith(incomplete)],
)
@click.option("--pv-base", help="IPA of vCPU 0's stolen-time structure (default 0x90a0000, a page of its own).")
@click.option("--seed", type=int, help="Seed of everything that is drawn (default 0).")
@click.option("--capture", help="thin (default), writes or full.")
@click.option("--watch", multiple=True, help="Record every access to ADDR:LEN. Repeatable.")
@click.option(
    "--checkpoint-every",
    metavar="N[k|M|G]",
    help="Take a checkpoint each N instructions (default: 64M to 96M, more where many pages change).",
)
@click.option(
    "--no-checkpoints",
    is_flag=True,
    help="Take none: the trace is smaller, but is replayed from its beginning only, by one process.",
)
@click.option("--input", "input_file", type=click.Path(path_type=Path), help="Bytes for the UART, all there from the start.")
@click.option("--max-vtime", help="Stop at this virtual time, for example 5s.")
@click.option("--max-instructions", type=int, help="Stop after exactly this many instructions.")
@click.option(
    "--engine",
    type=click.Choice(["fast", "exact", "safe"]),
    help="fast (default), exact: documented behaviour of Unicorn only, or safe: every store checked for changed code (slow).",
)
@click.option("--force", is_flag=True, help="Replace an existing trace once the new one is whole.")
@click.option("--progress", type=PROGRESS, default="auto", help="auto: a bar on a terminal; plain: a line at each commit.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def record(output: Path, scenario: Path | None, progress: str, as_json: bool, force: bool, **options: Any) -> None:
    """Record GUEST (ELF, arm64 Image plain or gzip, or flat) into a trace.

    Exit code 0: the guest powered off or a limit was reached. 1: it ended badly (panic, lockup, deadlock); the trace is kept.
    """
    configured = configure(read_scenario(scenario) if scenario is not None else Scenario(), options)
    if not configured.image:
        raise click.UsageError("which guest? Give GUEST or a --scenario with guest.image", click.get_current_context())
    with progress_for(progress, f"recording {Path(configured.image).name}") as bar:

        def on_start(session: Recording) -> None:
            def interrupt(number: int, frame: object) -> None:
                session.interrupted = True
                session.board.engine.request_stop()

            if sys.platform != "win32":
                signal.signal(signal.SIGTERM, interrupt)
            signal.signal(signal.SIGINT, interrupt)

        def on_progress(p: Progress) -> None:
            bar.tell(p.position, p.vtime_ns)

        recorded = record_scenario(configured, output, force=force, on_progress=on_progress, on_start=on_start)
    report(recorded, as_json)
    if recorded.end.reason is EndReason.INTERRUPTED:
        sys.exit(130)
    sys.exit(0 if recorded.end.reason.is_good else 1)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects: name, does, models, invariant, needs.")
def faults(as_json: bool) -> None:
    """The faults that `record --fault NAME` knows: what each does, which real bugs it models, what must find it, what it needs.

    A fault, or a whole publication policy, of your own: a class in a Python file, `--fault FILE.py:Class`; the base class is
    tracekit.hypervisor.fault.Fault.
    """
    known = [load_fault(name) for name in catalogue()]
    if as_json:
        click.echo(
            json.dumps([{"name": one.name, "does": inspect.getdoc(one), **describe(one), "needs": one.needs} for one in known])
        )
        return
    for one in known:
        needs = f" (needs {one.needs})" if one.needs else ""
        click.echo(f"{one.name}: found by {one.invariant}{needs}\n  {inspect.getdoc(one)}\n  Models {one.models}.")


def report(recorded: Recorded, as_json: bool) -> None:
    """How the run ended, on stdout."""
    end = recorded.end
    if as_json:
        click.echo(
            json.dumps(
                {
                    "trace": str(recorded.path),
                    "end": end.reason.value,
                    "detail": end.detail,
                    "position": end.position,
                    "vtime_ns": end.vtime_ns,
                }
            )
        )
        return
    detail = f" ({end.detail})" if end.detail else ""
    words = end.reason.value.replace("_", " ")
    click.echo(f"{recorded.path}: {words}{detail} after {end.position:,} instructions, {format_ns(end.vtime_ns)} of virtual time")


def configure(base: Scenario, options: dict[str, Any]) -> Scenario:
    """A scenario with the options that were given put over it. Errors: InputError."""
    changes: dict[str, Any] = {}
    for option, name in (
        ("guest", "image"),
        ("initrd", "initrd"),
        ("append", "append"),
        ("guest_format", "guest_format"),
        ("conduit", "conduit"),
        ("vcpus", "vcpus"),
        ("cpu", "cpu"),
        ("seed", "seed"),
        ("capture", "capture"),
        ("max_instructions", "max_instructions"),
        ("engine", "engine_mode"),
    ):
        if options.get(option) is not None:
            changes[name] = options[option]
    if options.get("ram") is not None:
        changes["ram"] = parse_size(options["ram"])
    if options.get("max_vtime") is not None:
        changes["max_vtime_ns"] = parse_duration_ns(options["max_vtime"])
    if options.get("checkpoint_every") is not None:
        changes["checkpoint_every"] = parse_count(options["checkpoint_every"])
    if options.get("no_checkpoints"):
        if options.get("checkpoint_every") is not None:
            raise click.UsageError("--checkpoint-every and --no-checkpoints exclude each other")
        changes["checkpoints"] = False
    if options.get("watch"):
        changes["watches"] = tuple(parse_watch(text) for text in options["watch"])
    if options.get("input_file") is not None:
        changes["inputs"] = (Input(0, read_input_file(options["input_file"])),)
    host: dict[str, Any] = {}
    for option in ("pcpus", "policy"):
        if options.get(option) is not None:
            host[option] = options[option]
    for option, name in (("slice_", "slice_ns"), ("quantum", "quantum_ns")):
        if options.get(option) is not None:
            host[name] = parse_duration_ns(options[option])
    if options.get("neighbour"):
        host["neighbours"] = tuple(Neighbour.parse(text, index) for index, text in enumerate(options["neighbour"]))
    hypervisor: dict[str, Any] = {}
    if options.get("profile") is not None:
        hypervisor["profile"] = options["profile"]
    if options.get("publication") is not None:
        hypervisor["publication"] = options["publication"]
    if options.get("fault"):
        hypervisor["faults"] = tuple(options["fault"])
    if options.get("pv_base") is not None:
        try:
            hypervisor["pv_base"] = int(options["pv_base"], 0)
        except ValueError:
            raise InputError(f"--pv-base {options['pv_base']!r}: an address is needed, for example 0x90a0000") from None
    return replace(base, host=replace(base.host, **host), hypervisor=replace(base.hypervisor, **hypervisor), **changes).checked()
