"""The status page as values: what a row says in words, which dot a window gets. The templates only lay it out.

Nothing here knows HTTP. All text may come from payloads; the templates escape it, always.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.condition import LATENCIES, RATIOS, Kind
from evaluator.core.event import EpochUs
from evaluator.runtime.status import Alert, WindowStatus, moment
from evaluator.runtime.view import Data, SeriesView, SourceView
from evaluator.wire.text import decimal, percent, rfc3339, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evaluator.core.condition import Condition
    from evaluator.core.rule import RuleSet
    from evaluator.runtime.intake import Rejects
    from evaluator.runtime.status import Status

ROWS_SHOWN = 500
"""More would take a browser seconds to lay out, every few seconds; the filter finds the others."""

DOTS = 24


class Dot(NamedTuple):
    """One window, or a run of equal ones: a style, a mark that is readable without colour, and words."""

    style: str
    mark: str
    title: str


class Measure(NamedTuple):
    """A condition and what the last window says to it. `fill` is the value in percent of the bar, None without one.

    The threshold stands at `TICK` percent of the bar.
    """

    name: str
    shown: str
    threshold: str
    is_breached: bool
    is_proven: bool
    fill: float | None


class Row(NamedTuple):
    """An alert over a series, in words."""

    fingerprint: str
    alertname: str
    surface: str
    group: tuple[tuple[str, str], ...]
    severity: str
    phase: str
    headline: str
    streak: str
    data: str
    data_words: str
    measures: tuple[Measure, ...]
    sample: str
    window: str
    dots: tuple[Dot, ...]
    dots_words: str
    behind: str
    owners: tuple[str, ...]


class WindowLine(NamedTuple):
    """A decided window, or a run of equal ones, in words."""

    dot: Dot
    span: str
    verdict: str
    breached: tuple[str, ...]
    values: str
    n: int
    bad: int
    length: int


class Event(NamedTuple):
    """A transition, in words."""

    fingerprint: str
    status: str
    reason: str
    name: str
    at: str
    ago: str
    title: str
    summary: str
    traces: tuple[str, ...]


class SourceLine(NamedTuple):
    """A source, in words. `behind` is empty before there is a watermark; `flag` is, where rejects are few enough."""

    name: str
    topic: str
    is_blind: bool
    behind: str
    rejected: str
    flag: str
    reason: str


TICK = 66.7

_PHASES = {"firing": "Firing", "pending": "Pending", "inactive": "Quiet"}

_STYLES = {
    "BREACH": ("breach", "×"),  # noqa: RUF001  # a cross, not the letter
    "OK": ("ok", ""),
    "NO_DATA": ("none", ""),
    "INSUFFICIENT": ("few", "~"),
    "PARTIAL": ("part", "…"),
}

VERDICT_WORDS = {
    "BREACH": "breach",
    "OK": "ok",
    "NO_DATA": "no events",
    "INSUFFICIENT": "too few events to judge",
    "PARTIAL": "not read from its beginning",
}

DATA_WORDS = {
    Data.OK: "measured",
    Data.INSUFFICIENT: "too few events to judge",
    Data.NO_DATA: "nothing happened: the last window had no events",
    Data.WARMING: "the first window is still open",
    Data.WAITING: "no events yet",
    Data.BLIND: "we cannot see",
}


def row(series: SeriesView, rules: RuleSet, now: EpochUs) -> Row:
    """The row of one alert and series."""
    status = series.status
    last = status.windows[-1] if status.windows else None
    dots = [_dot(window, now) for window in status.windows[-DOTS:]]
    if series.blind_since is not None:
        dots.append(Dot("blind", "?", f"the window that ended {when(series.blind_since, now)} is not decided yet"))
    return Row(
        fingerprint=series.fingerprint, alertname=status.alertname, surface=status.surface,
        group=tuple(status.group.items()), severity=status.severity, phase=status.phase,
        headline=_headline(status, now), streak=_streak(status), data=series.data.value,
        data_words=_data_words(series, now), measures=_measures(status, last, rules),
        sample="" if last is None or not last.n else f"{last.bad:,} of {last.n:,} failed", window=_window(status),
        dots=tuple(dots), dots_words=_strip_words(status.windows[-DOTS:]),
        behind="" if series.watermark is None else ago(now - series.watermark), owners=status.owners,
    )  # fmt: skip


def event(alert: Alert, now: EpochUs) -> Event:
    """The line of one transition."""
    at = moment(alert.at) or EpochUs(0)
    traces = tuple(failure.trace_id for failure in alert.evidence.failing if failure.trace_id)
    return Event(
        fingerprint=alert.fingerprint, status=alert.status, reason=alert.reason.replace("_", " "),
        name=alert.key or f"{alert.surface}/{alert.alertname}", at=when(at, now), ago=ago(now - at),
        title=alert.at, summary=alert.annotations.get("summary", ""), traces=traces,
    )  # fmt: skip


def window_lines(status: Status, now: EpochUs) -> list[WindowLine]:
    """The decided windows, newest first."""
    return [_line(window, now) for window in reversed(status.windows)]


def _line(window: WindowStatus, now: EpochUs) -> WindowLine:
    return WindowLine(
        dot=_dot(window, now), span=_where(window, now),
        verdict=VERDICT_WORDS.get(window.verdict, window.verdict), breached=window.breached,
        values=", ".join(_values(window)), n=window.n, bad=window.bad, length=window.count,
    )  # fmt: skip


def matching(series: Iterable[SeriesView], query: str) -> list[SeriesView]:
    """The series in which every word of the query occurs: in a name, a label, the phase, the data state, an owner."""
    words = query.lower().split()
    return [one for one in series if all(word in _haystack(one) for word in words)] if words else list(series)


def _haystack(series: SeriesView) -> str:
    status = series.status
    texts = (status.key, _PHASES.get(status.phase, ""), status.phase, series.data.value, *status.labels.values())
    return " ".join((*texts, *status.owners)).lower()


def counts(series: Iterable[SeriesView]) -> Mapping[str, int]:
    """How many there are in each phase, and how many of them are blind."""
    found = {"firing": 0, "pending": 0, "inactive": 0, "blind": 0, "waiting": 0}
    for one in series:
        found[one.status.phase] = found.get(one.status.phase, 0) + 1
        if one.data in {Data.BLIND, Data.WAITING}:
            found[one.data.value] += 1
    return found


def sections(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """Rows by phase, with the phase's name; phases without rows are left out."""
    grouped = [(phase, name, [r for r in rows if r.phase == phase]) for phase, name in _PHASES.items()]
    return [section for section in grouped if section[2]]


