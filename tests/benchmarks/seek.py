"""Seeking in a recorded boot: from nothing to the machine as it was at a random position. python tests/benchmarks/seek.py

Measured in the time that the recorded run took for 100 M and 300 M instructions (its mean rate, wall clock). Warm: one process has the session open and seeks
again and again. Cold: every seek is a process of its own, from Python's start on.
"""

from __future__ import annotations

import json
import random
import statistics

from bench import Bench
from figures import Result
from harness import NotAvailableError, measure, percentile
from run import main

SEED = 5
POSITIONS = 40
NEAR, FAR = 100_000_000, 300_000_000


def run(bench: Bench) -> list[Result]:
    """The same positions both ways."""
    keys = ("seek_median", "seek_p95", "seek_cold_median", "seek_cold_p95")
    try:
        bench.needs("replay", "--from")
    except NotAvailableError as error:
        return [Result.missing(key, str(error)) for key in keys]
    trace, recorded, count = bench.the_boot()
    each = statistics.median(one.wall_s for one in recorded) / count
    draw = random.Random(SEED)
    positions = [draw.randrange(count) for _ in range(10 if bench.quick else POSITIONS)]
    warm_command = bench.worker("session", trace, *positions)
    told = json.loads(measure(warm_command).text)
    warm = [one["wall_s"] for one in told["seeks"]]
    cold_command = bench.worker("session", trace, positions[0])
    cold = [measure(bench.worker("session", trace, at)).wall_s for at in positions]
    checkpoints, opening = told["checkpoints"], told["opened_s"] * 1e3
    note = f"{len(positions)} positions of {count:,} (seed {SEED}), {checkpoints} checkpoints; opening {opening:,.0f} ms; 100 M instructions: {each * NEAR * 1e3:,.0f} ms"

    def result(key: str, values: list[float], share: float, of: int, command: list[str]) -> Result:
        at = percentile(values, share) if share != 0.5 else statistics.median(values)
        told = f"{at * 1e3:,.0f} ms; {note}"
        return Result(key, at / (each * of), [one / (each * of) for one in values], command, told, None, command)

    return [
        result("seek_median", warm, 0.5, NEAR, warm_command),
        result("seek_p95", warm, 0.95, FAR, warm_command),
        result("seek_cold_median", cold, 0.5, NEAR, cold_command),
        result("seek_cold_p95", cold, 0.95, FAR, cold_command),
    ]


if __name__ == "__main__":
    main(["--only", "seek"])
