"""`tracekit record` as a user calls it: results, wrong input, interruptions, crashes."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import console, files_of, replayed, rows, tracekit

from tracekit.formats.errors import InputError
from tracekit.formats.reader import Trace
from tracekit.formats.verify import verify
from tracekit.recorder.scenario import read_scenario
from tracekit.workbench.demo import bundled_guest

HELLO = bundled_guest("hello")
STEAL = bundled_guest("steal")


def small(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """record on a small board."""
    return tracekit("record", *arguments, "--ram", "16M", **options)  # type: ignore[arg-type]


def test_hello(tmp_path: Path) -> None:
    """The smallest run: exit code 0, a whole trace, a line that says how it ended."""
    done = small(HELLO, "-o", tmp_path / "a.tkt", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["end"] == "power_off"
    assert console(tmp_path / "a.tkt") == "hello from EL1 of an arm64 guest\n"
    assert tracekit("verify", tmp_path / "a.tkt").returncode == 0
    assert tracekit("replay", tmp_path / "a.tkt").returncode == 0


def elf(**changes: int) -> bytes:
    """hello.elf with fields of its header changed."""
    raw = bytearray(HELLO.read_bytes())
    for name, (at, width) in {
        "machine": (18, "<H"),
        "class": (4, "<B"),
        "data": (5, "<B"),
        "type": (16, "<H"),
        "entry": (24, "<Q"),
    }.items():
        if name in changes:
            struct.pack_into(width, raw, at, changes[name])
    return bytes(raw)


BAD_GUESTS = {
    "empty": (b"", "the file is empty"),
    "cut header": (elf()[:40], "damaged or truncated ELF"),
    "cut body": (elf()[:5000], "truncated ELF"),
    "x86": (elf(machine=62), "a 64-bit AArch64 guest is needed"),
    "big-endian": (elf(data=2), "ELF"),
    "shared object": (elf(type=3), "ET_EXEC"),
    "entry elsewhere": (elf(entry=0x1000), "lies in no segment"),
    "text": (b"just some text" * 10, "--format flat"),
    "cut gzip": (b"\x1f\x8b\x08\0\0\0\0\0\0\3abc", "gzip"),
}


@pytest.mark.parametrize("name", BAD_GUESTS)
def test_guests_that_are_none(tmp_path: Path, name: str) -> None:
    """One line, exit code 2, nothing written."""
    content, text = BAD_GUESTS[name]
    (tmp_path / "guest").write_bytes(content)
    done = small(tmp_path / "guest", "-o", tmp_path / "a.tkt")
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guest"]


BAD_CALLS = {
    "missing guest": ((("nowhere.elf",), ()), "cannot read the guest nowhere.elf"),
    "no guest": (((), ()), "which guest?"),
    "no vCPU": (((HELLO,), ("--vcpus", 0)), "guest.vcpus = 0: must be a whole number from 1 to 8"),
    "too many vCPUs": (((HELLO,), ("--vcpus", 9)), "from 1 to 8"),
    "policy": (((HELLO,), ("--policy", "lottery")), "must be one of round-robin, fair, chaos"),
    "cpu": (((HELLO,), ("--cpu", "m1")), "must be one of a53, a72, max"),
    "capture": (((HELLO,), ("--capture", "all")), "must be one of thin, writes, full"),
    "slice": (((HELLO,), ("--slice", "soon")), "is not a duration"),
    "neighbour": (((HELLO,), ("--neighbour", "much")), "DUTY[:PERIOD][@PCPU]"),
    "watch": (((HELLO,), ("--watch", "here")), "ADDR:LEN"),
    "profile": (((HELLO,), ("--profile", "xen")), "must be one of kvm"),
    "unaligned structure": (((HELLO,), ("--pv-base", "0x90a0001")), "64-byte aligned"),
    "scenario": (((), ("--scenario", "nowhere.toml")), "cannot read the scenario"),
    "initrd": (((HELLO,), ("--initrd", "nowhere")), "cannot read the initrd"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_wrong_calls(tmp_path: Path, name: str) -> None:
    """One line that says what is allowed, exit code 2, nothing written."""
    (guest, options), text = BAD_CALLS[name]
    done = tracekit("record", *guest, "-o", tmp_path / "a.tkt", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_image_larger_than_ram(tmp_path: Path) -> None:
    """Says both sizes and the option."""
    (tmp_path / "flat").write_bytes(bytes(8 << 20))
    done = tracekit("record", tmp_path / "flat", "--format", "flat", "--ram", "4M", "-o", tmp_path / "a.tkt")
    assert done.returncode == 2 and "--ram changes it" in done.stderr


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    """An existing trace stays; a folder that is not there is named."""
    assert small(HELLO, "-o", tmp_path / "a.tkt").returncode == 0
    before = files_of(tmp_path / "a.tkt")
    again = small(STEAL, "-o", tmp_path / "a.tkt")
    assert again.returncode == 2 and "--force" in again.stderr
    assert files_of(tmp_path / "a.tkt") == before
    assert small(STEAL, "-o", tmp_path / "a.tkt", "--force").returncode == 0
    assert Trace.open(tmp_path / "a.tkt").manifest["scenario"]["image"] == "steal.elf"
    nowhere = small(HELLO, "-o", tmp_path / "no" / "a.tkt")
    assert nowhere.returncode == 2 and "does not exist" in nowhere.stderr
    impossible = small(HELLO, "-o", "/proc/a.tkt")
    assert impossible.returncode == 2 and "cannot create" in impossible.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tkt"]


def test_disk_full(tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: one line, exit code 2, what was committed can be recovered."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = small(STEAL, "-o", tmp_path / "a.tkt", "--vcpus", 2, "--capture", "full", preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "a.tkt").exists()


SCENARIOS = {
    "[guest]\nvcpu = 2": (2, "guest.vcpu: no such key; [guest] has image, initrd"),
    "[guest]\nvcpus = 'two'": (2, "guest.vcpus = 'two': must be int"),
    "seed = 1\n[host]\npolicy = 'best'": (3, "must be one of round-robin, fair, chaos"),
    "[hots]\npcpus = 2": (1, "hots: no such key; a scenario has"),
    "[limits]\nmax_vtime = 'long'": (2, "is not a duration"),
    "[capture]\nlevel = 'everything'": (2, "must be one of thin, writes, full"),
    "[host]\nneighbours = ['0%']": (2, "duty must be above 0%"),
    "seed = -1": (1, "from 0 to"),
    "guest = ": (1, "not TOML"),
    "[guest]\nappend = 'caf\u00e9'": (2, "printable ASCII is needed"),
    '[guest]\nimage = "a\\u0000b"': (2, "there is a NUL in it"),
    "[host]\nslice = 1.5": (2, "host.slice = 1.5: must be text"),
    "[[host.directives]]\nkind = 'pause'\nat = 1152921504606846977": (3, "must be from 0 to 1152921504606846976 ns"),
    "[[host.neighbours]]\nweight = 'much'": (2, "host.neighbours.weight = 'much': must be a whole number"),
    "[[host.neighbours]]\npcpu = 0.0": (2, "host.neighbours.pcpu = 0.0: must be a whole number"),
    "[[host.neighbours]]\nname = 5": (2, "host.neighbours.name = 5: must be text"),
    "[capture]\nwatch = '0x40100000:64'": (2, "must be list"),
    "[[inputs]]\nat = -5\ntext = 'x'": (2, "inputs.at = -5: must be a whole number from 0"),
    "[[inputs]]\nat = 1180591620717411303424\ntext = 'x'": (2, "must be a whole number from 0"),
    f"seed = {'9' * 5000}": (1, "not TOML"),
    f"seed = {'[' * 5000}": (1, "not TOML"),
}


@pytest.mark.parametrize("text", SCENARIOS, ids=lambda text: text[:40])
def test_nonsense_scenarios(tmp_path: Path, text: str) -> None:
    """Which key, which line, what is allowed."""
    (tmp_path / "s.toml").write_text(text)
    line, expected = SCENARIOS[text]
    with pytest.raises(InputError) as caught:
        read_scenario(tmp_path / "s.toml")
    assert expected in str(caught.value)
    assert f"s.toml:{line}: " in str(caught.value) or "not TOML" in expected, str(caught.value)


def test_a_whole_scenario(tmp_path: Path) -> None:
    """Every section of a scenario file reaches the manifest; input bytes reach the guest's UART as rows."""
    (tmp_path / "s.toml").write_text(
        f"""
seed = 7
inputs = [{{ at = "100us", text = "typed" }}]
[guest]
image = "{STEAL}"
vcpus = 2
ram = "16M"
[time]
ns_per_instruction = "3/2"
exit_cost = "200ns"
[host]
pcpus = 2
policy = "fair"
quantum = "50us"
neighbours = [{{ name = "noise", duty = "30%", period = "2ms", pcpu = 1 }}, "10%"]
directives = [{{ at = "2ms", kind = "pause", vcpu = 1 }}, {{ at = "3ms", kind = "resume", vcpu = 1 }}]
[capture]
level = "writes"
watch = ["0x40080000:64"]
[limits]
max_vtime = "8ms"
"""
    )
    done = tracekit("record", "--scenario", tmp_path / "s.toml", "-o", tmp_path / "a.tkt")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "a.tkt"
    manifest = Trace.open(path).manifest
    assert [thread["name"] for thread in manifest["threads"]] == ["vcpu0", "vcpu1", "noise", "neighbour1"]
    assert manifest["end"]["reason"] == "limit_vtime"
    assert [row["data"] for row in rows(path, "inputs")] == [b"typed"]
    assert [(row["event"], row["vtime_ns"]) for row in rows(path, "schedule") if row["reason"] == "directive"][:1] == [
        ("pause", 2_000_000)
    ]
    assert tracekit("verify", path).returncode == 0
    assert replayed(path).is_identical


