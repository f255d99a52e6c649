"""What a run was made of, as far as it decides how two runs may be compared. Spec: formats/SPEC.md "Manifest"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tracekit.formats.reader import Trace


@dataclass(frozen=True, slots=True)
class Identity:
    """conditions: what must agree, seed apart, for two runs to be runs of one scenario: guest (images by hash, command line), machine, time,
    host, inputs, limits. hypervisor: what is put to the test (profile, publication, faults, ...); capture: what was written down.

    A trace whose manifest has no scenario is like no other one. The device tree follows from the rest and the seed. Names of files, capture and the engine's mode change nothing that happens.
    """

    path: str
    seed: int
    vcpus: int
    conditions: dict[str, Any]
    hypervisor: Any
    capture: Any
    recovered_at: int | None

    @property
    def guest(self) -> Any:
        """The guest's images by hash."""
        return self.conditions["guest"]


def identity(trace: Trace) -> Identity:
    """Of a trace's manifest; what it does not tell is None."""
    manifest = trace.manifest
    scenario: dict[str, Any] = manifest.get("scenario", {})
    machine: dict[str, Any] = manifest.get("machine", {})
    images = sorted((image["role"], image["sha256"]) for image in manifest["images"] if image["role"] != "devicetree")

    def some(*names: str) -> dict[str, Any]:
        return {name: scenario.get(name) for name in names}

    return Identity(
        path=str(trace.path),
        seed=int(scenario.get("seed", 0)),
        vcpus=int(machine.get("vcpus", 0)),
        conditions={
            "guest": images,
            "command line": scenario.get("append"),
            "machine": {**some("vcpus", "ram", "cpu", "conduit"), "entry": machine.get("entry")},
            "time": some("ns_per_instruction", "exit_cost_ns"),
            "host": scenario.get("host"),
            "inputs": scenario.get("inputs"),
            "limits": some("max_vtime_ns", "max_instructions", "panic_text"),
            "scenario": None if scenario else f"not in the manifest ({manifest['digest'][:12]})",
        },
        hypervisor=scenario.get("hypervisor"),
        capture={**some("capture", "watches"), "window": manifest.get("captured")},
        recovered_at=int(manifest["end"]["position"]) if manifest.get("recovered") is not None else None,
    )


def differing(a: Identity, b: Identity) -> list[str]:
    """In which conditions two runs differ, the seed last; with the values where they are short: `host.policy fair, chaos`."""
    out = []
    for name, before in a.conditions.items():
        after = b.conditions[name]
        if before != after:
            out.append(_told(name, before, after))
    if a.seed != b.seed:
        out.append(f"seed {a.seed}, {b.seed}")
    return out


def hypervisors(a: Identity, b: Identity) -> str | None:
    """In what the hypervisors differ; None: in nothing."""
    return None if a.hypervisor == b.hypervisor else _told("hypervisor", a.hypervisor, b.hypervisor)


def _told(name: str, before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        return "; ".join(_told(f"{name}.{key}", before.get(key), after.get(key)) for key in keys)
    texts = [_short(before), _short(after)]
    return f"{name} {texts[0]}, {texts[1]}" if max(len(text) for text in texts) <= 60 else name


def _short(value: Any) -> str:
    if isinstance(value, list):
        return (
            "[" + ", ".join(str(one["name"]) if isinstance(one, dict) and "name" in one else _short(one) for one in value) + "]"
        )
    return str(value)
