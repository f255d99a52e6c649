"""Build backend: setuptools, plus the native library.

The library is plain C without Python's headers, so any C compiler will do: $CC, cc, gcc or clang where there is one, otherwise
ziglang from PyPI, which is then asked for as a build requirement.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import build_sdist, get_requires_for_build_sdist, prepare_metadata_for_build_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ZIGLANG = "ziglang==0.17.1"
ROOT = Path(__file__).resolve().parent.parent
MACHINE = ROOT / "tracekit" / "machine"
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
FLAGS = ["-O2", "-std=c11", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
if sys.platform != "win32":
    FLAGS.append("-fPIC")


def system_compiler() -> list[str] | None:
    """The C compiler of the system, as a command; None where there is none."""
    named = os.environ.get("CC")
    if named:
        return shlex.split(named)
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found:
            return [found]
    return None


def build_library() -> None:
    """Compile tracekit/machine/native/*.c into one shared library beside them."""
    compiler = system_compiler()
    extra = []
    if compiler is None:
        compiler, extra = [sys.executable, "-m", "ziglang", "cc"], ["-fno-sanitize=undefined"]
    sources = [str(path) for path in sorted((MACHINE / "native").glob("*.c"))]
    target = MACHINE / f"_native{SUFFIX}"
    temporary = target.with_name(f"_native.{os.getpid()}.tmp")
    command = [*compiler, *FLAGS, *extra, *sources, "-o", str(temporary)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit(f"tracekit: the C compiler {compiler[0]} cannot be run; set CC to one that can") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"tracekit: building the native library failed:\n{shlex.join(command)}\n{error.stderr}") from None
    os.replace(temporary, target)


def _compiler_requirement() -> list[str]:
    return [] if system_compiler() is not None else [ZIGLANG]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """setuptools' own, and a compiler where the system has none."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler_requirement()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """setuptools' own, and a compiler where the system has none."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler_requirement()]


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Any = None) -> str:
    """As setuptools does it."""
    return str(build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings))


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """A wheel for this platform, with the library in it."""
    build_library()
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """An editable install; the library is built in place."""
    build_library()
    return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))
