"""A second oracle: the truth of SPEC 9 by plain loops over rows, without a line of tracekit's analyzers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

AFTER = {
    "online": "wait", "run": "run", "poll": "run", "preempt": "wait", "wake": "wait", "yield": "yield", "throttle": "wait",
    "resume": "wait", "unsuspend": "wait", "block": "block", "offline": "offline", "pause": "block", "suspend": "suspend",
}  # fmt: skip


@dataclass
class Life:
    """One vCPU's clocks (ns) and truth."""

    state: str = "offline"
    since: int = 0
    spent: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("run", "wait", "yield", "block", "offline", "suspend"), 0)
    )
    origin: int = 0  # the policy's clock at which the truth would have been 0
    due: int = 0  # what must stand in memory
    due_before: int = 0
    is_entered: bool = True
    enabled: bool = False

    def at(self, now: int) -> dict[str, int]:
        spent = dict(self.spent)
        spent[self.state] += now - self.since
        return spent

    def change(self, now: int, state: str) -> None:
        self.spent, self.since, self.state = self.at(now), now, state

    def clock(self, now: int, policy: str) -> int:
        spent = self.at(now)
        waited = spent["wait"] + spent["yield"]
        if policy == "kvm":
            return waited
        if policy == "spec-min":
            return spent["wait"]
        return waited + spent["offline" if policy == "xen" else "suspend"]

    def truth(self, now: int, policy: str) -> int:
        return self.clock(now, policy) - self.origin


@dataclass
class Oracle:
    """Follows all rows of a trace in order. told: for each publish row (position) its truth; seen: for each read what must stand there."""

    vcpus: int
    policy: str
    lives: list[Life] = field(default_factory=list)
    told: dict[int, int] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    snapshots: dict[int, list[tuple[int, bool]]] = field(default_factory=dict)

    def run(self, rows: dict[str, list[dict[str, Any]]], structure: dict[int, int]) -> Oracle:
        """rows: of each table. structure: whose it is, by IPA."""
        self.lives = [Life() for _ in range(self.vcpus)]
        every = [(row["position"], row["sequence"], table, row) for table, some in rows.items() for row in some]
        for _, _, table, row in sorted(every, key=lambda one: one[:2]):
            self._row(table, row, structure)
        return self

    def _row(self, table: str, row: dict[str, Any], structure: dict[int, int]) -> None:
        now, vcpu = row["vtime_ns"], row["vcpu"]
        if table == "schedule" and vcpu is not None:
            life = self.lives[vcpu]
            if row["reason"] != "turn" and row["event"] in AFTER:
                life.change(now, AFTER[row["event"]])
            is_turn = row["event"] == "run" and row["reason"] == "turn"
            if row["event"] == "run" and not is_turn:
                life.due_before, life.due = life.due, life.truth(now, self.policy)
            if row["event"] == "poll" and row["reason"] == "poll":  # it was no guest entry: the thread goes on polling
                life.due, life.is_entered = life.due_before, False
            elif row["event"] in ("run", "offline", "block", "preempt"):
                if is_turn and not life.is_entered:
                    life.due = life.truth(now, self.policy)
                life.is_entered = True
            if is_turn:
                life.change(now, "run")
        elif table == "hypercalls" and row["function_id"] == 0xC500_0021 and row["ret0"] < 1 << 63:
            life = self.lives[vcpu]
            life.origin, life.due, life.enabled = life.clock(now, self.policy), 0, True
        elif table == "pvtime" and row["event"] == "publish" and self.lives[vcpu].enabled:
            self.told[row["position"]] = self.lives[vcpu].truth(now, self.policy)
        elif table == "pvtime" and row["event"] == "read":
            owner = self.lives[structure[row["ipa"]]]
            if owner.enabled:
                self.seen[row["position"]] = owner.due
        elif table == "directives" and row["kind"] == "snapshot":
            self.snapshots[row["value"]] = [(life.due, life.enabled) for life in self.lives]
        elif table == "directives" and row["kind"] == "restore":
            if vcpu is None:
                for life, before in zip(self.lives, self.snapshots[row["value"]], strict=True):
                    if row["size"] == 1:
                        life.due, life.enabled = before
                    life.origin = life.clock(now, self.policy) - life.due
            else:
                self.lives[vcpu].origin -= row["value"]
