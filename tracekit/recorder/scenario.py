"""A run's whole configuration as one frozen value, readable from TOML. Every error names the key and what is allowed."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from tracekit.formats.errors import InputError
from tracekit.formats.units import parse_count, parse_duration_ns, parse_size
from tracekit.host.config import AT_NS_MAX, Directive, HostConfig, Neighbour
from tracekit.hypervisor.config import HypervisorConfig

T = TypeVar("T")
CPUS = ("a53", "a72", "max")
CAPTURES = ("thin", "writes", "full")
ENGINE_MODES = ("fast", "exact", "safe")
FORMATS = ("auto", "elf", "image", "flat")
CONDUITS = ("hvc", "smc")
VCPUS_MAX = 8
RAM_MIN, RAM_MAX = 4 << 20, 16 << 30
SNAPSHOTS_MAX = 16
PANIC_TEXT = "Kernel panic - not syncing"


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes that reach the UART at a virtual time (ns)."""

    at_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Scenario:
    """Guest, board, host, hypervisor, capture, limits and seed. Times in ns, sizes in bytes.

    checkpoint_every: instructions between two checkpoints, None: as far apart as their cost asks for.
    conduit: what the device tree's /psci names, `hvc` or `smc`; both always reach the hypervisor as its profile has them.
    """

    image: str = ""
    initrd: str | None = None
    append: str = ""
    guest_format: str = "auto"
    conduit: str = "hvc"
    vcpus: int = 1
    ram: int = 512 << 20
    cpu: str = "a53"
    ns_per_instruction: tuple[int, int] = (1, 1)
    exit_cost_ns: int = 0
    host: HostConfig = field(default_factory=HostConfig)
    hypervisor: HypervisorConfig = field(default_factory=HypervisorConfig)
    capture: str = "thin"
    watches: tuple[tuple[int, int], ...] = ()
    checkpoints: bool = True
    checkpoint_every: int | None = None
    inputs: tuple[Input, ...] = ()
    max_vtime_ns: int | None = None
    max_instructions: int | None = None
    panic_text: str = PANIC_TEXT
    seed: int = 0
    engine_mode: str = "fast"
    engine_page_size: int = 4096
    engine_counting: str = "block"

    def checked(self) -> Scenario:
        """Itself, if it makes sense. Errors: InputError naming the key."""
        one_of("guest.cpu", self.cpu, CPUS)
        one_of("guest.format", self.guest_format, FORMATS)
        one_of("guest.conduit", self.conduit, CONDUITS)
        one_of("capture.level", self.capture, CAPTURES)
        one_of("engine.mode", self.engine_mode, ENGINE_MODES)
        one_of("engine.counting", self.engine_counting, ("block", "instruction"))
        one_of("engine.page_size", self.engine_page_size, (1024, 4096))
        between("guest.vcpus", self.vcpus, 1, VCPUS_MAX)
        between("guest.ram", self.ram, RAM_MIN, RAM_MAX)
        between("time.ns_per_instruction", self.ns_per_instruction[0], 1, 1 << 16)
        between("time.ns_per_instruction", self.ns_per_instruction[1], 1, 1 << 16)
        between("time.exit_cost", self.exit_cost_ns, 0, 10**9)
        between("seed", self.seed, 0, (1 << 63) - 1)
        if self.ram % (1 << 20):
            raise InputError(f"guest.ram = {self.ram}: a whole number of MiB is needed")
        if len(self.watches) + self.vcpus > 16:
            raise InputError(f"capture.watch: {len(self.watches)} ranges; at most {16 - self.vcpus} with {self.vcpus} vCPUs")
        if self.checkpoint_every is not None:
            between("capture.checkpoint_every", self.checkpoint_every, 1, 1 << 60)
        for begin, end in self.watches:
            if not 0 <= begin < end < 1 << 48:
                raise InputError(f"capture.watch: {begin:#x}:{end - begin}: a range of at least one byte below 2^48 is needed")
        self._check_directives()
        for key, text in (("guest.image", self.image), ("guest.initrd", self.initrd or ""), ("guest.append", self.append)):
            if "\0" in text:
                raise InputError(f"{key} = {text!r:.80}: there is a NUL in it")
        if not all(one.isascii() and (one.isprintable() or one == "\t") for one in self.append):
            raise InputError(f"guest.append = {self.append!r:.80}: printable ASCII is needed")
        for one in self.inputs:
            between("inputs.at", one.at_ns, 0, AT_NS_MAX)
        if self.max_vtime_ns is not None:
            between("limits.max_vtime", self.max_vtime_ns, 1, AT_NS_MAX)
        if self.max_instructions is not None:
            between("limits.max_instructions", self.max_instructions, 1, 1 << 60)
        return self

    def _check_directives(self) -> None:
        snapshots = sorted(one.at_ns for one in self.host.directives if one.kind == "snapshot")
        if len(snapshots) > SNAPSHOTS_MAX:
            raise InputError(f"host.directives: {len(snapshots)} snapshots; at most {SNAPSHOTS_MAX}")
        for one in self.host.directives:
            if one.vcpu is not None and one.vcpu >= self.vcpus:
                raise InputError(f"host.directives.vcpu: there is no vCPU {one.vcpu}; the guest has {self.vcpus}")
            if one.kind == "restore" and one.value is not None:
                if one.value >= len(snapshots):
                    raise InputError(
                        f"host.directives.value: there is no snapshot {one.value}; the scenario takes {len(snapshots)}"
                    )
                if one.at_ns <= snapshots[one.value]:
                    raise InputError(f"host.directives.at: snapshot {one.value} would be restored before it is taken")

    def describe(self) -> dict[str, Any]:
        """The manifest's `scenario`: JSON values only."""
        out: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "inputs":
                value = [{"at_ns": one.at_ns, "data": one.data.hex()} for one in value]
            out[item.name] = _plain(value)
        return out


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return repr(value)
    return value


