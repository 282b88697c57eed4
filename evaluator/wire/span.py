"""Spans of OTLP: from their encoding to the fields of events.

JSON and protobuf both give objects with the names of `opentelemetry/proto/trace/v1/trace.proto`; what those mean is
here once. One request holds spans by resource and scope:

    request > resource spans (resource) > scope spans (scope) > spans          each span is one event

Fields: `span.name`, `span.kind`, `span.status`, `span.start`, `span.end` and `span.duration` in nanoseconds, `span.id`,
`span.trace_id`, `span.weight`, `scope.name`; any other path is an attribute of the span, else of its resource.
Attributes are a flat list of keys with dots, so a path is first of all such a key.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress, groupby, islice, repeat
from operator import attrgetter, sub
from typing import TYPE_CHECKING, Any, cast

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import MAX_RECORD_EVENTS, FieldsConfig, SourceDefaults
from evaluator.wire.field import lookup
from evaluator.wire.formats import EVENTS_AT_ONCE, Format, Read, too_many
from evaluator.wire.memo import Memo
from evaluator.wire.number import number_of
from evaluator.wire.rejection import Fault, Faults, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from evaluator.wire.column import Column
    from evaluator.wire.config.model import SourceConfig
    from evaluator.wire.records import Records

DEFAULTS = SourceDefaults(
    FieldsConfig(
        time="span.end",
        time_unit="ns",
        latency="span.duration",
        latency_unit="ns",
        failed=Matcher.of(
            {"span.status": "error"},
            {"span.kind": "server", "http.response.status_code": ">= 500"},
            {"span.kind": "server", "http.status_code": ">= 500"},
        ),
        weight="span.weight",
        trace_id="span.trace_id",
        id="span.id",
    ),
    # Client and internal spans are other views of the same request, which would count many times.
    where=Matcher.of({"span.kind": ["server", "consumer"]}),
)


Picked = dict[str, list[object]]
"""For each name of an attribute its JSON values, None for those who have none."""

Pick = Callable[[Iterable[Any], frozenset[str]], Picked]
"""Finds the attributes of these names in each of what an encoding has for attributes: those of many spans at once, or
of many resources."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The spans of one instrumentation scope of one resource, whose attributes `pick` understands.

    The scopes of a resource have the same object for its attributes.
    A span has the fields of the message `Span`. What they hold may be anything that JSON holds, in `kind` and in the
    code of `status` no lists and objects.
    """

    resource: Any
    name: object
    spans: Sequence[Any]
    pick: Pick


FindsScopes = Callable[[bytes], Iterable[Scope | Fault] | Fault]
"""Finds the spans of a request, perhaps scopes without any, and what is in their place but none; a fault where a value
is no request. Those that are looked at no further cost nothing but what their bytes are parsed to. That a value is no
JSON may be found last, behind scopes: then it has none."""


class SpanReader:
    """Reads the values at `paths` of the spans that `scopes` finds in the value of a record, of `most` spans.

    Spans that `where` keeps out, whatever attributes they have, are skipped: most of a request are such, and
    attributes are most of the work. Those that it might keep out for an attribute are read.
    """

    def __init__(
        self, paths: Sequence[str], scopes: FindsScopes, most: int = MAX_RECORD_EVENTS, where: Matcher | None = None
    ) -> None:
        self._paths, self._scopes, self._most = paths, scopes, most
        self._attributes = _Attributes([path for path in paths if path not in _OWN and path != _SCOPE_NAME])
        self._filter = None if where is None else _Filter.of(where)

    def __call__(self, values: Sequence[bytes], records: Records) -> Read:  # noqa: ARG002  # a Reader
        """Read the spans of all records at once: a step of Python for each field, not for each span."""
        scopes: list[Scope] = []
        position: list[int] = []
        index: list[int] = []
        faults = Faults()
        skipped = 0
        until = None
        looked_at = 0
        for place, value in enumerate(values):
            if looked_at >= EVENTS_AT_ONCE:
                until = place
                break
            count = 0
            bounded, cost = self._bounded(value)
            looked_at += cost
            for found in bounded:
                events = 1
                if isinstance(found, Fault):
                    faults.add(place, count, found)
                else:
                    events = len(found.spans)
                    scopes.append(found)
                    position += repeat(place, events)
                    index += range(count, count + events)
                count += events
            skipped += not count
        rows = _Rows.of(scopes, position, index)
        if self._filter is not None:
            rows = rows.only(self._filter.passes(rows.spans))
            skipped += len(position) - len(rows.position)
        columns = self._columns(rows)
        return Read(columns, len(rows.position), rows.position, rows.index, faults.kept(), skipped, until=until)

    def _bounded(self, value: bytes) -> tuple[Sequence[Scope | Fault], int]:
        """The scopes of a value that have spans, and what is none; only a fault where those are too many.

        And as how many events it counts: what holds nothing takes its time as well.
        """
        found = self._scopes(value)
        if isinstance(found, Fault):
            return [found], 1
        kept: list[Scope | Fault] = []
        count = 0
        for each in found:
            if isinstance(each, Fault) and each.reason is Reason.NOT_JSON:
                return [each], 1
            spans = 1 if isinstance(each, Fault) else len(each.spans)
            count += spans or 1
            if count > self._most:
                return [too_many(self._most)], EVENTS_AT_ONCE
            if spans:
                kept.append(each)
        return kept, count or 1

    def _columns(self, rows: _Rows) -> list[Column]:
        attributes = self._attributes.columns(rows)
        columns: list[Column] = []
        for path in self._paths:
            if path == _SCOPE_NAME:
                columns.append(rows.of_scope([scope.name or None for scope in rows.scopes]))
            else:
                columns.append(_OWN[path](rows.spans) if path in _OWN else attributes[path])
        return columns


@dataclass(slots=True)
class _Rows:
    """Spans in log order: the first of `counts` are of the first of `scopes`, and so on."""

    scopes: Sequence[Scope]
    counts: Sequence[int]
    spans: _Spans
    position: list[int]
    index: list[int]

    @classmethod
    def of(cls, scopes: Sequence[Scope], position: list[int], index: list[int]) -> _Rows:
        """All spans of these scopes."""
        spans = _Spans(chain.from_iterable(scope.spans for scope in scopes))
        return cls(scopes, [len(scope.spans) for scope in scopes], spans, position, index)

    def only(self, kept: Sequence[bool]) -> _Rows:
        """Those spans where `kept` is true. A scope may be without any then."""
        ahead = iter(kept)
        counts = [sum(islice(ahead, count)) for count in self.counts]
        position, index = list(compress(self.position, kept)), list(compress(self.index, kept))
        return _Rows(self.scopes, counts, _Spans(compress(self.spans, kept)), position, index)

    def of_scope(self, values: Iterable[object]) -> list[object]:
        """For each span the value of its scope."""
        return list(chain.from_iterable(map(repeat, values, self.counts)))


class _Filter:
    """A source's filter as far as spans can be judged before anybody looks at their attributes."""

    def __init__(self, matcher: Matcher) -> None:
        fields = matcher.fields
        self._fields = fields
        self._passes = Memo(lambda values: matcher.holds(dict(zip(fields, values, strict=True)).get))

    @classmethod
    def of(cls, where: Matcher) -> _Filter | None:
        """What has to hold for `where` to hold; None where that could be anything."""
        cases = tuple(tuple(test for test in case if test[0] in _OWN) for case in where.cases)
        return cls(Matcher(cases)) if cases and all(cases) else None

    def passes(self, spans: _Spans) -> list[bool]:
        """Whether each of them may hold."""
        if self._passes.full:
            self._passes.clear()
        return self._passes.column([_OWN[path](spans) for path in self._fields])


