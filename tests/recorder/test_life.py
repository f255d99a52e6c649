"""What the VMM does to a running machine: slots, snapshots, live migration, reset, kexec: recorded, and replayed from the trace alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import busy_host, console, recorded, replayed, rows

from tracekit.formats.errors import InputError, TraceDamaged
from tracekit.formats.reader import Trace
from tracekit.formats.verify import verify
from tracekit.formats.writer import TraceWriter
from tracekit.host.config import Directive
from tracekit.recorder.scenario import read_scenario
from tracekit.replay.session import Replay
from tracekit.replay.standing import SNAPSHOTS_MAX

MS = 1_000_000
PAGE = 0x090A_0000


def life(path: Path, guest: str, *directives: Directive, policy: str = "round-robin", pcpus: int = 1, **changes: Any) -> Path:
    """Record a guest through these directives; the trace is whole and replays identically."""
    recorded(path, guest, host=busy_host(policy, pcpus, directives=directives), **changes)
    assert verify(path) == []
    result = replayed(path)
    assert result.is_identical, str(result.divergence)
    return path


def told(path: Path, kind: str) -> list[dict[str, Any]]:
    """The directives of a kind."""
    return [row for row in rows(path, "directives") if row["kind"] == kind]


@pytest.mark.parametrize(("policy", "pcpus"), [("round-robin", 1), ("fair", 2), ("chaos", 2)])
def test_live_migration(tmp_path: Path, policy: str, pcpus: int) -> None:
    """New threads that waited before their first KVM_RUN, the IPA set again; downtime is a pause (docs/pvtime.md 3.12, 3.13)."""
    move = Directive(4 * MS, "restore", duration_ns=2 * MS, pre_run_ns=5 * MS)
    path = life(tmp_path / "a.tkt", "steal", move, policy=policy, pcpus=pcpus)
    board, *threads = told(path, "restore")
    assert (board["vcpu"], board["size"], board["value"]) == (None, 0, told(path, "snapshot")[0]["value"])
    assert [(row["vcpu"], row["value"]) for row in threads] == [(0, 5 * MS), (1, 5 * MS)]
    again = [row for row in told(path, "attribute_set") if row["position"] == board["position"]]
    assert [(row["vcpu"], row["ipa"], row["result"]) for row in again] == [(0, PAGE, 0), (1, PAGE + 64, 0)]
    schedule = [row for row in rows(path, "schedule") if row["vcpu"] == 0 and row["event"] in ("pause", "resume")]
    assert [row["event"] for row in schedule] == ["pause", "resume"]
    assert schedule[1]["vtime_ns"] - schedule[0]["vtime_ns"] >= 2 * MS
    before = [row["stolen_ns"] for row in rows(path, "pvtime") if row["vcpu"] == 0 and row["position"] < board["position"]][-1]
    after = next(row for row in rows(path, "pvtime") if row["vcpu"] == 0 and row["position"] >= board["position"])
    assert after["event"] == "publish"
    assert after["stolen_ns"] >= before + 5 * MS


@pytest.mark.parametrize(("policy", "pcpus"), [("round-robin", 1), ("fair", 2), ("chaos", 2)])
def test_roll_back(tmp_path: Path, policy: str, pcpus: int) -> None:
    """The guest runs the same stretch again: what it does after the restore it did after the snapshot, the console shows it twice."""
    directives = Directive(2 * MS, "snapshot"), Directive(4 * MS, "restore", value=0)
    path = life(tmp_path / "a.tkt", "steal", *directives, policy=policy, pcpus=pcpus)
    (snapshot,), restores = told(path, "snapshot"), told(path, "restore")
    assert (restores[0]["size"], restores[0]["value"]) == (1, snapshot["value"])
    enables = [row["vcpu"] for row in rows(path, "pvtime") if row["event"] == "enable"]
    assert enables == [0, 1]  # both before the snapshot: a restored guest does not ask again
    plain = recorded(tmp_path / "plain.tkt", "steal", host=busy_host(policy, pcpus))
    assert rows(path, "states")[-1]["position"] > plain.end.position
    assert "PASS" in console(path)


def test_a_snapshot_alone_changes_nothing_but_time(tmp_path: Path) -> None:
    """Nobody restores it: no state is kept."""
    path = life(tmp_path / "a.tkt", "steal", Directive(3 * MS, "snapshot", duration_ns=MS))
    assert [row["size"] for row in told(path, "snapshot")] == [0]


def test_reset(tmp_path: Path) -> None:
    """The guest boots again; the IPA survives (docs/pvtime.md 3.10), the other vCPUs are off until they are started."""
    path = life(tmp_path / "a.tkt", "steal", Directive(6 * MS, "reset", duration_ns=MS))
    (reset,) = told(path, "reset")
    survived = [row for row in told(path, "attribute_get") if row["position"] == reset["position"] and row["position"]]
    assert [row["value"] for row in survived] == [PAGE, PAGE + 64]
    calls = [(row["position"] > reset["position"], row["function"]) for row in rows(path, "hypercalls")]
    for is_after in (False, True):
        assert (is_after, "PSCI_VERSION") in calls
        assert (is_after, "PV_TIME_ST") in calls
    offline = [
        row["vcpu"] for row in rows(path, "schedule") if row["event"] == "offline" and row["position"] == reset["position"]
    ]
    assert offline == [1]
    assert console(path).count("PASS") == 1


def test_reset_of_a_vcpu(tmp_path: Path) -> None:
    """One begins again at the image's entry and the others go on; its IPA survives, and one that was off is on (docs/pvtime.md 3.10)."""
    for at_ns, was_online in ((6 * MS, True), (10, False)):
        path = life(tmp_path / f"{at_ns}.tkt", "steal", Directive(at_ns, "reset", vcpu=1, duration_ns=MS))
        (reset,) = told(path, "reset")
        assert reset["vcpu"] == 1
        place = reset["position"], reset["sequence"]
        survived = [row for row in told(path, "attribute_get") if (row["position"], row["sequence"]) > place]
        assert [(row["vcpu"], row["value"]) for row in survived] == [(1, PAGE + 64)]
        after = [row for row in rows(path, "hypercalls") if row["position"] >= reset["position"] and row["vcpu"] == 1]
        assert after[0]["pc"] == min(row["pc"] for row in after) and "PSCI_VERSION" in {row["function"] for row in after}
        events = [row["event"] for row in rows(path, "schedule") if row["vcpu"] == 1 and row["vtime_ns"] <= reset["vtime_ns"]]
        assert ("online" in events) == was_online
        assert "resume" in {row["event"] for row in rows(path, "schedule") if row["vcpu"] == 1}


