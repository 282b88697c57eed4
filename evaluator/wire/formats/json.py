"""The format `json`: one object a record, or with `batch` an array of them or a line each.

Two ways to the same values. The *typed* way decodes into a struct that has only the named fields, as scalars;
everything else is skipped without building it. Once a batch has shown of which types they are, a struct of just these
types says so of whole columns, without a look at each value. Whatever does not fit the struct (a list of length 1, a
literal key with dots, broken JSON) makes the record go the *lenient* way: the standard library's parser
into dicts, then a look-up by path. The lenient way defines what a record means; that the typed way never
answers differently is held by tests/property/test_decode_json_laws.py.

msgspec checks neither UTF-8 nor nesting in what it skips, so both are checked before.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from evaluator.wire.config.model import MAX_RECORD_EVENTS
from evaluator.wire.field import lookup
from evaluator.wire.formats import Format, Read, Row, read_each, too_many
from evaluator.wire.number import integer
from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evaluator.wire.column import Column, Kinds
    from evaluator.wire.config.model import SourceConfig
    from evaluator.wire.records import Records

MAX_DEPTH = 200
"""Levels of nesting. More would let the depth of our own stack decide what is JSON."""

TOO_DEEP = Fault(Reason.NOT_JSON, f"nested more than {MAX_DEPTH} levels deep")

MISFIT = (msgspec.DecodeError, ValueError, RecursionError)
"""What msgspec raises of a value that does not fit its type, or is no JSON."""

SPACE = b" \t\r\n"
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

SCALARS: Kinds = frozenset({bool, int, float, str, type(None)})

LESSON = 64
"""Events from which the types of the next ones are told. Fewer may be an accident."""


class JsonReader:
    """Reads the values at `paths`, of `most` events a record. Without `typed` every record goes the lenient way."""

    def __init__(self, paths: Sequence[str], batch: str, most: int = MAX_RECORD_EVENTS, *, typed: bool = True) -> None:
        self._parts = [tuple(path.split(".")) for path in paths]
        self._typed = _Typed.of(self._parts, [SCALARS] * len(paths)) if typed else None
        self._narrow: _Typed | None = None
        self._most = most
        batched = {"array": self._array, "lines": self._lines, "auto": self._auto}
        self._batch: Callable[[bytes], Sequence[Row | Fault]] | None = batched.get(batch)

    def __call__(self, values: Sequence[bytes], records: Records) -> Read:  # noqa: ARG002  # a Reader
        """Read the records' values; the records themselves are not looked at."""
        if self._batch is not None:
            return read_each(values, len(self._parts), self._batch)
        if self._typed is None:
            return read_each(values, len(self._parts), lambda value: [self._lenient(value)])
        return self._ones(values, self._typed)

    def _ones(self, values: Sequence[bytes], wide: _Typed) -> Read:
        """One event a record, without a step of Python for each."""
        typed = self._narrow or wide
        found: list[msgspec.Struct] = []
        misfits: dict[int, Row | Fault] = {}
        ahead = map(typed.one if _is_plain(values) else typed.checked_one, values)
        while True:
            try:
                # It keeps what it was given before an exception, so the reading goes on behind a misfit.
                found.extend(ahead)
                break
            except MISFIT:
                misfits[len(found)] = self._one(values[len(found)])
                found.append(wide.nothing)
        columns = wide.columns(found)
        read = _mended(columns, len(found), misfits) if misfits else Read([*columns], len(found))
        if typed is not wide:
            rows = [event for event in misfits.values() if not isinstance(event, Fault)]
            read.kinds = [kind | set(map(type, values)) for kind, *values in zip(typed.kinds, *rows, strict=True)]
        self._learn(read)
        return read

    def _learn(self, read: Read) -> None:
        """Expect from now on what these columns hold, beside what was expected before."""
        if read.kinds is None and read.count < LESSON:
            return
        kinds = read.kinds or [frozenset(map(type, column)) for column in read.columns]
        expected = [(kind | {int} if float in kind else kind) & SCALARS for kind in kinds]
        if all(expected) and (self._narrow is None or expected != self._narrow.kinds):
            self._narrow = _Typed.of(self._parts, expected)

    def _one(self, value: bytes) -> Row | Fault:
        if self._typed is not None:
            try:
                return self._typed.row(self._typed.checked_one(value))
            except MISFIT:
                pass
        return self._lenient(value)

    def _lenient(self, value: bytes) -> Row | Fault:
        payload = parse(value)
        return payload if isinstance(payload, Fault) else self._row(payload)

    def _row(self, payload: object) -> Row | Fault:
        return row_of(payload, self._parts)

    def _array(self, value: bytes) -> Sequence[Row | Fault]:
        if self._typed is not None and (events := _split(value, self._most + 1)) is not None:
            return self._each(events, self._one)
        payload = parse(value)
        if isinstance(payload, Fault):
            return [payload]
        if not isinstance(payload, list):
            return [Fault(Reason.WRONG_SHAPE, f"expected an array, found {kind_of(payload)}")]
        return self._each(payload, self._row)

    def _each(self, events: Sequence[Any], read: Callable[[Any], Row | Fault]) -> Sequence[Row | Fault]:
        return [too_many(self._most)] if len(events) > self._most else [read(event) for event in events]

    def _lines(self, value: bytes) -> Sequence[Row | Fault]:
        """Blank lines are no events, but a value without anything else is not JSON."""
        lines = _lines_of(value)
        return self._each(lines, self._one) if lines else [self._lenient(value)]

    def _auto(self, value: bytes) -> Sequence[Row | Fault]:
        """One document (an array, or an object over any number of lines), else lines if one of them is an object."""
        whole = self._array(value) if value.lstrip(SPACE).startswith(b"[") else [self._one(value)]
        if len(whole) != 1 or not isinstance(whole[0], Fault) or whole[0].reason is not Reason.NOT_JSON:
            return whole
        lines = _lines_of(value)
        # Of too many it is not asked what they are.
        if len(lines) > self._most or (len(lines) > 1 and any(isinstance(parse(line), dict) for line in lines)):
            return self._each(lines, self._one)
        return whole


