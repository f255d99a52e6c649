"""The result of a replay: identical, or the first divergence with its proof."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from tracekit.formats.tables import TABLES


class Cause(Enum):
    """Classes of cause, as far as the first difference tells."""

    IMAGE = "guest image differs"
    ENGINE = "engine differs"
    DECISION = "decision cannot be applied"
    DAMAGE = "trace damaged"
    DRIFT = "state drifted between two checks"


@dataclass(frozen=True, slots=True)
class Field:
    """One differing field; None where a side has no such event."""

    name: str
    recorded: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class Event:
    """A row with its table."""

    table: str
    row: tuple[Any, ...]

    def as_dict(self) -> dict[str, Any]:
        """Column names to values; bytes as hex."""
        names = [column.name for column in TABLES[self.table].columns]
        values = [value.hex() if isinstance(value, bytes) else value for value in self.row]
        return {"table": self.table, **dict(zip(names, values, strict=False))}


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first difference. position in instructions, vtime in ns; `before`: the last events that still agreed."""

    position: int
    vtime_ns: int
    vcpu: int | None
    pc: int | None
    what: str
    cause: Cause
    fields: tuple[Field, ...]
    recorded: Event | None
    replayed: Event | None
    before: tuple[Event, ...]
    last_check_position: int


@dataclass(frozen=True, slots=True)
class Result:
    """What a replay found. `is_whole`: it went to the recorded end. from_position: where it began; events: those compared from there on."""

    divergence: Divergence | None
    position: int
    vtime_ns: int
    events: int
    is_whole: bool
    warnings: tuple[str, ...]
    from_position: int = 0

    @property
    def is_identical(self) -> bool:
        """Whether everything compared agreed."""
        return self.divergence is None


def differing_fields(table: str, recorded: tuple[Any, ...], replayed: tuple[Any, ...]) -> tuple[Field, ...]:
    """All fields of two rows of one table that differ."""
    names = [column.name for column in TABLES[table].columns]
    return tuple(
        Field(name, _plain(mine), _plain(theirs))
        for name, mine, theirs in zip(names, recorded, replayed, strict=True)
        if mine != theirs
    )


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
