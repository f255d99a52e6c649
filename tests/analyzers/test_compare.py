"""`tracekit compare`: the rule, exact runs, sets, thresholds, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fault_metrics import TABLE, clean_run, compared, lines_of, row, wrong_run
from random_trace import RandomTrace
from support import busy_host, scenario, tracekit

from tracekit.analyzers.compare import Comparison, compare, expand
from tracekit.analyzers.metric import CATALOGUE
from tracekit.analyzers.thresholds import Thresholds, parse_thresholds, read_thresholds
from tracekit.formats.errors import InputError
from tracekit.formats.manifest import encode
from tracekit.formats.reader import Trace
from tracekit.recorder.faults import catalogue, load_fault
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Scenario


def chaotic(seed: int = 0, **changes: object) -> Scenario:
    """A run that its seed decides."""
    return scenario("steal", host=busy_host("chaos"), seed=seed, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clean.tkt, wrong.tkt (wrong-unit); A/ and B/: five seeds each of clean and wrong runs, the seeds not the same."""
    path = tmp_path_factory.mktemp("compare")
    record(scenario("steal", host=busy_host()), path / "clean.tkt")
    hypervisor = replace(scenario("steal").hypervisor, faults=("wrong-unit",))
    record(scenario("steal", host=busy_host(), hypervisor=hypervisor), path / "wrong.tkt")
    for side, seeds, faults in (("A", range(5), ()), ("B", range(4, 9), ("wrong-unit",))):
        (path / side).mkdir()
        for seed in seeds:
            record(chaotic(seed, hypervisor=replace(hypervisor, faults=faults)), path / side / f"seed{seed}.tkt")
    return path


def sides(*groups: list[Path], thresholds: Thresholds | None = None, **options: object) -> Comparison:
    """Two lists of paths compared."""
    a, b = ([Trace.open(path) for path in group] for group in groups)
    return compare(a, b, thresholds, **options)  # type: ignore[arg-type]


# --- exact ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where clean runs are kept."""
    return tmp_path_factory.mktemp("clean")


LINES = lines_of(TABLE.read_text())


@pytest.mark.parametrize("name", catalogue())
def test_every_fault_is_worse(tmp_path: Path, clean: Path, name: str) -> None:
    """Against the clean run of the same scenario and seed: exit code 1 on the named invariant, with the diff command; docs show the metrics."""
    a, b = clean_run(name, clean), wrong_run(name, tmp_path)
    done = compared(a, b)
    assert (done.mode, done.verdict, done.exit_code) == ("exact", "worse", 1)
    assert load_fault(name).invariant in {one.of for one in done.of("worse") if one.name == "findings"}
    assert done.diff == f"tracekit diff {a} {b}"
    assert row(name, done) == LINES[name]
    assert [note for note in done.notes if note.startswith("the hypervisors differ") and name in note]


def test_the_docs_list_every_fault() -> None:
    """Also those that change nothing but findings; none changes nothing."""
    assert list(LINES) == list(catalogue())
    quiet = {name for name, line in LINES.items() if line.endswith("| - |")}
    assert {"misaligned", "short-copy"} <= quiet < set(LINES)
    assert not [name for name, line in LINES.items() if line.split("|")[2].strip() == "-"]


def test_a_run_and_itself(folder: Path) -> None:
    """Same, exit code 0; also against its copy."""
    done = sides([folder / "clean.tkt"], [folder / "clean.tkt"])
    assert (done.mode, done.verdict, done.exit_code, done.diff) == ("exact", "same", 0, None)
    assert {one.verdict for one in done.judgements} == {"same"} and len(done.judgements) > 100
    told = tracekit("compare", folder / "clean.tkt", folder / "clean.tkt")
    assert told.returncode == 0 and "verdict: same" in told.stdout


def test_a_better_run(folder: Path) -> None:
    """The fault goes away: no metric is worse, and those without a direction differ."""
    done = sides([folder / "wrong.tkt"], [folder / "clean.tkt"])
    assert done.verdict == "different" and not done.of("worse", "inconclusive")
    errors = sides([folder / "wrong.tkt"], [folder / "clean.tkt"], only=["steal.*error*", "findings"])
    assert (errors.verdict, errors.exit_code) == ("better", 0)


def test_exact_values(folder: Path) -> None:
    """Change, share and direction of one metric."""
    done = sides([folder / "clean.tkt"], [folder / "wrong.tkt"])
    by_key = {one.key: one for one in done.judgements}
    told = by_key["steal.told_ns"]
    assert isinstance(told.a.value, int) and isinstance(told.b.value, int)
    assert told.verdict == "different" and told.change == told.b.value - told.a.value > 0
    assert told.relative == pytest.approx(told.b.value / told.a.value - 1) and told.relative > 2
    assert by_key["steal.total_ns"].verdict == "same"
    assert by_key["findings[U1]"].a.value == 0 and by_key["findings[U1]"].verdict == "worse"


