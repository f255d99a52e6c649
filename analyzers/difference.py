"""What `tracekit diff` finds, as values: the first difference with its proof, counts of each table, and what may have caused it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """A row of a trace. index: its number in its table, from 0; row: column names to values, bytes as hex."""

    table: str
    index: int
    row: dict[str, Any]

    @property
    def place(self) -> tuple[int, int]:
        """Its place in the trace's order: (position, sequence)."""
        return int(self.row["position"]), int(self.row["sequence"])

    def command(self, trace: str) -> str:
        """What shows the row."""
        return f"tracekit dump {trace} {self.table} --from {self.place[0]} --to {self.place[0] + 1}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"table": self.table, "index": self.index, **self.row}


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a row that differs."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One row that is not the same on both sides.

    kind: `moved` (same content at another position, sequence or vtime), `changed` (same kind of event, other content), `only_a`,
    `only_b`. fields: every compared column that differs; none where a side has no such row.
    """

    kind: str
    table: str
    a: Event | None
    b: Event | None
    fields: tuple[Field, ...]

    @property
    def place(self) -> tuple[int, int]:
        """The earlier of both sides: (position, sequence)."""
        return min(event.place for event in (self.a, self.b) if event is not None)

    @property
    def is_renumbered(self) -> bool:
        """Whether it only has another sequence, because of other rows at its position."""
        return self.kind == "moved" and [field.name for field in self.fields] == ["sequence"]

    @property
    def event(self) -> Event:
        """The row of A, or of B where A has none."""
        found = self.a or self.b
        assert found is not None
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": self.kind,
            "table": self.table,
            "position": self.place[0],
            "sequence": self.place[1],
            "a": self.a and self.a.as_json(),
            "b": self.b and self.b.as_json(),
            "fields": [asdict(field) for field in self.fields],
        }


@dataclass(frozen=True, slots=True)
class Counts:
    """A table's rows. same: aligned, with the same content; moved: those of them that have another position, sequence or vtime."""

    same: int = 0
    moved: int = 0
    changed: int = 0
    only_a: int = 0
    only_b: int = 0

    @property
    def is_same(self) -> bool:
        """Whether every row is on both sides, with the same content at the same place."""
        return not (self.moved or self.changed or self.only_a or self.only_b)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.same + other.same,
            self.moved + other.moved,
            self.changed + other.changed,
            self.only_a + other.only_a,
            self.only_b + other.only_b,
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the manifests that differs: its path, as `scenario.seed`, and what both sides have (None: nothing)."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Proof:
    """A row that proves a cause: of side `a` or `b`."""

    side: str
    event: Event


@dataclass(frozen=True, slots=True)
class Cause:
    """Why the traces part, in one sentence, with the rows that prove it.

    kind: fault, schedule, directive, input, publication, host_write, hypercall, interrupt, image, machine.
    """

    kind: str
    sentence: str
    proofs: tuple[Proof, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The outcome of a comparison of two traces.

    first: None where they are the same as far as they were compared. before: the last events that they share; after_a, after_b: what
    follows on each side from the first difference on. changes: of each table the first rows that are not the same (at most `limit`).
    settings: what differs in the manifests. notes: what the comparison leaves out, in sentences. is_coarse: too many places differ for an
    exact alignment; some counts are those of equal rows without regard to their order.
    """

    a: str
    b: str
    first: Change | None
    cause: Cause | None
    no_cause: str
    before: tuple[Event, ...]
    after_a: tuple[Event, ...]
    after_b: tuple[Event, ...]
    counts: dict[str, Counts]
    changes: dict[str, tuple[Change, ...]]
    settings: tuple[Setting, ...]
    notes: tuple[str, ...]
    is_coarse: bool
    batches_read: int

    @property
    def is_same(self) -> bool:
        """Whether nothing that was compared differs."""
        return self.first is None

    @property
    def total(self) -> Counts:
        """All tables together."""
        return sum(self.counts.values(), Counts())

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        cause = None
        if self.cause is not None:
            traces = {"a": self.a, "b": self.b}
            proofs = [
                {"side": one.side, "command": one.event.command(traces[one.side]), **one.event.as_json()}
                for one in self.cause.proofs
            ]
            cause = {"kind": self.cause.kind, "sentence": self.cause.sentence, "rows": proofs}
        return {
            "a": self.a,
            "b": self.b,
            "verdict": "same" if self.is_same else "different",
            "first": self.first and self.first.as_json(),
            "cause": cause,
            "no_cause": None if cause or self.is_same else self.no_cause,
            "before": [event.as_json() for event in self.before],
            "after_a": [event.as_json() for event in self.after_a],
            "after_b": [event.as_json() for event in self.after_b],
            "tables": {name: asdict(counts) for name, counts in self.counts.items()},
            "changes": {name: [one.as_json() for one in changes] for name, changes in self.changes.items()},
            "settings": [asdict(one) for one in self.settings],
            "notes": list(self.notes),
            "is_coarse": self.is_coarse,
        }


def differing(a: Event, b: Event, names: Iterable[str]) -> tuple[Field, ...]:
    """Every one of these columns in which two rows differ."""
    return tuple(Field(name, a.row[name], b.row[name]) for name in names if a.row[name] != b.row[name])
