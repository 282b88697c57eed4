"""Matchers: which events a surface, a filter or a failure means (docs/config.md, "Matcher").

A matcher is any of several cases; a case is fields with a test each, all of which must hold. A test looks at
one JSON value, None where the field is missing or null. Tests are total: no value makes one raise.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import re2

from evaluator.wire.config.finding import Code, Refused, shown
from evaluator.wire.field import label_of
from evaluator.wire.number import Number, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Literal = str | int | float | bool


class Order(StrEnum):
    """How two numbers are compared."""

    GE = ">="
    LE = "<="
    GT = ">"
    LT = "<"


@dataclass(frozen=True, slots=True)
class Present:
    """The field is there and not null."""

    def holds(self, value: object) -> bool:
        """Whether the test holds for a JSON value, None where there is none."""
        return value is not None

    def written(self) -> object:
        """The test as configured."""
        return "*"


@dataclass(frozen=True, slots=True)
class Equals:
    """The value is this literal: numbers by value, strings only strings, booleans only booleans."""

    literal: Literal

    def holds(self, value: object) -> bool:
        """Whether the test holds for a JSON value, None where there is none."""
        return _same(self.literal, value)

    def written(self) -> object:
        """The test as configured."""
        return self.literal


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value is one of these literals."""

    literals: tuple[Literal, ...]

    def holds(self, value: object) -> bool:
        """Whether the test holds for a JSON value, None where there is none."""
        return any(_same(literal, value) for literal in self.literals)

    def written(self) -> object:
        """The test as configured."""
        return list(self.literals)


@dataclass(frozen=True, slots=True)
class Compare:
    """The value is a number, or a numeric string, on this side of the bound."""

    order: Order
    bound: Number

    def holds(self, value: object) -> bool:
        """Whether the test holds for a JSON value, None where there is none."""
        number = number_of(value)
        if number is None:
            return False
        match self.order:
            case Order.GE:
                return number >= self.bound
            case Order.LE:
                return number <= self.bound
            case Order.GT:
                return number > self.bound
            case Order.LT:
                return number < self.bound

    def written(self) -> object:
        """The test as configured."""
        return f"{self.order} {self.bound}"


@dataclass(frozen=True, slots=True)
class SameText:
    """`==` and `!=`: the same number where both are numbers, else the same text."""

    text: str
    negated: bool

    def holds(self, value: object) -> bool:
        """Whether the test holds for a JSON value, None where there is none."""
        return self._equal(value) is not self.negated

    def _equal(self, value: object) -> bool:
        if value is None:
            return False
        wanted, number = number_of(self.text), number_of(value)
        if wanted is not None and number is not None:
            return wanted == number
        return label_of(value) == self.text

    def written(self) -> object:
        """The test as configured."""
        return f"{'!=' if self.negated else '=='} {self.text}"


@dataclass(frozen=True, slots=True)
class Search:
    """`~` and `!~`: the value's text holds a match of a regular expression of RE2, which never backtracks."""

    pattern: str
    negated: bool
    compiled: Any = field(compare=False, repr=False)

    def holds(self, value: object) -> bool:
        """Whether the test holds for a JSON value, None where there is none."""
        if value is None:
            return self.negated
        # Text of payloads may hold half a surrogate pair, which plain UTF-8 cannot write.
        text = label_of(value).encode("utf-8", "surrogatepass")
        return (self.compiled.search(text) is not None) is not self.negated

    def written(self) -> object:
        """The test as configured."""
        return f"{'!~' if self.negated else '~'} {self.pattern}"


Test = Present | Equals | OneOf | Compare | SameText | Search


