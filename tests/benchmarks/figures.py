"""Every figure of the page: what it is, what it must hold, which theme measures it.

The lines and targets are those that tracekit was built to; a figure without a target is a peer, a floor or a ceiling that the others are read against.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness import Usage, median_of

LINES = {
    "boot": "Record Debian's boot (1 vCPU, thin, exact, without checkpoints) against QEMU rr=record, whole process, CPU time",
    "checkpoints": "The same with default checkpoints",
    "smp_one": "The same kernel with 2 and 4 vCPUs on 1 pCPU, 3 ms slices, CPU time per guest instruction, against 1 vCPU",
    "smp_many": "The same on as many pCPUs, default quantum, and a curve over the quantum",
    "unrecorded": "Thin record against the same run unrecorded, CPU time",
    "replay": "Serial replay-verify against record, CPU time",
    "jobs": "Replay-verify --jobs 2 against QEMU rr=replay, wall clock on 2 cores",
    "log": "Whole trace without checkpoints and images, all thin tables, bytes per guest instruction, Linux boot",
    "capture": "All guest writes captured, native to Arrow on disk",
    "seek": "Seek to a random position in a 1 G-instruction Linux trace, session open",
    "query": "Memory-history query over 10 M writes, beyond start-up",
    "memory": "Peak memory while recording, guest that touches all its RAM",
    "help": "tracekit --help against a bare click program",
    "hello": 'Small guest (hello), one whole record command, against python -c "import unicorn, pyarrow, click"',
    "growth": "The same boot 1x, 4x, 16x longer (init loops)",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the page. `least`: the target is a least value, not a greatest; `unit` "x" for ratios."""

    key: str
    line: str
    theme: str
    what: str
    unit: str = "x"
    target: float | None = None
    least: bool = False

    def is_met(self, measured: float) -> bool | None:
        """None where there is no target."""
        if self.target is None:
            return None
        return measured >= self.target if self.least else measured <= self.target


@dataclass(slots=True)
class Result:
    """What was measured of a figure: one value for each round (or seek); `measured` stands on the page."""

    key: str
    measured: float | None
    values: list[float] = field(default_factory=list)
    command: Sequence[str] = ()
    note: str = ""
    unavailable: str | None = None
    profiled: Sequence[str] | None = None  # the command whose profile explains a miss

    @classmethod
    def of(
        cls,
        key: str,
        values: list[float],
        command: Sequence[str],
        *,
        used: Mapping[str, list[Usage]] | None = None,
        names: Sequence[str] = (),
        note: str = "",
        profiled: Sequence[str] | None = None,
    ) -> Result:
        """The median of the rounds; what the jobs `names` used stands in the note."""
        parts = [note] if note else []
        for name in names:
            mine = (used or {})[name]
            parts.append(
                f"{name}: {median_of(mine):.3g} s CPU, {median_of(mine, 'wall_s'):.3g} s wall, {median_of(mine, 'peak_mib'):,.0f} MiB"
            )
        return cls(key, statistics.median(values), values, command, "; ".join(parts), None, profiled)

    @classmethod
    def missing(cls, key: str, reason: str) -> Result:
        """It could not be measured."""
        return cls(key, None, unavailable=reason)


