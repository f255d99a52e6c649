"""The total is stored when the guest runs already."""

from __future__ import annotations

from collections.abc import Callable

from tracekit.hypervisor.fault import Fault


class AfterEntry(Fault):
    """The update takes place 10 us after the guest was entered: what it reads first is old, and then changes under its eyes."""

    name = "after-entry"
    models = "a policy error: an update that is not made before entry (docs/pvtime.md 3.6, 3.7)"
    invariant = "S5"

    def __init__(self) -> None:
        self._updates: dict[int, Callable[[], None]] = {}

    def publish(self, vcpu: int, default: Callable[[], None]) -> None:
        """Later."""
        self._updates[vcpu] = default
        self.kit.call_at(vcpu, self.kit.now_ns() + 10_000)

    def due(self, vcpu: int) -> None:
        """Now."""
        if vcpu in self._updates:
            self._updates.pop(vcpu)()
