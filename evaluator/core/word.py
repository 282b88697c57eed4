"""Words that decisions are looked up by."""

from __future__ import annotations

from enum import StrEnum


class Word(StrEnum):
    """An enum that is hashed as the string that it is: the enum's own hash is a call of Python, for each look-up.

    Naming a member costs as much (in Python 3.11 the class of an enum has a `__getattr__`, 0.3 us). So what is asked of
    every window is a table or a set over words, and no chain of comparisons with them.
    """

    __hash__ = str.__hash__
