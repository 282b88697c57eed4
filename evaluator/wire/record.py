"""The public JSON records: alert, status and verdict (docs/contracts.md, 2).

Key order is the schema's. Values are exact rationals rounded at 6 decimals and written without exponent, so
two processes that decided the same write the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from evaluator.core.alert import WINDOWS_SHOWN, Transition, group_labels, key_of, labels_of
from evaluator.core.condition import Kind, Op
from evaluator.core.event import NO_LATENCY, SECOND, EpochUs
from evaluator.core.streak import Reason
from evaluator.core.verdict import Effect, Verdict
from evaluator.wire.config.duration import format_duration
from evaluator.wire.text import decimal, percent, quotient, rfc3339, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.core.condition import Condition
    from evaluator.core.decide import Progress
    from evaluator.core.event import SeriesKey
    from evaluator.core.pane import Evidence
    from evaluator.core.rule import Rule, Surface
    from evaluator.core.snapshot import KnownRule, SourceState, Totals
    from evaluator.core.verdict import Value, Window


class Input(NamedTuple):
    """A range of offsets of one source partition that an alert was computed from."""

    topic: str
    partition: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who writes the records: what appears in every one of them."""

    app_id: str
    config: str
    version: str
    external_url: str


def alert_record(
    transition: Transition, publisher: Publisher, inputs: Sequence[Input], *, late: bool
) -> dict[str, Any]:
    """The alert record of a transition, ready for `dumps`."""
    rule, surface = transition.rule, transition.surface
    resolved = transition.status == "resolved"
    fingerprint = transition.fingerprint
    return {
        "id": transition.id,
        "status": transition.status,
        "reason": transition.reason.value,
        "alertname": rule.name,
        "surface": surface.name,
        "slo": rule.slo,
        "severity": rule.severity,
        "labels": dict(sorted(transition.labels.items())),
        "annotations": {"summary": summary(transition), **rule.annotations},
        "startsAt": rfc3339(transition.starts_at),
        "firedAt": rfc3339(transition.fired_at),
        "endsAt": rfc3339(transition.at) if resolved else None,
        "generatorURL": f"{publisher.external_url}/alerts/{fingerprint}",
        "fingerprint": fingerprint,
        "episode": transition.episode,
        "key": transition.key,
        "rule": rule_record(rule),
        "windows": list(map(_window_json, transition.windows[-WINDOWS_SHOWN:])),
        "owners": list(surface.owners),
        "owner_source": surface.owner_source,
        "evidence": {
            "failing": [evidence_record(event) for event in transition.failing],
            "slowest": [evidence_record(event) for event in transition.slowest],
        },
        "budget": None,
        "provenance": {
            "config": publisher.config,
            "version": publisher.version,
            "inputs": [{"topic": i.topic, "partition": i.partition, "from": i.begin, "to": i.end} for i in inputs],
        },
        "evaluated_late": late,
    }