def format_of(
    name: str, scopes: Callable[[], FindsScopes], extra: str | None = None, needs: tuple[str, ...] = ()
) -> Format:
    """The format of spans that what `scopes` gives finds; `extra` and `needs` as a `Format` has them."""

    def reader(source: SourceConfig, paths: tuple[str, ...]) -> SpanReader:
        return SpanReader(paths, scopes(), source.most_events, source.where)

    return Format(name, reader, DEFAULTS, batch="array", extra=extra, needs=needs)


_SCOPE_NAME = "scope.name"


class _Attributes:
    """Finds attributes at paths. Keys that are no path, nor the beginning of one, are not looked at."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._parts = {path: tuple(path.split(".")) for path in paths}
        self._heads = frozenset(".".join(parts[:cut]) for parts in self._parts.values() for cut in range(1, len(parts)))
        self._wanted = self._heads.union(paths)

    def columns(self, rows: _Rows) -> Mapping[str, Column]:
        """The value at each path of each span, else of its resource; None where neither has one."""
        if not self._parts:
            return {}
        of_spans = self._picked(rows.scopes, rows.counts, map(attrgetter("attributes"), rows.spans))
        of_scopes = self._of_resources(rows.scopes)
        # Only an attribute that is itself a map makes more of a path than one look.
        if not all(_is_empty(found[head]) for found in (of_spans, of_scopes) for head in self._heads):
            of_spans, of_scopes = self._nested(of_spans), self._nested(of_scopes)
        return {path: _with_defaults(of_spans[path], of_scopes[path], rows) for path in self._parts}

    def _of_resources(self, scopes: Sequence[Scope]) -> Picked:
        """Those of each scope's resource. Each is looked through once: it may have as many attributes as scopes."""
        distinct = {id(scope.resource): scope for scope in scopes}  # ids last as long as the scopes
        several = list(distinct.values())
        found = self._picked(several, [1] * len(several), (scope.resource for scope in several))
        places = {resource: place for place, resource in enumerate(distinct)}
        return {name: [values[places[id(scope.resource)]] for scope in scopes] for name, values in found.items()}

    def _picked(self, scopes: Sequence[Scope], counts: Sequence[int], attributes: Iterator[Any]) -> Picked:
        """Of each of `attributes` those that are wanted. They are in the order of the scopes, `counts` of each."""
        picked: Picked = {name: [] for name in self._wanted}
        for pick, run in groupby(zip(scopes, counts, strict=True), key=lambda each: each[0].pick):
            found = pick(islice(attributes, sum(count for _, count in run)), self._wanted)
            for name in picked:
                picked[name] += found[name]
        return picked

    def _nested(self, found: Picked) -> Picked:
        """The values at the paths, which may lead through one of those that were found."""
        trees = [
            {name: value for name, value in zip(found, values, strict=True) if value is not None}
            for values in zip(*found.values(), strict=True)
        ]
        return {path: [lookup(tree, parts) for tree in trees] for path, parts in self._parts.items()}


