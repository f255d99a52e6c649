"""Who wrote to an address, as a frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "position": pl.UInt64, "vtime_ns": pl.UInt64, "vcpu": pl.UInt16, "pc": pl.UInt64, "ipa": pl.UInt64, "size": pl.UInt8,
    "value": pl.UInt64, "origin": pl.String, "cause": pl.String, "table": pl.String, "row": pl.UInt64, "command": pl.String,
}  # fmt: skip


def writes_frame(writes: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Writes by column name, in their order.

    columns: position u64, vtime_ns u64, vcpu u16?, pc u64?, ipa u64?, size u8?, value u64?, origin str (guest, host, directive), cause str?;
    the proof: table str, row u64? (null: a replay made the row), command str.
    """
    return pl.DataFrame([dict(one) for one in writes], schema=_SCHEMA)
