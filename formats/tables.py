"""The tables of a trace: names, types and dictionaries are a contract. Spec: formats/SPEC.md "Tables"."""

from __future__ import annotations

from dataclasses import dataclass

MAJOR, MINOR = 1, 2
BATCH_ROWS = 65_536
THICK_SEQUENCE = 0x8000_0000
DIGEST_BYTES = 32

# Append-only: a name keeps its index for ever.
DICTIONARIES: dict[str, tuple[str, ...]] = {
    "schedule.event": (
        "online", "offline", "run", "preempt", "block", "wake", "yield", "migrate", "throttle", "unthrottle", "pause",
        "resume", "suspend", "unsuspend", "poll",
    ),
    "schedule.reason": (
        "start", "slice", "turn", "preempt", "wakeup", "wfi", "timer", "interrupt", "sgi", "power_on", "power_off",
        "suspend", "idle", "balance", "directive", "quota", "pause", "latency", "neighbour", "reset", "end", "poll", "vmm", "wfe",
        "fault",
    ),
    "directives.kind": (
        "slot_add", "slot_delete", "slot_readonly", "attribute_has", "attribute_set", "attribute_get", "reset", "snapshot",
        "restore", "thread_change", "clock_skew", "fault", "vmm", "kexec",
    ),
    "hypercalls.conduit": ("hvc", "smc"),
    "hypercalls.function": (
        "SMCCC_VERSION", "SMCCC_ARCH_FEATURES", "SMCCC_ARCH_WORKAROUND_1", "SMCCC_ARCH_WORKAROUND_2",
        "SMCCC_ARCH_WORKAROUND_3", "TRNG_VERSION", "VENDOR_HYP_CALL_UID", "VENDOR_HYP_KVM_FEATURES", "VENDOR_HYP_KVM_PTP",
        "PV_TIME_FEATURES", "PV_TIME_ST", "PSCI_VERSION", "PSCI_CPU_SUSPEND", "PSCI_CPU_OFF", "PSCI_CPU_ON",
        "PSCI_AFFINITY_INFO", "PSCI_MIGRATE_INFO_TYPE", "PSCI_SYSTEM_OFF", "PSCI_SYSTEM_RESET", "PSCI_FEATURES",
        "PSCI_SYSTEM_SUSPEND", "PSCI_SYSTEM_RESET2",
    ),
    "memory.origin": ("guest", "host"),
    "memory.cause": ("pvtime", "pvtime_enable", "boot", "directive", "fault"),
    "pvtime.event": ("enable", "publish", "read", "attribute"),
    "interrupts.event": ("assert", "deassert", "take", "complete"),
    "inputs.source": ("uart",),
    "states.scope": ("vcpu", "board"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """type: u8, u16, u32, u64, i32, binary, digest (32 bytes) or text (dictionary-encoded, u8 indices)."""

    name: str
    type: str
    nullable: bool = False
    dictionary: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """One table; its rows are sorted by (position, sequence)."""

    name: str
    columns: tuple[Column, ...]

    @property
    def file(self) -> str:
        """The file's name inside a trace."""
        return f"{self.name}.arrow"

    def index(self, column: str) -> int:
        """Place of a column in a row."""
        return next(i for i, one in enumerate(self.columns) if one.name == column)


_COMMON = (Column("position", "u64"), Column("sequence", "u32"), Column("vtime_ns", "u64"), Column("vcpu", "u16", True))


def _table(name: str, *columns: Column) -> Table:
    return Table(name, (*_COMMON, *columns))


def _text(name: str, dictionary: str, nullable: bool = False) -> Column:
    return Column(name, "text", nullable, dictionary)


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        _table(
            "schedule",
            Column("thread", "u32"),
            _text("event", "schedule.event"),
            Column("pcpu", "u16", True),
            Column("from_pcpu", "u16", True),
            _text("reason", "schedule.reason", True),
        ),
        _table(
            "directives",
            _text("kind", "directives.kind"),
            Column("ipa", "u64", True),
            Column("size", "u64", True),
            Column("value", "u64", True),
            Column("result", "i32", True),
        ),
        _table(
            "hypercalls",
            Column("pc", "u64"),
            Column("el", "u8"),
            _text("conduit", "hypercalls.conduit"),
            Column("immediate", "u16"),
            Column("function_id", "u32"),
            _text("function", "hypercalls.function", True),
            *(Column(f"x{n}", "u64") for n in range(8)),
            *(Column(f"ret{n}", "u64") for n in range(4)),
            Column("changed", "u32"),
        ),
        _table(
            "memory_writes",
            _text("origin", "memory.origin"),
            Column("ipa", "u64"),
            Column("size", "u8"),
            Column("value", "u64"),
            Column("pc", "u64", True),
            _text("cause", "memory.cause", True),
        ),
        _table(
            "memory_reads",
            _text("origin", "memory.origin"),
            Column("ipa", "u64"),
            Column("size", "u8"),
            Column("value", "u64"),
            Column("pc", "u64"),
        ),
        _table(
            "pvtime",
            _text("event", "pvtime.event"),
            Column("ipa", "u64"),
            Column("stolen_ns", "u64"),
            Column("revision", "u32"),
            Column("attributes", "u32"),
        ),
        _table(
            "interrupts",
            _text("event", "interrupts.event"),
            Column("intid", "u16"),
            Column("pc", "u64", True),
        ),
        _table("console", Column("data", "binary")),
        _table("inputs", _text("source", "inputs.source"), Column("data", "binary")),
        _table(
            "states",
            _text("scope", "states.scope"),
            Column("registers", "digest", True),
            Column("devices", "digest", True),
            Column("memory", "digest", True),
        ),
        _table("blocks", Column("pc", "u64"), Column("instructions", "u16")),
    )
}
