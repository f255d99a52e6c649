"""Obtain Debian's current arm64 kernel with apt: python samples/linux/fetch.py [--flavour cloud|generic] [--cache DIR].

As an ordinary user, with the sources and keys that the system has, in a folder of its own: the system's package state is not
touched. Prints the path of the kernel; what is there already is used again.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

META = {"cloud": "linux-image-cloud-arm64", "generic": "linux-image-arm64"}
CONFIGURATION = """APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Log "{root}";
APT::Sandbox::User "";
"""


class FetchError(Exception):
    """apt cannot deliver; the text says why."""


def default_cache() -> Path:
    """$XDG_CACHE_HOME/tracekit, or ~/.cache/tracekit."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracekit"


def fetch(flavour: str, cache: Path) -> Path:
    """The kernel of a flavour, downloaded if it is not in the cache. Errors: FetchError."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:  # two at once: the second finds what the first has fetched
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _fetch_locked(flavour, cache)


def _fetch_locked(flavour: str, cache: Path) -> Path:
    folder = cache / "kernels" / flavour
    present = sorted(folder.glob("vmlinuz-*"))
    if present:
        return present[-1]
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise FetchError(f"{tool} is not here; a Debian host is needed (or give tracekit any arm64 Image)")
    root = cache / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    configuration = root / "apt.conf"
    configuration.write_text(CONFIGURATION.format(root=root))
    environment = {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C"}
    _run(["apt-get", "update", "-qq"], root, environment)
    depends = _run(["apt-cache", "depends", META[flavour]], root, environment)
    match = re.search(r"Depends: (linux-image-[0-9]\S+)", depends)
    if match is None:
        raise FetchError(f"apt knows no kernel behind {META[flavour]}; do the system's sources carry arm64?")
    download = root / "download" / flavour
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(parents=True)
    _run(["apt-get", "download", match[1]], download, environment)
    packages = sorted(download.glob("*.deb"))
    if len(packages) != 1:
        raise FetchError(f"apt-get download gave {len(packages)} packages instead of one")
    _run(["dpkg-deb", "-x", str(packages[0]), str(download / "root")], download, environment)
    kernels = sorted((download / "root" / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise FetchError(f"{packages[0].name} holds no kernel")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / kernels[0].name
    temporary = target.with_suffix(".part")
    shutil.copyfile(kernels[0], temporary)
    temporary.replace(target)
    shutil.rmtree(download)
    return target


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FetchError(f"`{' '.join(command)}` failed: {reason}")
    return done.stdout


def main() -> int:
    """Print the kernel's path; 2 and one line on stderr when it cannot be had."""
    parser = argparse.ArgumentParser(description="Obtain Debian's current arm64 kernel with apt, without root.")
    parser.add_argument("--flavour", choices=sorted(META), default="cloud")
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    try:
        print(fetch(arguments.flavour, arguments.cache.resolve()))
    except (FetchError, OSError) as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
