"""The device tree that the guest is given. Source: Linux Documentation/devicetree/bindings; QEMU hw/arm/virt for the shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import fdt

from tracekit.machine.map import GICC_BASE, GICC_SIZE, GICD_BASE, GICD_SIZE, RAM_BASE, UART_BASE, UART_SIZE

_GIC, _CLOCK = 1, 2  # phandles
_LEVEL_HIGH_ALL = 0x104


@dataclass(frozen=True, slots=True)
class DeviceTreeConfig:
    """What varies from run to run. Sizes in bytes; initrd is a half-open range of addresses; reserved: (address, size) of RAM that the
    guest must leave alone."""

    vcpu_count: int
    ram_size: int
    bootargs: str
    initrd: tuple[int, int] | None = None
    seed: int = 0
    psci_method: str = "hvc"
    reserved: tuple[tuple[int, int], ...] = ()


def _cells(*values: int) -> list[int]:
    """64-bit values as two cells each."""
    return [part for value in values for part in (value >> 32, value & 0xFFFF_FFFF)]


def build(config: DeviceTreeConfig) -> bytes:
    """A flattened device tree. The stolen-time page is not in it: only the hypercall tells of it (pvtime.rst). Structures that lie in
    RAM are reserved memory."""
    tree = fdt.FDT()
    tree.header.version = 17
    tree.header.last_comp_version = 16
    tree.header.boot_cpuid_phys = 0

    def node(path: str, name: str, **properties: object) -> None:
        made = fdt.Node(name)
        for key, value in properties.items():
            key = key.replace("_", "-") if not key.startswith("#") else key
            if value is True:
                made.append(fdt.Property(key))
            elif isinstance(value, bytes):
                made.append(fdt.PropBytes(key, data=value))
            elif isinstance(value, str):
                made.append(fdt.PropStrings(key, value))
            elif isinstance(value, list) and value and isinstance(value[0], str):
                made.append(fdt.PropStrings(key, *value))
            elif isinstance(value, list):
                made.append(fdt.PropWords(key, *value))
            else:
                made.append(fdt.PropWords(key, value))
        tree.add_item(made, path)

    root = tree.root
    root.append(fdt.PropWords("interrupt-parent", _GIC))
    root.append(fdt.PropWords("#address-cells", 2))
    root.append(fdt.PropWords("#size-cells", 2))
    root.append(fdt.PropStrings("compatible", "linux,dummy-virt"))
    root.append(fdt.PropStrings("model", "tracekit,virt"))
    uart = f"pl011@{UART_BASE:x}"
    seed = b"".join(hashlib.sha256(f"tracekit rng-seed {config.seed} {part}".encode()).digest() for part in range(2))
    chosen: dict[str, object] = {"stdout-path": f"/{uart}", "rng-seed": seed}
    if config.bootargs:
        chosen["bootargs"] = config.bootargs
    if config.initrd is not None:
        chosen["linux,initrd-start"] = _cells(config.initrd[0])
        chosen["linux,initrd-end"] = _cells(config.initrd[1])
    node("", "chosen", **chosen)
    node("", "aliases", serial0=f"/{uart}")
    node("", f"memory@{RAM_BASE:x}", reg=_cells(RAM_BASE, config.ram_size))
    tree.set_property("device_type", "memory", f"/memory@{RAM_BASE:x}")

    if config.reserved:
        node("", "reserved-memory", ranges=True, **{"#address-cells": 2, "#size-cells": 2})
        for ipa, size in config.reserved:
            node("/reserved-memory", f"pvtime@{ipa:x}", reg=_cells(ipa, size))

    node("", "cpus", **{"#address-cells": 1, "#size-cells": 0})
    for vcpu in range(config.vcpu_count):
        node("/cpus", f"cpu@{vcpu:x}", compatible="arm,armv8", reg=[vcpu], enable_method="psci")
        tree.set_property("device_type", "cpu", f"/cpus/cpu@{vcpu:x}")
    node("", "psci", compatible=["arm,psci-1.0", "arm,psci-0.2"], method=config.psci_method)
    timers = [part for ppi in (13, 14, 11, 10) for part in (1, ppi, _LEVEL_HIGH_ALL)]
    node("", "timer", compatible="arm,armv8-timer", always_on=True, interrupts=timers)
    node(
        "",
        f"intc@{GICD_BASE:x}",
        compatible="arm,cortex-a15-gic",
        interrupt_controller=True,
        reg=_cells(GICD_BASE, GICD_SIZE, GICC_BASE, GICC_SIZE),
        phandle=_GIC,
        **{"#interrupt-cells": 3, "#address-cells": 0},
    )
    node(
        "",
        "apb-pclk",
        compatible="fixed-clock",
        clock_frequency=24_000_000,
        clock_output_names="clk24mhz",
        phandle=_CLOCK,
        **{"#clock-cells": 0},
    )
    node(
        "",
        uart,
        compatible=["arm,pl011", "arm,primecell"],
        reg=_cells(UART_BASE, UART_SIZE),
        interrupts=[0, 1, 4],
        clocks=[_CLOCK, _CLOCK],
        clock_names=["uartclk", "apb_pclk"],
    )
    return bytes(tree.to_dtb())
