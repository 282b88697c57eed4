"""A topic as files that `replay` reads, and the clock decisions that belong to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.partial import IdleAdvance
from evaluator.errors import UsageError
from evaluator.runtime.log.port import Partition
from evaluator.wire import partial as partial_wire
from evaluator.wire.envelope import decision_line, envelope, position_line
from evaluator.wire.instant import NOT_A_TIME, instant

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import BinaryIO

    from evaluator.core.partial import ClockDecision
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Log
    from evaluator.wire.records import Record

AT_ONCE = 5_000
WAIT_S = 0.2

HELD_S = 5.0
"""Until a read that does not move says why. A commit takes less; more, and somebody takes the command for dead."""


class Held:
    """Tells, once for each partition, that a read waits for a transaction to end."""

    def __init__(self, clock: Clock, tell: Callable[[str], object]) -> None:
        self._clock, self._tell = clock, tell
        self._told: set[Partition] = set()
        self._moved = clock.monotonic()

    def moved(self) -> None:
        """The read begins, or got further."""
        self._moved = self._clock.monotonic()

    async def stands(self, log: Log, partition: Partition, position: int) -> None:
        """The read is where it was. Raises `KafkaUnreachable` where it is the brokers that do not answer."""
        if partition in self._told or self._clock.monotonic() - self._moved < HELD_S:
            return
        # What is there and not to be read by us is of an open transaction; else it is something that we do not know.
        if await log.read(partition, position, limit=1, committed=False):
            self._told.add(partition)
            self._tell(
                f"waiting at {partition.topic}/{partition.index} offset {position}: a transaction is open there; it "
                "goes on when that ends, at the latest at its time-out (60 s if it is an evaluator's)\n"
            )


class Range(NamedTuple):
    """From which offset (None: the first) to which, exclusive (None: the end when the dump began)."""

    start: int | None = None
    end: int | None = None


async def dump_partition(log: Log, partition: Partition, wanted: Range, out: BinaryIO, held: Held) -> int:
    """Write the records of a partition as envelopes; returns how many.

    The first and the last offset are said too, where no record says them: recorded decisions refer to them.
    """
    first, end = await log.bounds(partition)
    start = max(first, wanted.start or first)
    end = end if wanted.end is None else min(end, wanted.end)
    count, position = 0, 0
    async for record in records(log, partition, start, end, held):
        stamp = -1 if record.timestamp is None else record.timestamp
        out.write(envelope(stamp, record.key, record.value, record.headers, record.offset))
        count, position = count + 1, record.offset + 1
    if end > position:
        out.write(position_line(end))
    return count


async def records(log: Log, partition: Partition, start: int, end: int, held: Held) -> AsyncGenerator[Record, None]:
    """The committed records of `[start, end)`, without holding them all."""
    if start >= end:
        return
    reader = log.reader({partition: start})
    held.moved()
    try:
        while (position := reader.position(partition)) < end:
            for record in (await reader.poll(WAIT_S, AT_ONCE)).get(partition, ()):
                if record.offset >= end:
                    return
                yield record
            if reader.position(partition) > position:
                held.moved()
            else:
                await held.stands(log, partition, position)
    finally:
        await reader.stop()


async def dump_decisions(log: Log, partials: str, out: BinaryIO, held: Held) -> int:
    """Write the decisions of every source as lines; returns how many. Raises `UnknownTopic`.

    Each travels to every shard that was told of its commit, so it is found several times.
    """
    found: set[tuple[str, int, ClockDecision]] = set()
    for index in range(await log.partitions(partials)):
        partition = Partition(partials, index)
        first, end = await log.bounds(partition)
        async for record in records(log, partition, first, end, held):
            if record.value is not None:
                partial = partial_wire.decode(record.value)
                decisions: tuple[ClockDecision, ...] = (*partial.idle_advances, *partial.future_rejections)
                found.update((partial.source, partial.partition, decision) for decision in decisions)
    out.writelines(decision_line(source, number, decision) for source, number, decision in sorted(found, key=_order))
    return len(found)


def _order(found: tuple[str, int, ClockDecision]) -> tuple[str, int, int, int]:
    source, partition, decision = found
    return source, partition, decision.offset, decision.until if isinstance(decision, IdleAdvance) else decision.index


async def offset_of(log: Log, partition: Partition, written: str | None, option: str) -> int | None:
    """The offset that an option means: a number, or a time (the first record at or after it). Raises `UsageError`."""
    if written is None:
        return None
    if written.isdigit():
        return int(written)
    found = instant(written, "auto")
    if found == NOT_A_TIME:
        message = f"{option} {written}: expected an offset, or a time like 2026-01-28T12:00:00Z"
        raise UsageError(message)
    return await log.offset_at(partition, found // 1000)
