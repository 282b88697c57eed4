"""The format `cloudevents`: CloudEvents 1.0 over Kafka, structured or binary; their data is read as `json`.

    structured   content-type application/cloudevents...    the value is the event, its data a member
    binary       headers ce_id, ce_source, ce_specversion, ce_type    the value is the data

Some producers write structured events without a content-type, so everything that is not binary is taken for one, if it
says its `specversion`. Attributes are the fields `ce.NAME`. The time is optional there: without it, the event is taken
to be of the record's timestamp.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from evaluator.wire.config.model import FieldsConfig, SourceDefaults
from evaluator.wire.dedup import is_masked
from evaluator.wire.field import lookup, text_of
from evaluator.wire.formats import Format, Read, read_within
from evaluator.wire.formats.json import MISFIT, SPACE, JsonReader, kind_of, parse, unreadable_as_json
from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason, shown

if TYPE_CHECKING:
    from evaluator.wire.column import Column
    from evaluator.wire.records import Record, Records

_PREFIX, _HEADER = "ce.", "ce_"
_TIME = "ce.time"
_EVENT_TIME = "ce.time+record"
"""Where an event does not say when it was, its record does."""
_IDENTITY = "ce.source+id"
"""An event is the same as another if both are. No attribute has a plus sign in its name."""

_REQUIRED = ("id", "source", "specversion", "type")
_VERSIONS = ("1.0", "0.3")
"""0.3 differs in how it writes binary data."""
_STRUCTURED = "application/cloudevents"
_JSON = ("", "+json")

NO_DATA = b"{}"
"""An event without data is one without fields."""

_DATA_TYPE = "datacontenttype"


def _read_of(data: bytes, attributes: Mapping[str, object]) -> bytes:
    """The data that fields are read from: none of what is said to be something else than JSON, and looks like it.

    So events of other types in the topic are no faults.
    """
    is_object = data.lstrip(SPACE).startswith(b"{")
    return data if data and (is_object or _is_json(text_of(attributes.get(_DATA_TYPE)))) else NO_DATA


def _is_json(media_type: str) -> bool:
    """Whether data of that type are JSON, as they are where none is said."""
    kind = media_type.lower().partition(";")[0].strip()
    return not kind or kind.endswith(("/json", "+json"))


class _Event(NamedTuple):
    """A CloudEvent: its attributes by name, and its data."""

    attributes: Mapping[str, object]
    data: bytes


class CloudEventsReader:
    """Reads attributes from where the event has them, and everything else from its data.

    `unit` is the one in which times are told that are numbers.
    """

    def __init__(self, paths: Sequence[str], unit: str) -> None:
        self._paths, self._unit = paths, unit
        named = (_TIME if path == _EVENT_TIME else path for path in paths)
        self._wanted = frozenset({*_REQUIRED, _DATA_TYPE, *(path.removeprefix(_PREFIX) for path in named)})
        self._data = JsonReader([path for path in paths if not path.startswith(_PREFIX)], "one")

    def __call__(self, values: Sequence[bytes], records: Records) -> Read:
        """Read the events of the records, one each."""
        events = [_event(value, record, self._wanted) for value, record in zip(values, records, strict=True)]
        data = [event if isinstance(event, Fault) else event.data for event in events]
        read = read_within(self._data, data, records)
        of_data = iter(read.columns)
        stamps: list[int] = records.timestamps.tolist()
        found = [(events[position], stamps[position]) for position in read.position or ()]
        read.columns = [
            self._attribute_column(path, found) if path.startswith(_PREFIX) else next(of_data) for path in self._paths
        ]
        read.kinds = None
        return read

    def _attribute_column(self, path: str, found: Sequence[tuple[_Event | Fault, int]]) -> Column:
        events = [(event.attributes, stamp) for event, stamp in found if isinstance(event, _Event)]
        if path == _IDENTITY:
            return [_identity(attributes) for attributes, _ in events]
        if path == _EVENT_TIME:
            return [_time(attributes.get("time"), stamp, self._unit) for attributes, stamp in events]
        name = path.removeprefix(_PREFIX)
        return [attributes.get(name) for attributes, _ in events]


def _time(own: object, stamp: int, unit: str) -> object:
    """When an event says that it was, else when its record does (`stamp`, milliseconds), in the unit of the source."""
    if own is not None:
        return own
    return None if stamp <= 0 else stamp / 1000 if unit == "s" else stamp * _PER_MS.get(unit, 1)


_PER_MS = {"us": 1000, "ns": 1_000_000}


def _identity(attributes: Mapping[str, object]) -> str | None:
    """The same text for the same source and id only, however long they are: ids are cut where they enter."""
    source, of_source = text_of(attributes["source"]), text_of(attributes["id"])
    if is_masked(of_source):
        return None
    both = f"{len(source)} {source}{of_source}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(both, digest_size=16).hexdigest()


def _event(value: bytes, record: Record, wanted: frozenset[str]) -> _Event | Fault:
    """The event of a record, with the attributes that are wanted and those that it has to have."""
    headers = {name.lower(): text.decode("utf-8", "replace") for name, text in record.headers if text is not None}
    kind = headers.get("content-type", "").lower().partition(";")[0].strip()
    if kind.startswith(_STRUCTURED):
        if kind.removeprefix(_STRUCTURED) not in _JSON:
            return Fault(Reason.UNSUPPORTED, f"only single events as JSON are read, no {kind}"[:MAX_DETAIL])
        return _structured(value, wanted)
    if all(f"{_HEADER}{name}" in headers for name in _REQUIRED):
        attributes = {name.removeprefix(_HEADER): text for name, text in headers.items() if name.startswith(_HEADER)}
        if "content-type" in headers:
            attributes.setdefault(_DATA_TYPE, headers["content-type"])
        return _other_version(attributes) or _Event(attributes, _read_of(value, attributes))
    return _structured(value, wanted)


def _other_version(attributes: Mapping[str, object]) -> Fault | None:
    version = attributes["specversion"]
    if version in _VERSIONS:
        return None
    return Fault(Reason.UNSUPPORTED, f"CloudEvents {shown(version)}; read are {' and '.join(_VERSIONS)}")


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SCALAR = msgspec.json.Decoder(str | int | float | bool | None)


def _structured(value: bytes, wanted: frozenset[str]) -> _Event | Fault:
    unreadable = unreadable_as_json(value)
    if unreadable is not None:
        return unreadable
    try:
        members = _MEMBERS.decode(value)
    except MISFIT:
        payload = parse(value)
        return payload if isinstance(payload, Fault) else _no_event(f"found {kind_of(payload)}")
    data, encoded = members.pop("data", None), members.pop("data_base64", None)
    attributes = {name: _attribute(raw) for name, raw in members.items() if name in wanted}
    missing = next((name for name in _REQUIRED if attributes.get(name) is None), None)
    if missing is not None:
        return _no_event(f"{missing} is missing")
    if attributes["specversion"] == "0.3" and data is not None and _says_base64(members, data):
        data, encoded = None, data
    return _other_version(attributes) or _with_data(attributes, None if data is None else bytes(data), encoded)


def _says_base64(members: Mapping[str, msgspec.Raw], data: msgspec.Raw) -> bool:
    """Whether data of 0.3 are a text of base64. Later versions have `data_base64` for it, and no such attribute."""
    encoding = members.get("datacontentencoding")
    return bytes(data).startswith(b'"') and encoding is not None and text_of(_attribute(encoding)).lower() == "base64"


def _no_event(why: str) -> Fault:
    return Fault(Reason.WRONG_SHAPE, f"expected a CloudEvent: {why}")


def _attribute(raw: msgspec.Raw) -> object:
    try:
        return _SCALAR.decode(raw)
    except MISFIT:
        value = parse(bytes(raw))
    return None if isinstance(value, Fault) else lookup(value, ())


def _with_data(attributes: Mapping[str, object], data: bytes | None, encoded: msgspec.Raw | None) -> _Event | Fault:
    if data is not None and data != b"null":
        return _Event(attributes, _read_of(data, attributes))
    text = None if encoded is None else parse(bytes(encoded))
    if text is None:
        return _Event(attributes, NO_DATA)
    if isinstance(text, str) and text.isascii():
        try:
            return _Event(attributes, _read_of(base64.b64decode(text, validate=True), attributes))
        except ValueError:
            pass
    return Fault(Reason.WRONG_SHAPE, "data_base64 is no base64")


FORMATS = (
    Format(
        "cloudevents",
        lambda source, paths: CloudEventsReader(paths, source.fields.time_unit),
        SourceDefaults(FieldsConfig(time=_EVENT_TIME, trace_id="ce.id", id=_IDENTITY)),
        batch="one",
    ),
)
