"""The format `registry`: Confluent's wire format, a schema id and what is of that schema; its object is read as `json`.

byte 0    zero
1 to 4    the schema id, the highest byte first
5 ...     Avro, Protobuf (behind the numbers of its message in the file) or JSON

The schemas are those of the source, from a folder or from a registry; it reads what names one that is known. Of a
payload it may be that only what is asked for is looked at. So a trace id, for which a source may ask later, is always
looked at: then it is there, and nothing is wrong with it, in every record that was good without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.wire.as_json import as_json
from evaluator.wire.formats import Format, Reader, Row, reading_each
from evaluator.wire.formats.json import row_of
from evaluator.wire.rejection import Fault, Reason
from evaluator.wire.schemas import MOST_ID, Schemas, none_under

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.wire.config.model import SourceConfig

_MAGIC = 0
_HEADER = 5


def _named(value: bytes) -> int | None:
    """The id of the schema that a value names; None where it names none."""
    schema = _id_in(value)
    return None if schema is None or schema > MOST_ID else schema


def _id_in(value: bytes) -> int | None:
    if len(value) < _HEADER or value[0] != _MAGIC:
        return None
    return int.from_bytes(value[1:_HEADER], "big")


def _reader(source: SourceConfig, paths: tuple[str, ...]) -> Reader:
    schemas = Schemas(is_complete=True) if source.schemas is None else source.schemas.known
    parts = tuple(tuple(path.split(".")) for path in paths)
    trace_id = source.fields.trace_id
    looked_at = parts if trace_id is None else tuple(dict.fromkeys((*parts, tuple(trace_id.split(".")))))

    def event(value: bytes) -> Sequence[Row | Fault]:
        schema = _id_in(value)
        if schema is None:
            return [Fault(Reason.WRONG_SHAPE, "it does not begin with a zero and the id of a schema")]
        found = none_under(schema) if schema > MOST_ID else schemas.find(schema)
        if isinstance(found, Fault):
            return [found]
        payload = found(looked_at)(value[_HEADER:])
        row = payload if isinstance(payload, Fault) else row_of(payload, parts)
        return [row if isinstance(row, Fault) else tuple(map(as_json, row))]

    return reading_each(len(paths), event)


FORMATS = (
    Format(
        "registry",
        _reader,
        batch="one",
        extra="registry",
        needs=("fastavro", "google.protobuf"),
        schema_of=_named,
    ),
)