def test_slots(tmp_path: Path) -> None:
    """A slot that is away takes no update, one that is read-only neither; what fails says so (docs/pvtime.md 3.5, 8.1e)."""
    path = life(
        tmp_path / "a.tkt",
        "steal",
        Directive(1 * MS, "slot_add", ipa=PAGE, size=4096),  # overlaps
        Directive(2 * MS, "slot_delete", ipa=PAGE),
        Directive(3 * MS, "slot_delete", ipa=PAGE),  # is away already
        Directive(4 * MS, "slot_add", ipa=PAGE, size=0x10000),
        Directive(5 * MS, "slot_readonly", ipa=PAGE),
        Directive(6 * MS, "slot_readonly", ipa=0x1234_0000),  # none there
    )
    deeds = [(row["kind"], row["result"]) for row in rows(path, "directives") if row["kind"].startswith("slot_")]
    assert deeds[2:] == [
        ("slot_add", -17), ("slot_delete", 0), ("slot_delete", -2), ("slot_add", 0), ("slot_readonly", 0), ("slot_readonly", -2),
    ]  # fmt: skip
    deleted, returned, readonly = (
        row["vtime_ns"] for row in told(path, "slot_delete")[:1] + told(path, "slot_add")[-1:] + told(path, "slot_readonly")[:1]
    )
    stores = [row["vtime_ns"] for row in rows(path, "memory_writes") if row["origin"] == "host" and row["cause"] == "pvtime"]
    assert any(deleted > at for at in stores)
    assert any(returned < at < readonly for at in stores)
    assert not any(deleted <= at < returned or at > readonly for at in stores)


