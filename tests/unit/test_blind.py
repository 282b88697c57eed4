"""Blindness is told once, after it was observed for a while, and taken back when we see again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
from support.rules import rule, rules
from support.shown import FixedClock

from evaluator.core.blind import OBSERVED, Blindness, Episode, Telling
from evaluator.core.event import MINUTE, SECOND, DurationUs, EpochUs
from evaluator.core.rule import Source, Surface
from evaluator.core.snapshot import SourceState
from evaluator.core.watermark import SourceTime
from evaluator.runtime.evaluate_stage import EvaluateStage, Publishing
from evaluator.runtime.intake import MAX_REJECTED
from evaluator.runtime.topics import Topics
from evaluator.runtime.view import View
from evaluator.wire.record import Publisher
from evaluator.wire.records import Record
from evaluator.wire.schema import alert_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.core.alert import Transition
    from evaluator.runtime.log.port import Outgoing

TOPICS = Topics("app")
TELLING = Telling()
NOW = EpochUs(1_000 * MINUTE)
LATE = EpochUs(NOW - 6 * MINUTE - SECOND)
"""A watermark whose next window ended more than five minutes ago."""


def watch(telling: Telling | None = TELLING, **episodes: Episode) -> Blindness:
    return Blindness(rules(rule()), 0, 1, telling, episodes)


def read_to(watermark: int) -> dict[str, SourceState]:
    return {"events": SourceState(count=1, time=SourceTime(EpochUs(watermark)))}


def looked(blindness: Blindness, since: int, until: int, watermark: int) -> list[Transition]:
    """What it tells, looked at twice a second."""
    seen: list[Transition] = []
    for now in range(since, until, SECOND // 2):
        seen += blindness.look(EpochUs(now), read_to(watermark))
    return seen


def test_blindness_is_told_once_after_it_was_observed() -> None:
    blindness = watch()
    assert looked(blindness, NOW, NOW + OBSERVED, LATE) == []
    (told,) = looked(blindness, NOW + OBSERVED, NOW + 10 * OBSERVED, LATE)
    assert (told.status, told.reason.value, told.key) == (
        "firing",
        "blind",
        'evaluator/EvaluatorBlind{source="events"}',
    )
    assert told.labels == {
        "alertname": "EvaluatorBlind", "surface": "evaluator", "severity": "page", "source": "events",
    }  # fmt: skip
    assert (told.starts_at, told.at) == (NOW - 6 * MINUTE, NOW + OBSERVED)


def test_it_is_resolved_as_soon_as_nothing_is_overdue() -> None:
    blindness = watch()
    (fired,) = looked(blindness, NOW, NOW + MINUTE, LATE)
    (resolved,) = looked(blindness, NOW + MINUTE, NOW + 2 * MINUTE, NOW)
    assert (resolved.status, resolved.episode) == ("resolved", fired.episode)
    assert resolved.at == NOW + MINUTE
    assert looked(blindness, NOW + 2 * MINUTE, NOW + 3 * MINUTE, NOW) == []


def test_a_restart_that_catches_up_at_once_tells_nothing() -> None:
    blindness = watch()
    assert looked(blindness, NOW, NOW + 20 * SECOND, LATE) == []
    assert looked(blindness, NOW + 20 * SECOND, NOW + 60 * SECOND, NOW) == []
    assert looked(blindness, NOW + 60 * SECOND, NOW + 60 * SECOND + OBSERVED, LATE) == []


def test_what_nobody_watched_does_not_count() -> None:
    blindness = watch()
    assert looked(blindness, NOW, NOW + 20 * SECOND, LATE) == []
    after = NOW + 60 * SECOND
    assert looked(blindness, after, after + OBSERVED, LATE) == []


def test_a_clock_that_goes_back_begins_the_observation_anew() -> None:
    blindness = watch()
    assert looked(blindness, NOW + 60 * SECOND, NOW + 80 * SECOND, LATE) == []
    assert looked(blindness, NOW, NOW + OBSERVED, LATE) == []
    assert len(looked(blindness, NOW + OBSERVED, NOW + OBSERVED + SECOND, LATE)) == 1


def test_a_source_that_was_never_heard_of_is_blind_too() -> None:
    blindness, told = watch(), []
    for now in range(NOW, NOW + 10 * MINUTE, SECOND):
        told += blindness.look(EpochUs(now), {})
    assert [(one.status, one.starts_at) for one in told] == [("firing", NOW + MINUTE)]
    assert told[0].at == NOW + 6 * MINUTE + SECOND + OBSERVED


def test_what_was_told_by_an_owner_before_is_not_told_again_but_taken_back() -> None:
    stored = Episode(EpochUs(NOW - 20 * MINUTE), EpochUs(NOW - 10 * MINUTE), "ticket")
    assert looked(watch(events=stored), NOW, NOW + 5 * MINUTE, LATE) == []
    # Nothing was heard of the source since: that is not seeing.
    assert watch(events=stored).look(NOW, {}) == []
    (resolved,) = looked(watch(events=stored), NOW, NOW + MINUTE, NOW)
    assert (resolved.labels["severity"], resolved.fired_at) == ("ticket", NOW - 10 * MINUTE)


def test_opting_out_or_removing_the_source_takes_back_what_was_told() -> None:
    stored = Episode(EpochUs(NOW - 20 * MINUTE), EpochUs(NOW - 10 * MINUTE), "page")
    for blindness in (watch(None, events=stored), watch(gone=stored)):
        (resolved,) = looked(blindness, NOW, NOW + 10 * SECOND, LATE)
        assert (resolved.status, resolved.reason.value) == ("resolved", "rule_removed")
    assert looked(watch(None), NOW, NOW + 5 * MINUTE, LATE) == []


def test_one_shard_answers_for_a_source() -> None:
    names = [f"source-{n}" for n in range(20)]
    source = Source("", "t", DurationUs(0), DurationUs(0), DurationUs(0))
    many = rules(
        *(rule(name, surface=name) for name in names), sources={name: replace(source, name=name) for name in names},
        surfaces={name: Surface(name, name) for name in names},
    )  # fmt: skip
    sources = {name: read_to(LATE)["events"] for name in names}
    told: Counter[str] = Counter()
    for shard in range(4):
        blindness = Blindness(many, shard, 4, Telling(), {})
        for now in range(NOW, NOW + MINUTE, SECOND):
            told.update(one.labels["source"] for one in blindness.look(EpochUs(now), sources))
    assert told == Counter(names)


def stage(records: Sequence[Outgoing] = (), telling: Telling | None = TELLING) -> EvaluateStage:
    """One that restores what an outbox wrote to its state."""
    publishing = Publishing(Publisher("app", "sha256:x", "1", "http://here"), 5 * SECOND, telling=telling)
    begun = EvaluateStage(rules(rule()), 0, 1, TOPICS, publishing, Counter())
    own = [Record(n, 0, one.key, one.value) for n, one in enumerate(records) if one.topic == TOPICS.state]
    begun.restore(own, (0, 0), None)
    return begun


def outbox(of: EvaluateStage, since: int, seconds: int) -> list[Outgoing]:
    """What it commits when it has nothing but time."""
    written: list[Outgoing] = []
    for now in range(since, since + seconds * SECOND, SECOND):
        if of.due(EpochUs(now)):
            frozen = of.freeze(EpochUs(now))
            assert frozen is not None
            written += frozen.records
            of.committed(EpochUs(now))
    return written


def published(written: Sequence[Outgoing], topic: str) -> list[dict[str, Any]]:
    return [json.loads(one.value) for one in written if one.topic == topic and one.value is not None]


def test_the_record_is_an_alert_like_any_other() -> None:
    written = outbox(stage(), NOW, 600)
    (alert,) = published(written, TOPICS.alerts)
    jsonschema.validate(alert, alert_schema(), format_checker=jsonschema.FormatChecker())
    assert alert["annotations"]["summary"] == (
        'evaluator {source="events"}: cannot see, the window that ended 1970-01-01T16:41:00Z is overdue by more than 5m'
    )
    (shown,) = published(written, TOPICS.status)
    assert (shown["phase"], shown["key"], shown["source"]) == ("firing", alert["key"], "events")
    view = View(rules(rule()), FixedClock(), MAX_REJECTED)
    view.apply(alert["key"].encode(), json.dumps(shown).encode())
    assert alert["fingerprint"] in [series.fingerprint for series in view.series()]


def test_the_next_owner_knows_what_was_told() -> None:
    written = outbox(stage(), NOW, 600)
    assert published(outbox(stage(written), NOW + 700 * SECOND, 600), TOPICS.alerts) == []
    taken_back = outbox(stage(written, telling=None), NOW + 700 * SECOND, 5)
    assert [one["status"] for one in published(taken_back, TOPICS.alerts)] == ["resolved"]
    assert [one.value for one in taken_back if one.topic == TOPICS.status] == [None]


def test_a_clock_that_is_off_tells_nothing() -> None:
    begun = stage()
    begun.trust_clock(trusted=False)
    assert published(outbox(begun, NOW, 1000), TOPICS.alerts) == []
    begun.trust_clock(trusted=True)
    assert len(published(outbox(begun, NOW + 1000 * SECOND, 600), TOPICS.alerts)) == 1
