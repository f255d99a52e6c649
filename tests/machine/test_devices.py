"""GICv2, PL011, device tree and loader, each on its own."""

from __future__ import annotations

import gzip
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.formats.errors import InputError
from tracekit.machine.devicetree import DeviceTreeConfig, build
from tracekit.machine.gic import SPURIOUS, Gic
from tracekit.machine.loader import GuestFiles, load
from tracekit.machine.map import RAM_BASE
from tracekit.machine.pl011 import FR, Pl011

CTLR, ISENABLER, IPRIORITYR, ITARGETSR, SGIR = 0x000, 0x100, 0x400, 0x800, 0xF00
IAR, EOIR, PMR = 0x0C, 0x10, 0x04


class Wired:
    """A controller whose SGIs land at once; events are kept."""

    def __init__(self, vcpus: int = 2) -> None:
        self.events: list[tuple[str, int, int | None]] = []
        self.gic = Gic(vcpus, lambda *event: self.events.append(event), lambda s, t, i: self.gic.pend_sgi(t, i, s))
        self.gic.distributor_write(0, CTLR, 4, 1)
        for vcpu in range(vcpus):
            self.gic.interface_write(vcpu, PMR, 4, 0xF0)
            self.gic.interface_write(vcpu, 0, 4, 1)

    def enable(self, intid: int, priority: int = 0xA0, vcpu: int = 0, targets: int = 1) -> None:
        self.gic.distributor_write(vcpu, ISENABLER + intid // 32 * 4, 4, 1 << intid % 32)
        self.gic.distributor_write(vcpu, IPRIORITYR + intid, 1, priority)
        self.gic.distributor_write(vcpu, ITARGETSR + intid, 1, targets)


def test_a_level_line_is_pending_again() -> None:
    """PPI: taken, completed while still high: pending again; low: gone."""
    w = Wired()
    w.enable(27)
    w.gic.set_level(27, True, 0)
    assert (w.gic.line(0), w.gic.line(1)) == (True, False)
    assert w.gic.interface_read(0, IAR, 4) == 27
    assert not w.gic.line(0)
    w.gic.interface_write(0, EOIR, 4, 27)
    assert w.gic.line(0)
    w.gic.set_level(27, False, 0)
    assert not w.gic.line(0)
    assert w.events == [("assert", 27, 0), ("complete", 27, 0), ("deassert", 27, 0)]


def test_priorities_preempt() -> None:
    """A higher priority comes first and preempts; an equal one waits."""
    w = Wired()
    w.enable(40, 0xA0)
    w.enable(41, 0x20)
    w.enable(42, 0xA0)
    for intid in (40, 42):
        w.gic.set_level(intid, True, None)
    assert w.gic.interface_read(0, IAR, 4) == 40
    assert not w.gic.line(0)
    w.gic.set_level(41, True, None)
    assert w.gic.line(0)
    assert w.gic.interface_read(0, IAR, 4) == 41
    assert w.gic.interface_read(0, 0x14, 4) == 0x20
    w.gic.set_level(41, False, None)
    w.gic.interface_write(0, EOIR, 4, 41)
    assert w.gic.interface_read(0, IAR, 4) == SPURIOUS
    w.gic.set_level(40, False, None)
    w.gic.interface_write(0, EOIR, 4, 40)
    assert w.gic.interface_read(0, IAR, 4) == 42


def test_masks() -> None:
    """Priority mask, disabled interrupt, disabled interface, disabled distributor: no line."""
    w = Wired()
    w.enable(33, 0x80)
    w.gic.set_level(33, True, None)
    assert w.gic.line(0)
    w.gic.interface_write(0, PMR, 4, 0x80)
    assert not w.gic.line(0)
    w.gic.interface_write(0, PMR, 4, 0xF0)
    w.gic.distributor_write(0, 0x184, 4, 2)
    assert not w.gic.line(0)


@pytest.mark.parametrize(("value", "reached"), [(0b110 << 16 | 5, [1, 2]), (1 << 24 | 5, [0, 2]), (2 << 24 | 5, [1])])
def test_sgi_targets(value: int, reached: list[int]) -> None:
    """List, all but self, self; the acknowledgement names the source."""
    w = Wired(3)
    w.gic.distributor_write(1, SGIR, 4, value)
    assert [vcpu for vcpu in range(3) if w.gic.line(vcpu)] == reached
    assert w.gic.interface_read(reached[0], IAR, 4) == 5 | 1 << 10


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("rwRW"),
            st.integers(0, 2),
            st.integers(0, 0x1010),
            st.sampled_from([1, 2, 4, 8]),
            st.integers(0, 2**64 - 1),
        ),
        max_size=60,
    )
)
def test_no_guest_breaks_it(operations: list[tuple[str, int, int, int, int]]) -> None:
    """Any access is answered; what is saved becomes the same controller again."""
    w = Wired(3)
    for kind, vcpu, offset, size, value in operations:
        if kind == "r":
            assert 0 <= w.gic.distributor_read(vcpu, offset, size) < 1 << 32
        elif kind == "w":
            w.gic.distributor_write(vcpu, offset, size, value)
        elif kind == "R":
            assert 0 <= w.gic.interface_read(vcpu, offset, size) < 1 << 32
        else:
            w.gic.interface_write(vcpu, offset, size, value)
    other = Wired(3)
    other.gic.restore(w.gic.save())
    assert other.gic.digest_bytes() == w.gic.digest_bytes()
    assert [other.gic.highest(v) for v in range(3)] == [w.gic.highest(v) for v in range(3)]


