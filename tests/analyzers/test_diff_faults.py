"""For every fault of the catalogue, a run under it against the same run without: `diff` names the first wrong event."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_runs import acting, with_faults

from tracekit.analyzers.diff import diff
from tracekit.formats.reader import Trace
from tracekit.recorder.faults import catalogue
from tracekit.recorder.record import record

STORE, SET, ACTS = ("memory_writes", "cause", "pvtime"), ("directives", "kind", "attribute_set"), ("directives", "kind", "fault")
# A is the clean run: which event is the first that differs, on which side it is, and in which columns.
FIRST: dict[str, tuple[tuple[str, str, str], str, tuple[str, ...]]] = {
    "after-entry": (STORE, "only_a", ()),  # it comes a little later
    "after-kexec": (ACTS, "only_b", ()),
    "backward-clock": (ACTS, "only_b", ()),
    "big-endian": (STORE, "changed", ("value",)),
    "cached-total": (STORE, "changed", ("value",)),
    "counts-pause": (STORE, "changed", ("value",)),
    "counts-wfi": (STORE, "changed", ("value",)),
    "double-read": (STORE, "changed", ("value",)),
    "draft-id": (("hypercalls", "function", "PV_TIME_FEATURES"), "changed", ("ret0",)),
    "features-lie": (SET, "only_a", ()),
    "firmware-writes": (ACTS, "only_b", ()),
    "late-update": (STORE, "only_b", ()),
    "lost-delta": (ACTS, "only_b", ()),
    "lost-migration": (STORE, "changed", ("value",)),
    "misaligned": (SET, "changed", ("ipa",)),
    "missing-features": (("hypercalls", "function", "SMCCC_ARCH_FEATURES"), "changed", ("ret0",)),
    "no-accounting": (STORE, "changed", ("value",)),
    "old-address": (SET, "only_b", ()),
    "overlapping-device": (SET, "changed", ("ipa",)),
    "overlapping-ram": (SET, "changed", ("ipa",)),
    "readonly-slot": (STORE, "only_b", ()),
    "restarted-lower": (ACTS, "only_b", ()),
    "restore-jump": (ACTS, "only_b", ()),
    "rounding-up": (STORE, "changed", ("value",)),
    "shared-structure": (SET, "changed", ("ipa",)),
    "short-copy": (STORE, "changed", ("size",)),
    "skipped-update": (ACTS, "only_b", ()),
    "slot-away": (ACTS, "only_b", ()),
    "stale-page": (STORE, "only_b", ()),
    "tick-only": (STORE, "only_a", ()),
    "torn-update": (STORE, "changed", ("size",)),
    "truncated-error": (SET, "only_a", ()),
    "wrong-thread": (STORE, "changed", ("value",)),
    "wrong-unit": (STORE, "changed", ("value",)),
    "zeroed-online": (ACTS, "only_b", ()),
}
CAUSES = {STORE: "publication", SET: "directive", ACTS: "fault"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the clean runs lie, each recorded once."""
    return tmp_path_factory.mktemp("clean")


def test_no_fault_is_forgotten() -> None:
    """The table has the catalogue's faults."""
    assert list(FIRST) == list(catalogue())


@pytest.mark.parametrize("name", catalogue())
def test_the_first_wrong_event_is_named(name: str, folder: Path, tmp_path: Path) -> None:
    """With its columns, a cause and the fault's name, and nothing before it differs."""
    chosen = acting(name)
    clean = folder / f"{abs(hash(repr(chosen)))}.tkt"
    if not clean.exists():
        record(chosen, clean)
    record(with_faults(chosen, name), tmp_path / "wrong.tkt")
    found = diff(Trace.open(clean), Trace.open(tmp_path / "wrong.tkt"))
    (table, column, value), kind, columns = FIRST[name]
    assert found.first is not None and found.cause is not None
    first, cause = found.first, found.cause
    assert (first.table, first.event.row[column], first.kind) == (table, value, kind)
    assert tuple(field.name for field in first.fields) == columns
    assert cause.kind == CAUSES.get((table, column, value), "hypercall")
    assert name in cause.sentence and cause.proofs[0].event.place[0] == first.place[0]
    for side in (first.a, first.b):
        assert side is None or side.place == first.place
    assert all(event.place < first.place for event in found.before)
    assert _rows_before(clean, first.place) == _rows_before(tmp_path / "wrong.tkt", first.place)


def _rows_before(path: Path, place: tuple[int, int]) -> list[tuple[object, ...]]:
    trace = Trace.open(path)
    return [(name, *row) for name in trace.manifest["tables"] for row in trace.rows(name) if row[:2] < place]
