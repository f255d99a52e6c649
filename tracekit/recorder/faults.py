"""Faults by name (the catalogue in samples/faults) or by file, FILE.py:Class, guarded so that a hook that raises ends the run cleanly."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import tracekit
from tracekit.formats.errors import InputError
from tracekit.hypervisor.contract import checked
from tracekit.hypervisor.fault import Fault, Kit

TEXT_MAX = 300
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
        if not isinstance(fault, Fault):
            raise TypeError(f"{name} makes no Fault")
        fault.name = fault.name or name
        for key in ("name", "models", "invariant", "needs"):
            _check_text(key, getattr(fault, key))
        return _guarded(fault, Path(file))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (code of the user: anything may come out of it)
        raise InputError(f"fault {text}: {_where(error, Path(file))}") from None


def _check_text(key: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > TEXT_MAX or not value.isprintable():
        raise TypeError(f"{key} = {value!r:.80}: must be a line of text, at most {TEXT_MAX} characters")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tracekit_fault_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"cannot read the fault {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and typing look names up
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (code of the user: anything may come out of it)
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


def _where(error: BaseException, path: Path) -> str:
    """File and line of the user's code, where it stands in the traceback, and what was raised, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    place = path.name if line is None else f"{path.name}:{line}"
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001
        text = "(its text cannot be had)"
    text = text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."
    return f"{place}: {type(error).__name__}: {text}".encode("utf-8", "backslashreplace").decode()


def _guarded(fault: Fault, path: Path) -> Fault:
    def guard(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(hook)
        def guarded(*arguments: Any) -> Any:
            try:
                kit: Kit | None = getattr(fault, "kit", None)
                return checked(name, None if kit is None else kit.vcpu_count, arguments, hook(*arguments))
            except (FaultRaised, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001
                raise FaultRaised(f"fault {title}: {_where(error, path)}") from None

        return guarded

    title = fault.name
    for name in HOOKS:
        setattr(fault, name, guard(name, getattr(fault, name)))
    return fault
