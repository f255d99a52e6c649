"""The board as a manifest describes it: everything that a replay needs to build the same machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tracekit.formats.errors import TraceDamaged
from tracekit.machine.board import BoardConfig
from tracekit.machine.engine import CPU_MODELS, EngineConfig, version
from tracekit.machine.map import RAM_BASE
from tracekit.machine.native import VCPUS_MAX, WATCHES_MAX

RAM_SIZE_MAX = 64 << 30
SMC_CHOICES = ("call", "undefined")
MARKS_CLEAR = "clear"  # exclusive monitors are cleared at every mark


def describe_machine(
    config: BoardConfig, entry: int, x0: int, segments: list[dict[str, Any]], reserved: Sequence[tuple[int, int]] = ()
) -> dict[str, Any]:
    """The manifest's `machine`: what the guest can see. segments: [{ipa, image (SHA-256), size}]; reserved: (ipa, size) of RAM that the
    device tree keeps from the guest."""
    return {
        "cpu": config.engine.cpu,
        "vcpus": config.vcpu_count,
        "ram_base": RAM_BASE,
        "ram_size": config.ram_size,
        "ns_per_instruction": [config.ns_numerator, config.ns_denominator],
        "exit_cost_ns": config.exit_cost_ns,
        "pv_structures": list(config.pv_structures),
        "smc": config.smc,
        **({"marks": MARKS_CLEAR} if config.marks else {}),
        "reserved": [list(one) for one in reserved],
        "watches": [list(watch) for watch in config.engine.watches],
        "entry": entry,
        "x0": x0,
        "segments": segments,
    }


def describe_engine(config: EngineConfig) -> dict[str, Any]:
    """The manifest's `engine`: what explains a divergence and never gates a replay."""
    why = {} if config.fallback is None else {"fallback": config.fallback}
    return {
        "unicorn": version(),
        "mode": config.mode,
        **why,
        "page_size": config.page_size,
        "counting": config.counting,
        "cpu": config.cpu,
        "hooks": config.hook_set(),
    }


def board_config(machine: Mapping[str, Any], engine: EngineConfig) -> BoardConfig:
    """The board of a recorded trace on the given engine; cpu and watches are the trace's.

    Errors: TraceDamaged where the manifest describes no possible board.
    """
    try:
        numerator, denominator = (int(part) for part in machine["ns_per_instruction"])
        watches = tuple((int(begin), int(end)) for begin, end in machine["watches"])
        config = BoardConfig(
            vcpu_count=int(machine["vcpus"]),
            ram_size=int(machine["ram_size"]),
            ns_numerator=numerator,
            ns_denominator=denominator,
            exit_cost_ns=int(machine["exit_cost_ns"]),
            pv_structures=tuple(int(ipa) for ipa in machine["pv_structures"]),
            smc=str(machine.get("smc", "call")),
            marks=machine.get("marks") == MARKS_CLEAR,
            engine=replace(engine, cpu=str(machine["cpu"]), watches=watches),
        )
        possible = (
            1 <= config.vcpu_count <= VCPUS_MAX
            and 0 < config.ram_size <= RAM_SIZE_MAX
            and config.ram_size % 4096 == 0
            and machine["ram_base"] == RAM_BASE
            and 0 < numerator <= 1 << 16
            and 0 < denominator <= 1 << 16
            and config.engine.cpu in CPU_MODELS
            and config.smc in SMC_CHOICES
            and machine.get("marks") in (None, MARKS_CLEAR)
            and len(watches) + config.vcpu_count <= WATCHES_MAX
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TraceDamaged(f"trace.json: the description of the machine is not usable ({error!r})") from None
    if not possible:
        raise TraceDamaged("trace.json: describes a machine that cannot exist; the trace was altered or is of another version")
    return config
