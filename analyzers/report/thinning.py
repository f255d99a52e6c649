"""What of a million pieces a page keeps, so that it opens fluently and loses no finding. Pure arithmetic over frames.

A page holds every piece where they are few. Where they are many it keeps, exactly, the longest ones of each thread and state, those around
each marked time (findings, the worst error), and then the longest of all as far as the budget reaches; what is left is merged into bins of
equal length that hold each state's share of the time. Shares are counted over *all* pieces: together the bins tell the whole time.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import polars as pl

from tracekit.analyzers.events import RUNS

PIECES_MAX = 12_000  # of a run, exactly
LONGEST = 20  # of each thread and state, always
AROUND = 12  # of each thread on either side of each marked time, always
BINS_MAX = 4_096  # of a lane
BINS_TOTAL = 262_144  # of a run: bytes


@dataclass(frozen=True, slots=True)
class Thinned:
    """kept: pieces that the page holds, as in `lanes.pieces_of`. total: how many there were. bin_ns: length of a bin; 0: nothing was merged.

    vcpus: {thread: {state: shares}}, pcpus: {pcpu: {thread: shares}}: a byte (0 to 255) for each bin, in base64; a share that is not 0 is at
    least 1.
    """

    kept: pl.DataFrame
    total: int
    bin_ns: int
    vcpus: dict[int, dict[str, str]]
    pcpus: dict[int, dict[int, str]]


def thin(
    pieces: pl.DataFrame,
    marks_ns: list[int],
    begin_ns: int,
    end_ns: int,
    *,
    pieces_max: int = PIECES_MAX,
    bins_max: int = BINS_MAX,
) -> Thinned:
    """marks_ns: times around which everything is kept. pieces: all of [begin_ns, end_ns), sorted as made."""
    if pieces.height <= pieces_max:
        return Thinned(pieces, pieces.height, 0, {}, {})
    keep = _kept(pieces, marks_ns, pieces_max)
    ran = pieces.filter(pl.col("state").is_in(list(RUNS)), pl.col("pcpu").is_not_null()).sort("pcpu", "thread", "start_ns")
    rows = pieces.select("thread", "state").n_unique() + ran.select("pcpu", "thread").n_unique()
    count = max(64, min(bins_max, BINS_TOTAL // rows))
    bin_ns = max(1, -(-(end_ns - begin_ns) // count))
    edges = pl.Series([begin_ns + bin_ns * index for index in range(-(-(end_ns - begin_ns) // bin_ns) + 1)], dtype=pl.Int64)
    vcpus: dict[int, dict[str, str]] = {}
    pcpus: dict[int, dict[int, str]] = {}
    for (thread, state), group in pieces.group_by("thread", "state", maintain_order=True):
        vcpus.setdefault(int(str(thread)), {})[str(state)] = _shares(group, edges, bin_ns)
    for (pcpu, thread), group in ran.group_by("pcpu", "thread", maintain_order=True):
        pcpus.setdefault(int(str(pcpu)), {})[int(str(thread))] = _shares(group, edges, bin_ns)
    return Thinned(pieces.filter(keep), pieces.height, bin_ns, vcpus, pcpus)


def _kept(pieces: pl.DataFrame, marks_ns: list[int], pieces_max: int) -> pl.Series:
    """Which pieces stay as they are."""
    length = pieces["end_ns"] - pieces["start_ns"]
    frame = pieces.select("thread", "state", "start_ns", "end_ns", length=length).with_row_index("index")
    always = {
        int(index)
        for index in frame.sort(["thread", "state", "length", "index"], descending=[False, False, True, False])
        .group_by("thread", "state", maintain_order=True)
        .head(LONGEST)["index"]
    }
    for _, group in frame.group_by("thread", maintain_order=True):
        for at in marks_ns:
            near = int(group["start_ns"].search_sorted(at, "right"))
            always.update(group["index"].slice(max(0, near - AROUND), min(near, AROUND) + AROUND).to_list())
    rest = pieces_max - len(always)
    most = frame.sort(["length", "index"], descending=[True, False])["length"]
    # A threshold, not a count: of pieces that are equally long either all are kept or none.
    threshold = int(most[rest]) if 0 < rest < len(most) else int(most[0])
    return (frame["length"] > threshold) | frame["index"].is_in(sorted(always))


def _shares(group: pl.DataFrame, edges: pl.Series, bin_ns: int) -> str:
    """The share of each bin that a lane's disjoint pieces take, exactly summed, then cut to a byte."""
    start, end = group["start_ns"], group["end_ns"]
    length = end - start
    before = length.cum_sum() - length
    index = start.search_sorted(edges, "right").cast(pl.Int64) - 1
    at = index.clip(lower_bound=0)
    inside = pl.DataFrame({"passed": edges - start.gather(at), "length": length.gather(at)}).min_horizontal()
    covered = (before.gather(at) + inside) * (index >= 0).cast(pl.Int64)
    shares = covered.diff().drop_nulls()
    byte = (shares * 255 // bin_ns).clip(lower_bound=(shares > 0).cast(pl.Int64), upper_bound=pl.lit(255))
    return base64.b64encode(bytes(byte.to_list())).decode()