def source_line(source: SourceView, rules: RuleSet, limit: Fraction, now: EpochUs) -> SourceLine:
    """The line of one source; `limit` is the share of rejects above which it is flagged."""
    rejects = source.rejects
    return SourceLine(
        name=source.name, topic=rules.sources[source.name].topic, is_blind=source.is_blind,
        behind="" if source.watermark is None else ago(now - source.watermark), rejected=_rejected(rejects),
        flag=_flag(rejects, limit) if source.is_flagged else "", reason=rejects.reason or "",
    )  # fmt: skip


# -- words --------------------------------------------------------------------------------------------------


_LEAST_SHOWN = Fraction(1, 10_000)
"""What two decimals of a percentage can say."""


def _rejected(rejects: Rejects) -> str:
    """Both numbers and their ratio: 5% of twenty is one event, of a million it is an outage."""
    if rejects.ratio is None:
        return "no events to judge"
    if not rejects.rejected:
        return f"none of {rejects.events:,}"
    share = f"below {percent(_LEAST_SHOWN)}" if rejects.ratio < _LEAST_SHOWN else percent(rejects.ratio)
    return f"{rejects.rejected:,} of {rejects.events:,} ({share})"


def _flag(rejects: Rejects, limit: Fraction) -> str:
    # A limit is shown as it was set: rounded to two decimals, a small one would read as none.
    return "everything rejected" if rejects.is_everything else f"more than {decimal(limit * 100)}% rejected"


def _headline(status: Status, now: EpochUs) -> str:
    started = moment(status.fired_at if status.phase == "firing" else status.starts_at)
    if status.phase == "inactive" or started is None:
        return _PHASES.get(status.phase, status.phase)
    return f"{_PHASES.get(status.phase, status.phase)} for {ago(now - started)}"


def _streak(status: Status) -> str:
    if status.rule.m_of_n is not None:
        return f"{status.streak} of {status.required}, in the last {status.rule.m_of_n[1]}"
    return f"{min(status.streak, status.required)} of {status.required}"


def _window(status: Status) -> str:
    rule = status.rule
    return rule.window if rule.window == rule.every else f"{rule.window} every {rule.every}"


def _data_words(series: SeriesView, now: EpochUs) -> str:
    words = DATA_WORDS[series.data]
    if series.blind_since is None:
        return words
    return f"{words}: nothing decided since {when(series.blind_since, now)}"


def _dot(window: WindowStatus, now: EpochUs) -> Dot:
    style, mark = _STYLES.get(window.verdict, ("part", "…"))
    title = f"{_where(window, now)}: {VERDICT_WORDS.get(window.verdict, window.verdict)}"
    if window.count > 1:
        return Dot(f"{style} run", f"{window.count:,}", f"{title} ({window.count:,} windows)")
    details = [*_values(window), f"{window.bad:,} of {window.n:,} failed"] if window.n else []
    return Dot(style, mark, f"{title}; {', '.join(details)}" if details else title)


