"""The format `otlp_proto`: a record is an ExportTraceServiceRequest as protobuf, many spans.

It is read with the schema that OpenTelemetry publishes (the extra `otlp`), which is imported when a source has the
format, not before. Of its messages one thing is changed: attributes are a map instead of a list of KeyValue. That is
the same on the wire, and saves an object of Python for each attribute that nobody asks for, half of a span's time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from evaluator.wire.as_json import as_json
from evaluator.wire.field import lookup
from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason
from evaluator.wire.span import FindsScopes, Picked, Scope, format_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MODULES = tuple(
    f"opentelemetry.proto.{name}_pb2"
    for name in ("common.v1.common", "resource.v1.resource", "trace.v1.trace", "collector.trace.v1.trace_service")
)
_REQUEST = "opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest"
_COMMON = ".opentelemetry.proto.common.v1"
_ATTRIBUTES, _ENTRY = "attributes", "AttributesEntry"

EXTRA = "otlp"
NEEDS = ("google.protobuf", *_MODULES)


def scopes_of() -> FindsScopes:
    """What finds the spans of a request. Only where `NEEDS` are there."""
    parse = _request_class().FromString
    broken = importlib.import_module("google.protobuf.message").DecodeError

    def scopes(value: bytes) -> Iterable[Scope | Fault] | Fault:
        try:
            request = parse(value)
        except broken as error:
            return Fault(Reason.WRONG_SHAPE, f"no ExportTraceServiceRequest: {error}"[:MAX_DETAIL])
        return _scopes(request)

    return scopes


def _scopes(request: Any) -> Iterator[Scope]:  # noqa: ANN401  # a request, which protobuf makes
    for each in request.resource_spans:
        resource, scopes = each.resource.attributes, each.scope_spans  # each a new object each time that it is asked
        for scope in scopes:
            yield Scope(resource, scope.scope.name, scope.spans, _picked)
        if not scopes:
            yield Scope(resource, None, (), _picked)


def _request_class() -> Any:  # noqa: ANN401  # protobuf makes it
    """The class of the request, of the published schema with maps of attributes."""
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    schema = importlib.import_module("google.protobuf.descriptor_pb2")
    for module in map(importlib.import_module, _MODULES):
        file = schema.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            _with_maps(message, f".{file.package}.{message.name}", schema.FieldDescriptorProto)
        pool.AddSerializedFile(file.SerializeToString())
    return importlib.import_module("google.protobuf.message_factory").GetMessageClass(
        pool.FindMessageTypeByName(_REQUEST)
    )


def _with_maps(message: Any, name: str, kind: Any) -> None:  # noqa: ANN401  # descriptors, which protobuf makes
    """Make the field `attributes` of a message, and of those in it, a map from key to AnyValue."""
    for inner in message.nested_type:
        _with_maps(inner, f"{name}.{inner.name}", kind)
    for field in message.field:
        if field.name == _ATTRIBUTES and field.type_name == f"{_COMMON}.KeyValue":
            entry = message.nested_type.add(name=_ENTRY)
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=kind.LABEL_OPTIONAL, type=kind.TYPE_STRING)
            value = entry.field.add(name="value", number=2, label=kind.LABEL_OPTIONAL, type=kind.TYPE_MESSAGE)
            value.type_name = f"{_COMMON}.AnyValue"
            field.type_name = f"{name}.{_ENTRY}"


def _picked(attributes: Iterable[Any], wanted: frozenset[str]) -> Picked:
    """Of each of these maps of protobuf's."""
    maps = list(attributes)
    # Most are texts or integers, and one that is not empty tells by itself that it is the one that is set.
    return {
        name: [
            ((value := each[name]).string_value or value.int_value or _plain(value)) if name in each else None
            for each in maps
        ]
        for name in wanted
    }


def _plain(value: Any) -> object:  # noqa: ANN401  # an AnyValue
    """The JSON value of an attribute. A list of one is looked through, as everywhere."""
    case = value.WhichOneof("value")
    match case:
        case "string_value" | "int_value" | "bool_value":
            plain: object = getattr(value, case)
            return plain
        case "bytes_value" | "double_value":
            return as_json(getattr(value, case))
        case "array_value":
            return lookup([_plain(each) for each in value.array_value.values], ())
        case "kvlist_value":
            return {each.key: _plain(each.value) for each in value.kvlist_value.values}
    return None  # what is an index into a table that only profiles have, and what comes later


FORMATS = (format_of("otlp_proto", scopes_of, extra=EXTRA, needs=NEEDS),)
