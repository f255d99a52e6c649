"""A slot that became read-only is stored to."""

from __future__ import annotations

from tracekit.hypervisor.fault import Fault


class ReadonlySlot(Fault):
    """Whether the slot is writable was asked when the address was set; it becomes read-only later, and the host stores all the same."""

    name = "readonly-slot"
    models = "bug 20: check, then write (riscv KVM 2025; RISC-V: KVM: No need of explicit writable slot check, v6)"
    invariant = "M5"
    needs = "slot_readonly"

    def __init__(self) -> None:
        self._is_readonly = False

    def told(self, kind: str, vcpu: int | None, value: int | None) -> None:
        """The check is out of date."""
        self._is_readonly = self._is_readonly or kind == "slot_readonly"

    def passes_slots(self, vcpu: int) -> bool:
        """And trusted."""
        return self._is_readonly
