"""What a chaos scenario is, and what it reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple


class Size(NamedTuple):
    """How much of it: `short` is for the ordinary tests, `full` for the report. `seed` decides every choice."""

    is_full: bool
    seed: int


class Outcome(NamedTuple):
    """One row of the report.

    `faults` counts what really hit, measured where it was injected. `recovery_s` is the longest time from the end
    of a fault (or from a kill) until the partitions that it hit were evaluated again; None where it says nothing.
    `failures` are the other promises that were broken, in words; an empty list is a pass.
    """

    scenario: str
    what: str
    runs: int
    faults: int
    expected: int
    seen: int
    duplicated: int
    lost: int
    invented: int
    recovery_s: float | None
    failures: tuple[str, ...] = ()
    notes: str = ""

    @property
    def passed(self) -> bool:
        """Nothing lost, doubled or invented, every other promise kept, and the fault did happen."""
        return self.faults > 0 and not (self.duplicated or self.lost or self.invented or self.failures)


Run = Callable[[Path, Size], Awaitable[Outcome]]
"""Runs a scenario in a folder of its own; it brings its own broker where it hurts one."""


class Scenario(NamedTuple):
    """`name` is F1 to F16 of docs/exactly-once.md, with a suffix where one has several forms."""

    name: str
    what: str
    run: Run
