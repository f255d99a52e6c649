"""Where the time of a command goes: `perf record` on the CPU clock, sorted into a dozen words. No hardware counters are needed.

python tests/benchmarks/profiles.py COMMAND ... prints it for any command.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

FREQUENCY_HZ = 997
TOP = 12
# The first that matches (shared object, symbol) names the share.
WORDS: tuple[tuple[str, str, str], ...] = (
    (r"JIT|perf-\d+\.map|anon", r"", "generated code"),
    (r"^\[unknown\]|memfd|^//", r"", "generated code"),
    (r"_native", r"hook_block", "tracekit: block hook"),
    (r"_native", r"hook_mem|capture|record_|thick", "tracekit: capture of memory accesses"),
    (r"_native", r"", "tracekit: other native code"),
    (r"libunicorn", r"lookup_tb_ptr|tb_htable_lookup|qht_lookup|cpu_get_tb_cpu_state|tb_lookup", "engine: block lookup"),
    (r"libunicorn", r"check_exit_request", "engine: check for a stop"),
    (r"libunicorn", r"tcg|liveness|disas|translat|tb_gen|gen_|decode|la_|temp_|optimize|ldl?_code|ldub", "engine: translation"),
    (r"libunicorn", r"tlb|get_phys_addr|flatview|address_space|memory_region|page_", "engine: TLB fills and page tables"),
    (r"libunicorn", r"notdirty|invalidate", "engine: stores to pages with code"),
    (r"libunicorn", r"_mmu|load_helper|store_helper|probe_access", "engine: slow loads and stores"),
    (r"libunicorn", r"float|vfp|neon", "engine: soft floating point"),
    (r"libunicorn", r"", "engine: other"),
    (r"libzstd|backend_c|libarrow", r"ZSTD|HUF|FSE|zstd", "compression"),
    (r"libcrypto|_sha|_hashlib", r"", "hashing"),
    (r"libarrow|pyarrow", r"", "Arrow"),
    (r"polars", r"", "polars"),
    (r"python", r"", "Python"),
    (r"kernel|vmlinux", r"", "host kernel"),
    (r"libc|ld-linux", r"", "C library and loader"),
)


def word_of(shared_object: str, symbol: str) -> str:
    """Which share of the profile a sample belongs to."""
    for dso, name, word in WORDS:
        if re.search(dso, shared_object) and re.search(name, symbol):
            return word
    return "other"


def available() -> str | None:
    """None, or why no profile can be made here."""
    if shutil.which("perf") is None:
        return "perf is not here"
    done = subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return None if done.returncode == 0 else "perf may not sample here (kernel.perf_event_paranoid)"


def profile(command: Sequence[str], folder: Path) -> list[tuple[str, float]]:
    """(word, percent) of a command, greatest first; empty where perf fails."""
    data = str(folder / "perf.data")
    sampled = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY_HZ), "-o", data, "--", *command]
    done = subprocess.run(sampled, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode not in (0, 1):
        return []
    report = subprocess.run(
        ["perf", "report", "-q", "--stdio", "-i", data, "--sort", "dso,symbol", "-n", "-t", "\t"],
        capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    return sorted(shares(report.stdout), key=lambda share: -share[1])[:TOP]


def shares(report: str) -> list[tuple[str, float]]:
    """The words of a report whose fields (overhead, samples, shared object, symbol) are parted by tabs, in percent of all samples."""
    found: Counter[str] = Counter()
    for line in report.splitlines():
        fields = [one.strip() for one in line.split("\t")]
        if len(fields) >= 4 and fields[1].isdigit():
            found[word_of(fields[2], fields[3])] += int(fields[1])
    total = sum(found.values())
    return [(word, round(100 * count / total, 1)) for word, count in found.items() if count * 1000 >= total]


def main() -> None:
    """Profile the command that was given."""
    reason = available()
    if reason:
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        for word, share in profile(sys.argv[1:], Path(folder)):
            print(f"{share:5.1f} %  {word}")


if __name__ == "__main__":
    main()
