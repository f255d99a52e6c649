"""From files to guest memory: ELF, the arm64 Image (plain or gzip) and flat binaries, an initrd, the device tree.

Source: Linux Documentation/arch/arm64/booting.rst. Files are untrusted: every size is bounded before it is used.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from tracekit.formats.errors import InputError
from tracekit.machine.devicetree import DeviceTreeConfig, build
from tracekit.machine.map import RAM_BASE

MIB = 1 << 20
IMAGE_MAGIC, IMAGE_MAGIC_AT, IMAGE_HEADER = b"ARMd", 56, 64
GUEST_BYTES_MAX = 1 << 30
SEGMENTS_MAX = 256
DTB_ROOM = 2 * MIB
FLAT_OFFSET = 0x8_0000
CONSOLE = "earlycon=pl011,0x09000000 console=ttyAMA0"


@dataclass(frozen=True, slots=True)
class Segment:
    """Initial guest memory: `data` at `ipa`. role: kernel, initrd or devicetree."""

    role: str
    ipa: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LoadedGuest:
    """What vCPU 0 starts from: memory, PC and X0 (the device tree's address)."""

    kind: str
    parts: tuple[Segment, ...]
    entry: int
    x0: int

    @property
    def segments(self) -> list[tuple[int, bytes]]:
        """(ipa, bytes) of each part."""
        return [(part.ipa, part.data) for part in self.parts]


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """The user's files, already read, with their names for messages."""

    image_name: str
    image: bytes
    initrd_name: str | None = None
    initrd: bytes | None = None
    append: str = ""
    kind: str = "auto"


def load(
    files: GuestFiles,
    vcpu_count: int,
    ram_size: int,
    seed: int = 0,
    conduit: str = "hvc",
    reserved: tuple[tuple[int, int], ...] = (),
) -> LoadedGuest:
    """Place a guest in RAM; its device tree names the conduit, `hvc` or `smc`. reserved: (address, size) of RAM that the device tree keeps
    from the guest.

    Errors: InputError, one line, naming the file and what is wrong with it.
    """
    name, data = files.image_name, files.image
    if not data:
        raise InputError(f"{name}: the file is empty")
    kind = _kind_of(files)
    if kind == "image" and data[:2] == b"\x1f\x8b":
        data = _gunzip(name, data)
        if data[IMAGE_MAGIC_AT : IMAGE_MAGIC_AT + 4] != IMAGE_MAGIC:
            raise InputError(f"{name}: gzip, but what is inside is no arm64 Image")
    if kind == "elf":
        kernel, entry, kernel_end = _elf(name, data)
    elif kind == "image":
        kernel, entry, kernel_end = _image(name, data)
    else:
        entry = RAM_BASE + FLAT_OFFSET
        kernel, kernel_end = [(entry, data)], entry + len(data)
    ram_end = RAM_BASE + ram_size
    for ipa, content in kernel:
        if ipa < RAM_BASE or ipa + len(content) > ram_end:
            raise InputError(
                f"{name}: needs memory {ipa:#x}..{ipa + len(content):#x}, RAM is {RAM_BASE:#x}..{ram_end:#x} "
                f"({ram_size // MIB} MiB; --ram changes it)"
            )
    if kernel_end > ram_end:
        raise InputError(f"{name}: needs memory up to {kernel_end:#x}, RAM ends at {ram_end:#x} (--ram changes it)")
    parts = [Segment("kernel", ipa, content) for ipa, content in kernel]
    free_from = kernel_end
    initrd_range = None
    if files.initrd is not None:
        if not files.initrd:
            raise InputError(f"{files.initrd_name}: the file is empty")
        begin = (kernel_end + 2 * MIB - 1) & ~(2 * MIB - 1)
        initrd_range = (begin, begin + len(files.initrd))
        if initrd_range[1] > ram_end:
            raise InputError(f"{files.initrd_name}: does not fit into RAM behind the kernel (--ram changes it)")
        parts.append(Segment("initrd", begin, files.initrd))
        free_from = initrd_range[1]
    dtb_at = RAM_BASE if kind == "image" else ram_end - DTB_ROOM
    if kind != "image" and free_from > dtb_at:
        raise InputError(f"{name}: no room for the device tree in the last 2 MiB of RAM (--ram changes it)")
    bootargs = f"{CONSOLE} {files.append}".strip() if kind == "image" else files.append
    tree = build(DeviceTreeConfig(vcpu_count, ram_size, bootargs, initrd_range, seed, conduit, reserved))
    parts.append(Segment("devicetree", dtb_at, tree))
    for ipa, size in reserved:
        for part in parts:
            if ipa < part.ipa + len(part.data) and part.ipa < ipa + size:
                raise InputError(f"{name}: a stolen-time structure at {ipa:#x} lies on the {part.role} (hypervisor.pv_base)")
    return LoadedGuest(kind, tuple(sorted(parts, key=lambda part: part.ipa)), entry, dtb_at)


def _kind_of(files: GuestFiles) -> str:
    data = files.image
    looks = (
        "elf"
        if data[:4] == b"\x7fELF"
        else "image"
        if data[:2] == b"\x1f\x8b" or data[IMAGE_MAGIC_AT : IMAGE_MAGIC_AT + 4] == IMAGE_MAGIC
        else "flat"
    )
    if files.kind == "auto":
        if looks == "flat":
            raise InputError(
                f"{files.image_name}: neither ELF nor an arm64 Image (plain or gzip); --format flat loads it as it is "
                f"at {RAM_BASE + FLAT_OFFSET:#x}"
            )
        return looks
    if files.kind != "flat" and files.kind != looks:
        raise InputError(f"{files.image_name}: not the {files.kind} that was asked for")
    return files.kind


def _gunzip(name: str, data: bytes) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        out = inflate.decompress(data, GUEST_BYTES_MAX)
    except zlib.error as error:
        raise InputError(f"{name}: damaged gzip ({error})") from None
    if inflate.unconsumed_tail:
        raise InputError(f"{name}: more than {GUEST_BYTES_MAX // MIB} MiB when unpacked")
    if not inflate.eof:
        raise InputError(f"{name}: the gzip file is cut short")
    return out


def _image(name: str, data: bytes) -> tuple[list[tuple[int, bytes]], int, int]:
    if len(data) < IMAGE_HEADER:
        raise InputError(f"{name}: cut short: an arm64 Image has a header of {IMAGE_HEADER} bytes")
    text_offset, image_size, flags = struct.unpack_from("<QQQ", data, 8)
    if flags & 1:
        raise InputError(f"{name}: a big-endian kernel; this board is little-endian")
    if image_size == 0:  # before v3.17
        text_offset, image_size = 0x8_0000, len(data)
    if text_offset >= 2 * MIB or image_size > GUEST_BYTES_MAX:
        raise InputError(f"{name}: the Image header asks for {image_size} bytes at offset {text_offset:#x}: damaged")
    if image_size + (1 << 16) < len(data):
        raise InputError(f"{name}: the Image header says {image_size} bytes, the file has {len(data)}: damaged")
    at = RAM_BASE + 2 * MIB + text_offset
    return [(at, data)], at, at + max(image_size, len(data))


def _elf(name: str, data: bytes) -> tuple[list[tuple[int, bytes]], int, int]:
    try:
        elf = ELFFile(io.BytesIO(data))
        header = elf.header
        if elf.elfclass != 64 or header["e_machine"] != "EM_AARCH64":
            raise InputError(f"{name}: ELF for {header['e_machine']} ({elf.elfclass} bit); a 64-bit AArch64 guest is needed")
        if not elf.little_endian:
            raise InputError(f"{name}: a big-endian ELF; this board is little-endian")
        if header["e_type"] != "ET_EXEC":
            raise InputError(f"{name}: ELF of type {header['e_type']}; a statically placed executable (ET_EXEC) is needed")
        if elf.num_segments() > SEGMENTS_MAX:
            raise InputError(f"{name}: {elf.num_segments()} program headers: damaged")
        loads = [dict(s.header) for s in elf.iter_segments() if s.header["p_type"] == "PT_LOAD" and s.header["p_memsz"]]
        entry = int(header["e_entry"])
    except InputError:
        raise
    except (ELFError, struct.error, ValueError, KeyError, TypeError, OverflowError, AssertionError, UnicodeError) as error:
        raise InputError(f"{name}: damaged or truncated ELF ({error or type(error).__name__})") from None
    if not loads:
        raise InputError(f"{name}: ELF without anything to load")
    out: list[tuple[int, bytes]] = []
    end, previous_end = 0, 0
    for load_ in sorted(loads, key=lambda one: int(one["p_paddr"])):
        at, offset, size, memory = (int(load_[key]) for key in ("p_paddr", "p_offset", "p_filesz", "p_memsz"))
        if offset + size > len(data) or size > memory:
            raise InputError(f"{name}: truncated ELF: a segment of {size} bytes at offset {offset} of {len(data)}")
        if memory > GUEST_BYTES_MAX or at + memory > 1 << 48:
            raise InputError(f"{name}: a segment of {memory} bytes at {at:#x}: damaged")
        if at < previous_end:
            raise InputError(f"{name}: segments overlap at {at:#x}")
        if size:
            out.append((at, data[offset : offset + size]))
        previous_end = end = at + memory
    if not any(int(one["p_paddr"]) <= entry < int(one["p_paddr"]) + int(one["p_memsz"]) for one in loads):
        raise InputError(f"{name}: the entry point {entry:#x} lies in no segment")
    return out, entry, end
