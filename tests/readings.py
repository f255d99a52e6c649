"""What tests of the samples read from a trace: /proc/stat on the console, and how long each vCPU waited, in plain Python."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from support import console, rows

USER, SYSTEM, IDLE, STEAL = 0, 2, 3, 7  # columns of /proc/stat
UNIT_NS = 10_000_000  # USER_HZ = 100
_WAITING = frozenset({"online", "wake", "preempt", "yield", "throttle", "unthrottle", "resume", "unsuspend"})


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of /proc/stat: the time before and after it, and the ten columns of each CPU in units of 10 ms."""

    begin_ns: int
    end_ns: int
    total: tuple[int, ...]
    cpus: dict[int, tuple[int, ...]]


def readings(path: Path) -> list[Reading]:
    """Every block between STAT BEGIN and STAT END on a trace's console."""
    out = []
    for begin, body, end in re.findall(r"STAT BEGIN (\d+)\r?\n(.*?)STAT END (\d+)", console(path), re.DOTALL):
        lines = dict(re.findall(r"^(cpu\d*) +([\d ]+?)\r?$", body, re.MULTILINE))
        columns = {name: tuple(int(one) for one in text.split()) for name, text in lines.items()}
        assert all(len(one) == 10 for one in columns.values()), body
        total = columns.pop("cpu")
        out.append(Reading(int(begin) * 16, int(end) * 16, total, {int(name[3:]): one for name, one in columns.items()}))
    return out


def steals(path: Path, vcpu: int) -> list[int]:
    """A CPU's steal column in the readings in which it is online."""
    return [reading.cpus[vcpu][STEAL] for reading in readings(path) if vcpu in reading.cpus]


class Waits:
    """When a vCPU's thread waited (docs/pvtime.md 5.1), from its schedule rows alone. spans: [begin, end) in ns."""

    def __init__(self, path: Path, vcpu: int) -> None:
        self.spans: list[tuple[int, int]] = []
        since: int | None = None
        for row in rows(path, "schedule"):
            if row["vcpu"] != vcpu or row["event"] == "migrate" or (row["event"], row["reason"]) == ("run", "turn"):
                continue
            if row["event"] in _WAITING:
                since = row["vtime_ns"] if since is None else since
            elif since is not None:
                self.spans.append((since, row["vtime_ns"]))
                since = None
        self._ends = [end for _, end in self.spans]
        self._sums = [0, *accumulate(end - begin for begin, end in self.spans)]

    def until(self, ns: int) -> int:
        """The whole wait up to a time."""
        done = bisect.bisect_right(self._ends, ns)
        begun = self.spans[done][0] if done < len(self.spans) else ns
        return self._sums[done] + max(0, ns - begun)

    def between(self, begin_ns: int, end_ns: int) -> int:
        """The wait in [begin, end)."""
        return self.until(end_ns) - self.until(begin_ns)


def publication_errors(path: Path, vcpu: int) -> list[int]:
    """told - waited since PV_TIME_ST, in ns, at each update: all 0 under policy kvm without slots away, restores and new threads."""
    waits = Waits(path, vcpu)
    out, began = [], None
    for row in rows(path, "pvtime"):
        if row["vcpu"] != vcpu:
            continue
        if row["event"] == "enable":
            began = row["vtime_ns"]
        elif row["event"] == "publish" and began is not None:
            out.append(row["stolen_ns"] - waits.between(began, row["vtime_ns"]))
    return out
