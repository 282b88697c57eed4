"""What several commands say, and read, in the same way."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from evaluator.core.event import EpochUs
from evaluator.errors import UsageError
from evaluator.wire.instant import NOT_A_TIME, instant

if TYPE_CHECKING:
    from collections.abc import Mapping


class Output(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


def moment(option: str, text: str) -> EpochUs:
    """The time that an option was given. Raises `UsageError`."""
    found = instant(text, "auto")
    if found == NOT_A_TIME:
        message = f"{option} {text}: expected a time like 2026-01-28T12:00:00Z"
        raise UsageError(message)
    return EpochUs(found)


def alert_line(alert: Mapping[str, Any], status: str) -> str:
    """An alert record as one line for a person; `status` is how it is called there."""
    at = alert["endsAt"] or alert["firedAt"]
    return f"{at}  {status:<8}  {alert['severity']:<6}  {alert['annotations']['summary']}"
