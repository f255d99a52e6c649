"""All guest writes, from the guest to Arrow on disk: a store loop, a window of the Linux boot, and pyarrow alone as the ceiling. python tests/benchmarks/capture.py"""

from __future__ import annotations

import json

from bench import Bench
from figures import Result
from guests import store_count, stores
from harness import BenchmarkError, NotAvailableError, interleaved, job, measure
from run import main

PASSES, BUFFER_BYTES = 40, 4 << 20
WINDOW = 100_000_000


def run(bench: Bench) -> list[Result]:
    """Rates are of whole processes, their start within; pyarrow's is of its storing alone."""
    command = bench.flat(stores(PASSES, BUFFER_BYTES), "stores", "--capture", "writes", *bench.thin)
    alone = bench.worker("store_alone", bench.trace("stores"), bench.folder / "alone.arrow")
    count = store_count(PASSES, BUFFER_BYTES)
    jobs = {"capture": job(command), "alone": job(alone)}
    interleaved(jobs, 1)
    used = interleaved(jobs, bench.rounds)
    stored = [json.loads(one.text) for one in used["alone"]]
    ceiling = [one["rows"] / one["wall_s"] for one in stored]
    note = f"{count:,} writes"
    return [
        Result.of(
            "capture_store", [count / one.wall_s for one in used["capture"]], command, used=used, names=("capture",), note=note,
            profiled=command,
        ),
        Result.of("capture_store_cpu", [count / one.cpu_s for one in used["capture"]], command, note=note),
        Result.of("store_ceiling", ceiling, alone, note=f"{stored[0]['rows']:,} rows, IPC file, zstd level 1"),
        _linux(bench),
    ]  # fmt: skip


def _linux(bench: Bench) -> Result:
    """A window in the middle of the boot, captured later from the thin recording."""
    try:
        bench.needs("replay", "--from")
        return _window(bench)
    except (NotAvailableError, BenchmarkError) as error:
        return Result.missing("capture_linux", str(error))


def _window(bench: Bench) -> Result:
    trace, _, count = bench.the_boot()
    first = count // 4
    words = bench.words(
        "replay", trace, "--capture", "writes", "--from", first, "--to", first + WINDOW, "-o", bench.trace("window"), "--force"
    )
    measure(words)
    used = interleaved({"window": job(words)}, bench.rounds)
    rows = int(bench.info(bench.trace("window"))["tables"]["memory_writes"]["rows"])
    note = f"{rows:,} writes of {WINDOW:,} instructions"
    return Result.of(
        "capture_linux", [rows / one.wall_s for one in used["window"]], words, used=used, names=("window",), note=note
    )


if __name__ == "__main__":
    main(["--only", "capture"])
