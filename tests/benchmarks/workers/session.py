"""Go to positions of a recorded run, one after another, in one open session: session.py TRACE POSITION ... Prints wall and CPU seconds of each, and of opening."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tracekit.formats.reader import Trace
from tracekit.replay.seek import Session


def main() -> None:
    """Open, go, tell."""
    start = time.perf_counter()
    trace = Trace.open(Path(sys.argv[1]))
    session = Session(trace)
    opened = time.perf_counter() - start
    seeks = []
    for position in map(int, sys.argv[2:]):
        wall, cpu = time.perf_counter(), time.process_time()
        session.goto(position)
        seeks.append({"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu})
        assert session.position == position
    session.close()
    print(json.dumps({"opened_s": opened, "checkpoints": len(trace.manifest.get("checkpoints", [])), "seeks": seeks}))


if __name__ == "__main__":
    main()
