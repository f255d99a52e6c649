"""How many instructions QEMU's own recording of the boot executed: asked of its replay, which is stopped where the guest powered off."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from typing import Any

from bench import Bench
from harness import BenchmarkError

PATIENCE_S = 120


def instructions_of_qemu(bench: Bench) -> int:
    """`query-replay` over QMP once the guest is off (-no-shutdown). Errors: BenchmarkError."""
    here, there = socket.socketpair()
    with here, there:
        monitor = ("-chardev", f"socket,id=qmp,fd={there.fileno()}", "-mon", "chardev=qmp,mode=control", "-no-shutdown")
        process = subprocess.Popen(
            bench.qemu("record", "counted.bin", *monitor),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[there.fileno()],
        )  # fmt: skip
        try:
            here.settimeout(PATIENCE_S)
            talk = here.makefile("rw", encoding="utf-8")
            _say(talk, "qmp_capabilities")
            give_up = time.monotonic() + PATIENCE_S
            while time.monotonic() < give_up:
                if _say(talk, "query-status").get("status") == "shutdown":
                    return int(_say(talk, "query-replay")["icount"])
                time.sleep(0.2)
            raise BenchmarkError("QEMU did not power off while its instructions were counted")
        except (OSError, KeyError, ValueError) as error:
            raise BenchmarkError(f"QEMU does not tell its instructions: {error}") from None
        finally:
            process.kill()
            os.waitpid(process.pid, 0)
            process.returncode = 0


def _say(talk: Any, command: str) -> dict[str, Any]:
    talk.write(json.dumps({"execute": command}) + "\n")
    talk.flush()
    while True:
        line = talk.readline()
        if not line:
            raise ValueError("it has ended")
        answer = json.loads(line)
        if "return" in answer:
            value: dict[str, Any] = answer["return"]
            return value
        if "error" in answer:
            raise ValueError(answer["error"]["desc"])
