"""Traces made by hand: rows as Python values, written by pyarrow alone, so that analyses are not tested against our own writer only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from tracekit.formats.tables import DICTIONARIES, MAJOR, MINOR, TABLES

PV_BASE = 0x090A_0000
ST, FEATURES, ARCH_FEATURES = 0xC500_0021, 0xC500_0020, 0x8000_0001
NO = (1 << 64) - 1
_TYPES = {
    "u8": pa.uint8(), "u16": pa.uint16(), "u32": pa.uint32(), "u64": pa.uint64(), "i32": pa.int32(), "binary": pa.binary(),
    "digest": pa.binary(32), "text": pa.dictionary(pa.uint8(), pa.utf8()),
}  # fmt: skip
_SCHEMAS = {
    name: pa.schema([pa.field(one.name, _TYPES[one.type], nullable=one.nullable) for one in table.columns])
    for name, table in TABLES.items()
}


class Handmade:
    """A trace in the making. Each row has a position of its own, in the order of the calls; times in ns.

    Structures lie 64 bytes apart from PV_BASE and are registered by `begin`.
    """

    def __init__(
        self, vcpus: int = 1, *, pcpus: int = 1, neighbours: int = 0, machine: dict[str, Any] | None = None, **hypervisor: Any
    ):
        self.vcpus, self.pcpus = vcpus, pcpus
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self.position = 0
        self.end_ns = 0
        self.recovered: list[str] | None = None
        self.reason = "power_off"
        kinds = ["vcpu"] * vcpus + ["neighbour"] * neighbours
        described = {
            "vcpus": vcpus, "ram_base": 0x4000_0000, "ram_size": 1 << 24, "reserved": [], "segments": [],
            "pv_structures": [self.base(vcpu) for vcpu in range(vcpus)], **(machine or {}),
        }  # fmt: skip
        self._manifest = {
            "format": {"name": "tracekit-trace", "major": MAJOR, "minor": MINOR, "quirks": []},
            "complete": True,
            "scenario": {"host": {"pcpus": pcpus}, "hypervisor": {"publication": "kvm", **hypervisor}},
            "machine": {key: value for key, value in described.items() if value is not None},
            "threads": [{"thread": n, "kind": kind, "name": f"{kind}{n}"} for n, kind in enumerate(kinds)],
            "images": [],
        }  # fmt: skip

    @staticmethod
    def base(vcpu: int) -> int:
        """Where a vCPU's structure lies."""
        return PV_BASE + 64 * vcpu

    # --- rows ---------------------------------------------------------------------------------------------------------------------

    def row(self, table: str, at_ns: int, vcpu: int | None, **columns: Any) -> int:
        """Any row; columns that are not named are null, 0 or empty. Gives its position."""
        values: dict[str, Any] = {}
        for column in TABLES[table].columns[4:]:
            empty = {"binary": b"", "text": None}.get(column.type, 0)
            values[column.name] = columns.pop(column.name, None if column.nullable else empty)
        assert not columns, columns
        self.rows[table].append({"position": self.position, "sequence": 0, "vtime_ns": at_ns, "vcpu": vcpu, **values})
        self.end_ns = max(self.end_ns, at_ns)
        self.position += 10
        return self.position - 10

    def begin(self, bases: list[int] | None = None) -> Handmade:
        """Memory slots and registrations; vCPU 0 comes online, the others are off."""
        self.directive("slot_add", 0, ipa=0x4000_0000, size=1 << 24)
        self.directive("slot_add", 0, ipa=PV_BASE, size=0x1_0000)
        for vcpu in range(self.vcpus):
            self.directive("attribute_set", 0, vcpu, ipa=bases[vcpu] if bases else self.base(vcpu))
        for vcpu in range(self.vcpus):
            self.schedule(0, vcpu, "offline" if vcpu else "online", "start", vcpu % self.pcpus)
        return self

    def directive(self, kind: str, at_ns: int, vcpu: int | None = None, *, result: int | None = 0, **columns: Any) -> int:
        """What was done from outside."""
        return self.row("directives", at_ns, vcpu, kind=kind, result=result, **columns)

    def schedule(self, at_ns: int, vcpu: int, event: str, reason: str | None = None, pcpu: int = 0) -> int:
        """A thread's change."""
        return self.row(
            "schedule", at_ns, vcpu if vcpu < self.vcpus else None, thread=vcpu, event=event, reason=reason, pcpu=pcpu
        )

    def call(self, at_ns: int, vcpu: int, function_id: int, x1: int, ret0: int, **columns: Any) -> int:
        """A hypercall."""
        more = {"conduit": "hvc", "x0": function_id, **columns}
        return self.row("hypercalls", at_ns, vcpu, function_id=function_id, x1=x1, ret0=ret0, **more)

    def store(self, at_ns: int, vcpu: int, ipa: int, value: int, size: int = 8, cause: str | None = "pvtime") -> int:
        """A store by the host; cause None: by the guest."""
        origin = "guest" if cause is None else "host"
        return self.row("memory_writes", at_ns, vcpu, origin=origin, ipa=ipa, size=size, value=value, cause=cause)

    def publish(self, at_ns: int, vcpu: int, told_ns: int, **fields: int) -> int:
        """An update as KVM does it: one store, and the row that tells of it."""
        self.store(at_ns, vcpu, self.base(vcpu) + 8, told_ns)
        return self.tell(at_ns, vcpu, told_ns, **fields)

    def tell(self, at_ns: int, vcpu: int, told_ns: int, event: str = "publish", of: int | None = None, **fields: int) -> int:
        """A row of `pvtime`, of a vCPU's structure."""
        ipa = self.base(vcpu if of is None else of)
        return self.row("pvtime", at_ns, vcpu, event=event, ipa=ipa, stolen_ns=told_ns, **fields)

    def read(self, at_ns: int, vcpu: int, told_ns: int, of: int | None = None) -> int:
        """The guest reads a structure (default: the vCPU's own)."""
        return self.tell(at_ns, vcpu, told_ns, "read", of)

    def enable(self, at_ns: int, vcpu: int) -> int:
        """PV_TIME_ST as KVM does it."""
        self.call(at_ns, vcpu, ST, 0, self.base(vcpu))
        for offset in range(0, 64, 8):
            self.store(at_ns, vcpu, self.base(vcpu) + offset, 0, cause="pvtime_enable")
        return self.tell(at_ns, vcpu, 0, "enable")

    def enter(self, at_ns: int, vcpu: int, told_ns: int, pcpu: int = 0) -> int:
        """A switch-in with its update."""
        self.schedule(at_ns, vcpu, "run", "slice", pcpu)
        return self.publish(at_ns, vcpu, told_ns)

    def say(self, at_ns: int, vcpu: int, text: str) -> int:
        """A line on the console."""
        return self.row("console", at_ns, vcpu, data=text.encode() + b"\n")

    def stat(self, at_ns: int, *cpus: str) -> None:
        """A reading of /proc/stat; each CPU's columns as text."""
        self.say(at_ns, 0, f"STAT BEGIN {at_ns // 16}")
        for cpu, columns in enumerate(cpus):
            self.say(at_ns, 0, f"cpu{cpu} {columns}")
        self.say(at_ns, 0, f"STAT END {at_ns // 16}")

    # --- the file -----------------------------------------------------------------------------------------------------------------

    def write(self, path: Path, batch_rows: int = 65_536) -> Path:
        """A trace directory that any reader takes."""
        path.mkdir()
        (path / "images").mkdir()
        tables = {name: self._table(path / f"{name}.arrow", name, batch_rows) for name in TABLES}
        end = {"reason": self.reason, "detail": None, "position": self.position, "sequence": 0, "vtime_ns": self.end_ns}
        manifest: dict[str, Any] = {**self._manifest, "tables": tables, "end": end}
        if self.recovered is not None:
            manifest["recovered"] = {"missing": self.recovered}
        manifest["digest"] = hashlib.sha256(_canonical(manifest)).hexdigest()
        (path / "trace.json").write_bytes(_canonical(manifest) + b"\n")
        return path

    def _table(self, path: Path, name: str, batch_rows: int) -> dict[str, Any]:
        rows = self.rows[name]
        pieces = [rows[at : at + batch_rows] for at in range(0, len(rows), batch_rows)]
        batches = []
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMAS[name]) as writer:
            writer.write_batch(_batch(name, []))
            begin = at = sink.tell()
            for piece in pieces:
                writer.write_batch(_batch(name, piece))
                batches.append((at, sink.tell() - at, piece))
                at = sink.tell()
        raw = path.read_bytes()

        def digest(offset: int, length: int) -> str:
            return hashlib.sha256(raw[offset : offset + length]).hexdigest()

        return {
            "file": path.name, "rows": len(rows), "bytes": len(raw), "sha256": digest(0, len(raw)),
            "prelude": {"length": begin, "sha256": digest(0, begin)},
            "batches": [
                {
                    "offset": offset, "length": length, "rows": len(piece), "sha256": digest(offset, length),
                    "position": [piece[0]["position"], piece[-1]["position"]],
                    "sequence": [piece[0]["sequence"], piece[-1]["sequence"]],
                    "vtime_ns": [min(one["vtime_ns"] for one in piece), max(one["vtime_ns"] for one in piece)],
                }
                for offset, length, piece in batches
            ],
        }  # fmt: skip


def _batch(name: str, rows: list[dict[str, Any]]) -> Any:
    columns = []
    for column in TABLES[name].columns:
        values = [row[column.name] for row in rows]
        if column.dictionary is not None:
            names = DICTIONARIES[column.dictionary]
            indices = pa.array([None if value is None else names.index(value) for value in values], pa.uint8())
            columns.append(pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.utf8())))
        else:
            columns.append(pa.array(values, _TYPES[column.type]))
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMAS[name])


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
