"""trace.json: canonical JSON with its own digest. Spec: formats/SPEC.md "Manifest"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tracekit.formats.captures import check_captured
from tracekit.formats.errors import NotATraceError, TraceDamaged, TraceVersionError
from tracekit.formats.pages import check_pages
from tracekit.formats.tables import MAJOR, MINOR, TABLES

NAME = "trace.json"
FORMAT = "tracekit-trace"
MANIFEST_BYTES_MAX = 64 << 20
CHECKPOINTS_MAX = 512
VCPUS_MAX = 1 << 16  # the column vcpu is u16
_HEX = frozenset("0123456789abcdef")


def canonical(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8 as it is, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical manifest without its digest."""
    return hashlib.sha256(canonical({key: value for key, value in manifest.items() if key != "digest"})).hexdigest()


def encode(manifest: Mapping[str, Any]) -> bytes:
    """The file's bytes: the manifest with its digest, and a newline."""
    whole = {**manifest, "format": {"name": FORMAT, "major": MAJOR, "minor": MINOR, "quirks": []}}
    whole["digest"] = digest(whole)
    return canonical(whole) + b"\n"


def decode(raw: bytes, where: str) -> dict[str, Any]:
    """Errors: NotATraceError, TraceVersionError, TraceDamaged."""
    if len(raw) > MANIFEST_BYTES_MAX:
        raise TraceDamaged(f"{where}: a manifest of {len(raw)} bytes; at most {MANIFEST_BYTES_MAX} are read")
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise TraceDamaged(f"{where}: the manifest is no JSON ({error}); try `tracekit recover`") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), dict):
        raise NotATraceError(f"{where}: JSON, but not a trace's manifest")
    form = manifest["format"]
    if form.get("name") != FORMAT:
        raise NotATraceError(f"{where}: not a trace (format {form.get('name')!r} instead of {FORMAT!r})")
    if form.get("major") != MAJOR:
        raise TraceVersionError(
            f"{where}: format {form.get('major')}.{form.get('minor')}; this version reads {MAJOR}.x: use a newer tracekit"
        )
    if raw != canonical(manifest) + b"\n" or manifest.get("digest") != digest(manifest):
        raise TraceDamaged(f"{where}: the manifest was altered: its digest does not agree with its content")
    return manifest


def check(manifest: Mapping[str, Any], where: str) -> None:
    """The parts that a reader relies on have the form that SPEC gives them. Errors: TraceDamaged."""
    try:
        tables = manifest["tables"]
        missing, extra = sorted(set(TABLES) - set(tables)), sorted(set(tables) - set(TABLES))
        if missing:
            raise TraceDamaged(f"{where}: lists no table {', '.join(missing)}")
        if extra and manifest["format"]["minor"] <= MINOR:
            raise TraceDamaged(f"{where}: lists unknown tables {', '.join(extra)}")
        for name in TABLES:
            table = tables[name]
            at = _natural(table["prelude"]["length"])
            _hash(table["sha256"]), _hash(table["prelude"]["sha256"])
            if table["file"] != TABLES[name].file:
                raise ValueError(f"table {name} in file {table['file']}")
            rows = 0
            for batch in table["batches"]:
                if _natural(batch["offset"]) != at:
                    raise ValueError(f"table {name}: a gap before byte {batch['offset']}")
                at += _natural(batch["length"])
                rows += _natural(batch["rows"])
                _hash(batch["sha256"])
                for key in ("position", "sequence", "vtime_ns"):
                    _natural(batch[key][0]), _natural(batch[key][1])
                check_pages(batch)
            if rows != table["rows"] or at > _natural(table["bytes"]):
                raise ValueError(f"table {name}: rows or bytes do not add up")
        for image in manifest["images"]:
            _hash(image["sha256"]), _natural(image["size"]), str(image["role"]), str(image["name"])
            _hash(image["stored"]["sha256"]), _natural(image["stored"]["bytes"])
        if manifest["complete"] is not True:
            raise ValueError("it is not marked complete")
        for key in ("position", "sequence", "vtime_ns"):
            _natural(manifest["end"][key])
        _check_checkpoints(manifest)
        for index, thread in enumerate(manifest["threads"]):
            if thread["thread"] != index or thread["kind"] not in ("vcpu", "neighbour", "vmm"):
                raise ValueError(f"thread {index}")
        _check_description(manifest)
    except TraceDamaged:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TraceDamaged(f"{where}: the manifest has not the form it must have ({error})") from None


