"""The texts that keys of a rules file take, each as a type with its parser and its JSON Schema.

Every parser raises `Refused`, whose message says what was expected and what was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

from pydantic_core import PydanticCustomError, core_schema

from evaluator.core.condition import Condition
from evaluator.core.event import SECOND, DurationUs
from evaluator.wire.config.duration import DURATION_PATTERN, parse_duration
from evaluator.wire.config.expression import CONDITION_PATTERN, parse_condition, parse_sli
from evaluator.wire.config.finding import Code, Refused, shown
from evaluator.wire.config.matcher import Test, parse_test
from evaluator.wire.config.ratio import RATIO_PATTERN, parse_objective

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

MOST = 10**9
"""The largest count that a key takes: far above any use, and safe in 64 bits with everything it meets."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """How the text of a key becomes its value, and what JSON Schema says of the text.

    Compared by identity: `typing` wants annotations that can be hashed.
    """

    parse: Callable[[Any], object]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Parse, and put a refusal in the form that pydantic collects."""
        parse = self.parse

        def validate(written: object) -> object:
            try:
                return parse(written)
            except Refused as bad:
                facts = {"code": bad.code, "message": str(bad)}
                raise PydanticCustomError("refused", "{message}", facts) from None  # noqa: EM101  # its type, no message

        return core_schema.no_info_plain_validator_function(validate)

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema as given."""
        return dict(self.schema)


def _text(written: object) -> str:
    if not isinstance(written, str):
        hint = "; put it in quotes" if isinstance(written, bool | int | float) else ""
        raise Refused(Code.WRONG_TYPE, f"expected text, found {shown(written)}{hint}")
    if not written:
        raise Refused(Code.BAD_VALUE, "expected text, found an empty one; leave the key out instead")
    return written


def _maybe_empty(written: object) -> str:
    return "" if written == "" else _text(written)


def _matching(pattern: str, what: str) -> Callable[[object], str]:
    grammar = re.compile(pattern)

    def parse(written: object) -> str:
        text = _text(written)
        if grammar.fullmatch(text) is None:
            raise Refused(Code.BAD_NAME, f"{shown(text)} is not {what}")
        return text

    return parse


def _field(written: object) -> str:
    if not isinstance(written, str):
        raise Refused(Code.WRONG_TYPE, f"expected a field such as status_code or metadata.id, found {shown(written)}")
    if not written or written != written.strip() or written == "header:":
        message = f"{shown(written)} is not a field; expected a dotted path, header:NAME, key or record.timestamp"
        raise Refused(Code.BAD_NAME, message)
    return written


def _url(written: object) -> str:
    """Not shown where it is wrong: it may hold a password."""
    if not isinstance(written, str) or re.fullmatch(URL_PATTERN, written) is None:
        message = "expected an address such as https://registry:8081; a name and a password have keys of their own"
        raise Refused(Code.BAD_VALUE, message)
    return written


def _whole_seconds(written: object) -> DurationUs:
    duration = parse_duration(written)
    if duration < SECOND or duration % SECOND:
        raise Refused(Code.BAD_DURATION, f"expected whole seconds, at least 1s, found {shown(written)}")
    return duration


def _window(written: object) -> DurationUs | None:
    """None: the events of a deploy."""
    return None if written == "deploy" else _whole_seconds(written)


def _positive(written: object) -> DurationUs:
    duration = parse_duration(written)
    if duration == 0:
        raise Refused(Code.BAD_DURATION, f"expected a duration above zero, found {shown(written)}")
    return duration


_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _size(written: object) -> int:
    match = _SIZE.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        message = f"expected a size such as 4MiB (B, KiB, MiB or GiB), found {shown(written)}"
        raise Refused(Code.BAD_VALUE, message)
    size = int(match.group(1)) * _BYTES[match.group(2)]
    if not 0 < size <= _BYTES["GiB"]:
        raise Refused(Code.BAD_VALUE, f"expected a size from 1B to 1GiB, found {shown(written)}")
    return size


def _count(least: int) -> Callable[[object], int]:
    def parse(written: object) -> int:
        if not isinstance(written, int) or isinstance(written, bool):
            raise Refused(Code.WRONG_TYPE, f"expected a whole number, found {shown(written)}")
        if not least <= written <= MOST:
            raise Refused(Code.BAD_VALUE, f"expected a whole number from {least} to {MOST}, found {written}")
        return written

    return parse


def _m_of_n(written: object) -> tuple[int, int]:
    match written:
        case [int() as m, int() as n] if 1 <= m <= n <= MOST and not isinstance(m, bool):
            return m, n
        case [int() as m, int() as n]:
            found = f"[{m}, {n}]"
        case _:
            found = shown(written)
    raise Refused(Code.BAD_VALUE, f"expected [M, N] with 1 <= M <= N, as in [3, 5], found {found}")


def _version(written: object) -> int:
    if written != 1 or isinstance(written, bool):
        raise Refused(Code.BAD_VALUE, f"this program reads version 1 of the rules, found {shown(written)}")
    return 1


NAME_PATTERN = "[A-Za-z0-9_.-]+"
SOURCE_PATTERN = "[a-z0-9-]+"
TOPIC_PATTERN = r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}"
URL_PATTERN = "https?://[^\\s/@][^\\s@]*"
LABEL_PATTERN = "[a-zA-Z_][a-zA-Z0-9_]*"

_TEXT = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": DURATION_PATTERN}
_SCALAR = {"type": ["string", "number", "boolean"]}


def _whole(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$"}


def _whole_number(least: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": MOST}


Name = Annotated[str, Written(_matching(NAME_PATTERN, "a name; use letters, digits, _ . -"), _whole(NAME_PATTERN))]
SourceName = Annotated[
    str, Written(_matching(SOURCE_PATTERN, "a source's name; use a-z, 0-9 and -"), _whole(SOURCE_PATTERN))
]
Topic = Annotated[
    str, Written(_matching(TOPIC_PATTERN, "a topic; Kafka allows letters, digits, . _ -"), _whole(TOPIC_PATTERN))
]
Url = Annotated[
    str,
    Written(_url, _whole(URL_PATTERN)),
]
LabelName = Annotated[
    str,
    Written(
        _matching(LABEL_PATTERN, "a label's name; use letters, digits and _, no digit first"), _whole(LABEL_PATTERN)
    ),
]
LabelValue = Annotated[str, Written(_maybe_empty, {"type": "string"})]
Text = Annotated[str, Written(_text, _TEXT)]
FieldPath = Annotated[str, Written(_field, _TEXT)]
Duration = Annotated[DurationUs, Written(parse_duration, _DURATION)]
PositiveDuration = Annotated[DurationUs, Written(_positive, _DURATION)]
Seconds = Annotated[DurationUs, Written(_whole_seconds, _DURATION)]
Window = Annotated[DurationUs | None, Written(_window, {"anyOf": [{"const": "deploy"}, _DURATION]})]
Size = Annotated[int, Written(_size, {"type": "string", "pattern": "^[0-9]{1,12}(B|KiB|MiB|GiB)$"})]
Natural = Annotated[int, Written(_count(0), _whole_number(0))]
Positive = Annotated[int, Written(_count(1), _whole_number(1))]
MOfN = Annotated[
    tuple[int, int],
    Written(_m_of_n, {"type": "array", "items": _whole_number(1), "minItems": 2, "maxItems": 2}),
]
Version = Annotated[int, Written(_version, {"const": 1})]
Objective = Annotated[
    Fraction, Written(parse_objective, {"anyOf": [{"type": "string", "pattern": RATIO_PATTERN}, {"type": "number"}]})
]
Sli = Annotated[
    DurationUs | None,
    Written(parse_sli, {"type": "string", "pattern": "^(availability| *latency *<= *[0-9]+[0-9a-z]+ *)$"}),
]
When = Annotated[Condition, Written(parse_condition, {"type": "string", "pattern": CONDITION_PATTERN})]
FieldTest = Annotated[
    Test, Written(parse_test, {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1}]})
]
