"""A pause counts as stolen."""

from __future__ import annotations

from tracekit.faults.counts_wfi import CountsWfi


class CountsPause(CountsWfi):
    """The time for which the VMM holds a vCPU is added to what it waited."""

    name = "counts-pause"
    models = "a policy error: paused is not stolen (docs/pvtime.md 3.13; kvmarm 617d201e, 4afdb062)"
    invariant = "S4"
    needs = "pause"

    counted = "pause"
