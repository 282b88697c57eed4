"""One table of every figure, each beside a floor that was measured in the same run.

A shared machine is twice as slow in one second as in the next. So subject and floor take turns, a ratio is taken of
each turn, and what is shown is the median of the ratios, with the smallest and the largest.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUNS = 5


@dataclass(frozen=True)
class Row:
    """A figure. `rate` and `floor_rate` are medians, in `unit` per second; `ratio` is the rate by the floor's."""

    group: str
    name: str
    unit: str
    rate: float
    floor: str
    floor_rate: float
    ratio: float
    lowest: float
    highest: float
    more: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A figure that is no rate: a delay, memory, a share."""

    group: str
    name: str
    value: float
    unit: str
    more: dict[str, float | str] = field(default_factory=dict)


def row(
    group: str, name: str, unit: str, count: int, subject: Callable[[], float], floor: tuple[str, Callable[[], float]],
    runs: int = RUNS, **more: float | str,
) -> Row:  # fmt: skip
    """A row of `count` units; `subject` and the floor return how many seconds they took."""
    what, floor_of = floor
    taken = [(subject(), floor_of()) for _ in range(runs)]
    return of_turns(group, name, unit, count, taken, what, **more)


def of_turns(
    group: str, name: str, unit: str, count: int, taken: list[tuple[float, float]], floor: str, **more: float | str
) -> Row:
    """A row of turns that were taken: the seconds of the subject and of its floor in each."""
    ratios = [base / mine for mine, base in taken]
    mine, base = (statistics.median(each) for each in zip(*taken, strict=True))
    return Row(
        group, name, unit, count / mine, floor, count / base, statistics.median(ratios), min(ratios), max(ratios), more
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    """What a piece of work takes of one core."""
    began = time.process_time()
    work()
    return time.process_time() - began


def shown(measured: list[Row | Figure]) -> str:
    """The tables, as Markdown: what has a rate and a floor, then what has not."""
    rows = [each for each in measured if isinstance(each, Row)]
    figures = [each for each in measured if isinstance(each, Figure)]
    return "\n\n".join([*([_of_rows(rows)] if rows else []), *([_of_figures(figures)] if figures else [])])


def _more(each: Row | Figure) -> str:
    more = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in each.more.items())
    return f"{each.name}{': ' if more else ''}{more}"


def _of_figures(figures: list[Figure]) -> str:
    lines = ["| | | |", "| --- | --- | ---: |"]
    lines += [f"| {each.group} | {_more(each)} | {_three_digits(each.value)} {each.unit} |" for each in figures]
    return "\n".join(lines)


def _three_digits(value: float) -> str:
    """All digits before the point where there are more, instead of an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _of_rows(rows: list[Row]) -> str:
    lines = ["| | | per second | of its floor | min - max | floor |", "| --- | --- | ---: | ---: | ---: | --- |"]
    lines += [
        f"| {each.group} | {_more(each)} | {each.rate:,.0f} {each.unit} "
        f"| {each.ratio:.2f} | {each.lowest:.2f} - {each.highest:.2f} | {each.floor}, {each.floor_rate:,.0f} |"
        for each in rows
    ]
    return "\n".join(lines)


def save(rows: list[Row | Figure], path: Path) -> None:
    """Keep what was measured, so that a later run can be compared. What a group said before goes."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    former = json.loads(path.read_text())["rows"] if path.exists() else []
    measured = {each.group for each in rows}
    kept = [each for each in former if each["group"] not in measured]
    kept += [{**asdict(each), "measured": now} for each in rows]
    about = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "rows": kept}, indent=1) + "\n")
