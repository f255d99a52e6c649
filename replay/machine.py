"""The machine that a manifest describes, as a replay builds it."""

from __future__ import annotations

from collections.abc import Iterator

from tracekit.formats.captures import highest_level
from tracekit.formats.errors import TraceDamaged
from tracekit.formats.reader import Trace
from tracekit.machine.board import Board, BoardConfig
from tracekit.machine.description import board_config
from tracekit.machine.engine import EngineConfig
from tracekit.machine.events import Director, Sink
from tracekit.machine.memory import GuestFault
from tracekit.replay.options import ReplayOptions


class RecordedMachine:
    """Images, entry point and board of a trace. Errors: TraceDamaged where the manifest describes no machine that can be built."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.recorded_capture = highest_level(trace.manifest)
        try:
            self._machine = trace.manifest["machine"]
            self._segments = [(int(one["ipa"]), str(one["image"])) for one in self._machine["segments"]]
            self.entry, self.x0 = int(self._machine["entry"]), int(self._machine["x0"])
        except (KeyError, TypeError, ValueError) as error:
            raise TraceDamaged(f"{trace.path}: the manifest describes no machine ({error!r})") from None

    def images(self) -> Iterator[tuple[int, bytes]]:
        """(ipa, content) of the guest's initial memory. Errors: TraceDamaged."""
        for ipa, image in self._segments:
            yield ipa, self._trace.image(image)

    def config(self, options: ReplayOptions) -> BoardConfig:
        """The board on the engine that the options ask for. Errors: TraceDamaged."""
        engine = EngineConfig(
            mode=options.mode,
            page_size=options.page_size,
            counting=options.counting,
            capture=options.capture or self.recorded_capture,
            takes_interrupts=False,
        )
        return board_config(self._machine, engine)

    def build(self, options: ReplayOptions, sink: Sink, director: Director) -> Board:
        """The board before its first instruction. Errors: TraceDamaged."""
        board = Board(self.config(options), sink, director)
        try:
            board.load(self.images())
            board.engine.reset_vcpu(0, self.entry, self.x0)
        except GuestFault as error:
            board.close()
            raise TraceDamaged(f"{self._trace.path}: an image does not fit into the machine ({error})") from None
        except BaseException:
            board.close()
            raise
        return board
