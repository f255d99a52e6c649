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
        self._implied = _Implied()
        self._implied_ns: dict[int, int] = {}  # at each CPU's last reading

    def feed(self, window: dict[str, pl.DataFrame], ledger: pl.DataFrame) -> None:
        """One window: `console`, `directives`, and its ledger."""
        readings = self._stat.feed(window["console"])
        if readings or self._last:  # what came before the first reading does not matter
            self._implied.feed(ledger)
        enables = (
            ledger.filter(pl.col("event") == "st").select("position", "sequence", "vcpu").sort("position", "sequence").rows()
        )
        kind = pl.col("kind")
        is_new = kind.is_in(["reset", "kexec"]) | ((kind == "restore") & (pl.col("size") == 1) & pl.col("vcpu").is_null())
        fresh = window["directives"].filter(is_new).select("position", "sequence").rows()
        events: list[tuple[int, int, int, object]] = [
            *((position, sequence, 0, None) for position, sequence in fresh),
            *((position, sequence, 1, vcpu) for position, sequence, vcpu in enables),
            *((one.position, one.sequence, 2, (one, ns)) for one, ns in zip(readings, self._implied.at(readings), strict=True)),
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

    def _read(self, now: Reading, implied_ns: int) -> None:
        """implied_ns: what Linux may have counted twice on this CPU so far."""
        twice_ns = implied_ns - self._implied_ns.get(now.cpu, 0)
        self._implied_ns[now.cpu] = implied_ns
        before = self._last.get(now.cpu)
        self._last[now.cpu] = now
        if before is None:
            return
        used_ns = [after - earlier for after, earlier in zip(now.times_ns, before.times_ns, strict=True)]
        if used_ns[-1] >= 1 << 63:  # the kernel's u64 went below 0
            used_ns[-1] -= 1 << 64
        if used_ns[-1] < 0:
            expected, found = f"at least {before.steal_ns} ns of steal on CPU {now.cpu}, as before", f"{now.steal_ns} ns"
            self._say("G1", now, expected, found)
            if again := self._enables.pop(now.cpu, []):
                told = f"{found}: its cursor is of before the PV_TIME_ST at position {again[-1][0]}"
                self._say("L1", now, expected, told)
        wall_ns = now.end_ns - before.begin_ns
        # Besides, each column is cut to whole ticks of USER_HZ.
        slack_ns = TICK_NS + USER_HZ_NS * sum(one != 0 for one in used_ns) + twice_ns
        if sum(used_ns) > wall_ns + slack_ns:
            shown = ", ".join(f"{name} {one}" for name, one in zip(COLUMNS, used_ns, strict=True) if one)
            expected = f"at most {wall_ns + slack_ns} ns of CPU {now.cpu} in {wall_ns} ns"
            self._say("G2", now, expected, f"{sum(used_ns)} ns ({shown})")

    def _say(self, invariant: str, at: Reading, expected: str, found: str) -> None:
        self._tally.note(Finding(invariant, "console", at.position, at.sequence, at.vtime_ns, at.cpu, expected, found, 1))


class _Implied:
    """What Linux may count twice, over windows, for each vCPU: a wait that began in WFI, as the idle column is a wall clock; and up to a tick
    for each wait, as a tick that was due in it is taken late, and the next one charges a whole tick all the same."""

    def __init__(self) -> None:
        self._carried = pl.DataFrame(schema=_IMPLIED)
        self._known = self._carried

    def feed(self, ledger: pl.DataFrame) -> None:
        """One window's ledger."""
        runs = ledger.filter(pl.col("event") == "run").select("vcpu", "position", "wait_ns", "idle_ns")
        rows = pl.concat([self._carried, runs.sort("vcpu", "position")], how="diagonal").sort("vcpu", maintain_order=True)
        waited = pl.col("wait_ns") - pl.col("wait_ns").shift(1).over("vcpu")
        late = pl.coalesce("late_ns", waited.clip(0, TICK_NS), pl.lit(0, pl.Int64))
        self._known = rows.with_columns(late_ns=late.cum_sum().over("vcpu")).select(list(_IMPLIED))
        self._carried = self._known.group_by("vcpu", maintain_order=True).last().select(list(_IMPLIED))

    def at(self, readings: list[Reading]) -> list[int]:
        """For each reading, how much until then (ns)."""
        if not readings:
            return []
        rows = [(index, one.cpu, one.position) for index, one in enumerate(readings)]
        asked = pl.DataFrame(rows, schema={"index": pl.Int64, "vcpu": pl.UInt16, "position": pl.UInt64}, orient="row")
        known = self._known.sort("position", maintain_order=True)
        found = asked.sort("position").join_asof(known, on="position", by="vcpu", check_sortedness=False).sort("index")
        return found.select((pl.col("idle_ns") + pl.col("late_ns")).fill_null(0)).to_series().to_list()


_IMPLIED = {"vcpu": pl.UInt16, "position": pl.UInt64, "wait_ns": pl.Int64, "idle_ns": pl.Int64, "late_ns": pl.Int64}
