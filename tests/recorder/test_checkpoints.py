"""When checkpoints are taken, that they change nothing else, and that they are the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import busy_host, files_of, recorded, replayed, rows, scenario, tracekit

import tracekit as tracekit_package
from tracekit.formats import checkpoint_writer
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.formats.verify import verify
from tracekit.host.config import Directive
from tracekit.recorder import checkpoints as taking
from tracekit.recorder.checkpoints import CHANGED_PAGE_COST, COST_RATIO, KNOWN_PAGE_COST, SPACING_MIN, SPACING_QUIET, Spacing
from tracekit.recorder.scenario import Input, Scenario, read_scenario, scenario_of

M = 1_000_000
MS = 1_000_000


def tables(path: Path) -> dict[str, bytes]:
    """The files of the tables."""
    return {name: content for name, content in files_of(path).items() if name.endswith(".arrow")}


def positions(path: Path) -> list[int]:
    """Where its checkpoints are."""
    return [entry.position for entry in Trace.open(path).checkpoints().entries]


@pytest.mark.parametrize("policy", ["round-robin", "chaos"])
def test_tables_do_not_depend_on_checkpoints(tmp_path: Path, policy: str) -> None:
    """Any spacing and none: equal bytes; and every replay agrees with every checkpoint."""
    seen = set()
    expected: dict[str, bytes] | None = None
    for number, every in enumerate((None, 1, 11 * M, 24 * M)):
        path = tmp_path / f"{number}.tkt"
        recorded(path, "accounting", host=busy_host(policy, 2), checkpoints=every is not None, checkpoint_every=every)
        expected = expected or tables(path)
        assert tables(path) == expected
        assert verify(path) == []
        result = replayed(path)
        assert result.is_identical, str(result.divergence)
        seen.add(len(positions(path)))
    assert len(seen) == 4
    assert min(seen) == 0


def test_two_recordings_have_the_same_checkpoints(tmp_path: Path) -> None:
    """File by file, the manifest too; with two vCPUs and a kept snapshot."""
    for name in "ab":
        deeds = Directive(2 * MS, "snapshot"), Directive(25 * MS, "restore", value=0)
        recorded(tmp_path / name, "accounting", host=busy_host("fair", 2, directives=deeds), checkpoint_every=1)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    checkpoints = Trace.open(tmp_path / "a").checkpoints()
    assert len(checkpoints.entries) >= 2
    assert [len(checkpoints.state(k)["snapshots"]) for k in (0, 1)] == [1, 1]
    assert checkpoints.table(0, space=1) and not checkpoints.changes(1, space=1)
    assert replayed(tmp_path / "a").is_identical


def test_a_checkpoint_stands_at_the_next_mark(tmp_path: Path) -> None:
    """N instructions after the last one, rounded up to where `states` rows stand."""
    recorded(tmp_path / "a.tkt", "accounting", host=busy_host(), checkpoint_every=9 * M)
    marks = [row["position"] for row in rows(tmp_path / "a.tkt", "states") if row["scope"] == "board"][:-1]
    expected, due = [], 9 * M
    for mark in marks:
        if mark >= due:
            expected.append(mark)
            due = mark + 9 * M
    assert positions(tmp_path / "a.tkt") == expected
    assert len(expected) >= 2


def test_thinning_while_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for four: still whole, replays identically, and further apart from then on."""
    recorded(tmp_path / "all.tkt", "accounting", host=busy_host(), checkpoint_every=1)
    for module in (taking, checkpoint_writer):
        monkeypatch.setattr(module, "CHECKPOINTS_MAX", 4)
    recorded(tmp_path / "few.tkt", "accounting", host=busy_host(), checkpoint_every=1)
    every, kept = positions(tmp_path / "all.tkt"), positions(tmp_path / "few.tkt")
    assert len(every) > 4 >= len(kept)
    assert set(kept) < set(every)
    assert verify(tmp_path / "few.tkt") == []
    assert replayed(tmp_path / "few.tkt").is_identical
    assert tables(tmp_path / "few.tkt") == tables(tmp_path / "all.tkt")


def test_a_short_run_has_none(tmp_path: Path) -> None:
    """By default bundled guests end before the first is due."""
    recorded(tmp_path / "a.tkt", "steal")
    assert positions(tmp_path / "a.tkt") == []


