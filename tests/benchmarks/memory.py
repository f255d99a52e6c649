"""Peak memory of recording a guest that touches all its RAM. python tests/benchmarks/memory.py

The guest fills all of its RAM but the first megabyte and the last two with words that are all different, several times over, so that each checkpoint sees
most pages changed. MB are 10^6 bytes; peaks are greatest resident sets.
"""

from __future__ import annotations

from bench import Bench
from figures import Result
from guests import RAM_BASE, stores
from harness import measure, size_of
from run import main

RAM_MIB = 256
FIRST = RAM_BASE + (1 << 20)
TOUCHED = (RAM_MIB << 20) - (3 << 20)
PASSES = 3


def run(bench: Bench) -> list[Result]:
    """Peaks beyond what the guest has, in MB."""
    guest = stores(PASSES, TOUCHED, FIRST)
    rounds = min(bench.rounds, 3)
    plain = bench.flat(guest, "touch", *bench.thin, ram=f"{RAM_MIB}M")
    beyond = [_mb(measure(plain).peak_mib) - (RAM_MIB << 20) / 1e6 for _ in range(rounds)]
    results = [Result.of("memory_plain", beyond, plain, note=f"{RAM_MIB} MiB of RAM")]
    capturing = bench.flat(stores(1, TOUCHED, FIRST), "touch", "--capture", "writes", *bench.thin, ram=f"{RAM_MIB}M")
    beyond = [_mb(measure(capturing).peak_mib) - (RAM_MIB << 20) / 1e6]
    results.append(Result.of("memory_writes", beyond, capturing, note=f"{RAM_MIB} MiB of RAM, once over, one run"))
    for key, options in (("memory_checkpoints", ()), ("memory_often", ("--checkpoint-every", "50M"))):
        if not bench.thin:
            results.append(Result.missing(key, "`tracekit record` takes no checkpoints yet"))
            continue
        command = bench.flat(guest, "touch", *options, ram=f"{RAM_MIB}M")
        beyond = [_mb(measure(command).peak_mib) - ((RAM_MIB << 20) + TOUCHED) / 1e6 for _ in range(rounds)]
        count = len(bench.info(bench.trace("touch"))["checkpoints"])
        kept = size_of(bench.trace("touch") / "checkpoints")
        note = f"{RAM_MIB} MiB of RAM, {TOUCHED >> 20} MiB touched, {count} checkpoints of {kept / 1e6:,.0f} MB"
        results.append(Result.of(key, beyond, command, note=note))
    return results


def _mb(mib: float) -> float:
    return mib * (1 << 20) / 1e6


if __name__ == "__main__":
    main(["--only", "memory"])
