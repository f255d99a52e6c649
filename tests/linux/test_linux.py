"""Debian's kernels, unmodified, under `tracekit record`: stolen time to the ns, replay to the bit. Skipped, loudly, without apt."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path

import pytest
from debian import SAMPLE, kernel_of, load
from marks import check, record_marks
from support import busy_host, console, files_of, replayed, rows, tracekit

from tracekit.analyzers.steal import reads
from tracekit.analyzers.timeline import intervals
from tracekit.formats.reader import Trace
from tracekit.recorder.scenario import Scenario

TICK_NS, USER_HZ_NS = 4_000_000, 10_000_000


@pytest.fixture(scope="session")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's initramfs."""
    path = tmp_path_factory.mktemp("linux") / "initramfs.cpio"
    path.write_bytes(load("initramfs").initramfs((SAMPLE / "init").read_bytes()))
    return path


def record_boot(kernel: Path, initrd: Path, output: Path, *options: object) -> None:
    """Boot to power-off."""
    done = tracekit(
        "record", kernel, "--initrd", initrd, "-o", output, "--ram", "512M", "--max-vtime", "20s", *options, timeout=560
    )
    assert done.returncode == 0, done.stderr + done.stdout + console(output)[-2000:]


def stat_readings(text: str) -> list[tuple[int, int, dict[int, int]]]:
    """(ns before, ns after, steal ticks of each CPU) of each reading of /proc/stat."""
    out = []
    for block in re.findall(r"STAT BEGIN (\d+)\r?\n(.*?)STAT END (\d+)", text, re.DOTALL):
        steal = {int(m[1]): int(m[2].split()[7]) for m in re.finditer(r"cpu(\d+) ([\d ]+)", block[1])}
        out.append((int(block[0]) * 16, int(block[2]) * 16, steal))
    return out


def check_steal(path: Path, vcpus: int) -> None:
    """Structure: exact at every read. /proc/stat: within 10 ms + one tick + the WAIT that was not reported yet."""
    trace = Trace.open(path)
    frame = reads(trace)
    assert frame["vcpu"].n_unique() == vcpus
    assert frame["error_ns"].abs().max() == 0
    assert frame["told_ns"].max() > 10_000_000
    pieces = intervals(trace)
    readings = stat_readings(console(path))
    assert len(readings) == 6
    for vcpu in range(vcpus):
        waits = pieces.filter((pieces["vcpu"] == vcpu) & (pieces["kind"] == "wait")).select("start_ns", "end_ns").rows()
        told = frame.filter(frame["vcpu"] == vcpu).select("vtime_ns", "true_ns").rows()

        def waited(until: int, waits: list[tuple[int, int]] = waits) -> int:
            return sum(max(0, min(end, until) - start) for start, end in waits)

        def unreported(at: int, told: list[tuple[int, int]] = told, waits: list[tuple[int, int]] = waits) -> int:
            last = max((when for when, _ in told if when <= at), default=0)
            return waited(at, waits) - waited(last, waits)

        for (begin_a, end_a, steal_a), (begin_b, end_b, steal_b) in itertools.pairwise(readings):
            shown = (steal_b[vcpu] - steal_a[vcpu]) * USER_HZ_NS
            low, high = waited(begin_b) - waited(end_a), waited(end_b) - waited(begin_a)
            slack = USER_HZ_NS + TICK_NS + unreported(end_a) + unreported(end_b)
            assert low - slack <= shown <= high + slack, (vcpu, begin_a, shown, low, high, slack)


# The smallest and the widest board in the default suite, the others with the slow ones.
BOARDS = [
    pytest.param(vcpus, pcpus, marks=[] if (vcpus, pcpus) in ((1, 1), (4, 2)) else pytest.mark.slow)
    for vcpus in (1, 2, 4)
    for pcpus in (1, 2)
]


@pytest.mark.parametrize(("vcpus", "pcpus"), BOARDS)
def test_debian_boots_and_replays(tmp_path: Path, initrd: Path, vcpus: int, pcpus: int) -> None:
    """The cloud kernel, unmodified, with neighbours."""
    kernel = kernel_of("cloud")
    options = ["--vcpus", vcpus, "--pcpus", pcpus, "--neighbour", "30%:10ms", "--neighbour", "20%:7ms"]
    record_boot(kernel, initrd, tmp_path / "a.tkt", *options)
    text = console(tmp_path / "a.tkt")
    assert "arm-pv: using stolen time PV" in text
    assert "INIT: hello from user space" in text
    assert "reboot: Power down" in text
    assert Trace.open(tmp_path / "a.tkt").manifest["end"]["reason"] == "power_off"
    check_steal(tmp_path / "a.tkt", vcpus)
    verdict = tracekit("replay", tmp_path / "a.tkt", timeout=560)
    assert verdict.returncode == 0, verdict.stdout
    record_boot(kernel, initrd, tmp_path / "b.tkt", *options)
    mine, theirs = files_of(tmp_path / "a.tkt"), files_of(tmp_path / "b.tkt")
    assert mine == theirs
    assert sum(len(content) for name, content in mine.items() if not name.startswith(("images/", "checkpoints/"))) <= 1_500_000
    assert tracekit("verify", tmp_path / "a.tkt").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("vcpus", [2, 4])
