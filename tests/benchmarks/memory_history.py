"""Who wrote an address, asked of ten million writes: beyond start-up, and polars and pyarrow alone as ceilings. python tests/benchmarks/memory_history.py

The writes are scattered over 4 MiB in an order without a pattern, so that no batch can be left out by its range of addresses.
"""

from __future__ import annotations

import json

from bench import Bench
from figures import Result
from guests import BUFFER, scattered
from harness import Job, NotAvailableError, interleaved, job, measure
from run import main

WRITES, FEW = 10_000_000, 1000
ADDRESS = BUFFER + 0x1_2340


def run(bench: Bench) -> list[Result]:
    """Large and small trace in one interleaving; what is left is the asking."""
    for name, count in (("many", WRITES), ("few", FEW)):
        measure(bench.flat(scattered(count), name, "--capture", "writes", *bench.thin))
    sql = f"SELECT position, vcpu, pc, value FROM memory_writes WHERE ipa <= {ADDRESS} AND ipa + size > {ADDRESS}"
    commands = {
        "query_sql": lambda trace: bench.words("query", bench.trace(trace), sql),
        "query_last": lambda trace: bench.words("who-wrote", bench.trace(trace), hex(ADDRESS)),
        "query_history": lambda trace: bench.words("who-wrote", bench.trace(trace), hex(ADDRESS), "--limit", 1000),
    }
    missing: dict[str, str] = {}
    try:
        bench.needs("", "who-wrote")
    except NotAvailableError as error:
        missing |= dict.fromkeys(("query_last", "query_history"), str(error))
    jobs: dict[str, Job] = {}
    for key, make in commands.items():
        if key not in missing:
            jobs |= {f"{key} {trace}": job(make(trace)) for trace in ("many", "few")}
    alone = {f"query_{who}": bench.worker("ask_alone", who, bench.trace("many"), hex(ADDRESS)) for who in ("polars", "pyarrow")}
    jobs |= {name: job(words) for name, words in alone.items()}
    interleaved(jobs, 1)
    used = interleaved(jobs, bench.rounds)
    results = []
    for key, make in commands.items():
        if key in missing:
            results.append(Result.missing(key, missing[key]))
            continue
        many, few = used[f"{key} many"], used[f"{key} few"]
        values = [(a.wall_s - b.wall_s) * 1e3 for a, b in zip(many, few, strict=True)]
        words = make("many")
        results.append(
            Result.of(
                key, values, words, used=used, names=(f"{key} many", f"{key} few"), note=f"{WRITES:,} writes", profiled=words
            )
        )
    for key, words in alone.items():
        told = [json.loads(one.text) for one in used[key]]
        note = f"{told[0]['rows']} rows found, imports left out"
        results.append(Result.of(key, [one["wall_s"] * 1e3 for one in told], words, note=note))
    return results


if __name__ == "__main__":
    main(["--only", "query"])