BAD_ENDS = {
    # guest code (flat), exit code, reason
    "deadlock": ([0xD503207F, 0x17FFFFFF], 1, "deadlock"),  # wfi; b -1
    "lockup": ([0x00000000], 1, "lockup"),  # udf without vectors
    "limit": ([0x14000000], 0, "limit_instructions"),  # b .
}


@pytest.mark.parametrize("name", BAD_ENDS)
def test_bad_ends_are_whole_traces(tmp_path: Path, name: str) -> None:
    """However a run ends, its trace is whole, says so, and replays."""
    code, exit_code, reason = BAD_ENDS[name]
    (tmp_path / "guest").write_bytes(b"".join(word.to_bytes(4, "little") for word in code))
    done = small(tmp_path / "guest", "--format", "flat", "-o", tmp_path / "a.tkt", "--max-instructions", 100_000)
    assert done.returncode == exit_code, done.stderr
    assert Trace.open(tmp_path / "a.tkt").manifest["end"]["reason"] == reason
    assert tracekit("verify", tmp_path / "a.tkt").returncode == 0
    verdict = tracekit("replay", tmp_path / "a.tkt")
    assert verdict.returncode == 0, verdict.stdout


def test_panic_is_a_finding(tmp_path: Path) -> None:
    """A guest that prints a kernel's panic line ends with exit code 1."""
    text = b"Kernel panic - not syncing: test\n"
    code = [0xD2A12000]  # mov x0, #0x9000000
    for byte in text:
        code += [0x52800001 | byte << 5, 0xB9000001]  # mov w1, #byte; str w1, [x0]
    code.append(0x14000000)
    (tmp_path / "guest").write_bytes(b"".join(word.to_bytes(4, "little") for word in code))
    done = small(tmp_path / "guest", "--format", "flat", "-o", tmp_path / "a.tkt", "--max-vtime", "1s")
    assert done.returncode == 1 and "Kernel panic - not syncing: test" in done.stdout
    assert replayed(tmp_path / "a.tkt").is_identical