def one_of(key: str, value: T, allowed: tuple[T, ...]) -> T:
    """Errors: InputError listing what is allowed."""
    if value not in allowed:
        raise InputError(f"{key} = {value!r}: must be one of {', '.join(str(choice) for choice in allowed)}")
    return value


def between(key: str, value: int, lowest: int, highest: int) -> int:
    """Errors: InputError naming the bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise InputError(f"{key} = {value!r}: must be a whole number from {lowest} to {highest}")
    return value


def parse_watch(text: str) -> tuple[int, int]:
    """ADDR:LEN (numbers in any C notation) as a half-open range. Errors: InputError."""
    address, colon, length = text.partition(":")
    try:
        begin, size = int(address, 0), int(length, 0)
    except ValueError:
        begin, size = -1, 0
    if not colon or begin < 0 or size <= 0:
        raise InputError(f"watch {text!r}: ADDR:LEN is needed, for example 0x40100000:64")
    return begin, begin + size


def parse_rational(text: str | int) -> tuple[int, int]:
    """ "1", "3/2": ns for each instruction. Errors: InputError."""
    numerator, _, denominator = str(text).partition("/")
    try:
        return int(numerator), int(denominator or "1")
    except ValueError:
        raise InputError(f"time.ns_per_instruction = {text!r}: a whole number or a fraction such as 3/2 is needed") from None


# --- TOML -------------------------------------------------------------------------------------------------------------------

# What a scenario file has: its sections and their keys.
SECTIONS: dict[str, tuple[str, ...]] = {
    "guest": ("image", "initrd", "append", "format", "conduit", "vcpus", "ram", "cpu"),
    "time": ("ns_per_instruction", "exit_cost"),
    "host": (
        "pcpus", "policy", "slice", "quantum", "wakeup_latency", "wakeup_granularity", "halt_poll", "quota", "quota_period",
        "clock_skew", "yields_on_wfe", "neighbours", "directives",
    ),
    "hypervisor": (
        "profile", "pv_time", "pv_base", "pv_bases", "publication", "denied", "firmware_bitmap", "sched_info", "faults",
    ),
    "capture": ("level", "watch", "checkpoints", "checkpoint_every"),
    "limits": ("max_vtime", "max_instructions"),
    "engine": ("mode", "page_size", "counting"),
}  # fmt: skip
_TOP = ("seed", "inputs", *SECTIONS)


def read_scenario(path: Path) -> Scenario:
    """A scenario file. Relative paths in it are relative to the file.

    Errors: InputError naming file, line, key and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"cannot read the scenario {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of thousands of digits, brackets in thousands
        raise InputError(f"{path}: not TOML: {error}") from None
    try:
        return scenario_of(document, path.parent)
    except InputError as error:
        raise InputError(f"{path}:{_line_of(text, str(error))}: {error}") from None


def _line_of(text: str, message: str) -> int:
    """The line of the key that a message begins with; 1 if it cannot be told."""
    key = message.split(" ", 1)[0].split("=")[0].strip(":,").split("[")[0]
    section, _, name = key.rpartition(".")
    inside = not section
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            header = stripped.strip("[]").strip()
            inside = header == section
            if header == key or header.startswith(f"{key}."):
                return number
        elif inside and stripped.split("=")[0].strip() == name:
            return number
    return 1