def test_only_what_is_asked_for(folder: Path) -> None:
    """Names, keys and patterns; one that names nothing shows its neighbours."""
    both = [folder / "clean.tkt"], [folder / "wrong.tkt"]
    assert {one.name for one in sides(*both, only=["life.*"]).judgements} == {"life.run_ns", "life.wait_ns", "life.block_ns"}
    assert [one.key for one in sides(*both, only=["wait.max_ns[vcpu1]"]).judgements] == ["wait.max_ns[vcpu1]"]
    with pytest.raises(InputError, match=r"no metric 'steal.eror_ns'; did you mean steal.error_ns"):
        sides(*both, only=["steal.eror_ns"])


# --- one run each, sets ----------------------------------------------------------------------------------------------------------------


def test_one_run_each_of_different_seeds(folder: Path) -> None:
    """Inconclusive, exit code 3, with the reason."""
    told = tracekit("compare", folder / "A" / "seed0.tkt", folder / "A" / "seed1.tkt")
    assert told.returncode == 3
    assert "one run each, and they differ in seed 0, 1" in told.stdout and "verdict: inconclusive" in told.stdout
    done = sides([folder / "A" / "seed0.tkt"], [folder / "clean.tkt"])
    assert done.verdict == "inconclusive" and "host.policy chaos, round-robin" in done.rule


def test_sets(folder: Path) -> None:
    """Five seeds against five: every run of B breaks an invariant; hashes that vary are left out; the diff is of the common seed."""
    told = tracekit(
        "compare",
        folder / "A",
        folder / "B",
        "--json",
        "--metric",
        "findings",
        "--metric",
        "steal.error_ns",
        "--metric",
        "console*",
    )
    done = json.loads(told.stdout)
    assert (told.returncode, done["mode"], done["verdict"]) == (1, "sets", "worse")
    by_key = {one["key"]: one for one in done["metrics"]}
    error = by_key["steal.error_ns"]
    assert error["verdict"] == "worse" and error["effect"] == 1.0 and error["p_adjusted"] <= 0.05 and error["a"]["runs"] == 5
    assert error["a"]["value"] == 0 < error["b"]["low"] <= error["b"]["value"] <= error["b"]["high"]
    assert "console.sha256" not in by_key and any("console.sha256" in note for note in done["notes"])
    assert done["diff"] == f"tracekit diff {folder}/A/seed4.tkt {folder}/B/seed4.tkt"


def test_sets_in_every_way_of_naming(folder: Path) -> None:
    """Folders, patterns, and words behind --against are the same two sides."""
    a, b = sorted((folder / "A").iterdir()), sorted((folder / "B").iterdir())
    ways = [
        [folder / "A", folder / "B"],
        [f"{folder}/A/*.tkt", "--against", f"{folder}/B/*.tkt"],
        [*a, "--against", *b, "--format", "json"],
        ["--format", "json", *a, "--against", b[0], *b[1:]],
    ]
    found = []
    for way in ways:
        told = tracekit("compare", *way, "--metric", "findings", *(() if "--format" in way else ("--json",)))
        assert told.returncode == 1, told.stderr
        found.append(json.loads(told.stdout))
    assert found[0]["a"] == [str(path) for path in a] and found[0]["b"] == [str(path) for path in b]
    assert all(one == found[0] for one in found)


def test_samples_that_cannot_tell(folder: Path) -> None:
    """Three against three, and a set against itself with other seeds: nothing is found, and nothing is said to be the same."""
    runs = sorted((folder / "A").iterdir())
    done = sides(runs[:2], runs[2:5], only=["run.vtime_ns"])
    (vtime,) = done.judgements
    assert (done.exit_code, vtime.verdict) == (3, "inconclusive") and "too few runs" in vtime.why
    wide = parse_thresholds({"run.vtime_ns": {"relative": 5, "reason": "anything goes"}})
    assert sides(runs[:2], runs[2:5], only=["run.vtime_ns"], thresholds=wide).verdict == "same"


def test_sets_by_parts(folder: Path) -> None:
    """vCPUs, functions, tables and invariants are tested where that is asked for."""
    a, b = sorted((folder / "A").iterdir()), sorted((folder / "B").iterdir())
    assert all(one.of is None for one in sides(a, b).judgements)
    assert "findings[U1]" in {one.key for one in sides(a, b, parts=True).judgements}


# --- thresholds --------------------------------------------------------------------------------------------------------------------------


