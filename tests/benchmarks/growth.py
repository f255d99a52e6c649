"""The same boot 1, 4 and 16 times longer: time and log per instruction, and peak memory. python tests/benchmarks/growth.py

The init does what a boot does much of (`tracekit.loops=N`: processes that fault pages in, ask the kernel for things, compute, and end), so that longer is
more of the same mix, and not a loop that the engine runs faster than a kernel. The note tells what the instructions beyond the boot took by themselves.
"""

from __future__ import annotations

from bench import Bench
from figures import Result
from harness import Usage, interleaved, job, measure, median_of, size_of, tables_bytes
from run import main

TIMES = (1, 4, 16)
ROUNDS_MAX = 3
PROBE_LOOPS = 200


def run(bench: Bench) -> list[Result]:
    """Lengths are set by what one loop takes; default checkpoints are on."""

    def boot(name: str, loops: int) -> list[str]:
        return bench.boot(f"growth{name}", "--append", f"tracekit.readings=0 tracekit.loops={loops}")

    lengths = {}
    for loops in (0, PROBE_LOOPS):
        measure(boot("1", loops))
        lengths[loops] = bench.instructions(bench.trace("growth1"))
    each = (lengths[PROBE_LOOPS] - lengths[0]) / PROBE_LOOPS
    times = TIMES[:2] if bench.quick else TIMES
    commands = {str(n): boot(str(n), round((n - 1) * lengths[0] / each)) for n in times}
    used = interleaved({name: job(command) for name, command in commands.items()}, min(bench.rounds, ROUNDS_MAX))
    count = {name: bench.instructions(bench.trace(f"growth{name}")) for name in commands}
    bytes_ = {name: tables_bytes(bench.trace(f"growth{name}")) for name in commands}
    results = []
    for name in ("4", "16"):
        keys = [f"growth_{what}_{name}" for what in ("time", "log", "memory")]
        if name not in commands:
            results += [Result.missing(key, "left out by --quick") for key in keys]
            continue
        words = commands[name]
        grown = count[name] / count["1"]

        def per_round(by: str, name: str = name) -> list[float]:
            return [getattr(a, by) / getattr(b, by) for a, b in zip(used[name], used["1"], strict=True)]

        time = [ratio / grown for ratio in per_round("cpu_s")]
        beyond = (median_of(used[name]) - median_of(used["1"])) * 1e9 / (count[name] - count["1"])
        note = (
            f"{count[name]:,} instructions, {_ns(used[name], count[name])} ns of CPU time each; 1x: {count['1']:,}, "
            f"{_ns(used['1'], count['1'])} ns; those beyond the boot alone: {beyond:.3g} ns"
        )
        results.append(Result.of(keys[0], time, words, note=note, profiled=words))
        log = bytes_[name] / count[name] / (bytes_["1"] / count["1"])
        kept = size_of(bench.trace(f"growth{name}")) - bytes_[name] - size_of(bench.trace(f"growth{name}") / "images")
        note = f"{bytes_[name]:,} against {bytes_['1']:,} bytes of tables; {kept:,} bytes of checkpoints beside them"
        results.append(Result(keys[1], log, [log], words, note))
        peaks = [max(one.peak_mib for one in used[which]) for which in (name, "1")]
        results.append(Result.of(keys[2], per_round("peak_mib"), words, note=f"{peaks[0]:,.0f} against {peaks[1]:,.0f} MiB"))
    return results


def _ns(used: list[Usage], count: int) -> str:
    return f"{median_of(used) * 1e9 / count:.3g}"


if __name__ == "__main__":
    main(["--only", "growth"])
