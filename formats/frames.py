"""One zstd frame and back, with the size known before a byte is unpacked."""

from __future__ import annotations

import zstandard

LEVEL = 1


class Deflater:
    """Makes frames that say how long their content is. For one thread at a time; it keeps its working memory from frame to frame."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)

    def frame(self, raw: bytes) -> bytes:
        """One frame."""
        return self._compressor.compress(raw)


def deflate(raw: bytes) -> bytes:
    """One frame that says how long its content is."""
    return Deflater().frame(raw)


class Inflater:
    """Unpacks frames. For one thread at a time; it keeps its working memory from frame to frame."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor()

    def content(self, stored: bytes, size: int) -> bytes:
        """The content of one frame of exactly `size` bytes; no more memory than that is taken, whatever the frame says of itself.

        Errors: ValueError.
        """
        try:
            said = zstandard.frame_content_size(stored)
            if said not in (size, -1):  # -1: a frame that does not say; what comes out is bounded all the same
                raise ValueError(f"a frame of {said} bytes where {size} must be")
            raw = self._decompressor.decompress(stored, max_output_size=size, allow_extra_data=False) if size else b""
        except zstandard.ZstdError as error:
            raise ValueError(f"a frame that cannot be unpacked ({error})") from None
        if len(raw) != size:
            raise ValueError(f"a frame of {len(raw)} bytes where {size} must be")
        return raw


def inflate(stored: bytes, size: int) -> bytes:
    """The content of one frame, as Inflater gives it. Errors: ValueError."""
    return Inflater().content(stored, size)
