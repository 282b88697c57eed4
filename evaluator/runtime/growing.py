"""Partitions that are added to a source while the service runs.

The group hands a new partition out like any other. Before it is taken over, the source's progress topic must have
a place for it: one more partition of its own, with one writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from evaluator.runtime.crew import NoPlace
from evaluator.runtime.log.port import NotAuthorized, Partition, UnknownTopic
from evaluator.wire import progress as progress_wire

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from evaluator.runtime.log.port import Log
    from evaluator.runtime.topics import Topics
    from evaluator.wire.stored import Codec

log = structlog.get_logger(__name__)


class Growing:
    """How many partitions each source has, as far as we know. `by_topic` gives the source's name by its topic.

    `latest` are the sources of which only what comes after their first run counts.
    """

    def __init__(
        self, log_port: Log, topics: Topics, by_topic: Mapping[str, str], counts: Mapping[str, int],
        latest: Collection[str] = (), codec: Codec = progress_wire.CODEC,
    ) -> None:  # fmt: skip
        self._log, self._topics, self._by_topic, self._counts = log_port, topics, by_topic, dict(counts)
        self._latest, self._codec = latest, codec
        self._places: dict[str, int] = {}
        self._originals: dict[str, int] = {}

    def count_with(self, partition: Partition) -> int:
        """The number of partitions of the source, this one among them."""
        return max(self._counts[self._by_topic[partition.topic]], partition.index + 1)

    def original(self, source: str) -> int:
        """With how many partitions a source of `latest` began; known once one of them was prepared."""
        return self._originals[source]

    async def prepare(self, partition: Partition) -> None:
        """Make the place for its progress if there is none. Raises `NoPlace` where we may not."""
        source = self._by_topic[partition.topic]
        progress = self._topics.progress(source)
        if source in self._latest and source not in self._originals:
            self._originals[source] = await self._began_with(source, partition.topic)
        if source not in self._places:
            self._places[source] = await self._log.partitions(progress)
        if partition.index < self._places[source]:
            return
        count = max(partition.index + 1, await self._log.partitions(partition.topic))
        try:
            await self._log.grow(progress, count)
        except (NotAuthorized, UnknownTopic) as error:
            message = (f"{partition.topic} has {count} partitions now, and {progress} has no place for the new ones "
                       f"({error}); add them with kafka-topics --alter --topic {progress} --partitions {count}: until "
                       f"then nobody reads them, and their events are not judged")  # fmt: skip
            raise NoPlace(message) from error
        self._counts[source] = self._places[source] = count
        log.info("source.grown", source=source, partitions=count)

    async def _began_with(self, source: str, topic: str) -> int:
        """What the progress of any partition says; where there is none, this is the first run."""
        progress = self._topics.progress(source)
        for index in range(await self._log.partitions(progress)):
            records = await self._log.read(Partition(progress, index))
            sibling = progress_wire.newest([record.value for record in records], self._codec)
            if sibling is not None:
                return sibling.original
        return await self._log.partitions(topic)
