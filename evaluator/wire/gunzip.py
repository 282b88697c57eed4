"""Gzip, of which nobody knows before how large it becomes."""

from __future__ import annotations

import zlib

from evaluator.wire.rejection import Fault, Reason

_MAGIC = b"\x1f\x8b"
_GZIP = 31
"""zlib's window bits: the largest window, and gzip's header and checksum."""


def gunzipped(value: bytes, limit: int) -> bytes | Fault:
    """`value`, decompressed if it is gzip. What would become more than `limit` bytes is given up there."""
    if not value.startswith(_MAGIC):
        return value
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(value, limit + 1)
    except zlib.error as error:
        return Fault(Reason.WRONG_SHAPE, f"damaged gzip: {error}")
    if len(plain) > limit:
        return Fault(Reason.TOO_LARGE, f"more than max_record_bytes, {limit}, when decompressed")
    if not stream.eof or stream.unused_data:
        return Fault(Reason.WRONG_SHAPE, f"damaged gzip: it {'goes on behind its' if stream.eof else 'has no'} end")
    return plain
