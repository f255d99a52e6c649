"""Why two traces part, where their rows show it: what the first difference is, told in a sentence with the rows that prove it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracekit.analyzers.decision import decision_of
from tracekit.analyzers.difference import Cause, Change, Event, Proof, Setting
from tracekit.analyzers.surroundings import Surroundings
from tracekit.formats.units import format_ns

NO_CAUSE = "the trace does not show a cause: up to here both sides were given the same, and the guest did something else"
NO_CAUSE_IN_PART = "the tables that were compared do not show a cause; without --tables the others are asked too"
MACHINE = ("machine.", "scenario.append", "images.", "engine.")  # what a guest or its replay may notice
UNTOLD = ("scenario.max_", "scenario.capture", "scenario.engine_")  # what a run's events do not depend on
NAMES = {"a": "A", "b": "B"}
_HEX = frozenset({"ipa", "pc", "value", "function_id", *(f"x{n}" for n in range(8)), *(f"ret{n}" for n in range(4))})
_ARGUMENTS = ("pc", "el", "conduit", "immediate", "function_id", *(f"x{n}" for n in range(8)))


def cause_of(
    first: Change,
    firsts: Sequence[Change],
    sides: tuple[Surroundings, Surroundings],
    settings: tuple[Setting, ...],
    guests: tuple[Setting, ...],
) -> Cause | None:
    """firsts: what differs first of each table, in order. None: the trace does not show a cause. Errors: TraceDamaged."""
    here = [one for one in firsts if one.place[0] == first.place[0] and not one.is_renumbered]
    fault = next((one for one in here if one.table == "directives" and one.event.row["kind"] == "fault"), None)
    found = _found(fault or first, sides)
    if guests and (found is None or found.kind == "hypercall"):
        names = ", ".join(one.name for one in guests)
        return Cause(
            "image", f"the guests differ ({names}), and at position {first.place[0]:,} so does what they do", proofs(first)
        )
    if found is None:
        machine = [one for one in settings if one.name.startswith(MACHINE) and one.name != "engine.hooks"]
        if machine:
            names = ", ".join(one.name for one in machine[:4])
            return Cause(
                "machine",
                f"the machines differ ({names}), and at position {first.place[0]:,} so does the guest",
                proofs(first),
            )
        return None
    if given := _given(settings):
        return Cause(found.kind, f"{found.sentence} ({given})", found.proofs)
    return found


def _found(change: Change, sides: tuple[Surroundings, Surroundings]) -> Cause | None:
    """What a row of each table says."""
    match change.table:
        case "schedule":
            return decision_of(change, sides)
        case "directives":
            return _directive(change, sides)
        case "inputs":
            return _plain("input", "input from outside", change)
        case "hypercalls":
            return _hypercall(change)
        case "memory_writes":
            return _host_write(change)
        case "pvtime":
            return _publication(change)
        case "interrupts":
            return _interrupt(change)
    return None


def proofs(*changes: Change) -> tuple[Proof, ...]:
    """The rows of changes."""
    both = [(side, event) for change in changes for side, event in (("a", change.a), ("b", change.b))]
    return tuple(Proof(side, event) for side, event in both if event is not None)


def _given(settings: tuple[Setting, ...]) -> str:
    """What the scenarios were told to have different."""
    told = [one for one in settings if one.name.startswith("scenario.") and not one.name.startswith(UNTOLD)]
    shown = [f"{one.name.removeprefix('scenario.')}: {_short(one.a)} in A, {_short(one.b)} in B" for one in told[:3]]
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    return f"the scenarios differ in {'; '.join(shown)}{more}" if told else ""


def _short(value: Any) -> str:
    if isinstance(value, list):
        has_parts = any(isinstance(one, dict) for one in value)
        text = f"{len(value)} of them" if has_parts else ", ".join(str(one) for one in value) or "none"
    else:
        text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def shown(name: str, value: Any) -> str:
    """A value for people."""
    if value is None:
        return "nothing"
    if name in _HEX and isinstance(value, int):
        return f"{value:#x}"
    if name.endswith("_ns") and isinstance(value, int):
        return f"{value:,} ns"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _differences(change: Change) -> str:
    return "; ".join(f"{one.name} {shown(one.name, one.a)} in A, {shown(one.name, one.b)} in B" for one in change.fields)


def who(event: Event) -> str:
    """`vCPU 1`, `thread 3` (a neighbour), or the board."""
    vcpu = event.row["vcpu"]
    if vcpu is None:
        return f"thread {event.row['thread']}" if event.table == "schedule" else "the board"
    return f"vCPU {vcpu}"


def _plain(kind: str, what: str, change: Change) -> Cause:
    """One side has it and the other has not, or both in another way."""
    at = f"at position {change.place[0]:,}"
    if change.a is None or change.b is None:
        side, other = ("A", "B") if change.a else ("B", "A")
        return Cause(kind, f"{what} {at}: only {side} has it, {other} has not", proofs(change))
    if change.kind == "moved":
        places = (f"position {one.place[0]:,}, {format_ns(one.row['vtime_ns'])}" for one in (change.a, change.b))
        return Cause(kind, "{}: at {} in A, at {} in B".format(what, *places), proofs(change))
    return Cause(kind, f"{what} {at}: {_differences(change)}", proofs(change))


def _directive(change: Change, sides: tuple[Surroundings, Surroundings]) -> Cause:
    row = change.event.row
    if row["kind"] == "fault":
        name, side = ("a", sides[0]) if change.a else ("b", sides[1])
        faults = side.trace.manifest.get("scenario", {}).get("hypervisor", {}).get("faults", [])
        number = int(row["value"] or 0)
        called = faults[number].get("name") if number < len(faults) else f"number {number}"
        return Cause(
            "fault",
            f"fault {called} of {NAMES[name]}'s hypervisor acts on {who(change.event)} at position {change.place[0]:,}",
            proofs(change),
        )
    return _plain("directive", f"directive {row['kind']} on {who(change.event)}", change)


def _hypercall(change: Change) -> Cause | None:
    """Another answer to the same call; a call that only one guest makes has its cause in the guest."""
    if change.a is None or change.b is None:
        return None
    names = {field.name for field in change.fields}
    if names & set(_ARGUMENTS) or not names - {"position", "sequence", "vtime_ns"}:
        return None
    row = change.a.row
    name = row["function"] or f"{row['function_id']:#x}"
    answers = "; ".join(
        f"{one.name} {shown(one.name, one.a)} in A, {shown(one.name, one.b)} in B"
        for one in change.fields
        if one.name not in ("position", "sequence", "vtime_ns")
    )
    return Cause(
        "hypercall",
        f"the hypervisors answer {name} of {who(change.a)} at position {change.place[0]:,} differently: {answers}",
        proofs(change),
    )


def _host_write(change: Change) -> Cause | None:
    by_host = [one for one in (change.a, change.b) if one is not None and one.row["origin"] == "host"]
    if not by_host:
        return None
    row = by_host[0].row
    kind = "publication" if row["cause"] in ("pvtime", "pvtime_enable", "fault") else "host_write"
    return _plain(kind, f"store by the host ({row['cause']}) for {who(change.event)} to {row['ipa']:#x}", change)


def _publication(change: Change) -> Cause | None:
    row = change.event.row
    if row["event"] == "read":
        return None
    return _plain("publication", f"stolen time of {who(change.event)} ({row['event']})", change)


def _interrupt(change: Change) -> Cause | None:
    """A place at which an interrupt is taken is a decision, and so is a line that only the outside raises."""
    row = change.event.row
    if row["event"] != "take":
        return None
    if change.kind == "moved" and change.a and change.b:
        later = "B" if change.b.place > change.a.place else "A"
        ahead = abs(change.b.place[0] - change.a.place[0])
        delay = abs(change.b.row["vtime_ns"] - change.a.row["vtime_ns"])
        return Cause(
            "interrupt",
            f"interrupt {row['intid']} of {who(change.event)} is taken at position {change.place[0]:,}, in {later} {ahead:,} instructions and {format_ns(delay)} later",
            proofs(change),
        )
    return _plain("interrupt", f"interrupt {row['intid']} taken by {who(change.event)}", change)
