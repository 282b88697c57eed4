"""Schemas by id, as files of a folder.

42.avsc     Avro, as JSON
43.desc     Protobuf, a FileDescriptorSet: protoc --include_imports --descriptor_set_out=43.desc order.proto
44.json     JSON Schema; the payload is JSON already, so all that counts is that there is one
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from evaluator.wire.avro_schema import avro
from evaluator.wire.config.finding import Code, Refused
from evaluator.wire.config.model import SchemaFolder
from evaluator.wire.formats.json import parse
from evaluator.wire.protobuf_schema import protobuf
from evaluator.wire.rejection import MAX_DETAIL, Fault
from evaluator.wire.schema_registry import as_it_is
from evaluator.wire.schemas import MOST_ID, Schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from evaluator.wire.schemas import Schema


def load(folder: str) -> SchemaFolder:
    """The schemas of a folder. Raises `Refused` where one cannot be used."""
    found: dict[int, Schema] = {}
    digests: dict[str, str] = {}
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError as bad:
        raise Refused(
            Code.BAD_VALUE, f"cannot read the folder {folder}: {(bad.strerror or str(bad)).lower()}"
        ) from None
    for path in paths:
        make = _KINDS.get(path.suffix)
        if make is None:
            continue
        if not _is_id(path.stem) or int(path.stem) in found:
            raise Refused(Code.BAD_VALUE, f"{path} is not named after a schema id of its own, as in 42{path.suffix}")
        try:
            content = path.read_bytes()
            digests[path.name] = hashlib.sha256(content).hexdigest()
            found[int(path.stem)] = make(content)
        except (OSError, ValueError) as bad:
            raise Refused(Code.BAD_VALUE, f"{path} is no schema that can be used: {bad}"[:MAX_DETAIL]) from None
    if not found:
        raise Refused(Code.BAD_VALUE, f"the folder {folder} holds no schemas; they are files such as 42.avsc")
    return SchemaFolder(digests, Schemas(found, is_complete=True))


def _is_id(stem: str) -> bool:
    return stem.isascii() and stem.isdigit() and int(stem) <= MOST_ID


def _descriptors(raw: bytes) -> Schema:
    schema = importlib.import_module("google.protobuf.descriptor_pb2").FileDescriptorSet
    try:
        files = schema.FromString(raw).file
    except importlib.import_module("google.protobuf.message").DecodeError as bad:
        message = f"no FileDescriptorSet: {bad}"
        raise ValueError(message) from None
    return protobuf([file.SerializeToString() for file in files])


def _json(raw: bytes) -> Schema:
    match parse(raw):
        case Fault(detail=detail):
            raise ValueError(detail)
    return as_it_is


_KINDS: Mapping[str, Callable[[bytes], Schema]] = {".avsc": avro, ".desc": _descriptors, ".json": _json}
