"""The same boot 1, 4 and 16 times longer: time and log per instruction, and peak memory. python tests/benchmarks/growth.py

The init does what a boot does much of (`tracekit.loops=N`: processes that fault pages in, ask the kernel for things, compute, and end), for as many
instructions as the boot has, for 4 and for 16 times as many. What the boot itself takes is subtracted from time and log, so that the same work is compared.
"""

from __future__ import annotations

from bench import Bench
from figures import Result
from harness import interleaved, job, measure, median_of, size_of, tables_bytes
from run import main

TIMES = (1, 4, 16)
ROUNDS_MAX = 3
PROBE_LOOPS = 200


def run(bench: Bench) -> list[Result]:
    """Lengths are set by what one loop takes; default checkpoints are on."""

    def boot(name: str, loops: int) -> list[str]:
        return bench.boot(f"growth{name}", "--append", f"tracekit.readings=0 tracekit.loops={loops}")

    measure(boot("0", PROBE_LOOPS))
    probed = bench.instructions(bench.trace("growth0"))
    measure(boot("0", 0))
    length = bench.instructions(bench.trace("growth0"))
    each = (probed - length) / PROBE_LOOPS
    commands = {"0": boot("0", 0)}
    for n in TIMES[:2] if bench.quick else TIMES:
        commands[str(n)] = boot(str(n), round(n * length / each))
    used = interleaved({name: job(command) for name, command in commands.items()}, min(bench.rounds, ROUNDS_MAX))
    count = {name: bench.instructions(bench.trace(f"growth{name}")) for name in commands}
    tables = {name: tables_bytes(bench.trace(f"growth{name}")) for name in commands}

    def ns_each(name: str, index: int) -> float:
        return (used[name][index].cpu_s - used["0"][index].cpu_s) * 1e9 / (count[name] - length)

    def log_each(name: str) -> float:
        return (tables[name] - tables["0"]) / (count[name] - length)

    results = []
    for name in ("4", "16"):
        keys = [f"growth_{what}_{name}" for what in ("time", "log", "memory")]
        if name not in commands:
            results += [Result.missing(key, "left out by --quick") for key in keys]
            continue
        words, rounds = commands[name], range(len(used[name]))
        whole = {one: median_of(used[one]) * 1e9 / count[one] for one in ("1", name)}
        note = (
            f"{count[name]:,} against {count['1']:,} instructions, the boot's {length:,} among them; with it, {whole[name]:.3g} against "
            f"{whole['1']:.3g} ns of CPU time each"
        )
        time = [ns_each(name, index) / ns_each("1", index) for index in rounds]
        results.append(Result.of(keys[0], time, words, note=note, profiled=words))
        trace = bench.trace(f"growth{name}")
        kept = size_of(trace) - tables[name] - size_of(trace / "images")
        note = f"{tables[name]:,} against {tables['1']:,} bytes of tables; {kept:,} bytes of checkpoints beside them"
        log = log_each(name) / log_each("1")
        results.append(Result(keys[1], log, [log], words, note))
        peaks = [max(one.peak_mib for one in used[which]) for which in (name, "1")]
        memory = [a.peak_mib / b.peak_mib for a, b in zip(used[name], used["1"], strict=True)]
        results.append(Result.of(keys[2], memory, words, note=f"{peaks[0]:,.0f} against {peaks[1]:,.0f} MiB"))
    return results


if __name__ == "__main__":
    main(["--only", "growth"])
