"""Samples of metrics for tests of the statistics: 48 real recordings, and a generator that draws runs which resemble them.

The recordings (tests/analyzers/recorded_metrics.json, one run a line) are of the bundled guest `steal` on a host of policy `chaos`, seeds 0 to 47:
a few thousand slices each. `python tests/metric_samples.py` records them anew (a minute).

A drawn run takes all its metrics from one recorded run (so that they hang together as real ones do) and moves each by normal noise of
0.4 of that metric's standard deviation, shrunk back so that mean and variance stay: a smoothed bootstrap. Run n is drawn from seed n alone.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import tempfile
from pathlib import Path

from support import REPOSITORY, scenario

from tracekit.analyzers.metric import Metric, metric
from tracekit.analyzers.metrics import metrics
from tracekit.formats.reader import Trace
from tracekit.host.config import HostConfig, Neighbour
from tracekit.recorder.record import record

RECORDED = REPOSITORY / "tests" / "analyzers" / "recorded_metrics.json"
SEEDS = 48
NOISE = 0.4
LEFT_OUT = ("trace.bytes", "run.end", "console.sha256")


def recording(seed: int) -> dict[str, int | None]:
    """Record a run; its metrics of the whole run that are numbers and equal everywhere."""
    host = HostConfig(pcpus=1, policy="chaos", slice_ns=100_000, neighbours=(Neighbour("neighbour0", 500_000, 200_000),))
    with tempfile.TemporaryDirectory() as folder:
        record(scenario("steal", host=host, seed=seed, ns_per_instruction=(6, 1)), Path(folder) / "a.tkt")
        found = metrics(Trace.open(Path(folder) / "a.tkt"))
    return {
        one.name: one.value for one in found if one.of is None and one.name not in LEFT_OUT and not isinstance(one.value, str)
    }


def recorded() -> list[dict[str, int | None]]:
    """The kept recordings, by seed."""
    loaded: list[dict[str, int | None]] = json.loads(RECORDED.read_text())
    return loaded


class Drawn:
    """Draws runs that resemble the recorded ones."""

    def __init__(self) -> None:
        self._runs = recorded()
        self.names = [name for name in self._runs[0] if all(run.get(name) is not None for run in self._runs)]
        columns = {name: [float(run[name] or 0) for run in self._runs] for name in self.names}
        self._mean = {name: statistics.fmean(values) for name, values in columns.items()}
        self._deviation = {name: statistics.pstdev(values) for name, values in columns.items()}

    def run(self, seed: int) -> dict[str, int]:
        """The metrics of one run."""
        source = random.Random(seed)
        base = source.choice(self._runs)
        shrink = 1 / math.sqrt(1 + NOISE**2)
        return {
            name: round(mean + ((base[name] or 0) - mean + source.gauss(0, NOISE) * self._deviation[name]) * shrink)
            for name, mean in self._mean.items()
        }

    def metric(self, name: str) -> Metric:
        """Its unit and direction."""
        return metric(name, None)


def main() -> None:
    """Record everything anew."""
    lines = []
    for seed in range(SEEDS):
        lines.append(json.dumps(recording(seed)))
        print(seed, flush=True)
    RECORDED.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
