"""Faults by name (the catalogue in samples/faults) or by file, FILE.py:Class, guarded so that a hook that raises ends the run cleanly."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import tracekit
from tracekit.formats.errors import InputError
from tracekit.hypervisor.fault import Fault

HOOKS = tuple(name for name, value in vars(Fault).items() if inspect.isfunction(value))


class FaultRaised(InputError):
    """A fault's own code failed; the text says where. A run that has begun ends by it and is kept."""


def catalogue() -> dict[str, Path]:
    """The faults that tracekit brings, by name."""
    folder = Path(tracekit.__file__).parent / "faults"
    return {path.stem.replace("_", "-"): path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def load_fault(text: str) -> Fault:
    """A fault by its name or as FILE.py:Class. Errors: InputError (an unknown name lists the known ones)."""
    if ".py" not in text:
        known = catalogue()
        if text not in known:
            raise InputError(f"no fault is called {text!r}; there are {', '.join(known)}; or FILE.py:Class")
        return _guarded(_only_class(_module(known[text]), text)(), known[text])
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise InputError(f"fault {text!r}: FILE.py:Class is needed")
    module = _module(Path(file))
    kind = getattr(module, name, None)
    if not inspect.isclass(kind) or not issubclass(kind, Fault):
        have = ", ".join(one.__name__ for one in _classes(module)) or "none"
        raise InputError(f"{file}: no class {name} that derives from tracekit.hypervisor.fault.Fault; it has {have}")
    try:
        fault = kind()
    except Exception as error:  # noqa: BLE001 (code of the user: anything may come out of it)
        raise InputError(f"fault {text}: {_where(error, Path(file))}") from None
    fault.name = fault.name or name
    return _guarded(fault, Path(file))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tracekit_fault_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"cannot read the fault {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 (code of the user: anything may come out of it)
        raise InputError(f"fault {path}: {_where(error, path)}") from None
    return module


def _classes(module: ModuleType) -> list[type[Fault]]:
    return [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, Fault) and one.__module__ == module.__name__
    ]


def _only_class(module: ModuleType, name: str) -> type[Fault]:
    (kind,) = [one for one in _classes(module) if one.name == name]
    return kind


def _where(error: Exception, path: Path) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    return f"{path.name}:{line or '?'}: {type(error).__name__}: {error}"


def _guarded(fault: Fault, path: Path) -> Fault:
    def guard(hook: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(hook)
        def guarded(*arguments: Any) -> Any:
            try:
                return hook(*arguments)
            except FaultRaised:
                raise
            except Exception as error:  # noqa: BLE001
                raise FaultRaised(f"fault {fault.name}: {_where(error, path)}") from None

        return guarded

    for name in HOOKS:
        setattr(fault, name, guard(getattr(fault, name)))
    return fault
