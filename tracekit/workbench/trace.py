"""One trace as an object: tables, SQL, analyses. `tracekit.open` gives it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tracekit.analyzers import catalogue, frames
from tracekit.analyzers.findings import findings_frame
from tracekit.analyzers.frames import DataFrame, LazyFrame
from tracekit.analyzers.hypercalls import hypercalls
from tracekit.analyzers.invariants import invariants
from tracekit.analyzers.runtime import Runtime, runtime
from tracekit.analyzers.steal import per_vcpu, publications, reads
from tracekit.analyzers.timeline import intervals
from tracekit.analyzers.writes import writes_frame
from tracekit.formats.captures import is_whole, told
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.formats.units import format_bytes, format_ns, parse_duration_ns
from tracekit.replay.who_wrote import place_of, who_wrote
from tracekit.workbench.card import Card
from tracekit.workbench.tables import Tables

VERIFY = ("read", "all", "none")


def open(path: str | Path, *, verify: str = "read") -> TraceView:
    """Open a trace, a directory or a packed file.

    verify: "read" checks the hash of each batch that is used, when it is used; "all" checks everything now; "none" lets the LazyFrames of
    an unpacked trace scan its Arrow files as they are, hashes unseen. Analyses check what they read in any case.
    Errors: NotATraceError, TraceVersionError, TraceIncompleteError, TraceDamaged; InputError for another `verify`.
    """
    if verify not in VERIFY:
        raise InputError(f"verify = {verify!r}: must be one of {', '.join(VERIFY)}")
    return TraceView(Trace.open(path, verify="all" if verify == "all" else "lazy"), is_verified=verify != "none")


class TraceView(Tables):
    """A trace: each table is a LazyFrame of its name (`t.schedule`), `sql` asks all of them, and the analyses are methods.

    A context manager; `close` lets go of a packed trace's file. `path` is as it was given, `place` the same from the root.
    """

    def __init__(self, trace: Trace, *, is_verified: bool = True) -> None:
        super().__init__()
        self._opened: Trace | None = trace
        self._is_verified = is_verified
        self.path: Path = trace.path
        self.place: Path = trace.path.absolute()
        self.manifest: dict[str, Any] = trace.manifest

    @property
    def trace(self) -> Trace:
        """What the functions of tracekit.analyzers take. Errors: InputError once it is closed."""
        if self._opened is None:
            raise InputError(f"{self.path}: the trace was closed")
        return self._opened

    def close(self) -> None:
        """Let go of the file; nothing can be read from here on."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also in another process, opens the trace anew. Errors: InputError once it is closed."""
        return partial(open, verify="read" if self._is_verified else "none"), (self.trace.path,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _scan(self, name: str) -> LazyFrame:
        return frames.scan(self.trace, name, is_verified=self._is_verified)

    def _thin(self, name: str) -> tuple[str, str] | None:
        return thin(self.path, self.manifest, name)

    def _more(self) -> dict[str, LazyFrame]:
        name = self.path.name.removesuffix(".tkt")
        known = {"threads": self.threads, "runs": catalogue.runs([(name, str(self.path), self.manifest)])}
        return {name: frame.lazy() for name, frame in known.items()}

    @property
    def threads(self) -> DataFrame:
        """Who can run. columns: thread u32, kind str (vcpu, neighbour, vmm), name str."""
        return catalogue.threads([("", self.manifest)]).drop(frames.RUN)

    def console_text(self, vcpu: int | None = None) -> str:
        """Everything that was printed, or what one vCPU printed; bytes that are no UTF-8 are replaced. Errors: TraceDamaged."""
        data = TABLES["console"].index("data")
        return b"".join(row[data] for row in self.trace.rows("console") if vcpu in (None, row[3])).decode("utf-8", "replace")

    def steal(self, *, policy: str | None = None) -> DataFrame:
        """Each vCPU's stolen time: what was true, published, read and accounted. Errors: TraceDamaged.

        One row a vCPU; columns as in `tracekit.analyzers.steal.Report.vcpus`, times in ns. policy: whose formula is the truth (default: the one
        that the run was recorded with).
        """
        return per_vcpu(self.trace, policy=policy)

    def publications(self, *, policy: str | None = None) -> DataFrame:
        """Every guest entry against the truth; columns as in `tracekit.analyzers.steal.entries_of`. Errors: TraceDamaged."""
        return publications(self.trace, policy=policy)

    def reads(self, *, policy: str | None = None) -> DataFrame:
        """Every guest read of a stolen time against the truth; columns as in `tracekit.analyzers.steal.reads_of`. Errors: TraceDamaged."""
        return reads(self.trace, policy=policy)

    def invariants(self, *, policy: str | None = None) -> DataFrame:
        """What is broken, one row an invariant, none if all hold; columns as in `tracekit.analyzers.findings.findings_frame`.

        Errors: TraceDamaged.
        """
        return findings_frame(invariants(self.trace, policy=policy), str(self.path))

    def intervals(self) -> DataFrame:
        """Each vCPU's life in pieces of RUN, WAIT and BLOCK; columns as in `tracekit.analyzers.timeline.intervals`. Errors: TraceDamaged."""
        return intervals(self.trace)

    def runtime(self, *, over: str | int | None = None, between: tuple[str | int, str | int] | None = None) -> DataFrame:
        """Where each vCPU's time went; columns as in `tracekit.analyzers.runtime.Runtime.vcpus`.

        over: also over steps of this length. between: only from one time up to another. Times as "10ms" or in ns.
        Errors: InputError, TraceDamaged.
        """
        return self._runtime(over, between).vcpus

    def waits(self, *, over: str | int | None = None, between: tuple[str | int, str | int] | None = None) -> DataFrame:
        """For whom each vCPU waited, and how long; columns as in `tracekit.analyzers.runtime.Runtime.waits`, options as in `runtime`.

        Errors: InputError, TraceDamaged.
        """
        return self._runtime(over, between).waits

    def _runtime(self, over: str | int | None, between: tuple[str | int, str | int] | None) -> Runtime:
        limits = None
        if between is not None:
            if isinstance(between, str) or len(between) != 2:
                raise InputError(f"between = {between!r}: must be two times, the second left out")
            limits = _ns(between[0]), _ns(between[1])
            if not 0 <= limits[0] < limits[1]:
                raise InputError(f"between = {between!r}: no time lies between them")
        return runtime(self.trace, over_ns=None if over is None else _ns(over), between=limits)

    def calls(self, *, by: str | None = None) -> DataFrame:
        """What the guest asked of its hypervisor, one row a function; columns as in `tracekit.analyzers.hypercalls.hypercalls`.

        by: "vcpu" or "pc", to tell those apart. Errors: InputError, TraceDamaged.
        """
        return hypercalls(self.trace, by=by)

    def who_wrote(
        self, address: int | str, *, size: int | None = None, before: int | None = None, limit: int | None = None
    ) -> DataFrame:
        """The writes to a physical address, the newest first, out of the table where it holds them, else by replaying the stretch where it
        does not; columns as in `tracekit.analyzers.writes.writes_frame`.

        address: a number or what the command takes ("0x40100000", "pvtime:0"). size: bytes from there on (default 1: any write that covers the
        byte). before: only writes at positions below it. limit: the newest so many (default: those that account for every byte).
        Errors: InputError, TraceDamaged, ReplayDiverged.
        """
        ipa, natural = (address, 1) if isinstance(address, int) else place_of(self.trace, address)
        found = who_wrote(self.trace, ipa, size=size or natural, before=before, limit=limit)
        return writes_frame(write.as_dict() for write in found.writes)

    def capture(
        self,
        level: str = "writes",
        *,
        from_position: int | None = None,
        to_position: int | None = None,
        output: str | Path | None = None,
        jobs: int = 1,
        force: bool = False,
    ) -> TraceView:
        """A new trace of this run with the rows that a capture level has, made by replaying, and opened.

        level: writes, full (or thin, to drop rows). from_position, to_position: only in a window, the second left out (default: the whole run).
        output: its path (default: this one's with .LEVEL before .tkt). jobs: so many processes.
        Errors: InputError, TraceExistsError, DiskError, TraceDamaged, ReplayDiverged.
        """
        from tracekit.workbench.capturing import captured

        path = captured(self.trace.path.absolute(), level, from_position, to_position, output, jobs, force)
        return open(path)

    def _card(self) -> Card:
        tables = self.manifest["tables"]
        rows = tuple(
            (name, f"{tables[name]['rows']:,}", format_bytes(tables[name]["bytes"])) for name in TABLES if tables[name]["rows"]
        )
        return Card(f"trace {self.path}", facts(self.manifest), ("table", "rows", "size"), rows)


def _ns(time: str | int) -> int:
    return parse_duration_ns(time) if isinstance(time, str) else time


def facts(manifest: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Guest, host, capture and end, for people."""
    run = catalogue.runs([("", "", manifest)]).row(0, named=True)
    host = f"{run['pcpus']} pCPU(s), {run['policy'] or 'no policy named'}, {_neighbours(manifest)} neighbour(s)"
    out = [
        ("guest", f"{run['guest'] or 'not named'}, {run['vcpus']} vCPU(s)"),
        ("host", host),
        ("capture", f"{told(manifest)}, seed {run['seed'] or 0}"),
        ("end", f"{str(run['reason']).replace('_', ' ')} after {run['position']:,} instructions, {format_ns(run['vtime_ns'])}"),
    ]
    if manifest.get("recovered"):
        out.append(("recovered", "; ".join(manifest["recovered"].get("missing", []))))
    return tuple(out)


def _neighbours(manifest: dict[str, Any]) -> int:
    return sum(one["kind"] == "neighbour" for one in manifest["threads"])


def thin(path: Path, manifest: dict[str, Any], table: str) -> tuple[str, str] | None:
    """Path and capture level, where the run was captured thinner than a table needs."""
    return None if is_whole(manifest, table) else (str(path), told(manifest))
