"""One zstd frame and back, with the size known before a byte is unpacked."""

from __future__ import annotations

import zstandard

LEVEL = 1


def deflate(raw: bytes) -> bytes:
    """One frame that says how long its content is."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(raw)


def inflate(stored: bytes, size: int) -> bytes:
    """The content of one frame of exactly `size` bytes; no more memory than that is taken, whatever the frame says of itself.

    Errors: ValueError.
    """
    try:
        said = zstandard.frame_content_size(stored)
        if said not in (size, -1):  # -1: a frame that does not say; what comes out is bounded all the same
            raise ValueError(f"a frame of {said} bytes where {size} must be")
        raw = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size, allow_extra_data=False) if size else b""
    except zstandard.ZstdError as error:
        raise ValueError(f"a frame that cannot be unpacked ({error})") from None
    if len(raw) != size:
        raise ValueError(f"a frame of {len(raw)} bytes where {size} must be")
    return raw
