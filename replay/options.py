"""How a replay is to be done. Nothing here changes what the guest does."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.formats.errors import InputError


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """capture None: as recorded. to_position: stop there (instructions). mode, page_size (bytes), counting: of the engine.

    Errors: InputError for a position below 0.
    """

    capture: str | None = None
    mode: str = "fast"
    page_size: int = 4096
    counting: str = "block"
    to_position: int | None = None

    def __post_init__(self) -> None:
        if self.to_position is not None and self.to_position < 0:
            raise InputError(f"to_position = {self.to_position}: a position is 0 or more instructions")
