"""How far a long command has come: a bar on a terminal, plain lines, or nothing. All on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tracekit.formats.units import format_ns


class Display(Protocol):
    """Where progress is told."""

    def tell(self, position: int, vtime_ns: int) -> None:
        """The run has come to this position and virtual time."""


class _Silent:
    def tell(self, position: int, vtime_ns: int) -> None:
        pass


class _Lines:
    def tell(self, position: int, vtime_ns: int) -> None:
        print(f"progress position {position} vtime_ns {vtime_ns}", file=sys.stderr, flush=True)


@contextmanager
def progress_for(kind: str, title: str, total: int | None = None) -> Iterator[Display]:
    """kind: auto (a bar if stderr is a terminal), plain, none. total: the position at which the work is done, if known."""
    if kind == "plain":
        yield _Lines()
        return
    if kind == "none" or not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[where]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total, where="")

        class Bar:
            def tell(self, position: int, vtime_ns: int) -> None:
                where = f"{position / 1e6:,.0f} M instructions" + (f", {format_ns(vtime_ns)}" if vtime_ns else "")
                progress.update(task, completed=position if total is not None else 0, where=where)

        yield Bar()
