"""How far the statistics of sets hold: false alarms stay under alpha, and a planted shift is found.

The samples are drawn by `metric_samples.Drawn` from 48 real recordings: run n from seed n, so sets of different seeds are disjoint.
"""

from __future__ import annotations

import functools
import statistics

import pytest
from metric_samples import SEEDS, Drawn, recorded, recording
from scipy import stats

from tracekit.analyzers.thresholds import Thresholds
from tracekit.analyzers.verdict import Judgement, Sample, judge_samples, whole

PAIRS, RUNS = 400, 20
ALPHA = Thresholds().alpha
ALLOWED = int(stats.binom.ppf(0.99, PAIRS, ALPHA))
PLANTED = "run.vtime_ns"
DRAWN = Drawn()


@functools.lru_cache(maxsize=1)
def pairs() -> list[tuple[list[dict[str, int]], list[dict[str, int]]]]:
    """400 disjoint pairs of sets of 20 runs: seeds 0 to 15,999."""
    runs = [DRAWN.run(seed) for seed in range(2 * PAIRS * RUNS)]
    return [(runs[2 * n * RUNS : (2 * n + 1) * RUNS], runs[(2 * n + 1) * RUNS : (2 * n + 2) * RUNS]) for n in range(PAIRS)]


def judged(a: list[dict[str, int]], b: list[dict[str, int]], names: list[str], planted: float = 1.0) -> list[Judgement]:
    """Two sets by some metrics, PLANTED of the second scaled."""
    return judge_samples(
        [
            Sample(DRAWN.metric(name), tuple(run[name] for run in a), tuple(round(run[name] * (planted if name == PLANTED else 1)) for run in b))
            for name in names
        ],
        Thresholds(),
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, SEEDS - 1])
def test_the_recordings_are_real(seed: int) -> None:
    """Recorded anew, they are as they are kept."""
    assert recorded()[seed] == recording(seed)


def test_drawn_runs_resemble_recorded_ones() -> None:
    """Mean and deviation of every metric, and how two of them hang together."""
    runs = [DRAWN.run(seed) for seed in range(4000)]
    for name in DRAWN.names:
        real, drawn = [float(run[name] or 0) for run in recorded()], [run[name] for run in runs]
        spread = statistics.stdev(real)
        assert statistics.fmean(drawn) == pytest.approx(statistics.fmean(real), abs=0.1 * spread + 1)
        assert statistics.stdev(drawn) == pytest.approx(spread, rel=0.1, abs=1)
    together = [("run.instructions", "life.run_ns"), ("steal.total_ns", "life.wait_ns")]
    assert all(stats.pearsonr([run[a] for run in runs], [run[b] for run in runs]).statistic > 0.7 for a, b in together)
    varying = [name for name in DRAWN.names if len({run[name] for run in runs}) > 1]
    assert len(varying) >= 15 and PLANTED in varying


def test_false_findings_of_whole_comparisons() -> None:
    """All metrics together, as `tracekit compare A B` judges them: any false regression at all counts."""
    found = [whole(judged(a, b, DRAWN.names)) for a, b in pairs()]
    assert sum(verdict in ("worse", "different") for verdict in found) <= ALLOWED
    assert {"same", "inconclusive"} & set(found)


@pytest.mark.parametrize("name", ["run.vtime_ns", "steal.total_ns", "wait.max_ns", "sched.preemptions"])
def test_false_findings_of_one_metric(name: str) -> None:
    """One metric alone, as with --metric: there is nothing to correct for, and alpha is used up."""
    found = [judged(a, b, [name])[0] for a, b in pairs()]
    wrong = sum(one.verdict in ("worse", "better", "different") for one in found)
    assert wrong <= ALLOWED
    assert sum((one.p or 1) <= 0.5 for one in found) > PAIRS / 4  # the test is not merely blind


@pytest.mark.parametrize(("scale", "verdict"), [(1.05, "worse"), (0.95, "better")])
def test_a_planted_shift_is_found(scale: float, verdict: str) -> None:
    """5 % among all metrics, n = 20; inconclusive counts as a miss."""
    found = [one.verdict for a, b in pairs() for one in judged(a, b, DRAWN.names, scale) if one.name == PLANTED]
    assert len(found) == PAIRS and found.count(verdict) >= 0.8 * PAIRS


def test_a_planted_shift_in_real_recordings() -> None:
    """24 recordings against the 24 others: nothing without the shift, found with it."""
    runs = [{name: run[name] or 0 for name in DRAWN.names} for run in recorded()]
    a, b = runs[0::2], runs[1::2]
    assert whole(judged(a, b, DRAWN.names)) in ("same", "inconclusive")
    assert {one.name for one in judged(a, b, DRAWN.names, 1.05) if one.verdict == "worse"} == {PLANTED}
