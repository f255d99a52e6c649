"""A boot that is not recorded: unrecorded.py KERNEL INITRD ENGINE. The same machine and host as `tracekit record` makes, without a writer.

The command line's modules are imported as there; what the writer needs is not, if it is imported only when something is written.
"""

from __future__ import annotations

import importlib
import sys

from tracekit.recorder.record import load_guest
from tracekit.recorder.scenario import Scenario
from tracekit.recorder.session import Recording


def main() -> None:
    """Run to power-off."""
    kernel, initrd, engine = sys.argv[1:]
    importlib.import_module("tracekit.cli")
    importlib.import_module("tracekit.recorder.cli")
    scenario = Scenario(image=kernel, initrd=initrd, engine_mode=engine, max_vtime_ns=60_000_000_000).checked()
    end = Recording(scenario, load_guest(scenario), None).run()
    assert end.reason.value == "power_off", end
    print(end.position)


if __name__ == "__main__":
    main()
