"""A decision of the host's scheduler that the two sides made differently, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from tracekit.analyzers.difference import Cause, Change, Event, Proof
from tracekit.analyzers.pairing import Place
from tracekit.analyzers.surroundings import ROWS_MAX, Surroundings
from tracekit.formats.units import format_ns

# What the guest brings about itself: no decision of the host.
BY_GUEST = frozenset({"wfi", "sgi", "power_on", "power_off"})
DONE = {
    "preempt": "preempted", "run": "ran", "block": "put to sleep", "wake": "woke", "yield": "made yield", "migrate": "migrated",
    "throttle": "throttled", "unthrottle": "unthrottled", "pause": "paused", "resume": "resumed", "suspend": "suspended",
    "unsuspend": "woke from suspend", "online": "put online", "offline": "put offline", "poll": "let poll",
}  # fmt: skip
STOPS = frozenset({"preempt", "block", "yield", "throttle", "pause", "suspend", "offline"})


def decision_of(change: Change, sides: tuple[Surroundings, Surroundings]) -> Cause | None:
    """None: the row is the guest's own doing. Errors: TraceDamaged."""
    if change.event.row["reason"] in BY_GUEST:
        return None
    if (rival := _rival(change, sides)) is not None:
        return rival
    if change.a is None or change.b is None:
        return _missing(change, sides)
    proofs = (Proof("a", change.a), Proof("b", change.b))
    number = f"decision {change.a.index}"
    if change.kind == "changed":
        told = "; ".join(f"{one.name} {_text(one.a)} in A, {_text(one.b)} in B" for one in change.fields)
        return Cause("schedule", f"{number}: {_thread(change.a, sides[0])} at position {change.a.place[0]:,}: {told}", proofs)
    return Cause("schedule", f"{number}: {_moved(change.a, change.b, sides)}", proofs)


def _rival(change: Change, sides: tuple[Surroundings, Surroundings]) -> Cause | None:
    """At the place where one side ran a thread, the other ran another one there."""
    mine = min((one for one in (change.a, change.b) if one is not None), key=lambda event: event.place)
    is_a = mine is change.a
    theirs = next(sides[is_a].forward("schedule", mine.place), None)
    if theirs is None or mine.row["event"] != "run" or theirs.row["event"] != "run":
        return None
    if theirs.place[0] != mine.place[0] or theirs.row["pcpu"] != mine.row["pcpu"] or theirs.row["thread"] == mine.row["thread"]:
        return None
    a, b = (mine, theirs) if is_a else (theirs, mine)
    sentence = (
        f"decision {a.index}: at position {a.place[0]:,} A ran {_thread(a, sides[0])} on pCPU {a.row['pcpu']}, "
        f"B ran {_thread(b, sides[1])} there"
    )
    return Cause("schedule", sentence, (Proof("a", a), Proof("b", b)))


def _moved(a: Event, b: Event, sides: tuple[Surroundings, Surroundings]) -> str:
    """The same step of a thread at another place."""
    what, done = _thread(a, sides[0]), DONE[str(a.row["event"])]
    at = f"at position {a.place[0]:,}"
    delay = int(b.row["vtime_ns"]) - int(a.row["vtime_ns"])
    if a.place[0] == b.place[0]:
        return (
            f"A {done} {what} {at}, {format_ns(int(a.row['vtime_ns']))}; B there too, but {format_ns(abs(delay))} {_later(delay)}"
        )
    distance = b.place[0] - a.place[0]
    longer = sides[1] if distance > 0 else sides[0]
    own = _instructions(a, min(a.place, b.place), max(a.place, b.place), longer) if a.row["event"] in STOPS else None
    if own is not None:
        reason = f" (reason {a.row['reason']})" if a.row["reason"] else ""
        return f"A {done} {what} {at}{reason}, B ran it {own:,} instructions {'longer' if distance > 0 else 'shorter'}"
    return f"A {done} {what} {at}, B {abs(distance):,} instructions of the board and {format_ns(abs(delay))} {_later(distance)}"


def _later(distance: int) -> str:
    return "later" if distance > 0 else "earlier"


def _missing(change: Change, sides: tuple[Surroundings, Surroundings]) -> Cause:
    """Only one side has the row: say what the other does next with the thread."""
    side, name, other_side, other = ("a", "A", sides[1], "B") if change.a else ("b", "B", sides[0], "A")
    event = change.event
    what, at = _thread(event, sides[0] if change.a else sides[1]), f"at position {event.place[0]:,}"
    sentence = f"decision {event.index}: {name} {DONE[str(event.row['event'])]} {what} {at}, {other} did not"
    proofs: Sequence[Proof] = (Proof(side, event),)
    for _, later in zip(range(ROWS_MAX), other_side.forward("schedule", event.place), strict=False):
        if later.row["thread"] == event.row["thread"] and later.row["reason"] != "turn":
            own = _instructions(event, event.place, later.place, other_side) if event.row["event"] in STOPS else None
            if own:
                sentence += f" and ran it {own:,} instructions longer"
            return Cause("schedule", sentence, (*proofs, Proof("b" if change.a else "a", later)))
    return Cause("schedule", sentence, tuple(proofs))


def _thread(event: Event, side: Surroundings) -> str:
    if event.row["vcpu"] is not None:
        return f"vCPU {event.row['vcpu']}"
    threads = side.trace.manifest["threads"]
    number = int(event.row["thread"])
    return str(threads[number].get("name")) if number < len(threads) else f"thread {number}"


def _text(value: object) -> str:
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _instructions(event: Event, begin: Place, end: Place, side: Surroundings) -> int | None:
    """Instructions of an event's vCPU between two places; None where the rows do not tell."""
    vcpu = event.row["vcpu"]
    if vcpu is None:
        return None
    runner = side.last_run(begin)
    if runner is None:
        return None
    who, at, count = runner.row["vcpu"], begin[0], 0
    for number, row in enumerate(side.forward("schedule", begin)):
        if row.place >= end:
            return count + (end[0] - at if who == vcpu else 0)
        if number >= ROWS_MAX:
            return None
        if row.row["event"] == "run" and row.row["vcpu"] is not None:
            count += row.place[0] - at if who == vcpu else 0
            who, at = row.row["vcpu"], row.place[0]
    return count + (end[0] - at if who == vcpu else 0)
