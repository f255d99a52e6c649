"""What recording Debian's boot costs, against QEMU, against not recording, against bare Unicorn; how large its log is. python tests/benchmarks/record.py"""

from __future__ import annotations

from bench import Bench
from figures import Result
from guests import compute, compute_instructions
from harness import Job, NotAvailableError, Usage, interleaved, job, median_of, ratios, size_of, tables_bytes
from qemu_count import instructions_of_qemu
from run import main

PAIR = ("fast", "unrecorded")
COMPUTE_ROUNDS = 4000  # 390 M instructions


def run(bench: Bench) -> list[Result]:
    """The boot in every way, in one interleaving."""
    commands = {
        "fast": bench.boot("fast", *bench.engine("fast"), *bench.thin),
        "default": bench.boot("default", *bench.engine("fast")),
        "unrecorded": bench.worker("unrecorded", bench.kernel, bench.initrd, "fast"),
    }
    missing: dict[str, str] = {}
    for name, make in (
        ("exact", lambda: bench.boot("exact", *bench.engine("exact"), *bench.thin)),
        ("qemu record", lambda: bench.qemu("record")),
        ("qemu plain", lambda: bench.qemu(None)),
    ):
        try:
            commands[name] = make()
        except NotAvailableError as error:
            missing[name] = str(error)
    jobs: dict[str, Job] = {name: job(command) for name, command in commands.items()}
    interleaved(jobs, 1)  # warm caches; and the traces are there
    used = interleaved(jobs, bench.rounds)
    pair: dict[str, list[Usage]] = {}
    for name, more in interleaved({one: jobs[one] for one in PAIR}, bench.rounds).items():
        pair[name] = used[name] + more  # a few percent are asked of them

    def result(key: str, name: str, base: str, used: dict[str, list[Usage]] = used) -> Result:
        for one in (name, base):
            if one in missing:
                return Result.missing(key, missing[one])
        return Result.of(key, ratios(used, name, base), commands[name], used=used, names=(name, base), profiled=commands[name])

    results = [
        result("boot_fast", "fast", "qemu record"),
        result("boot_exact", "exact", "qemu record"),
        result("boot_checkpoints", "default", "qemu record"),
        result("qemu_plain", "qemu plain", "qemu record"),
        result("unrecorded", "fast", "unrecorded", pair),
    ]
    if not bench.thin:
        results[2] = Result.missing("boot_checkpoints", "`tracekit record` takes no checkpoints yet")
    return [*results, _safe(bench, missing), *_logs(bench, missing), *_floors(bench)]


def _safe(bench: Bench, missing: dict[str, str]) -> Result:
    """Slow, so in fewer rounds."""
    if "qemu record" in missing or bench.quick:
        return Result.missing("boot_safe", missing.get("qemu record", "left out by --quick"))
    command = bench.boot("safe", *bench.engine("safe"), *bench.thin)
    used = interleaved({"safe": job(command), "qemu record": job(bench.qemu("record"))}, min(bench.rounds, 2))
    return Result.of("boot_safe", ratios(used, "safe", "qemu record"), command, used=used, names=("safe", "qemu record"))


def _logs(bench: Bench, missing: dict[str, str]) -> list[Result]:
    """Equal in every round: the trace is a function of the guest."""
    trace = bench.trace("fast")
    count = bench.instructions(trace)
    here = tables_bytes(trace)
    note = f"{here:,} bytes, {count:,} instructions; images {size_of(trace / 'images'):,} bytes"
    results = [Result("log", here / count, [here / count], bench.words("info", trace), note)]
    if "qemu record" in missing:
        return [*results, Result.missing("qemu_log", missing["qemu record"])]
    log = size_of(bench.folder / "qemu.bin")
    theirs = instructions_of_qemu(bench)
    command = bench.qemu("record")
    return [*results, Result("qemu_log", log / theirs, [log / theirs], command, f"{log:,} bytes, {theirs:,} instructions")]


def _floors(bench: Bench) -> list[Result]:
    """A bare-metal guest: recorded, and on the engine alone."""
    results = []
    for key, with_stores in (("floor_compute", False), ("floor_stores", True)):
        guest, end = compute(COMPUTE_ROUNDS, with_stores)
        command = bench.flat(guest, key, *bench.thin)
        jobs = {"record": job(command), "bare": job(bench.worker("floor", bench.folder / f"{key}.bin", hex(end)))}
        for one in jobs.values():
            one()
        used = interleaved(jobs, bench.rounds)
        speed = compute_instructions(COMPUTE_ROUNDS) / 1e6
        note = f"{speed / median_of(used['record']):,.0f} and {speed / median_of(used['bare']):,.0f} M instructions/s, start-up within"
        results.append(Result.of(key, ratios(used, "record", "bare"), command, used=used, names=("record", "bare"), note=note))
    return results


if __name__ == "__main__":
    main(["--only", "record"])
