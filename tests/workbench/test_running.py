"""Recording, replaying and comparing from Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import REPOSITORY, busy_host, files_of, scenario

import tracekit
from tracekit.workbench.demo import bundled_guest
from tracekit.workbench.running import configured

NEIGHBOUR = {"pcpus": 1, "neighbours": ["50%:2ms"]}
CONTENDED = REPOSITORY / "samples" / "scenarios" / "contended.toml"


def test_all_ways_to_say_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a bundled guest's name, a dict, a file, a Scenario, with keywords over them: the same run is the same trace, byte for byte."""
    image = str(bundled_guest("hello"))
    keywords: dict[str, Any] = {"vcpus": 2, "ram": "16M", "seed": 3, **NEIGHBOUR}
    document = {"guest": {"image": image, "vcpus": 2, "ram": 16 << 20}, "host": NEIGHBOUR, "seed": 4}
    toml = tmp_path / "hello.toml"
    toml.write_text(
        f'seed = 3\n[guest]\nimage = "{image}"\nvcpus = 1\nram = "16M"\n[host]\npcpus = 1\nneighbours = ["50%:2ms"]\n'
    )
    value = replace(scenario("hello", host=busy_host(), seed=3), max_vtime_ns=None)
    ways: list[tuple[Any, dict[str, Any]]] = [
        (image, keywords), ("hello", keywords), (document, {"seed": 3}), (toml, {"vcpus": 2}), (value, {}), (replace(value, seed=9), {"seed": 3})
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for number, (guest, options) in enumerate(ways):
        with tracekit.record(guest, f"{number}.tkt", **options) as t:
            assert t.manifest["end"]["reason"] == "power_off" and t.manifest["scenario"]["seed"] == 3
    first = files_of(tmp_path / "0.tkt")
    for number in range(1, len(ways)):
        assert files_of(tmp_path / f"{number}.tkt") == first, ways[number]


def test_what_a_file_says_stays(tmp_path: Path) -> None:
    """Keywords change only what they name."""
    plain, changed = (
        configured(CONTENDED, {}),
        configured(CONTENDED, {"policy": "chaos", "faults": ("wrong-unit",), "capture": "full"}),
    )
    assert changed.host == replace(plain.host, policy="chaos")
    assert changed.hypervisor == replace(plain.hypervisor, faults=("wrong-unit",))
    assert replace(changed, host=plain.host, hypervisor=plain.hypervisor, capture=plain.capture) == plain


@pytest.mark.parametrize(
    ("guest", "options", "message"),
    [
        ("hello", {"vcpu": 2}, "vcpu: no such option of a run; there are seed"),
        ("hello", {"vcpus": 99}, "guest.vcpus = 99: must be a whole number from 1 to 8"),
        ("hello", {"max_vtime": "soon"}, "limits.max_vtime = 'soon'"),
        ("no-such-guest", {}, "cannot read the guest no-such-guest"),
        ({"guest": {}}, {}, "guest.image is missing"),
        ({"gest": {}}, {}, "gest: no such key"),
        ("nothing.toml", {}, "cannot read the scenario"),
    ],
)
def test_wrong_runs(tmp_path: Path, guest: Any, options: dict[str, Any], message: str) -> None:
    """One line that names the key; nothing is left behind."""
    with pytest.raises(tracekit.InputError) as caught:
        tracekit.record(guest, tmp_path / "x.tkt", **options)
    assert message in str(caught.value) and list(tmp_path.iterdir()) == []


def test_replay(tmp_path: Path) -> None:
    """Identical, by path or view; up to a position; and a new, thicker trace."""
    t = tracekit.record("hello", tmp_path / "a.tkt", ram="16M")
    result = tracekit.replay(t)
    assert result.is_identical and result.is_whole and result.position == t.manifest["end"]["position"]
    assert not tracekit.replay(t.path, to_position=100).is_whole
    assert tracekit.replay(t, jobs=2) == tracekit.replay(t, from_position=50) == result
    thick = tmp_path / "thick.tkt"
    assert tracekit.replay(t.path, capture="writes", output=thick).is_identical
    assert tracekit.open(thick).manifest["scenario"]["capture"] == "writes"
    for options, message in (
        ({"capture": "some"}, "capture = 'some'"),
        ({"engine": "slow"}, "engine = 'slow'"),
        ({"output": tmp_path / "x.tkt", "to_position": 3}, "thin adds nothing"),
        ({"from_position": 5, "to_position": 3}, "lies behind"),
        ({"from_position": 1 << 40}, "the recording ends at"),
        ({"jobs": 0}, "jobs = 0"),
    ):
        with pytest.raises(tracekit.InputError, match=message):
            tracekit.replay(t.path, **options)
    with pytest.raises(tracekit.TracekitError, match="exists"):
        tracekit.replay(t.path, output=thick)


def test_diff_and_compare(tmp_path: Path) -> None:
    """A run with itself is the same; a faulty one has a first difference and a verdict; paths, folders, views and lists are taken."""
    clean, wrong = tmp_path / "clean.tkt", tmp_path / "wrong.tkt"
    a = tracekit.record("steal", clean, vcpus=2, **NEIGHBOUR)
    tracekit.record("steal", wrong, vcpus=2, faults=["late-update"], **NEIGHBOUR).close()
    assert tracekit.diff(a, clean).is_same and tracekit.compare(clean, a).verdict == "same"
    found = tracekit.diff(clean, str(wrong), tables=["pvtime"])
    assert not found.is_same and found.first is not None and found.first.table == "pvtime"
    for sides in ((clean, wrong), ([a], [wrong]), (tracekit.open_many([clean]), str(tmp_path / "wr*.tkt"))):
        compared = tracekit.compare(*sides, only=["steal.*"])
        assert compared.exit_code == 1 and all(one.name.startswith("steal.") for one in compared.judgements)
    one_name = tracekit.diff(clean, wrong, tables="pvtime", ignore="stolen_ns")
    assert one_name.first != found.first and not tracekit.diff(clean, wrong, ignore="cause").is_same
    assert {one.name for one in tracekit.compare(clean, wrong, only="steal.error_ns").judgements} == {"steal.error_ns"}
    with pytest.raises(tracekit.InputError, match="a: 2 traces; diff takes one"):
        tracekit.diff(tmp_path, wrong)
    limits = tmp_path / "limits.toml"
    limits.write_text("nonsense = 1\n")
    with pytest.raises(tracekit.InputError):
        tracekit.compare(clean, wrong, thresholds=limits)
    with pytest.raises(tracekit.InputError, match="no trace matches"):
        tracekit.compare(clean, str(tmp_path / "none*.tkt"))


def test_capture_and_who_wrote(tmp_path: Path) -> None:
    """Three lines: a thin run, a trace of it with every store, and who stored; a window; what is refused."""
    t = tracekit.record("hello", tmp_path / "a.tkt", ram="16M")
    whole = t.capture()
    assert whole.path.name == "a.writes.tkt" and whole.manifest["scenario"]["capture"] == "writes"
    last = whole.memory_writes.collect().row(-1, named=True)
    for view in (t, whole):
        found = view.who_wrote(last["ipa"]).row(0, named=True)
        assert [found[name] for name in ("position", "value", "pc", "size")] == [
            last[name] for name in ("position", "value", "pc", "size")
        ]
    assert t.who_wrote("pvtime:0", limit=3).columns == whole.who_wrote(hex(last["ipa"])).columns
    window = t.capture("full", from_position=10, to_position=20, output=tmp_path / "w.tkt", jobs=2)
    assert window.manifest["captured"] == {"level": "full", "from": 10, "to": 20}
    with pytest.warns(tracekit.ThinTraceWarning, match="full from position 10 to 20"):
        assert set(window.blocks.collect()["position"]) <= set(range(10, 20))
    with pytest.raises(tracekit.InputError, match="level"):
        t.capture("all")
    with pytest.raises(tracekit.TracekitError, match="exists"):
        t.capture()
