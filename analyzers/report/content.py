"""All that a page says of one run, as plain values. Nothing here knows of HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from tracekit.analyzers.analysis import Analysis, analyse
from tracekit.analyzers.distribution import Distribution
from tracekit.analyzers.events import RUNS, WAITS
from tracekit.analyzers.findings import Finding
from tracekit.analyzers.hypercalls import hypercalls
from tracekit.analyzers.report import lanes
from tracekit.analyzers.report.lanes import is_waiting
from tracekit.analyzers.report.thinning import Thinned, thin
from tracekit.analyzers.source import Want, frame_of, frames
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES

STEPS = 400  # of the curves over time
LONGEST_WAITS = 15
DIRECTIVES_MAX = 200
CONSOLE_BYTES = 6_000
LANES_MAX = 48  # vCPUs, and physical CPUs, that have a lane each
QUIET = ("slot_add", "attribute_get", "attribute_has", "attribute_set")  # at the beginning: every run has them


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a run that the timeline shows."""

    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A finding with the row that breaks it: (column, value) pairs."""

    finding: Finding
    row: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """One wait. blame: [(thread, ns)] that ran on its physical CPU meanwhile."""

    vcpu: int
    start_ns: int
    length_ns: int
    position: int
    pcpu: int | None
    reason: str | None
    blame: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Content:
    """One run. calls: as `hypercalls.hypercalls`, and vcpus str, position u64 (of the first call)."""

    name: str
    manifest: dict[str, Any]
    analysis: Analysis
    window: Window
    thinned: Thinned
    blame: list[list[tuple[int, int]]]  # of each kept piece; empty where it does not wait
    spent: pl.DataFrame  # lanes.states_over
    waited_for: pl.DataFrame  # lanes.waited_for
    waits: list[Wait]
    latencies: Distribution
    findings: list[Shown]
    calls: pl.DataFrame
    directives: pl.DataFrame
    directive_count: int
    console: str

    @property
    def vcpus(self) -> int:
        """How many there are."""
        assert self.analysis.steal is not None
        return self.analysis.steal.vcpus.height

    @property
    def pcpus(self) -> int:
        """How many the schedule speaks of."""
        return _pcpus(self.manifest, self.thinned.kept)

    def thread(self, number: int) -> str:
        """What people call a thread."""
        threads = self.manifest["threads"]
        if number < len(threads) and threads[number]["kind"] != "vcpu":
            return str(threads[number].get("name") or f"{threads[number]['kind']} {number}")
        return f"vCPU {number}"


def content_of(trace: Trace, *, from_ns: int | None = None, to_ns: int | None = None, policy: str | None = None) -> Content:
    """Everything, in several passes over the trace. from_ns, to_ns: what the timeline shows. Errors: InputError, TraceDamaged."""
    end_ns = int(trace.manifest["end"]["vtime_ns"])
    window = Window(from_ns or 0, end_ns if to_ns is None else min(to_ns, end_ns))
    if not 0 <= window.begin_ns < max(window.end_ns, 1):
        raise InputError(
            f"{trace.path}: nothing between {window.begin_ns} ns and {window.end_ns} ns; the run ends at {end_ns} ns"
        )
    analysis = analyse(trace, ("steal", "invariants"), policy=policy, over_ns=max(1, -(-end_ns // STEPS)))
    assert analysis.findings is not None and analysis.steal is not None
    pieces = lanes.pieces_of(trace)
    woken = lanes.wakeup_latencies(pieces)
    vcpus = analysis.steal.vcpus.height
    latencies = Distribution()
    latencies.add(woken.filter(pl.col("thread") < vcpus)["latency_ns"])
    pieces = pieces.filter(pl.col("end_ns") > pl.col("start_ns"))
    spent = lanes.states_over(pieces).filter(pl.col("thread") < vcpus)
    waits = _longest_waits(pieces, vcpus)
    inside = _inside(pieces, window, vcpus)
    marks = [one.vtime_ns for one in analysis.findings]
    if analysis.steal.worst is not None:
        marks.append(analysis.steal.worst.vtime_ns)
    thinned = thin(inside, marks, window.begin_ns, max(window.end_ns, 1))
    directives = _directives(trace)
    return Content(
        str(trace.path), trace.manifest, analysis, window, thinned, _blame(thinned.kept, pieces), spent,
        lanes.waited_for(pieces, vcpus), waits, latencies,
        _named(trace, [Shown(one, _row_of(trace, one)) for one in analysis.findings]), _calls(trace), directives.head(DIRECTIVES_MAX),
        directives.height, _console(trace),
    )  # fmt: skip


def _pcpus(manifest: dict[str, Any], pieces: pl.DataFrame) -> int:
    said = manifest.get("scenario", {}).get("host", {}).get("pcpus", 1)
    most = pieces["pcpu"].max()
    assert most is None or isinstance(most, int)
    return max(int(said or 1), 1 + (-1 if most is None else most))


def _inside(pieces: pl.DataFrame, window: Window, vcpus: int) -> pl.DataFrame:
    """What a lane shows: of threads that are no vCPU, only where they run; cut to the window."""
    is_shown = (pl.col("thread") < vcpus) | pl.col("state").is_in(list(RUNS))
    return pieces.filter(is_shown, pl.col("end_ns") > window.begin_ns, pl.col("start_ns") < window.end_ns).with_columns(
        pl.col("start_ns").clip(lower_bound=window.begin_ns), pl.col("end_ns").clip(upper_bound=window.end_ns)
    )


def _blame(kept: pl.DataFrame, pieces: pl.DataFrame) -> list[list[tuple[int, int]]]:
    """Of every kept piece; only waits have one."""
    kept = kept.with_row_index("at")
    waits = kept.filter(is_waiting())
    out: list[list[tuple[int, int]]] = [[] for _ in range(kept.height)]
    for at, blame in zip(waits["at"], lanes.occupants(waits.drop("at"), pieces), strict=True):
        out[at] = blame[: lanes.OCCUPANTS_MAX]
    return out


def _longest_waits(pieces: pl.DataFrame, vcpus: int) -> list[Wait]:
    """The longest of all vCPUs; of equal ones the earliest."""
    length = (pl.col("end_ns") - pl.col("start_ns")).alias("length")
    waits = pieces.filter(is_waiting(), pl.col("thread") < vcpus).with_columns(length)
    waits = waits.sort(["length", "start_ns", "thread"], descending=[True, False, False]).head(LONGEST_WAITS)
    blamed = lanes.occupants(waits.drop("length"), pieces)
    rows = waits.select("thread", "start_ns", "length", "position", "pcpu", "reason").rows()
    return [
        Wait(vcpu, start_ns, length_ns, position, pcpu, reason, tuple(blame))
        for (vcpu, start_ns, length_ns, position, pcpu, reason), blame in zip(rows, blamed, strict=True)
    ]


def _row_of(trace: Trace, finding: Finding) -> tuple[tuple[str, Any], ...]:
    """The row that a finding names. Errors: TraceDamaged."""
    want = Want(tuple(column.name for column in TABLES[finding.table].columns[4:]))
    is_it = (pl.col("position") == finding.position) & (pl.col("sequence") == finding.sequence)
    for index, entry in enumerate(trace.manifest["tables"][finding.table]["batches"]):
        if entry["position"][0] <= finding.position <= entry["position"][1]:
            found = frame_of(trace.batch(finding.table, index), finding.table, want).filter(is_it)
            if found.height:
                return tuple(found.row(0, named=True).items())
    return ()


def _named(trace: Trace, shown: list[Shown]) -> list[Shown]:
    """Rows of code with the symbol behind their pc, where the kernel's own Image names it. Errors: TraceDamaged."""
    if not any(isinstance(value, int) for one in shown for name, value in one.row if name == "pc"):
        return shown
    from tracekit.symbols.symbols import Symbols

    symbols = Symbols.for_trace(trace)
    if symbols.is_empty:
        return shown
    out = []
    for one in shown:
        row: list[tuple[str, Any]] = []
        for name, value in one.row:
            row.append((name, value))
            if name == "pc":
                row.append(("symbol", symbols.text(value)))
        out.append(Shown(one.finding, tuple(row)))
    return out


