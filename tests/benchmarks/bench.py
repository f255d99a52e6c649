"""What a run of the suite stands on: the environment that is measured, the peers, folders, and artefacts that several themes share."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from guests import CONSOLE, RAM_MIB, REPOSITORY, initrd, sample
from harness import BenchmarkError, NotAvailableError, Usage, measure

HERE = Path(__file__).resolve().parent
CACHE = REPOSITORY / "build" / "benchmarks"
QEMU = "qemu-system-aarch64"


@dataclass
class Bench:
    """One run of the suite. `python`: the interpreter whose tracekit is measured; `folder`: scratch."""

    python: Path
    folder: Path
    rounds: int = 5
    quick: bool = False
    tell: Callable[[str], None] = lambda text: None
    shared: dict[str, Any] = field(default_factory=dict)

    # --- commands ----------------------------------------------------------------------------------------------------------------

    @cached_property
    def tracekit(self) -> list[str]:
        """The installed command."""
        script = self.python.parent / "tracekit"
        if self.python.parent.is_relative_to(CACHE) and script.exists():
            return [str(script)]
        return [str(self.python), "-P", "-m", "tracekit.cli"]

    def words(self, *words: object) -> list[str]:
        """A tracekit command."""
        return [*self.tracekit, *(str(word) for word in words)]

    def worker(self, name: str, *words: object) -> list[str]:
        """A script of this folder, run by the interpreter that is measured."""
        return [str(self.python), str(HERE / "workers" / f"{name}.py"), *(str(word) for word in words)]

    def boot(self, trace: str, *options: object) -> list[str]:
        """Record Debian's boot to power-off."""
        out = self.folder / f"{trace}.tkt"
        given = ("--initrd", self.initrd, "--max-vtime", "60s", "-o", out, "--force", *options)
        return self.words("record", self.kernel, *given)

    def flat(self, guest: bytes, name: str, *options: object, ram: str = "64M") -> list[str]:
        """Record a flat guest."""
        path = self.folder / f"{name}.bin"
        path.write_bytes(guest)
        return self.words(
            "record", path, "--format", "flat", "--ram", ram, "-o", self.folder / f"{name}.tkt", "--force", *options
        )

    def trace(self, name: str) -> Path:
        """Where a recording lies."""
        return self.folder / f"{name}.tkt"

    def qemu(self, mode: str | None, log: str = "qemu.bin", *more: str) -> list[str]:
        """QEMU on the same kernel and initramfs: `record`, `replay`, or None for plain. Errors: NotAvailableError."""
        if shutil.which(QEMU) is None:
            raise NotAvailableError("QEMU is not here: install Debian's qemu-system-arm")
        replay = ["-icount", f"shift=0,rr={mode},rrfile={self.folder / log}"] if mode else []
        return [
            QEMU, "-M", "virt,gic-version=2", "-cpu", "cortex-a53", "-m", str(RAM_MIB), "-display", "none", "-monitor", "none",
            "-serial", "null", "-net", "none", *replay, "-kernel", str(self.kernel), "-initrd", str(self.initrd),
            "-append", CONSOLE, "-no-reboot", *more,
        ]  # fmt: skip

    # --- what the measured tracekit can do ----------------------------------------------------------------------------------------

    def help(self, command: str) -> str:
        """A command's help; with "" tracekit's own. Whitespace is one space, wherever the lines end."""
        words = self.words(*([command] if command else []), "--help")
        return " ".join(subprocess.run(words, capture_output=True, text=True).stdout.split())

    def has(self, command: str, word: str) -> bool:
        """Whether a command's help speaks of an option or a command."""
        return f"{word} " in self.help(command)

    def needs(self, command: str, word: str) -> None:
        """Errors: NotAvailableError where it does not."""
        if not self.has(command, word):
            raise NotAvailableError(f"`tracekit {command}` knows no {word} yet".replace("  ", " "))

    def engine(self, mode: str) -> tuple[str, str]:
        """The options for an engine mode. Errors: NotAvailableError."""
        if not re.search(rf"--engine \[(?:[^\]]*\|)?{mode}[|\]]", self.help("record")):
            raise NotAvailableError(f"`tracekit record --engine` knows no {mode} yet")
        return ("--engine", mode)

    @cached_property
    def thin(self) -> tuple[str, ...]:
        """The options that leave checkpoints out; nothing where there are none."""
        return ("--no-checkpoints",) if self.has("record", "--no-checkpoints") else ()

    # --- artefacts ----------------------------------------------------------------------------------------------------------------

    @cached_property
    def kernel(self) -> Path:
        """Debian's cloud kernel. Errors: NotAvailableError."""
        fetch = sample("fetch")
        try:
            return Path(fetch.fetch("cloud", fetch.default_cache()))
        except (fetch.FetchError, OSError) as error:
            raise NotAvailableError(f"Debian's kernel cannot be had: {error}") from None

    @cached_property
    def initrd(self) -> Path:
        """The sample's initramfs."""
        path = self.folder / "initramfs.cpio"
        path.write_bytes(initrd())
        return path

    def info(self, trace: Path) -> dict[str, Any]:
        """What `tracekit info --json` says."""
        value: dict[str, Any] = json.loads(measure(self.words("info", trace, "--json")).text)
        return value

    def instructions(self, trace: Path) -> int:
        """How many instructions a recording has."""
        return int(self.info(trace)["end"]["position"])

    def the_boot(self) -> tuple[Path, list[Usage], int]:
        """Debian's boot as everybody records it, once for all themes: the trace, what each recording used, its instructions."""
        if "boot" not in self.shared:
            command = self.boot("the_boot")
            measure(command)  # caches are warm from here on
            used = [measure(command) for _ in range(1 if self.quick else 3)]
            self.shared["boot"] = (self.trace("the_boot"), used, self.instructions(self.trace("the_boot")))
        made: tuple[Path, list[Usage], int] = self.shared["boot"]
        return made


