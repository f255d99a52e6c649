"""Runs in which each fault of the catalogue has something to act on, and the table of what they show (docs/faults.md).

`python tests/fault_runs.py` writes the table and keeps what it says of Linux; with `--linux` that too (some minutes).
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support import REPOSITORY, busy_host, scenario

from tracekit.analyzers.analysis import analyse
from tracekit.formats.reader import Trace
from tracekit.host.config import Directive, HostConfig
from tracekit.hypervisor.config import PV_BASE
from tracekit.recorder.faults import catalogue, load_fault
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Input, Scenario

TABLE = REPOSITORY / "docs" / "faults.md"
HEAD = (
    "| fault | models | needs | must be found by | found on `steal` | error in ns | found on Linux |",
    "|---|---|---|---|---|---|---|",
)
MS = 1_000_000
# What the same run breaks under a faithful hypervisor (docs/pvtime.md 8.1 e and f), by what the fault needs.
FAITHFUL = {"slot_readonly": {"S4"}, "slot_delete": {"S4"}, "kexec": {"L5"}}


def events(needs: str, at_ns: int = 8 * MS) -> tuple[Directive, ...]:
    """What must happen to the machine for a fault to act (Fault.needs)."""
    return {
        "": (),
        "online": (),
        "restore": (Directive(at_ns, "restore", duration_ns=MS, pre_run_ns=300_000),),
        "slot_readonly": (Directive(at_ns, "slot_readonly", ipa=PV_BASE),),
        "slot_delete": (Directive(at_ns, "slot_delete", ipa=PV_BASE),),
        "kexec": (Directive(at_ns, "kexec"),),
        "pause": (Directive(at_ns - 2 * MS, "pause", vcpu=1), Directive(at_ns, "resume", vcpu=1)),
        "migrate": tuple(Directive(at_ns - 5 * MS + 700_000 * n, "migrate", vcpu=n // 2 % 2, pcpu=n % 2) for n in range(20)),
    }[needs]


def host_for(needs: str, at_ns: int = 8 * MS) -> HostConfig:
    """A busy host on which it happens."""
    return busy_host(pcpus=2 if needs == "migrate" else 1, directives=events(needs, at_ns))


def acting(name: str, guest: str = "steal") -> Scenario:
    """A run of a bundled guest for a fault; `accounting` where a CPU must come back, with its cursor reset."""
    needs = load_fault(name).needs
    if needs == "online":
        return scenario("accounting", host=host_for(needs), inputs=(Input(0, b"hr"),))
    return scenario(guest, host=host_for(needs))


def acting_linux(name: str, kernel: Path, initrd: Path) -> Scenario:
    """A boot of the Linux sample for a fault; what must happen happens once user space is there."""
    needs = load_fault(name).needs
    append = "tracekit.readings=2 tracekit.interval=60" + (" tracekit.mode=hotplug" if needs == "online" else "")
    return Scenario(
        image=str(kernel), initrd=str(initrd), append=append, vcpus=2, max_vtime_ns=6_000 * MS, host=host_for(needs, 1_200 * MS)
    )  # fmt: skip


def with_faults(chosen: Scenario, *names: str) -> Scenario:
    """The same run under a wrong hypervisor."""
    return replace(chosen, hypervisor=replace(chosen.hypervisor, faults=names))


@dataclass(frozen=True, slots=True)
class Found:
    """The invariants that a trace breaks, the first ones first, and the greatest error at a guest entry or read, in ns."""

    invariants: tuple[str, ...]
    error_ns: int


def found(trace: Path) -> Found:
    """What `tracekit analyze` finds."""
    analysis = analyse(Trace.open(trace), ("steal", "invariants"))
    assert analysis.steal is not None and analysis.findings is not None
    return Found(tuple(one.invariant for one in analysis.findings), analysis.steal.error_ns)


def linux_sample(name: str) -> Any:
    """A script of samples/linux as a module."""
    spec = importlib.util.spec_from_file_location(f"sample_{name}", REPOSITORY / "samples" / "linux" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def linux_files(folder: Path) -> tuple[Path, Path]:
    """Kernel and initramfs of the sample. Errors: OSError where apt cannot deliver."""
    fetch = linux_sample("fetch")
    try:
        kernel = Path(fetch.fetch("cloud", fetch.default_cache()))
    except fetch.FetchError as error:
        raise FileNotFoundError(str(error)) from error
    initrd = folder / "initramfs.cpio"
    initrd.write_bytes(linux_sample("initramfs").initramfs((REPOSITORY / "samples" / "linux" / "init").read_bytes()))
    return kernel, initrd


def row(name: str, steal: Found, linux: str) -> str:
    """A fault's line of the table; linux: the invariants found there."""
    fault = load_fault(name)
    kind, colon, _ = fault.models.partition(":")
    models = re.sub(r"\b(bugs?|hazards?) ", "", kind).replace(" and ", ", ") if colon and kind != "a policy error" else "-"
    shown = ", ".join(sorted(steal.invariants))
    return f"| `{name}` | {models} | {fault.needs or '-'} | {fault.invariant} | {shown} | {steal.error_ns:,} | {linux} |"


def on_bundled(name: str, folder: Path) -> Found:
    """Record and analyse the bundled run of a fault."""
    record(with_faults(acting(name), name), folder / f"{name}.tkt", force=True)
    return found(folder / f"{name}.tkt")


def lines_of(text: str) -> dict[str, list[str]]:
    """The document's lines by fault, cell by cell."""
    lines = [line for line in text[text.index(HEAD[1]) :].splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: [cell.strip() for cell in line.strip("|").split("|")] for line in lines}


def on_linux(name: str, kernel: Path, initrd: Path, path: Path) -> Found:
    """Record and analyse a boot under a fault."""
    record(with_faults(acting_linux(name, kernel, initrd), name), path, force=True)
    return found(path)


def main(with_linux: bool) -> None:
    """Run everything, write the table into the document."""
    text = TABLE.read_text()
    before, lines = lines_of(text), [*HEAD]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = linux_files(folder) if with_linux else None
        for name in catalogue():
            linux = before[name][-1] if name in before else "not run"
            if files is not None:
                linux = ", ".join(sorted(on_linux(name, *files, folder / "linux.tkt").invariants))
            lines.append(row(name, on_bundled(name, folder), linux))
            print(lines[-1], flush=True)
    begin = text.index(HEAD[0])
    TABLE.write_text(text[:begin] + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main("--linux" in sys.argv[1:])
