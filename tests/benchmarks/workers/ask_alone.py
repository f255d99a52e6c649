"""polars or pyarrow alone answers who wrote an address: ask_alone.py polars|pyarrow TRACE IPA. Prints rows found and wall seconds, imports left out."""

from __future__ import annotations

import json
import sys
import time


def by_polars(path: str, ipa: int) -> int:
    """scan_ipc and a filter: every batch is read."""
    import polars as pl

    start = time.perf_counter()
    column = pl.col("ipa")
    found = pl.scan_ipc(path).filter((column <= ipa) & (column + pl.col("size") > ipa)).collect().height
    return tell(found, start)


def by_pyarrow(path: str, ipa: int) -> int:
    """Batch by batch: the two columns that decide, then the rows that match."""
    import pyarrow as pa
    import pyarrow.compute as pc

    start, found = time.perf_counter(), 0
    with pa.OSFile(path) as file:
        names = pa.ipc.open_file(file).schema.names
        options = pa.ipc.IpcReadOptions(included_fields=[names.index("ipa"), names.index("size")])
        reader = pa.ipc.open_file(file, options=options)
        for index in range(reader.num_record_batches):
            ipas, sizes = reader.get_batch(index).columns
            ends = pc.add(ipas, pc.cast(sizes, pa.uint64()))
            matches = pc.and_(pc.less_equal(ipas, pa.scalar(ipa, pa.uint64())), pc.greater(ends, pa.scalar(ipa, pa.uint64())))
            found += pc.sum(matches).as_py() or 0
    return tell(found, start)


def tell(found: int, start: float) -> int:
    """Print it."""
    print(json.dumps({"rows": found, "wall_s": time.perf_counter() - start}))
    return 0


if __name__ == "__main__":
    sys.exit({"polars": by_polars, "pyarrow": by_pyarrow}[sys.argv[1]](f"{sys.argv[2]}/memory_writes.arrow", int(sys.argv[3], 0)))
