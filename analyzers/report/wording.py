"""What the page says in whole sentences. Source of the invariants: docs/pvtime.md 5.10."""

from __future__ import annotations

from tracekit.formats.units import format_ns

INVARIANTS = {
    "S1": "the stolen time never falls within an epoch",
    "S2": "it grows by no less than 0 and no more than the wall time",
    "S3": "run, wait and block partition each thread's life",
    "S4": "what is told is what was stolen, at every guest entry",
    "S5": "it does not change while guest code runs",
    "M1": "the structure is aligned to 64 bytes",
    "M2": "structures do not overlap",
    "M3": "a total reaches memory as one store of 8 bytes",
    "M5": "the host stores only into that vCPU's present, writable structure",
    "M6": "the structure is disjoint from devices, images and the guest's own RAM",
    "H1": "hypercalls answer as SMCCC says",
    "H2": "PV_TIME_FEATURES and PV_TIME_ST agree",
    "H3": "revision and attributes are 0, all little-endian",
    "L1": "the total begins again only at PV_TIME_ST",
    "L2": "a restore goes on from what stood in memory",
    "L5": "nobody stores to an address that is no longer registered",
    "G1": "the guest's own steal never falls",
    "G2": "a CPU's times add up to no more than the wall time",
    "U1": "the unit is the nanosecond",
}
STATES = {
    "run": "runs", "poll": "polls in WFI", "wait": "waits (runnable)", "woken": "waits since a wake-up", "yield": "waits after a yield",
    "sleep": "blocked", "offline": "offline", "pause": "paused", "suspend": "suspended",
}  # fmt: skip
STEAL = {
    "true": "true: what the host's schedule says was stolen, at the last guest entry",
    "told": "published: what the hypervisor stored",
    "read": "seen: what the guest read",
    "accounted": "accounted: what the guest shows in /proc/stat",
}


def duration(ns: int) -> str:
    """A duration, with the sign for micro that the plots use."""
    return format_ns(ns).replace(" us", " µs")
