"""`tracekit baseline`: metrics of named scenarios beside the user's code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import scenario, tracekit

from tracekit.analyzers.metric import CATALOGUE, is_known, name_of
from tracekit.formats.errors import InputError
from tracekit.workbench import baseline

STEAL = scenario("steal").image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """scenarios/a.toml and b.toml, with their baselines in kept/."""
    write(tmp_path, "a")
    write(tmp_path, "b", 'policy = "fair"')
    done = tracekit("baseline", "save", tmp_path / "kept", *sorted((tmp_path / "scenarios").iterdir()))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "kept" / f"{name}.json") for name in "ab"]
    return tmp_path


def write(folder: Path, name: str, host: str = "", more: str = "") -> Path:
    """A scenario's file."""
    path = folder / "scenarios" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'[guest]\nimage = "{STEAL}"\nvcpus = 2\nram = "16M"\n[host]\nneighbours = ["50%:2ms"]\n{host}\n{more}')
    return path


def check(folder: Path, *arguments: object) -> tuple[int, str, str]:
    """`tracekit baseline check`."""
    done = tracekit("baseline", "check", folder / "kept", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_a_baseline_reads_well(folder: Path) -> None:
    """Small, sorted, one metric a line; nothing that depends on the installation; saving again changes no byte."""
    text = (folder / "kept" / "a.json").read_text()
    kept = json.loads(text)
    assert (kept["format"], kept["version"], kept["scenario"]) == ("tracekit-baseline", 1, "../scenarios/a.toml")
    assert len(text) < 10_000 and len(text.splitlines()) == len(kept["metrics"]) + len(kept["guest"]) + 9
    assert list(kept["metrics"]) == sorted(kept["metrics"]) and all(is_known(key) for key in kept["metrics"])
    assert {name_of(key) for key in kept["metrics"]} == {kind.name for kind in CATALOGUE.values() if kind.is_portable}
    assert STEAL not in text and "trace.bytes" not in text
    assert tracekit("baseline", "save", folder / "kept", folder / "scenarios" / "a.toml").returncode == 0
    assert (folder / "kept" / "a.json").read_text() == text


def test_nothing_has_changed(folder: Path) -> None:
    """Same, exit code 0; one by name."""
    code, out, err = check(folder)
    assert code == 0, out
    assert out.count("verdict: same") == 2 and "recording ../scenarios/a.toml" in err
    code, out, _ = check(folder, "b", "--json")
    (only,) = json.loads(out)
    assert (code, only["verdict"], only["mode"], only["a"]) == (0, "same", "exact", [str(folder / "kept" / "b.json")])


def test_something_has_changed(folder: Path) -> None:
    """Exit code 1, the metrics, and how to look at the run; --traces keeps it; --update makes it the baseline."""
    write(folder, "b", 'policy = "fair"', '[hypervisor]\nfaults = ["wrong-unit"]\n')
    code, out, _ = check(folder, "--traces", folder / "traces")
    assert code == 1
    assert "verdict: same" in out and "verdict: worse" in out and "findings[U1]" in out
    assert f"the run again: tracekit record --scenario {folder}/kept/../scenarios/b.toml -o b.tkt" in out
    shown = tracekit("analyze", folder / "traces" / "b.tkt", "invariants")
    assert shown.returncode == 1 and "U1" in shown.stdout
    before = [(folder / "kept" / f"{name}.json").read_text() for name in "ab"]
    code, out, err = check(folder, "--update")
    after = [(folder / "kept" / f"{name}.json").read_text() for name in "ab"]
    assert code == 0 and "b.json: updated" in err and "a.json: updated" not in err and "verdict: worse" in out
    assert before[0] == after[0] and before[1] != after[1]
    assert check(folder)[0] == 0


def test_thresholds_are_honoured(folder: Path) -> None:
    """thresholds.toml of the folder, or another one."""
    kept = folder / "kept" / "a.json"
    kept.write_text(kept.read_text().replace('"run.vtime_ns": 1', '"run.vtime_ns": 2'))
    assert check(folder, "a")[0] == 0  # lower is better
    kept.write_text(kept.read_text().replace('"steal.entries": ', '"steal.entries": 1'))
    assert check(folder, "a")[0] == 1
    rules = folder / "kept" / "thresholds.toml"
    rules.write_text('["steal.entries"]\nrelative = "1000%"\nreason = "who counts"\n')
    code, out, _ = check(folder, "a", "--all")
    assert code == 0 and "threshold of steal.entries: who counts" in out
    (folder / "strict.toml").write_text('["steal.entries"]\nabsolute = 0\nreason = "exact"\n')
    assert check(folder, "a", "--thresholds", folder / "strict.toml")[0] == 1
    rules.write_text('["steal.entrees"]\nrelative = "1000%"\nreason = "who counts"\n')
    code, _, err = check(folder, "a")
    assert code == 2 and "did you mean steal.entries" in err


@pytest.mark.parametrize("form", ["markdown", "junit", "sarif", "github"])
def test_formats(folder: Path, form: str) -> None:
    """All baselines in one output, each by its name."""
    code, out, _ = check(folder, "--format", form)
    assert code == 0
    if form == "markdown":
        assert "### tracekit baseline a: same" in out and "### tracekit baseline b: same" in out
    elif form == "junit":
        assert out.count("<testsuite ") == 2 and 'name="tracekit baseline b"' in out and out.count("</testsuites>") == 1
    elif form == "sarif":
        assert [run["tool"]["driver"]["name"] for run in json.loads(out)["runs"]] == [
            "tracekit baseline a",
            "tracekit baseline b",
        ]
    else:
        assert (
            out.splitlines()[0].startswith("::notice title=tracekit baseline a::verdict%3A same")
            or "::notice" in out.splitlines()[0]
        )
        assert len(out.splitlines()) == 2


def test_another_guest_is_said(folder: Path) -> None:
    """A new build of the guest is what a baseline is for; the result says so."""
    other = scenario("hello").image
    path = folder / "scenarios" / "a.toml"
    path.write_text(path.read_text().replace(STEAL, other))
    code, out, _ = check(folder, "a")
    assert code == 1 and "the guest's images are not those of the baseline" in out


def test_metrics_of_another_version(folder: Path) -> None:
    """One that the file has not is noted; one that nobody knows is trouble until the file is renewed."""
    kept = folder / "kept" / "a.json"
    document = json.loads(kept.read_text())
    document["metrics"] = {key: value for key, value in document["metrics"].items() if not key.startswith("sched.")}
    kept.write_text(json.dumps(document))
    code, out, _ = check(folder, "a")
    assert code == 0 and out.count("not compared, as only") == 3
    document["metrics"]["sched.yawns"] = 3
    kept.write_text(json.dumps(document))
    code, _, err = check(folder, "a")
    assert code == 2 and "no metric 'sched.yawns'" in err and "--update" in err
    assert check(folder, "a", "--update")[0] == 0 and check(folder, "a")[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no baseline, as it is no JSON"),
        ("[]", "no baseline"),
        ('{"format": "other"}', "no baseline"),
        ('{"format": "tracekit-baseline", "version": 9}', "a baseline of version 9"),
        ('{"format": "tracekit-baseline", "version": 1}', "has scenario, guest and metrics"),
        (
            '{"format": "tracekit-baseline", "version": 1, "scenario": "a", "guest": {}, "metrics": {"findings": 1.5}}',
            "a whole number",
        ),
        (
            '{"format": "tracekit-baseline", "version": 1, "scenario": "a", "guest": {}, "metrics": {"run.end[x]": 1}}',
            "no metric",
        ),
        ('{"format": "tracekit-baseline", "version": 1, "scenario": "a", "guest": {}, "metrics": {}}', "without a metric"),
        (
            '{"format": "tracekit-baseline", "version": 1, "scenario": "a\\u0000", "guest": {}, "metrics": {"findings": 1}}',
            "no file can have that name",
        ),
        (
            '{"format": "tracekit-baseline", "version": 1, "scenario": "\\ud800", "guest": {}, "metrics": {"findings": 1}}',
            "no file can have that name",
        ),
        (
            f'{{"format": "tracekit-baseline", "version": 1, "scenario": "a", "guest": {{}}, "metrics": {{"findings": 1{"0" * 400}}}}}',
            "a number of 401 digits",
        ),
        pytest.param("[" * 100_000, "no baseline, as it is no JSON", id="deep"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    """Named, with what is wrong."""
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError) as raised:
        baseline.read_baseline(tmp_path / "a.json")
    assert message in str(raised.value)
    with pytest.raises(InputError):
        baseline.check(tmp_path, [], tmp_path / "traces", is_updating=True)


def test_trouble(folder: Path) -> None:
    """No baseline, no such name, no scenario, names that collide: exit code 2 and one line."""
    (folder / "empty").mkdir()
    (folder / "other").mkdir()
    write(folder / "other", "a")
    twice = [folder / "scenarios" / "a.toml", folder / "other" / "scenarios" / "a.toml"]
    for arguments, message in (
        (["check", folder / "empty"], "no baseline in it"),
        (["check", folder / "kept", "c"], "no baseline 'c'; there are a, b"),
        (["check", folder / "kept", "--traces", folder / "scenarios" / "a.toml"], "cannot keep traces in"),
        (["save", folder / "kept", folder / "none.toml"], "cannot read the scenario"),
        (["save", folder / "kept", *twice], "two scenarios have the same name"),
        (["save", folder / "kept", twice[1]], "belongs to the scenario ../scenarios/a.toml"),
    ):
        done = tracekit("baseline", *arguments)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    assert tracekit("baseline", "save", folder / "kept", twice[1], "--force").returncode == 0
    (folder / "scenarios" / "b.toml").unlink()
    code, _, err = check(folder, "b")
    assert code == 2 and "cannot read the scenario" in err
