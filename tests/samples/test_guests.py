"""The bare-metal guests that find, read and misuse stolen time: what each prints, against tables and against the schedule."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from readings import IDLE, STEAL, SYSTEM, UNIT_NS, USER, Waits, readings, steals
from support import busy_host, console, recorded, replayed, rows, scenario, tracekit

from tracekit.host.config import HostConfig
from tracekit.hypervisor.config import HypervisorConfig
from tracekit.recorder.record import record
from tracekit.recorder.scenario import Input
from tracekit.recorder.session import EndReason

FORGED = 1_000_000_000
NEVER_ASKED = "what Linux never asks:"

# What `discover` is told over HVC, one vCPU, by profile (docs/pvtime.md 1.12).
LINUX_ASKS = """
                                            kvm-5.5    kvm-5.10   kvm-6.4    kvm
PSCI_VERSION                                0x10001    0x10001    0x10001    0x10001
MIGRATE_INFO_TYPE                           2          2          2          2
PSCI_FEATURES(SMCCC_VERSION)                0          0          0          0
SMCCC_VERSION                               0x10001    0x10001    0x10001    0x10001
TRNG_VERSION                                -1         -1         -1         -1
PSCI_FEATURES(CPU_SUSPEND)                  0          0          0          0
PSCI_FEATURES(SYSTEM_SUSPEND)               -1         -1         -1         -1
PSCI_FEATURES(SYSTEM_RESET2)                -1         -1         -1         -1
KVM_FEATURES                                1          1          1          1
ARCH_FEATURES(PV_TIME_FEATURES)             0          0          0          0
PV_TIME_FEATURES(PV_TIME_ST)                0          0          0          0
"""
NOBODY_ASKS = """
                                            kvm-5.5    kvm-5.10   kvm-6.4    kvm
ARCH_FEATURES(SMCCC_VERSION)                -1         -1         -1         0
ARCH_FEATURES(ARCH_FEATURES)                -1         -1         -1         0
ARCH_FEATURES(PV_TIME_FEATURES)             0          0          0          0
ARCH_FEATURES(PV_TIME_ST)                   -1         -1         -1         -1
ARCH_FEATURES(PV_TIME_LPT)                  -1         -1         -1         -1
ARCH_FEATURES(85000020)                     -1         -1         -1         -1
ARCH_FEATURES(WORKAROUND_1)                 -2         -2         -2         -2
ARCH_FEATURES(WORKAROUND_2)                 -2         -2         -2         -2
ARCH_FEATURES(WORKAROUND_3)                 -1         -1         -2         -2
WORKAROUND_1                                0          0          0          0
WORKAROUND_2                                0          0          0          0
WORKAROUND_3                                -1         -1         0          0
PV_TIME_FEATURES(PV_TIME_FEATURES)          0          0          0          0
PV_TIME_FEATURES(PV_TIME_ST)                0          0          0          0
PV_TIME_FEATURES(PV_TIME_LPT)               -1         -1         -1         -1
PV_TIME_FEATURES(85000021)                  -1         -1         -1         -1
PV_TIME_FEATURES(0)                         -1         -1         -1         -1
PV_TIME_FEATURES(ffffffffc5000021)          0          0          0          0
PV_TIME_FEATURES(1c5000022)                 -1         -1         -1         -1
feedc5000020(PV_TIME_ST)                    0          0          0          0
85000020(PV_TIME_ST)                        -1         -1         -1         -1
85000021                                    -1         -1         -1         -1
PV_TIME_LPT                                 -1         -1         -1         -1
c5000023                                    -1         -1         -1         -1
c500001f                                    -1         -1         -1         -1
c5008020                                    -1         -1         -1         -1
45000021                                    -1         -1         -1         -1
PV_TIME_ST                                  0x90a0000  0x90a0000  0x90a0000  0x90a0000
1c5000021                                   0x90a0000  0x90a0000  0x90a0000  0x90a0000
PV_TIME_FEATURES(PV_TIME_ST), immediate 1   0          0          0          0
"""
PROFILES = ("kvm-5.5", "kvm-5.10", "kvm-6.4", "kvm")
# Where a hypervisor's configuration changes the table: answers of the second part, by question.
SINGULAR: dict[str, tuple[HypervisorConfig, dict[str, str]]] = {
    "no IPA set, before v5.10 (bug 8)": (
        HypervisorConfig("kvm-5.5", pv_time=False),
        {"PV_TIME_ST": "-1", "1c5000021": "-1"},
    ),
    "no IPA set": (
        HypervisorConfig(pv_time=False),
        {
            "PV_TIME_FEATURES(PV_TIME_FEATURES)": "-1", "PV_TIME_FEATURES(PV_TIME_ST)": "-1",
            "PV_TIME_FEATURES(ffffffffc5000021)": "-1", "feedc5000020(PV_TIME_ST)": "-1", "PV_TIME_ST": "-1",
            "1c5000021": "-1", "PV_TIME_FEATURES(PV_TIME_ST), immediate 1": "-1",
        },
    ),
    "firmware bitmap 0": (
        HypervisorConfig(firmware_bitmap=0),
        {
            "ARCH_FEATURES(PV_TIME_FEATURES)": "-1", "PV_TIME_FEATURES(PV_TIME_FEATURES)": "-1",
            "PV_TIME_FEATURES(PV_TIME_ST)": "-1", "PV_TIME_FEATURES(ffffffffc5000021)": "-1",
            "feedc5000020(PV_TIME_ST)": "-1", "PV_TIME_ST": "-1", "1c5000021": "-1",
            "PV_TIME_FEATURES(PV_TIME_ST), immediate 1": "-1",
        },
    ),
    "PV_TIME_ST denied by the filter": (
        HypervisorConfig("kvm-6.4", denied=(0xC500_0021,)),
        {"PV_TIME_ST": "-1", "1c5000021": "-1"},
    ),
    "PV_TIME_FEATURES denied by the filter": (
        HypervisorConfig(denied=(0xC500_0020,)),
        {
            "PV_TIME_FEATURES(PV_TIME_FEATURES)": "-1", "PV_TIME_FEATURES(PV_TIME_ST)": "-1",
            "PV_TIME_FEATURES(ffffffffc5000021)": "-1", "feedc5000020(PV_TIME_ST)": "-1",
            "PV_TIME_FEATURES(PV_TIME_ST), immediate 1": "-1",
        },
    ),
}  # fmt: skip


def column(table: str, profile: str) -> dict[str, str]:
    """One profile's answers by question."""
    lines = [re.split(r"  +", line.strip()) for line in table.strip().splitlines()]
    return {cells[0]: cells[1 + PROFILES.index(profile)] for cells in lines[1:]}


