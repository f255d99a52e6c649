"""What the host says: rows for the recorder, and the next thing that somebody else must do.

All are values. Transition and Enter are made too often to be frozen, which costs a microsecond each.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Transition:
    """A `schedule` row without its place: the recorder adds position and sequence."""

    event: str
    thread: int
    vcpu: int | None
    pcpu: int | None
    from_pcpu: int | None
    reason: str | None
    vtime_ns: int


@dataclass(frozen=True, slots=True)
class Told:
    """A `directives` row that the host makes: thread_change, clock_skew or vmm. value may be negative (clock_skew)."""

    kind: str
    vcpu: int | None
    size: int | None
    value: int
    at_ns: int


@dataclass(slots=True)
class Enter:
    """Guest code of a vCPU must run from now_ns until at most horizon_ns. loaded: KVM_RUN has just begun, or the thread was just switched in.
    resumes: the thread was on the pCPU since an earlier time, without guest code (poll, VMM): a `run` row with reason turn is due."""

    vcpu: int
    pcpu: int
    now_ns: int
    horizon_ns: int
    loaded: bool
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """A call_at() has come due, or a directive that is the session's (then it is the token)."""

    at_ns: int
    token: object


@dataclass(frozen=True, slots=True)
class Deadlock:
    """No vCPU can ever run again."""

    at_ns: int
