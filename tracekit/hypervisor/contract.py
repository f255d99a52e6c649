"""What a fault's hooks may give back, and what a fault may ask of its kit: faults are code of the user's, so that both are checked.

A hook that forgets its `return` is told so by name, where it happened; nothing of it reaches the machine or the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from tracekit.hypervisor.effects import PowerOff, PowerOn, Standby, SystemOff, SystemReset
from tracekit.hypervisor.smccc import Hypercall, Outcome

STORES_MAX = 64  # of one update
PLACES_MAX = 64  # addresses that are set for one vCPU
STORE_SIZE_MAX = 4096
_U64 = 1 << 64
_X_COUNT = 18
_EFFECTS = (PowerOff, Standby, SystemOff, SystemReset)
_MEANT = {
    "bases": "for each vCPU an address or None",
    "registrations": f"addresses, at most {PLACES_MAX}",
    "reaches": f"a Hypercall of a vCPU that there is, with X0 to X{_X_COUNT - 1} as whole numbers from 0 to 2^64 - 1",
    "answer": "an Outcome with X0 to X3 as whole numbers from 0 to 2^64 - 1",
    "target": "an address",
    "stores": f"(ipa, size, value) for each of at most {STORES_MAX} stores of 1 to {STORE_SIZE_MAX} bytes",
    **dict.fromkeys(("checks_bases", "clears", "publishes", "passes_slots"), "True or False"),
    **dict.fromkeys(("begin_ns", "run_delay_ns", "cursor_ns", "value_ns"), "a whole number of ns"),
}  # fmt: skip


def checked(hook: str, vcpu_count: int | None, arguments: tuple[Any, ...], returned: Any) -> Any:
    """What a hook gave back, sequences as tuples. vcpu_count: None where it is not known yet. Errors: TypeError."""
    if hook in _ITEMS:
        most, is_item = _ITEMS[hook]
        if isinstance(returned, Iterable) and not isinstance(returned, str | bytes | Mapping):
            items = tuple(islice(returned, most + 1))
            is_whole = len(items) == len(arguments[0]) if hook == "bases" else len(items) <= most
            if is_whole and all(is_item(one) for one in items):
                return items
    elif hook not in _SCALARS or _SCALARS[hook](returned, vcpu_count):
        return returned
    raise TypeError(f"{hook} returned {returned!r:.80}; it must return {_MEANT[hook]}")


def is_number(value: Any) -> bool:
    """A whole number that is no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_u64(value: Any) -> bool:
    """A whole number that 64 bits hold."""
    return is_number(value) and 0 <= value < _U64


def natural(what: str, value: Any, end: int = _U64, begin: int = 0) -> int:
    """An argument of the kit. Errors: TypeError, ValueError."""
    if not is_number(value):
        raise TypeError(f"{what} = {value!r:.80}: a whole number is needed")
    if not begin <= value < end:
        raise ValueError(f"{what} = {value:#x}: must be from {begin} to {end - 1:#x}")
    return int(value)


def _is_store(one: Any) -> bool:
    return (
        isinstance(one, tuple)
        and len(one) == 3
        and is_u64(one[0])
        and is_number(one[1])
        and 1 <= one[1] <= STORE_SIZE_MAX
        and is_number(one[2])
    )


def _is_call(call: Any, vcpu_count: int | None) -> bool:
    return (
        isinstance(call, Hypercall)
        and is_number(call.vcpu)
        and 0 <= call.vcpu < (vcpu_count or 1)
        and isinstance(call.x, tuple)
        and len(call.x) >= _X_COUNT
        and all(is_u64(one) for one in call.x)
    )


def _is_outcome(outcome: Any, vcpu_count: int | None) -> bool:
    if not isinstance(outcome, Outcome) or not isinstance(outcome.ret, tuple) or len(outcome.ret) != 4:
        return False
    effect = outcome.effect
    is_possible = effect is None or isinstance(effect, _EFFECTS)
    if isinstance(effect, PowerOn):
        is_possible = is_number(effect.vcpu) and 0 <= effect.vcpu < (vcpu_count or 1)
        is_possible = is_possible and is_u64(effect.entry) and is_u64(effect.context)
    return is_possible and all(is_u64(one) for one in outcome.ret)


_ITEMS: dict[str, tuple[int, Callable[[Any], bool]]] = {
    "bases": (PLACES_MAX, lambda one: one is None or is_u64(one)),
    "registrations": (PLACES_MAX, is_u64),
    "stores": (STORES_MAX, _is_store),
}
_SCALARS: dict[str, Callable[[Any, int | None], bool]] = {
    "reaches": _is_call,
    "answer": _is_outcome,
    "target": lambda value, _: is_u64(value),
    **dict.fromkeys(("checks_bases", "clears", "publishes", "passes_slots"), lambda value, _: isinstance(value, bool)),
    **dict.fromkeys(("begin_ns", "run_delay_ns", "cursor_ns", "value_ns"), lambda value, _: is_number(value)),
}
