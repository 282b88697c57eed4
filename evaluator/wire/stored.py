"""The envelope of internal records: a schema number and a checksum before the body.

State that was damaged, or written by a release that we do not know, is refused before anything is decided from it.
Bodies are msgpack of the core's own values.

A release knows the schema N of a kind of value and the one before. It reads both, and writes N - 1 until it is
finalized: until then the release before it can take everything back. The next schema of a kind is, in one place,

    Codec("pane", 2, Form(Packed), former=Form(Packed1, upgrade, downgrade))

where `Packed1` is the type as it was.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from evaluator.errors import SchemaRefused, StateRefused

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


def _as_it_is(value: Any) -> Any:  # noqa: ANN401  # any value
    return value


class Form(NamedTuple):
    """How a value lies in the records of one schema number.

    `kind` is the type of the body, `upgrade` makes of it the value that the program works with (and raises
    `ValueError` where it cannot be one), `downgrade` the reverse. What `downgrade` has to leave out, `upgrade` must be
    able to do without: a release that is not finalized lives on what it wrote.
    """

    kind: Any
    upgrade: Callable[[Any], Any] = _as_it_is
    downgrade: Callable[[Any], Any] = _as_it_is


class Codec(NamedTuple):
    """Bytes for one kind of value: `name` for messages, `schema` the number of `form`, `former` the one before."""

    name: str
    schema: int
    form: Form
    former: Form | None = None
    is_finalized: bool = False

    def finalized(self) -> Codec:
        """The same, but writing the newest schema: the release before cannot read that."""
        return self._replace(is_finalized=True)

    @property
    def writes(self) -> int:
        """The schema number that is written."""
        return self.schema if self.is_finalized or self.former is None else self.schema - 1

    @property
    def reads(self) -> tuple[int, ...]:
        """The schema numbers that can be read, oldest first."""
        return (self.schema,) if self.former is None else (self.schema - 1, self.schema)

    def encode(self, value: object) -> bytes:
        """The stored form of `value`."""
        number = self.writes
        body = _ENCODER.encode(self._form(number).downgrade(value))
        return _HEAD.pack(number, _checksum(number, body)) + body

    def decode(self, stored: bytes) -> Any:  # noqa: ANN401  # what `form` says; callers annotate it
        """The value of a stored form. Raises `StateRefused` where it is damaged or of an unknown schema."""
        return self.unseal(self.check(stored))

    def check(self, stored: bytes) -> bytes:
        """The stored form itself, if it is whole and of a known schema; a tenth of `decode`. Raises `StateRefused`."""
        if len(stored) < _HEAD.size:
            message = f"{self.name}: a stored record of {len(stored)} bytes is too short; it was damaged"
            raise StateRefused(message)
        number, checksum = _HEAD.unpack_from(stored)
        body = stored[_HEAD.size :]
        if _checksum(number, body) != checksum:
            message = f"{self.name}: a stored record is damaged (checksum); restore the topic or use a new app_id"
            raise StateRefused(message)
        if number != self.schema and number not in self.reads:
            raise SchemaRefused(self.name, number, self.reads)
        return stored

    def unseal(self, stored: bytes) -> Any:  # noqa: ANN401  # as `decode`
        """The value of a stored form that was checked. Raises `StateRefused` where the body is not of its schema."""
        form = self._form(stored[0])
        try:
            return form.upgrade(_decoder(form.kind).decode(memoryview(stored)[_HEAD.size :]))
        except ValueError as error:  # so are msgspec's own
            message = (f"{self.name}: a stored record says schema {stored[0]} but is not of it ({error}); it was "
                       f"written by a build that is no release: run that one, or use a new app_id")  # fmt: skip
            raise StateRefused(message) from None

    def would_write(self, stored: bytes) -> bool:
        """Whether a stored form has the schema that is written now."""
        return stored[0] == self.writes

    def _form(self, number: int) -> Form:
        return self.form if number == self.schema or self.former is None else self.former


def _checksum(number: int, body: bytes) -> int:
    """CRC-32 of the body that begins with the number: as another schema, the same bytes mean something else."""
    return zlib.crc32(body, number)


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:  # noqa: ANN401  # any type form, not only classes
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind, dec_hook=_decode_hook)
    return decoder


_DECODERS: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
"""Compiled decoders by type: a cache of pure functions, the one thing here that outlives a call."""
