"""What each fault of the catalogue does to the metrics of a run, and the table of it in docs/analysis.md.

`python tests/fault_metrics.py` writes the table.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fault_runs import acting, with_faults
from support import REPOSITORY

from tracekit.analyzers.compare import Comparison, compare
from tracekit.formats.reader import Trace
from tracekit.recorder.faults import catalogue, load_fault
from tracekit.recorder.record import record

TABLE = REPOSITORY / "docs" / "analysis.md"
BEGIN, END = "<!-- fault-metrics:begin -->", "<!-- fault-metrics:end -->"
HEAD = ("| fault | findings | other metrics that get worse |", "|---|---|---|")


def clean_run(name: str, folder: Path) -> Path:
    """The run of a fault's scenario under a faithful hypervisor; recorded once for all faults that need the same."""
    path = folder / f"clean-{load_fault(name).needs or 'nothing'}.tkt"
    if not path.exists():
        record(acting(name), path)
    return path


def wrong_run(name: str, folder: Path) -> Path:
    """The same run under the fault."""
    path = folder / f"{name}.tkt"
    record(with_faults(acting(name), name), path, force=True)
    return path


def compared(clean: Path, wrong: Path) -> Comparison:
    """Clean against wrong."""
    sides = Trace.open(clean), Trace.open(wrong)
    done = compare(sides[:1], sides[1:])
    for trace in sides:
        trace.close()
    return done


def row(name: str, done: Comparison) -> str:
    """A fault's line: metrics of the whole run; the sizes of traces are left out."""
    worse = [
        f"`{one.name}`" for one in done.of("worse") if one.of is None and one.name != "findings" and one.name[:6] != "trace."
    ]
    counts = {one.of: one for one in done.judgements if one.name == "findings" and one.of is not None}
    findings = [f"{of} {one.a.value} to {one.b.value}" for of, one in counts.items() if one.a.value != one.b.value]
    return f"| `{name}` | {', '.join(findings) or '-'} | {', '.join(worse) or '-'} |"


def lines_of(text: str) -> dict[str, str]:
    """The table's lines by fault."""
    part = text[text.index(BEGIN) : text.index(END)]
    return {line.split("`")[1]: line for line in part.splitlines() if line.startswith("| `")}


def main() -> None:
    """Run everything, write the table into the document."""
    lines = [*HEAD]
    with tempfile.TemporaryDirectory() as scratch:
        for name in catalogue():
            lines.append(row(name, compared(clean_run(name, Path(scratch)), wrong_run(name, Path(scratch)))))
            print(lines[-1], flush=True)
    text = TABLE.read_text()
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    TABLE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + after)


if __name__ == "__main__":
    main()
