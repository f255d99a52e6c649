"""GICv2: distributor and CPU interfaces, banked for up to 8 vCPUs. Source: Arm IHI 0048B (GICv2 architecture specification)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

INTERRUPTS = 288
SPURIOUS = 1023
_WORDS = INTERRUPTS // 32
_IDLE_PRIORITY = 0x100
_IIDR = 0x0202_143B
ACTIVE_DEPTH_MAX = 64

# GicState.shared: what its values are and how many, in order.
SHARED_VALUES = (("words", 5 * _WORDS + INTERRUPTS // 16), ("priorities", INTERRUPTS), ("targets", INTERRUPTS))

SendSgi = Callable[[int, int, int], None]
Observe = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True, slots=True)
class GicState:
    """The controller as plain values: what digest_bytes() serialises, ordered as there."""

    enabled: bool
    banks: tuple[tuple[int, ...], ...]
    shared: tuple[int, ...]


class _Bank:
    """What one vCPU has of its own: interrupts 0-31 and its CPU interface."""

    __slots__ = (
        "active", "bpr", "config", "ctlr", "enabled", "group", "level", "pending", "pmr", "priority", "running",
        "sgi_sources",
    )  # fmt: skip

    def __init__(self) -> None:
        self.enabled = 0xFFFF  # SGIs are always enabled
        self.pending = self.level = self.active = self.group = 0
        self.config = 0xAAAA_AAAA
        self.priority = [0] * 32
        self.sgi_sources = [0] * 16
        self.ctlr = self.pmr = self.bpr = 0
        self.running: list[tuple[int, int]] = []  # (priority, intid) of what has been acknowledged and not yet dropped


class Gic:
    """A GICv2. A guest may write anything anywhere: reserved places read as zero and ignore writes.

    observe(event, intid, vcpu) tells of `assert`, `deassert` and `complete`; send_sgi(source, target, intid) asks the board
    to let an SGI land (pend_sgi). A level line that is still high after its completion is pending again.
    """

    def __init__(self, vcpu_count: int, observe: Observe, send_sgi: SendSgi) -> None:
        assert 1 <= vcpu_count <= 8
        self._count = vcpu_count
        self._observe = observe
        self._send_sgi = send_sgi
        self._enabled = False
        self._banks = [_Bank() for _ in range(vcpu_count)]
        self._spi_enabled = [0] * _WORDS
        self._spi_pending = [0] * _WORDS
        self._spi_level = [0] * _WORDS
        self._spi_active = [0] * _WORDS
        self._spi_group = [0] * _WORDS
        self._spi_config = [0] * (INTERRUPTS // 16)
        self._spi_priority = [0] * INTERRUPTS
        self._spi_targets = [0] * INTERRUPTS

    # --- lines ------------------------------------------------------------------------------------------------------------------

    def set_level(self, intid: int, asserted: bool, vcpu: int | None) -> None:
        """A device's line; PPIs (16-31) belong to a vCPU. Told only when it changes."""
        bit = 1 << (intid % 32)
        if intid < 32:
            assert vcpu is not None and intid >= 16
            bank = self._banks[vcpu]
            if bool(bank.level & bit) == asserted:
                return
            bank.level ^= bit
        else:
            word = intid // 32
            if bool(self._spi_level[word] & bit) == asserted:
                return
            self._spi_level[word] ^= bit
            if asserted and self._is_edge(intid):
                self._spi_pending[word] |= bit
        self._observe("assert" if asserted else "deassert", intid, vcpu)

    def pend_sgi(self, target: int, intid: int, source: int) -> None:
        """A software-generated interrupt lands at its target."""
        bank = self._banks[target]
        bank.sgi_sources[intid] |= 1 << source
        bank.pending |= 1 << intid
        self._observe("assert", intid, target)

    def line(self, vcpu: int) -> bool:
        """The IRQ line to a vCPU."""
        return self._signalled(vcpu) != SPURIOUS

    def highest(self, vcpu: int) -> int:
        """The interrupt that an acknowledge would give, 1023 if none."""
        return self._signalled(vcpu)

    def _is_edge(self, intid: int) -> bool:
        return bool(self._spi_config[intid // 16] >> (2 * (intid % 16)) & 2)

    def _signalled(self, vcpu: int) -> int:
        bank = self._banks[vcpu]
        if not self._enabled or not bank.ctlr & 1:
            return SPURIOUS
        intid, priority = self._highest_pending(vcpu)
        if intid == SPURIOUS or priority >= bank.pmr:
            return SPURIOUS
        if bank.running and priority >> self._group_shift(bank) >= bank.running[-1][0] >> self._group_shift(bank):
            return SPURIOUS
        return intid

    @staticmethod
    def _group_shift(bank: _Bank) -> int:
        """Only the group priority (above the binary point) preempts. Source: IHI 0048B 3.3.3."""
        return (bank.bpr & 7) + 1

    def _highest_pending(self, vcpu: int) -> tuple[int, int]:
        bank = self._banks[vcpu]
        best, best_priority = SPURIOUS, _IDLE_PRIORITY
        waiting = (bank.pending | bank.level) & bank.enabled & ~bank.active
        while waiting:
            intid = (waiting & -waiting).bit_length() - 1
            waiting &= waiting - 1
            if bank.priority[intid] < best_priority:
                best, best_priority = intid, bank.priority[intid]
        if not any(self._spi_pending) and not any(self._spi_level):  # nearly always, and this is asked all the time
            return best, best_priority
        for word in range(1, _WORDS):
            waiting = (self._spi_pending[word] | self._level_pending(word)) & self._spi_enabled[word] & ~self._spi_active[word]
            while waiting:
                intid = word * 32 + (waiting & -waiting).bit_length() - 1
                waiting &= waiting - 1
                if self._spi_targets[intid] >> vcpu & 1 and self._spi_priority[intid] < best_priority:
                    best, best_priority = intid, self._spi_priority[intid]
        return best, best_priority

    def _level_pending(self, word: int) -> int:
        """Lines that are high, of level-sensitive interrupts."""
        level = self._spi_level[word]
        if level:
            for bit in range(32):
                if level >> bit & 1 and self._is_edge(word * 32 + bit):
                    level &= ~(1 << bit)
        return level

    # --- CPU interface ---------------------------------------------------------------------------------------------------------------

    def interface_read(self, vcpu: int, offset: int, size: int) -> int:
        """A load from the CPU interface; reading IAR acknowledges."""
        bank = self._banks[vcpu]
        match offset:
            case 0x00:
                return bank.ctlr
            case 0x04:
                return bank.pmr
            case 0x08:
                return bank.bpr
            case 0x0C:
                return self._acknowledge(vcpu)
            case 0x14:
                return bank.running[-1][0] if bank.running else 0xFF
            case 0x18:
                intid, _ = self._highest_pending(vcpu) if self._enabled else (SPURIOUS, 0)
                return self._with_source(bank, intid)
            case 0xFC:
                return _IIDR
        return 0

    def interface_write(self, vcpu: int, offset: int, size: int, value: int) -> None:
        """A store to the CPU interface."""
        bank = self._banks[vcpu]
        match offset:
            case 0x00:
                bank.ctlr = value & 0x201
            case 0x04:
                bank.pmr = value & 0xFF
            case 0x08:
                bank.bpr = value & 7
            case 0x10:
                self._end_of_interrupt(vcpu, value & 0x3FF)
            case 0x1000:
                if bank.ctlr & 0x200:
                    self._deactivate(vcpu, value & 0x3FF)

    @staticmethod
    def _with_source(bank: _Bank, intid: int) -> int:
        if intid < 16 and bank.sgi_sources[intid]:
            source = (bank.sgi_sources[intid] & -bank.sgi_sources[intid]).bit_length() - 1
            return intid | source << 10
        return intid

    def _acknowledge(self, vcpu: int) -> int:
        intid = self._signalled(vcpu)
        if intid == SPURIOUS:
            return SPURIOUS
        bank = self._banks[vcpu]
        answer, bit = self._with_source(bank, intid), 1 << (intid % 32)
        if intid < 32:
            priority = bank.priority[intid]
            bank.active |= bit
            if intid < 16:
                bank.sgi_sources[intid] &= bank.sgi_sources[intid] - 1
                if not bank.sgi_sources[intid]:
                    bank.pending &= ~bit
            else:
                bank.pending &= ~bit
        else:
            priority = self._spi_priority[intid]
            self._spi_active[intid // 32] |= bit
            self._spi_pending[intid // 32] &= ~bit
        if len(bank.running) < ACTIVE_DEPTH_MAX:
            bank.running.append((priority, intid))
        return answer

    def _end_of_interrupt(self, vcpu: int, intid: int) -> None:
        bank = self._banks[vcpu]
        for index in range(len(bank.running) - 1, -1, -1):
            if bank.running[index][1] == intid:
                del bank.running[index]
                break
        if not bank.ctlr & 0x200:
            self._deactivate(vcpu, intid)

    def _deactivate(self, vcpu: int, intid: int) -> None:
        if intid >= INTERRUPTS:
            return
        bit = 1 << (intid % 32)
        if intid < 32:
            was_active = bool(self._banks[vcpu].active & bit)
            self._banks[vcpu].active &= ~bit
        else:
            was_active = bool(self._spi_active[intid // 32] & bit)
            self._spi_active[intid // 32] &= ~bit
        if was_active:
            self._observe("complete", intid, vcpu)

    # --- distributor --------------------------------------------------------------------------------------------------------------------

    def distributor_read(self, vcpu: int, offset: int, size: int) -> int:
        """A load from the distributor."""
        bank = self._banks[vcpu]
        if offset == 0x000:
            return int(self._enabled)
        if offset == 0x004:
            return (self._count - 1) << 5 | (_WORDS - 1)
        if offset == 0x008:
            return _IIDR
        if offset == 0xFE8:
            return 0x2B  # PIDR2: GICv2
        word = offset >> 2 & 0x1F
        if word < _WORDS:
            own = word == 0
            match offset >> 7:
                case 0x1:
                    return bank.group if own else self._spi_group[word]
                case 0x2 | 0x3:
                    return bank.enabled if own else self._spi_enabled[word]
                case 0x4 | 0x5:
                    return (bank.pending | bank.level) if own else self._spi_pending[word] | self._level_pending(word)
                case 0x6 | 0x7:
                    return bank.active if own else self._spi_active[word]
        if 0x400 <= offset < 0x400 + INTERRUPTS:
            return self._read_bytes(offset - 0x400, size, bank.priority, self._spi_priority)
        if 0x800 <= offset < 0x800 + INTERRUPTS:
            return self._read_bytes(offset - 0x800, size, [1 << vcpu] * 32, self._spi_targets)
        if 0xC00 <= offset < 0xC00 + INTERRUPTS // 4:
            index = (offset - 0xC00) >> 2
            return 0xAAAA_AAAA if index == 0 else bank.config if index == 1 else self._spi_config[index]
        if 0xF10 <= offset < 0xF30:
            base = (offset - 0xF10) & 0xF
            return sum(bank.sgi_sources[(base + i) & 0xF] << 8 * i for i in range(min(size, 4)))
        return 0

    @staticmethod
    def _read_bytes(first: int, size: int, own: list[int], shared: list[int]) -> int:
        value = 0
        for i in range(min(size, 4)):
            intid = first + i
            if intid < INTERRUPTS:
                value |= (own[intid] if intid < 32 else shared[intid]) << 8 * i
        return value

    def distributor_write(self, vcpu: int, offset: int, size: int, value: int) -> None:
        """A store to the distributor."""
        bank = self._banks[vcpu]
        value &= 0xFFFF_FFFF
        if offset == 0x000:
            self._enabled = bool(value & 1)
        elif offset == 0xF00:
            self._generate_sgi(vcpu, value)
        elif 0x400 <= offset < 0x400 + INTERRUPTS:
            self._write_bytes(offset - 0x400, size, value, bank.priority, self._spi_priority, 0xFF)
        elif 0x800 <= offset < 0x800 + INTERRUPTS:
            self._write_bytes(offset - 0x800, size, value, [0] * 32, self._spi_targets, (1 << self._count) - 1)
        elif 0xC04 <= offset < 0xC00 + INTERRUPTS // 4:
            index = (offset - 0xC00) >> 2
            if index == 1:
                bank.config = value & 0xAAAA_AAAA
            else:
                self._spi_config[index] = value & 0xAAAA_AAAA
        elif 0xF10 <= offset < 0xF30:
            self._write_sgi_pending(bank, offset, size, value)
        elif 0x080 <= offset < 0x400 and (offset >> 2 & 0x1F) < _WORDS:
            self._write_bits(bank, offset >> 7, offset >> 2 & 0x1F, value)

    def _write_bits(self, bank: _Bank, register: int, word: int, value: int) -> None:
        own = word == 0
        match register:
            case 0x1:
                if own:
                    bank.group = value
                else:
                    self._spi_group[word] = value
            case 0x2:
                if own:
                    bank.enabled |= value
                else:
                    self._spi_enabled[word] |= value
            case 0x3:
                if own:
                    bank.enabled &= ~value | 0xFFFF
                else:
                    self._spi_enabled[word] &= ~value
            case 0x4:
                if own:
                    bank.pending |= value & 0xFFFF_0000
                else:
                    self._spi_pending[word] |= value
            case 0x5:
                if own:
                    bank.pending &= ~(value & 0xFFFF_0000)
                else:
                    self._spi_pending[word] &= ~value
            case 0x6:
                if own:
                    bank.active |= value
                else:
                    self._spi_active[word] |= value
            case 0x7:
                if own:
                    bank.active &= ~value
                else:
                    self._spi_active[word] &= ~value

    @staticmethod
    def _write_bytes(first: int, size: int, value: int, own: list[int], shared: list[int], mask: int) -> None:
        for i in range(min(size, 4)):
            intid = first + i
            if intid < INTERRUPTS:
                (own if intid < 32 else shared)[intid] = value >> 8 * i & mask

    def _generate_sgi(self, source: int, value: int) -> None:
        intid = value & 0xF
        match value >> 24 & 3:
            case 0:
                targets = value >> 16 & 0xFF
            case 1:
                targets = 0xFF & ~(1 << source)
            case 2:
                targets = 1 << source
            case _:
                targets = 0
        for target in range(self._count):
            if targets >> target & 1:
                self._send_sgi(source, target, intid)

    @staticmethod
    def _write_sgi_pending(bank: _Bank, offset: int, size: int, value: int) -> None:
        for i in range(min(size, 4)):
            intid, sources = (offset + i) & 0xF, value >> 8 * i & 0xFF
            if offset < 0xF20:
                bank.sgi_sources[intid] &= ~sources
            else:
                bank.sgi_sources[intid] |= sources
            if bank.sgi_sources[intid]:
                bank.pending |= 1 << intid
            else:
                bank.pending &= ~(1 << intid)

    # --- state -----------------------------------------------------------------------------------------------------------------------------

    def reset_vcpu(self, vcpu: int) -> None:
        """Architectural reset of one vCPU's banked state; the levels of its lines stay what they are."""
        level = self._banks[vcpu].level
        self._banks[vcpu] = _Bank()
        self._banks[vcpu].level = level

    def save(self) -> GicState:
        """The controller as a plain value."""
        banks = []
        for b in self._banks:
            running = [part for entry in b.running for part in entry]
            banks.append(
                (
                    b.enabled, b.pending, b.level, b.active, b.group, b.config, b.ctlr, b.pmr, b.bpr,
                    *b.priority, *b.sgi_sources, *running,
                )
            )  # fmt: skip
        shared = (
            *self._spi_enabled, *self._spi_pending, *self._spi_level, *self._spi_active, *self._spi_group,
            *self._spi_config, *self._spi_priority, *self._spi_targets,
        )  # fmt: skip
        return GicState(self._enabled, tuple(banks), shared)

    def restore(self, state: GicState) -> None:
        """Become what save() gave."""
        self._enabled = state.enabled
        for bank, values in zip(self._banks, state.banks, strict=True):
            (
                bank.enabled, bank.pending, bank.level, bank.active, bank.group, bank.config, bank.ctlr, bank.pmr, bank.bpr,
            ) = values[:9]  # fmt: skip
            bank.priority = list(values[9:41])
            bank.sgi_sources = list(values[41:57])
            rest = values[57:]
            bank.running = list(zip(rest[::2], rest[1::2], strict=True))
        at = 0
        for name, length in (
            ("_spi_enabled", _WORDS), ("_spi_pending", _WORDS), ("_spi_level", _WORDS), ("_spi_active", _WORDS),
            ("_spi_group", _WORDS), ("_spi_config", INTERRUPTS // 16), ("_spi_priority", INTERRUPTS),
            ("_spi_targets", INTERRUPTS),
        ):  # fmt: skip
            setattr(self, name, list(state.shared[at : at + length]))
            at += length

    def digest_bytes(self) -> bytes:
        """The state as little-endian u32: enabled, then for each vCPU a count and its values, then the shared values."""
        state = self.save()
        out = struct.pack("<I", state.enabled)
        for bank in state.banks:
            out += struct.pack(f"<I{len(bank)}I", len(bank), *(value & 0xFFFF_FFFF for value in bank))
        return out + struct.pack(f"<{len(state.shared)}I", *(value & 0xFFFF_FFFF for value in state.shared))