def test_thresholds(folder: Path, tmp_path: Path) -> None:
    """Absolute and relative ones, a direction, something ignored; each shows its reason."""
    file = tmp_path / "thresholds.toml"
    file.write_text(
        '["steal.error_ns"]\nabsolute = "1s"\nreason = "a second is nothing"\n'
        '["steal.told_ns"]\nrelative = "1000%"\nreason = "told in ticks"\n'
        '["steal.read_ns"]\nbetter = "higher"\nreason = "the guest sees more"\n'
        '["findings"]\nignore = true\nreason = "known"\n'
        '["steal.told_ns[vcpu1]"]\nabsolute = 0\nreason = "vCPU 1 must be exact"\n'
    )
    done = sides([folder / "clean.tkt"], [folder / "wrong.tkt"], thresholds=read_thresholds(file))
    by_key = {one.key: one for one in done.judgements}
    assert (by_key["steal.error_ns"].verdict, by_key["steal.error_ns"].allowed) == ("same", 10**9)
    assert by_key["steal.error_ns"].change and by_key["steal.error_ns"].why == "within its threshold"
    assert by_key["steal.told_ns"].verdict == "same" and by_key["steal.told_ns"].reason == "told in ticks"
    assert by_key["steal.told_ns[vcpu1]"].verdict == "different" and by_key["steal.told_ns[vcpu0]"].verdict == "same"
    assert by_key["steal.read_ns"].verdict == "better"
    assert "findings" not in by_key and "findings[U1]" not in by_key
    assert "not compared: findings (known)" in done.notes
    told = tracekit("compare", folder / "clean.tkt", folder / "wrong.tkt", "--thresholds", file, "--all")
    assert told.returncode == 1 and "threshold of steal.told_ns[vcpu1]: vCPU 1 must be exact" in told.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["steal.eror_ns"]\nabsolute = 1\nreason = "x"', "no metric 'steal.eror_ns'; did you mean steal.error_ns"),
        ('["steal.error_ns[cpu1]"]\nabsolute = 1\nreason = "x"', "no metric 'steal.error_ns[cpu1]'"),
        ('["findings[S9]"]\nabsolute = 1\nreason = "x"', "no metric 'findings[S9]'"),
        ('["steal.error_ns"]\nabsolute = 1', "every threshold needs a reason"),
        ('["steal.error_ns"]\nabsolute = 1\nreason = " "', "every threshold needs a reason"),
        ('["steal.error_ns"]\nreason = "x"', "says nothing beside its reason"),
        ('["steal.error_ns"]\nabsolut = 1\nreason = "x"', "absolut: no such key; a threshold has absolute, relative"),
        ('["steal.error_ns"]\nabsolute = -1\nreason = "x"', "a number of ns that is not negative"),
        ('["steal.error_ns"]\nabsolute = "1 parsec"\nreason = "x"', "is not a duration"),
        ('["steal.entries"]\nabsolute = "1us"\nreason = "x"', "a number of count"),
        ('["steal.error_ns"]\nrelative = "much"\nreason = "x"', 'for example "5%" or 0.05'),
        ('["steal.error_ns"]\nbetter = "red"\nreason = "x"', "must be lower, higher or none"),
        ('["steal.error_ns"]\nignore = 1\nreason = "x"', "must be true or false"),
        ('["console.sha256"]\nabsolute = 1\nreason = "x"', "it is no number"),
        ("[sets]\nalpha = 2", "a number between 0 and 1"),
        ("[sets]\nbeta = 2", "has alpha and margin"),
        ("x = (", "not TOML"),
        pytest.param(f"x = {'9' * 5000}", "not TOML", id="digits"),
        pytest.param(f"x = {'[' * 5000}{']' * 5000}", "not TOML", id="brackets"),
        (f'["steal.error_ns"]\nrelative = {"9" * 400}\nreason = "x"', "a share that is not negative"),
        (f'["steal.error_ns"]\nabsolute = {"9" * 400}\nreason = "x"', "a number of ns"),
        ("findings = 3", "must be a table"),
    ],
)
def test_wrong_thresholds(tmp_path: Path, text: str, message: str) -> None:
    """Each is named, with what would be right."""
    file = tmp_path / "thresholds.toml"
    file.write_text(text)
    with pytest.raises(InputError) as raised:
        read_thresholds(file)
    assert message in str(raised.value) and str(file) in str(raised.value)


def test_thresholds_that_are_not_there(tmp_path: Path) -> None:
    """Trouble, not a verdict."""
    told = tracekit("compare", "a", "b", "--thresholds", tmp_path / "none.toml")
    assert told.returncode == 2 and "cannot read the thresholds" in told.stderr


