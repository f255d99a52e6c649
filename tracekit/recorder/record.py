"""From a scenario to a trace on disk: read the guest, record, close whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit import __version__
from tracekit.formats.errors import InputError
from tracekit.formats.writer import TraceWriter
from tracekit.hypervisor.fault import describe
from tracekit.machine.description import describe_engine, describe_machine
from tracekit.machine.loader import GUEST_BYTES_MAX, GuestFiles, LoadedGuest, load
from tracekit.machine.map import RAM_BASE
from tracekit.recorder.faults import load_fault
from tracekit.recorder.scenario import Scenario
from tracekit.recorder.session import End, Progress, Recording


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finished recording: where it lies and how the run ended."""

    path: Path
    end: End


def read_guest_file(path: Path, what: str) -> bytes:
    """A guest's file, at most GUEST_BYTES_MAX. Errors: InputError."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # 0 for what is no plain file; a buffer of the greatest size would cost time
            data = file.read(min(size, GUEST_BYTES_MAX) + 1 if size else GUEST_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(f"cannot read the {what} {path}: {error.strerror}") from None
    if len(data) > GUEST_BYTES_MAX:
        raise InputError(f"{path}: more than {GUEST_BYTES_MAX >> 20} MiB; that is no guest")
    return data


def load_guest(scenario: Scenario) -> LoadedGuest:
    """Read and place the scenario's guest. Errors: InputError."""
    image = Path(scenario.image)
    initrd = Path(scenario.initrd) if scenario.initrd else None
    files = GuestFiles(
        image_name=str(image),
        image=read_guest_file(image, "guest"),
        initrd_name=str(initrd) if initrd else None,
        initrd=read_guest_file(initrd, "initrd") if initrd else None,
        append=scenario.append,
        kind=scenario.guest_format,
    )
    return load(files, scenario.vcpus, scenario.ram, scenario.seed, scenario.conduit, reserved_ram(scenario))


def reserved_ram(scenario: Scenario) -> tuple[tuple[int, int], ...]:
    """RAM that the device tree keeps from the guest: (ipa, size) of what holds the structures that the scenario places there."""
    return scenario.hypervisor.reserved(scenario.vcpus, (RAM_BASE, RAM_BASE + scenario.ram))


def record(
    scenario: Scenario,
    path: Path,
    *,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[Recording], None] | None = None,
) -> Recorded:
    """Record a scenario into a new trace.

    on_progress is called at each commit; on_start once, with the running session (set `.interrupted` to end it cleanly).
    Errors: InputError, DiskError, TraceExistsError; nothing is left behind where the run could not start.
    """
    scenario = scenario.checked()
    guest = load_guest(scenario)
    writer = TraceWriter(path, {"producer": {"tracekit": __version__}}, force=force)
    try:
        session = _begin(scenario, guest, writer, on_progress)
    except BaseException:
        writer.abandon()
        raise
    if on_start is not None:
        on_start(session)
    end = session.run()
    writer.close(_describe_end(session, end))
    session.board.close()
    return Recorded(path, end)


def _begin(
    scenario: Scenario, guest: LoadedGuest, writer: TraceWriter, on_progress: Callable[[Progress], None] | None
) -> Recording:
    names = {"kernel": Path(scenario.image).name, "initrd": Path(scenario.initrd or "").name}
    images = [writer.add_image(part.role, names.get(part.role, "devicetree"), part.data) for part in guest.parts]
    faults = [load_fault(name) for name in scenario.hypervisor.faults]
    session = Recording(scenario, guest, writer, on_progress, faults)
    described = scenario.describe()
    described["hypervisor"]["faults"] = [describe(fault) for fault in faults]
    described["image"], described["initrd"] = Path(scenario.image).name, scenario.initrd and Path(scenario.initrd).name
    neighbours = [one.name for one in scenario.host.neighbours]
    config, engine = session.board.config, describe_engine(session.board.engine.config)

    def entries() -> dict[str, Any]:
        segments = [
            {"ipa": part.ipa, "image": image.sha256, "size": len(part.data)}
            for part, image in zip(guest.parts, images, strict=True)
        ]
        return {
            "scenario": described,
            "machine": describe_machine(config, guest.entry, guest.x0, segments, reserved_ram(scenario)),
            "engine": engine,
            "threads": [
                *({"thread": n, "kind": "vcpu", "name": f"vcpu{n}"} for n in range(scenario.vcpus)),
                *({"thread": scenario.vcpus + n, "kind": "neighbour", "name": name} for n, name in enumerate(neighbours)),
            ],
        }

    writer.set_later(entries)
    return session


def _describe_end(session: Recording, end: End) -> dict[str, Any]:
    return {
        "reason": end.reason.value,
        "detail": end.detail,
        "position": end.position,
        "sequence": int(session.board.engine.state.sequence_next),
        "vtime_ns": end.vtime_ns,
    }