def _calls(trace: Trace) -> pl.DataFrame:
    """Hypercalls by function: what `analyze hypercalls` says, and who made them."""
    rows = pl.concat(frames(trace, "hypercalls", Want(("function_id",)))).filter(pl.col("vcpu").is_not_null())
    counts = (
        rows.group_by("function_id", "vcpu").agg(pl.len().alias("calls"), pl.col("position").min()).sort("function_id", "vcpu")
    )
    text = pl.format("{}: {}", "vcpu", "calls").str.join(", ").alias("vcpus")
    callers = counts.group_by("function_id", maintain_order=True).agg(text, pl.col("position").min())
    return hypercalls(trace).join(callers, on="function_id", how="left", maintain_order="left")


def _directives(trace: Trace) -> pl.DataFrame:
    """What was done from outside, without what every run begins with."""
    rows = pl.concat(frames(trace, "directives", Want(("kind", "ipa", "size", "value", "result"))))
    return rows.filter(~(pl.col("kind").is_in(list(QUIET)) & (pl.col("position") == 0)))


def _console(trace: Trace) -> str:
    """The last that the guest said: characters that print, nothing else."""
    data = b""
    for frame in frames(trace, "console", Want(("data",))):
        data = (data + b"".join(frame["data"].to_list()))[-CONSOLE_BYTES:]
    text = data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def wait_share(spent: pl.DataFrame) -> dict[int, tuple[int, int]]:
    """{vcpu: (ns waited, ns in all)}."""
    is_wait = pl.col("state").cast(pl.String).is_in(list(WAITS))
    sums = spent.group_by("thread").agg(pl.col("ns").filter(is_wait).sum().alias("waited"), pl.col("ns").sum()).sort("thread")
    return {thread: (waited, ns) for thread, waited, ns in sums.iter_rows()}