# --- what is refused -----------------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_compared(folder: Path, tmp_path: Path) -> None:
    """Refused with the reason, exit code 2."""
    record(scenario("steal", host=busy_host(), vcpus=1), tmp_path / "one.tkt")
    record(scenario("hello", host=busy_host()), tmp_path / "hello.tkt")
    clean, first = folder / "clean.tkt", folder / "A" / "seed0.tkt"
    for arguments, message in (
        ([clean, tmp_path / "one.tkt"], "different numbers of vCPUs"),
        ([clean, first, "--against", folder / "B"], "mixes scenarios"),
        ([first, folder / "B" / "seed4.tkt", "--against", folder / "B"], "differ in hypervisor.faults [], [wrong-unit]"),
        ([clean, tmp_path / "none.tkt"], "no such trace"),
        ([clean, tmp_path], "different numbers of vCPUs"),
        ([clean], "two sides are needed"),
        (["--against", clean], "the first side is missing"),
        ([clean, f"{tmp_path}/*.none"], "no trace matches"),
    ):
        told = tracekit("compare", *arguments)
        assert told.returncode == 2 and message in told.stderr and len(told.stderr.splitlines()) == 1, told.stderr
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no trace, and no folder"):
        expand([str(tmp_path / "empty")], "A")


def test_a_run_twice(folder: Path, tmp_path: Path) -> None:
    """It would count as two samples."""
    again = tmp_path / "again.tkt"
    record(chaotic(1), again)
    with pytest.raises(InputError, match="has a run twice"):
        sides([folder / "A" / "seed1.tkt", again], [folder / "A" / "seed2.tkt"])


def test_different_guests_and_captures(folder: Path, tmp_path: Path) -> None:
    """One run each: inconclusive. Sets: without what belongs to the guest's code; other captures without sizes."""
    for seed in range(2):
        record(replace(chaotic(seed), image=scenario("spinlock").image, capture="writes"), tmp_path / f"seed{seed}.tkt")
    other = sorted(tmp_path.glob("*.tkt"))
    single = sides([folder / "A" / "seed0.tkt"], other[:1])
    assert single.verdict == "inconclusive" and "guest" in single.rule
    done = sides(sorted((folder / "A").iterdir()), other)
    names = {one.name for one in done.judgements}
    assert names and not names & {kind.name for kind in CATALOGUE.values() if kind.is_of_guest}
    assert "trace.rows" not in names and any(note.startswith("the guests differ") for note in done.notes)
    assert any(note.startswith("the captures differ") for note in done.notes)


def test_a_recovered_trace(folder: Path, tmp_path: Path) -> None:
    """Its totals are of a part of the run: refused, unless both end at one place."""
    cut = tmp_path / "cut.tkt"
    cut.mkdir()
    for file in (folder / "clean.tkt").rglob("*"):
        target = cut / file.relative_to(folder / "clean.tkt")
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            target.write_bytes(file.read_bytes())
    (cut / "hypercalls.arrow").write_bytes((cut / "hypercalls.arrow").read_bytes()[:-40])
    saved = tmp_path / "saved.tkt"
    told = tracekit("recover", cut, "-o", saved)
    assert told.returncode == 0, told.stderr
    with pytest.raises(InputError, match="recovered, it ends at position"):
        sides([folder / "clean.tkt"], [saved])
    assert sides([saved], [saved]).verdict == "same"


def test_a_trace_without_a_scenario(tmp_path: Path) -> None:
    """Nobody knows whether two such are runs of one scenario; only of itself."""
    for name, made in (("a", RandomTrace(1, "kvm")), ("b", RandomTrace(2, "kvm"))):
        made.trace.write(tmp_path / f"{name}.tkt")
    a, b = tmp_path / "a.tkt", tmp_path / "b.tkt"
    if "scenario" in Trace.open(a).manifest:
        for path in (a, b):
            strip(path)
    assert sides([a], [a]).verdict == "same"
    done = sides([a], [b])
    assert done.verdict == "inconclusive" and "scenario not in the manifest" in done.rule


def strip(path: Path) -> None:
    """The manifest without its scenario."""
    raw = json.loads((path / "trace.json").read_text())
    raw.pop("scenario")
    (path / "trace.json").write_bytes(encode({key: value for key, value in raw.items() if key not in ("digest", "format")}))


def test_metrics_are_listed() -> None:
    """`compare --list`, in words and as JSON."""
    told = tracekit("compare", "--list")
    assert told.returncode == 0 and [line.split()[0] for line in told.stdout.splitlines()] == list(CATALOGUE)
    listed = json.loads(tracekit("compare", "--list", "--json").stdout)
    assert {one["name"]: one["better"] for one in listed} == {kind.name: kind.better for kind in CATALOGUE.values()}