def row_of(payload: object, paths: Sequence[Sequence[str]]) -> Row | Fault:
    """The values at paths, which are split at their dots, of a JSON value."""
    if not isinstance(payload, dict):
        return Fault(Reason.WRONG_SHAPE, f"expected an object, found {kind_of(payload)}")
    return tuple([lookup(payload, parts) for parts in paths])


def _mended(columns: list[list[object]], count: int, misfits: Mapping[int, Row | Fault]) -> Read:
    """Columns of one event a record, where those at the `misfits` are otherwise, or are none."""
    faults = [(position, 0, event) for position, event in misfits.items() if isinstance(event, Fault)]
    for position, event in misfits.items():
        if not isinstance(event, Fault):
            for column, value in zip(columns, event, strict=True):
                column[position] = value
    if not faults:
        return Read([*columns], count)
    without = {position for position, _, _ in faults}
    kept = [position for position in range(count) if position not in without]
    mended: list[Column] = [[column[position] for position in kept] for column in columns]
    return Read(mended, len(kept), kept, [0] * len(kept), faults)


class _Typed:
    """The struct of a source's fields. The values of each have one of its `kinds`."""

    def __init__(self, struct: type[msgspec.Struct], attributes: Sequence[str], kinds: Sequence[Kinds]) -> None:
        self.one = msgspec.json.Decoder(struct).decode
        self.kinds = list(kinds)
        self.row = _row_of(attributes)
        self._struct = struct
        self.columns = _columns_of(attributes)

    @classmethod
    def of(cls, paths: Sequence[tuple[str, ...]], kinds: Sequence[Kinds]) -> _Typed | None:
        """The struct for these paths; None where msgspec has none (a path within a path, an odd name)."""
        try:
            struct, attributes = _struct(dict(zip(paths, kinds, strict=True)))
        except (_NoStruct, ValueError):
            return None
        return cls(struct, [attributes[path] for path in paths], kinds)

    @property
    def nothing(self) -> msgspec.Struct:
        """An event without any of the fields. Only where each of them may be absent."""
        return self._struct()

    def checked_one(self, value: bytes) -> msgspec.Struct:
        _check(value)
        return self.one(value)


class _NoStruct(Exception):
    """A path leads through another path's value. No error: the lenient way serves."""


def _struct(paths: Mapping[tuple[str, ...], Kinds]) -> tuple[type[msgspec.Struct], dict[tuple[str, ...], str]]:
    """A struct for paths that are split at their dots, and which attribute of it holds which path.

    A field that must not be None must be there. A nested field that is null, and a literal key with dots that is not,
    do not fit: there the lenient way has to look which of them counts.
    """
    heads: dict[str, dict[tuple[str, ...], Kinds]] = {}
    for path, kinds in paths.items():
        heads.setdefault(path[0], {})[path[1:]] = kinds
    fields: list[tuple[str, object, object]] = []
    attributes: dict[tuple[str, ...], str] = {}
    for number, (head, rests) in enumerate(heads.items()):
        name = f"f{number}"
        if set(rests) == {()}:
            attributes[(head,)] = name
            default = None if type(None) in rests[()] else msgspec.NODEFAULT
            kind = functools.reduce(operator.or_, rests[()])
            fields.append((name, kind, msgspec.field(default=default, name=head)))
        elif () in rests:
            raise _NoStruct
        else:
            child, below = _struct(rests)
            attributes |= {(head, *rest): f"{name}.{attribute}" for rest, attribute in below.items()}
            # Without it, the fields in it would be absent, which they may not be.
            is_optional = all(type(None) in kinds for kinds in rests.values())
            field = msgspec.field(default_factory=child, name=head) if is_optional else msgspec.field(name=head)
            fields.append((name, child, field))
    literals = {".".join(path[:cut]) for path in paths for cut in range(2, len(path) + 1)}
    for number, literal in enumerate(sorted(literals)):
        fields.append((f"literal{number}", None, msgspec.field(default=None, name=literal)))
    return msgspec.defstruct("Event", fields, gc=False, kw_only=True), attributes


