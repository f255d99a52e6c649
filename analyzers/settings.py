"""What differs between two traces' manifests, as far as it can make runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tracekit.analyzers.difference import Setting
from tracekit.formats.reader import Trace

SECTIONS = ("scenario", "machine", "engine", "threads", "images", "end")


def settings_of(a: Trace, b: Trace) -> tuple[Setting, ...]:
    """Every value of the descriptions that differs, by its path."""
    out: list[Setting] = []
    for section in SECTIONS:
        out += _differing(section, _prepared(a, section), _prepared(b, section))
    forms = [f"{one.manifest['format']['major']}.{one.manifest['format']['minor']}" for one in (a, b)]
    if forms[0] != forms[1]:
        out.append(Setting("format", *forms))
    return tuple(out)


def guests_of(settings: tuple[Setting, ...]) -> tuple[Setting, ...]:
    """Those that mean another guest: another image, its device tree aside, or another entry."""
    return tuple(
        one
        for one in settings
        if one.name == "machine.entry" or (one.name.startswith("images.") and one.name != "images.devicetree")
    )


def _prepared(trace: Trace, section: str) -> Any:
    value = trace.manifest.get(section)
    if section == "images":
        return {str(one["role"]): one["sha256"] for one in value or ()}
    if section == "threads":
        return [one.get("name") for one in value or ()]
    if section == "machine" and isinstance(value, Mapping):
        segments = [[one.get("ipa"), one.get("size")] for one in value.get("segments", ())]
        return {**value, "segments": segments}
    if section == "scenario" and isinstance(value, Mapping):
        faults = value.get("hypervisor", {}).get("faults", ())
        hypervisor = {**value.get("hypervisor", {}), "faults": [one.get("name") for one in faults]}
        return {**value, "hypervisor": hypervisor}
    return value


def _differing(name: str, a: Any, b: Any) -> Iterator[Setting]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys((*a, *b)):
            yield from _differing(f"{name}.{key}", a.get(key), b.get(key))
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b) and a and isinstance(a[0], Mapping):
        for index, (mine, theirs) in enumerate(zip(a, b, strict=True)):
            yield from _differing(f"{name}.{index}", mine, theirs)
    elif a != b:
        yield Setting(name, a, b)
