"""Several vCPUs: CPU time per guest instruction against 1 vCPU, on one pCPU and on as many, and a curve over the quantum. python tests/benchmarks/vcpus.py

Debian's kernel with the sample's init, which burns on every vCPU. QEMU has no record/replay above 1 vCPU, so 1 vCPU of tracekit is the measure.
"""

from __future__ import annotations

import json
import statistics

from bench import Bench
from figures import Result
from harness import Usage, interleaved, job, measure
from run import main

QUANTA_US = (50, 100, 200, 400, 1000)


def run(bench: Bench) -> list[Result]:
    """Boards in one interleaving; the curve in one round, since it is long."""

    def board(vcpus: int, pcpus: int, *options: object) -> list[str]:
        return bench.boot(f"smp{vcpus}_{pcpus}", "--vcpus", vcpus, "--pcpus", pcpus, "--json", *bench.thin, *options)

    commands = {
        "1": board(1, 1),
        **{f"one_{n}": board(n, 1, "--slice", "3ms") for n in (2, 4)},
        **{f"many_{n}": board(n, n) for n in (2, 4)},
    }
    measure(commands["1"])
    used = interleaved({name: job(command) for name, command in commands.items()}, bench.rounds)
    base = [_ns_each(one) for one in used["1"]]
    results = []
    for name in ("one_2", "one_4", "many_2", "many_4"):
        values = [_ns_each(one) / ns for one, ns in zip(used[name], base, strict=True)]
        note = f"{_instructions(used[name][0]):,} instructions (1 vCPU: {_instructions(used['1'][0]):,})"
        results.append(
            Result.of(f"smp_{name}", values, commands[name], used=used, names=(name, "1"), note=note, profiled=commands[name])
        )
    for vcpus in (2, 4):
        for us in QUANTA_US:
            key = f"smp_curve_{vcpus}_{us}us"
            if bench.quick:
                results.append(Result.missing(key, "left out by --quick"))
                continue
            command = board(vcpus, vcpus, "--quantum", f"{us}us")
            one = measure(command)
            value = _ns_each(one) / statistics.median(base)
            note = f"one run; {_instructions(one):,} instructions, {one.cpu_s:.3g} s CPU"
            results.append(Result(key, value, [value], command, note))
    return results


def _instructions(used: Usage) -> int:
    return int(json.loads(used.text)["position"])


def _ns_each(used: Usage) -> float:
    return used.cpu_s * 1e9 / _instructions(used)


if __name__ == "__main__":
    main(["--only", "smp"])