def _is_empty(column: list[object]) -> bool:
    return column.count(None) == len(column)


def _with_defaults(values: list[object], defaults: list[object], rows: _Rows) -> list[object]:
    """The values of all spans, with the default of their scope where they have none."""
    if _is_empty(defaults):
        return values
    of_scopes = rows.of_scope(defaults)
    if _is_empty(values):
        return of_scopes
    return [default if value is None else value for value, default in zip(values, of_scopes, strict=True)]


# -- the fields of a span, a column at a time ----------------------------------------------------------------


class _Spans(list[Any]):
    """Spans, whose times are read once, however many fields are made of them."""

    @cached_property
    def starts(self) -> list[object]:
        """In nanoseconds, None where there is none."""
        return _nanos(list(map(_START, self)))

    @cached_property
    def ends(self) -> list[object]:
        """In nanoseconds, None where there is none."""
        return _nanos(list(map(_END, self)))


class _Enum(dict[object, str | None]):
    """Names of an enum by number or name, in any case, with or without prefix; None for what is none of them.

    `names` are in the order of the numbers, by what they are called there. Spellings that are not common are worked
    out each time: text of payloads is not to be remembered.
    """

    def __init__(self, prefix: str, names: Mapping[str, str]) -> None:
        self._prefix = prefix
        numbers: dict[object, str] = dict(enumerate(names.values()))
        self._known = {**names, **{str(number): name for number, name in numbers.items()}, "": numbers[0]}
        super().__init__({f"{prefix}{name}".upper(): each for name, each in names.items()})
        self.update(numbers)
        self[None] = numbers[0]

    def __missing__(self, written: object) -> str | None:
        return self._known.get(str(written).lower().removeprefix(self._prefix))


def _kinds(spans: Sequence[Any]) -> Column:
    return [_KINDS[kind] for kind in map(_KIND, spans)]


def _statuses(spans: Sequence[Any]) -> Column:
    return [_STATUSES[status.code if status else None] for status in map(_STATUS, spans)]


_INTERNAL = "internal"  # trace.proto: so may one assume of a kind that is not said
_KINDS = _Enum(
    "span_kind_",
    {"unspecified": _INTERNAL, _INTERNAL: _INTERNAL, **{n: n for n in ("server", "client", "producer", "consumer")}},
)
_STATUSES = _Enum("status_code_", {name: name for name in ("unset", "ok", "error")})

_KIND, _STATUS, _NAME = attrgetter("kind"), attrgetter("status"), attrgetter("name")
_START, _END = attrgetter("start_time_unix_nano"), attrgetter("end_time_unix_nano")

_DIGITS = 20
"""Of the largest time that 64 bits hold."""


