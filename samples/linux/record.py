"""Fetch Debian's kernel, build the initramfs and record the boot: python samples/linux/record.py OUT.tkt [tracekit record options].

For example: python samples/linux/record.py boot.tkt --vcpus 2 --neighbour 50%
or: python samples/linux/record.py hotplug.tkt --scenario samples/scenarios/linux_hotplug.toml
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from fetch import FetchError, default_cache, fetch
from initramfs import initramfs


def main() -> int:
    """Exit code of `tracekit record`; 2 when the kernel cannot be had."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    flavour = "cloud"
    if "--flavour" in arguments:
        at = arguments.index("--flavour")
        flavour = arguments[at + 1]
        del arguments[at : at + 2]
    try:
        kernel = fetch(flavour, default_cache())
    except (FetchError, OSError) as error:
        print(f"record: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        initrd = Path(folder) / "initramfs.cpio"
        initrd.write_bytes(initramfs((HERE / "init").read_bytes()))
        command = [sys.executable, "-m", "tracekit.cli", "record", str(kernel), "--initrd", str(initrd)]
        if "--scenario" not in arguments:
            command += ["--max-vtime", "30s"]
        return subprocess.run([*command, "-o", arguments[0], *arguments[1:]]).returncode


if __name__ == "__main__":
    sys.exit(main())
