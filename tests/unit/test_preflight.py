"""What is checked on the brokers before anything is joined: each finding a line, all of them at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from evaluator.errors import StateRefused
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, TopicInfo, TopicSpec
from evaluator.runtime.preflight import TopicsUnfit, Wish, compare, preflight
from evaluator.runtime.topics import Topics
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from pathlib import Path

    from evaluator.wire.config.load import Config

RULES = "version: 1\nsources:\n  events: {topic: t, format: json, fields: {time: time}}\n"
TOPICS = Topics("app")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """One source."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return load_rules([path])


def checked(
    config: Config, wish: Wish, *there: TopicSpec, alerts: int = 0, state: int = 0, partials: int = 0
) -> dict[str, int]:
    """What preflight says of a cluster with these topics, alerts, state records and partials."""

    async def main() -> dict[str, int]:
        log = MemoryLog(clock=VirtualClock(asyncio.get_running_loop()))
        await log.create(there)
        if alerts or state:
            await log.create(TOPICS.specs(2, {"events": 3}))
            await log.append([Outgoing(TOPICS.alerts, b"k", b"{}", 0)] * alerts)
            await log.append([Outgoing(TOPICS.state, b"k", b"{}", 1)] * state)
            await log.append([Outgoing(TOPICS.partials, b"k", b"{}", 1)] * partials)
        return await preflight(log, config, TOPICS, wish)

    return run_virtual(main())


def test_what_is_missing_is_created_where_that_is_wished(config: Config) -> None:
    assert checked(config, Wish(2, create=True), TopicSpec("t", 3)) == {"events": 3}


def test_every_missing_topic_has_a_line(config: Config) -> None:
    with pytest.raises(TopicsUnfit) as refused:
        checked(config, Wish(2), TopicSpec("t", 3))
    lines = str(refused.value).splitlines()
    assert len(lines) == len(TOPICS.specs(2, {"events": 3}))
    assert lines[0] == "topic slo.alerts does not exist; create it with `evaluator topics create`"


def test_a_missing_source_names_the_source(config: Config) -> None:
    with pytest.raises(TopicsUnfit, match=r"source events: topic t does not exist; create it, or correct `topic`"):
        checked(config, Wish(2, create=True))


def test_alerts_without_any_state_need_a_word_of_the_user(config: Config) -> None:
    with pytest.raises(StateRefused, match="start it once with --init"):
        checked(config, Wish(2), TopicSpec("t", 3), alerts=1)
    assert checked(config, Wish(2, init=True), TopicSpec("t", 3), alerts=1) == {"events": 3}
    assert checked(config, Wish(2), TopicSpec("t", 3), alerts=1, state=1) == {"events": 3}


def test_partials_without_state_would_be_merged_and_published_again(config: Config) -> None:
    with pytest.raises(StateRefused, match=r"the state of app_id app \(app\.state\) is empty"):
        checked(config, Wish(2), TopicSpec("t", 3), alerts=1, partials=1)


@pytest.mark.parametrize(
    ("name", "info", "error"),
    [
        ("app.partials", TopicInfo(8, 3, None), "has 8 partitions and needs 2; set EVALUATOR_SHARDS=8"),
        ("app.state", TopicInfo(2, 3, {"cleanup.policy": "delete"}), "has cleanup.policy=delete and needs compact"),
    ],
)
def test_a_topic_of_the_wrong_shape_is_an_error_with_a_way_out(name: str, info: TopicInfo, error: str) -> None:
    specs = [spec for spec in TOPICS.specs(2, {"events": 3}) if spec.name == name]
    (found,) = compare(specs, {name: info}).errors
    assert error in found


def test_partitions_added_to_a_source_are_a_note_because_their_places_are_made_when_they_are_taken_over() -> None:
    specs = [spec for spec in TOPICS.specs(2, {"events": 3}) if spec.name == "app.progress.events"]
    findings = compare(specs, {"app.progress.events": TopicInfo(2, 3, None)})
    assert not findings.errors
    assert "has 2 partitions and its source 3" in findings.notes[0]


@pytest.mark.parametrize(
    ("info", "note"),
    [
        (TopicInfo(1, 1, {"cleanup.policy": "delete", "retention.ms": "2592000000"}), "replicated 1 times"),
        (TopicInfo(1, 3, {"cleanup.policy": "delete", "retention.ms": "2592000000"}), "min.insync.replicas=1"),
        (TopicInfo(1, 3, {"cleanup.policy": "delete", "retention.ms": "5", "min.insync.replicas": "2"}),
         "has retention.ms=5, `evaluator topics create` sets 2592000000"),
        (TopicInfo(1, 3, {"cleanup.policy": "delete", "retention.ms": "2592000000", "min.insync.replicas": "2",
                          "unclean.leader.election.enable": "true"}), "unclean leader elections"),
        (TopicInfo(1, 3, None), "its settings cannot be seen"),
    ],
)  # fmt: skip
def test_what_is_weak_but_works_is_a_note(info: TopicInfo, note: str) -> None:
    specs = [spec for spec in TOPICS.specs(2, {}) if spec.name == TOPICS.alerts]
    findings = compare(specs, {TOPICS.alerts: info})
    assert findings.errors == []
    assert note in findings.notes[0]
