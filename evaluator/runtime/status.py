"""The public status and alert records as a reader takes them in (docs/contracts.md, 2).

Whatever is missing has a default and whatever is new is ignored, so that replicas of two versions can show
each other's records. A record that is not even that is None.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeVar

import msgspec

from evaluator.core.event import EpochUs
from evaluator.wire.instant import NOT_A_TIME, instant

_GROUP = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class RuleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the rule asks for, in the words of the config."""

    when: tuple[str, ...] = ()
    window: str = ""
    every: str = ""
    consecutive: int | None = None
    m_of_n: tuple[int, int] | None = None

    @property
    def required(self) -> int:
        """How many breaches fire."""
        return self.m_of_n[0] if self.m_of_n is not None else self.consecutive or 1


class WindowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One decided window, or a run of `count` equal ones of which `until` is the last end."""

    start: str
    end: str
    verdict: str
    breached: tuple[str, ...] = ()
    values: dict[str, float | None] = {}
    estimate: tuple[str, ...] = ()
    n: int = 0
    bad: int = 0
    count: int = 1
    until: str | None = None
    deploy: str | None = None
    context: str | None = None

    @property
    def last_end(self) -> str:
        """The end of the window, or of the run."""
        return self.end if self.until is None else self.until


class Events(msgspec.Struct, frozen=True):
    """On-time events of a series by outcome."""

    good: int = 0
    bad: int = 0
    unknown: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The newest state of an alert over a series. Times are RFC 3339."""

    key: str
    alertname: str
    surface: str
    severity: str = ""
    slo: str | None = None
    labels: dict[str, str] = {}
    phase: str = "inactive"
    streak: int = 0
    required: int = 1
    starts_at: str | None = msgspec.field(default=None, name="startsAt")
    fired_at: str | None = msgspec.field(default=None, name="firedAt")
    data: str = "warming"
    windows: tuple[WindowStatus, ...] = ()
    rule: RuleStatus = RuleStatus()
    source: str = ""
    watermark: str | None = None
    updated_at: str | None = msgspec.field(default=None, name="updatedAt")
    owners: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    events: Events = Events()

    @property
    def group(self) -> dict[str, str]:
        """The `group_by` labels of the series, in the listed order; read from the key, which names them."""
        return group_of(self.key)

    @property
    def series(self) -> str:
        """The same for every alert about one series."""
        brace = self.key.find("{")
        return self.surface + (self.key[brace:] if brace >= 0 else "")


class EvidenceStatus(msgspec.Struct, frozen=True):
    """An event that proves something; latency in seconds."""

    trace_id: str = ""
    time: str = ""
    latency: float | None = None


class Evidence(msgspec.Struct, frozen=True):
    """What an alert record proves itself with."""

    failing: tuple[EvidenceStatus, ...] = ()
    slowest: tuple[EvidenceStatus, ...] = ()


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A transition as it was published."""

    id: str
    status: str
    reason: str = ""
    alertname: str
    surface: str
    severity: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    starts_at: str = msgspec.field(default="", name="startsAt")
    fired_at: str = msgspec.field(default="", name="firedAt")
    ends_at: str | None = msgspec.field(default=None, name="endsAt")
    fingerprint: str = ""
    episode: str = ""
    key: str = ""
    evidence: Evidence = Evidence()
    evaluated_late: bool = False

    @property
    def at(self) -> str:
        """The end of the window that decided it."""
        return self.ends_at or self.fired_at


_status = msgspec.json.Decoder(Status)
_alert = msgspec.json.Decoder(Alert)


def read_status(value: bytes) -> Status | None:
    """A status record; None where it is none."""
    return _read(_status, value)


def read_alert(value: bytes) -> Alert | None:
    """An alert record; None where it is none."""
    return _read(_alert, value)


_T = TypeVar("_T")


def _read(decoder: msgspec.json.Decoder[_T], value: bytes) -> _T | None:
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def group_of(key: str) -> dict[str, str]:
    """The labels within the braces of a record's key."""
    return {name: _unescaped(value) for name, value in _GROUP.findall(key.partition("{")[2])}


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], value)


@lru_cache(maxsize=1024)
def moment(text: str | None) -> EpochUs | None:
    """A time of a record; None where there is none. Remembered, because all series of a source share theirs."""
    time = instant(text, "us") if text else NOT_A_TIME
    return None if time == NOT_A_TIME else EpochUs(time)
