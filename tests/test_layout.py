"""The house stands on its floors: who may import whom, and what stays in which room."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS: dict[str, str] = PYPROJECT["tool"]["setuptools"]["package-dir"]

# A floor may import itself and the floors named here.
GROUND = {"tracekit", "tracekit.formats"}
FLOORS: dict[str, set[str]] = {
    "tracekit": {"tracekit.formats"},
    "tracekit.formats": set(),
    "tracekit.machine": GROUND,
    "tracekit.hypervisor": {*GROUND, "tracekit.machine"},
    "tracekit.host": GROUND,
    "tracekit.symbols": GROUND,
    "tracekit.recorder": {*GROUND, "tracekit.machine", "tracekit.hypervisor", "tracekit.host"},
    "tracekit.replay": {*GROUND, "tracekit.machine", "tracekit.symbols"},
    "tracekit.analyzers": {*GROUND, "tracekit.symbols"},
    "tracekit.analyzers.export": {*GROUND, "tracekit.symbols", "tracekit.analyzers"},
    "tracekit.analyzers.report": {*GROUND, "tracekit.symbols", "tracekit.analyzers"},
    "tracekit.faults": {*GROUND, "tracekit.hypervisor"},
    "tracekit.workbench": {
        *GROUND, "tracekit.machine", "tracekit.hypervisor", "tracekit.host", "tracekit.symbols", "tracekit.recorder",
        "tracekit.replay", "tracekit.analyzers",
    },
}  # fmt: skip
# Outside packages that only some rooms may touch.
GUARDED = {
    "unicorn": ("tracekit.machine",),
    "pyarrow": ("tracekit.formats",),
    "polars": ("tracekit.analyzers",),
    "vl_convert": ("tracekit.analyzers.report.bundle",),
    "zstandard": ("tracekit.formats",),
    "elftools": ("tracekit.machine", "tracekit.symbols.elf"),
    "perfetto": ("tracekit.analyzers.export",),
    "fdt": ("tracekit.machine",),
    "click": (
        "tracekit.cli",
        "tracekit.analyzers.cli",
        "tracekit.analyzers.export.cli",
        "tracekit.analyzers.report.cli",
        "tracekit.formats.cli",
        "tracekit.recorder.cli",
        "tracekit.replay.cli",
        "tracekit.workbench.cli",
    ),
    "rich": ("tracekit.formats.progress", "tracekit.workbench.card"),
    "time": ("tracekit.replay.timings",),  # processor time, which balances parallel work and decides nothing
    "datetime": (),
    "random": ("tracekit.host.policies", "tracekit.analyzers.statistics"),
    "secrets": (),
    "uuid": (),
    "numpy": (),
}
# Rooms that stand at the top of the tree: a link in tracekit/ leads to each.
MOUNTED = {"formats": "formats", "replay": "replay", "analyzers": "analyzers", "faults": "samples/faults"}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package by its import name."""
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).glob("*.py")):
            yield package if path.stem == "__init__" else f"{package}.{path.stem}", path


MODULES = dict(modules())


def floor_of(module: str) -> str:
    """The package that a module belongs to."""
    return max((floor for floor in FLOORS if module == floor or module.startswith(floor + ".")), key=len)


def imports_of(path: Path) -> set[str]:
    """Names that a file imports; relative imports are not ours. The types that tracekit/__init__.py names for checkers are no imports."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    if path == ROOT / "tracekit" / "__init__.py":
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    """No room imports from a floor that is not under it."""
    here = floor_of(module)
    seen = {floor_of(name) for name in imports_of(MODULES[module]) if name in MODULES}
    assert seen - {here} - FLOORS[here] == set()


@pytest.mark.parametrize("module", MODULES)
def test_guarded_packages(module: str) -> None:
    """Engines, tables, clocks and random sources stay in their rooms."""
    outside = {name.split(".")[0] for name in imports_of(MODULES[module])} & set(GUARDED)
    assert {name for name in outside if not any(module == r or module.startswith(r + ".") for r in GUARDED[name])} == set()


def test_nobody_imports_a_command() -> None:
    """Commands are named by string only."""
    for module, path in MODULES.items():
        assert not [name for name in imports_of(path) if name.startswith("tracekit") and name.split(".")[-1] == "cli"], module


@pytest.mark.parametrize("wing", MOUNTED)
def test_wing_is_mounted(wing: str) -> None:
    """pyproject (for builds) and the link in tracekit/ (for readers) say the same."""
    assert MOUNTED[wing] == FOLDERS[f"tracekit.{wing}"]
    assert (ROOT / MOUNTED[wing]).resolve() == (ROOT / "tracekit" / wing).resolve()


def test_every_package_is_built() -> None:
    """No folder with an __init__.py is forgotten in pyproject."""
    tops = ("tracekit", *MOUNTED.values())
    on_disk = {
        path.parent.relative_to(ROOT).as_posix()
        for top in tops
        for path in (ROOT / top).rglob("__init__.py")
        if not _linked(path)
    }
    assert on_disk == set(FOLDERS.values())
    assert set(FOLDERS) == set(PYPROJECT["tool"]["setuptools"]["packages"]) == set(FLOORS)


def _linked(path: Path) -> bool:
    return any((ROOT / "tracekit" / wing) in path.parents for wing in MOUNTED)


def test_files_read_in_one_sitting() -> None:
    """No monster file."""
    sizes = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: size for module, size in sizes.items() if size > 620} == {}


def test_the_project_speaks_of_itself_alone() -> None:
    """No path of a machine and no registry's host in what is tracked."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    needles = [b"/" + b"work/", b"/" + b"root/", b"py" + b"pi.org", b"deb." + b"debian.org", b"registry." + b"npmjs"]
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not [needle for needle in needles if needle in content], name