@dataclass(frozen=True, slots=True)
class Matcher:
    """Any of several cases, each of which is fields with a test, all of which must hold."""

    cases: tuple[tuple[tuple[str, Test], ...], ...]

    @classmethod
    def of(cls, *cases: Mapping[str, object]) -> Matcher:
        """The matcher that a rules file would write so: a mapping, or several of which any holds."""
        return cls(tuple(tuple((path, parse_test(test)) for path, test in case.items()) for case in cases))

    def and_(self, other: Matcher) -> Matcher:
        """The matcher that holds where both do."""
        return Matcher(tuple((*mine, *theirs) for mine in self.cases for theirs in other.cases))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it looks at, each once, in config order."""
        return tuple(dict.fromkeys(path for case in self.cases for path, _ in case))

    def holds(self, get: Callable[[str], object]) -> bool:
        """Whether it holds for an event whose fields `get` returns, None for a missing one."""
        return any(all(test.holds(get(path)) for path, test in case) for case in self.cases)

    def written(self) -> list[list[list[object]]]:
        """The matcher as plain data, each case in the order of its fields: what is hashed."""
        return [
            [[path, test.written()] for path, test in sorted(case, key=lambda pair: pair[0])] for case in self.cases
        ]


def _same(literal: Literal, value: object) -> bool:
    if isinstance(literal, bool) or isinstance(value, bool):
        return literal is value
    if isinstance(literal, str) or isinstance(value, str):
        return isinstance(value, str) and literal == value
    return isinstance(value, int | float) and literal == value


_OPERATION = re.compile(r"(>=|<=|>|<|==|!=|!~|~) (.*)", re.DOTALL)
_LOOKS_LIKE_ONE = re.compile(r"(>=|<=|==|!=|!~)\S|[<>]-?[0-9]|~\^")


def looks_like_operator(literal: object) -> bool:
    """Whether a literal was probably meant as an operator: `>=500`, where only `>= 500` is one."""
    return isinstance(literal, str) and _LOOKS_LIKE_ONE.match(literal) is not None


def parse_test(written: object) -> Test:
    """A test as it stands in the file: a scalar, a list of scalars, or a text with an operator. Raises `Refused`."""
    if isinstance(written, list):
        if not written:
            raise Refused(Code.BAD_MATCHER, "an empty list matches nothing; name at least one value")
        return OneOf(tuple(_literal(item) for item in written))
    if written == "*":
        return Present()
    operation = _OPERATION.fullmatch(written) if isinstance(written, str) else None
    if operation is None:
        return Equals(_literal(written))
    operator, operand = operation.groups()
    match operator:
        case "==" | "!=":
            return SameText(operand, operator == "!=")
        case "~" | "!~":
            return Search(operand, operator == "!~", _compiled(operand))
        case _:
            return Compare(Order(operator), _bound(operator, operand.strip()))


def _literal(written: object) -> Literal:
    match written:
        case None:
            raise Refused(
                Code.BAD_MATCHER,
                'expected a value to compare with, found nothing; "*" tests that the field is present, '
                '"!= x" also holds where it is missing',
            )
        case dict():
            raise Refused(
                Code.BAD_MATCHER,
                "expected a value, found a mapping; name a nested field by its dotted path, as in request.method: GET",
            )
        case list():
            raise Refused(Code.BAD_MATCHER, "expected a value, found a list in a list")
        case bool() | str() | int():
            return written
        case float() if math.isfinite(written):
            return float(written)
    raise Refused(Code.BAD_MATCHER, f"expected a value that JSON can hold, found {shown(written)}")


def _bound(operator: str, operand: str) -> Number:
    number = number_of(operand)
    if number is None or not math.isfinite(number):
        raise Refused(
            Code.BAD_MATCHER,
            f'"{operator}" compares numbers, found {shown(operand)}; expected for example {operator} 500',
        )
    return number


def _compiled(pattern: str) -> Any:  # noqa: ANN401  # re2 has no types
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as bad:
        reason = bad.args[0] if bad.args else ""
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        message = f"{shown(pattern)} is not a regular expression that RE2 knows: {reason}"
        raise Refused(Code.BAD_MATCHER, message) from None