def answers(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """What the guest printed, before and after the line that parts them."""
    first, second = text.split(NEVER_ASKED)
    return tuple(dict(line.split(" = ") for line in part.splitlines() if " = " in line) for part in (first, second))  # type: ignore[return-value]


def discover(path: Path, hypervisor: HypervisorConfig, **changes: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Record `discover`, check what it says of itself, replay."""
    done = record(replace(scenario("discover", vcpus=1), hypervisor=hypervisor, **changes), path)
    text = console(path)
    assert done.end.reason is EndReason.POWER_OFF and text.endswith("X4-X17 kept\nX1-X3 are 0\nPASS\n"), text
    assert replayed(path).is_identical
    return answers(text)


@pytest.mark.parametrize("profile", PROFILES)
def test_discover_over_hvc(tmp_path: Path, profile: str) -> None:
    """Every answer of every profile; no difference from one host to another."""
    asked, odd = discover(tmp_path / "a.tkt", HypervisorConfig(profile))
    assert asked.pop("CALL_UID") == "0xb66fb428 0xe911c52e 0x564bcaa9 0x743a004d"
    assert asked.pop("cpu0: PV_TIME_ST") == "0x90a0000 revision 0 attributes 0"
    assert asked == column(LINUX_ASKS, profile) and odd == column(NOBODY_ASKS, profile)
    discover(tmp_path / "b.tkt", HypervisorConfig(profile), host=busy_host())
    assert console(tmp_path / "a.tkt") == console(tmp_path / "b.tkt")
    conduits = {(row["conduit"], row["immediate"]) for row in rows(tmp_path / "a.tkt", "hypercalls")}
    assert conduits == {("hvc", 0), ("hvc", 1)}


@pytest.mark.parametrize(("profile", "answer"), [("kvm-5.5", "undefined"), ("kvm-5.10", "-1")])
def test_discover_over_smc_of_old(tmp_path: Path, profile: str, answer: str) -> None:
    """Before v5.10 SMC is undefined, later refused: no PSCI, no conduit for SMCCC 1.1, and nothing that Linux would ask of it."""
    asked, odd = discover(tmp_path / "a.tkt", HypervisorConfig(profile), conduit="smc")
    assert asked == {"PSCI_VERSION": answer, "cpu0: PV_TIME_ST": "-1"}
    assert odd == dict.fromkeys(column(NOBODY_ASKS, profile), answer)
    assert "device tree: smc\n" in console(tmp_path / "a.tkt") and "SMCCC 1.1: none\n" in console(tmp_path / "a.tkt")


@pytest.mark.parametrize("profile", ["kvm-6.4", "kvm"])
def test_discover_over_smc(tmp_path: Path, profile: str) -> None:
    """Since v6.4 an `smc #0` is as good as an HVC (1.10), but for another immediate and the workarounds, which only HVC reaches."""
    asked, odd = discover(tmp_path / "a.tkt", HypervisorConfig(profile), conduit="smc")
    assert asked.items() >= column(LINUX_ASKS, profile).items()
    refused = ("PV_TIME_FEATURES(PV_TIME_ST), immediate 1", "WORKAROUND_1", "WORKAROUND_2", "WORKAROUND_3")
    assert odd == column(NOBODY_ASKS, profile) | dict.fromkeys(refused, "-1")
    hvc = {row["function"] for row in rows(tmp_path / "a.tkt", "hypercalls") if row["conduit"] == "hvc"}
    assert hvc == {"PSCI_CPU_ON", "PSCI_SYSTEM_OFF"}


@pytest.mark.parametrize("name", SINGULAR)
def test_discover_where_pv_time_is_withheld(tmp_path: Path, name: str) -> None:
    """IPA, firmware bitmap and filter."""
    hypervisor, differing = SINGULAR[name]
    asked, odd = discover(tmp_path / "a.tkt", hypervisor)
    assert odd == column(NOBODY_ASKS, hypervisor.profile) | differing
    assert asked["cpu0: PV_TIME_ST"].startswith("0x") == (differing.get("PV_TIME_ST") != "-1" and asked[
        "PV_TIME_FEATURES(PV_TIME_ST)"] == "0")  # fmt: skip
    assert asked["ARCH_FEATURES(PV_TIME_FEATURES)"] == odd["ARCH_FEATURES(PV_TIME_FEATURES)"]


HIDES_SMCCC_1_1 = """
from tracekit.hypervisor.fault import Fault
from tracekit.hypervisor.smccc import result

class Firmware(Fault):
    def answer(self, call, outcome):
        return result(-1) if call.function_id == 0x8400000A and call.x[1] == 0x80000000 else outcome
"""


def test_no_conduit_no_trap(tmp_path: Path) -> None:
    """Without SMCCC 1.1 the wrapper makes its own -1: the trace shows no call of owners 0, 5 and 6 (1.8)."""
    file = tmp_path / "firmware.py"
    file.write_text(HIDES_SMCCC_1_1)
    discover(tmp_path / "a.tkt", HypervisorConfig(faults=(f"{file}:Firmware",)))
    before_odd = list(
        itertools.takewhile(lambda row: row["function"] != "SMCCC_ARCH_FEATURES", rows(tmp_path / "a.tkt", "hypercalls"))
    )
    assert len(before_odd) >= 6
    assert {row["function_id"] >> 24 & 0x3F for row in before_odd} == {4}


@pytest.mark.parametrize("vcpus", [2, 4, 8])
def test_discover_on_every_cpu(tmp_path: Path, vcpus: int) -> None:
    """Each CPU asks for itself and gets its own structure."""
    asked, _ = discover(tmp_path / "a.tkt", HypervisorConfig(), vcpus=vcpus, host=HostConfig(pcpus=2))
    for vcpu in range(vcpus):
        assert asked[f"cpu{vcpu}: PV_TIME_ST"] == f"{0x90A0000 + 64 * vcpu:#x} revision 0 attributes 0"
        calls = [row for row in rows(tmp_path / "a.tkt", "hypercalls") if row["function"] == "PV_TIME_ST" and row["vcpu"] == vcpu]
        assert len(calls) == (1 if vcpu else 3)


# --- accounting -----------------------------------------------------------------------------------------------------------------


def account(path: Path, letters: str, vcpus: int, **changes: Any) -> str:
    """Record `accounting` with letters at its UART; its console."""
    changes = {"host": busy_host(), "inputs": (Input(0, letters.encode()),) if letters else ()} | changes
    done = recorded(path, "accounting", vcpus=vcpus, **changes)
    text = console(path)
    assert done.end.reason is EndReason.POWER_OFF and text.endswith("PASS\n"), text
    assert done.end.position < 60_000_000
    return text


@pytest.mark.parametrize("vcpus", [1, 2, 3, 4])
def test_accounting(tmp_path: Path, vcpus: int) -> None:
    """Steal is what the last tick read, in units of 10 ms; nothing steps back; all columns together are the wall time."""
    text = account(tmp_path / "a.tkt", "", vcpus)
    blocks = readings(tmp_path / "a.tkt")
    assert len(blocks) == 6 and "stepped back" not in text
    read = [
        (row["vtime_ns"], row["vcpu"], row["stolen_ns"]) for row in rows(tmp_path / "a.tkt", "pvtime") if row["event"] == "read"
    ]
    for block in blocks:
        assert sorted(block.cpus) == list(range(vcpus))
        for vcpu, columns in block.cpus.items():
            low, high = (
                max((stolen for at, who, stolen in read if who == vcpu and at <= until), default=0)
                for until in (block.begin_ns, block.end_ns)
            )
            assert low // UNIT_NS <= columns[STEAL] <= high // UNIT_NS
            assert {n for n, value in enumerate(columns) if value} <= {USER, SYSTEM, IDLE, STEAL}
    assert max(blocks[-1].cpus[vcpu][STEAL] for vcpu in range(vcpus)) >= 1
    assert replayed(tmp_path / "a.tkt").is_identical


@pytest.mark.parametrize("vcpus", [1, 2, 4])
@pytest.mark.parametrize("profile", ["kvm-5.5", "kvm"])
def test_hotplug_takes_steal_back(tmp_path: Path, vcpus: int, profile: str) -> None:
    """The last CPU goes down: its clock reads 0 while the cursor stays, and /proc/stat loses all it had (8.1 a). One CPU stays."""
    text = account(tmp_path / "a.tkt", "h", vcpus, hypervisor=HypervisorConfig(profile))
    last = vcpus - 1
    enabled = [row["vcpu"] for row in rows(tmp_path / "a.tkt", "hypercalls") if row["function"] == "PV_TIME_ST"]
    power = [
        (row["event"], row["vcpu"])
        for row in rows(tmp_path / "a.tkt", "schedule")
        if row["event"] in ("online", "offline") and row["reason"] in ("power_on", "power_off")
    ]
    if vcpus == 1:
        assert "stepped back" not in text and enabled == [0] and power == []
        return
    assert sorted(enabled) == sorted([*range(vcpus), last])
    assert power[-2:] == [("offline", last), ("online", last)]
    seen = steals(tmp_path / "a.tkt", last)
    assert [last in block.cpus for block in readings(tmp_path / "a.tkt")] == [True, True, True, True, False, True]
    assert seen[-2] >= 1 and seen[-1] < seen[-2], seen
    lost = re.findall(r"cpu(\d+): steal stepped back from (\d+) to (\d+) ns", text)
    assert [(int(cpu), int(now)) for cpu, _, now in lost] == [(last, 0)]
    cursor = [row["stolen_ns"] for row in rows(tmp_path / "a.tkt", "pvtime") if row["vcpu"] == last and row["event"] == "read"]
    assert int(lost[0][1]) in cursor
    for vcpu in range(last):
        assert steals(tmp_path / "a.tkt", vcpu) == sorted(steals(tmp_path / "a.tkt", vcpu))
    assert replayed(tmp_path / "a.tkt").is_identical


@pytest.mark.parametrize("vcpus", [2, 4])
def test_hotplug_with_the_cursor_reset(tmp_path: Path, vcpus: int) -> None:
    """The same with the cursor going with the clock: nothing steps back."""
    text = account(tmp_path / "a.tkt", "hr", vcpus)
    assert "is down" in text and "stepped back" not in text
    for vcpu in range(vcpus):
        assert steals(tmp_path / "a.tkt", vcpu) == sorted(steals(tmp_path / "a.tkt", vcpu))
    assert replayed(tmp_path / "a.tkt").is_identical


@pytest.mark.parametrize("guest", ["accounting", "reuse", "steal"])
def test_guests_live_without_pv_time(tmp_path: Path, guest: str) -> None:
    """No stolen time, no failure, and none shown; also where FEATURES says yes and PV_TIME_ST no (bug 8)."""
    for profile in ("kvm-5.5", "kvm"):
        path = tmp_path / f"{profile}.tkt"
        recorded(path, guest, host=busy_host(), hypervisor=HypervisorConfig(profile, pv_time=False))
        text = console(path)
        assert text.endswith("PASS\n"), text
        assert not rows(path, "pvtime")
        if guest == "accounting":
            assert set(steals(path, 0) + steals(path, 1)) == {0}


# --- reuse ----------------------------------------------------------------------------------------------------------------------


def rows_read(path: Path, vcpu: int) -> list[dict[str, Any]]:
    """A vCPU's loads of eight bytes from the structures."""
    return [row for row in rows(path, "memory_reads") if row["vcpu"] == vcpu and row["size"] == 8]


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_memory_used_again(tmp_path: Path, vcpus: int) -> None:
    """The host adds to the new owner's data exactly the wait since; nothing happens to it where nobody waits."""
    recorded(tmp_path / "a.tkt", "reuse", vcpus=vcpus, host=busy_host())
    text = console(tmp_path / "a.tkt")
    for vcpu in range(vcpus):
        filled = [row for row in rows(tmp_path / "a.tkt", "memory_writes") if row["vcpu"] == vcpu and row["origin"] == "guest"]
        assert len(filled) == 8 and filled[0]["vtime_ns"] >= 8_000_000
        begin, end = filled[1]["vtime_ns"], rows_read(tmp_path / "a.tkt", vcpu)[1]["vtime_ns"]
        waited = Waits(tmp_path / "a.tkt", vcpu).between(begin, end)
        assert waited > 0
        assert f"cpu{vcpu}: data changed, word 1 by {waited}\n" in text
    assert replayed(tmp_path / "a.tkt").is_identical
    recorded(tmp_path / "b.tkt", "reuse", vcpus=vcpus, host=HostConfig(pcpus=vcpus))
    assert [line for line in console(tmp_path / "b.tkt").splitlines() if "intact" in line] == [
        f"cpu{vcpu}: data intact" for vcpu in range(vcpus)
    ]


@pytest.mark.parametrize(("profile", "base"), [("kvm-5.5", 0), ("kvm-5.10", FORGED), ("kvm", FORGED)])
def test_forged_stolen_time(tmp_path: Path, profile: str, base: int) -> None:
    """What the guest writes becomes the host's base (v5.10 and later); before, the host's own total overwrites it (2.6)."""
    recorded(tmp_path / "a.tkt", "reuse", host=busy_host(), hypervisor=HypervisorConfig(profile), inputs=(Input(0, b"f"),))
    told = re.findall(r"cpu(\d): read (\d+), wrote (\d+), read later (\d+)", console(tmp_path / "a.tkt"))
    assert len(told) == 2
    for vcpu, before, wrote, after in (tuple(int(one) for one in line) for line in told):
        forged = [row for row in rows(tmp_path / "a.tkt", "memory_writes") if row["vcpu"] == vcpu and row["origin"] == "guest"]
        assert [row["value"] for row in forged] == [FORGED] == [wrote]
        begin, end = forged[0]["vtime_ns"], rows_read(tmp_path / "a.tkt", vcpu)[-1]["vtime_ns"]
        gained = Waits(tmp_path / "a.tkt", vcpu).between(begin, end)
        assert after == (before if base == 0 else base) + gained
    assert replayed(tmp_path / "a.tkt").is_identical


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_token(tmp_path: Path, vcpus: int) -> None:
    """Everybody gets the token as often; where WFE does not yield, a CPU that waits for it burns its whole slice."""
    recorded(tmp_path / "a.tkt", "token", vcpus=vcpus, host=HostConfig(slice_ns=500_000))
    told = re.findall(r"cpu\d: waited in WFE (\d+) times, told (\d+) ns stolen", console(tmp_path / "a.tkt"))
    assert len(told) == vcpus and console(tmp_path / "a.tkt").endswith("PASS\n")
    assert all((int(times) > 100_000) == (vcpus > 1) for times, _ in told)
    assert replayed(tmp_path / "a.tkt").is_identical


def test_conduit_that_there_is_not(tmp_path: Path) -> None:
    """One line that names the key and what is allowed."""
    done = tracekit("record", scenario("discover").image, "--conduit", "svc", "-o", tmp_path / "a.tkt")
    assert done.returncode == 2 and "guest.conduit = 'svc': must be one of hvc, smc" in done.stderr