FIGURES: tuple[Figure, ...] = (
    Figure("boot_fast", "boot", "record", "every proven trick on (--engine fast)", target=1.0),
    Figure("boot_exact", "boot", "record", "documented behaviour only (--engine exact)", target=1.15),
    Figure("boot_checkpoints", "checkpoints", "record", "--engine fast, default checkpoints", target=1.15),
    Figure("qemu_plain", "boot", "record", "peer: QEMU without recording, against its rr=record"),
    Figure("boot_safe", "boot", "record", "every store checked (--engine safe), against QEMU rr=record"),
    Figure("unrecorded", "unrecorded", "record", "record --no-checkpoints / unrecorded", target=1.03),
    Figure("log", "log", "record", "bytes per guest instruction", unit="B", target=0.0004),
    Figure("qemu_log", "log", "record", "peer: QEMU's log, bytes per guest instruction of its own run", unit="B"),
    Figure("floor_compute", "boot", "record", "floor: record / bare Unicorn without hooks, arithmetic and loads"),
    Figure("floor_stores", "boot", "record", "floor: record / bare Unicorn without hooks, one store in 12 instructions"),
    Figure("replay_serial", "replay", "replay", "replay / record, both with default checkpoints", target=1.1),
    Figure("replay_plain", "replay", "replay", "replay / record, both without checkpoints"),
    Figure("replay_jobs", "jobs", "replay", "times faster than QEMU rr=replay", target=1.8, least=True),
    Figure("replay_jobs_first", "jobs", "replay", "times faster than QEMU rr=replay, without the cache of timings"),
    Figure("replay_jobs_serial", "jobs", "replay", "times faster than the serial replay"),
    Figure("smp_one_2", "smp_one", "smp", "2 vCPUs on 1 pCPU", target=1.3),
    Figure("smp_one_4", "smp_one", "smp", "4 vCPUs on 1 pCPU", target=1.3),
    Figure("smp_many_2", "smp_many", "smp", "2 vCPUs on 2 pCPUs", target=1.6),
    Figure("smp_many_4", "smp_many", "smp", "4 vCPUs on 4 pCPUs", target=1.6),
    *(
        Figure(f"smp_curve_{vcpus}_{us}us", "smp_many", "smp", f"{vcpus} vCPUs on {vcpus} pCPUs, quantum {us} us")
        for vcpus in (2, 4)
        for us in (50, 100, 200, 400, 1000)
    ),
    Figure("capture_store", "capture", "capture", "store loop, writes a second of wall clock, whole process", "1/s", 5e6, True),
    Figure("capture_store_cpu", "capture", "capture", "the same, writes a second of CPU time", "1/s"),
    Figure("store_ceiling", "capture", "capture", "ceiling: pyarrow alone stores the same columns, rows a second", "1/s"),
    Figure(
        "capture_linux", "capture", "capture", "Linux boot window of 100 M instructions, writes a second of wall clock", "1/s"
    ),
    Figure("seek_median", "seek", "seek", "median / time in which the recorded run executed 100 M instructions", target=1.0),
    Figure("seek_p95", "seek", "seek", "95th percentile / time of 300 M instructions", target=1.0),
    Figure("seek_cold_median", "seek", "seek", "cold (new process, trace opened): median / time of 100 M instructions"),
    Figure("seek_cold_p95", "seek", "seek", "cold: 95th percentile / time of 300 M instructions"),
    Figure("query_last", "query", "query", "tracekit who-wrote: who wrote it last, wall clock", "ms", 100.0),
    Figure("query_history", "query", "query", "tracekit who-wrote --limit 1000: all who ever wrote it, wall clock", "ms", 100.0),
    Figure("query_sql", "query", "query", "tracekit query, all of them in SQL, wall clock", "ms"),
    Figure("query_polars", "query", "query", "ceiling: polars alone, scan_ipc and filter", "ms"),
    Figure("query_pyarrow", "query", "query", "ceiling: pyarrow alone, batch by batch and filter", "ms"),
    Figure("memory_plain", "memory", "memory", "beyond configured RAM, without checkpoints", "MB", 150.0),
    Figure("memory_writes", "memory", "memory", "beyond configured RAM, without checkpoints, --capture writes", "MB", 150.0),
    Figure("memory_checkpoints", "memory", "memory", "beyond configured and touched RAM, default checkpoints", "MB", 150.0),
    Figure("memory_often", "memory", "memory", "beyond configured and touched RAM, --checkpoint-every 50M", "MB", 150.0),
    Figure("help", "help", "startup", "CPU time", target=1.2),
    Figure("hello", "hello", "startup", "CPU time", target=3.0),
    Figure("growth_time_4", "growth", "growth", "CPU time per instruction, 4x against 1x", target=1.1),
    Figure("growth_time_16", "growth", "growth", "CPU time per instruction, 16x against 1x", target=1.1),
    Figure("growth_log_4", "growth", "growth", "trace bytes per instruction, 4x against 1x", target=1.1),
    Figure("growth_log_16", "growth", "growth", "trace bytes per instruction, 16x against 1x", target=1.1),
    Figure("growth_memory_4", "growth", "growth", "peak memory, 4x against 1x", target=1.1),
    Figure("growth_memory_16", "growth", "growth", "peak memory, 16x against 1x", target=1.1),
)
BY_KEY = {figure.key: figure for figure in FIGURES}
THEMES = {  # in the order in which they run, and the module of each
    "startup": "startup",
    "record": "record",
    "replay": "replay",
    "seek": "seek",
    "capture": "capture",
    "query": "memory_history",
    "memory": "memory",
    "smp": "vcpus",
    "growth": "growth",
}
