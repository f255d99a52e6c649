"""What a scenario may choose of the host."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.formats.errors import InputError
from tracekit.formats.units import parse_duration_ns

POLICIES = ("round-robin", "fair", "chaos")
HOST_KINDS = ("pause", "resume", "migrate", "yield", "vmm", "stall", "suspend", "thread_change", "clock_skew")
SESSION_KINDS = ("slot_add", "slot_delete", "slot_readonly", "snapshot", "restore", "reset", "kexec")
DIRECTIVES = (*HOST_KINDS, *SESSION_KINDS)
PCPUS_MAX = 16
NEIGHBOURS_MAX = 64
NICE_0_WEIGHT = 1024
SKEW_NS_MAX = 10**12
DURATION_NS_MAX = 10**13
AT_NS_MAX = 1 << 60


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Modelled load: runs duty x period, sleeps the rest, again and again. duty in parts of a million; pcpu pins it."""

    name: str
    duty: int = 500_000
    period_ns: int = 10_000_000
    pcpu: int | None = None
    weight: int = NICE_0_WEIGHT

    @staticmethod
    def parse(text: str, index: int) -> Neighbour:
        """DUTY[:PERIOD][@PCPU], for example 50%, 25%:4ms, 100%@1. Errors: InputError."""
        rest, _, pin = text.partition("@")
        duty, _, period = rest.partition(":")
        try:
            number = duty.strip().removesuffix("%")
            whole, _, fraction = number.partition(".")
            parts = int(whole) * 10_000 + int((fraction + "0000")[:4])
            pcpu = int(pin) if pin else None
        except ValueError:
            raise InputError(f"host.neighbours = {text!r}: DUTY[:PERIOD][@PCPU] is needed, for example 50%:10ms@0") from None
        period_ns = parse_duration_ns(period) if period else 10_000_000
        return Neighbour(f"neighbour{index}", parts, period_ns, pcpu)

    @property
    def burst_ns(self) -> int:
        """CPU time of one burst."""
        return max(1, self.period_ns * self.duty // 1_000_000)

    @property
    def sleep_ns(self) -> int:
        """Sleep between two bursts; 0: it never sleeps."""
        return self.period_ns - self.burst_ns


@dataclass(frozen=True, slots=True)
class Directive:
    """Something done from outside at an exact virtual time. vcpu None: every vCPU, or the whole machine.

    The host itself does: pause, resume; migrate to `pcpu`; yield; vmm (the VMM works for `duration_ns` on the vCPU's thread); stall (a
    stage-2 fault takes `duration_ns`); suspend (the whole host, for `duration_ns`); thread_change (KVM_RUN goes on in another thread, whose
    run_delay is `value` ns); clock_skew (the run-queue clock of `pcpu` is off by `value` ns, which may be negative, from then on).
    The others are the session's: slot_add (`ipa`, `size`, `readonly`), slot_delete and slot_readonly (`ipa`); snapshot, restore (`value`: of
    which snapshot, none: live migration; `pre_run_ns`: what a new thread waits before its first KVM_RUN) and reset (of the machine, or
    KVM_ARM_VCPU_INIT of one vCPU), each with `duration_ns` of downtime; kexec.
    """

    at_ns: int
    kind: str
    vcpu: int | None = None
    pcpu: int | None = None
    duration_ns: int | None = None
    value: int | None = None
    ipa: int | None = None
    size: int | None = None
    readonly: bool = False
    pre_run_ns: int = 0


@dataclass(frozen=True, slots=True)
class _Form:
    """Which fields a kind of directive needs, and which it may have."""

    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


_FORMS: dict[str, _Form] = {
    "pause": _Form(may=("vcpu",)),
    "resume": _Form(may=("vcpu",)),
    "migrate": _Form(needs=("vcpu", "pcpu")),
    "yield": _Form(may=("vcpu",)),
    "vmm": _Form(needs=("duration_ns",), may=("vcpu",)),
    "stall": _Form(needs=("duration_ns",), may=("vcpu",)),
    "suspend": _Form(needs=("duration_ns",)),
    "thread_change": _Form(may=("vcpu", "value")),
    "clock_skew": _Form(needs=("pcpu", "value")),
    "slot_add": _Form(needs=("ipa", "size"), may=("readonly",)),
    "slot_delete": _Form(needs=("ipa",)),
    "slot_readonly": _Form(needs=("ipa",)),
    "snapshot": _Form(may=("duration_ns",)),
    "restore": _Form(may=("value", "duration_ns", "pre_run_ns")),
    "reset": _Form(may=("vcpu", "duration_ns")),
    "kexec": _Form(),
}
_KEYS = {"vcpu": "vcpu", "pcpu": "pcpu", "duration_ns": "duration", "value": "value", "ipa": "ipa", "size": "size"}


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Times in ns. quantum_ns: how far one physical CPU may run ahead of another that also runs a vCPU. halt_poll_ns: how long a thread
    polls before a WFI lets it sleep (0: not at all). quota_ns per quota_period_ns: what each vCPU's thread may run (0: no limit). clock_skew_ns:
    offset of each pCPU's run-queue clock. yields_on_wfe: a WFE yields, as KVM's trapped WFE does."""

    pcpus: int = 1
    policy: str = "round-robin"
    slice_ns: int = 3_000_000
    quantum_ns: int = 200_000
    wakeup_latency_ns: int = 0
    wakeup_granularity_ns: int = 1_000_000
    halt_poll_ns: int = 0
    quota_ns: int = 0
    quota_period_ns: int = 0
    clock_skew_ns: tuple[int, ...] = ()
    yields_on_wfe: bool = False
    neighbours: tuple[Neighbour, ...] = ()
    directives: tuple[Directive, ...] = ()

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise InputError(f"host.policy = {self.policy!r}: must be one of {', '.join(POLICIES)}")
        if (self.quota_ns or self.quota_period_ns) and (self.quota_ns < 10_000 or self.quota_period_ns < 100_000):
            raise InputError("host.quota, host.quota_period: at least 10us in a period of at least 100us; both 0 for no limit")
        for key, value, lowest, highest in (
            ("pcpus", self.pcpus, 1, PCPUS_MAX),
            ("slice", self.slice_ns, 1_000, 10**10),
            ("quantum", self.quantum_ns, 100, 10**9),
            ("wakeup_latency", self.wakeup_latency_ns, 0, 10**9),
            ("wakeup_granularity", self.wakeup_granularity_ns, 0, 10**9),
            ("halt_poll", self.halt_poll_ns, 0, 10**9),
            ("quota_period", self.quota_period_ns, 0, 10**10),
            ("quota", self.quota_ns, 0, self.quota_period_ns),
            ("neighbours", len(self.neighbours), 0, NEIGHBOURS_MAX),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
                raise InputError(f"host.{key} = {value!r}: must be from {lowest} to {highest}")
        if len(self.clock_skew_ns) > self.pcpus or any(abs(one) > SKEW_NS_MAX for one in self.clock_skew_ns):
            raise InputError(f"host.clock_skew: at most one offset for each of the {self.pcpus} pCPUs, up to 1000 s each")
        for neighbour in self.neighbours:
            self._check_neighbour(neighbour)
        for directive in self.directives:
            self._check_directive(directive)

    def _check_neighbour(self, one: Neighbour) -> None:
        for key, value in (("duty", one.duty), ("period", one.period_ns), ("weight", one.weight), ("pcpu", one.pcpu)):
            if isinstance(value, bool) or (not isinstance(value, int) and (key, value) != ("pcpu", None)):
                raise InputError(f"host.neighbours.{key} = {value!r}: must be a whole number")
        if not isinstance(one.name, str):
            raise InputError(f"host.neighbours.name = {one.name!r}: must be text")
        if not 0 < one.duty <= 1_000_000 or not 1_000 <= one.period_ns <= 10**10 or not 1 <= one.weight <= 1 << 20:
            raise InputError(
                f"host.neighbours: {one.name}: duty must be above 0% and at most 100%, period from 1us to 10s, weight from 1"
            )
        if one.pcpu is not None and not 0 <= one.pcpu < self.pcpus:
            raise InputError(f"host.neighbours: {one.name}: there is no pCPU {one.pcpu}; the host has {self.pcpus}")

    def _check_directive(self, one: Directive) -> None:
        form = _FORMS.get(one.kind)
        if form is None:
            raise InputError(f"host.directives.kind = {one.kind!r}: must be one of {', '.join(DIRECTIVES)}")
        if not 0 <= one.at_ns <= AT_NS_MAX:
            raise InputError(f"host.directives.at = {one.at_ns}: must be from 0 to {AT_NS_MAX} ns")
        for field, key in _KEYS.items():
            value = getattr(one, field)
            if value is None and field in form.needs:
                raise InputError(f"host.directives.{key}: {one.kind} needs it")
            if value is None:
                continue
            if field not in (*form.needs, *form.may):
                raise InputError(f"host.directives.{key}: {one.kind} has none")
            lowest = -SKEW_NS_MAX if one.kind == "clock_skew" and field == "value" else int(field == "duration_ns")
            highest = DURATION_NS_MAX if field == "duration_ns" else (1 << 64) - 1
            highest = SKEW_NS_MAX if one.kind == "clock_skew" and field == "value" else highest
            if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
                raise InputError(f"host.directives.{key} = {value!r}: {one.kind} takes {lowest} to {highest}")
        if one.pre_run_ns and "pre_run_ns" not in form.may:
            raise InputError(f"host.directives.pre_run: {one.kind} has none")
        if not 0 <= one.pre_run_ns <= DURATION_NS_MAX:
            raise InputError(f"host.directives.pre_run = {one.pre_run_ns!r}: must be from 0 to {DURATION_NS_MAX}")
        if one.readonly and "readonly" not in form.may:
            raise InputError(f"host.directives.readonly: {one.kind} has none")
        if one.pcpu is not None and not one.pcpu < self.pcpus:
            raise InputError(f"host.directives.pcpu: there is no pCPU {one.pcpu}; the host has {self.pcpus}")
