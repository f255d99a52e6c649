"""What starting costs: `tracekit --help`, and one whole recording of a small guest. python tests/benchmarks/startup.py"""

from __future__ import annotations

from bench import Bench
from figures import Result
from guests import REPOSITORY
from harness import interleaved, job, ratios
from run import main

TIMES = 4  # these take a tenth of a second: more of them for each round of the others
BARE = '''import click


@click.command()
def main() -> None:
    """A bare click program."""


main()
'''


def run(bench: Bench) -> list[Result]:
    """help, hello."""
    bare = bench.folder / "bare.py"
    bare.write_text(BARE)
    guest = REPOSITORY / "tracekit" / "workbench" / "guests" / "hello.elf"
    record = bench.words("record", guest, "-o", bench.trace("hello"), "--force")
    jobs = {
        "help": job(bench.words("--help")),
        "bare": job([bench.python, bare, "--help"]),
        "hello": job(record),
        "imports": job([bench.python, "-c", "import unicorn, pyarrow, click"]),
    }
    interleaved(jobs, 1)
    used = interleaved(jobs, bench.rounds * TIMES)
    help_ratios, hello_ratios = ratios(used, "help", "bare"), ratios(used, "hello", "imports")
    return [
        Result.of("help", help_ratios, bench.words("--help"), used=used, names=("help", "bare")),
        Result.of("hello", hello_ratios, record, used=used, names=("hello", "imports"), profiled=record),
    ]


if __name__ == "__main__":
    main(["--only", "startup"])
