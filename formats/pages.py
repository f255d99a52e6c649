"""Which 4 KiB pages the rows of a batch touch, in a few ranges: whoever looks for an address leaves the other batches unread.

Spec: formats/SPEC.md 2, "pages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracekit.formats.tables import TABLES

TABLES_WITH_PAGES = frozenset({"memory_writes", "memory_reads"})
RANGES_MAX = 32
ROWS_MIN = 512  # a smaller batch is read as quickly as its ranges
PAGE_SHIFT = 12


def page_ranges(ipa: Any) -> list[list[int]]:
    """[first, last] page (ipa >> 12) of at most RANGES_MAX ranges that hold all of these addresses, ascending, parted by the widest gaps.

    ipa: a pyarrow array of u64 without nulls, not empty.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    pages = pc.unique(pc.shift_right(ipa, pa.scalar(PAGE_SHIFT, pa.uint64())))
    pages = pages.take(pc.array_sort_indices(pages))
    steps = pc.subtract(pages.slice(1), pages.slice(0, len(pages) - 1))
    cuts = pc.indices_nonzero(pc.greater(steps, pa.scalar(1, pa.uint64())))
    if len(cuts) >= RANGES_MAX:
        widest = pc.array_sort_indices(steps.take(cuts), order="descending")
        cuts = cuts.take(widest.slice(0, RANGES_MAX - 1))
    ends = sorted(cuts.to_pylist())
    firsts = pages.take(pa.array([0, *(at + 1 for at in ends)], pa.uint64())).to_pylist()
    lasts = pages.take(pa.array([*ends, len(pages) - 1], pa.uint64())).to_pylist()
    return [list(pair) for pair in zip(firsts, lasts, strict=True)]


def pages_entry(table: str, batch: Any) -> dict[str, list[list[int]]]:
    """What the manifest says of a batch's addresses; nothing for other tables and for small batches."""
    if table not in TABLES_WITH_PAGES or batch.num_rows < ROWS_MIN:
        return {}
    return {"pages": page_ranges(batch.column(TABLES[table].index("ipa")))}


def may_touch(entry: Mapping[str, Any], begin: int, end: int) -> bool:
    """Whether a batch may have a row whose address lies in [begin, end); True where its entry does not say."""
    ranges = entry.get("pages")
    if ranges is None:
        return True
    first, last = begin >> PAGE_SHIFT, (end - 1) >> PAGE_SHIFT
    return any(low <= last and high >= first for low, high in ranges)


def check_pages(entry: Mapping[str, Any]) -> None:
    """Errors: ValueError, TypeError where a batch's ranges have not the form that SPEC gives them."""
    ranges = entry.get("pages")
    if ranges is None:
        return
    if not isinstance(ranges, list) or not 1 <= len(ranges) <= RANGES_MAX:
        raise ValueError("the pages of a batch are no list of ranges")
    before = -1
    for low, high in ranges:
        for page in (low, high):
            if not isinstance(page, int) or isinstance(page, bool) or not 0 <= page < 1 << 64 - PAGE_SHIFT:
                raise ValueError(f"{page!r} is no page")
        if not before < low <= high:
            raise ValueError("the pages of a batch are out of order")
        before = high


def outside(entry: Mapping[str, Any], ipa: Any) -> int | None:
    """An address of these (a pyarrow array) that a batch's ranges do not hold; None: they hold all."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ranges = entry.get("pages")
    if ranges is None or not len(ipa):
        return None
    pages = pc.shift_right(ipa, pa.scalar(PAGE_SHIFT, pa.uint64()))
    for page in sorted(pc.unique(pages).to_pylist()):
        if not any(low <= page <= high for low, high in ranges):
            return int(page) << PAGE_SHIFT
    return None
