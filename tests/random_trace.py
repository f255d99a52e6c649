"""Random lives of vCPUs as a trace: everything that moves a clock, told faithfully or with mistakes."""

from __future__ import annotations

import random
from typing import Any

from handmade import Handmade
from plain_oracle import Oracle

# What may follow in each state: (event, reason), and the state after it.
MOVES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "off": (("online", "power_on", "wait"),),
    "wait": (("run", "slice", "run"), ("run", "slice", "run"), ("migrate", "balance", "wait"), ("throttle", "quota", "wait"),
             ("pause", "directive", "paused"), ("suspend", "directive", "suspended")),
    "run": (("preempt", "slice", "wait"), ("yield", "wfe", "wait"), ("block", "wfi", "sleep"), ("poll", "wfi", "poll"),
            ("throttle", "quota", "wait"), ("offline", "power_off", "off"), ("run", "turn", "run"), ("pause", "directive", "paused"),
            ("suspend", "directive", "suspended"), ("block", "fault", "sleep")),
    "poll": (("run", "turn", "run"), ("block", "poll", "sleep"), ("preempt", "slice", "polled")),
    "polled": (("run", "slice", "polls"), ("migrate", "balance", "polled")),
    "polls": (("run", "turn", "run"), ("block", "poll", "sleep"), ("preempt", "slice", "polled")),
    "sleep": (("wake", "timer", "wait"), ("migrate", "balance", "sleep"), ("pause", "directive", "paused")),
    "paused": (("resume", "directive", "wait"),),
    "suspended": (("unsuspend", "directive", "wait"),),
}  # fmt: skip


class RandomTrace:
    """steps moves of random vCPUs, each with a physical CPU of its own. is_faithful: every entry is told, and rightly."""

    def __init__(self, seed: int, policy: str, steps: int = 60, is_faithful: bool = True) -> None:
        self.random = random.Random(seed)
        self.vcpus = self.random.randint(1, 3)
        self.trace = Handmade(self.vcpus, pcpus=self.vcpus, publication=policy).begin()
        self.states = ["off" if vcpu else "wait" for vcpu in range(self.vcpus)]
        self.now = [0] * self.vcpus
        self.enabled = [False] * self.vcpus
        self.policy, self.is_faithful = policy, is_faithful
        self.snapshots: list[list[bool]] = []
        for _ in range(steps):
            self._step()
        self.trace.end_ns = max(self.now) + self.random.randint(0, 1000)
        self._fill_in()

    @property
    def structures(self) -> dict[int, int]:
        """Whose structure it is, by IPA."""
        return {self.trace.base(vcpu): vcpu for vcpu in range(self.vcpus)}

    def oracle(self) -> Oracle:
        """The plain oracle's view."""
        return Oracle(self.vcpus, self.policy).run(self.trace.rows, self.structures)

    def _step(self) -> None:
        chance = self.random.random()
        vcpu = self.random.randrange(self.vcpus)
        if chance < 0.04:
            self._board()
            return
        self.now[vcpu] += self.random.randint(1, 1000)
        if self.states[vcpu] == "run" and chance < 0.3:
            if not self.enabled[vcpu] or chance < 0.06:
                self.trace.enable(self.now[vcpu], vcpu)
                self.enabled[vcpu] = True
            else:
                of = self.random.randrange(self.vcpus)
                self.trace.read(self.now[vcpu], vcpu, 0, of)
            return
        if self.is_faithful and self.states[vcpu] == "run" and chance < 0.33:
            self.trace.directive("vmm", self.now[vcpu], vcpu, value=self.random.randint(1, 500))
            return
        event, reason, state = self.random.choice(MOVES[self.states[vcpu]])
        is_entry = event == "run" and (self.states[vcpu] == "polls" if reason == "turn" else state == "run")
        self.trace.schedule(self.now[vcpu], vcpu, event, reason, pcpu=vcpu)
        if is_entry and (self.is_faithful or self.random.random() < 0.9):
            self.trace.publish(self.now[vcpu], vcpu, 0)
        if state == "polls" and event == "run":  # it goes on polling: no guest code, no update
            self.trace.schedule(self.now[vcpu], vcpu, "poll", "poll", pcpu=vcpu)
        self.states[vcpu] = state

    def _board(self) -> None:
        """A snapshot, a roll back or a live migration, while everybody stands still."""
        now = max(self.now) + self.random.randint(1, 100)
        stopped = [vcpu for vcpu in range(self.vcpus) if self.states[vcpu] in ("run", "wait", "sleep", "poll", "polled", "polls")]
        for vcpu in stopped:
            self.trace.schedule(now, vcpu, "pause", "directive", pcpu=vcpu)
        if not self.snapshots or self.random.random() < 0.4:
            self.trace.directive("snapshot", now, value=len(self.snapshots))
            self.snapshots.append(list(self.enabled))
        else:
            number, is_rollback = self.random.randrange(len(self.snapshots)), self.random.random() < 0.6
            self.trace.directive("restore", now, value=number, size=int(is_rollback))
            self.enabled = list(self.snapshots[number]) if is_rollback else self.enabled
            for vcpu in range(self.vcpus):
                if self.states[vcpu] != "off":
                    self.trace.directive("restore", now, vcpu, value=self.random.randint(0, 300))
            for vcpu in range(self.vcpus):
                self.trace.directive("attribute_set", now, vcpu, ipa=self.trace.base(vcpu))
        for vcpu in stopped:
            self.trace.schedule(now, vcpu, "resume", "directive", pcpu=vcpu)
            self.states[vcpu] = "wait"
        self.now = [now] * self.vcpus

    def _fill_in(self) -> None:
        """What is told: the plain oracle's truth. Without faith, sometimes something else."""
        oracle = self.oracle()
        stores: dict[int, dict[str, Any]] = {row["position"]: row for row in self.trace.rows["memory_writes"]}
        for row in self.trace.rows["pvtime"]:
            right = oracle.told if row["event"] == "publish" else oracle.seen
            if row["position"] in right:
                wrong = 0 if self.is_faithful or self.random.random() < 0.8 else self.random.randint(-50, 50)
                row["stolen_ns"] = (right[row["position"]] + wrong) % (1 << 64)
            if row["event"] == "publish":
                stores[row["position"] - 10]["value"] = row["stolen_ns"]
