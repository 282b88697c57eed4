"""The format `otlp_json`: a record is an ExportTraceServiceRequest as JSON, many spans.

Two ways to the same spans. The *typed* way decodes into structs that name every field of the schema and allow no other.
Whatever does not fit (snake_case, a field of a later schema, broken JSON) makes the record go the *lenient* way through
plain dicts, which defines what it means. That both agree is held by tests/property/test_otlp_laws.py.

Attributes are two thirds of a request, and most of them, or of the spans that have them, nobody asks for. So they stay
the text that they are until somebody does; those that do not fit then (a map in a map) go the lenient way alone. What
msgspec skips it checks for everything but UTF-8 and nesting, so both are checked before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import compress
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from evaluator.wire.field import lookup
from evaluator.wire.formats.json import MAX_DEPTH, MISFIT, TOO_DEEP, kind_of, nested_too_deep, parse
from evaluator.wire.rejection import Fault, Reason
from evaluator.wire.span import Picked, Scope, format_of, whole_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence


class _Schema(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """A message of OTLP 1.x. Fields that nobody reads have a type all the same: an unknown one is a misfit."""


_Whole = int | str | None
"""64-bit integers are texts in protobuf's JSON; many write numbers. Enums are numbers or names."""


class _Plain(_Schema):
    """An AnyValue that holds no others."""

    string_value: str | None = None
    bool_value: bool | None = None
    int_value: _Whole = None
    double_value: int | float | str | None = None
    bytes_value: str | None = None


class _Array(_Schema):
    values: list[_Plain] | None = None


class _PlainKeyValue(_Schema):
    key: str = ""
    value: _Plain | None = None


class _Map(_Schema):
    values: list[_PlainKeyValue] | None = None


class _Any(_Plain):
    array_value: _Array | None = None
    kvlist_value: _Map | None = None


class _KeyValue(_Schema):
    key: str = ""
    value: _Any | None = None


_NULL = msgspec.Raw(b"null")
"""What is not decoded before somebody asks for it, where it is missing."""


class _Pair(_Schema):
    """A KeyValue whose value somebody may ask for."""

    key: str = ""
    value: msgspec.Raw = _NULL


class _EntityRef(_Schema):
    schema_url: str | None = None
    type: str | None = None
    id_keys: list[str] | None = None
    description_keys: list[str] | None = None


class _Resource(_Schema):
    attributes: msgspec.Raw = _NULL
    dropped_attributes_count: _Whole = None
    entity_refs: list[_EntityRef] | None = None


class _InstrumentationScope(_Schema):
    name: str | None = None
    version: str | None = None
    attributes: list[_KeyValue] | None = None
    dropped_attributes_count: _Whole = None


class _Event(_Schema):
    time_unix_nano: _Whole = None
    name: str | None = None
    attributes: list[_KeyValue] | None = None
    dropped_attributes_count: _Whole = None


class _Link(_Schema):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    attributes: list[_KeyValue] | None = None
    dropped_attributes_count: _Whole = None
    flags: _Whole = None


class _Status(_Schema):
    message: str | None = None
    code: _Whole = None


class _Span(_Schema):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    parent_span_id: str | None = None
    flags: _Whole = None
    name: str | None = None
    kind: _Whole = None
    start_time_unix_nano: _Whole = None
    end_time_unix_nano: _Whole = None
    attributes: msgspec.Raw = _NULL
    dropped_attributes_count: _Whole = None
    events: list[_Event] | None = None
    dropped_events_count: _Whole = None
    links: list[_Link] | None = None
    dropped_links_count: _Whole = None
    status: _Status | None = None


class _ScopeSpans(_Schema):
    scope: _InstrumentationScope | None = None
    spans: list[_Span] | None = None
    schema_url: str | None = None


class _ResourceSpans(_Schema):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None
    schema_url: str | None = None


class _Request(_Schema):
    resource_spans: list[_ResourceSpans] | None = None


_REQUEST = msgspec.json.Decoder(_Request).decode
_PAIRS = msgspec.json.Decoder(list[_Pair] | None).decode
_VALUE = msgspec.json.Decoder(_Any | None).decode
_KEY_VALUES = msgspec.json.Decoder(list[_KeyValue] | None).decode


def scopes_of(value: bytes) -> Iterable[Scope | Fault] | Fault:
    """The spans of a request, and what is in their place but none."""
    try:
        if not value.isascii():
            value.decode()
        return _scopes(_REQUEST(value))
    except MISFIT:
        return lenient(value)


def _scopes(request: _Request) -> Iterator[Scope | Fault]:
    """Those of a resource are looked at for their nesting when they were given: of too many, nobody asks for more."""
    for each in request.resource_spans or ():
        resource = each.resource.attributes if each.resource else _NULL
        for scope in each.scope_spans or ():
            yield Scope(resource, scope.scope and scope.scope.name, scope.spans or (), _picked)
            if _is_too_deep(list(map(_OF_SPAN, scope.spans or ())), _OUTSIDE_OF_SPAN):
                yield TOO_DEEP
        if not each.scope_spans:
            yield Scope(resource, None, (), _picked)
        if _is_too_deep([resource], _OUTSIDE_OF_RESOURCE):
            yield TOO_DEEP