def _columns_of(attributes: Sequence[str]) -> Callable[[Sequence[msgspec.Struct]], list[list[object]]]:
    """What gives the values of each field. Code takes half of what getters take; its names are `_struct`'s own."""
    columns = ", ".join(f"[event.{attribute} for event in events]" for attribute in attributes)
    return eval(f"lambda events: [{columns}]")  # type: ignore[no-any-return]  # noqa: S307  # nothing of it is a user's


def _row_of(attributes: Sequence[str]) -> Callable[[msgspec.Struct], Row]:
    if not attributes:
        return lambda _: ()
    getter = attrgetter(*attributes)
    return getter if len(attributes) > 1 else lambda event: (getter(event),)


def parse(value: bytes) -> object:
    """The JSON document `value`, or the `Fault` that it is none. Strings may hold half surrogates.

    RFC 8259: no NaN, no byte order mark, the last of several equal keys wins. A number beyond the doubles
    becomes infinite, as any use of it will find.
    """
    text = _text_of(value)
    if isinstance(text, Fault):
        return text
    try:
        return _DECODER.decode(text)
    except ValueError as error:
        return Fault(Reason.NOT_JSON, str(error)[:MAX_DETAIL])


def unreadable_as_json(value: bytes) -> Fault | None:
    """Why `value` is no JSON, whatever it says: its encoding, its nesting."""
    text = _text_of(value)
    return text if isinstance(text, Fault) else None


def _text_of(value: bytes) -> str | Fault:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return Fault(Reason.NOT_JSON, f"not UTF-8 at byte {error.start}")
    return TOO_DEEP if nested_too_deep(value) else text


def _constant(name: str) -> NoReturn:
    message = f"{name} is no JSON value"
    raise ValueError(message)


_DECODER = json.JSONDecoder(parse_constant=_constant, parse_int=integer)


def _split(value: bytes, most: int) -> list[bytes] | None:
    """The first `most` elements of an array, each as it stands; None where only the lenient way can tell what it is."""
    try:
        if not value.isascii():
            value.decode()
        events = [bytes(raw) for raw in _SPLITTER.decode(value)[:most]]
    except MISFIT:
        return None
    return None if any(_may_be_deep(event, outside=1) for event in events) else events


_SPLITTER = msgspec.json.Decoder(list[msgspec.Raw])


def _check(value: bytes) -> None:
    """Raise ValueError unless msgspec may be trusted with `value`."""
    if not value.isascii():
        value.decode()
    if _may_be_deep(value):
        message = "perhaps nested too deep"
        raise ValueError(message)


def _is_plain(values: Sequence[bytes]) -> bool:
    """Whether all of the values pass `_check`, as far as a look at all of them at once can tell."""
    is_short = max(map(len, values), default=0) <= 2 * MAX_DEPTH
    is_shallow = is_short or sum(max(map(brackets, values)) for brackets in _BRACKETS) <= MAX_DEPTH
    return is_shallow and all(map(bytes.isascii, values))


_BRACKETS = (operator.methodcaller("count", b"{"), operator.methodcaller("count", b"["))


def _may_be_deep(value: bytes, outside: int = 0) -> bool:
    """Whether `value` could be nested too deep within `outside` levels. A level takes two bytes, one a bracket."""
    levels = MAX_DEPTH - outside
    return len(value) > 2 * levels and value.count(b"{") + value.count(b"[") > levels


def nested_too_deep(value: bytes, outside: int = 0) -> bool:
    """Whether `value`, which stands within `outside` levels, is nested deeper than what is JSON here."""
    if not _may_be_deep(value, outside) or _is_surely_shallow(value):
        return False
    depth = outside
    for bracket in _BRACKET.findall(_STRING.sub(b"", value)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _is_surely_shallow(value: bytes) -> bool:
    """Whether its brackets vanish pair by pair, the innermost ones first, within a few rounds. Ten times faster."""
    if b"\\" in value:
        return False
    # Without escapes, every second piece between quotes is outside of strings.
    rest = b"".join(value.split(b'"')[::2]).translate(None, _NO_BRACKETS)
    for _ in range(ROUNDS):
        rest = rest.replace(b"{}", b"").replace(b"[]", b"")
    return not rest


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

ROUNDS = 12
"""Each takes one or two levels away. A request of OTLP has twelve; more would cost documents that are deep."""


def _lines_of(value: bytes) -> list[bytes]:
    return [line for line in value.split(b"\n") if line.strip(SPACE)]


def kind_of(payload: object) -> str:
    """What a JSON value is, for a detail."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(payload), "a number")


def _reader(source: SourceConfig, paths: tuple[str, ...]) -> JsonReader:
    return JsonReader(paths, source.batch, source.most_events)


FORMATS = (Format("json", _reader, of_values=True),)