def _table(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{name}: must be a table, [{name}]")
    for key in table:
        if key not in SECTIONS[name]:
            raise InputError(f"{name}.{key}: no such key; [{name}] has {', '.join(SECTIONS[name])}")
    return table


def _typed(key: str, value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{key} = {value!r}: must be {'text' if kind is str else kind.__name__}")
    return value


def _duration(key: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _typed(key, value, str)
    try:
        return parse_duration_ns(text)
    except InputError as error:
        raise InputError(f"{key} = {value!r}: {error}") from None


def _size(key: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _typed(key, value, str)
    try:
        return parse_size(text)
    except InputError as error:
        raise InputError(f"{key} = {value!r}: {error}") from None


def _count(key: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _typed(key, value, str)
    try:
        return parse_count(text)
    except InputError as error:
        raise InputError(f"{key} = {value!r}: {error}") from None


def scenario_of(document: Mapping[str, Any], folder: Path, base: Scenario | None = None) -> Scenario:
    """What a scenario file's content says, put over `base` (default: the defaults); relative paths are relative to the folder.

    Errors: InputError, which begins with the key.
    """
    base = base or Scenario()
    for key in document:
        if key not in _TOP:
            raise InputError(f"{key}: no such key; a scenario has {', '.join(_TOP)}")
    guest, time, capture = (_table(document, name) for name in ("guest", "time", "capture"))
    limits, engine = _table(document, "limits"), _table(document, "engine")
    changes: dict[str, Any] = {}

    def take(table: Mapping[str, Any], section: str, key: str, name: str, read: Callable[[str, Any], Any]) -> None:
        if key in table:
            changes[name] = read(f"{section}.{key}", table[key])

    def path(key: str, value: Any) -> str:
        return str(folder / _typed(key, value, str))

    def text(key: str, value: Any) -> str:
        return _typed(key, value, str)

    def number(key: str, value: Any) -> int:
        return _typed(key, value, int)

    take(guest, "guest", "image", "image", path)
    take(guest, "guest", "initrd", "initrd", path)
    take(guest, "guest", "append", "append", text)
    take(guest, "guest", "format", "guest_format", text)
    take(guest, "guest", "conduit", "conduit", text)
    take(guest, "guest", "vcpus", "vcpus", number)
    take(guest, "guest", "ram", "ram", _size)
    take(guest, "guest", "cpu", "cpu", text)
    take(time, "time", "ns_per_instruction", "ns_per_instruction", lambda key, value: parse_rational(value))
    take(time, "time", "exit_cost", "exit_cost_ns", _duration)
    take(capture, "capture", "level", "capture", text)
    if "watch" in capture:
        texts = _typed("capture.watch", capture["watch"], list)
        changes["watches"] = tuple(parse_watch(_typed("capture.watch", one, str)) for one in texts)
    take(capture, "capture", "checkpoints", "checkpoints", lambda key, value: _typed(key, value, bool))
    take(capture, "capture", "checkpoint_every", "checkpoint_every", _count)
    take(limits, "limits", "max_vtime", "max_vtime_ns", _duration)
    take(limits, "limits", "max_instructions", "max_instructions", number)
    take(engine, "engine", "mode", "engine_mode", text)
    take(engine, "engine", "page_size", "engine_page_size", number)
    take(engine, "engine", "counting", "engine_counting", text)
    if "seed" in document:
        changes["seed"] = _typed("seed", document["seed"], int)
    changes["host"] = _host(_table(document, "host"), base.host)
    changes["hypervisor"] = _hypervisor(_table(document, "hypervisor"), folder, base.hypervisor)
    if "inputs" in document:
        changes["inputs"] = tuple(_input(one, folder) for one in _typed("inputs", document["inputs"], list))
    return replace(base, **changes).checked()


def _host(table: Mapping[str, Any], base: HostConfig) -> HostConfig:
    changes: dict[str, Any] = {}
    for key in ("pcpus",):
        if key in table:
            changes[key] = _typed(f"host.{key}", table[key], int)
    if "policy" in table:
        changes["policy"] = _typed("host.policy", table["policy"], str)
    for key in ("slice", "quantum", "wakeup_latency", "wakeup_granularity", "halt_poll", "quota", "quota_period"):
        if key in table:
            changes[f"{key}_ns"] = _duration(f"host.{key}", table[key])
    if "clock_skew" in table:
        skews = _typed("host.clock_skew", table["clock_skew"], list)
        changes["clock_skew_ns"] = tuple(_duration("host.clock_skew", one) for one in skews)
    if "yields_on_wfe" in table:
        changes["yields_on_wfe"] = _typed("host.yields_on_wfe", table["yields_on_wfe"], bool)
    if "neighbours" in table:
        changes["neighbours"] = tuple(
            _neighbour(index, one) for index, one in enumerate(_typed("host.neighbours", table["neighbours"], list))
        )
    if "directives" in table:
        changes["directives"] = tuple(_directive(one) for one in _typed("host.directives", table["directives"], list))
    return replace(base, **changes)


def _neighbour(index: int, value: Any) -> Neighbour:
    if isinstance(value, str):
        return Neighbour.parse(value, index)
    table = _typed("host.neighbours", value, dict)
    changes: dict[str, Any] = {"name": f"neighbour{index}"}
    for key, one in table.items():
        if key == "duty":
            changes["duty"] = Neighbour.parse(str(one), index).duty
        elif key == "period":
            changes["period_ns"] = _duration("host.neighbours.period", one)
        elif key in ("name", "pcpu", "weight"):
            changes[key] = one
        else:
            raise InputError(f"host.neighbours.{key}: no such key; a neighbour has name, duty, period, pcpu, weight")
    return Neighbour(**changes)


_DIRECTIVE_KEYS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "at": ("at_ns", _duration),
    "kind": ("kind", lambda key, value: _typed(key, value, str)),
    "vcpu": ("vcpu", lambda key, value: _typed(key, value, int)),
    "pcpu": ("pcpu", lambda key, value: _typed(key, value, int)),
    "duration": ("duration_ns", _duration),
    "value": ("value", _duration),
    "pre_run": ("pre_run_ns", _duration),
    "ipa": ("ipa", lambda key, value: _typed(key, value, int)),
    "size": ("size", _size),
    "readonly": ("readonly", lambda key, value: _typed(key, value, bool)),
}


def _directive(value: Any) -> Directive:
    table = _typed("host.directives", value, dict)
    for key in table:
        if key not in _DIRECTIVE_KEYS:
            raise InputError(f"host.directives.{key}: no such key; a directive has {', '.join(_DIRECTIVE_KEYS)}")
    for key in ("at", "kind"):
        if key not in table:
            raise InputError(f"host.directives: {key} is missing")
    read = {key: _DIRECTIVE_KEYS[key] for key in table}
    return Directive(**{name: convert(f"host.directives.{key}", table[key]) for key, (name, convert) in read.items()})


def _hypervisor(table: Mapping[str, Any], folder: Path, base: HypervisorConfig) -> HypervisorConfig:
    changes: dict[str, Any] = {}
    if "profile" in table:
        changes["profile"] = _typed("hypervisor.profile", table["profile"], str)
    for key in ("pv_time", "sched_info"):
        if key in table:
            changes[key] = _typed(f"hypervisor.{key}", table[key], bool)
    for key in ("pv_base", "firmware_bitmap"):
        if key in table:
            changes[key] = _typed(f"hypervisor.{key}", table[key], int)
    if "publication" in table:
        changes["publication"] = _typed("hypervisor.publication", table["publication"], str)
    for key in ("pv_bases", "denied"):
        if key in table:
            changes[key] = tuple(_typed(f"hypervisor.{key}", one, int) for one in _typed(f"hypervisor.{key}", table[key], list))
    if "faults" in table:
        names = [_typed("hypervisor.faults", one, str) for one in _typed("hypervisor.faults", table["faults"], list)]
        changes["faults"] = tuple(str(folder / name) if ".py:" in name else name for name in names)
    return replace(base, **changes)


def _input(value: Any, folder: Path) -> Input:
    table = _typed("inputs", value, dict)
    for key in table:
        if key not in ("at", "text", "file"):
            raise InputError(f"inputs.{key}: no such key; an input has at and one of text, file")
    if "at" not in table or ("text" in table) == ("file" in table):
        raise InputError("inputs: an input has at and one of text, file")
    if "text" in table:
        data = _typed("inputs.text", table["text"], str).encode()
    else:
        data = read_input_file(folder / _typed("inputs.file", table["file"], str))
    return Input(_duration("inputs.at", table["at"]), data)


def read_input_file(path: Path) -> bytes:
    """The bytes of an input file, at most 16 MiB. Errors: InputError."""
    try:
        with path.open("rb") as file:
            data = file.read((16 << 20) + 1)
    except OSError as error:
        raise InputError(f"cannot read the input {path}: {error.strerror}") from None
    if len(data) > 16 << 20:
        raise InputError(f"{path}: an input of more than 16 MiB")
    return data
