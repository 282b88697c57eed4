"""What every replica shows: the newest state of each alert and series, and the last transitions.

It is fed with the public records, read back from the log, so no alert is shown that was not published; and with
what this process itself has read of the sources, which no record says. The one thing that it adds by the clock is
BLIND: a window that should have been decided long ago, and was not, because we cannot see. That changes no streak
and no record (docs/semantics.md, 6).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from evaluator.core.alert import fingerprint, key_of, labels_of
from evaluator.core.blind import overdue
from evaluator.core.event import EpochUs, SeriesKey
from evaluator.core.rule import RuleSet
from evaluator.runtime.exposition import SeriesLabels
from evaluator.runtime.intake import Intake, Rejects
from evaluator.runtime.status import Alert, RuleStatus, Status, moment, read_alert, read_status
from evaluator.wire.config.duration import parse_duration
from evaluator.wire.config.finding import Refused
from evaluator.wire.record import rule_record

if TYPE_CHECKING:
    from fractions import Fraction

    from evaluator.core.rule import Rule, Surface
    from evaluator.runtime.clock import Clock

TRANSITIONS_KEPT = 200
"""Fewer: a bad night does not fit. More: a page that nobody scrolls, and memory for nothing."""


class Data(StrEnum):
    """What we know about a series at the moment, best first."""

    OK = "ok"
    INSUFFICIENT = "insufficient"
    NO_DATA = "no_data"
    WARMING = "warming"
    WAITING = "waiting"
    """No event of the series was ever seen. Never in a record: only the view knows what is configured."""
    BLIND = "blind"


class SeriesView(NamedTuple):
    """An alert over a series, as it is to be shown now. `labels` are those of its metrics.

    `watermark` is how far its source was read, where `data` is BLIND how far the series itself was decided; None
    before all partitions were heard of. `blind_since` is the end of the first window that is overdue then.
    """

    status: Status
    fingerprint: str
    data: Data
    labels: SeriesLabels
    watermark: EpochUs | None
    blind_since: EpochUs | None = None


class SourceView(NamedTuple):
    """A source: how far it was read by event time, and how far that is behind the clock (microseconds).

    `rejects` is of what this process read lately; `is_flagged` says that they are more than is allowed.
    """

    name: str
    watermark: EpochUs | None
    behind: int | None
    is_blind: bool
    rejects: Rejects = Rejects()
    is_flagged: bool = False


class _Known(NamedTuple):
    """A record, and what can be told from it once and for all. `order` is its place on a page."""

    order: tuple[int, str]
    status: Status
    fingerprint: str
    data: Data
    labels: SeriesLabels
    watermark: EpochUs | None
    every: int | None


class Look(NamedTuple):
    """What the view holds at one moment. It costs little to take; `series` is for whoever has time, in any thread.

    `missing` stands for each rule, in case that no series of it is `known`.
    """

    known: tuple[_Known, ...]
    missing: tuple[_Known, ...]
    watermarks: Mapping[str, EpochUs]
    since: EpochUs
    rules: RuleSet
    now: EpochUs

    def series(self) -> list[SeriesView]:
        """Everything there is: firing, pending, then the rest by key. Alerts without a series yet are among it."""
        seen = {known.status.alertname for known in self.known}
        unseen = (known for known in self.missing if known.status.alertname not in seen)
        return [self._live(known) for known in sorted((*self.known, *unseen), key=_order)]

    def _live(self, known: _Known) -> SeriesView:
        """What a record says, unless a window is overdue by the clock."""
        status, read, since = known.status, self.watermarks.get(known.status.source), self.since
        if status.windows:
            watermark = known.watermark
        else:
            # Nothing was decided that would have carried a newer watermark here: the source's own is the news.
            watermark, since = read, moment(status.updated_at) or since
        late = None if known.every is None else overdue((known.every,), watermark, since, self.rules, self.now)
        if late is not None:
            return SeriesView(status, known.fingerprint, Data.BLIND, known.labels, watermark, late)
        return SeriesView(status, known.fingerprint, known.data, known.labels, read)


class View:
    """The state of everything that is configured or was published.

    `max_rejected` is the share of a source's events, 0 to 1, above which their rejection is flagged. Memory: one record
    for each alert and series that the status topic knows, `TRANSITIONS_KEPT` alerts, and the counts of an `Intake`.
    """

    def __init__(self, rules: RuleSet, clock: Clock, max_rejected: Fraction) -> None:
        self.rules = rules
        self.max_rejected = max_rejected
        self.unreadable = 0
        self.is_read = True
        """Whether what was published before is known: else that a series is unknown says nothing."""
        self._clock = clock
        self._since = clock.now()
        self._intake = Intake(rules.sources, clock)
        self._known: dict[bytes, _Known] = {}
        self._transitions: list[Alert] = []
        self._ids: set[str] = set()
        self._watermarks: dict[str, EpochUs] = {}
        self._missing = {rule.name: _unseen(rule, rules.surfaces[rule.surface]) for rule in rules.rules.values()}

    # -- what is fed ------------------------------------------------------------------------------------

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take in a status record; None: the series was forgotten. An unreadable one is counted, and no more."""
        if value is None:
            self._known.pop(key, None)
            return
        status = read_status(value)
        if status is None:
            self.unreadable += 1
            return
        known = self._known[key] = _known(status, self._every(status), self._known.get(key))
        if known.watermark is not None:
            self.observe(status.source, known.watermark)

    def alert(self, value: bytes) -> None:
        """Take in an alert record. One that was seen before changes nothing."""
        alert = read_alert(value)
        if alert is None:
            self.unreadable += 1
            return
        if alert.id in self._ids:
            return
        self._ids.add(alert.id)
        insort(self._transitions, alert, key=lambda known: moment(known.at) or 0)
        if len(self._transitions) > TRANSITIONS_KEPT:
            self._ids.discard(self._transitions.pop(0).id)

    def observe(self, source: str, watermark: EpochUs) -> None:
        """Note how far a source was read, where a process knows more than the records say yet."""
        self._watermarks[source] = max(watermark, self._watermarks.get(source, watermark))

    def count(self, tallies: Mapping[tuple[str, ...], int]) -> None:
        """Take in what the stages of this process have tallied since its start."""
        self._intake.count(tallies)

    def _every(self, status: Status) -> int | None:
        rule = self.rules.rules.get(status.alertname)
        if rule is not None:
            return rule.grid
        try:
            return parse_duration(status.rule.every) or None
        except Refused:
            return None

    # -- what is shown ----------------------------------------------------------------------------------

    def now(self) -> EpochUs:
        """The time that ages are counted to."""
        return self._clock.now()

    def look(self) -> Look:
        """Everything there is, as it is now."""
        known, missing = tuple(self._known.values()), tuple(self._missing.values())
        return Look(known, missing, dict(self._watermarks), self._since, self.rules, self.now())

    def series(self) -> list[SeriesView]:
        """The series of a look that is taken now."""
        return self.look().series()

    def find(self, wanted: str) -> SeriesView | None:
        """The alert and series with this fingerprint."""
        return next((series for series in self.series() if series.fingerprint == wanted), None)

    def transitions(self, of: str | None = None) -> list[Alert]:
        """The last transitions, newest first; `of` one fingerprint only."""
        return [alert for alert in reversed(self._transitions) if of is None or alert.fingerprint == of]

    def sources(self) -> list[SourceView]:
        """Every configured source, in config order."""
        now = self.now()
        return [self._source(name, now) for name in self.rules.sources]

    def watermark(self, source: str) -> EpochUs | None:
        """How far a source was read by event time, as the most advanced record or process says."""
        return self._watermarks.get(source)

    def _source(self, name: str, now: EpochUs) -> SourceView:
        watermark = self.watermark(name)
        blind = overdue(self.rules.grids_of(name), watermark, self._since, self.rules, now) is not None
        behind, rejects = None if watermark is None else now - watermark, self._intake.rejects(name)
        return SourceView(name, watermark, behind, blind, rejects, rejects.exceed(self.max_rejected))