def test_every_engine_mode_replays_it(tmp_path: Path, initrd: Path, vcpus: int) -> None:
    """Recorded with 4 KiB engine pages: identical with 1 KiB pages, in safe mode and counted instruction by instruction."""
    kernel = kernel_of("cloud")
    record_boot(kernel, initrd, tmp_path / "a.tkt", "--vcpus", vcpus, "--pcpus", 2, "--neighbour", "30%")
    for options in ({"page_size": 1024}, {"mode": "exact"}, {"mode": "safe"}, {"counting": "instruction"}):
        result = replayed(tmp_path / "a.tkt", **options)
        assert result.is_identical, (options, result.divergence)


@pytest.mark.slow
def test_safe_mode_records_the_same_boot(tmp_path: Path, initrd: Path) -> None:
    """The final state of a boot equals that of the slow-but-safe configuration."""
    kernel = kernel_of("cloud")
    for name, engine in (("a", "fast"), ("b", "exact"), ("c", "safe")):
        record_boot(kernel, initrd, tmp_path / f"{name}.tkt", "--neighbour", "30%", "--engine", engine)
    mine, exact, safe = (rows(tmp_path / f"{name}.tkt", "states")[-1] for name in "abc")
    assert mine == exact == safe and mine["memory"] is not None


def test_generic_kernel(tmp_path: Path, initrd: Path) -> None:
    """The same for the generic (non-cloud) kernel."""
    kernel = kernel_of("generic")
    record_boot(kernel, initrd, tmp_path / "a.tkt", "--vcpus", 2, "--neighbour", "40%")
    assert "arm-pv: using stolen time PV" in console(tmp_path / "a.tkt")
    check_steal(tmp_path / "a.tkt", 2)
    assert replayed(tmp_path / "a.tkt").is_identical


def test_writes_of_a_linux_window_explain_its_memory(tmp_path: Path, initrd: Path) -> None:
    """Initial RAM plus all memory_writes is final RAM on the first 60 M instructions of a 2-vCPU boot; thin gives the same rows."""
    kernel = kernel_of("cloud")
    limit = ["--vcpus", 2, "--max-instructions", 60_000_000]
    record_boot(kernel, initrd, tmp_path / "writes.tkt", *limit, "--capture", "writes")
    record_boot(kernel, initrd, tmp_path / "thin.tkt", *limit)
    done = tracekit("replay", tmp_path / "thin.tkt", "--capture", "writes", "-o", tmp_path / "writes2.tkt", timeout=560)
    assert done.returncode == 0, done.stdout
    table = "memory_writes.arrow"
    assert (tmp_path / "writes.tkt" / table).read_bytes() == (tmp_path / "writes2.tkt" / table).read_bytes()

    trace = Trace.open(tmp_path / "writes.tkt")
    memory: dict[int, bytearray] = {}

    def store(ipa: int, data: bytes) -> None:
        while data:
            room = 4096 - (ipa & 0xFFF)
            page = memory.setdefault(ipa >> 12, bytearray(4096))
            page[ipa & 0xFFF : (ipa & 0xFFF) + len(data[:room])] = data[:room]
            ipa, data = ipa + room, data[room:]

    for segment in trace.manifest["machine"]["segments"]:
        store(segment["ipa"], trace.image(segment["image"]))
    for batch in trace.batches("memory_writes"):
        columns = [batch.column(index).to_pylist() for index in (5, 6, 7)]
        for ipa, size, value in zip(*columns, strict=True):
            store(ipa, value.to_bytes(size, "little"))
    total = hashlib.sha256()
    for index in sorted(memory):
        if any(memory[index]):
            total.update(index.to_bytes(8, "little") + hashlib.sha256(memory[index]).digest())
    assert rows(tmp_path / "writes.tkt", "states")[-1]["memory"] == total.digest()


def test_info_of_a_boot(tmp_path: Path, initrd: Path) -> None:
    """The hypercalls of Linux's discovery stand in their order (pvtime.md 1.9)."""
    record_boot(kernel_of("cloud"), initrd, tmp_path / "a.tkt", "--max-instructions", 150_000_000)
    names = [row["function"] for row in rows(tmp_path / "a.tkt", "hypercalls")]
    order = ["PSCI_VERSION", "SMCCC_VERSION", "SMCCC_ARCH_FEATURES", "PV_TIME_FEATURES", "PV_TIME_ST"]
    places = [names.index(name) for name in order]
    assert places == sorted(places)
    assert json.loads(tracekit("info", tmp_path / "a.tkt", "--json").stdout)["end"]["reason"] == "limit_instructions"


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "vcpus", "pcpus"), [("a53", 1, 1), ("a53", 2, 1), ("a53", 4, 4), ("max", 2, 2)])
def test_going_on_from_marks(tmp_path: Path, initrd: Path, cpu: str, vcpus: int, pcpus: int) -> None:
    """At every mark of a boot portable values are the whole machine, and from any of them a fresh board of another mode goes on."""
    boot = Scenario(
        image=str(kernel_of("cloud")), initrd=str(initrd), cpu=cpu, vcpus=vcpus, host=busy_host("fair", pcpus=pcpus),
        max_vtime_ns=20_000_000_000,
    )  # fmt: skip
    check(record_marks(boot, tmp_path / "a.tkt"), 7, ({}, {"page_size": 1024}, {"mode": "exact"}))
