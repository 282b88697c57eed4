"""What a source of a rules file makes of records, as plain values that a test can spell out."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.core.event import FAILED, GOOD, NO_LATENCY, NO_SCORE, UNKNOWN, UNMATCHED, SeriesTable
from evaluator.runtime.registries import learn_named
from evaluator.wire.config.load import Config, load_rules
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluator.core.event import EventBatch
    from evaluator.wire.config.model import SourceConfig
    from evaluator.wire.decode import Decoded

NOON = 1_769_601_600_000
"""2026-01-28T12:00:00Z in milliseconds."""

SCHEMAS = Path(__file__).parents[1] / "fuzz" / "schemas"
"""Schemas by id: 1 Avro, 2 Protobuf, 3 JSON Schema."""

DEPLOYS = {"Deploys": {"surface": "surface", "when": "error_ratio > 50%", "window": "deploy", "severity": "ticket"}}
"""Alerts that make the source's events have a deploy and a context: only then are they read."""

_OUTCOMES = {GOOD: "good", FAILED: "failed", UNKNOWN: "unknown"}


class Run(NamedTuple):
    """What a rule about deploys sees of an event. `score` in millionths, None where there is none."""

    score: int | None
    deploy: str
    context: str


@dataclass(frozen=True, slots=True)
class Event:
    """An accepted event. `after_noon` and `latency` in microseconds; `group` is None where no surface matched.

    `run` is None where no rule is about deploys.
    """

    after_noon: int = 0
    outcome: str = "good"
    latency: int | None = None
    group: tuple[str, ...] | None = ()
    weight: int = 1
    trace_id: str = ""
    run: Run | None = None


@dataclass(slots=True)
class Seen:
    """What became of all records. Rejections are (offset, index, reason)."""

    events: list[Event]
    rejections: list[tuple[int, int, str]] = field(default_factory=list)
    skipped: int = 0
    duplicates: int = 0
    bad_latencies: int = 0


def bare(name: str) -> dict[str, Any]:
    """A source of a format with nothing but what it cannot do without."""
    return {"format": name, **({"schemas": str(SCHEMAS)} if name == "registry" else {})}


def config_of(
    source: Mapping[str, Any],
    group_by: Sequence[str] = (),
    more_sources: Mapping[str, Mapping[str, Any]] | None = None,
    **sections: Any,
) -> Config:
    """The rules with this source and one surface of it, and perhaps more sources."""
    groups = [{"field": path, "as": f"label{number}"} for number, path in enumerate(group_by)]
    surface = {"source": "events", **({"group_by": groups} if groups else {})}
    rules = {
        "version": 1, "sources": {"events": {"topic": "t", **source}, **(more_sources or {})},
        "surfaces": {"surface": surface}, **sections,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text(json.dumps(rules))
        return load_rules([path])


def source_of(source: Mapping[str, Any], group_by: Sequence[str] = (), **sections: Any) -> SourceConfig:
    """The source as its decoder gets it."""
    return config_of(source, group_by, **sections).sources["events"]


def unfiltered(source: SourceConfig) -> SourceConfig:
    """The source without its filter: a reader that knows it leaves out what is not to be counted."""
    return replace(source, where=None)


def record(offset: int, value: bytes | str | object, headers: Mapping[str, str] | None = None) -> Record:
    """A record of noon. A value that is neither bytes nor text is written as JSON."""
    if not isinstance(value, bytes | None):
        value = (value if isinstance(value, str) else json.dumps(value)).encode()
    return Record(offset, NOON, None, value, tuple((name, text.encode()) for name, text in (headers or {}).items()))


def seen(source: Mapping[str, Any], *records: Record, group_by: Sequence[str] = (), **sections: Any) -> Seen:
    """Decode the records of one partition; `sections` are more of the rules file."""
    return seen_by(source_of(source, group_by, **sections), *records)


def seen_by(config: SourceConfig, *records: Record) -> Seen:
    """Decode the records of one partition of this source, of which a registry is asked for the schemas first."""
    learn_named(config, [each.value for each in records])
    table = SeriesTable({surface.name: surface.max_series for surface in config.surfaces})
    decoder, whole = SourceDecoder(config), Seen([])
    while records:
        decoded = decoder.decode(records, table, None)
        records = records[decoded.records :]
        whole.events += _events_of(decoded, table)
        whole.rejections += [(each.offset, each.index, str(each.reason)) for each in decoded.rejections]
        whole.skipped += decoded.skipped
        whole.duplicates += decoded.duplicates
        whole.bad_latencies += decoded.bad_latencies
    return whole


def _events_of(decoded: Decoded, table: SeriesTable) -> list[Event]:
    batch = decoded.events
    weights = [1] * len(batch) if batch.weight is None else batch.weight.tolist()
    columns = zip(
        batch.time.tolist(), batch.failed.tolist(), batch.latency.tolist(), batch.series.tolist(), weights,
        batch.trace_ids(range(len(batch))), _runs_of(batch), strict=True,
    )  # fmt: skip
    return [
        Event(
            time - NOON * 1000,
            _OUTCOMES[failed],
            None if latency == NO_LATENCY else latency,
            None if series == UNMATCHED else table.keys[series].values,
            weight,
            trace_id,
            run,
        )
        for time, failed, latency, series, weight, trace_id, run in columns
    ]


def _runs_of(batch: EventBatch) -> Sequence[Run | None]:
    if batch.runs is None:
        return [None] * len(batch)
    scores = [None if score == NO_SCORE else score for score in batch.runs.score.tolist()]
    return list(map(Run, scores, batch.runs.deploy, batch.runs.context))


def events(source: Mapping[str, Any], *values: bytes | str | object, group_by: Sequence[str] = ()) -> list[Event]:
    """The events of records that all must be good."""
    found = seen(source, *(record(offset, value) for offset, value in enumerate(values)), group_by=group_by)
    assert (found.rejections, found.skipped) == ([], 0)
    return found.events
