"""Telling a difference: whatever does not agree becomes the first divergence, with its proof."""

from __future__ import annotations

from typing import NoReturn

from tracekit.machine.board import Board
from tracekit.replay.divergence import Cause, Divergence, Event, Field, differing_fields
from tracekit.replay.events import EventStream, is_decision
from tracekit.replay.standing import Standing


class Diverged(Exception):
    """The first difference; travels up to Replay.run."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(divergence.what)
        self.divergence = divergence


class Difference:
    """Raises Diverged with what stands where. is_other_engine: the recording was made by another, which then is the likely cause."""

    board: Board  # the one that replays; set once it is built

    def __init__(self, events: EventStream, standing: Standing, is_other_engine: bool) -> None:
        self._events = events
        self._standing = standing
        self._is_other_engine = is_other_engine

    def differs(self, recorded: Event | None, replayed: Event | None) -> NoReturn:
        """A recorded and a replayed event are not the same. Errors: Diverged."""
        if recorded is not None and replayed is not None and recorded.table == replayed.table:
            fields = differing_fields(recorded.table, recorded.row, replayed.row)
            names = ", ".join(one.name for one in fields)
            what = f"{replayed.table}: {names} {'differs' if len(fields) == 1 else 'differ'}"
        else:
            fields = (Field("event", recorded.table if recorded else None, replayed.table if replayed else None),)
            mine = f"a {recorded.table} event" if recorded else "nothing more"
            theirs = f"a {replayed.table} event" if replayed else "nothing more"
            what = f"recorded: {mine}; replayed: {theirs}"
        self.tell(what, Cause.DRIFT, fields, recorded, replayed)

    def missed(self, recorded: Event) -> NoReturn:
        """The replay went past a recorded event. Errors: Diverged."""
        self.tell(
            f"a recorded {recorded.table} event did not happen",
            Cause.DECISION if is_decision(recorded) else Cause.DRIFT,
            (Field("event", recorded.table, None),),
            recorded,
            None,
        )

    def fail(self, what: str, cause: Cause, recorded: Event | None) -> NoReturn:
        """Something cannot be, at a recorded event. Errors: Diverged."""
        self.tell(what, cause, (), recorded, None)

    def tell(
        self, what: str, cause: Cause, fields: tuple[Field, ...], recorded: Event | None, replayed: Event | None
    ) -> NoReturn:
        """Errors: Diverged."""
        if cause is Cause.DRIFT and self._is_other_engine:
            cause = Cause.ENGINE
        rows = [event.row for event in (recorded, replayed) if event is not None]
        position = min((row[0] for row in rows), default=self.board.engine.position)
        example = rows[-1] if rows else None
        raise Diverged(
            Divergence(
                position=position,
                vtime_ns=example[2] if example else self._standing.vtime_ns,
                vcpu=example[3] if example else self._standing.loaded,
                pc=_pc_of(replayed) or self.board.engine.pc(),
                what=what,
                cause=cause,
                fields=fields,
                recorded=recorded,
                replayed=replayed,
                before=self._events.before(),
                last_check_position=self._standing.last_check,
            )
        )


def _pc_of(event: Event | None) -> int | None:
    if event is None:
        return None
    pc = event.as_dict().get("pc")
    return int(pc) if pc is not None else None
