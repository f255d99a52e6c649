"""A thin recording becomes a thicker one: intervals between checkpoints are replayed for what was left out, each on its own, and merged
with the recorded rows.

Spec: formats/SPEC.md 2, "captured".
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracekit.formats.captures import WHOLE_AT, Captured, captured_of, level_of
from tracekit.formats.checkpoints import copy_checkpoints
from tracekit.formats.errors import InputError, TraceVersionError
from tracekit.formats.parts import Entries, PartWriter, RecordedRows, merged, part_batches
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.formats.writer import TraceWriter
from tracekit.replay.divergence import Result
from tracekit.replay.options import ReplayOptions
from tracekit.replay.windows import Stretch, replay_stretch, stretches
from tracekit.replay.workers import WorkerLost, workers


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is sent: everything that it needs is in here and in the trace."""

    path: Path
    options: ReplayOptions
    stretch: Stretch
    tables: tuple[str, ...]
    folder: Path


@dataclass(frozen=True, slots=True)
class Done:
    """What it sends back; the rows lie in the job's folder."""

    result: Result
    entries: Entries


def capture_part(job: Job) -> Done:
    """A stretch's rows into a folder. Errors: TraceDamaged, DiskError."""
    part = PartWriter(job.folder, job.tables, job.stretch.low, job.stretch.high)
    trace = Trace.open(job.path)
    try:
        result = replay_stretch(trace, job.stretch, job.options, part)
        return Done(result, part.close() if result.is_identical else {})
    except BaseException:
        part.abandon()
        raise
    finally:
        trace.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """level: of the rows that are captured, at positions [from_position, to_position) (None: to the end). base: of the run elsewhere."""

    level: str
    base: str
    from_position: int
    to_position: int | None

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the run is left out."""
        return self.from_position == 0 and self.to_position is None

    @property
    def tables(self) -> tuple[str, ...]:
        """Those whose rows are captured."""
        return tuple(name for name, levels in WHOLE_AT.items() if self.level in levels and self.base not in levels)

    def keeps_thick(self, table: str) -> bool:
        """Whether the recorded rows of a table stay, those of a thicker capture too."""
        levels = WHOLE_AT.get(table)
        return levels is None or (self.base in levels and (not self.is_whole or self.level in levels))


def plan_of(trace: Trace, level: str | None, from_position: int | None, to_position: int | None) -> Plan:
    """level None: as recorded; with neither position, in the window that was captured.

    Errors: InputError for a window in which nothing lies, or for which nothing is left to capture; TraceVersionError.
    """
    if "scenario" not in trace.manifest:
        raise TraceVersionError(f"{trace.path}: the manifest has no scenario; nothing can be written from it")
    window = captured_of(trace.manifest)
    if level is None and window is not None and from_position is None and to_position is None:
        level, from_position, to_position = window.level, window.from_position, window.to_position
    level = level or level_of(trace.manifest)
    end = int(trace.manifest["end"]["position"])
    begin = from_position or 0
    stop = None if to_position is None or to_position > end else to_position
    if begin > end or (stop is not None and begin >= stop):
        raise InputError(
            f"from position {begin:,} to {to_position if to_position is not None else end:,}: no instruction lies between them"
        )
    plan = Plan(level, level_of(trace.manifest), begin, stop)
    if not plan.is_whole and not plan.tables:
        raise InputError(f"{trace.path} was captured {plan.base} already: {level} adds nothing to it in a window")
    return plan


def manifest_of(trace: Trace, plan: Plan) -> dict[str, Any]:
    """The same run, with thicker columns."""
    left_out = ("digest", "tables", "complete", "end", "images", "checkpoints", "captured")
    manifest = {key: value for key, value in trace.manifest.items() if key not in left_out}
    if plan.is_whole:
        manifest["scenario"] = {**manifest["scenario"], "capture": plan.level}
    else:
        stop = int(trace.manifest["end"]["position"]) + 1 if plan.to_position is None else plan.to_position
        manifest["captured"] = Captured(plan.level, plan.from_position, stop).as_dict()
    return manifest


def capture(
    path: Path,
    output: Path,
    plan: Plan,
    options: ReplayOptions,
    *,
    jobs: int = 1,
    executor: Executor | None = None,
    force: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Result:
    """Replay what `plan` says and write the run with it as a new trace, which takes its name only if all of it was identical.

    jobs: processes, or tasks of the executor, that replay stretches side by side; parts that wait to be merged are as many at most.
    Gives the first divergence, or the whole window's result. Errors: TraceError, DiskError, TraceExistsError.
    """
    with_level = replace(options, capture=plan.level, from_position=None, to_position=None)
    trace = Trace.open(path)
    try:
        writer = TraceWriter(output, manifest_of(trace, plan), force=force)
        try:
            folder = Path(tempfile.mkdtemp(prefix="parts-", dir=writer.partial))
            parts = stretches(trace, plan.from_position, plan.to_position, plan.level)
            todo = (Job(path.absolute(), with_level, one, plan.tables, _new(folder / str(n))) for n, one in enumerate(parts))
            with closing(_done(todo, min(jobs, len(parts)), executor)) as done:
                result = _merge(trace, writer, plan, done, on_progress)
            shutil.rmtree(folder)
            if result.is_identical:
                for image in trace.manifest["images"]:
                    writer.add_image(image["role"], image["name"], trace.image(image["sha256"]))
                copy_checkpoints(trace, writer)
                writer.close(trace.manifest["end"])
            else:
                writer.abandon()
            return result
        except BaseException:
            writer.abandon()
            raise
    finally:
        trace.close()


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _done(todo: Iterator[Job], jobs: int, executor: Executor | None) -> Generator[tuple[Job, Done]]:
    """Every job with what came of it, in order. Errors: what a job raised; WorkerLost."""
    if executor is None and jobs < 2:
        for job in todo:
            yield job, capture_part(job)
        return
    with workers(jobs, executor) as crew:
        waiting: deque[tuple[Job, Future[Done]]] = deque()
        is_over = False
        try:
            for job in todo:
                waiting.append((job, crew.submit(capture_part, job)))
                if len(waiting) > jobs:
                    first, future = waiting.popleft()
                    yield first, _answer(future)
            while waiting:
                first, future = waiting.popleft()
                yield first, _answer(future)
            is_over = True
        finally:
            if not is_over:
                crew.abandon()
            if executor is not None:  # its processes go on: nobody may write into the folder any more when this is over
                wait([future for _, future in waiting])


def _answer(future: Future[Done]) -> Done:
    try:
        return future.result()
    except BrokenExecutor:
        raise WorkerLost("a process that replayed a stretch has ended without an answer; try fewer --jobs") from None


def _merge(
    trace: Trace, writer: TraceWriter, plan: Plan, done: Iterator[tuple[Job, Done]], on_progress: Callable[[int], None] | None
) -> Result:
    """Captured rows among the recorded ones, stretch by stretch; then every other table."""
    recorded = {name: RecordedRows(trace.batches(name), thin_only=True) for name in plan.tables}
    first: Result | None = None
    events = 0
    for job, one in done:
        result = one.result
        first, events = first or result, events + result.events
        if not result.is_identical:
            return result
        for name in plan.tables:
            for batch in merged(name, recorded[name], part_batches(job.folder, name, one.entries)):
                writer.extend_batch(name, batch)
        shutil.rmtree(job.folder)
        if on_progress is not None:
            on_progress(result.position)
    for name in TABLES:
        rows = recorded[name] if name in recorded else RecordedRows(trace.batches(name), thin_only=not plan.keeps_thick(name))
        for batch in rows.before(None):
            writer.extend_batch(name, batch)
    assert first is not None
    return replace(result, events=events, from_position=first.from_position)