def _tracked() -> list[Path]:
    """What the package is made of; without git, every file of its rooms."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, capture_output=True
    )
    if listed.returncode:
        rooms = ("tracekit", "formats", "replay", "analyzers", "samples", "_build")
        names = [path for room in rooms for path in (REPOSITORY / room).rglob("*") if "__pycache__" not in path.parts]
        tops = [REPOSITORY / name for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE")]
        return [path.relative_to(REPOSITORY) for path in [*names, *tops] if path.is_file() or path.is_symlink()]
    return [Path(name) for name in listed.stdout.decode().split("\0") if name]


def _digest(paths: list[Path]) -> str:
    """Of names and contents."""
    total = hashlib.sha256(sys.version.encode())
    for path in sorted(paths):
        file = REPOSITORY / path
        if file.is_file() and not file.is_symlink():
            total.update(f"{path}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def environment(tell: Callable[[str], None]) -> Path:
    """The interpreter of a fresh virtual environment with this tree's tracekit, without extras (pyarrow imports numpy where it finds it).

    It is kept in build/benchmarks: made anew when the dependencies change, tracekit installed anew when the tree does. Errors: BenchmarkError.
    """
    paths = [path for path in _tracked() if path.parts[0] not in ("tests", "docs", "build", ".ci")]
    wanted = {"tree": _digest(paths), "dependencies": _digest([Path("pyproject.toml")])}
    venv, note = CACHE / "venv", CACHE / "venv.json"
    python = venv / "bin" / "python"
    made: dict[str, str] = json.loads(note.read_text()) if note.exists() and python.exists() else {}
    if made == wanted:
        return python
    note.unlink(missing_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        for path in paths:
            source, target = REPOSITORY / path, tree / path
            if source.is_file() or source.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target, follow_symlinks=False)
        if made.get("dependencies") != wanted["dependencies"]:
            tell("making an environment in build/benchmarks")
            shutil.rmtree(venv, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(venv)])
            _run([str(python), "-m", "pip", "install", "-q", str(tree)])
        else:
            tell("installing this tree in build/benchmarks")
            _run([str(python), "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(tree)])
    note.write_text(json.dumps(wanted))
    return python


def _run(command: list[str]) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