def test_the_spacing_follows_the_cost() -> None:
    """At least 64 M instructions, more where little changed, and twice what the last one cost where many pages did."""
    spacing = Spacing()
    assert spacing.due == SPACING_MIN
    spacing.taken(100 * M, 1_000, 20_000)
    assert spacing.due == 100 * M + SPACING_MIN
    spacing.taken(100 * M, 10, 20_000)
    assert spacing.due == 100 * M + SPACING_QUIET > 100 * M + SPACING_MIN
    spacing.taken(200 * M, 131_072, 131_072)
    assert spacing.due == 200 * M + COST_RATIO * 131_072 * (CHANGED_PAGE_COST + KNOWN_PAGE_COST)


def test_the_spacing_doubles_when_there_are_too_many() -> None:
    """Ten thousand marks: the list never outgrows 512, and the stretch is doubled each time half of it goes."""
    spacing, listed, thinned = Spacing(1), 0, 0
    for mark in range(1, 10_000):
        if mark >= spacing.due:
            if listed == 512:
                listed, thinned = 256, thinned + 1
            listed += 1
            spacing.taken(mark, 1, 1)
            assert spacing.due == mark + (1 << thinned)
    assert thinned == 5


def test_much_waiting_input_puts_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint would hold all of it: none is taken as long as more than 4 MiB (here: 64 bytes) wait."""
    assert taking.WAITING_BYTES_MAX == 4 << 20
    monkeypatch.setattr(taking, "WAITING_BYTES_MAX", 64)
    for size, is_taken in ((64, True), (65, False)):
        path = tmp_path / f"{size}.tkt"
        recorded(path, "steal", host=busy_host(), inputs=(Input(0, bytes(size)),), checkpoint_every=1)
        assert bool(positions(path)) == is_taken


def test_options_and_scenario_keys(tmp_path: Path) -> None:
    """--checkpoint-every and --no-checkpoints, capture.checkpoint_every and capture.checkpoints; the manifest tells them."""
    base = scenario("accounting")
    arguments = ("record", base.image, "--vcpus", 2, "--ram", "16M", "-o")
    assert tracekit(*arguments, tmp_path / "a.tkt", "--checkpoint-every", "9M").returncode == 0
    assert tracekit(*arguments, tmp_path / "b.tkt", "--no-checkpoints").returncode == 0
    both = tracekit(*arguments, tmp_path / "c.tkt", "--checkpoint-every", "9000k", "--no-checkpoints")
    assert both.returncode == 2 and "exclude each other" in both.stderr
    assert positions(tmp_path / "a.tkt") and not positions(tmp_path / "b.tkt")
    told = Trace.open(tmp_path / "a.tkt").manifest["scenario"]
    assert (told["checkpoints"], told["checkpoint_every"]) == (True, 9 * M)
    refused = tracekit(*arguments, tmp_path / "c.tkt", "--checkpoint-every", "often")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "'often' is not a count" in refused.stderr
    (tmp_path / "s.toml").write_text('[capture]\ncheckpoints = false\ncheckpoint_every = "2G"\n')
    read = read_scenario(tmp_path / "s.toml")
    assert (read.checkpoints, read.checkpoint_every) == (False, 2_000 * M)


def test_from_python(tmp_path: Path) -> None:
    """tracekit.record takes them as its other options."""
    taken = tracekit_package.record("accounting", tmp_path / "a.tkt", ram="16M", vcpus=2, checkpoint_every="9M")
    left_out = tracekit_package.record("accounting", tmp_path / "b.tkt", ram="16M", vcpus=2, checkpoints=False)
    assert positions(taken.path) and not positions(left_out.path)


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        ({"checkpoint_every": 0}, r"capture.checkpoint_every = 0: must be a whole number from 1"),
        ({"checkpoint_every": "1.5M"}, r"capture.checkpoint_every = '1.5M': '1.5M' is not a count"),
        ({"checkpoint_every": True}, r"capture.checkpoint_every = True: must be text"),
        ({"checkpoints": "no"}, r"capture.checkpoints = 'no': must be bool"),
    ],
)
def test_wrong_keys(capture: dict[str, Any], message: str) -> None:
    """Named, with what is allowed."""
    with pytest.raises(InputError, match=message):
        scenario_of({"capture": capture}, Path(), Scenario())
