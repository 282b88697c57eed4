"""The names of the topics, and how each is to be created (docs/contracts.md, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluator.runtime.log.port import TopicSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics that one app reads and writes, besides its sources'."""

    app_id: str
    alerts: str = "slo.alerts"
    status: str = "slo.status"
    verdicts: str = "slo.verdicts"
    dlq: str = "slo.dlq"

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
            TopicSpec(self.alerts, 1, retention_ms=30 * _DAY_MS),
            TopicSpec(self.status, 1, compact=True),
            TopicSpec(self.verdicts, 1, retention_ms=30 * _DAY_MS),
            TopicSpec(self.dlq, 1, retention_ms=14 * _DAY_MS),
        ]
        internal = [TopicSpec(self.partials, shards), TopicSpec(self.state, shards, compact=True)]
        progress = [TopicSpec(self.progress(name), n, compact=True) for name, n in source_partitions.items()]
        return public + internal + progress
