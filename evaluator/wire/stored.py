"""The envelope of internal records: a schema number and a checksum before the body.

State that was damaged, or written by a newer release, is refused before anything is decided from it.
Bodies are msgpack of the core's own values.
"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from typing import Any, TypeVar

import msgspec

from evaluator.errors import StateRefused

T = TypeVar("T")

_HEAD = struct.Struct(">BI")


def _encode_hook(value: object) -> object:
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    message = f"{type(value).__name__} has no stored form"
    raise NotImplementedError(message)


def _decode_hook(kind: type, value: Any) -> Any:  # noqa: ANN401  # msgspec's own signature
    if kind is Fraction:
        # By hand: the constructor's own parser takes ten times as long, which is most of a restore.
        numerator, _, denominator = value.partition("/")
        return Fraction(int(numerator), int(denominator))
    message = f"{kind.__name__} has no stored form"
    raise NotImplementedError(message)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_hook)


class Codec(msgspec.Struct, frozen=True):
    """Bytes for one kind of value: `name` for messages, `schema` its version, `kind` its type."""

    name: str
    schema: int
    kind: Any

    def encode(self, value: object) -> bytes:
        """The stored form of `value`."""
        body = _ENCODER.encode(value)
        return _HEAD.pack(self.schema, zlib.crc32(body)) + body

    def decode(self, stored: bytes) -> Any:  # noqa: ANN401  # what `kind` says; callers annotate it
        """The value of a stored form. Raises `StateRefused` where it is damaged or of another schema."""
        if len(stored) < _HEAD.size:
            message = f"{self.name}: a stored record of {len(stored)} bytes is too short; it was damaged"
            raise StateRefused(message)
        schema, checksum = _HEAD.unpack_from(stored)
        if schema > self.schema:
            message = (
                f"{self.name}: stored with schema {schema}, this version reads up to {self.schema}; "
                f"run the newer version, or start afresh under a new app_id"
            )
            raise StateRefused(message)
        body = stored[_HEAD.size :]
        if zlib.crc32(body) != checksum:
            message = f"{self.name}: a stored record is damaged (checksum); restore the topic or use a new app_id"
            raise StateRefused(message)
        return _decoder(self.kind).decode(body)


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:  # noqa: ANN401  # any type form, not only classes
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind, dec_hook=_decode_hook)
    return decoder


_DECODERS: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
"""Compiled decoders by type: a cache of pure functions, the one thing here that outlives a call."""
