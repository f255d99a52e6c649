"""README.md "From a changed run to its cause": every command gives, in an empty folder, what stands below it.

`python tests/test_readme.py` writes what the commands say now.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from support import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
HEAD = "## From a changed run to its cause\n"
SECTION = README[README.index(HEAD) : README.index("## Ask a trace")]
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
PROGRAM = ".venv/bin/tracekit"


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line for the shell as in the README; tracekit is this tree's."""
    assert command.startswith(PROGRAM + " ")
    command = f"{shlex.quote(sys.executable)} -m tracekit.cli" + command.removeprefix(PROGRAM)
    command = command.replace("tracekit/workbench/guests/", f"{shlex.quote(str(REPOSITORY))}/tracekit/workbench/guests/")
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=300)


def lines_of(block: str) -> list[str]:
    """The commands of a block, without what installs."""
    return [line for line in block.splitlines() if "pip install" not in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty one, in which the first block has recorded."""
    path = tmp_path_factory.mktemp("readme")
    for line in lines_of(BLOCKS[0][1]):
        done = run(line, path)
        assert done.returncode == 0, done.stderr
    return path


CODES = {"compare": 1}  # the others end well; so does what is piped


@pytest.mark.parametrize("index", [n for n, (kind, _) in enumerate(BLOCKS) if kind == "sh"][1:])
def test_commands_say_what_stands_below(folder: Path, index: int) -> None:
    """Exit codes; and the text of the block behind, if there is one, is the whole output."""
    lines = lines_of(BLOCKS[index][1])
    told = ""
    for line in lines:
        done = run(line, folder)
        assert done.returncode == CODES.get(line.split()[1], 0), done.stderr
        told += done.stdout
    kind, expected = BLOCKS[index + 1]
    if kind == "":
        assert told == expected
    else:
        assert not told or told.startswith("wrote ")


def test_a_worse_run_leads_to_its_cause(folder: Path) -> None:
    """The command that `compare` ends with is one that works, and it names the fault."""
    compared = run(f"{PROGRAM} compare clean.tkt faulty.tkt", folder)
    assert compared.returncode == 1
    told = re.search(r"^see where they part: tracekit (diff .+)$", compared.stdout, re.MULTILINE)
    assert told is not None
    found = run(f"{PROGRAM} {told[1]}", folder)
    assert found.returncode == 1
    assert re.search(
        r"^cause: fault lost-delta of B's hypervisor acts on vCPU 0 at position 1,442,547 ", found.stdout, re.MULTILINE
    )


def test_a_run_is_the_same_as_itself(folder: Path) -> None:
    """Exit code 0 from both."""
    for command in ("compare", "diff"):
        done = run(f"{PROGRAM} {command} faulty.tkt faulty.tkt", folder)
        assert done.returncode == 0 and "verdict: same" in done.stdout


def test_python(folder: Path) -> None:
    """The first block of Python prints the truth, the verdict and the cause."""
    code = next(text for kind, text in BLOCKS if kind == "python")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "5505331 ┆ 3252724 ┆ 2252607" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("worse because fault lost-delta of B's hypervisor acts on vCPU 0")


def test_the_test_passes_and_fails(tmp_path: Path) -> None:
    """The last block of Python is a test: green for the clean run, red under the fault, with the trace left and the command printed."""
    code = [text for kind, text in BLOCKS if kind == "python"][-1]
    (tmp_path / "test_clean.py").write_text(code)
    (tmp_path / "test_faulty.py").write_text(code.replace("vcpus=2", 'vcpus=2, faults=["lost-delta"]'))
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "tracekit.workbench.pytest_plugin", "--tracekit-traces", "left", str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout
    (left,) = (tmp_path / "left").iterdir()
    assert "S4 is broken" in done.stdout and f"tracekit replay {left}" in done.stdout


def test_completion() -> None:
    """The line of the README gives bash something to evaluate."""
    told = re.search(r'`eval "\$\((\S+ completion bash)\)"`', SECTION)
    assert told is not None
    done = run(told[1], REPOSITORY)
    assert done.returncode == 0 and "_tracekit_completion() {" in done.stdout


def main() -> None:
    """Run every command, write what it says below it."""
    text = README
    with tempfile.TemporaryDirectory() as scratch:
        for (kind, commands), (below, before) in pairwise(BLOCKS):
            if kind == "sh":
                told = "".join(run(line, Path(scratch)).stdout for line in lines_of(commands))
                if below == "":
                    text = text.replace(f"```sh\n{commands}```\n```\n{before}```", f"```sh\n{commands}```\n```\n{told}```")
    (REPOSITORY / "README.md").write_text(text)


if __name__ == "__main__":
    main()
