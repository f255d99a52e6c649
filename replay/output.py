"""A replay that writes what it sees as a new trace: the same run, perhaps with thicker columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracekit.formats.errors import TracekitError
from tracekit.formats.reader import Trace
from tracekit.formats.writer import TraceWriter
from tracekit.replay.divergence import Result
from tracekit.replay.options import ReplayOptions
from tracekit.replay.session import Replay


def output_manifest(trace: Trace, capture: str) -> dict[str, Any]:
    """The manifest of a trace that a replay writes: the same run, perhaps with thicker columns."""
    manifest = {
        key: value for key, value in trace.manifest.items() if key not in ("digest", "tables", "complete", "end", "images")
    }
    manifest["scenario"] = {**manifest["scenario"], "capture": capture}
    return manifest


def replay_to(trace: Trace, writer: TraceWriter, options: ReplayOptions, on_progress: Callable[[int], None] | None) -> Result:
    """Replay and write what is seen as a new trace; it is closed only if the replay was identical.

    Errors: TraceDamaged, DiskError.
    """
    try:
        for image in trace.manifest["images"]:
            writer.add_image(image["role"], image["name"], trace.image(image["sha256"]))
        writer.set()
        session = Replay(trace, options, writer=writer, on_progress=on_progress)
        result = session.run()
    except TracekitError:
        writer.abandon()
        raise
    if result.is_identical and result.is_whole:
        writer.close(trace.manifest["end"])
    else:
        writer.abandon()
    return result
