"""Who runs next: round-robin, fair, chaos. All integer arithmetic; the only randomness is chaos's own seeded stream."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from tracekit.host.config import NICE_0_WEIGHT, HostConfig
from tracekit.host.threads import Pcpu, Thread


class Policy(Protocol):
    """The choices a scheduler makes. Queues are in order of arrival."""

    def pick(self, waiting: Sequence[Thread], now_ns: int) -> Thread:
        """Which of the waiting threads runs next (there is one)."""

    def slice_ns(self, pcpu: Pcpu, thread: Thread) -> int:
        """How long it may run while others wait."""

    def place(self, thread: Thread, pcpus: Sequence[Pcpu]) -> int:
        """Which pCPU's queue a waking thread joins."""

    def move(self, thread: Thread, pcpus: Sequence[Pcpu]) -> int:
        """Which pCPU's queue a preempted thread joins."""

    def pull(self, pcpu: Pcpu, pcpus: Sequence[Pcpu]) -> Thread | None:
        """A thread to take from another queue by a pCPU that has nothing to do."""

    def preempts(self, waking: Thread, current: Thread, ran_ns: int) -> bool:
        """Whether a thread that wakes displaces the one that runs since ran_ns."""

    def account(self, thread: Thread, ran_ns: int) -> None:
        """A thread ran for ran_ns."""

    def woken(self, thread: Thread, pcpu: Pcpu) -> None:
        """A thread joins a queue after a sleep."""


class RoundRobin:
    """First in, first out, fixed slices; threads stay on their pCPU."""

    def __init__(self, config: HostConfig) -> None:
        self._slice_ns = config.slice_ns

    def pick(self, waiting: Sequence[Thread], now_ns: int) -> Thread:
        return waiting[0]

    def slice_ns(self, pcpu: Pcpu, thread: Thread) -> int:
        return self._slice_ns

    def place(self, thread: Thread, pcpus: Sequence[Pcpu]) -> int:
        return thread.pcpu

    def move(self, thread: Thread, pcpus: Sequence[Pcpu]) -> int:
        return thread.pcpu

    def pull(self, pcpu: Pcpu, pcpus: Sequence[Pcpu]) -> Thread | None:
        return None

    def preempts(self, waking: Thread, current: Thread, ran_ns: int) -> bool:
        return False

    def account(self, thread: Thread, ran_ns: int) -> None:
        pass

    def woken(self, thread: Thread, pcpu: Pcpu) -> None:
        pass


class Fair:
    """Weighted virtual runtime with wake-up preemption, idle pull and wake-up placement, in the manner of CFS."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._slice_min_ns = max(1_000, config.slice_ns // 8)

    def pick(self, waiting: Sequence[Thread], now_ns: int) -> Thread:
        return min(waiting, key=lambda thread: (thread.virtual_runtime, thread.number))

    def slice_ns(self, pcpu: Pcpu, thread: Thread) -> int:
        weights = thread.weight + sum(other.weight for other in pcpu.queue if other is not thread)
        return max(self._slice_min_ns, self._config.slice_ns * 2 * thread.weight // weights)

    def place(self, thread: Thread, pcpus: Sequence[Pcpu]) -> int:
        if thread.is_pinned or pcpus[thread.pcpu].load == 0:
            return thread.pcpu
        idle = [pcpu.index for pcpu in pcpus if pcpu.load == 0]
        return idle[0] if idle else thread.pcpu

    def move(self, thread: Thread, pcpus: Sequence[Pcpu]) -> int:
        least = min(pcpus, key=lambda pcpu: (pcpu.load, pcpu.index))
        if thread.is_pinned or pcpus[thread.pcpu].load < least.load + 1:
            return thread.pcpu
        return least.index

    def pull(self, pcpu: Pcpu, pcpus: Sequence[Pcpu]) -> Thread | None:
        for other in sorted(pcpus, key=lambda one: (-len(one.queue), one.index)):
            for thread in other.queue:
                if other is not pcpu and not thread.is_pinned:
                    return thread
        return None

    def preempts(self, waking: Thread, current: Thread, ran_ns: int) -> bool:
        runtime = current.virtual_runtime + ran_ns * NICE_0_WEIGHT // current.weight
        return runtime - waking.virtual_runtime > self._config.wakeup_granularity_ns

    def account(self, thread: Thread, ran_ns: int) -> None:
        thread.virtual_runtime += ran_ns * NICE_0_WEIGHT // thread.weight

    def woken(self, thread: Thread, pcpu: Pcpu) -> None:
        others = [other.virtual_runtime for other in pcpu.queue if other is not thread]
        if pcpu.current is not None:
            others.append(pcpu.current.virtual_runtime)
        if others:  # a sleeper gets a bonus, not a right to everything it slept through
            thread.virtual_runtime = max(thread.virtual_runtime, min(others) - self._config.slice_ns // 2)


class Chaos:
    """Seeded priorities, odd slices and migrations, to show schedules that a fair host seldom does (as rr's chaos mode)."""

    def __init__(self, config: HostConfig, seed: int) -> None:
        self._random = Random(f"tracekit host chaos {seed}")
        self._slice_ns = config.slice_ns
        self._starved_ns = 16 * config.slice_ns

    def pick(self, waiting: Sequence[Thread], now_ns: int) -> Thread:
        oldest = min(waiting, key=lambda thread: (thread.queued_ns, thread.number))
        if now_ns - oldest.queued_ns > self._starved_ns:
            return oldest
        return waiting[self._random.randrange(len(waiting))]

    def slice_ns(self, pcpu: Pcpu, thread: Thread) -> int:
        scale = self._random.randrange(12)  # from the whole slice down to 1/2048 of it
        return max(1_000, (self._slice_ns >> scale) + self._random.randrange(1_000))

    def place(self, thread: Thread, pcpus: Sequence[Pcpu]) -> int:
        if thread.is_pinned or self._random.randrange(4):
            return thread.pcpu
        return self._random.randrange(len(pcpus))

    def move(self, thread: Thread, pcpus: Sequence[Pcpu]) -> int:
        return self.place(thread, pcpus)

    def pull(self, pcpu: Pcpu, pcpus: Sequence[Pcpu]) -> Thread | None:
        waiting = [t for other in pcpus if other is not pcpu for t in other.queue if not t.is_pinned]
        return waiting[self._random.randrange(len(waiting))] if waiting else None

    def preempts(self, waking: Thread, current: Thread, ran_ns: int) -> bool:
        return bool(self._random.randrange(2))

    def account(self, thread: Thread, ran_ns: int) -> None:
        pass

    def woken(self, thread: Thread, pcpu: Pcpu) -> None:
        pass


def policy_for(config: HostConfig, seed: int) -> Policy:
    """The policy that the configuration names."""
    if config.policy == "fair":
        return Fair(config)
    return Chaos(config, seed) if config.policy == "chaos" else RoundRobin(config)
