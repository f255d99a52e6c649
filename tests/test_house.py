"""Packaging, linting, typing, and the command's face."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import REPOSITORY, tracekit

README = (REPOSITORY / "README.md").read_text()


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    """A command in the repository."""
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def test_ruff() -> None:
    """Linted and formatted."""
    for arguments in (["check"], ["format", "--check"]):
        done = run(sys.executable, "-m", "ruff", *arguments, ".")
        assert done.returncode == 0, done.stdout


def test_mypy() -> None:
    """Strictly typed."""
    done = run(sys.executable, "-m", "mypy")
    assert done.returncode == 0, done.stdout


def test_guests_are_rebuilt_byte_for_byte() -> None:
    """The bundled ELFs and the sample's init are what their sources give."""
    done = run(sys.executable, "samples/guests/build.py", "--check")
    if "ziglang" in done.stderr:
        pytest.skip(f"REBUILD NOT CHECKED: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_loads_no_wing() -> None:
    """`tracekit --help` in the time of a bare click program: nothing heavy is imported."""
    program = "import sys, tracekit.cli as c\nsys.argv = ['tracekit', '--help']\ntry: c.main()\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    done = run(sys.executable, "-c", program)
    assert "record" in done.stdout
    loaded = done.stdout.splitlines()[-1]
    for heavy in ("unicorn", "pyarrow", "polars", "rich", "zstandard", "numpy"):
        assert f"'{heavy}'" not in loaded


def test_demo(tmp_path: Path) -> None:
    """The first command of the README: identical, error 0."""
    done = tracekit("demo", "-o", tmp_path / "demo.tkt")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical" in done.stdout and "PASS" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if line.endswith(" ns")]
    assert len(lines) == 2 and all(line[-2] == "0" for line in lines)


def test_wrong_commands() -> None:
    """One line, exit code 2."""
    for arguments in (["nonsense"], ["record", "--nonsense"], ["dump", "x", "nonsense"], ["replay"]):
        done = tracekit(*arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_ci_runs_what_the_readme_says() -> None:
    """One test command, not two that grow apart."""
    command = next(line for line in README.splitlines() if "-m pytest" in line).strip()
    assert command in (REPOSITORY / ".ci" / "run").read_text()


def sources(target: Path) -> Path:
    """A copy of what git tracks, in a folder with a space in its name."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in listed.stdout.split("\0"):
        source = REPOSITORY / name
        if name and (source.is_file() or source.is_symlink()):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name, follow_symlinks=False)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["system", "none"])
def test_wheel(tmp_path: Path, compiler: str) -> None:
    """One name in site-packages, the native library in it; built without a C compiler too, in a path with a space."""
    tree = sources(tmp_path / "a checkout")
    environment = dict(os.environ)
    if compiler == "none":
        hidden = tmp_path / "bin"
        hidden.mkdir()
        for tool in ("git", "uname", "sh"):
            if found := shutil.which(tool):
                (hidden / tool).symlink_to(found)
        environment |= {"PATH": str(hidden), "CC": ""}
    done = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(tree), env=environment)
    assert done.returncode == 0, done.stderr
    wheel = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"tracekit", "tracekit-0.1.0.dist-info"}
    assert "tracekit/machine/_native.so" in names
    assert "tracekit/workbench/guests/steal.elf" in names and "tracekit/formats/SPEC.md" in names
    assert "py3-none-" in wheel.name and not wheel.name.endswith("any.whl")
    venv = tmp_path / "a venv"
    run(sys.executable, "-m", "venv", "--system-site-packages", str(venv))
    python = str(venv / "bin" / "python")
    assert run(python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(wheel)).returncode == 0
    done = subprocess.run(
        [python, "-P", "-m", "tracekit.cli", "demo"], cwd=tmp_path, capture_output=True, text=True, env=venv_environment()
    )
    assert done.returncode == 0, done.stderr


def venv_environment() -> dict[str, str]:
    """The packages of the interpreter that runs the tests, behind the new environment's own."""
    site = Path(next(path for path in sys.path if path.endswith("site-packages")))
    return {**os.environ, "PYTHONPATH": str(site)}
