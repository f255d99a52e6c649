"""The pytest plugin: the fixture `tracekit_run` records, replays and judges a scenario; a failure leaves its trace and says how to replay it.

Installed with tracekit. Until a test asks for the fixture it prints and loads nothing. Spec: docs/analysis.md "pytest".
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Collection, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tracekit.recorder.scenario import Scenario
    from tracekit.workbench.checked import Run

RUNS = pytest.StashKey[list["tuple[str, Path]"]]()
FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options."""
    group = parser.getgroup("tracekit", "recorded arm64 guests (tracekit)")
    group.addoption(
        "--tracekit-traces",
        metavar="DIR",
        help="Where the traces of failing tests are left (default: pytest's own temporary folder).",
    )
    group.addoption(
        "--tracekit-update", action="store_true", help="Write the baselines that tests name instead of checking them."
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes whether a test failed, and tells with it where its traces are."""
    report = yield
    runs = item.stash.get(RUNS, None)
    if runs and report.failed and report.when in ("setup", "call"):
        item.stash[FAILED] = True
        report.sections.append(("tracekit", "\n".join(command for command, _ in runs)))
    return report


@pytest.fixture
def tracekit_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Callable[..., Run], None, None]:
    """Record, replay and judge a scenario: `run = tracekit_run("scenario.toml")`.

    tracekit_run(scenario, *, name=None, replay=True, invariants=True, may_break=(), baseline=None, thresholds=None, **options) -> Run

    scenario: what `tracekit.record` takes: a scenario file (relative to the test's file), a guest, a dict or a Scenario; options: keys that
    go before it (seed=7, faults=["wrong-unit"]). replay: the replay must be identical. invariants: none may be broken but those of may_break.
    baseline: a folder; the run must have the metrics of NAME.json in it, but for its thresholds.toml. name: default the scenario's.
    The test fails with everything that is wrong. The Run has path, metrics, findings, console, open().
    """
    item: Any = request.node
    given = request.config.getoption("--tracekit-traces")
    folder = Path(given).absolute() if given else tmp_path_factory.mktemp("tracekit")
    here = Path(item.path).parent
    runs: list[tuple[str, Path]] = []
    item.stash[RUNS] = runs

    def run(
        scenario: str | Path | dict[str, Any] | Scenario, *, name: str | None = None, replay: bool = True, invariants: bool = True,
        may_break: Collection[str] = (), baseline: str | Path | None = None, thresholds: str | Path | None = None, **options: Any,
    ) -> Run:  # fmt: skip
        from tracekit.formats.errors import DiskError, TracekitError
        from tracekit.workbench.checked import run_checked
        from tracekit.workbench.running import configured

        if isinstance(scenario, str | Path) and (here / scenario).is_file():
            scenario = here / scenario
        named = name or (Path(scenario).stem if isinstance(scenario, str | Path) else "run")
        path = folder / f"{_file_name(item.nodeid)}-{len(runs)}-{_file_name(named)}.tkt"
        try:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DiskError(f"cannot keep traces in {folder}: {error.strerror}") from None
            runs.append((f"tracekit replay {shlex.quote(str(path))}", path))
            done = run_checked(
                configured(scenario, options),
                path,
                replays=replay,
                judges=invariants,
                may_break=may_break,
                baseline=None if baseline is None else here / baseline / f"{named}.json",
                thresholds=None if thresholds is None else here / thresholds,
                is_updating=bool(request.config.getoption("--tracekit-update")),
            )
        except TracekitError as error:
            if runs and runs[-1][1] == path and not path.exists():
                runs.pop()
            pytest.fail(f"tracekit: {error}", pytrace=False)
        runs[-1] = done.replay_command, path
        if done.complaints:
            pytest.fail("\n".join([f"tracekit: {path}", *done.complaints, f"replay it: {done.replay_command}"]), pytrace=False)
        return done

    yield run
    if not item.stash.get(FAILED, False):
        for _, path in runs:
            shutil.rmtree(path, ignore_errors=True)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-")[-120:]