def test_uart() -> None:
    """Bytes out at once; bytes in one by one, in order, none lost, with an interrupt while some wait."""
    sent, lines, flags = bytearray(), [], []
    uart = Pl011(sent.append, lines.append, flags.append)
    for byte in b"out":
        uart.write(0, 4, byte)
    assert sent == b"out"
    uart.write(0x38, 4, 0x50)
    uart.receive(b"a longer line than the FIFO is deep")
    got = bytearray()
    while not uart.read(FR, 4) & 0x10:
        assert flags[-1] == uart.read(FR, 4)
        got.append(uart.read(0, 4))
    assert flags[-1] == uart.read(FR, 4) == 0x90
    uart.receive(b"12")
    assert flags[-1] == uart.read(FR, 4) == 0xC0
    uart.write(0x2C, 4, 0x10)
    assert flags[-1] == uart.read(FR, 4) == 0x80
    uart.read(0, 4), uart.read(0, 4)
    assert got == b"a longer line than the FIFO is deep"
    assert lines == [True, False, True, False]
    assert [uart.read(0xFE0 + 4 * i, 4) for i in range(8)] == [0x11, 0x10, 0x34, 0, 0x0D, 0xF0, 5, 0xB1]
    uart.receive(b"left")
    again = Pl011(sent.append, lines.append, flags.append)
    again.restore(uart.save())
    assert flags[-1] == again.read(FR, 4) == 0x80
    assert again.digest_bytes() == uart.digest_bytes()


def parsed(tree: bytes) -> dict[str, dict[str, bytes]]:
    """An independent reader of flattened device trees (Devicetree Specification v0.4, chapter 5)."""
    magic, total, at, strings = struct.unpack_from(">IIII", tree)
    assert magic == 0xD00DFEED and total == len(tree)
    nodes: dict[str, dict[str, bytes]] = {}
    path: list[str] = []
    while True:
        (token,) = struct.unpack_from(">I", tree, at)
        at += 4
        if token == 1:
            end = tree.index(b"\0", at)
            path.append(tree[at:end].decode())
            nodes["/".join(path) or "/"] = {}
            at = (end + 4) & ~3
        elif token == 2:
            path.pop()
        elif token == 3:
            length, name = struct.unpack_from(">II", tree, at)
            key = tree[strings + name : tree.index(b"\0", strings + name)].decode()
            nodes["/".join(path) or "/"][key] = tree[at + 8 : at + 8 + length]
            at = (at + 8 + length + 3) & ~3
        elif token == 9:
            return nodes


def test_device_tree() -> None:
    """What Linux needs, as a second reader finds it; equal configurations give equal bytes."""
    config = DeviceTreeConfig(4, 256 << 20, "console=ttyAMA0", (0x4800_0000, 0x4810_0000), seed=3)
    nodes = parsed(build(config))
    assert (
        build(config) == build(config) != build(DeviceTreeConfig(4, 256 << 20, "console=ttyAMA0", (0x4800_0000, 0x4810_0000), 4))
    )
    assert [name for name in nodes if "cpu@" in name] == [f"/cpus/cpu@{n}" for n in range(4)]
    assert nodes["/memory@40000000"]["reg"] == struct.pack(">QQ", RAM_BASE, 256 << 20)
    assert nodes["/psci"]["method"] == b"hvc\0"
    assert nodes["/chosen"]["bootargs"] == b"console=ttyAMA0\0"
    assert nodes["/chosen"]["linux,initrd-start"] == struct.pack(">Q", 0x4800_0000)
    assert len(nodes["/chosen"]["rng-seed"]) == 64 and "kaslr-seed" not in nodes["/chosen"]
    assert nodes["/timer"]["interrupts"][4:8] == struct.pack(">I", 13)
    assert not [name for name in nodes if "90a0000" in name]


