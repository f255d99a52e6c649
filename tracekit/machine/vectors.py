"""SVE registers (Z, P, FFR) of a vCPU: they have no register numbers in the engine, so code that stores and loads them is run.

It runs in an engine of its own, on a copy of the vCPU's context, in EL3 (whose memory is flat and whose vectors are as long as they get):
the guest's memory, translations and counts are not touched. Only the `max` model has them.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache

import unicorn
from unicorn import arm64_const as arm
from unicorn import unicorn_const as const
from unicorn.unicorn_py3.unicorn import uclib

VECTOR_BYTES, PREDICATE_BYTES = 256, 32
SVE_BYTES = 32 * VECTOR_BYTES + 17 * PREDICATE_BYTES  # Z0..Z31, P0..P15, FFR

_CODE, _VECTORS, _PREDICATES, _SIZE = 0x1000, 0x2000, 0x2000 + 32 * VECTOR_BYTES, 0x8000
_EL3H = 0x3CD
_TPIDR_EL3 = (13, 0, 3, 6, 2)


def _transfer(word: int, at: int, base: int, register: int) -> int:
    """LDR or STR of Z or P register `register` at [Xbase, #at, MUL VL]."""
    return word | at >> 3 << 16 | (at & 7) << 10 | base << 5 | register


_STORE = (
    *(_transfer(0xE580_4000, n, 0, n) for n in range(32)),
    *(_transfer(0xE580_0000, n, 1, n) for n in range(16)),
    0x2519_F000,  # RDFFR P0.B
    _transfer(0xE580_0000, 16, 1, 0),
)
_LOAD = (
    _transfer(0x8580_0000, 16, 1, 0),
    0x2528_9000,  # WRFFR P0.B
    *(_transfer(0x8580_0000, n, 1, n) for n in range(16)),
    *(_transfer(0x8580_4000, n, 0, n) for n in range(32)),
)


class _Transfer:
    """The engine beside the guest's."""

    def __init__(self) -> None:
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM, arm.UC_CPU_ARM64_MAX)
        uc.ctl_set_tcg_buffer_size(8 << 20)
        uc.mem_map(0, _SIZE, const.UC_PROT_ALL)
        self._ends = []
        at = _CODE
        for code in (_STORE, _LOAD):
            uc.mem_write(at, struct.pack(f"<{len(code)}I", *code))
            self._ends.append((at, at + 4 * len(code)))
            at += 4 * len(code)
        self._saved = uc.context_save()  # owns what self._context points to
        self._context = self._saved.context
        self._end = int(self._context.value or 0) + int(uclib.uc_context_size(uc._uch))  # a context's body ends it

    def _run(self, context: bytes, which: int) -> None:
        ctypes.memmove(self._end - len(context), context, len(context))
        uclib.uc_context_restore(self._uc._uch, self._context)
        self._uc.reg_write(arm.UC_ARM64_REG_PSTATE, _EL3H)
        self._uc.reg_write(arm.UC_ARM64_REG_CP_REG, (*_TPIDR_EL3, 0))  # rebuilds the cached flags
        self._uc.reg_write(arm.UC_ARM64_REG_X0, _VECTORS)
        self._uc.reg_write(arm.UC_ARM64_REG_X1, _PREDICATES)
        self._uc.emu_start(*self._ends[which])

    def store(self, context: bytes) -> bytes:
        self._run(context, 0)
        return bytes(self._uc.mem_read(_VECTORS, SVE_BYTES))

    def load(self, context: bytes, sve: bytes) -> bytes:
        self._uc.mem_write(_VECTORS, sve)
        self._run(context, 1)
        uclib.uc_context_save(self._uc._uch, self._context)
        return ctypes.string_at(self._end - len(context), len(context))


@cache
def _transfer_engine() -> _Transfer:
    return _Transfer()


def sve_of(context: bytes) -> bytes:
    """Z, P and FFR in a context, SVE_BYTES of them; b"" where nothing is set but what the Q registers hold."""
    sve = _transfer_engine().store(context)
    beyond = bytearray(sve)
    for n in range(32):
        beyond[n * VECTOR_BYTES : n * VECTOR_BYTES + 16] = bytes(16)
    return sve if any(beyond) else b""


def with_sve(context: bytes, sve: bytes) -> bytes:
    """A context with these in it; its X0, X1, PC and PSTATE are used up."""
    assert len(sve) == SVE_BYTES
    return _transfer_engine().load(context, sve)
