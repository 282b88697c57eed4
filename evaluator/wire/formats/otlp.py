"""The format `otlp`: spans as JSON or as protobuf, each record by its content.

A request as protobuf begins with byte 10, the tag of its only field, which is white space in JSON; and what follows, a
length, may be the brace that JSON begins with. But then the whole of it is no JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.wire.formats import otlp_json, otlp_proto
from evaluator.wire.rejection import Fault, Reason
from evaluator.wire.span import FindsScopes, Scope, format_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_SPACE = b" \t\r\n"


def scopes_of() -> FindsScopes:
    """What finds the spans of a request in either encoding."""
    of_proto = otlp_proto.scopes_of()

    def scopes(value: bytes) -> Iterable[Scope | Fault] | Fault:
        if not value.lstrip(_SPACE).startswith(b"{"):
            return of_proto(value)
        found = otlp_json.scopes_of(value)
        if value.startswith(b"{") or not isinstance(found, Fault) or found.reason is not Reason.NOT_JSON:
            return found
        other = of_proto(value)
        return found if isinstance(other, Fault) else other

    return scopes


FORMATS = (format_of("otlp", scopes_of, extra=otlp_proto.EXTRA, needs=otlp_proto.NEEDS),)