def _where(window: WindowStatus, now: EpochUs) -> str:
    """From when to when, and of which deploy."""
    span = _span(window.start, window.last_end, now // _DAY)
    return span if window.deploy is None else f"{window.deploy} ({window.context}), {span}"


def _values(window: WindowStatus) -> list[str]:
    return [f"{name} {_value(name, value, window)}" for name, value in window.values.items() if value is not None]


_RATIOS = frozenset(ratio.value for ratio in RATIOS | {Kind.SCORE_DROP})


@lru_cache(maxsize=4096)
def _span(start: str, end: str, today: int) -> str:
    """From when to when. Cached: series of a rule share their windows. `today` counts days."""
    now = EpochUs(today * _DAY)
    return f"{when(moment(start) or EpochUs(0), now)} to {when(moment(end) or EpochUs(0), now)}"


def _strip_words(windows: Sequence[WindowStatus]) -> str:
    """What the dots say together, for somebody who hears the page."""
    count: dict[str, int] = {}
    for window in windows:
        words = VERDICT_WORDS.get(window.verdict, window.verdict)
        count[words] = count.get(words, 0) + window.count
    return "last windows: " + (", ".join(f"{number:,} {words}" for words, number in count.items()) or "none yet")


def _measures(status: Status, last: WindowStatus | None, rules: RuleSet) -> tuple[Measure, ...]:
    rule = rules.rules.get(status.alertname)
    known = {} if rule is None else {condition.text: condition for condition in rule.conditions}
    return tuple(_measure(text, known.get(text), last) for text in status.rule.when)


def _measure(text: str, condition: Condition | None, last: WindowStatus | None) -> Measure:
    name, _, threshold = text.partition(" ")
    if condition is not None and condition.kind is Kind.SILENCE:
        name, threshold = condition.name, f"after {threshold}"
    value = None if last is None else last.values.get(name)
    if last is None or value is None:
        return Measure(name, "–", threshold, is_breached=False, is_proven=False, fill=None)  # noqa: RUF001  # a dash for nothing
    proven = last.verdict != "INSUFFICIENT"
    return Measure(name, _value(name, value, last), threshold, text in last.breached, proven, _fill(value, condition))


def _fill(value: float, condition: Condition | None) -> float | None:
    if condition is None or not condition.threshold or condition.kind is Kind.SILENCE:
        return None
    is_time = condition.kind in LATENCIES and condition.kind is not Kind.SLOW_RATIO
    threshold = float(condition.threshold) / (1e6 if is_time else 1)
    return round(min(100.0, max(0.0, value / threshold * TICK)), 1)


def _value(name: str, value: float, window: WindowStatus) -> str:
    kind = name.partition("(")[0]
    if kind in _RATIOS:
        return percent(Fraction(value))
    if kind.endswith("_count"):
        return f"{value:,.0f}"
    if kind == "last_event":
        return rfc3339(EpochUs(round(value * 1e6)))
    if kind == Kind.SCORE:
        return f"{value:.3g}"
    return ("≈ " if name in window.estimate else "") + span(value * 1e6)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400_000_000


def when(moment_us: EpochUs, now: EpochUs) -> str:
    """A time of day in UTC, with the date where that is not today's."""
    at = _EPOCH + timedelta(microseconds=moment_us)
    text = f"{at:%H:%M}" if not at.second else f"{at:%H:%M:%S}"
    if moment_us // _DAY == now // _DAY:
        return text
    return f"{at.day} {at:%b} {text}" if abs(now - moment_us) < 300 * _DAY else f"{at:%Y-%m-%d} {text}"


_UNITS = ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"))

_TWO_UNITS_BELOW = 10
"""Two hours and five minutes say something, forty-two hours and five minutes do not."""


def ago(micros: int) -> str:
    """How long ago, in the largest two units at most: `6 s`, `3 min`, `2 h 5 min`."""
    micros = max(0, micros)
    index = next((i for i, (size, _) in enumerate(_UNITS) if micros >= size), len(_UNITS) - 1)
    size, unit = _UNITS[index]
    text = f"{micros // size:,} {unit}"
    if unit in {"d", "h"} and micros < _TWO_UNITS_BELOW * size:
        below, below_unit = _UNITS[index + 1]
        rest = micros % size // below
        text += f" {rest} {below_unit}" if rest else ""
    return text


def link(url: str) -> str | None:
    """The URL if a browser may follow it: an annotation can hold anything."""
    return url if url.startswith(("http://", "https://")) else None


def stamp(moment_us: EpochUs) -> str:
    """A time in full."""
    return rfc3339(moment_us - moment_us % 1_000_000)
