"""The bundled guests with their symbols and debug information: the same code as the stripped ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from support import REPOSITORY


def debug_guest(name: str, path: Path) -> Path:
    """Build a bundled guest into path."""
    spec = importlib.util.spec_from_file_location("build_guests", REPOSITORY / "samples" / "guests" / "build.py")
    assert spec is not None and spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    build.FLAGS = [*(flag for flag in build.FLAGS if flag != "-s"), "-g"]
    path.write_bytes(build.compile_guest(name))
    return path
