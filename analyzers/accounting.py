"""Invariants of the guest's own accounting: G1, G2, and L1 where its cursor shows. Spec: docs/pvtime.md 4.10, 4.12, 5.10."""

from __future__ import annotations

import polars as pl

from tracekit.analyzers.console import COLUMNS, USER_HZ_NS, Reading, StatParser
from tracekit.analyzers.findings import Finding, Tally

TICK_NS = 4_000_000  # HZ = 250


class Accounting:
    """Follows the readings of /proc/stat over windows; CPU n is vCPU n."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._stat = StatParser()
        self._last: dict[int, Reading] = {}
        self._enables: dict[int, list[tuple[int, int]]] = {}  # repeated PV_TIME_ST since its steal stepped back
        self._enabled: set[int] = set()
        self._idle_ns: dict[int, int] = {}

    def feed(self, window: dict[str, pl.DataFrame], ledger: pl.DataFrame) -> None:
        """One window: `console`, `directives`, and its ledger."""
        readings = [*zip(found := self._stat.feed(window["console"]), _idle_ns(found, ledger), strict=True)]
        enables = (
            ledger.filter(pl.col("event") == "st").select("position", "sequence", "vcpu").sort("position", "sequence").rows()
        )
        kind = pl.col("kind")
        is_new = kind.is_in(["reset", "kexec"]) | ((kind == "restore") & (pl.col("size") == 1) & pl.col("vcpu").is_null())
        fresh = window["directives"].filter(is_new).select("position", "sequence").rows()
        events: list[tuple[int, int, int, object]] = [
            *((position, sequence, 0, None) for position, sequence in fresh),
            *((position, sequence, 1, vcpu) for position, sequence, vcpu in enables),
            *((one.position, one.sequence, 2, (one, idle_ns)) for one, idle_ns in readings),
        ]
        for position, sequence, _, what in sorted(events, key=lambda one: one[:3]):
            if isinstance(what, tuple):
                self._read(*what)
            elif isinstance(what, int):
                if what in self._enabled:
                    self._enables.setdefault(what, []).append((position, sequence))
                self._enabled.add(what)
            else:  # another kernel's, or an older one's numbers
                self._last.clear()
                self._enables.clear()
                self._enabled.clear()

    def _read(self, now: Reading, idle_ns: int | None) -> None:
        """idle_ns: waits of the CPU that began in WFI so far; None: as at the reading before."""
        waited_ns = 0 if idle_ns is None else idle_ns - self._idle_ns.get(now.cpu, 0)
        if idle_ns is not None:
            self._idle_ns[now.cpu] = idle_ns
        before = self._last.get(now.cpu)
        self._last[now.cpu] = now
        if before is None:
            return
        if now.steal_ns < before.steal_ns:
            expected, found = f"at least {before.steal_ns} ns of steal on CPU {now.cpu}, as before", f"{now.steal_ns} ns"
            self._say("G1", now, expected, found)
            if again := self._enables.pop(now.cpu, []):
                told = f"{found}: its cursor is of before the PV_TIME_ST at position {again[-1][0]}"
                self._say("L1", now, expected, told)
        used_ns = [after - earlier for after, earlier in zip(now.times_ns, before.times_ns, strict=True)]
        wall_ns = now.end_ns - before.begin_ns
        # Each column is cut to whole ticks of USER_HZ; idle is a wall clock, so a wait that began asleep is in it and in steal.
        slack_ns = TICK_NS + USER_HZ_NS * sum(one != 0 for one in used_ns) + waited_ns
        if sum(used_ns) > wall_ns + slack_ns:
            shown = ", ".join(f"{name} {one}" for name, one in zip(COLUMNS, used_ns, strict=True) if one)
            expected = f"at most {wall_ns + slack_ns} ns of CPU {now.cpu} in {wall_ns} ns"
            self._say("G2", now, expected, f"{sum(used_ns)} ns ({shown})")

    def _say(self, invariant: str, at: Reading, expected: str, found: str) -> None:
        self._tally.note(Finding(invariant, "console", at.position, at.sequence, at.vtime_ns, at.cpu, expected, found, 1))


def _idle_ns(readings: list[Reading], ledger: pl.DataFrame) -> list[int | None]:
    """For each reading, the waits of its CPU that had begun in WFI until then; None: no row of that vCPU in this window before it."""
    if not readings:
        return []
    rows = [(index, one.cpu, one.position) for index, one in enumerate(readings)]
    asked = pl.DataFrame(rows, schema={"index": pl.Int64, "vcpu": pl.UInt16, "position": pl.UInt64}, orient="row").sort(
        "position"
    )
    known = ledger.select("vcpu", "position", "idle_ns").sort("position", maintain_order=True)
    return asked.join_asof(known, on="position", by="vcpu", check_sortedness=False).sort("index")["idle_ns"].to_list()