def _nanos(times: Sequence[object]) -> list[object]:
    """Times as integers; None where there is none, which protobuf writes as 0. What is no number stays as it is."""
    kinds = set(map(type, times))
    if kinds == {int}:
        return [time or None for time in times]
    if kinds == {str}:
        texts = cast("Sequence[str]", times)
        if _are_digits("".join(texts)) and all(texts) and max(map(len, texts)) <= _DIGITS:
            return [time or None for time in map(int, texts)]
    return [_nano(time) for time in times]


def _are_digits(text: str) -> bool:
    return text.isascii() and text.encode().isdigit()  # of bytes that is a look at each, not at what Unicode says


def _nano(time: object) -> object:
    whole = whole_of(time)
    return None if whole == 0 and not isinstance(whole, bool) else whole


def whole_of(value: object) -> object:
    """An integer of 64 bits, which JSON may write as text or as a double; anything else as it is."""
    if isinstance(value, str) and len(value) <= _DIGITS and _are_digits(value):
        return int(value)
    number = number_of(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value if number is None else number


NO_DURATION = "between times of which one is no time"


def _durations(spans: _Spans) -> Column:
    """End minus start; a text that is no latency where either of them is no integer."""
    starts, ends = spans.starts, spans.ends
    if {*map(type, starts), *map(type, ends)} == {int}:
        return list(map(sub, cast("list[int]", ends), cast("list[int]", starts)))
    return [_duration(start, end) for start, end in zip(starts, ends, strict=True)]


def _duration(start: object, end: object) -> object:
    if type(start) is int and type(end) is int:
        return end - start
    return None if start is None or end is None else NO_DURATION


_HEX = b"0123456789abcdef"


def _ids(ids: Sequence[object], size: int) -> Column:
    """Ids of `size` bytes as lower-case hex; None where there is none, which is also written as zeros."""
    kinds, none = set(map(type, ids)), "0" * 2 * size
    if kinds == {bytes}:
        texts: Sequence[object] = [cast("bytes", each).hex() for each in ids]
    else:
        texts = ids if kinds == {str} and _are_ids(cast("Sequence[str]", ids), size) else [_id(i, size) for i in ids]
    return [None if text == none else text or None for text in texts]


def _are_ids(texts: Sequence[str], size: int) -> bool:
    return set(map(len, texts)) == {2 * size} and _is_hex("".join(texts))


def _is_hex(text: str) -> bool:
    return text.isascii() and not text.encode().translate(None, _HEX)


def _id(written: object, size: int) -> object:
    """An id as the standard wants it: from hex in any case, or base64 as protobuf's own JSON has it. Else as it is."""
    if not isinstance(written, str):
        return written.hex() if isinstance(written, bytes) else written
    text = written.lower()
    if len(text) == 2 * size and _is_hex(text):
        return text
    if len(written) == len(base64.b64encode(bytes(size))):
        try:
            decoded = base64.b64decode(written, validate=True)
        except ValueError:
            return written
        return decoded.hex() if len(decoded) == size else written
    return written


_ALL = 1 << 56
"""Of so many random numbers, `th` says how many are rejected."""
_HEX_DIGITS = 14


def _weights(spans: Sequence[Any]) -> Column:
    return [_weight(state) if state else None for state in map(_TRACE_STATE, spans)]


_TRACE_STATE = attrgetter("trace_state")


def _weight(state: object) -> object:
    """How many spans this one stands for; None where its trace state does not say, the text where nobody can tell."""
    if not isinstance(state, str) or "th:" not in state:
        return None
    for member in state.split(","):
        name, _, value = member.strip().partition("=")
        if name == "ot":
            for part in value.split(";"):
                key, _, threshold = part.partition(":")
                if key == "th":
                    return _adjusted_count(threshold)
    return None


def _adjusted_count(threshold: str) -> object:
    digits = threshold.lower()
    if not 0 < len(digits) <= _HEX_DIGITS or not _is_hex(digits):
        return f"th:{threshold}"
    accepted = _ALL - int(digits.ljust(_HEX_DIGITS, "0"), 16)
    quotient, rest = divmod(_ALL, accepted)
    return quotient + (2 * rest > accepted or (2 * rest == accepted and quotient & 1))


_OWN: Mapping[str, Callable[[_Spans], Column]] = {
    "span.name": lambda spans: [name or None for name in map(_NAME, spans)],
    "span.kind": _kinds,
    "span.status": _statuses,
    "span.start": lambda spans: spans.starts,
    "span.end": lambda spans: spans.ends,
    "span.duration": _durations,
    "span.id": lambda spans: _ids(list(map(attrgetter("span_id"), spans)), 8),
    "span.trace_id": lambda spans: _ids(list(map(attrgetter("trace_id"), spans)), 16),
    "span.weight": _weights,
}
