"""Counters of stolen time, and everything that happens at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import polars as pl

from tracekit.analyzers.export.painter import COUNTERS, Kind, Sample
from tracekit.analyzers.export.window import Window
from tracekit.analyzers.findings import Finding
from tracekit.analyzers.source import KEY, Want
from tracekit.analyzers.steal import entries_of

Names = Callable[[int | None], str | None]  # the symbol of a pc, None where it has none
_REGISTERS = (*(f"x{n}" for n in range(8)), *(f"ret{n}" for n in range(4)))
KINDS = {
    "hypercalls": Kind(
        "hypercalls", ("function_id", "conduit", "immediate", "el", "pc", *_REGISTERS, "changed"),
        frozenset({"function_id", "pc", "changed", *_REGISTERS}),
    ),
    "interrupts": Kind("interrupts", ("intid", "pc"), frozenset({"pc"})),
    "pvtime": Kind("pvtime", ("stolen_ns", "ipa", "revision", "attributes"), frozenset({"ipa"})),
    "directives": Kind("directives", ("ipa", "size", "value", "result"), frozenset({"ipa"})),
    "console": Kind("console", ("text",)),
    "inputs": Kind("inputs", ("text",)),
}  # fmt: skip
FINDINGS = Kind("findings", ("table", "expected", "found", "count", "command"))
# The name of each instant, by its columns.
_NAMES = {
    "hypercalls": pl.col("function").fill_null("unknown function"),
    "interrupts": pl.lit("IRQ ") + pl.col("intid").cast(pl.String),
    "pvtime": pl.col("event"),
    "directives": pl.col("kind"),
    "console": pl.lit("console"),
    "inputs": pl.col("source"),
}
_WANTS = {
    "hypercalls": Want(("function", *KINDS["hypercalls"].columns)),
    "interrupts": Want(("event", "intid", "pc"), pl.col("event") == "take"),
    "pvtime": Want(("event", *KINDS["pvtime"].columns)),
    "directives": Want(("kind", *KINDS["directives"].columns)),
    "console": Want(("data",)),
    "inputs": Want(("source", "data")),
}
_LAST = {"vcpu": pl.UInt16, "vtime_ns": pl.Int64, "value": pl.Int64, "is_shown": pl.Boolean}


def wants(tables: Sequence[str]) -> dict[str, Want]:
    """What instants need of a trace."""
    return {table: want for table, want in _WANTS.items() if table in tables}


def kind_of(table: str, names: Names | None) -> Kind:
    """What a table's instants have; with names, each pc has its symbol too."""
    kind = KINDS[table]
    is_named = names is not None and "pc" in kind.columns
    return Kind(kind.name, (*kind.columns, "symbol"), kind.hexadecimal) if is_named else kind


def instants_of(
    table: str, rows: pl.DataFrame, window: Window, names: Names | None = None
) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """A window's rows of a table by their name, as `Painter.instants` takes them. Bytes are text with escapes."""
    kind = kind_of(table, names)
    rows = rows.filter(window.holds)
    where = _WANTS[table].where
    rows = rows if where is None else rows.filter(where)
    if "text" in kind.columns:
        texts = [data.decode(errors="backslashreplace").rstrip("\n") for data in rows["data"]]
        rows = rows.with_columns(text=pl.Series(texts, dtype=pl.String))
    if names is not None and "symbol" in kind.columns:
        rows = rows.with_columns(symbol=pl.Series([names(pc) for pc in rows["pc"]], dtype=pl.String))
    rows = rows.select(_NAMES[table].alias("name"), "vcpu", "vtime_ns", *KEY, *kind.columns)
    for (name,), part in rows.group_by("name", maintain_order=True):
        yield str(name), part.drop("name").rows()


def finding_row(finding: Finding, trace: str) -> tuple[object, ...]:
    """A finding as `Painter.instants` takes it."""
    place = finding.vcpu, finding.vtime_ns, finding.position, finding.sequence
    return (*place, finding.table, finding.expected, finding.found, finding.count, finding.command(trace))


class Counters:
    """Samples of each vCPU's counters where they change."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._last = {counter: pl.DataFrame(schema=_LAST) for counter in COUNTERS}

    def feed(self, ledger: pl.DataFrame) -> list[Sample]:
        """true at each change of state and each guest entry of an enabled vCPU, told and error at each guest entry, all 0 at a PV_TIME_ST.

        What was so when the window begins is told with the time from which on it was so.
        """
        place = (pl.col("vcpu"), pl.col("vtime_ns"), *(pl.col(name) for name in KEY))
        told = pl.col("told_ns").cast(pl.Int128)
        entries = entries_of(ledger).select(
            *place, pl.col("true_ns").alias("true"),
            pl.when(told >= 1 << 63).then(told - (1 << 64)).otherwise(told).cast(pl.Int64).alias("told"), pl.col("error_ns").alias("error"),
        )  # fmt: skip
        is_listening = (pl.col("epoch") > 0) & (pl.col("epoch") != pl.col("gone_epoch"))
        changes = ledger.filter(is_listening & (pl.col("state") != pl.col("state_before"))).select(
            *place, pl.col("truth_ns").alias("true")
        )
        zero = pl.lit(0, pl.Int64)
        begins = ledger.filter(pl.col("event") == "st").select(
            *place, zero.alias("true"), zero.alias("told"), zero.alias("error")
        )
        rows = pl.concat([entries, changes, begins], how="diagonal").filter(self._window.begins_before("position", "vtime_ns"))
        rows = rows.sort("vcpu", *KEY, maintain_order=True).with_columns(is_inside=self._window.holds)
        return [sample for counter in COUNTERS for sample in self._changed(counter, rows.filter(pl.col(counter).is_not_null()))]

    def _changed(self, counter: str, rows: pl.DataFrame) -> list[Sample]:
        """A counter's samples: `_last` has each vCPU's last value and whether it was shown."""
        rows = rows.select("vcpu", "vtime_ns", pl.col(counter).alias("value"), is_new=pl.lit(True), is_shown="is_inside")
        rows = pl.concat([self._last[counter].with_columns(is_new=pl.lit(False)).select(rows.columns), rows]).sort(
            "vcpu", maintain_order=True
        )
        before = pl.col("value").shift(1).over("vcpu")
        was_shown = pl.col("is_shown").shift(1).over("vcpu").fill_null(True)
        is_change = pl.col("is_new") & pl.col("value").ne_missing(before)
        rows = rows.filter(~pl.col("is_new") | is_change | (pl.col("is_shown") & ~was_shown))
        # A value that stands when the window begins is shown with the first row inside, whether or not that row changes it.
        is_due = ~pl.col("is_shown") & pl.col("is_shown").shift(-1).over("vcpu").fill_null(False)
        is_repeated = (
            pl.col("is_new") & pl.col("is_shown") & (pl.col("value") == pl.col("value").shift(1).over("vcpu")).fill_null(False)
        )
        shown = rows.filter(is_due | (pl.col("is_new") & pl.col("is_shown") & ~is_repeated))
        self._last[counter] = rows.group_by("vcpu", maintain_order=True).last().select(list(_LAST))
        return shown.select("vcpu", pl.lit(counter), "vtime_ns", "value").rows()

    def close(self) -> list[Sample]:
        """Counters that did not change inside the window."""
        frames = [
            last.filter(~pl.col("is_shown")).select("vcpu", pl.lit(counter), "vtime_ns", "value")
            for counter, last in self._last.items()
        ]
        return [sample for frame in frames for sample in frame.rows()]
