"""Processes that work on parts of a trace, behind the interface of concurrent.futures: another Executor can be handed in.

Tasks are plain functions with plain arguments. Whatever happens to the parent, its workers end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from tracekit.formats.errors import TracekitError

T = TypeVar("T")
LOOK_EVERY_S = 0.1  # while waiting: how often progress is told and Ctrl-C is seen


class WorkerLost(TracekitError):
    """A process that worked for us has ended without an answer."""


class _Here:
    """What a worker process knows of itself; in any other process, or under another executor, nothing."""

    progress: Any = None
    parent: int | None = None


def tell_progress(slot: int, value: int) -> None:
    """From a task: how far it has come. A worker whose parent is gone ends here."""
    if _Here.progress is not None and slot < len(_Here.progress):
        _Here.progress[slot] = value
    if _Here.parent is not None and os.getppid() != _Here.parent:
        os._exit(2)


def _begin_worker(progress: Any, parent: int) -> None:
    """Ctrl-C is the parent's to handle; it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Here.progress, _Here.parent = progress, parent


def _context() -> BaseContext:
    """A fork has everything imported already; a process with several threads must not fork."""
    if sys.platform == "linux" and threading.active_count() == 1:
        return multiprocessing.get_context("fork")
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tracekit.replay.session"])
        return context
    return multiprocessing.get_context("spawn")


class Workers:
    """Runs tasks and gives their answers in the order in which they were submitted."""

    def __init__(self, executor: Executor, progress: Sequence[int]) -> None:
        self._executor = executor
        self._progress = progress
        self._futures: list[Future[Any]] = []
        self.is_abandoned = False

    def submit(self, task: Callable[..., T], *arguments: Any) -> Future[T]:
        """One more task. Errors: TracekitError where no process can be had."""
        try:
            future = self._executor.submit(task, *arguments)
        except (OSError, BrokenExecutor) as error:
            raise WorkerLost(f"cannot start worker processes ({error}); try without --jobs") from None
        self._futures.append(future)
        return future

    def answers(self, on_progress: Callable[[Sequence[int]], None] | None = None) -> Iterator[Any]:
        """Each task's answer, in order; on_progress is told what the tasks told of themselves, now and then.

        Errors: whatever the task raised; WorkerLost.
        """
        for future in self._futures:
            while not future.done():
                wait(self._pending(future), timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
                if on_progress is not None:
                    on_progress(self._progress)
            try:
                answer = future.result()
            except BrokenExecutor:
                raise WorkerLost(
                    "a worker process ended without an answer (killed, or out of memory); fewer --jobs need less memory"
                ) from None
            yield answer

    def _pending(self, first: Future[Any]) -> list[Future[Any]]:
        return [future for future in self._futures if not future.done()] or [first]

    def abandon(self) -> None:
        """No more answers are wanted: what works is ended."""
        self.is_abandoned = True
        self.cancel()

    def cancel(self) -> None:
        """Drop what has not begun."""
        for future in self._futures:
            future.cancel()


@contextmanager
def workers(count: int, executor: Executor | None = None) -> Iterator[Workers]:
    """`count` processes, or what the given executor has (it is not shut down). Left early, unfinished tasks are ended."""
    if executor is not None:
        lent = Workers(executor, ())
        try:
            yield lent
        finally:
            lent.cancel()
        return
    context = _context()
    before = set(multiprocessing.active_children())
    try:
        progress = context.RawArray("Q", count)
        pool = ProcessPoolExecutor(count, context, _begin_worker, (progress, os.getpid()))
    except (OSError, NotImplementedError, ImportError) as error:
        raise WorkerLost(f"cannot start worker processes ({error}); try without --jobs") from None
    crew = Workers(pool, progress)
    try:
        yield crew
    except BaseException:
        crew.is_abandoned = True
        raise
    finally:
        if crew.is_abandoned:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
