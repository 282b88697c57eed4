"""What a schema registry says, in Confluent's API, which others speak too: from its answers to schemas.

It is asked through `get`, which is somebody else's: the answer at a path, None where it says that nothing is there.

    GET /schemas/ids/ID[?format=serialized]                          {schema, schemaType, references}
    GET /subjects/SUBJECT/versions/VERSION[?format=serialized]       the same, of a reference
"""

from __future__ import annotations

import base64
import importlib
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from evaluator.wire.avro_schema import avro
from evaluator.wire.formats.json import parse
from evaluator.wire.protobuf_schema import protobuf
from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason
from evaluator.wire.schemas import none_under

if TYPE_CHECKING:
    from evaluator.wire.schemas import Decode, Paths, Schema

Answer = Mapping[str, Any]
Get = Callable[[str], Answer | None]

MOST_REFERENCES = 200
"""Schemas that one refers to, by others too. More nobody has; a registry that makes them up would never end."""

_SERIALIZED = "?format=serialized"

_WELL_KNOWN = {
    f"google/protobuf/{name}.proto": f"google.protobuf.{name}_pb2"
    for name in ("any", "api", "descriptor", "duration", "empty", "field_mask", "source_context", "struct", "timestamp",
                 "type", "wrappers")
}  # fmt: skip
"""Files that protobuf brings along, so that nobody registers them, and the modules that hold them."""


class _Gone(Exception):
    """Something that a schema needs is not there: not yet, or not on the replica that was asked."""


def schema_of(schema: int, get: Get) -> Schema | Fault:
    """What is under an id, which may be a schema that rejects everything; a fault where it is not there, or not all."""
    found = get(f"schemas/ids/{schema}")
    if found is None:
        return none_under(schema)
    try:
        return _made(schema, found, get)
    except _Gone as gone:
        return _unusable(schema, gone)
    except (ValueError, KeyError, TypeError, AttributeError) as bad:
        return _refusing(_unusable(schema, bad))


def _made(schema: int, found: Answer, get: Get) -> Schema:
    match kind := found.get("schemaType", "AVRO"):
        case "AVRO":
            return avro(found["schema"], [each["schema"] for each in _references(found, "", get)])
        case "PROTOBUF":
            return _protobuf(schema, get)
        case "JSON":
            return as_it_is
    message = f"it is of the type {kind}"
    raise ValueError(message)


def as_it_is(_: Paths) -> Decode:
    """The schema of what is JSON already: that there is one is all that counts."""
    return parse


def _unusable(schema: int, why: Exception) -> Fault:
    return Fault(Reason.UNSUPPORTED, f"schema {schema} cannot be used: {why}"[:MAX_DETAIL])


def _refusing(fault: Fault) -> Schema:
    return lambda _: lambda _: fault


def _references(found: Answer, form: str, get: Get) -> list[Answer]:
    """What a schema refers to, each with its `name`, behind what it refers to itself."""
    known: dict[str, Answer | None] = {}
    _follow(found, form, get, known)
    return [{**each, "name": name} for name, each in known.items() if each is not None]


def _follow(found: Answer, form: str, get: Get, known: dict[str, Answer | None]) -> None:
    for reference in found.get("references") or ():
        name, subject = reference["name"], urllib.parse.quote(reference["subject"], safe="")
        if name in known:
            continue
        if len(known) >= MOST_REFERENCES:
            message = f"it refers to more than {MOST_REFERENCES} others"
            raise ValueError(message)
        known[name] = None  # so that a circle ends here
        other = get(f"subjects/{subject}/versions/{int(reference['version'])}{form}")
        if other is None:
            message = f"{name}, which it refers to, is not there"
            raise _Gone(message)
        _follow(other, form, get, known)
        del known[name]
        known[name] = other


def _protobuf(schema: int, get: Get) -> Schema:
    found = get(f"schemas/ids/{schema}{_SERIALIZED}")
    if found is None:
        message = "its descriptor is not there"
        raise _Gone(message)
    files = [_file(each["name"], each["schema"]) for each in _references(found, _SERIALIZED, get)]
    files.append(_file("default", found["schema"]))
    return protobuf([*_well_known(files), *(file.SerializeToString() for file in files)])


def _file(name: str, encoded: str) -> Any:  # noqa: ANN401  # a FileDescriptorProto
    """A descriptor as the registry has it, under the name by which others import it."""
    file = importlib.import_module("google.protobuf.descriptor_pb2").FileDescriptorProto()
    try:
        file.ParseFromString(base64.b64decode(encoded))
    except importlib.import_module("google.protobuf.message").DecodeError as bad:
        message = f"{name} is no FileDescriptorProto: {bad}"
        raise ValueError(message) from None
    file.name = name
    return file


def _well_known(files: list[Any]) -> list[bytes]:
    """The files that these import and protobuf brings along, each behind what it imports itself."""
    registered = {file.name for file in files}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in _WELL_KNOWN and name not in found and name not in registered:
            file = importlib.import_module(_WELL_KNOWN[name]).DESCRIPTOR
            for imported in file.dependencies:
                add(imported.name)
            found[name] = file.serialized_pb

    for file in files:
        for name in file.dependency:
            add(name)
    return list(found.values())
