"""The names of the topics, and how each is to be created (docs/contracts.md, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluator.runtime.log.port import TopicSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluator.runtime.settings import Settings

_DAY_MS = 86_400_000

_OURS = {"message.timestamp.type": "LogAppendTime"}
"""The broker's clock on what we write: our own is compared with it."""

_QUICKLY_COMPACTED = {
    "segment.ms": "600000",
    "segment.bytes": "67108864",
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": "3600000",
}
"""Otherwise a restore reads days of records that newer ones have replaced."""

EVERYTHING = -1
"""Retention of partials: stage 2 deletes what it has merged, and only that."""


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics that one app reads and writes, besides its sources'."""

    app_id: str
    alerts: str = "slo.alerts"
    status: str = "slo.status"
    verdicts: str = "slo.verdicts"
    dlq: str = "slo.dlq"
    control: str = "slo.control"

    @classmethod
    def of(cls, settings: Settings) -> Topics:
        """The names that the settings give."""
        names = settings.topics
        return cls(settings.app_id, names.alerts, names.status, names.verdicts, names.dlq, names.control)

    @property
    def partials(self) -> str:
        """Stage 1's output, one partition per shard."""
        return f"{self.app_id}.partials"

    @property
    def state(self) -> str:
        """Stage 2's state, one partition per shard."""
        return f"{self.app_id}.state"

    def progress(self, source: str) -> str:
        """Stage 1's progress, as many partitions as the source."""
        return f"{self.app_id}.progress.{source}"

    def specs(self, shards: int, source_partitions: Mapping[str, int]) -> list[TopicSpec]:
        """Everything but the sources' own topics; `source_partitions` is by source name."""
        public = [
            TopicSpec(self.alerts, 1, retention_ms=30 * _DAY_MS, may_have_more=True),
            TopicSpec(self.status, 1, compact=True, may_have_more=True),
            TopicSpec(self.verdicts, 1, retention_ms=30 * _DAY_MS, may_have_more=True),
            TopicSpec(self.dlq, 1, retention_ms=14 * _DAY_MS, may_have_more=True),
            TopicSpec(self.control, 1, compact=True, may_have_more=True),
        ]
        state = {**_OURS, **_QUICKLY_COMPACTED}
        internal = [
            TopicSpec(self.partials, shards, retention_ms=EVERYTHING, settings=_OURS),
            TopicSpec(self.state, shards, compact=True, settings=state),
        ]
        progress = [
            TopicSpec(self.progress(name), n, compact=True, settings=state) for name, n in source_partitions.items()
        ]
        return public + internal + progress
