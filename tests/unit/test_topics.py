"""The topics that are made: how each is to be, how many partitions, what is printed for others to apply."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from evaluator.cli.topics import Form, printed
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import TopicSpec
from evaluator.runtime.preflight import TopicsUnfit, compare
from evaluator.runtime.provision import plan
from evaluator.runtime.settings import KafkaSettings, load
from evaluator.runtime.topics import Topics
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from pathlib import Path

    from evaluator.runtime.provision import Plan
    from evaluator.wire.config.load import Config

RULES = """
version: 1
sources:
  calls: {topic: calls-topic, format: json, fields: {time: time}}
  jobs: {topic: jobs-topic, format: json, fields: {time: time}}
"""
TOPICS = Topics("app")
DAY_MS = 86_400_000


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two sources."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return load_rules([path])


def planned(config: Config, *there: TopicSpec, sources: int | None = None) -> tuple[Plan, list[str]]:
    """What is planned on a cluster with these topics, and which of all there are afterwards."""

    async def main() -> tuple[Plan, list[str]]:
        log = MemoryLog(clock=VirtualClock(asyncio.get_running_loop()))
        await log.create(there)
        made = await plan(log, config, TOPICS, 4, sources)
        return made, sorted(await log.describe([spec.name for spec in made.specs]))

    return run_virtual(main())


# -- how each topic is to be (docs/contracts.md, 1) ---------------------------------------------------------------


def test_each_topic_is_created_as_the_contract_says() -> None:
    specs = {spec.name: spec for spec in TOPICS.specs(4, {"calls": 3})}
    table = {name: (spec.partitions, spec.compact, spec.retention_ms) for name, spec in specs.items()}
    assert table == {
        "slo.alerts": (1, False, 30 * DAY_MS),
        "slo.status": (1, True, None),
        "slo.verdicts": (1, False, 30 * DAY_MS),
        "slo.dlq": (1, False, 14 * DAY_MS),
        "slo.control": (1, True, None),
        "app.partials": (4, False, -1),
        "app.state": (4, True, None),
        "app.progress.calls": (3, True, None),
    }


def test_what_is_ours_has_the_brokers_time_and_compacted_topics_are_compacted_soon() -> None:
    for spec in TOPICS.specs(4, {"calls": 3}):
        is_ours = spec.name.startswith("app.")
        assert (spec.config.get("message.timestamp.type") == "LogAppendTime") is is_ours
        assert ("max.compaction.lag.ms" in spec.config) is (is_ours and spec.compact)


def test_names_follow_the_settings() -> None:
    names = Topics.of(load(environ={"EVALUATOR_APP_ID": "x", "EVALUATOR_TOPICS__ALERTS": "pages"}))
    assert [spec.name for spec in names.specs(1, {"a": 1})] == [
        "pages", "slo.status", "slo.verdicts", "slo.dlq", "slo.control", "x.partials", "x.state", "x.progress.a",
    ]  # fmt: skip


def test_what_is_created_satisfies_what_is_checked() -> None:
    async def main() -> None:
        log = MemoryLog(clock=VirtualClock(asyncio.get_running_loop()))
        specs = TOPICS.specs(4, {"calls": 3})
        await log.create(specs)
        assert compare(specs, await log.describe([spec.name for spec in specs])).errors == []

    run_virtual(main())


@pytest.mark.parametrize(("replication", "insync"), [(1, None), (2, None), (3, "2"), (5, "2")])
def test_on_three_replicas_or_more_two_have_what_was_acknowledged(replication: int, insync: str | None) -> None:
    assert TopicSpec("t", 1).config_on(replication).get("min.insync.replicas") == insync


# -- counting -----------------------------------------------------------------------------------------------------


def test_without_a_wish_the_sources_have_to_be_there(config: Config) -> None:
    with pytest.raises(TopicsUnfit, match="source jobs: topic jobs-topic does not exist"):
        planned(config, TopicSpec("calls-topic", 6))


def test_a_wish_counts_only_for_sources_that_are_not_there(config: Config) -> None:
    made, _ = planned(config, TopicSpec("calls-topic", 6), sources=2)
    partitions = {spec.name: spec.partitions for spec in made.specs}
    assert partitions["app.progress.calls"] == 6
    assert partitions["jobs-topic"] == partitions["app.progress.jobs"] == 2
    assert "calls-topic" not in partitions
    assert made.notes == [
        ("source calls: topic calls-topic exists with 6 partitions, which count; --sources 2 is for topics that do "
         "not exist"),
        "source jobs: topic jobs-topic does not exist yet; 2 partitions, as --sources says",
    ]  # fmt: skip


def test_a_plan_changes_nothing_and_knows_what_is_missing(config: Config) -> None:
    sources = (TopicSpec("calls-topic", 1), TopicSpec("jobs-topic", 1))
    made, there = planned(config, *sources, TopicSpec("slo.alerts", 1), sources=3)
    assert there == ["slo.alerts"] == sorted(made.there)
    assert [spec.name for spec in made.missing] == [spec.name for spec in made.specs if spec.name != "slo.alerts"]


# -- printing -----------------------------------------------------------------------------------------------------


def lines(config: Config, form: Form, **kafka: int) -> list[str]:
    """What is printed where only the sources are there, and the alerts."""
    sources = (TopicSpec("calls-topic", 6), TopicSpec("jobs-topic", 1))
    made, _ = planned(config, *sources, TopicSpec("slo.alerts", 1))
    return list(printed(made, form, KafkaSettings(bootstrap_servers="b:9092", **kafka), "would create"))


def test_text_says_of_each_topic_whether_it_is_there(config: Config) -> None:
    first, second, *_ = lines(config, Form.TEXT)
    assert first.startswith("exists        slo.alerts  partitions=1 cleanup.policy=delete retention.ms=")
    assert second == "would create  slo.status  partitions=1 cleanup.policy=compact"


def test_json_says_the_same_to_programs(config: Config) -> None:
    rows = json.loads("".join(lines(config, Form.JSON)))
    assert [row["name"] for row in rows if row["exists"]] == ["slo.alerts"]
    assert {row["name"]: row["partitions"] for row in rows}["app.progress.calls"] == 6


def test_what_others_apply_is_for_production_unless_told_otherwise(config: Config) -> None:
    command = lines(config, Form.KAFKA_TOPICS)[1]
    assert command == (
        "kafka-topics.sh --bootstrap-server b:9092 --create --if-not-exists --topic slo.status --partitions 1 "
        "--replication-factor 3 --config min.insync.replicas=2 --config cleanup.policy=compact"
    )
    assert "--replication-factor 1 --config cleanup.policy" in lines(config, Form.KAFKA_TOPICS, replication_factor=1)[1]


def test_terraform_has_a_resource_for_each_topic(config: Config) -> None:
    resources = lines(config, Form.TERRAFORM)
    assert resources[1] == (
        'resource "kafka_topic" "slo_status" {\n  name               = "slo.status"\n  partitions         = 1\n'
        '  replication_factor = 3\n  config = {\n    "min.insync.replicas" = "2"\n    "cleanup.policy" = "compact"\n'
        "  }\n}\n"
    )
    small = lines(config, Form.TERRAFORM, replication_factor=2)[1]
    assert "replication_factor = 2" in small
    assert "min.insync" not in small
