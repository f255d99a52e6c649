"""How a replay is to be done. Nothing here changes what the guest does."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.formats.errors import InputError


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """capture None: as recorded. to_position: stop there (instructions). from_position: begin at the last checkpoint at or before it.
    mode, page_size (bytes), counting: of the engine.

    Errors: InputError for a position below 0, or an end before the beginning.
    """

    capture: str | None = None
    mode: str = "fast"
    page_size: int = 4096
    counting: str = "block"
    to_position: int | None = None
    from_position: int | None = None

    def __post_init__(self) -> None:
        for name in ("to_position", "from_position"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"{name} = {value}: a position is 0 or more instructions")
        if self.to_position is not None and self.from_position is not None and self.from_position > self.to_position:
            raise InputError(f"from_position = {self.from_position} lies behind to_position = {self.to_position}")
