"""Work that is handed over: one background thread does it in order, a bounded queue in front of it holds the giver back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

QUEUE_BYTES = 12 << 20
INLINE_BYTES = 1 << 20


def _nothing() -> None:
    pass


class Worker:
    """Does jobs one after another, in the order in which they were put.

    A job weighs the bytes of memory that it keeps until it is done. The first INLINE_BYTES of all are done at once, by the caller:
    a small run starts no thread. From then on a thread does them; while jobs of QUEUE_BYTES wait, put() does. What is done in which
    order depends on the calls alone, never on the thread's pace.
    """

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.weight_max = 0  # the most bytes that ever waited at once
        self._jobs: deque[tuple[Callable[[], None], int, Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._done_inline = 0
        self._weight = 0
        self._is_ending = False

    @property
    def has_thread(self) -> bool:
        """Whether there was enough work for a thread."""
        return self._thread is not None

    def check(self) -> None:
        """Errors: what a job raised."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    def put(self, job: Callable[[], None], weight: int = 0, release: Callable[[], None] = _nothing) -> None:
        """Have a job done; waits while the queue is full. release is called, from any thread, when the job is over, done or not.

        Errors: what an earlier job raised; or this one, where it is done at once. An interrupted wait loses nothing.
        """
        if self._thread is None and self.failure is None:
            if self._done_inline + weight <= INLINE_BYTES:
                self._done_inline += weight
                self._do(job, release)
                self.check()
                return
            self._thread = threading.Thread(target=self._work, name="trace-writer", daemon=True)
            self._thread.start()
        with self._changed:
            try:
                while self._weight and self._weight + weight > QUEUE_BYTES and self.failure is None:
                    self._changed.wait()
            finally:
                is_taken = self.failure is None
                if is_taken:
                    self._jobs.append((job, weight, release))
                    self._weight += weight
                    self.weight_max = max(self.weight_max, self._weight)
                    self._changed.notify_all()
        if not is_taken:
            release()
            self.check()

    def finish(self) -> None:
        """Wait until everything is done, and end the thread. Errors: what a job raised."""
        self.end()
        self.check()

    def end(self, *, discard: bool = False) -> None:
        """End the thread behind all jobs, or (discard) behind the one in hand; raises nothing. May be called again, and from anywhere."""
        if discard:
            self._drop_jobs()
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _do(self, job: Callable[[], None], release: Callable[[], None]) -> None:
        try:
            if self.failure is None:
                job()
        except BaseException as error:  # it belongs to the giver: put() raises it
            self.failure = error
        finally:
            release()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._is_ending:
                    self._changed.wait()
                if not self._jobs:
                    return
                job, weight, release = self._jobs.popleft()
            self._do(job, release)
            del job, release
            with self._changed:
                self._weight -= weight
                self._changed.notify_all()
            if self.failure is not None:  # nothing is put from now on
                self._drop_jobs()
                return

    def _drop_jobs(self) -> None:
        with self._changed:
            dropped = list(self._jobs)
            self._jobs.clear()
            self._weight -= sum(weight for _, weight, _ in dropped)
        for _, _, release in dropped:
            release()
