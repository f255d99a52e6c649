"""What checking a recording costs: serial against record, in parallel against QEMU's replay. python tests/benchmarks/replay.py"""

from __future__ import annotations

from bench import Bench
from figures import Result
from harness import Job, NotAvailableError, interleaved, job, ratios
from run import main

JOBS = 2


def run(bench: Bench) -> list[Result]:
    """Record and replay in one interleaving; each replay takes the trace that the rounds before have left."""
    commands = {
        "record": bench.boot("default"),
        "replay": bench.words("replay", bench.trace("default")),
        "record plain": bench.boot("plain", *bench.thin),
        "replay plain": bench.words("replay", bench.trace("plain")),
    }
    missing: dict[str, str] = {}
    try:
        bench.needs("replay", "--jobs")
        commands["replay jobs"] = bench.words("replay", bench.trace("default"), "--jobs", JOBS)
        commands["replay jobs first"] = ["env", "TRACEKIT_TIMINGS=", *commands["replay jobs"]]
    except NotAvailableError as error:
        missing["replay jobs"] = str(error)
    jobs: dict[str, Job] = {name: job(command) for name, command in commands.items()}
    try:
        job(bench.qemu("record", "replayed.bin"))()
        commands["qemu replay"] = bench.qemu("replay", "replayed.bin")
        jobs["qemu replay"] = job(commands["qemu replay"])
    except NotAvailableError as error:
        missing["qemu replay"] = str(error)
    interleaved(jobs, 1)
    used = interleaved(jobs, bench.rounds)
    serial = commands["replay"]
    results = [
        Result.of("replay_serial", ratios(used, "replay", "record"), serial, used=used, names=("replay", "record"), profiled=serial),
        Result.of(
            "replay_plain", ratios(used, "replay plain", "record plain"), commands["replay plain"], used=used,
            names=("replay plain", "record plain"),
        ),
    ]  # fmt: skip
    for key, base, name in (
        ("replay_jobs", "qemu replay", "replay jobs"),
        ("replay_jobs_first", "qemu replay", "replay jobs first"),
        ("replay_jobs_serial", "replay", "replay jobs"),
    ):
        reason = missing.get("replay jobs") or missing.get(base)
        if reason:
            results.append(Result.missing(key, reason))
            continue
        words = commands[name]
        values = ratios(used, base, name, by="wall_s")
        results.append(Result.of(key, values, words, used=used, names=(base, name), profiled=words))
    return results


if __name__ == "__main__":
    main(["--only", "replay"])
