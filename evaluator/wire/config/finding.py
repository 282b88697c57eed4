"""What is wrong or doubtful in a rules file: a code, a place and one sentence.

Errors (`E...`) refuse the configuration, warnings (`W...`) do not. The codes are stable: people search for
them and silence them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

from evaluator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Code(StrEnum):
    """Every finding there is. A number is never used again for something else."""

    UNREADABLE = "E001"
    NOT_YAML = "E002"
    DUPLICATE_KEY = "E003"
    AMBIGUOUS = "E004"
    ODD_CHARACTER = "E005"
    TOO_LARGE = "E006"
    SHAPE = "E007"
    NOT_SUPPORTED = "E010"
    MISSING_KEY = "E011"
    UNKNOWN_KEY = "E012"
    WRONG_TYPE = "E013"
    BAD_VALUE = "E014"
    BAD_DURATION = "E015"
    BAD_RATIO = "E016"
    BAD_CONDITION = "E017"
    BAD_MATCHER = "E018"
    BAD_NAME = "E019"
    NAME_TWICE = "E020"
    UNKNOWN_REFERENCE = "E021"
    OTHER_SURFACE = "E022"
    TOPIC_TWICE = "E023"
    NOT_A_MULTIPLE = "E024"
    KEYS_EXCLUDE = "E025"
    LABEL_CLASH = "E026"
    FORGETS_TOO_SOON = "E027"
    NO_LATENCY_FIELD = "E028"
    NO_FAILED_FIELD = "E029"
    KEY_NEEDS_KEY = "E030"
    NOTHING_TO_DO = "E031"
    TAIL_SAMPLED = "E032"
    NOT_INSTALLED = "E033"
    NO_SCORE_FIELD = "E034"
    NO_DEPLOY_FIELD = "E035"
    UNOWNED = "W101"
    SURFACE_WITHOUT_ALERTS = "W102"
    WINDOW_IS_PERIOD = "W103"
    SINGLE_EVENT = "W104"
    FUTURE_BEYOND_LATENESS = "W105"
    LOOSER_THAN_OBJECTIVE = "W106"
    CONSTANT_CONDITION = "W107"
    LOOKS_LIKE_OPERATOR = "W108"
    SLO_UNMEASURED = "W109"
    WITHOUT_EFFECT = "W110"
    PASSWORD_IN_CLEAR = "W111"  # noqa: S105  # the code of a finding
    PRIVATE_LABEL = "W112"

    @property
    def severity(self) -> Literal["error", "warning"]:
        """Whether the configuration can still be used."""
        return "error" if self.value.startswith("E") else "warning"


class Place(NamedTuple):
    """Where something stands; line and column count from 1."""

    file: str
    line: int
    column: int


Path = tuple[str | int, ...]
"""Keys and list positions from the top of a rules file to a value."""


def dotted(path: Path) -> str:
    """A path as people write it: `alerts.Foo.when[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing to fix. `path` is dotted, "" where the file as a whole is meant."""

    file: str
    line: int
    column: int
    code: Code
    path: str
    message: str

    @classmethod
    def at(cls, place: Place, code: Code, path: Path, message: str) -> Finding:
        """A finding about the value or key at `path`, which stands at `place`."""
        return cls(*place, code, dotted(path), message)

    @property
    def severity(self) -> Literal["error", "warning"]:
        """`error` or `warning`."""
        return self.code.severity

    def __str__(self) -> str:
        """`FILE:14:7: error[E012] alerts.Foo.windw: unknown key`, always one line."""
        subject = f"{self.path}: " if self.path else ""
        line = f"{self.file}:{self.line}:{self.column}: {self.severity}[{self.code}] {subject}{self.message}"
        return " ".join(line.splitlines())


class Refused(ConfigError, ValueError):
    """A text of the config that is not what its place asks for. Says what was found, what was expected.

    A `ValueError` where a validator collects it, a `ConfigError` where the text came from a command line.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


_LONGEST_SHOWN = 60


def shown(value: object) -> str:
    """A value of the file for a message: kind and text, short."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {_short(getattr(value, 'text', str(value)))}"
        case str():
            return f'"{_short(value)}"'
        case list():
            return "a list"
        case _:
            return "a mapping"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def listed(names: Iterable[str]) -> str:
    """Names for a message, in order."""
    return ", ".join(names)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "window"?`, or nothing where no known name is near."""
    near = nearest(name, known)
    return f'; did you mean "{near}"?' if near is not None else ""


def guidance(name: str, known: Sequence[str], what: str) -> str:
    """`; did you mean "window"? Known keys: ...`, or without the question where no known name is near."""
    near = did_you_mean(name, known)
    return f"{near} Known {what}: {listed(known)}" if near else f"; known {what}: {listed(known)}"
