"""Write the sample's initramfs: python samples/linux/initramfs.py OUT.cpio [--init FILE].

A newc archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst) with zero times and owners: equal input, equal
bytes. Device nodes are only entries, so no root rights are needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HERE = Path(__file__).resolve().parent


def newc(entries: list[tuple[str, int, bytes, tuple[int, int]]]) -> bytes:
    """An archive of (name, mode, data, (major, minor) of a device node)."""
    out = bytearray()
    for inode, (name, mode, data, device) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))], start=1):
        encoded = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += b"\0" * (-len(out) % 4)
        out += data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def initramfs(init: bytes) -> bytes:
    """The sample's archive around an init."""
    return newc(
        [
            ("dev", 0o40755, b"", (0, 0)),
            ("proc", 0o40755, b"", (0, 0)),
            ("sys", 0o40755, b"", (0, 0)),
            ("dev/console", 0o20600, b"", (5, 1)),
            ("init", 0o100755, init, (0, 0)),
        ]
    )


def main() -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(description="Write the sample's initramfs.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--init", type=Path, default=HERE / "init", help="a static arm64 program (default: the prebuilt one)")
    arguments = parser.parse_args()
    arguments.output.write_bytes(initramfs(arguments.init.read_bytes()))


if __name__ == "__main__":
    main()
