"""What manifests say, as frames: threads and runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from tracekit.analyzers.frames import RUN
from tracekit.formats.units import plain

_RUNS = {
    RUN: pl.String, "path": pl.String, "guest": pl.String, "vcpus": pl.UInt16, "pcpus": pl.UInt16, "policy": pl.String,
    "profile": pl.String, "publication": pl.String, "seed": pl.Int64, "capture": pl.String, "reason": pl.String, "position": pl.UInt64,
    "vtime_ns": pl.UInt64, "format": pl.String, "digest": pl.String,
}  # fmt: skip
_THREADS = {RUN: pl.String, "thread": pl.UInt32, "kind": pl.String, "name": pl.String}


def threads(manifests: Iterable[tuple[str, Mapping[str, Any]]]) -> pl.DataFrame:
    """columns: run str, thread u32, kind str (vcpu, neighbour, vmm), name str."""
    rows = [(run, one["thread"], one["kind"], one.get("name")) for run, manifest in manifests for one in manifest["threads"]]
    return pl.DataFrame(rows, schema=_THREADS, orient="row")


def runs(manifests: Iterable[tuple[str, str, Mapping[str, Any]]]) -> pl.DataFrame:
    """One row for each (run, path, manifest).

    columns: run, path, guest str, vcpus u16, pcpus u16, policy, profile, publication str, seed i64, capture str; of the end: reason str,
    position u64, vtime_ns u64; format str, digest str (of the manifest, so of the whole trace). Null where a manifest does not say.
    """
    return pl.DataFrame([_run(*one) for one in manifests], schema=_RUNS, orient="row")


def _run(run: str, path: str, manifest: Mapping[str, Any]) -> tuple[Any, ...]:
    scenario = _part(manifest, "scenario")
    host, hypervisor, machine = _part(scenario, "host"), _part(scenario, "hypervisor"), _part(manifest, "machine")
    end, form = manifest["end"], manifest["format"]
    return (
        plain(run), plain(path), scenario.get("image"), machine.get("vcpus"), host.get("pcpus"), host.get("policy"),
        hypervisor.get("profile"), hypervisor.get("publication"), scenario.get("seed"), scenario.get("capture"), end.get("reason"), end["position"], end["vtime_ns"],
        f"{form['major']}.{form['minor']}", manifest.get("digest"),
    )  # fmt: skip


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = value.get(name)
    return part if isinstance(part, Mapping) else {}
