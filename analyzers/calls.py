"""Invariants of the calling convention and of discovery: H1, H2. Spec: docs/pvtime.md 1; Arm DEN 0028, DEN 0057A.

Only what the guest asked is judged. A refusal that the scenario ordered (an id that is denied, the firmware bitmap, no structure) and every
refusal over SMC, which older profiles do not dispatch, is no finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tracekit.analyzers.findings import Tally
from tracekit.analyzers.placement import Places
from tracekit.analyzers.source import Want

ARCH_FEATURES, FEATURES, ST = 0x8000_0001, 0xC500_0020, 0xC500_0021
MANDATORY = (0x8000_0000, 0x8000_0001)
NOT_SUPPORTED = (1 << 64) - 1
_WORD = 0xFFFF_FFFF
_FOUND = "{function_id:#x}({asked:#x}) = {ret0:#x}"

_function, _ret = pl.col("function_id"), pl.col("ret0")
_owner = _function // (1 << 24) % 64
_is_64 = _function // (1 << 30) % 2 == 1
_is_pv = _function.is_in([FEATURES, ST])
_low = _ret % (1 << 32)
_is_no = _low >= 1 << 31  # negative as an int32
_is_truncated = _is_64 & (_ret >= 0xFFFF_FFF0) & (_ret <= _WORD) & ~((_function == ST) & (_ret % 64 == 0))
_is_arch = _function == ARCH_FEATURES
WANTS = {
    "hypercalls": Want(
        ("conduit", "immediate", "function_id", "x1", "ret0", "ret1", "ret2", "ret3", "changed"),
        (_owner == 5) | _is_arch | (pl.col("changed") != 0) | _is_truncated,
    )
}


class Calls:
    """Follows the calls over windows."""

    def __init__(self, scenario: Mapping[str, Any], places: Places, tally: Tally) -> None:
        hypervisor = scenario.get("hypervisor", {})
        hypervisor = hypervisor if isinstance(hypervisor, dict) else {}
        self._denied = [int(one) for one in hypervisor.get("denied", ())]
        self._hides = not int(hypervisor.get("firmware_bitmap", 1)) & 1
        self._places = places
        self._tally = tally
        self._listed: bool | None = None  # what ARCH_FEATURES last said of PV_TIME_FEATURES
        self._offers: dict[tuple[int, bool], bool] = {}  # (vCPU, has a structure): what PV_TIME_FEATURES last said of PV_TIME_ST

    def feed(self, calls: pl.DataFrame) -> None:
        """One window of `hypercalls`."""
        calls = calls.filter(pl.col("vcpu").is_not_null())
        if not calls.height:
            return
        calls = self._places.with_base(calls).with_columns(asked=pl.col("x1") % (1 << 32))
        self._convention(calls)
        self._answers(calls)
        self._discovery(calls)

    def _add(self, rows: pl.DataFrame, where: pl.Expr, expected: str, found: str = _FOUND, invariant: str = "H1") -> None:
        self._tally.add(invariant, "hypercalls", rows.filter(where.fill_null(False)), expected, found)

    def _convention(self, calls: pl.DataFrame) -> None:
        """Widths and registers, of every call."""
        self._add(calls, pl.col("changed") != 0, "X4 to X17 as before the call", "{function_id:#x}: changed, mask {changed:#x}")
        rest = (pl.col("ret1") != 0) | (pl.col("ret2") != 0) | (pl.col("ret3") != 0)
        self._add(calls, _is_pv & rest, "X1 to X3 are 0", "{function_id:#x}: {ret1:#x}, {ret2:#x}, {ret3:#x}")
        self._add(calls, _is_truncated, "a negative result in 64 bits")

    def _answers(self, calls: pl.DataFrame) -> None:
        """Each answer for itself. One that was truncated has been told."""
        calls = calls.filter(~_is_truncated)
        is_refusal = _ret == NOT_SUPPORTED
        unknown = (_owner == 5) & ~_is_pv
        self._add(calls, unknown & (pl.when(_is_64).then(~is_refusal).otherwise(_low != _WORD)), "-1: there is no such call")
        is_features, is_known = _function == FEATURES, pl.col("asked").is_in([FEATURES, ST])
        self._add(calls, is_features & ~is_known & ~is_refusal, "-1: PV time has no such call")
        self._add(calls, is_features & is_known & ~is_refusal & (_ret != 0), "0 or -1")
        self._add(calls, _is_arch & pl.col("asked").is_in(list(MANDATORY)) & _is_no, "at least 0: the call is mandatory")
        is_answered = (_function == ST) & ~is_refusal
        self._add(calls, is_answered & pl.col("base").is_null(), "-1: the vCPU has no structure")
        self._add(calls, is_answered & (pl.col("base") != _ret), "the vCPU's structure at {base:#x}")

    def _discovery(self, calls: pl.DataFrame) -> None:
        """What the answers say together."""
        is_listing = _is_arch & (pl.col("asked") == FEATURES)
        is_offer = (_function == FEATURES) & (pl.col("asked") == ST)
        asked = calls.filter(~_is_truncated, is_listing | is_offer | (_function == ST))
        if not asked.height:
            return
        frame = asked.with_columns(
            listed=pl.when(is_listing).then(~_is_no).forward_fill().fill_null(pl.lit(self._listed, pl.Boolean)),
            can_refuse=(pl.col("conduit") == "hvc") & (pl.col("immediate") == 0),
            has_base=pl.col("base").is_not_null(),
        )
        self._listed = frame["listed"][-1]
        frame = frame.with_columns(is_refusal=_ret == NOT_SUPPORTED)
        refuses = pl.when(is_listing).then(_is_no).otherwise(is_offer & pl.col("is_refusal"))
        if not self._hides and FEATURES not in self._denied:
            wrong = refuses & pl.col("has_base") & pl.col("can_refuse")
            self._add(frame, wrong, "an offer: the vCPU has a structure, and nothing hides it")
        denies = is_offer & ~pl.col("is_refusal") & ~pl.col("listed") & pl.col("can_refuse")
        self._add(frame, denies, "-1, as ARCH_FEATURES does not list PV_TIME_FEATURES")
        self._agreement(frame)

    def _agreement(self, frame: pl.DataFrame) -> None:
        """H2: PV_TIME_FEATURES(PV_TIME_ST) is 0 if and only if PV_TIME_ST is not -1.

        An answer to one vCPU holds for another that has (or lacks) a structure as well, unless that one was answered itself.
        """
        if self._hides or {FEATURES, ST} & set(self._denied):
            return
        is_st = _function == ST
        offer = pl.when(~is_st).then(~pl.col("is_refusal"))
        frame = frame.filter(pl.col("can_refuse"), is_st | (_function == FEATURES))
        kinds = ["vcpu", "has_base"]
        before = [(v, b, offers) for (v, b), offers in self._offers.items()]
        known = pl.DataFrame(before, schema={"vcpu": pl.UInt16, "has_base": pl.Boolean, "offer": pl.Boolean}, orient="row")
        frame = pl.concat([known.with_columns(is_known=pl.lit(True)), frame.with_columns(offer=offer)], how="diagonal")
        own = pl.col("offer").forward_fill().over(kinds)
        frame = frame.with_columns(offer=own, any_offer=pl.col("offer").forward_fill().over("has_base"))
        for row in frame.group_by(kinds, maintain_order=True).last().iter_rows(named=True):
            if row["offer"] is not None:
                self._offers[row["vcpu"], row["has_base"]] = row["offer"]
        offers = pl.coalesce("offer", "any_offer")
        frame = frame.filter(pl.col("is_known").is_null() & is_st)
        is_refusal = pl.col("is_refusal")
        self._add(frame, offers & is_refusal, "an address, as PV_TIME_FEATURES offers one", _FOUND, "H2")
        self._add(frame, ~offers & ~is_refusal, "-1, as PV_TIME_FEATURES says", _FOUND, "H2")
        self._add(frame, offers.is_null() & is_refusal & pl.col("has_base"), "the vCPU's structure at {base:#x}")
