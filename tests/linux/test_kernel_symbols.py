"""A kernel's names against what the running kernel says itself, in /proc/kallsyms; where it was linked, and moved by KASLR."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import warnings
from pathlib import Path
from typing import Any

import fdt
import pytest
from support import REPOSITORY, console, rows, tracekit

from tracekit.formats.reader import Trace
from tracekit.machine import loader
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Scenario
from tracekit.symbols.symbols import Symbols

SEED = [0x0123_4567, 0x89AB_CDEF]


def load(path: str) -> Any:
    """A script of the samples as a module."""
    spec = importlib.util.spec_from_file_location(f"sample_{Path(path).stem}", REPOSITORY / "samples" / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernel_of(flavour: str) -> Path:
    """Debian's kernel; skips with a loud line where apt cannot deliver it."""
    fetch = load("linux/fetch.py")
    try:
        return Path(fetch.fetch(flavour, fetch.default_cache()))
    except (fetch.FetchError, OSError) as error:
        text = f"LINUX TESTS SKIPPED: Debian's {flavour} kernel cannot be had: {error}"
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initramfs whose init prints every 29th line of /proc/kallsyms."""
    folder, build = tmp_path_factory.mktemp("kallsyms"), load("guests/build.py")
    flags = [flag for flag in build.FLAGS if flag != "-mgeneral-regs-only"]
    source = Path(__file__).with_name("kallsyms_init.c")
    target = ["-target", "aarch64-freestanding-none", "-mcpu=cortex_a53"]
    subprocess.run([*build.zig(), *target, *flags, str(source), "-o", str(folder / "init")], check=True)
    path = folder / "initramfs.cpio"
    path.write_bytes(load("linux/initramfs.py").initramfs((folder / "init").read_bytes()))
    return path


def boot(flavour: str, initrd: Path, output: Path, **changes: Any) -> list[tuple[int, str, str]]:
    """Record a boot; what the kernel says: (address, type, name)."""
    kernel = str(kernel_of(flavour))
    record(Scenario(image=kernel, initrd=str(initrd), max_vtime_ns=20_000_000_000, append="quiet", **changes), output)
    text = console(output)
    assert "END" in text, text[-2000:]
    told = [(int(at, 16), kind, name) for at, kind, name in re.findall(r"^([0-9a-f]{16}) (\w) (\S+)\r?$", text, re.MULTILINE)]
    assert len(told) > 1000
    return told


def check(told: list[tuple[int, str, str]], symbols: Symbols) -> None:
    """Every address that the kernel prints has its name, and every name its address."""
    aliases = 0
    for at, kind, name in told:
        assert at in symbols.addresses(name), (hex(at), name, symbols.how)
        if kind in "tTwW":
            found = symbols.name(at)
            inside = symbols.name(at + 4)
            if found is None:  # a label at the end of the code
                continue
            assert found.offset == 0
            aliases += found.function != name
            assert inside is None or inside.offset in (0, 4)
    assert aliases < len(told) / 20


def test_a_kernel_where_it_is_linked(initrd: Path, tmp_path: Path) -> None:
    """No seed in the device tree: as linked. `dump --symbols` names the places of its hypercalls and of its reads of the stolen time."""
    path = tmp_path / "boot.tkt"
    told = boot("cloud", initrd, path)
    symbols = Symbols.for_trace(Trace.open(path))
    check(told, symbols)
    assert "as linked" in symbols.how and "agree" in symbols.how
    lines = tracekit("dump", path, "hypercalls", "--symbols", "--json").stdout.splitlines()
    named = {row["function"]: row["symbol"].split("+")[0] for row in map(json.loads, lines)}
    assert named["PV_TIME_ST"] == "stolen_time_cpu_online"
    assert named["PV_TIME_FEATURES"] == "pv_time_init"
    reads = {str(symbols.name(row["pc"])).split("+")[0] for row in rows(path, "memory_reads")}
    assert reads == {"stolen_time_cpu_online", "para_steal_clock"}
    assert symbols.name(0x40_0000) is None  # user space and physical addresses stay unnamed


def test_a_kernel_that_moved(initrd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kaslr-seed the kernel moves; the place is found from its hypercalls and is what the kernel says itself."""
    plain = loader.build

    def seeded(config: Any) -> bytes:
        tree = fdt.parse_dtb(plain(config))
        tree.set_property("kaslr-seed", SEED, "/chosen")
        return bytes(tree.to_dtb())

    monkeypatch.setattr(loader, "build", seeded)
    told = boot("cloud", initrd, tmp_path / "moved.tkt")
    symbols = Symbols.for_trace(Trace.open(tmp_path / "moved.tkt"))
    assert "moved by" in symbols.how
    check(told, symbols)


@pytest.mark.slow
def test_a_generic_kernel(initrd: Path, tmp_path: Path) -> None:
    """Debian's generic kernel on a CPU that could draw a seed of its own."""
    told = boot("generic", initrd, tmp_path / "boot.tkt", cpu="max")
    symbols = Symbols.for_trace(Trace.open(tmp_path / "boot.tkt"))
    check(told, symbols)
    assert "found from" in symbols.how
