"""Debian's kernels for tests, by the recipe of samples/linux."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pytest
from support import REPOSITORY

SAMPLE = REPOSITORY / "samples" / "linux"


def load(name: str) -> Any:
    """A script of the sample as a module."""
    spec = importlib.util.spec_from_file_location(f"sample_{name}", SAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernel_of(flavour: str) -> Path:
    """Debian's kernel; skips with a loud line where apt cannot deliver it."""
    fetch = load("fetch")
    try:
        return Path(fetch.fetch(flavour, fetch.default_cache()))
    except (fetch.FetchError, OSError) as error:
        text = f"LINUX TESTS SKIPPED: Debian's {flavour} kernel cannot be had: {error}"
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)
