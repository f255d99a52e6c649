"""Rebuild the bundled guests byte for byte: python samples/guests/build.py [--check] [GUEST ...].

Needs ziglang (the version below; the compiler decides the bytes). --check compares instead of writing and exits 1 on a
difference.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ZIGLANG = "0.17.1"
HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
PREBUILT = REPOSITORY / "tracekit" / "workbench" / "guests"
GUESTS = ("hello", "steal", "spinlock", "timer", "faults", "memory", "lse", "discover", "accounting", "reuse", "token", "stores")
FLAGS = (
    "-O2 -std=gnu11 -static -nostdlib -ffreestanding -fno-stack-protector -fno-sanitize=undefined -fno-builtin -ffunction-sections -fdata-sections -mno-outline-atomics "
    "-mgeneral-regs-only -Wall -Wextra -Wl,--build-id=none -Wl,-z,max-page-size=4096 -s"
).split()
CPU = {"lse": "cortex_a53+lse"}
LINUX_LIKE = ("discover", "accounting", "reuse", "token")  # these find and read stolen time through common/linux.c


def zig() -> list[str]:
    """The compiler; exits with one line where it is missing or another version."""
    try:
        from importlib.metadata import PackageNotFoundError, version

        found = version("ziglang")
    except PackageNotFoundError:
        sys.exit(f"ziglang is not installed; `pip install ziglang=={ZIGLANG}` (it is in tracekit[test])")
    if found != ZIGLANG:
        sys.exit(f"ziglang {found} would give other bytes; `pip install ziglang=={ZIGLANG}`")
    return [sys.executable, "-m", "ziglang", "cc"]


def compile_guest(name: str) -> bytes:
    """The ELF of one bare-metal guest."""
    sources = sorted(str(path.relative_to(HERE)) for path in (HERE / name).glob("*.[cS]"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"{name}.elf"
        target = ["-target", "aarch64-freestanding-none", f"-mcpu={CPU.get(name, 'cortex_a53')}"]
        shared = ["common/start.S", "common/board.c", "common/mmu.c"]
        if name in LINUX_LIKE:
            shared += ["common/linux_start.S", "common/linux.c", "-Wl,-e,linux_start"]
        inputs = ["-Icommon", *shared, *sources, "-Wl,-T,common/link.ld", "-Wl,--gc-sections"]
        subprocess.run([*zig(), *target, *FLAGS, *inputs, "-o", str(out)], cwd=HERE, check=True)
        return out.read_bytes()


def compile_init() -> bytes:
    """The Linux sample's init: a static program without a C library."""
    source = REPOSITORY / "samples" / "linux"
    flags = [flag for flag in FLAGS if flag != "-mgeneral-regs-only"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "init"
        target = ["-target", "aarch64-freestanding-none", "-mcpu=cortex_a53"]
        subprocess.run([*zig(), *target, *flags, "init.c", "-o", str(out)], cwd=source, check=True)
        return out.read_bytes()


def main() -> int:
    """Build or compare; 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("guests", nargs="*", default=[*GUESTS, "init"], help="which to build (default: all)")
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing them")
    arguments = parser.parse_args()
    differing = 0
    for name in arguments.guests:
        target = REPOSITORY / "samples" / "linux" / "init" if name == "init" else PREBUILT / f"{name}.elf"
        built = compile_init() if name == "init" else compile_guest(name)
        if arguments.check:
            same = target.is_file() and target.read_bytes() == built
            differing += not same
            print(f"{name}: {'same' if same else 'DIFFERENT'}")
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(built)
            print(f"{name}: {len(built)} bytes -> {target.relative_to(REPOSITORY)}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
