"""A schema registry over HTTP: Confluent's API, which others speak too. Each schema is asked for once.

A schema never changes under its id, so what was found is kept, and so is that an id is unknown: a producer registers
its schema before it writes. A registry that cannot be asked is no fault of the record: `SchemasUnavailable` sets the
partition back, and it is tried again.

    GET /schemas/ids/ID[?format=serialized]                          {schema, schemaType, references}
    GET /subjects/SUBJECT/versions/VERSION[?format=serialized]       the same, of a reference
"""

from __future__ import annotations

import base64
import http.client
import importlib
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.errors import SchemasUnavailable
from evaluator.wire.formats.json import parse
from evaluator.wire.payload_schema import avro, protobuf
from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluator.wire.config.model import RegistryConfig
    from evaluator.wire.payload_schema import Decode

TIMEOUT_S = 5.0
"""Nothing else happens while we wait, once for each schema. Longer, and the group would take us for dead."""

MOST_BYTES = 4 << 20
MOST_UNKNOWN = 10_000
"""Ids that were asked for in vain. More of them are no schemas but garbage, and it is asked again."""

_NOT_FOUND = 404
_WELL_KNOWN = "google/protobuf/"
"""Files that protobuf brings along, so that nobody registers them."""


class SchemaRegistry:
    """Finds schemas by id. Raises `SchemasUnavailable` where it cannot be asked."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._known: dict[int, Decode] = {}
        self._unknown: set[int] = set()

    def __call__(self, schema: int) -> Decode | None:
        """The schema of an id; None where the registry does not know it."""
        if schema in self._known:
            return self._known[schema]
        if schema in self._unknown:
            return None
        found = self._get(f"schemas/ids/{schema}")
        if found is None:
            if len(self._unknown) >= MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown.add(schema)
            return None
        decode = self._known[schema] = self._decoder(schema, found)
        return decode

    def _decoder(self, schema: int, found: Mapping[str, Any]) -> Decode:
        kind = found.get("schemaType", "AVRO")
        try:
            match kind:
                case "AVRO":
                    return avro(found["schema"], [each["schema"] for each in self._references(found, "").values()])
                case "PROTOBUF":
                    return self._protobuf(schema)
                case "JSON":
                    return parse
        except (ValueError, KeyError, TypeError) as bad:
            return _refusing(f"schema {schema} cannot be used: {bad}")
        return _refusing(f"schema {schema} is of the type {kind}")

    def _protobuf(self, schema: int) -> Decode:
        form = "?format=serialized"
        found = self._get(f"schemas/ids/{schema}{form}") or {}
        files = [_file(name, each["schema"]) for name, each in self._references(found, form).items()]
        files.append(_file("default", found["schema"]))
        return protobuf([*_well_known(files), *(file.SerializeToString() for file in files)])

    def _references(
        self, found: Mapping[str, Any], form: str, known: dict[str, Mapping[str, Any]] | None = None
    ) -> dict[str, Mapping[str, Any]]:
        """What a schema refers to by name, each behind what it refers to itself."""
        known = {} if known is None else known
        for reference in found.get("references") or ():
            name, subject = reference["name"], urllib.parse.quote(reference["subject"], safe="")
            if name in known:
                continue
            other = self._get(f"subjects/{subject}/versions/{int(reference['version'])}{form}")
            if other is None:
                message = f"{name}, which it refers to, is not there"
                raise ValueError(message)
            self._references(other, form, known)
            known[name] = other
        return known

    def _get(self, path: str) -> Mapping[str, Any] | None:
        url = f"{self._config.url.rstrip('/')}/{path}"
        try:
            request = urllib.request.Request(url, headers=self._headers())  # noqa: S310  # the rules allow http(s) only
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310  # as above
                found = json.loads(answer.read(MOST_BYTES))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _NOT_FOUND:
                return None
            raise SchemasUnavailable(url, f"status {error.code}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SchemasUnavailable(url, str(error) or type(error).__name__) from None
        if not isinstance(found, dict) or not isinstance(found.get("schema"), str):
            raise SchemasUnavailable(url, "it answers, but not with a schema")
        return found

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/vnd.schemaregistry.v1+json"}
        if self._config.username is None or self._config.password_file is None:
            return headers
        password = Path(self._config.password_file).read_text(encoding="utf-8").strip()
        token = base64.b64encode(f"{self._config.username}:{password}".encode()).decode()
        return {**headers, "Authorization": f"Basic {token}"}


def _refusing(why: str) -> Decode:
    fault = Fault(Reason.UNSUPPORTED, why[:MAX_DETAIL])
    return lambda _: fault


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
    """The files that these import and protobuf brings along."""
    wanted = dict.fromkeys(name for file in files for name in file.dependency if name.startswith(_WELL_KNOWN))
    modules = (importlib.import_module(f"{name.removesuffix('.proto').replace('/', '.')}_pb2") for name in wanted)
    return [module.DESCRIPTOR.serialized_pb for module in modules]
