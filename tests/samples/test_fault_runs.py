"""Each fault of the catalogue is found, by the invariant that it names, and its trace replays; docs/faults.md shows what runs show."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from fault_runs import FAITHFUL, TABLE, acting, found, lines_of, linux_files, on_bundled, on_linux, row, with_faults
from support import replayed, rows, scenario

from tracekit.formats.verify import verify
from tracekit.recorder.faults import catalogue, load_fault
from tracekit.recorder.record import record
from tracekit.recorder.scenario import read_scenario

LINES = lines_of(TABLE.read_text())


def test_the_table_has_every_fault() -> None:
    """A line for each, in the catalogue's order."""
    assert list(LINES) == list(catalogue())


@pytest.mark.parametrize("name", catalogue())
def test_the_table_is_what_the_runs_show(tmp_path: Path, name: str) -> None:
    """Found by the invariant that it names and exactly those that the table lists, with its error; the trace is whole and replays."""
    shown = on_bundled(name, tmp_path)
    assert load_fault(name).invariant in shown.invariants
    assert row(name, shown, LINES[name][6]) == "| " + " | ".join(LINES[name]) + " |"
    assert verify(tmp_path / f"{name}.tkt") == []
    assert replayed(tmp_path / f"{name}.tkt").is_identical


@pytest.mark.parametrize("needs", sorted({load_fault(name).needs for name in catalogue()}))
def test_without_a_fault(tmp_path: Path, needs: str) -> None:
    """The same runs under a faithful hypervisor break what it breaks: mostly nothing, and then the error is 0."""
    name = next(name for name in catalogue() if load_fault(name).needs == needs)
    record(acting(name), tmp_path / "clean.tkt")
    shown = found(tmp_path / "clean.tkt")
    assert set(shown.invariants) == FAITHFUL.get(needs, set())
    assert shown.error_ns == 0 or "S4" in shown.invariants


# Left out: this guest is entered once a tick, by its own (tick-only), and its run for zeroed-online is in the table.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in catalogue() if name not in ("tick-only", "zeroed-online")])
def test_found_on_a_guest_that_ticks(tmp_path: Path, name: str) -> None:
    """One that sleeps, and accounts as Linux does."""
    record(with_faults(acting(name, "accounting"), name), tmp_path / "wrong.tkt")
    assert load_fault(name).invariant in found(tmp_path / "wrong.tkt").invariants


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue())
def test_found_on_linux(tmp_path: Path, name: str) -> None:
    """Debian's kernel under each fault: found, and the trace replays."""
    try:
        kernel, initrd = linux_files(tmp_path)
    except OSError as error:
        text = f"LINUX TESTS SKIPPED: Debian's kernel cannot be had: {error}"
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)
    assert load_fault(name).invariant in on_linux(name, kernel, initrd, tmp_path / "wrong.tkt").invariants
    assert replayed(tmp_path / "wrong.tkt").is_identical


@pytest.mark.parametrize(
    ("profile", "result", "invariants", "errs"),
    [("kvm-5.5", 0, ("S4",), True), ("kvm-5.10", -6, (), False)],
)
def test_a_host_without_accounting(tmp_path: Path, profile: str, result: int, invariants: tuple[str, ...], errs: bool) -> None:
    """Bug 11 as an old kernel had it: offered and always 0 (sched_info = false); later ones refuse the address instead."""
    text = f'[guest]\nimage = "{scenario("steal").image}"\nvcpus = 2\n[host]\nneighbours = ["50%:2ms"]\n'
    (tmp_path / "a.toml").write_text(text + f'[hypervisor]\nprofile = "{profile}"\nsched_info = false\n')
    record(read_scenario(tmp_path / "a.toml"), tmp_path / "a.tkt")
    set_ = [row for row in rows(tmp_path / "a.tkt", "directives") if row["kind"] == "attribute_set"]
    assert [row["result"] for row in set_] == [result, result]
    shown = found(tmp_path / "a.tkt")
    assert (shown.invariants, shown.error_ns > 0) == (invariants, errs)