def _check_checkpoints(manifest: Mapping[str, Any]) -> None:
    """Ascending, none behind the end, each of a file of its own. Traces before 1.2 list none."""
    listed = manifest.get("checkpoints", [])
    _kind(manifest, "checkpoints", list)
    if len(listed) > CHECKPOINTS_MAX:
        raise ValueError(f"{len(listed)} checkpoints; there are at most {CHECKPOINTS_MAX}")
    before, files = -1, set()
    end = manifest["end"]["position"], manifest["end"]["sequence"]
    for one in listed:
        check_checkpoint(one)
        if one["file"] in files or one["position"] <= before or (one["position"], one["sequence"]) > end:
            raise ValueError(f"a checkpoint at position {one['position']}")
        before = one["position"]
        files.add(one["file"])


def check_checkpoint(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """One element of the list, as it is. Errors: KeyError, TypeError, ValueError, AttributeError."""
    if set(one) != {"position", "sequence", "vtime_ns", "file", "bytes", "pages"}:
        raise ValueError("a checkpoint with other keys than it must have")
    for key in ("position", "sequence", "vtime_ns", "bytes", "pages"):
        _natural(one[key])
    sha256 = one["file"].removeprefix("checkpoints/").removesuffix(".ckpt")
    if one["file"] != checkpoint_file(_hash(sha256)):
        raise ValueError(f"a checkpoint in file {one['file']}")
    return one


def checkpoint_file(sha256: str) -> str:
    """The name inside a trace of the checkpoint file with that SHA-256."""
    return f"checkpoints/{sha256}.ckpt"


def _check_description(manifest: Mapping[str, Any]) -> None:
    """What is said of machine and scenario, where it is said at all."""
    for key in ("machine", "scenario", "engine", "producer", "recovered"):
        _kind(manifest, key, dict)
    machine, scenario = manifest.get("machine", {}), manifest.get("scenario", {})
    for key in ("vcpus", "ram_base", "ram_size", "exit_cost_ns"):
        if key in machine:
            _natural(machine[key])
    if "vcpus" in machine and not 1 <= machine["vcpus"] <= VCPUS_MAX:
        raise ValueError(f"{machine['vcpus']} vCPUs")
    for key in ("segments", "reserved", "pv_structures"):
        _kind(machine, key, list)
    for segment in machine.get("segments", ()):
        _natural(segment["ipa"]), _natural(segment["size"]), str(segment["image"])
    for ipa, size in machine.get("reserved", ()):
        _natural(ipa), _natural(size)
    for ipa in machine.get("pv_structures", ()):
        _natural(ipa)
    for key in ("host", "hypervisor"):
        _kind(scenario, key, dict)
    _kind(scenario.get("host", {}), "neighbours", list)
    _kind(scenario.get("hypervisor", {}), "faults", list)
    if not all(isinstance(fault, dict) for fault in scenario.get("hypervisor", {}).get("faults", ())):
        raise TypeError("a fault is no object")
    _kind(manifest.get("recovered", {}), "missing", list)
    check_captured(manifest)
    if "pcpus" in scenario.get("host", {}):
        _natural(scenario["host"]["pcpus"])


def _kind(table: Mapping[str, Any], key: str, kind: type) -> None:
    if not isinstance(table.get(key, kind()), kind):
        raise TypeError(f"{key} is no {'object' if kind is dict else 'list'}")


def _natural(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise ValueError(f"{value!r} is no count")
    return value


def _hash(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= _HEX:
        raise ValueError(f"{value!r} is no SHA-256")
    return value
