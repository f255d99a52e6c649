"""Replaying a trace, or a part of it, for its verdict: in one process, or its intervals in several with exactly the same verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from tracekit.formats.errors import InputError, TraceDamaged
from tracekit.formats.reader import Trace
from tracekit.replay import timings
from tracekit.replay.divergence import Result
from tracekit.replay.options import ReplayOptions
from tracekit.replay.session import Replay
from tracekit.replay.shares import Share, deal
from tracekit.replay.workers import tell_progress, workers

OnProgress = Callable[[int], None]
OnNote = Callable[[str], None]


def verify(
    trace: Trace,
    options: ReplayOptions,
    *,
    jobs: int = 1,
    executor: Executor | None = None,
    on_progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> Result:
    """The verdict on an open trace, all of whose files are checked. on_note: told what a user should know beside it.

    jobs: processes (or tasks of the executor) that work side by side. Errors: InputError, TraceDamaged, WorkerLost.
    """
    if jobs < 1:
        raise InputError(f"jobs = {jobs}: at least one process must do the work")
    start = _start(trace, options, on_note or _nothing)
    if jobs > 1:
        shares = _shares(trace, options, start, jobs)
        if len(shares) > 1:
            return _in_parallel(trace, options, shares, executor, on_progress)
        (on_note or _nothing)("no checkpoints in that stretch to divide the work at: one process does it")
    trace.check_all()
    return _serially(trace, options, start, on_progress)


def _nothing(note: str) -> None:
    pass


def _start(trace: Trace, options: ReplayOptions, on_note: OnNote) -> int | None:
    """The checkpoint that the replay goes on from. Errors: InputError."""
    if not options.from_position:
        return None
    end = int(trace.manifest["end"]["position"])
    if options.from_position > end:
        raise InputError(f"from_position = {options.from_position}: the recording ends at position {end}")
    k = trace.checkpoints().at_or_before(options.from_position)
    if k is None:
        on_note(f"no checkpoint at or before position {options.from_position}: replaying from the beginning")
    return k


def _shares(trace: Trace, options: ReplayOptions, start: int | None, jobs: int) -> list[Share]:
    end = int(trace.manifest["end"]["position"])
    to = end + 1 if options.to_position is None or options.to_position >= end else options.to_position
    return deal(trace.checkpoints().entries, _key(trace), start, to, jobs)


def _key(trace: Trace) -> str:
    return str(trace.manifest["digest"])


def _serially(trace: Trace, options: ReplayOptions, start: int | None, on_progress: OnProgress | None) -> Result:
    watch = timings.Stopwatch()
    session = Replay(trace, options, start=start, on_progress=on_progress, on_checkpoint=watch.lap)
    try:
        result = session.run()
    finally:
        session.board.close()
    _keep(trace, result, watch)
    return result


def _keep(trace: Trace, result: Result, watch: timings.Stopwatch) -> None:
    count = len(trace.checkpoints().entries)
    if result.is_identical and count:
        if result.is_whole:
            watch.lap(count)
        timings.keep(_key(trace), count + 1, watch.laps)


# --- in parallel --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a share. result None: its checkpoint could not be gone on from. laps: processor seconds by interval."""

    result: Result | None
    laps: dict[int, float]


def verify_share(path: str, options: ReplayOptions, share: Share, number: int) -> Answer:
    """The task of a worker: it checks the hash of what it reads. Errors: TraceDamaged."""
    trace = Trace.open(path)
    try:
        begin = trace.checkpoints().entries[share.start].position if share.start is not None else 0
        watch = timings.Stopwatch()
        try:
            session = Replay(
                trace,
                options,
                start=share.start,
                stop=share.stop,
                on_progress=lambda position: tell_progress(number, position - begin),
                on_checkpoint=watch.lap,
            )
        except TraceDamaged:
            if share.start is None:
                raise
            return Answer(None, {})
        try:
            result = session.run()
            if result.is_identical and share.stop is None and result.is_whole:
                watch.lap(len(trace.checkpoints().entries))
            tell_progress(number, result.position - begin)
            return Answer(result, watch.laps)
        finally:
            session.board.close()
    finally:
        trace.close()


def _in_parallel(
    trace: Trace, options: ReplayOptions, shares: Sequence[Share], executor: Executor | None, on_progress: OnProgress | None
) -> Result:
    """The first share, in order, that is not identical has the first divergence: the ones before it prove the state that it began with."""
    first = trace.checkpoints().entries[shares[0].start].position if shares[0].start is not None else 0
    path = str(trace.path.absolute())
    laps: dict[int, float] = {}
    events = 0
    result: Result | None = None
    with workers(len(shares), executor) as crew:
        for number, share in enumerate(shares):
            crew.submit(verify_share, path, options, share, number)
        trace.check_all(unpacks_images=False)  # each worker does
        for answer in crew.answers(None if on_progress is None else lambda parts: on_progress(first + sum(parts))):
            assert isinstance(answer, Answer)
            if answer.result is None:
                result = None
                break
            events += answer.result.events
            laps |= answer.laps
            result = replace(answer.result, events=events, from_position=first)
            if not result.is_identical:
                break
        if result is None or not result.is_identical:
            crew.abandon()
    if result is None:  # a checkpoint whose content is not what its digests say: it is compared all the same, by going past it
        return _serially(trace, options, shares[0].start, on_progress)
    if result.is_identical:
        timings.keep(_key(trace), len(trace.checkpoints().entries) + 1, laps)
    return result