def alert_headers(transition: Transition, publisher: Publisher) -> tuple[tuple[str, bytes], ...]:
    """The CloudEvents 1.0 headers (binary mode) of an alert record."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": transition.id,
        "ce_type": f"dev.slo-evaluator.alert.{transition.status}.v1",
        "ce_source": f"/evaluator/{publisher.app_id}",
        "ce_subject": transition.key,
        "ce_time": rfc3339(transition.at),
        "ce_partitionkey": transition.key,
        "content-type": "application/json",
    }
    return tuple((name, value.encode("utf-8", "replace")) for name, value in headers.items())


def status_record(
    known: KnownRule, series: SeriesKey, progress: Progress, totals: Totals, source: SourceState, now: EpochUs
) -> dict[str, Any]:
    """The newest state of an alert and series, ready for `dumps`."""
    rule, surface, streak = known.rule, known.surface, progress.streak
    return {
        "key": key_of(rule, surface, series),
        "alertname": rule.name,
        "surface": surface.name,
        "slo": rule.slo,
        "severity": rule.severity,
        "labels": dict(sorted(labels_of(rule, surface, series).items())),
        "groups": group_labels(surface, series),
        "phase": streak.phase.value,
        "streak": streak.breaches,
        "required": rule.required,
        "startsAt": _moment(streak.starts_at),
        "firedAt": _moment(streak.fired_at),
        "data": _DATA[progress.windows[-1].verdict] if progress.windows else "warming",
        "windows": list(map(_window_json, progress.windows)),
        "budget": None,
        "rule": rule_record(rule),
        "source": surface.source,
        "watermark": rfc3339(source.time.watermark) if source.time.watermark >= 0 else None,
        "updatedAt": rfc3339(now),
        "owners": list(surface.owners),
        "annotations": dict(rule.annotations),
        "events": {"good": totals.good, "bad": totals.bad, "unknown": totals.unknown},
    }


_DATA = {
    Verdict.BREACH: "ok",
    Verdict.OK: "ok",
    Verdict.NO_DATA: "no_data",
    Verdict.INSUFFICIENT: "insufficient",
}


def verdict_record(rule: Rule, surface: Surface, series: SeriesKey, window: Window) -> dict[str, Any]:
    """One decided window, or a run of equal ones, ready for `dumps`."""
    return {
        "key": key_of(rule, surface, series),
        "alertname": rule.name,
        "surface": surface.name,
        "labels": dict(sorted(labels_of(rule, surface, series).items())),
        **window_record(window),
        "held": window.effect is Effect.HELD or window.effect is Effect.SHOWN,
    }


def rule_record(rule: Rule) -> dict[str, Any]:
    """What a rule asks for, in the words of the config."""
    count: dict[str, Any] = (
        {"consecutive": rule.required} if rule.among is None else {"m_of_n": [rule.required, rule.among]}
    )
    when = [condition.text for condition in rule.conditions]
    deploys = rule.deploys
    if deploys is None:
        return {"when": when, "window": format_duration(rule.window), "every": format_duration(rule.every), **count}
    runs = {} if deploys.runs is None else {"runs": deploys.runs}
    ends = {**runs, "settle": format_duration(deploys.settle), "contexts": list(deploys.contexts)}
    return {"when": when, "window": "deploy", "every": "deploy", **count, **ends}


@lru_cache(maxsize=4096)
def _window_json(window: Window) -> orjson.Fragment:
    """A decided window as JSON. Remembered, because a status record shows the same windows again with each new one.

    Room for 170 alerts over series of 24 windows each, 4 MB; of more than that each takes 0.2 ms instead of 0.02.
    """
    # orjson leaves room for more behind what it has written: the copy is a small part of it.
    return orjson.Fragment(bytes(memoryview(dumps(window_record(window)))))


def window_record(window: Window) -> dict[str, Any]:
    """A decided window; a run of equal ones says how many and until when."""
    record: dict[str, Any] = {
        "start": rfc3339(window.start),
        "end": rfc3339(window.end),
        "verdict": window.verdict.value,
        "breached": list(window.breached),
        "values": {value.name: _shown(value) for value in window.values},
        "estimate": [value.name for value in window.values if value.is_estimate],
        "n": window.n,
        "bad": window.bad,
    }
    if window.deploy is not None:
        record |= {"deploy": window.deploy, "context": window.context}
    if window.length > 1:
        record |= {"count": window.length, "until": rfc3339(window.last_end)}
    return record


def evidence_record(event: Evidence) -> dict[str, Any]:
    """One event that proves something; its latency in seconds."""
    latency = None if event.latency == NO_LATENCY else _number(event.latency, 1_000_000)
    return {"trace_id": event.trace_id, "time": rfc3339(event.time), "latency": latency}


def dumps(record: dict[str, Any]) -> bytes:
    """The JSON of a record."""
    return orjson.dumps(record)


def _shown(value: Value) -> orjson.Fragment | None:
    whole = value.whole
    return None if whole is None else _number(whole, value.denominator * (1_000_000 if value.is_latency else 1))


def _number(numerator: int, denominator: int) -> orjson.Fragment:
    # A fragment, because orjson would write 0.000001 with an exponent.
    return orjson.Fragment(quotient(numerator, denominator).encode())


def _moment(moment: EpochUs | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def summary(transition: Transition) -> str:
    """One line for a person: what is wrong, by how much, for how long, or that it is over."""
    rule, name = transition.rule, transition.key.partition("/")[2].partition("{")[2]
    where = transition.surface.name + (f" {{{name}" if name else "")
    match transition.reason:
        case Reason.BREACHED:
            return f"{where}: {_breach(transition)}"
        case Reason.BLIND:
            overdue = f"the window that ended {rfc3339(transition.starts_at)} is overdue by more than"
            return f"{where}: cannot see, {overdue} {format_duration(rule.window)}"
        case Reason.RECOVERED:
            # Runs come at any microsecond, and groups of several contexts in any order.
            seconds = max(0, transition.at - transition.starts_at) // SECOND
            return f"{where}: {rule.name} recovered after {format_duration(seconds * SECOND)}"
        case Reason.EXPIRED:
            return f"{where}: {rule.name} expired, its events stopped"
        case Reason.RULE_REMOVED | Reason.RULE_CHANGED:
            return f"{where}: {rule.name} resolved because the rule was {transition.reason.value[5:]}"


def _breach(transition: Transition) -> str:
    rule, window = transition.rule, transition.windows[-1]
    if rule.is_about_absence:
        return _absence(rule, window)
    by_text = {condition.text: condition for condition in rule.conditions}
    values = {value.name: value for value in window.values}
    texts = [_comparison(by_text[text], values[by_text[text].name]) for text in window.breached] or ["no data"]
    one, many = f"in a {format_duration(rule.window)} window", f"{format_duration(rule.window)} windows"
    if rule.deploys is not None:
        one, many = f"in deploy {window.deploy}", f"deploys, {window.deploy} the last"
    if rule.among is not None:
        one = f"in {rule.required} of {rule.among} {many}"
    elif rule.required > 1:
        one = f"in {rule.required} consecutive {many}"
    return f"{' and '.join(texts)} {one} ({window.bad} of {window.n} failed in the last)"


def _absence(rule: Rule, window: Window) -> str:
    (condition,), (newest,) = rule.conditions, window.values
    since = rfc3339(EpochUs(int(newest.value or 0)))
    return f"no event since {since}, expected every {condition.text.rpartition(' ')[2]}"


def _comparison(condition: Condition, value: Value) -> str:
    if value.value is None:
        return condition.text
    if condition.kind in {Kind.ERROR_RATIO, Kind.SLOW_RATIO, Kind.SCORE_DROP}:
        shown = percent(value.value)
    elif value.is_latency:
        # A sketch may show a value on the other side of the threshold that was counted exactly.
        shown = ("about " if value.is_estimate else "") + span(float(value.value))
    else:
        shown = decimal(value.value)
    return f"{condition.name} {shown} {_SIGN[condition.op]} {condition.text.rpartition(' ')[2]}"


_SIGN = {Op.GT: ">", Op.GE: ">=", Op.LT: "<", Op.LE: "<="}
