"""Plain scalars by the core schema of YAML 1.2, and those that YAML 1.1 reads differently.

The older reading is what most tools do, so whoever wrote `on` or `010` may have meant either.
"""

from __future__ import annotations

import re
from typing import Self


class Real(float):
    """A number with a fraction, and the text it was written as: ratios are read from the text, exactly."""

    text: str

    def __new__(cls, text: str) -> Self:
        """The number that the text writes in YAML."""
        number = super().__new__(cls, text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        number.text = text
        return number


_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,100}")
_PREFIXED = re.compile(r"0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_REAL = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)

_OLD_BOOLEAN = re.compile(r"(?:yes|Yes|YES|on|On|ON)|(?:no|No|NO|off|Off|OFF)")
_OLD_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_OLD_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_OLD_UNDERSCORES = re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?")


def resolved(text: str) -> object:
    """A plain scalar by the core schema of YAML 1.2 (section 10.3 of the specification)."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    return Real(text) if _REAL.fullmatch(text) else text


def ambiguity(text: str) -> str | None:
    """What to write instead of a plain scalar that YAML 1.1 and 1.2 read differently; None for all others."""
    if _OLD_BOOLEAN.fullmatch(text):
        boolean = "true" if text.lower() in {"yes", "on"} else "false"
        return f'{text} is a boolean to some YAML readers and text to others; write {boolean}, or "{text}" in quotes'
    if _OLD_OCTAL.fullmatch(text):
        plain = text.replace("_", "").lstrip("+-").lstrip("0") or "0"
        return f'{text} is octal to some YAML readers; write {plain}, or "{text}" in quotes'
    if _OLD_SEXAGESIMAL.fullmatch(text):
        return f'{text} is a base-60 number to some YAML readers; write a duration such as 90s, or "{text}" in quotes'
    if _OLD_UNDERSCORES.fullmatch(text):
        return f'{text} is a number to some YAML readers; write {text.replace("_", "")}, or "{text}" in quotes'
    return None