_OF_SPAN = attrgetter("attributes")

_OUTSIDE_OF_RESOURCE, _OUTSIDE_OF_SPAN = 4, 7
"""Levels of the schema around attributes."""

_LEVELS = MAX_DEPTH - _OUTSIDE_OF_SPAN

_FEW = 16
"""So many are looked at one by one in the time that numpy needs for any number."""


def _is_too_deep(attributes: Sequence[msgspec.Raw], outside: int) -> bool:
    """Whether one of them is nested deeper than what is JSON here, which msgspec does not mind in what it skips."""
    return any(not _fits(each) and nested_too_deep(bytes(each), outside) for each in _bracketed(attributes))


def _bracketed(attributes: Sequence[msgspec.Raw]) -> Iterable[msgspec.Raw]:
    """Those that have as many opening brackets as nesting too deep takes, wherever they stand."""
    long = [each for each in attributes if len(each) > 2 * _LEVELS]
    if len(long) < _FEW:
        texts = map(bytes, long)
        return compress(long, [text.count(b"[") + text.count(b"{") > _LEVELS for text in texts])
    text = np.frombuffer(b"".join(long), dtype=np.uint8)
    begins = np.cumsum([0, *map(len, long[:-1])])
    # One bit is between "[" and "{", and no other character becomes either with it.
    is_opening = (text | (ord("[") ^ ord("{"))) == ord("{")
    return compress(long, np.add.reduceat(is_opening, begins, dtype=np.int32) > _LEVELS)


def _fits(attributes: msgspec.Raw) -> bool:
    """Whether they are of the types of the schema, of which none can hold much of another."""
    try:
        _KEY_VALUES(attributes)
    except MISFIT:
        return False
    return True


def _picked(attributes: Iterable[msgspec.Raw], wanted: frozenset[str]) -> Picked:
    some = list(attributes)
    picked: Picked = {name: [None] * len(some) for name in wanted}
    values = _Values()
    for number, each in enumerate(some):
        try:
            for pair in _PAIRS(each) or ():
                if pair.key in wanted:
                    picked[pair.key][number] = values[bytes(pair.value)]
        except MISFIT:
            # JSON it is, as was checked before.
            alone = _chosen([parse(bytes(each))], wanted)
            for name, (value,) in alone.items():
                picked[name][number] = value
    return picked


class _Values(dict[bytes, object]):
    """What attributes hold, by how it is written: spans that are told together have much in common."""

    def __missing__(self, written: bytes) -> object:
        value = self[written] = _plain(_VALUE(written))
        return value


def _plain(value: _Any | _Plain | None) -> object:
    """The JSON value of an attribute. A list of one is looked through, as everywhere."""
    if value is None or value.string_value is not None:
        return value and value.string_value
    if value.int_value is not None:
        return whole_of(value.int_value)
    if isinstance(value, _Any) and value.array_value is not None:
        return lookup([_plain(each) for each in value.array_value.values or ()], ())
    if isinstance(value, _Any) and value.kvlist_value is not None:
        return {each.key: _plain(each.value) for each in value.kvlist_value.values or ()}
    rest = (value.bool_value, value.double_value, value.bytes_value)
    return next((each for each in rest if each is not None), None)


# -- the lenient way -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _LooseStatus:
    code: object


@dataclass(frozen=True, slots=True)
class _LooseSpan:
    """A span whose fields hold whatever the payload has there."""

    trace_id: object
    span_id: object
    trace_state: object
    name: object
    kind: object
    start_time_unix_nano: object
    end_time_unix_nano: object
    attributes: object
    status: _LooseStatus


_OLD = {"scope_spans": "instrumentationLibrarySpans", "scope": "instrumentationLibrary"}
"""What fields were called before OTLP 1.0."""

_OTHER = ("resource_logs", "resource_metrics", "resource_profiles")


def lenient(value: bytes) -> Iterable[Scope | Fault] | Fault:
    """The same as `scopes_of`, of any JSON. Keys are in camelCase, or as in the schema, as protobuf allows."""
    payload = parse(value)
    if isinstance(payload, Fault):
        return payload
    if not isinstance(payload, dict):
        return Fault(Reason.WRONG_SHAPE, f"expected an object, found {kind_of(payload)}")
    if payload and not payload.keys() & {_camel("resource_spans"), "resource_spans"}:
        other = next((name for name in _OTHER if _get(payload, name) is not None), None)
        if other is not None:
            return Fault(Reason.UNSUPPORTED, f"{_camel(other)}: only spans are read")
        return Fault(Reason.WRONG_SHAPE, "no resourceSpans")
    return _resources(payload)


