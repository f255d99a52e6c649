"""One trace into one of the formats."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.analyzers.export.output import fresh, sink
from tracekit.analyzers.export.window import Window
from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.formats.tables import TABLES
from tracekit.formats.units import plain

SUFFIXES = {"perfetto": ".pftrace", "chrome": ".trace.json", "parquet": ".parquet", "csv": ".csv"}
TIMELINES = ("perfetto", "chrome")
SHOWN = ("schedule", "directives", "hypercalls", "pvtime", "interrupts", "console", "inputs")  # tables that a timeline can show


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. counts: rows of each table, or of a timeline's slices, switches, instants, counter samples, flows; size in bytes."""

    trace: str
    to: str
    output: Path
    size: int
    counts: dict[str, int]
    window: Window

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "trace": self.trace, "to": self.to, "output": str(self.output), "bytes": self.size, "counts": self.counts,
            "window": self.window.as_json(),
        }  # fmt: skip


def default_output(trace: Path, to: str) -> Path:
    """RUN.tkt as RUN with the format's suffix, in the present folder."""
    return Path(run_name(trace) + SUFFIXES[to])


def run_name(trace: Path) -> str:
    """A trace's name without its suffix."""
    return plain(trace.resolve().name).removesuffix(".tkt").removesuffix(".packed") or "run"


def export(
    path: Path | str,
    to: str,
    output: Path | str | None = None,
    *,
    tables: Sequence[str] | None = None,
    window: Window | None = None,
    force: bool = False,
    symbols: Path | str | None = None,
    tell: Callable[[int, int], None] = lambda position, vtime_ns: None,
) -> Exported:
    """Write a trace as perfetto, chrome, parquet or csv. The same trace gives the same bytes.

    output: a file for perfetto and chrome (packed by gzip if its name ends with .gz), a folder for parquet and csv; default: beside the caller,
    under the trace's name. tables: which ones (default: all that the format can show). symbols: name each pc of a timeline, by an ELF file, or ""
    for the kernel Image's own names. tell: called with position and vtime now and then.
    Errors: InputError, TraceExistsError, DiskError, TraceDamaged and the others of `Trace.open`.
    """
    if to not in SUFFIXES:
        raise InputError(f"no format {to!r}; there are {', '.join(SUFFIXES)}")
    path, window = Path(path), window or Window()
    output = Path(output) if output is not None else default_output(path, to)
    is_timeline = to in TIMELINES
    known = SHOWN if is_timeline else tuple(TABLES)
    chosen = known if tables is None else tuple(name for name in known if name in tables)
    if wrong := [name for name in tables or () if name not in known]:
        raise InputError(f"no table {wrong[0]!r} for {to}; there are {', '.join(known)}")
    if not chosen:
        raise InputError("no table is left to export")
    if is_timeline:
        require(to)
    elif symbols is not None:
        raise InputError(f"symbols are for {' and '.join(TIMELINES)}, not for {to}")
    trace = Trace.open(path)
    try:
        with fresh(output, path, force=force, is_folder=not is_timeline) as place:
            if is_timeline:
                names = None if symbols is None else _names(trace, symbols)
                counts = _timeline(trace, to, place, run_name(path), chosen, window, output.name.endswith(".gz"), tell, names)
            else:
                counts = _folder(trace, to, place, run_name(path), chosen, window, tell)
        size = sum(file.stat().st_size for file in [output, *output.rglob("*")] if file.is_file())
    finally:
        trace.close()
    return Exported(str(path), to, output, size, counts, window)


def require(to: str) -> None:
    """Errors: InputError that names the extra which a format needs."""
    if to == "perfetto":
        try:
            importlib.import_module("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
        except ImportError as error:
            raise InputError(f'Perfetto\'s definitions are not installed ({error}): pip install "tracekit[perfetto]"') from None


def _timeline(
    trace: Trace,
    to: str,
    place: Path,
    run: str,
    tables: Sequence[str],
    window: Window,
    is_packed: bool,
    tell: Callable[[int, int], None],
    names: Callable[[int | None], str | None] | None,
) -> dict[str, int]:
    from tracekit.analyzers.export.painter import Painter
    from tracekit.analyzers.export.timeline import paint

    with sink(place, is_packed=is_packed) as file:
        painter: Painter
        if to == "perfetto":
            from tracekit.analyzers.export.perfetto import Perfetto

            painter = Perfetto(file)
        else:
            from tracekit.analyzers.export.chrome import Chrome

            painter = Chrome(file)
        return paint(trace, painter, run, tables, window, tell, names=names)


def _names(trace: Trace, given: Path | str) -> Callable[[int | None], str | None]:
    from tracekit.symbols.symbols import Symbols

    return Symbols.for_trace(trace, given or None).text


def _folder(
    trace: Trace, to: str, place: Path, run: str, tables: Sequence[str], window: Window, tell: Callable[[int, int], None]
) -> dict[str, int]:
    from tracekit.analyzers.export.folders import write_csv, write_index, write_parquet

    write = write_parquet if to == "parquet" else write_csv
    counts = write(trace, place, run, tables, window, tell)
    write_index(trace, place, to, run, window, counts)
    return counts