def spinning_guest(path: Path) -> Path:
    """Counts for ever, storing and printing now and then."""
    code = [
        0xD2A12000,  # mov x0, #0x9000000
        0xD2A80803,  # mov x3, #0x40400000
        0x528005C1,  # mov w1, #'.'
        0xD2A00102,  # 1: mov x2, #0x80000
        0xF9000062,  # str x2, [x3]
        0xD1000442,  # 2: sub x2, x2, #1
        *[0xD503201F] * 6,  # nop
        0xB5000002 | (-7 & 0x7FFFF) << 5,  # cbnz x2, 2b
        0xB9000001,  # str w1, [x0]
        0x14000000 | (-11 & 0x3FFFFFF),  # b 1b
    ]
    path.write_bytes(b"".join(word.to_bytes(4, "little") for word in code))
    return path


def start_recording(guest: Path, output: Path) -> subprocess.Popen[str]:
    """A recording without an end, telling its commits."""
    command = [
        sys.executable,
        "-m",
        "tracekit.cli",
        "record",
        guest,
        "--format",
        "flat",
        "-o",
        output,
        "--ram",
        "16M",
        "--progress",
        "plain",
        "--checkpoint-every",
        "30M",
    ]
    return subprocess.Popen([str(one) for one in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_progress(process: subprocess.Popen[str], lines: int) -> list[int]:
    """Virtual times (ns) of the first progress lines."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(int(line.split()[4]))
        if len(seen) >= lines:
            return seen
    raise AssertionError("the recording ended by itself")


def test_ctrl_c_keeps_the_trace(tmp_path: Path) -> None:
    """Exit code 130, a whole trace, replayable."""
    process = start_recording(spinning_guest(tmp_path / "guest"), tmp_path / "a.tkt")
    wait_for_progress(process, 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert Trace.open(tmp_path / "a.tkt").manifest["end"]["reason"] == "interrupted"
    assert replayed(tmp_path / "a.tkt").is_identical


COMMIT_NS = 100_000_000


def killed_and_recovered(folder: Path, guest: Path, seed: int) -> float:
    """Kill -9 at a random moment; gives the share of the run that came back."""
    folder.mkdir()
    process = start_recording(guest, folder / "a.tkt")
    draw = random.Random(seed)
    told = wait_for_progress(process, draw.randrange(2, 12))
    time.sleep(draw.random() * 0.05)
    process.kill()
    _, rest = process.communicate()
    told += [int(line.split()[4]) for line in rest.splitlines() if line.startswith("progress") and len(line.split()) == 5]
    done = tracekit("recover", folder / "a.tkt", "--json")
    assert done.returncode == 0, done.stderr
    saved = json.loads(done.stdout)
    assert saved["missing"]
    assert saved["vtime_ns"] >= told[-1] - 2 * COMMIT_NS
    verdict = tracekit("replay", folder / "a.tkt", "--json")
    assert verdict.returncode == 0, verdict.stdout
    assert json.loads(verdict.stdout)["position"] == saved["position"]
    assert verify(folder / "a.tkt") == []
    kept = Trace.open(folder / "a.tkt").checkpoints().entries
    assert kept and saved["position"] - kept[-1].position < 100_000_000
    return float(saved["vtime_ns"] / (told[-1] + COMMIT_NS / 2))


def test_killed_recordings(tmp_path: Path) -> None:
    """Ten kills at random moments (fifty in the slow suite)."""
    guest = spinning_guest(tmp_path / "guest")
    shares = [killed_and_recovered(tmp_path / str(seed), guest, seed) for seed in range(10)]
    assert statistics.median(shares) >= 0.9


@pytest.mark.slow
def test_killed_recordings_fifty_times(tmp_path: Path) -> None:
    """Kill -9 at a random moment, fifty times."""
    guest = spinning_guest(tmp_path / "guest")
    shares = [killed_and_recovered(tmp_path / str(seed), guest, 1000 + seed) for seed in range(50)]
    assert statistics.median(shares) >= 0.9


def test_internal_errors_are_trouble() -> None:
    """A bug of ours exits with 2 and asks for a report, never with 1."""
    program = "import tracekit.cli as c, tracekit.formats.cli as f\nf.info.callback = lambda **k: 1 / 0\nimport sys; sys.argv = ['tracekit', 'info', 'x']; c.main()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "TRACEKIT_DEBUG": ""}
    )
    assert done.returncode == 2 and "please report it" in done.stderr and len(done.stderr.splitlines()) == 1


def test_suspend_and_reset(tmp_path: Path) -> None:
    """PSCI CPU_SUSPEND sleeps (here for ever), SYSTEM_RESET ends the run; both replay."""
    for name, function, reason in (("suspend", 0xC400_0001, "deadlock"), ("reset", 0x8400_0009, "reset")):
        code = [0x52800000 | (function & 0xFFFF) << 5, 0x72A00000 | function >> 16 << 5, 0xD4000002, 0x14000000]
        (tmp_path / name).write_bytes(b"".join(word.to_bytes(4, "little") for word in code))
        small(tmp_path / name, "--format", "flat", "-o", tmp_path / f"{name}.tkt")
        assert Trace.open(tmp_path / f"{name}.tkt").manifest["end"]["reason"] == reason
        assert replayed(tmp_path / f"{name}.tkt").is_identical