def test_kexec_is_a_note(tmp_path: Path) -> None:
    """It changes nothing of the run."""
    path = life(tmp_path / "a.tkt", "steal", Directive(3 * MS, "kexec"))
    plain = life(tmp_path / "b.tkt", "steal")
    assert len(told(path, "kexec")) == 1
    assert rows(path, "states")[-1]["memory"] == rows(plain, "states")[-1]["memory"]


KINDS = (
    "snapshot", "restore", "rollback", "reset", "slot_delete", "pause_all", "vmm", "stall", "suspend", "yield", "thread_change",
    "clock_skew", "migrate",
)  # fmt: skip

TUNINGS = (("halt_poll_ns", 30_000), ("wakeup_latency_ns", 5_000), ("quota_period_ns", 2 * MS))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["steal", "timer", "spinlock"]),
    st.sampled_from(["round-robin", "fair", "chaos"]),
    st.integers(1, 2),
    st.integers(0, 1000),
    st.lists(st.tuples(st.integers(1, 6 * MS), st.sampled_from(KINDS), st.integers(0, MS)), min_size=1, max_size=4),
    st.sets(st.sampled_from(TUNINGS)),
)
def test_any_life_replays(
    tmp_path_factory: pytest.TempPathFactory,
    guest: str,
    policy: str,
    pcpus: int,
    seed: int,
    deeds: list[tuple[int, str, int]],
    tuning: set[tuple[str, int]],
) -> None:
    """Any of it at any time, twice: equal to the byte, whole, and identical on replay, checkpoints included."""
    directives: list[Directive] = []
    snapshots = 0
    for at_ns, kind, length in sorted(deeds):
        if kind == "rollback":
            if snapshots:
                directives.append(Directive(at_ns, "restore", value=snapshots - 1, duration_ns=length + 1))
        elif kind == "restore":
            directives.append(Directive(at_ns, "restore", duration_ns=length + 1, pre_run_ns=length))
        elif kind == "slot_delete":
            directives += [
                Directive(at_ns, "slot_delete", ipa=PAGE),
                Directive(at_ns + length, "slot_add", ipa=PAGE, size=1 << 16),
            ]
        elif kind == "pause_all":
            directives += [Directive(at_ns, "pause"), Directive(at_ns + length + 1, "resume")]
        elif kind in ("vmm", "stall"):
            directives.append(Directive(at_ns, kind, vcpu=length % 2, duration_ns=length + 1))
        elif kind in ("yield", "thread_change"):
            directives.append(Directive(at_ns, kind, vcpu=length % 2))
        elif kind == "clock_skew":
            directives.append(Directive(at_ns, kind, pcpu=pcpus - 1, value=length - MS // 2))
        elif kind == "migrate":
            directives.append(Directive(at_ns, kind, vcpu=length % 2, pcpu=pcpus - 1))
        else:
            snapshots += kind == "snapshot"
            directives.append(Directive(at_ns, kind, duration_ns=length + 1))
    folder = tmp_path_factory.mktemp("life")
    limits = {"seed": seed, "max_instructions": 12_000_000, "checkpoint_every": 1}
    chosen = dict(tuning)
    if "quota_period_ns" in chosen:
        chosen["quota_ns"] = MS
    host = busy_host(policy, pcpus, directives=tuple(directives), **chosen)
    for name in "ab":
        recorded(folder / f"{name}.tkt", guest, host=host, **limits)
    assert verify(folder / "a.tkt") == []
    result = replayed(folder / "a.tkt")
    assert result.is_identical, str(result.divergence)
    assert (folder / "a.tkt" / "trace.json").read_bytes() == (folder / "b.tkt" / "trace.json").read_bytes()


SCENARIO = """
[guest]
image = "guest.elf"
vcpus = 2
[host]
halt_poll = "50us"
quota = "5ms"
quota_period = "10ms"
clock_skew = [1000]
yields_on_wfe = true
directives = [
  {{ at = "1ms", kind = "snapshot", duration = "1ms" }},
  {{ at = "3ms", kind = "restore", value = 0, pre_run = "2ms" }},
  {{ at = "4ms", kind = "slot_add", ipa = 0x50000000, size = "64K", readonly = true }},
  {{ at = "5ms", kind = "clock_skew", pcpu = 0, value = -1000 }},
  {more}
]
"""


def test_directives_in_toml(tmp_path: Path) -> None:
    """Every key, with units; wrong ones are named with their line."""
    file = tmp_path / "s.toml"
    file.write_text(SCENARIO.format(more=""))
    host = read_scenario(file).host
    assert (host.halt_poll_ns, host.quota_ns, host.quota_period_ns) == (50_000, 5 * MS, 10 * MS)
    assert (host.clock_skew_ns, host.yields_on_wfe) == ((1000,), True)
    assert host.directives == (
        Directive(MS, "snapshot", duration_ns=MS),
        Directive(3 * MS, "restore", value=0, pre_run_ns=2 * MS),
        Directive(4 * MS, "slot_add", ipa=0x5000_0000, size=65536, readonly=True),
        Directive(5 * MS, "clock_skew", pcpu=0, value=-1000),
    )
    for more, text in (
        ('{ at = "1ms", kind = "restore", value = 3 }', "there is no snapshot 3"),
        ('{ at = "2ms", kind = "restore", value = 0 }, { at = "1ms", kind = "explode" }', "must be one of pause"),
        ('{ at = "1ms", kind = "pause", vcpu = 5 }', "there is no vCPU 5"),
        ('{ at = "1ms", kind = "kexec", when = 3 }', "no such key"),
        ('{ at = "1ms" }', "kind is missing"),
        ('{ at = "0.5ms", kind = "restore", value = 0 }', "before it is taken"),
    ):
        file.write_text(SCENARIO.format(more=more))
        with pytest.raises(InputError, match=text):
            read_scenario(file)


def test_hostile_snapshots(tmp_path: Path) -> None:
    """A trace cannot make a replay keep any number of machines, nor load one that it never kept."""
    source = life(tmp_path / "a.tkt", "hello", vcpus=1)
    trace = Trace.open(source)
    for name, snapshots in (("many", [("snapshot", 1, n) for n in range(SNAPSHOTS_MAX + 1)]), ("none", [("restore", 1, 7)])):
        manifest = {k: v for k, v in trace.manifest.items() if k not in ("digest", "tables", "complete", "end", "images")}
        writer = TraceWriter(tmp_path / f"{name}.tkt", manifest)
        for image in trace.manifest["images"]:
            writer.add_image(image["role"], image["name"], trace.image(image["sha256"]))
        for index, (kind, size, value) in enumerate(snapshots):
            writer.append("directives", (0, index, 0, None, kind, None, size, value, None))
        writer.close(trace.manifest["end"])
        with pytest.raises(TraceDamaged, match="snapshot"):
            Replay(Trace.open(tmp_path / f"{name}.tkt")).run()


def test_the_vmm_asks_sets_and_reads_back(tmp_path: Path) -> None:
    """KVM_HAS, KVM_SET and KVM_GET_DEVICE_ATTR of each vCPU's structure stand in the trace (docs/pvtime.md 3.10)."""
    path = life(tmp_path / "a.tkt", "hello", vcpus=2)
    asked = [row for row in rows(path, "directives") if row["kind"].startswith("attribute_")]
    assert [(row["kind"], row["vcpu"], row["ipa"], row["value"], row["result"]) for row in asked] == [
        ("attribute_has", 0, None, None, 0), ("attribute_set", 0, PAGE, None, 0), ("attribute_get", 0, None, PAGE, 0),
        ("attribute_has", 1, None, None, 0), ("attribute_set", 1, PAGE + 64, None, 0), ("attribute_get", 1, None, PAGE + 64, 0),
    ]  # fmt: skip
