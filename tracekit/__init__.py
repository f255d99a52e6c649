"""Record, replay and analyse arm64 guests and their stolen time.

`open` and `open_many` give traces as tables, `record` and `replay` run guests, `session` stands inside a run, `diff` and `compare` tell runs apart. What they need is
imported when one is first used: `import tracekit` itself loads nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracekit.formats.errors import InputError, TraceDamaged, TraceError, TracekitError
    from tracekit.recorder.scenario import Scenario
    from tracekit.workbench.many import ManyView, open_many
    from tracekit.workbench.running import compare, diff, record, replay
    from tracekit.workbench.tables import ThinTraceWarning
    from tracekit.workbench.trace import TraceView, open
    from tracekit.workbench.walking import session

__version__ = "0.1.0"
__all__ = [
    "InputError", "ManyView", "Scenario", "ThinTraceWarning", "TraceDamaged", "TraceError", "TraceView", "TracekitError", "compare",
    "diff", "open", "open_many", "record", "replay", "session",
]  # fmt: skip

_NAMES = {
    "InputError": "tracekit.formats.errors:InputError",
    "ManyView": "tracekit.workbench.many:ManyView",
    "Scenario": "tracekit.recorder.scenario:Scenario",
    "ThinTraceWarning": "tracekit.workbench.tables:ThinTraceWarning",
    "TraceDamaged": "tracekit.formats.errors:TraceDamaged",
    "TraceError": "tracekit.formats.errors:TraceError",
    "TraceView": "tracekit.workbench.trace:TraceView",
    "TracekitError": "tracekit.formats.errors:TracekitError",
    "compare": "tracekit.workbench.running:compare",
    "diff": "tracekit.workbench.running:diff",
    "open": "tracekit.workbench.trace:open",
    "open_many": "tracekit.workbench.many:open_many",
    "record": "tracekit.workbench.running:record",
    "session": "tracekit.workbench.walking:session",
}


def __getattr__(name: str) -> Any:
    if name == "replay":
        return importlib.import_module("tracekit.replay")  # a room of the house, and callable: see _Callable
    if name not in _NAMES:
        raise AttributeError(f"module 'tracekit' has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Callable(ModuleType):
    """The package tracekit.replay, which can also be called: `tracekit.replay(path)`. As tracekit.workbench.running.replay."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return importlib.import_module("tracekit.workbench.running").replay(*arguments, **options)


class _Package(ModuleType):
    """This package: an import of tracekit.replay sets its attribute of that name, which must stay callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "replay" and type(value) is ModuleType:
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