def image(size: int = 4096, **fields: int) -> bytes:
    """A made-up arm64 Image."""
    header = bytearray(64)
    struct.pack_into("<QQQ", header, 8, fields.get("text_offset", 0), fields.get("image_size", size), fields.get("flags", 0))
    header[56:60] = b"ARMd"
    return bytes(header) + bytes(size - 64)


def test_images_are_placed() -> None:
    """Plain and gzip: kernel at RAM + 2 MiB, initrd behind it, device tree at the start."""
    for data in (image(), gzip.compress(image(), mtime=0)):
        guest = load(GuestFiles("vmlinuz", data, "initrd", b"cpio"), 1, 64 << 20)
        assert guest.entry == RAM_BASE + (2 << 20)
        assert guest.x0 == RAM_BASE
        assert {part.role: part.ipa for part in guest.parts} == {
            "devicetree": RAM_BASE,
            "kernel": RAM_BASE + (2 << 20),
            "initrd": RAM_BASE + (4 << 20),
        }


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (image(flags=1), "big-endian kernel"),
        (image(image_size=1 << 40), "damaged"),
        (image(text_offset=1 << 30), "damaged"),
        (image(200_000, image_size=100_000), "damaged"),
        (gzip.compress(b"nothing" * 100, mtime=0), "no arm64 Image"),
        (gzip.compress(image(), mtime=0)[:-20], "cut short"),
        (image(image_size=128 << 20), "RAM ends at"),
    ],
)
def test_images_that_are_none(data: bytes, text: str) -> None:
    """One line each."""
    with pytest.raises(InputError, match=text):
        load(GuestFiles("vmlinuz", data), 1, 64 << 20)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 255), st.integers(0, 5000))
def test_spoilt_elfs_never_crash(at: int, value: int, length: int) -> None:
    """Any byte changed, any length: a guest or an InputError."""
    from tracekit.workbench.demo import bundled_guest

    raw = bytearray(bundled_guest("hello").read_bytes())
    raw[at % 300] = value
    for data in (bytes(raw), bytes(raw[:length])):
        try:
            load(GuestFiles("x.elf", data), 1, 16 << 20)
        except InputError as error:
            assert "\n" not in str(error)


# Two vCPUs that store what they read from the counter, for ever; vCPU 0 starts vCPU 1 (entry at word 9).
COUNTERS = [
    0x52800060, 0x72B88000,  # mov w0, #3; movk w0, #0xc400, lsl #16   PSCI CPU_ON
    0xD2800021,  # mov x1, #1
    0xD2A80102, 0xF2800482,  # mov x2, #0x40080000; movk x2, #0x24
    0xD4000002,  # hvc #0
    0xD2A80805,  # mov x5, #0x40400000
    0xD503201F, 0xD503201F,  # nop
    0xD2A80806, 0xD53800A7, 0x924000E7, 0x8B070CC5,  # mov x6, #0x40400000; mrs x7, mpidr; and x7, x7, #1; add x5, x6, x7, lsl #3
    0xD53BE041, 0xF90000A1, 0x17FFFFFE,  # mrs x1, cntvct_el0; str x1, [x5]; b -2
]  # fmt: skip


def test_counters_are_monotone_across_vcpus(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Along position no read of the counter gives less than any read before it, on either vCPU."""
    from support import rows

    from tracekit.host.config import HostConfig
    from tracekit.recorder.record import record
    from tracekit.recorder.scenario import Scenario

    folder = tmp_path_factory.mktemp("counters")
    (folder / "guest").write_bytes(b"".join(word.to_bytes(4, "little") for word in COUNTERS))
    for policy in ("round-robin", "chaos"):
        scenario = Scenario(
            image=str(folder / "guest"),
            guest_format="flat",
            vcpus=2,
            ram=16 << 20,
            host=HostConfig(pcpus=2, policy=policy, quantum_ns=20_000, slice_ns=10_000),
            capture="writes",
            max_vtime_ns=300_000,
        )
        record(scenario, folder / f"{policy}.tkt")
        stores = [row for row in rows(folder / f"{policy}.tkt", "memory_writes") if row["origin"] == "guest"]
        switched = {row["position"] for row in rows(folder / f"{policy}.tkt", "schedule")}
        # A store right behind a switch holds what its vCPU had read before the switch.
        values = [row["value"] for row in stores if row["position"] not in switched]
        assert {row["vcpu"] for row in stores} == {0, 1} and len(values) > 50_000
        assert values == sorted(values)
