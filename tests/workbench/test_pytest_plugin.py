"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from support import REPOSITORY, scenario

from tracekit.analyzers.metric import CATALOGUE

pytest_plugins = ["pytester"]

PLUGIN = "tracekit.workbench.pytest_plugin"
SCENARIO = f'[guest]\nimage = "{scenario("steal").image}"\nvcpus = 2\nram = "16M"\n[host]\nneighbours = ["50%:2ms"]\n'


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest in a process of its own, with the plugin as installed or by name."""
    is_installed = PLUGIN in {one.value for one in entry_points(group="pytest11")}
    by_name = () if is_installed else ("-p", PLUGIN)
    return pytester.runpytest_subprocess(*by_name, "-p", "no:cacheprovider", *arguments)


def beside(pytester: pytest.Pytester, body: str) -> None:
    """A test module beside a.toml."""
    pytester.path.joinpath("a.toml").write_text(SCENARIO)
    pytester.makepyfile(body)


def test_it_is_an_entry_point() -> None:
    """Installed with the package."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"tracekit": PLUGIN}


def test_it_loads_nothing() -> None:
    """Every pytest of an environment imports it: it must cost nothing."""
    program = f"import pytest, sys; before = set(sys.modules); import {PLUGIN}; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) - {"tracekit", "tracekit.workbench", PLUGIN, "shutil", "re", "importlib"} == set()


def test_it_is_silent(pytester: pytest.Pytester) -> None:
    """A test that does not use it sees nothing of it."""
    pytester.makepyfile(
        "def test_plain():\n    import sys\n    assert not {'polars', 'unicorn', 'pyarrow', 'click'} & set(sys.modules)\n"
    )
    done = run(pytester)
    done.assert_outcomes(passed=1)
    plugins = [line for line in done.outlines if line.startswith("plugins:")]
    assert not [line for line in done.outlines if "tracekit" in line and line not in plugins and "rootdir" not in line]


def test_a_good_run(pytester: pytest.Pytester) -> None:
    """It passes, its values can be asked, and no trace stays."""
    beside(
        pytester,
        """
        def test_good(tracekit_run):
            run = tracekit_run("a.toml")
            assert run.findings == () and run.metrics["steal.error_ns"] == 0
            assert "PASS" in run.console and run.path.is_dir()
            with run.open() as trace:
                assert trace.manifest["end"]["reason"] == "power_off"
            again = tracekit_run("a.toml", seed=7, name="again")
            assert again.path != run.path
        """,
    )
    run(pytester, "--tracekit-traces", "left").assert_outcomes(passed=1)
    assert list(pytester.path.joinpath("left").iterdir()) == []


def test_a_wrong_run(pytester: pytest.Pytester) -> None:
    """It fails with what is broken, leaves its trace, and prints the command that replays it; which works."""
    beside(
        pytester,
        """
        def test_wrong(tracekit_run):
            tracekit_run("a.toml", faults=["wrong-unit"])
        def test_allowed(tracekit_run):
            run = tracekit_run("a.toml", faults=["wrong-unit"], may_break=["U1"])
            assert [one.invariant for one in run.findings] == ["U1"]
        """,
    )
    done = run(pytester, "--tracekit-traces", "left")
    done.assert_outcomes(passed=1, failed=1)
    (left,) = pytester.path.joinpath("left").iterdir()
    done.stdout.fnmatch_lines(
        ["*U1 is broken: pvtime at position*expected*", "*tracekit dump *pvtime*", f"*tracekit replay {left}"]
    )
    replayed = subprocess.run([sys.executable, "-m", "tracekit.cli", "replay", str(left)], capture_output=True, text=True)
    assert replayed.returncode == 0 and "identical" in replayed.stdout


def test_a_failing_assertion(pytester: pytest.Pytester) -> None:
    """The test's own: the trace stays too, without the option in pytest's temporary folder."""
    beside(
        pytester,
        """
        def test_asserts(tracekit_run):
            assert tracekit_run("a.toml").metrics["steal.total_ns"] == 0
        """,
    )
    done = run(pytester, f"--basetemp={pytester.path / 'the base'}")
    done.assert_outcomes(failed=1)
    (left,) = pytester.path.joinpath("the base").rglob("*.tkt")
    done.stdout.fnmatch_lines(["*tracekit*", f"tracekit replay '{left}'"])


def test_baselines(pytester: pytest.Pytester) -> None:
    """Written by --tracekit-update, then checked; thresholds beside them hold."""
    beside(
        pytester,
        """
        import os
        def test_kept(tracekit_run):
            tracekit_run("a.toml", baseline="kept", append=os.environ.get("TEST_APPEND", ""), policy=os.environ.get("TEST_POLICY", "round-robin"))
        """,
    )
    done = run(pytester)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*there is no baseline *a.json; `pytest --tracekit-update` writes it"])
    run(pytester, "--tracekit-update").assert_outcomes(passed=1)
    run(pytester).assert_outcomes(passed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_POLICY", "chaos")
        done = run(pytester)
        done.assert_outcomes(failed=1)
        done.stdout.fnmatch_lines(["*verdict: worse (*", "*replay it: tracekit replay *"])
        (pytester.path / "kept" / "thresholds.toml").write_text(
            "\n".join(f'["{name}"]\nignore = true\nreason = "not here"' for name in CHANGING)
        )
        run(pytester).assert_outcomes(passed=1)


CHANGING = [
    name for name in CATALOGUE if name not in ("findings", "steal.error_ns", "steal.missing", "run.end", "run.powered_off")
]


def test_trouble(pytester: pytest.Pytester) -> None:
    """A scenario that cannot be had is one line, not a traceback; a run that ends badly is a failure."""
    beside(
        pytester,
        """
        def test_none(tracekit_run):
            tracekit_run("none.toml")
        def test_option(tracekit_run):
            tracekit_run("a.toml", vcpu=3)
        def test_replays_only(tracekit_run):
            run = tracekit_run("a.toml", invariants=False, max_vtime="3ms")
            assert run.metrics["run.powered_off"] == 0
        def test_bundled(tracekit_run):
            tracekit_run("hello")
        """,
    )
    pytester.mkdir("hello")  # a folder is no guest
    done = run(pytester)
    done.assert_outcomes(failed=2, passed=2)
    done.stdout.fnmatch_lines(["*tracekit: cannot read the scenario *none.toml*", "*tracekit: vcpu: no such option*"])
    done.stdout.no_fnmatch_line("*Traceback*")
    done = run(pytester, "-k", "bundled", "--tracekit-traces", "a.toml")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*tracekit: cannot keep traces in */a.toml: File exists*"])


def test_a_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that is not identical is told with its place."""
    from tracekit.replay.divergence import Cause, Divergence, Result
    from tracekit.workbench import checked

    found = Divergence(17, 1000, 0, None, "a store is missing", Cause.DRIFT, (), None, None, (), 0)
    monkeypatch.setattr(checked.Replay, "run", lambda self: Result(found, 17, 1000, 3, True, ()))
    done = checked.run_checked(scenario("hello"), tmp_path / "a.tkt")
    assert done.complaints == ("the replay diverged at position 17 (1 us): a store is missing; state drifted between two checks",)
    assert done.replay_command == f"tracekit replay {tmp_path / 'a.tkt'}"
