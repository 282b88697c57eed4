"""The format `registry`: Confluent's wire format, a schema id and what is of that schema; its object is read as `json`.

byte 0    zero
1 to 4    the schema id, the highest byte first
5 ...     Avro, Protobuf (behind the numbers of its message in the file) or JSON

Schemas come from a folder, or from a registry, which is asked when a record names one for the first time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.wire import payload_schema, schema_files
from evaluator.wire.config.model import RegistryConfig
from evaluator.wire.formats import Format, Read, Reader, Row, read_each
from evaluator.wire.formats.json import row_of
from evaluator.wire.rejection import Fault, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.wire.config.model import SourceConfig
    from evaluator.wire.payload_schema import Schemas
    from evaluator.wire.records import Records

_MAGIC = 0
_HEADER = 5


def _schemas_of(source: SourceConfig) -> Schemas:
    if isinstance(source.schemas, RegistryConfig):
        from evaluator.wire.schema_registry import SchemaRegistry  # noqa: PLC0415  # its urllib takes 40 ms to import

        return SchemaRegistry(source.schemas)
    return schema_files.load(source.schemas or "").get


def _reader(source: SourceConfig, paths: tuple[str, ...]) -> Reader:
    find = _schemas_of(source)
    parts = [tuple(path.split(".")) for path in paths]

    def event(value: bytes) -> Sequence[Row | Fault]:
        if len(value) < _HEADER or value[0] != _MAGIC:
            return [Fault(Reason.WRONG_SHAPE, "it does not begin with a zero and the id of a schema")]
        schema = int.from_bytes(value[1:_HEADER], "big")
        decode = find(schema)
        if decode is None:
            return [Fault(Reason.UNSUPPORTED, f"there is no schema {schema}")]
        payload = decode(value[_HEADER:])
        row = payload if isinstance(payload, Fault) else row_of(payload, parts)
        return [row if isinstance(row, Fault) else tuple(map(payload_schema.plain, row))]

    def read(values: Sequence[bytes], records: Records) -> Read:  # noqa: ARG001  # a Reader
        return read_each(values, len(paths), event)

    return read


FORMATS = (Format("registry", _reader, batch="one", extra=payload_schema.EXTRA, needs=payload_schema.NEEDS),)
