"""What the guest accounted: /proc/stat as guests print it. Spec: samples/README.md; docs/pvtime.md 4.6, 4.11.

A block is `STAT BEGIN <cntvct>`, lines `cpuN user nice system idle iowait irq softirq steal guest guest_nice` in USER_HZ, `STAT END <cntvct>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import polars as pl

from tracekit.analyzers.source import KEY, Want

WANTS = {"console": Want(("data",))}
USER_HZ_NS = 10_000_000
NS_PER_TICK = 16  # of CNTVCT
COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")  # guest time is part of user
LINE_MAX = 4096
_BEGIN, _END = re.compile(rb"STAT BEGIN (\d{1,19})\b"), re.compile(rb"STAT END (\d{1,19})\b")
_CPU = re.compile(rb"cpu(\d{1,5})((?: \d{1,19}){8,10})\s*$")


@dataclass(frozen=True, slots=True)
class Reading:
    """One CPU's line of one block. begin_ns, end_ns: CNTVCT around the block; position and so on: of the console row where its line begins.

    times_ns: the eight columns user to steal.
    """

    position: int
    sequence: int
    vtime_ns: int
    cpu: int
    begin_ns: int
    end_ns: int
    times_ns: tuple[int, ...]

    @property
    def steal_ns(self) -> int:
        """What the guest has accounted as stolen; a u64, like the kernel's."""
        return min(self.times_ns[-1], (1 << 64) - 1)


@dataclass(slots=True)
class StatParser:
    """Finds blocks in the console's bytes, over windows; a block that ends nowhere is dropped."""

    _line: bytearray = field(default_factory=bytearray)
    _at: tuple[int, int, int] = (0, 0, 0)
    _begin_ns: int | None = None
    _open: list[tuple[tuple[int, int, int], int, tuple[int, ...]]] = field(default_factory=list)

    def feed(self, console: pl.DataFrame) -> list[Reading]:
        """The readings whose blocks end in a window of `console`."""
        out: list[Reading] = []
        for position, sequence, vtime_ns, data in console.select(*KEY, "vtime_ns", "data").iter_rows():
            for piece in data.splitlines(keepends=True):
                if not self._line:
                    self._at = position, sequence, vtime_ns
                if len(self._line) < LINE_MAX:
                    self._line += piece
                if piece.endswith((b"\n", b"\r")):
                    out += self._take(bytes(self._line))
                    self._line.clear()
        return out

    def _take(self, line: bytes) -> list[Reading]:
        if found := _BEGIN.search(line):
            self._begin_ns, self._open = int(found[1]) * NS_PER_TICK, []
        elif self._begin_ns is None:
            return []
        elif found := _END.search(line):
            begin_ns, self._begin_ns = self._begin_ns, None
            return [Reading(*at, cpu, begin_ns, int(found[1]) * NS_PER_TICK, times) for at, cpu, times in self._open]
        elif found := _CPU.search(line):
            times = tuple(int(one) * USER_HZ_NS for one in found[2].split()[: len(COLUMNS)])
            self._open.append((self._at, int(found[1]), times))
        return []