_RANK = {"firing": 0, "pending": 1}
_DATA = {data.value: data for data in Data}


def _known(status: Status, every: int | None, before: _Known | None = None) -> _Known:
    order = (_RANK.get(status.phase, len(_RANK)), status.key)
    data = _DATA.get(status.data, Data.WARMING)
    # Records of a series come every second, and its labels stay: hashing and writing them is most of what this takes.
    if before is not None and _names(before.status) == _names(status):
        named, labels = before.fingerprint, before.labels
    else:
        named = fingerprint(status.labels)
        labels = SeriesLabels.of(status.alertname, status.surface, status.severity, status.group)
    return _Known(order, status, named, data, labels, moment(status.watermark), every)


def _names(status: Status) -> tuple[object, ...]:
    return status.key, status.alertname, status.surface, status.severity, status.labels


def _order(known: _Known) -> tuple[int, str]:
    return known.order


def _unseen(rule: Rule, surface: Surface) -> _Known:
    """What stands for a rule of which no series is known: nothing was ever measured."""
    series = SeriesKey(surface.name, () if rule.is_about_absence else ("",) * len(surface.group_by))
    labels = labels_of(rule, surface, series)
    status = Status(
        key=key_of(rule, surface, series).removesuffix("{}"), alertname=rule.name, surface=surface.name,
        severity=rule.severity, slo=rule.slo, labels=labels, required=rule.required, data=Data.WAITING,
        rule=msgspec.convert(rule_record(rule), RuleStatus),
        source=surface.source, owners=surface.owners, annotations=dict(rule.annotations),
    )  # fmt: skip
    return _known(status, rule.grid)
