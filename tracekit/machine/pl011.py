"""PL011 UART. Source: Arm DDI 0183G (PrimeCell UART PL011 technical reference manual)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

_IDS = (0x11, 0x10, 0x34, 0x00, 0x0D, 0xF0, 0x05, 0xB1)
_RX, _TX, _RX_TIMEOUT = 1 << 4, 1 << 5, 1 << 6
_FIFO_DEPTH = 16
FR = 0x18  # the flags: the one register that guests poll
_PLAIN = {0x20: "ilpr", 0x24: "ibrd", 0x28: "fbrd", 0x2C: "lcrh", 0x30: "cr", 0x34: "ifls", 0x48: "dmacr"}
REGISTER_MASKS = {"ilpr": 0xFF, "ibrd": 0xFFFF, "fbrd": 0x3F, "lcrh": 0xFF, "cr": 0xFFFF, "ifls": 0x3F, "dmacr": 0x7}


@dataclass(frozen=True, slots=True)
class Pl011State:
    """The UART as plain values. waiting: bytes of the tape that have arrived and were not read yet."""

    registers: tuple[int, ...]
    mask: int
    raw: int
    waiting: bytes


class Pl011:
    """A UART whose transmitter is always ready and whose receiver reads a tape.

    out(byte) gets each transmitted byte; level(asserted) its interrupt line; flags(value) what FR reads as from now on. Received bytes
    beyond the FIFO wait in order.
    """

    def __init__(self, out: Callable[[int], None], level: Callable[[bool], None], flags: Callable[[int], None]) -> None:
        self._out = out
        self._level = level
        self._flags = flags
        self._registers = dict.fromkeys(_PLAIN.values(), 0)
        self._registers["cr"], self._registers["ifls"] = 0x300, 0x12
        self._mask = self._raw = 0
        self._line = False
        self._waiting = bytearray()
        self._tell_flags()

    def _fr(self) -> int:
        depth = _FIFO_DEPTH if self._registers["lcrh"] & 0x10 else 1
        return 0x80 | (0x40 if len(self._waiting) >= depth else 0) | (0 if self._waiting else 0x10)

    def _tell_flags(self) -> None:
        self._flags(self._fr())

    def read(self, offset: int, size: int) -> int:
        """A load; DR takes a byte from the receive FIFO."""
        match offset:
            case 0x18:
                return self._fr()
            case 0x00:
                return self._take()
            case 0x38:
                return self._mask
            case 0x3C:
                return self._raw
            case 0x40:
                return self._raw & self._mask
        if offset in _PLAIN:
            return self._registers[_PLAIN[offset]]
        if 0xFE0 <= offset <= 0xFFC and offset & 3 == 0:
            return _IDS[(offset - 0xFE0) >> 2]
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A store; DR transmits."""
        if offset == 0x00:
            self._out(value & 0xFF)
            self._raw |= _TX  # sent at once: the FIFO has room again
        elif offset == 0x38:
            self._mask = value & 0x7FF
        elif offset == 0x44:
            self._raw &= ~value
        elif offset in _PLAIN:
            name = _PLAIN[offset]
            self._registers[name] = value & REGISTER_MASKS[name]
            self._tell_flags()
        self._update()

    def receive(self, data: bytes) -> None:
        """Bytes arrive from outside."""
        self._waiting += data
        if self._waiting:
            self._raw |= _RX | _RX_TIMEOUT
        self._tell_flags()
        self._update()

    def _take(self) -> int:
        byte = self._waiting.pop(0) if self._waiting else 0
        if not self._waiting:
            self._raw &= ~(_RX | _RX_TIMEOUT)
        self._tell_flags()
        self._update()
        return byte

    def _update(self) -> None:
        line = bool(self._raw & self._mask)
        if line != self._line:
            self._line = line
            self._level(line)

    def save(self) -> Pl011State:
        """The UART as a plain value."""
        return Pl011State(tuple(self._registers[name] for name in _PLAIN.values()), self._mask, self._raw, bytes(self._waiting))

    def restore(self, state: Pl011State) -> None:
        """Become what save() gave; the line is not told again."""
        self._registers = dict(zip(_PLAIN.values(), state.registers, strict=True))
        self._mask, self._raw, self._waiting = state.mask, state.raw, bytearray(state.waiting)
        self._line = bool(self._raw & self._mask)
        self._tell_flags()

    def digest_bytes(self) -> bytes:
        """Little-endian u32: ILPR, IBRD, FBRD, LCRH, CR, IFLS, DMACR, IMSC, RIS, count of waiting bytes; then those bytes."""
        state = self.save()
        return struct.pack("<10I", *state.registers, state.mask, state.raw, len(state.waiting)) + state.waiting
