"""Memory slots: which guest-physical memory the VMM has given to the hypervisor, and how. As KVM: KVM_SET_USER_MEMORY_REGION."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class BackingMemory(Protocol):
    """Guest memory below the slots: one store() is one single-copy-atomic host write. Both raise GuestFault."""

    def read(self, ipa: int, size: int) -> int: ...
    def store(self, ipa: int, size: int, value: int, cause: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: [ipa, ipa + size)."""

    ipa: int
    size: int
    is_readonly: bool = False


class MemorySlots:
    """The slots of a machine. dirty: numbers of the 4 KiB pages that the host has stored to (2.10)."""

    def __init__(self) -> None:
        self._slots: list[Slot] = []
        self.dirty: set[int] = set()

    def add(self, ipa: int, size: int, is_readonly: bool = False) -> bool:
        """A new slot; False where it overlaps another (EEXIST) or is empty (EINVAL)."""
        if size <= 0 or any(ipa < one.ipa + one.size and one.ipa < ipa + size for one in self._slots):
            return False
        self._slots.append(Slot(ipa, size, is_readonly))
        return True

    def delete(self, ipa: int) -> bool:
        """Take the slot that begins at `ipa` away; False if there is none."""
        kept = [one for one in self._slots if one.ipa != ipa]
        found, self._slots = len(kept) < len(self._slots), kept
        return found

    def set_readonly(self, ipa: int) -> bool:
        """Make the slot that begins at `ipa` KVM_MEM_READONLY; False if there is none."""
        slot = next((one for one in self._slots if one.ipa == ipa), None)
        return slot is not None and self.delete(ipa) and self.add(slot.ipa, slot.size, True)

    def slot_of(self, ipa: int, size: int) -> Slot | None:
        """The slot that holds a range, None if no single one does."""
        return next((one for one in self._slots if one.ipa <= ipa and ipa + size <= one.ipa + one.size), None)

    def is_writable(self, ipa: int, size: int) -> bool:
        """Whether a write lookup succeeds, as gfn_to_hva(): a read-only slot counts as missing (docs/pvtime.md 2.7)."""
        slot = self.slot_of(ipa, size)
        return slot is not None and not slot.is_readonly

    def mark_dirty(self, ipa: int) -> None:
        """Note the page of a store."""
        self.dirty.add(ipa >> 12)
