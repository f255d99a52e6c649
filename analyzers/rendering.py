"""A comparison in the format that is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tracekit.analyzers.compare import Comparison
from tracekit.analyzers.verdict_ci import github, junit, sarif
from tracekit.analyzers.verdict_text import markdown, text


def rendered(comparison: Comparison, form: str, *, every: bool = False) -> str:
    """form: text, json, markdown, junit, sarif or github; every: text and Markdown with what is the same. Ends with a newline."""
    if form == "json":
        return json.dumps(comparison.as_json(), indent=2) + "\n"
    return rendered_all([comparison], form, every=every)


def rendered_all(comparisons: Sequence[Comparison], form: str, *, every: bool = False) -> str:
    """Several together; JSON as a list."""
    if form == "json":
        return json.dumps([one.as_json() for one in comparisons], indent=2) + "\n"
    if form == "junit":
        return junit(comparisons)
    if form == "sarif":
        return sarif(comparisons)
    one_by_one = {"text": text, "markdown": markdown}
    if form == "github":
        return "".join(github(one) for one in comparisons)
    return "\n".join(one_by_one[form](one, every=every) for one in comparisons)
