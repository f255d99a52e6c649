"""A comparison in the format that is asked for."""

from __future__ import annotations

import json

from tracekit.analyzers.compare import Comparison
from tracekit.analyzers.verdict_ci import github, junit, sarif
from tracekit.analyzers.verdict_text import markdown, text


def rendered(comparison: Comparison, form: str, *, every: bool = False) -> str:
    """form: text, json, markdown, junit, sarif or github; every: text and Markdown with what is the same. Ends with a newline."""
    if form == "json":
        return json.dumps(comparison.as_json(), indent=2) + "\n"
    if form in ("text", "markdown"):
        return (text if form == "text" else markdown)(comparison, every=every)
    return {"junit": junit, "sarif": sarif, "github": github}[form](comparison)
