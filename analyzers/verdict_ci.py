"""A comparison for CI: JUnit XML, SARIF 2.1.0, annotations of GitHub's workflow commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

from tracekit import __version__
from tracekit.analyzers.compare import Comparison
from tracekit.analyzers.metric import CATALOGUE
from tracekit.analyzers.verdict import Judgement
from tracekit.analyzers.verdict_text import change, side, summary

_LEVELS = {"worse": "error", "different": "error", "inconclusive": "warning"}
_SARIF_LEVELS = {"worse": "error", "different": "error", "inconclusive": "note"}


def message(row: Judgement) -> str:
    """One line: what was, what is, why that matters."""
    shown = f" ({change(row)})" if row.change else ""
    return f"{row.key}: {side(row.a, row.unit)} became {side(row.b, row.unit)}{shown}: {row.verdict}, {row.why}"


def _more(comparison: Comparison) -> str:
    parts = [comparison.rule, *comparison.notes]
    return "\n".join([*parts, f"see where they part: {comparison.diff}"] if comparison.diff else parts)


def junit(comparisons: Sequence[Comparison]) -> str:
    """A suite for each comparison, a test case for each metric: a failure where it is worse or different, skipped where it is inconclusive."""
    root = xml.Element("testsuites", {"name": "tracekit"})
    totals = dict.fromkeys(("tests", "failures", "errors", "time"), 0)
    for one in comparisons:
        failed, skipped = one.of("worse", "different"), one.of("inconclusive")
        counts = {"tests": len(one.judgements), "failures": len(failed), "errors": 0, "skipped": len(skipped), "time": 0}
        totals = {key: total + counts[key] for key, total in totals.items()}
        root.append(_suite(one, {key: str(count) for key, count in counts.items()}))
    root.attrib.update({key: str(total) for key, total in totals.items()})
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(one: Comparison, counts: dict[str, str]) -> xml.Element:
    suite = xml.Element("testsuite", {"name": _clean(one.title), **counts})
    properties = xml.SubElement(suite, "properties")
    for name, text in (("verdict", one.verdict), ("mode", one.mode), ("a", " ".join(one.a)), ("b", " ".join(one.b))):
        xml.SubElement(properties, "property", {"name": name, "value": _clean(text)})
    for row in one.judgements:
        case = xml.SubElement(suite, "testcase", {"classname": f"tracekit.{row.name}", "name": _clean(row.key), "time": "0"})
        if row.verdict in ("worse", "different"):
            failure = xml.SubElement(case, "failure", {"message": _clean(message(row)), "type": row.verdict})
            failure.text = _clean(_more(one))
        elif row.verdict == "inconclusive":
            xml.SubElement(case, "skipped", {"message": _clean(message(row))})
    xml.SubElement(suite, "system-out").text = _clean(summary(one))
    return suite


def sarif(comparisons: Sequence[Comparison]) -> str:
    """A run for each comparison, in it a result for each metric that is not the same or better; its rule is the metric, its place the second
    side's first trace."""
    runs = [_run(one) for one in comparisons]
    return (
        json.dumps({"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": runs}, indent=2)
        + "\n"
    )


def _run(one: Comparison) -> dict[str, Any]:
    rows = one.of("worse", "different", "inconclusive")
    names = list(dict.fromkeys(row.name for row in rows))
    rules = [
        {
            "id": name,
            "name": "".join(part.capitalize() for part in name.replace("_", ".").split(".")),
            "shortDescription": {"text": f"{name} in {CATALOGUE[name].unit}; better: {CATALOGUE[name].better}"},
            "fullDescription": {"text": CATALOGUE[name].means},
        }
        for name in names
    ]
    return {
        "tool": {"driver": {"name": one.title, "version": __version__, "rules": rules}},
        "invocations": [{"executionSuccessful": True, "exitCode": one.exit_code}],
        "properties": {"verdict": one.verdict, "mode": one.mode, "rule": one.rule, "notes": list(one.notes), "diff": one.diff},
        "results": [
            {
                "ruleId": row.name,
                "ruleIndex": names.index(row.name),
                "level": _SARIF_LEVELS[row.verdict],
                "message": {"text": message(row) + (f" See where they part: {one.diff}" if one.diff else "")},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(one.b[0])}}}],
                "partialFingerprints": {"metric/v1": row.key},
                "properties": row.as_json(),
            }
            for row in rows
        ],
    }


def github(comparison: Comparison) -> str:
    """`::error`, `::warning` and one `::notice` line with the verdict."""
    one = comparison
    lines = [
        f"::{_LEVELS[row.verdict]} title={_property(f'tracekit: {row.key} {row.verdict}')}::{_data(message(row))}"
        for row in one.of("worse", "different", "inconclusive")
        if one.mode != "single"
    ]
    level = "error" if one.exit_code == 1 else "warning" if one.exit_code == 3 else "notice"
    lines.append(f"::{level} title={_property(one.title)}::{_data(summary(one) + chr(10) + _more(one))}")
    return "\n".join(lines) + "\n"


def _uri(path: str) -> str:
    plain = Path(path)
    return plain.as_uri() if plain.is_absolute() else Path("/", path).as_uri().removeprefix("file:///")


def _clean(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(
        one if one in "\t\n\r" or (" " <= one <= "\ud7ff") or ("\ue000" <= one <= "\ufffd") or one > "\uffff" else "?"
        for one in text
    )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
