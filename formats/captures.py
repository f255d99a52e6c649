"""What a trace holds of guest memory accesses: everywhere, or in a window that a replay has added. Spec: formats/SPEC.md 2, "captured"."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEVELS = ("thin", "writes", "full")
# The capture levels at which a table holds everything that its name says.
WHOLE_AT = {"memory_writes": ("writes", "full"), "memory_reads": ("full",), "blocks": ("full",)}


@dataclass(frozen=True, slots=True)
class Captured:
    """A window whose rows are of a higher level than the run's: positions from_position up to to_position, which is left out."""

    level: str
    from_position: int
    to_position: int

    def as_dict(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {"level": self.level, "from": self.from_position, "to": self.to_position}


def level_of(manifest: Mapping[str, Any]) -> str:
    """The capture level of the whole run."""
    scenario = manifest.get("scenario")
    return str(scenario.get("capture", "thin")) if isinstance(scenario, Mapping) else "thin"


def captured_of(manifest: Mapping[str, Any]) -> Captured | None:
    """The window of a higher level, if there is one."""
    entry = manifest.get("captured")
    return Captured(str(entry["level"]), int(entry["from"]), int(entry["to"])) if isinstance(entry, Mapping) else None


def highest_level(manifest: Mapping[str, Any]) -> str:
    """The capture level of the run or of its window, whichever is higher: at that level a replay makes every recorded row."""
    base, window = level_of(manifest), captured_of(manifest)
    return base if window is None or _rank(base) > _rank(window.level) else window.level


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def is_whole(manifest: Mapping[str, Any], table: str) -> bool:
    """Whether a table holds everything that its name says, over the whole run."""
    return table not in WHOLE_AT or level_of(manifest) in WHOLE_AT[table]


def whole_stretch(manifest: Mapping[str, Any], table: str) -> tuple[int, int] | None:
    """Positions [from, to) in which a table holds everything that its name says, where that is not the whole run."""
    window = captured_of(manifest)
    if window is None or is_whole(manifest, table) or window.level not in WHOLE_AT[table]:
        return None
    return window.from_position, window.to_position


def told(manifest: Mapping[str, Any]) -> str:
    """For people: `thin`, or `thin; writes from position 5 to 9`."""
    window = captured_of(manifest)
    more = "" if window is None else f"; {window.level} from position {window.from_position:,} to {window.to_position:,}"
    return level_of(manifest) + more


def thin_note(path: str, level: str, table: str) -> str:
    """Why a table of a trace is not whole and what makes it so, a sentence. level: as `told` gives it."""
    wanted = WHOLE_AT[table][0]
    kept = "nothing" if table == "blocks" else "host accesses, stolen-time structures and watched ranges only"
    where = " elsewhere" if ";" in level else ""
    target = shlex.quote(path.removesuffix(".tkt") + f".{wanted}.tkt")
    more = ", `tracekit who-wrote` asks for one address" if table == "memory_writes" else ""
    return (
        f"{path} was captured {level}: {table} holds {kept}{where}; `tracekit replay {shlex.quote(path)} --capture {wanted} -o {target}` "
        f"makes a trace with the rest (--from, --to: with a window of it){more}"
    )


def check_captured(manifest: Mapping[str, Any]) -> None:
    """Errors: ValueError, TypeError, KeyError where `captured` has not the form that SPEC gives it."""
    entry = manifest.get("captured")
    if entry is None:
        return
    if not isinstance(entry, Mapping) or entry["level"] not in LEVELS[1:]:
        raise ValueError("captured names no level")
    for key in ("from", "to"):
        if not isinstance(entry[key], int) or isinstance(entry[key], bool) or not 0 <= entry[key] < 1 << 64:
            raise ValueError(f"captured.{key} is no position")
    if entry["from"] >= entry["to"]:
        raise ValueError("captured is an empty window")