def _resources(request: Mapping[str, object]) -> Iterator[Scope | Fault]:
    for each in _objects(request, "resource_spans"):
        if isinstance(each, Fault):
            yield each
            continue
        resource = _get(_object(each, "resource"), "attributes")
        for scope in _objects(each, "scope_spans"):
            if isinstance(scope, Fault):
                yield scope
            else:
                yield from _spans(scope, resource)
        if not _get(each, "scope_spans"):
            yield Scope(resource, None, (), _chosen)


_PIECE = 1000
"""Spans of a scope are made in pieces of so many: of too many, only the first are made."""


def _spans(scope: Mapping[str, object], resource: object) -> Iterator[Scope | Fault]:
    """The spans of a scope, in pieces between those that are none; at least one, perhaps without any."""
    name, piece = _leaf(_object(scope, "scope"), "name"), list[_LooseSpan]()
    for each in map(_span, _objects(scope, "spans")):
        if isinstance(each, _LooseSpan):
            piece.append(each)
        if piece and (len(piece) == _PIECE or isinstance(each, Fault)):
            yield Scope(resource, name, piece, _chosen)
            piece = []
        if isinstance(each, Fault):
            yield each
    if piece or not _get(scope, "spans"):
        yield Scope(resource, name, piece, _chosen)


def _chosen(attributes: Iterable[object], wanted: frozenset[str]) -> Picked:
    some = list(attributes)
    picked: Picked = {name: [None] * len(some) for name in wanted}
    for number, each in enumerate(some):
        for name, value in _pairs(each):
            if name in wanted:
                picked[name][number] = _any(value)
    return picked


def _span(node: Mapping[str, object] | Fault) -> _LooseSpan | Fault:
    if isinstance(node, Fault):
        return node
    status = _get(node, "status")
    if status is not None and not isinstance(status, dict):
        return Fault(Reason.WRONG_SHAPE, f"expected an object in status, found {kind_of(status)}")
    return _LooseSpan(
        trace_id=_leaf(node, "trace_id"),
        span_id=_leaf(node, "span_id"),
        trace_state=_leaf(node, "trace_state"),
        name=_leaf(node, "name"),
        kind=_hashable(_leaf(node, "kind")),
        start_time_unix_nano=_leaf(node, "start_time_unix_nano"),
        end_time_unix_nano=_leaf(node, "end_time_unix_nano"),
        attributes=_get(node, "attributes"),
        status=_LooseStatus(_hashable(_leaf(status or {}, "code"))),
    )


def _hashable(value: object) -> object:
    return None if isinstance(value, list | dict) else value


def _pairs(attributes: object) -> Iterator[tuple[str, object]]:
    """The keys and values of a list of attributes. What is none of them is nobody's attribute."""
    for each in attributes if isinstance(attributes, list) else ():
        if isinstance(each, dict):
            key = _leaf(each, "key")
            yield key if isinstance(key, str) else "", _get(each, "value")


def _any(node: object) -> object:
    """The JSON value that an AnyValue stands for."""
    if not isinstance(node, dict):
        return None
    for name, value_of in _VALUES.items():
        found = _get(node, name)
        if found is not None:
            return value_of(found)
    return None


def _elements(node: object) -> object:
    values = _get(node, "values") if isinstance(node, dict) else None
    return lookup([_any(each) for each in values], ()) if isinstance(values, list) else []


def _members(node: object) -> object:
    values = _get(node, "values") if isinstance(node, dict) else None
    return {key: _any(each) for key, each in _pairs(values)}


def _scalar(value: object) -> object:
    return lookup(value, ())


_VALUES: Mapping[str, Callable[[object], object]] = {
    "string_value": _scalar,
    "int_value": lambda value: whole_of(_scalar(value)),
    "array_value": _elements,
    "kvlist_value": _members,
    "bool_value": _scalar,
    "double_value": _scalar,
    "bytes_value": _scalar,
}


def _objects(node: Mapping[str, object], name: str) -> Iterator[dict[str, object] | Fault]:
    """The objects of a list, and a fault for everything else that is in it, or in its place."""
    found = _get(node, name)
    for each in found if isinstance(found, list) else () if found is None else (found,):
        if isinstance(each, dict) and isinstance(found, list):
            yield each
        else:
            where, wanted = _camel(name), "an object" if isinstance(found, list) else "a list"
            yield Fault(Reason.WRONG_SHAPE, f"expected {wanted} in {where}, found {kind_of(each)}")


def _object(node: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = _get(node, name)
    return found if isinstance(found, dict) else {}


def _leaf(node: Mapping[str, object], name: str) -> object:
    return lookup(_get(node, name), ())


def _get(node: Mapping[str, object], name: str) -> object:
    """The value of a field of the schema; None where it is missing or null."""
    for key in _spellings(name):
        found = node.get(key)
        if found is not None:
            return found
    return None


@cache
def _spellings(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((_camel(name), name, _OLD.get(name, name))))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


FORMATS = (format_of("otlp_json", lambda: scopes_of),)
