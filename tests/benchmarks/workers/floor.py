"""A flat guest on bare Unicorn, no hook at all: floor.py GUEST END (its last address). What the engine takes by itself, and Python's start."""

from __future__ import annotations

import sys
from pathlib import Path

import unicorn
from unicorn.arm64_const import UC_ARM64_REG_PC, UC_CPU_ARM64_A53

RAM_BASE, RAM_SIZE = 0x4000_0000, 64 << 20


def main() -> None:
    """Run to END."""
    guest, end = Path(sys.argv[1]).read_bytes(), int(sys.argv[2], 0)
    engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    engine.ctl_set_cpu_model(UC_CPU_ARM64_A53)
    engine.mem_map(RAM_BASE, RAM_SIZE)
    engine.mem_write(RAM_BASE, guest)
    engine.emu_start(RAM_BASE, end)
    assert engine.reg_read(UC_ARM64_REG_PC) == end


if __name__ == "__main__":
    main()
