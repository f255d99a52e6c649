"""pyarrow alone stores the columns of a captured table: store_alone.py TRACE OUT. Prints rows, wall and CPU seconds of the storing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pyarrow as pa

ROWS_MAX = 5_000_000


def main() -> None:
    """Read up to ROWS_MAX rows into memory as they were stored, then store them: IPC file, zstd level 1, the same batches."""
    with pa.OSFile(str(Path(sys.argv[1]) / "memory_writes.arrow")) as file:
        reader = pa.ipc.open_file(file)
        batches, rows = [], 0
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            batches.append(batch)
            rows += batch.num_rows
            if rows >= ROWS_MAX:
                break
        schema = reader.schema
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1))
    wall, cpu = time.perf_counter(), time.process_time()
    with pa.OSFile(sys.argv[2], "wb") as out, pa.ipc.new_file(out, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    print(json.dumps({"rows": rows, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
