"""Guest memory as the hypervisor reaches it: through the memory slots, in stores that no reader can see half done.

As KVM: kvm_get_guest(), kvm_put_guest() and kvm_write_guest() of virt/kvm/kvm_main.c. Spec: docs/pvtime.md 2.8 and 2.10.
"""

from __future__ import annotations

from tracekit.hypervisor.slots import BackingMemory, MemorySlots
from tracekit.machine.memory import GuestFault

ATOMIC_SIZES = (1, 2, 4, 8)


def is_single_copy(ipa: int, size: int) -> bool:
    """Whether a store of this size and place is single-copy atomic on AArch64: naturally aligned, at most 8 bytes."""
    return size in ATOMIC_SIZES and ipa % size == 0


class GuestAccess:
    """Reads and stores of the host in guest memory; every store marks its page dirty, so that a migration copies it."""

    def __init__(self, memory: BackingMemory, slots: MemorySlots) -> None:
        self._memory = memory
        self._slots = slots

    def get(self, ipa: int, size: int, *, past_slots: bool = False) -> int:
        """A little-endian value. past_slots: by a translation that nobody checks any more. Errors: GuestFault."""
        if not past_slots and self._slots.slot_of(ipa, size) is None:
            raise GuestFault(f"no memory slot at {ipa:#x}")
        return self._memory.read(ipa, size)

    def put(self, ipa: int, size: int, value: int, cause: str, *, past_slots: bool = False) -> None:
        """One single-copy atomic store of `size` bytes. Errors: GuestFault where no writable slot is."""
        assert is_single_copy(ipa, size), f"{size} bytes at {ipa:#x} are not one store"
        self._check(ipa, size, past_slots)
        self._memory.store(ipa, size, value, cause)
        self._slots.mark_dirty(ipa)

    def write(self, ipa: int, size: int, value: int, cause: str, *, past_slots: bool = False) -> None:
        """A copy of any size and place, in the widest pieces that are stores: not atomic as a whole. Errors: GuestFault."""
        self._check(ipa, size, past_slots)
        at = 0
        while at < size:
            width = next(one for one in reversed(ATOMIC_SIZES) if one <= size - at and is_single_copy(ipa + at, one))
            self.put(ipa + at, width, value >> 8 * at & (1 << 8 * width) - 1, cause, past_slots=past_slots)
            at += width

    def _check(self, ipa: int, size: int, past_slots: bool) -> None:
        if not past_slots and not self._slots.is_writable(ipa, size):
            raise GuestFault(f"no writable memory slot at {ipa:#x}")
