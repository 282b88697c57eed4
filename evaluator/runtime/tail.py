"""Following one topic, as any other subscriber would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.runtime.log.port import Partition

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from evaluator.runtime.log.port import Log
    from evaluator.wire.records import Record

POLL_S = 0.5
AT_ONCE = 1_000


async def follow(log: Log, topic: str, last: int | None) -> AsyncGenerator[Record, None]:
    """Committed records as they come, for ever; first the `last` ones of each partition, None: all there are.

    Raises `UnknownTopic`.
    """
    positions = {}
    for index in range(await log.partitions(topic)):
        partition = Partition(topic, index)
        first, end = await log.bounds(partition)
        positions[partition] = end if last == 0 else first
        if last:
            kept = [record.offset for record in await log.read(partition)][-last:]
            positions[partition] = kept[0] if kept else end
    reader = log.reader(positions)
    try:
        while True:
            fetched = await reader.poll(POLL_S, AT_ONCE)
            for partition in sorted(fetched):
                for record in fetched[partition]:
                    yield record
    finally:
        await reader.stop()
