"""Updates reach a page that was taken away."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class StalePage(Fault):
    """The slot of the structures is deleted, and the host goes on storing to the page that was behind it."""

    name = "stale-page"
    models = "bug 22: a cached page that no memslot change invalidates (x86 KVM 2020; fix 7e2175ebd695)"
    invariant = "M5"
    needs = "slot_delete"

    def __init__(self) -> None:
        self._is_stale = False

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """From the first deletion on the translation is an old one."""
        self._is_stale = self._is_stale or kind == "slot_delete"

    def passes_slots(self, vcpu: int) -> bool:
        """The old one is used."""
        return self._is_stale
