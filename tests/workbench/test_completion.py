"""Shell completion: the scripts, what they complete, and that it costs no wing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import environment, tracekit

from tracekit.cli import COMMANDS
from tracekit.formats.tables import TABLES
from tracekit.recorder.faults import catalogue


def completed(*words: str) -> list[str]:
    """What click offers a shell for the last word."""
    env = environment(_TRACEKIT_COMPLETE="bash_complete", COMP_WORDS=" ".join(["tracekit", *words]), COMP_CWORD=str(len(words)))
    done = tracekit(env=env)
    assert done.stderr == "", done.stderr
    return [line.split(",", 1)[1] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str) -> None:
    """Each names the command and the variable that makes it complete."""
    done = tracekit("completion", shell)
    assert done.returncode == 0 and "_TRACEKIT_COMPLETE" in done.stdout and f"{shell}_complete" in done.stdout


def test_what_is_completed() -> None:
    """Commands, tables, analyses, faults, options."""
    assert completed("") == sorted(COMMANDS)
    assert completed("re") == [name for name in sorted(COMMANDS) if name.startswith("re")]
    assert completed("dump", "run.tkt", "") == list(TABLES)
    assert completed("dump", "run.tkt", "memory") == ["memory_writes", "memory_reads"]
    assert completed("analyze", "run.tkt", "") == ["steal", "invariants", "runtime", "hypercalls"]
    assert completed("analyze", "run.tkt", "runtime", "--by", "") == ["vcpu", "pc"]
    assert completed("record", "--fault", "") == list(catalogue())
    assert completed("query", "--for") == ["--format", "--force"]


def test_commands_are_completed_at_once() -> None:
    """No wing is loaded to know the commands."""
    program = "import sys, tracekit.cli as c\ntry: c.main()\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    env = environment(_TRACEKIT_COMPLETE="bash_complete", COMP_WORDS="tracekit ", COMP_CWORD="1")
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert "plain,analyze" in done.stdout
    for heavy in ("unicorn", "pyarrow", "polars", "rich", "zstandard"):
        assert f"'{heavy}'" not in done.stdout.splitlines()[-1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="NO BASH: the script is not run")
def test_bash_completes(tmp_path: Path) -> None:
    """The script in a real bash."""
    command = tmp_path / "tracekit"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tracekit.cli "$@"\n')
    command.chmod(0o755)
    script = 'eval "$(tracekit completion bash)"; COMP_WORDS=(tracekit ver); COMP_CWORD=1; _tracekit_completion tracekit; echo "${COMPREPLY[@]}"'
    env = environment(PATH=f"{tmp_path}:{environment()['PATH']}")
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["verify"], done.stderr


def test_wrong_shell() -> None:
    """Exit code 2 and one line."""
    done = tracekit("completion", "csh")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
