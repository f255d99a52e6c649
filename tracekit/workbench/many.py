"""Many traces as one object: the same tables with a leading column `run`. `tracekit.open_many` gives it."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tracekit.analyzers import catalogue, frames
from tracekit.analyzers.frames import DataFrame, LazyFrame, Run, labelled
from tracekit.formats.errors import InputError, TraceDamaged
from tracekit.formats.reader import Trace
from tracekit.formats.units import format_ns, plain
from tracekit.workbench.card import Card
from tracekit.workbench.tables import Tables
from tracekit.workbench.trace import TraceView, thin

SHOWN_MAX = 20


def open_many(runs: str | Path | Iterable[str | Path]) -> ManyView:
    """Open every trace that a pattern (`runs/*.tkt`, `**` for any depth) or a list of paths and patterns names.

    Errors: InputError where nothing is there or a trace is named twice, and those of `tracekit.open` for each.
    """
    paths = paths_of([runs] if isinstance(runs, str | Path) else list(runs))
    return ManyView(paths)


def paths_of(runs: Iterable[str | Path]) -> list[Path]:
    """Paths behind paths and patterns; those of a pattern sorted. Errors: InputError."""
    paths: list[Path] = []
    for one in runs:
        text = str(one)
        is_pattern = glob.has_magic(text) and not Path(text).exists()
        found = sorted(glob.glob(text, recursive=True)) if is_pattern else [text]
        if not found:
            raise InputError(f"{text}: no trace has such a name")
        paths += [Path(name) for name in found]
    if not paths:
        raise InputError("no trace was named")
    twice = sorted({str(path) for path in paths if paths.count(path) > 1}) if len(set(paths)) < len(paths) else []
    if twice:
        raise InputError(f"{twice[0]} is named twice")
    return paths


def names_of(paths: list[Path]) -> list[str]:
    """What stands in the column `run`: the files' names without .tkt, or the whole paths where those are not different."""
    names = [plain(path.name.removesuffix(".tkt")) for path in paths]
    return names if len(set(names)) == len(names) else [plain(str(path)) for path in paths]


class ManyView(Tables):
    """Many traces: each table is a LazyFrame of its name with a leading column `run`, read trace by trace.

    One trace is open at a time, and its batches are read one by one: collect with engine="streaming" (as `sql` does), and memory depends on
    the answer, not on the number of traces. A filter on `run` leaves the other traces closed. Traces of any minor version fit together.
    """

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self.paths = paths
        self._digests: dict[str, str] = {}
        self._path: dict[str, Path] = dict(zip(names_of(paths), paths, strict=True))
        manifests = []
        self._thinnest: dict[str, tuple[str, str]] = {}
        for name, path in self._path.items():
            trace = Trace.open(path)
            manifest = trace.manifest
            trace.close()
            self._digests[name] = str(manifest["digest"])
            kept = {key: manifest.get(key) for key in ("scenario", "machine", "threads", "end", "format", "digest")}
            manifests.append((name, str(path), kept))
            for table in ("memory_writes", "memory_reads", "blocks"):
                found = thin(path, manifest, table)
                if found is not None:
                    self._thinnest.setdefault(table, found)
        self.runs: DataFrame = catalogue.runs(manifests)
        self.threads: DataFrame = catalogue.threads((name, manifest) for name, _, manifest in manifests)

    @property
    def names(self) -> list[str]:
        """What stands in the column `run`, in order."""
        return list(self._path)

    def __len__(self) -> int:
        """How many traces."""
        return len(self._path)

    def __iter__(self) -> Iterator[str]:
        """The names, in order."""
        return iter(self._path)

    def __getitem__(self, run: str) -> TraceView:
        """One of the traces, opened. Errors: KeyError, those of `tracekit.open`, TraceDamaged where it is another one now."""
        return TraceView(self._open(run))

    def _open(self, run: str) -> Trace:
        trace = Trace.open(self._path[run])
        if trace.manifest["digest"] != self._digests[run]:
            trace.close()
            raise TraceDamaged(f"{self._path[run]}: another trace lies there since it was opened")
        return trace

    @contextmanager
    def _opened(self, run: str) -> Iterator[Trace]:
        trace = self._open(run)
        try:
            yield trace
        finally:
            trace.close()

    def _scan(self, name: str) -> LazyFrame:
        return frames.scan_runs([Run(run, lambda run=run: self._opened(run)) for run in self._path], name)  # type: ignore[misc]

    def _thin(self, name: str) -> tuple[str, str] | None:
        return self._thinnest.get(name)

    def _more(self) -> dict[str, LazyFrame]:
        return {"threads": self.threads.lazy(), "runs": self.runs.lazy()}

    def each(self, analysis: Callable[[TraceView], DataFrame]) -> DataFrame:
        """The frames that an analysis gives for each run, below each other, with a leading column `run`.

        For example `many.each(lambda t: t.reads())`. Errors: those of the analysis.
        """
        found = []
        for run in self._path:
            with self[run] as view:
                found.append((run, analysis(view)))
        return labelled(found)

    def steal(self, *, policy: str | None = None) -> DataFrame:
        """Each vCPU's stolen time, as `TraceView.steal`, with a leading column `run`. Errors: TraceDamaged."""
        return self.each(lambda view: view.steal(policy=policy))

    def invariants(self, *, policy: str | None = None) -> DataFrame:
        """What is broken, as `TraceView.invariants`, with a leading column `run`. Errors: TraceDamaged."""
        return self.each(lambda view: view.invariants(policy=policy))

    def _card(self) -> Card:
        rows = []
        columns = ("run", "guest", "seed", "reason", "position", "vtime_ns")
        for run, guest, seed, reason, position, vtime_ns in self.runs.select(columns).head(SHOWN_MAX).iter_rows():
            rows.append((run, str(guest), str(seed), str(reason), f"{position:,}", format_ns(vtime_ns)))
        if len(self) > SHOWN_MAX:
            rows.append((f"... {len(self) - SHOWN_MAX} more", "", "", "", "", ""))
        total = int(self.runs["position"].sum())
        known = (("runs", f"{len(self):,}"), ("instructions", f"{total:,} in all"))
        return Card(f"{len(self):,} traces", known, ("run", "guest", "seed", "end", "instructions", "virtual time"), tuple(rows))
