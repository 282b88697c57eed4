"""Partitions that are added to a source while the service runs.

The group hands a new partition out like any other. Before it is taken over, the source's progress topic must have
a place for it: one more partition of its own, with one writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from evaluator.runtime.crew import NoPlace
from evaluator.runtime.log.port import NotAuthorized, Partition, UnknownTopic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluator.runtime.log.port import Log
    from evaluator.runtime.topics import Topics

log = structlog.get_logger(__name__)


class Growing:
    """How many partitions each source has, as far as we know. `by_topic` gives the source's name by its topic."""

    def __init__(self, log_port: Log, topics: Topics, by_topic: Mapping[str, str], counts: Mapping[str, int]) -> None:
        self._log, self._topics, self._by_topic, self._counts = log_port, topics, by_topic, dict(counts)
        self._places: dict[str, int] = {}
        self._added: set[Partition] = set()

    def count_with(self, partition: Partition) -> int:
        """The number of partitions of the source, this one among them."""
        return max(self._counts[self._by_topic[partition.topic]], partition.index + 1)

    def is_added(self, partition: Partition) -> bool:
        """Whether the partition came after the source's first run: everything in it is news, whatever `start` says."""
        return partition in self._added

    async def prepare(self, partition: Partition) -> None:
        """Make the place for its progress if there is none. Raises `NoPlace` where we may not."""
        source = self._by_topic[partition.topic]
        progress = self._topics.progress(source)
        if source not in self._places:
            self._places[source] = await self._log.partitions(progress)
        if partition.index < self._places[source]:
            return
        count = max(partition.index + 1, await self._log.partitions(partition.topic))
        self._added.update(Partition(partition.topic, index) for index in range(self._places[source], count))
        try:
            await self._log.grow(progress, count)
        except (NotAuthorized, UnknownTopic) as error:
            message = (f"{partition.topic} has {count} partitions now, and {progress} has no place for the new ones "
                       f"({error}); add them with kafka-topics --alter --topic {progress} --partitions {count}: until "
                       f"then nobody reads them, and their events are not judged")  # fmt: skip
            raise NoPlace(message) from error
        self._counts[source] = self._places[source] = count
        log.info("source.grown", source=source, partitions=count)
