"""No false alarm and no missed one: what a faithful hypervisor shows when the host does something to it (tests/matrix.py)."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from matrix import EVENTS, MS, NEIGHBOUR, Event, table
from support import REPOSITORY, replayed

from tracekit.analyzers.invariants import invariants
from tracekit.analyzers.steal import publications
from tracekit.formats.reader import Trace
from tracekit.host.config import Directive
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.pvtime import PUBLICATIONS
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Scenario

DOCUMENT = REPOSITORY / "docs" / "pvtime.md"
BEGIN, END = "<!-- matrix:begin -->\n", "<!-- matrix:end -->"


def judged(path: Path, scenario: Scenario) -> frozenset[str]:
    """The invariants that a run breaks. The trace replays identically; where nothing breaks, the error is 0 ns at every guest entry."""
    done = record(scenario, path)
    assert done.end.reason.is_good, done.end
    result = replayed(path)
    assert result.is_identical, str(result.divergence)
    trace = Trace.open(path)
    found = frozenset(finding.invariant for finding in invariants(trace))
    if not found:
        errors = publications(trace)["error_ns"].drop_nulls()
        assert set(errors.to_list()) <= {0}
    return found


CELLS = [(event, profile) for event in EVENTS for profile in PROFILES if event.applies(profile)]


@pytest.mark.parametrize(
    ("event", "profile"),
    [
        pytest.param(event, profile, id=f"{profile}-{event.name}", marks=[] if profile == "kvm" else pytest.mark.slow)
        for event, profile in CELLS
    ],
)
def test_cell(tmp_path: Path, event: Event, profile: str) -> None:
    """Exactly what the table says."""
    assert judged(tmp_path / "a.tkt", event.scenario(profile)) == event.expected(profile)


def test_the_document_has_the_table() -> None:
    """docs/pvtime.md; `python tests/test_matrix.py` writes it."""
    text = DOCUMENT.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == table()


# --- three hundred runs -----------------------------------------------------------------------------------------------------------

RUNS, RUNS_IN_A_TEST = 300, 10
QUIET = ("pause", "migrate", "snapshot", "vmm", "stall", "suspend", "yield", "live")


def any_run(number: int) -> tuple[str, Scenario, frozenset[str]]:
    """Run `number`: any event, profile, policy and seed, 1 to 4 vCPUs on 1 to 3 pCPUs, with more happening that must change nothing."""
    random = Random(f"tracekit matrix {number}")
    event, profile = random.choice(CELLS)
    vcpus, policy = random.randint(1, 4), random.choice(("round-robin", "fair", "chaos"))
    pcpus = random.randint(1, 3) if event.is_anywhere else 1
    publication = random.choice(tuple(PUBLICATIONS)) if event.is_anywhere else "kvm"
    if not event.is_anywhere:  # judged where it must show: a board as in the table
        vcpus, policy = 2, "round-robin"
    if event.guest == "accounting":
        vcpus = max(vcpus, 2)
    directives: list[Directive] = []
    if event.is_anywhere:
        for kind in random.sample(QUIET, random.randint(0, 3)):
            at, vcpu = random.randint(MS // 10, 12 * MS), random.randrange(vcpus)
            if kind == "pause":
                directives += [Directive(at, "pause", vcpu=vcpu), Directive(at + random.randint(1, MS), "resume", vcpu=vcpu)]
            elif kind == "migrate":
                directives.append(Directive(at, kind, vcpu=vcpu, pcpu=random.randrange(pcpus)))
            elif kind == "snapshot":
                directives.append(Directive(at, kind, duration_ns=random.randint(1, MS)))
            elif kind == "yield":
                directives.append(Directive(at, kind, vcpu=vcpu))
            elif kind == "suspend":
                directives.append(Directive(at, kind, duration_ns=random.randint(1, 5 * MS)))
            elif kind == "live":
                if profile != "kvm-5.5":  # whose total does not survive it
                    directives.append(
                        Directive(at, "restore", duration_ns=random.randint(1, MS), pre_run_ns=random.randint(0, MS))
                    )
            else:
                directives.append(Directive(at, kind, vcpu=vcpu, duration_ns=random.randint(1, 2 * MS)))
    host: dict[str, Any] = {
        "policy": policy,
        "pcpus": pcpus,
        "directives": tuple(directives),
        "neighbours": (NEIGHBOUR,) * (random.randint(1, 2) if event.is_anywhere else 1),
    }
    if "pcpus" in event.host:
        host["pcpus"] = max(pcpus, event.host["pcpus"])
    scenario = event.scenario(profile, publication, host=host, vcpus=vcpus, seed=number)
    what = f"run {number}: {event.name}, {profile}, {publication}, {policy}, {vcpus} vCPUs on {pcpus} pCPUs"
    return what, scenario, event.expected(profile)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, RUNS, RUNS_IN_A_TEST))
def test_three_hundred_runs(tmp_path: Path, first: int) -> None:
    """No finding where nothing breaks, and every one where something does, on any board."""
    wrong = []
    for number in range(first, first + RUNS_IN_A_TEST):
        what, scenario, expected = any_run(number)
        found = judged(tmp_path / f"{number}.tkt", scenario)
        if found != expected:
            wrong.append(f"{what}: found {sorted(found)}, expected {sorted(expected)}")
    assert not wrong, "\n".join(wrong)


def test_three_hundred_runs_differ() -> None:
    """They cover guests, policies, profiles, publications, vCPUs and pCPUs."""
    runs = [any_run(number)[1] for number in range(RUNS)]
    assert len({hashlib.sha256(repr(run.describe()).encode()).digest() for run in runs}) == RUNS
    assert {run.hypervisor.profile for run in runs} == set(PROFILES)
    assert {run.hypervisor.publication for run in runs} == set(PUBLICATIONS)
    assert {run.host.policy for run in runs} == {"round-robin", "fair", "chaos"}
    assert {run.vcpus for run in runs} == {1, 2, 3, 4}
    assert {run.host.pcpus for run in runs} == {1, 2, 3}
    assert {"pause", "resume", "migrate", "snapshot", "restore"} <= {one.kind for run in runs for one in run.host.directives}


if __name__ == "__main__":
    document = DOCUMENT.read_text()
    head, tail = document[: document.index(BEGIN) + len(BEGIN)], document[document.index(END) :]
    DOCUMENT.write_text(f"{head}\n{table()}\n\n{tail}")
    sys.exit(0)
