"""A group member of the in-memory log: positions, pauses, and a poll that waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from evaluator.runtime.log.port import Fetched, KafkaUnreachable, OffsetOutOfRange, Partition, StaleGeneration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evaluator.runtime.log.memory_cluster import Cluster
    from evaluator.runtime.log.memory_group import Member
    from evaluator.runtime.log.memory_partition import PartitionLog
    from evaluator.runtime.log.port import Rebalance
    from evaluator.runtime.log.steps import Steps

_MOMENT = 1e-3
"""Seconds. A wait for somebody's deadline is never shorter, so that rounding of times cannot make a busy loop."""


class MemoryConsumer:
    """See `port.Consumer`. One task polls; `seek`, `pause` and `resume` may come from others and wake it."""

    def __init__(self, cluster: Cluster, steps: Steps, group: str, member: Member, rebalance: Rebalance) -> None:
        self._cluster, self._steps, self._rebalance = cluster, steps, rebalance
        self._name, self._group = group, cluster.group(group)
        self._member = member
        self._generation = -1
        self._running = False
        # None: assigned, not yet sought.
        self._positions: dict[Partition, int | None] = {}
        self._paused: set[Partition] = set()
        self._failed: set[Partition] = set()
        self._outages = cluster.outages
        self._turn = 0
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Join the group. Raises `UnknownTopic`."""
        for topic in self._member.topics:
            self._cluster.partitions(topic)
        self._group.join(self._member)
        self._running = True

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[Partition, Fetched]:
        """Fetch, waiting up to `timeout_s` for a record. Gives way to other tasks at least once."""
        if not self._running:
            message = f"the consumer of group {self._name} is not running"
            raise RuntimeError(message)
        clock = self._cluster.clock
        deadline = clock.monotonic() + timeout_s
        try:
            await self._steps.at("consumer.poll:before")
        except KafkaUnreachable:
            # As a real client: no broker, no news, and no error.
            self._failed.update(self._positions)
            await clock.sleep(max(0.0, deadline - clock.monotonic()))
            return {}
        await asyncio.sleep(0)
        while True:
            self._member.seen = clock.monotonic()
            await self._follow_group()
            self._cluster.expire()
            fetched = self._fetch(max_records)
            left = deadline - clock.monotonic()
            if left <= 0 or any(one.records for one in fetched.values()):
                break
            await self._wait(left)
            await self._steps.at("consumer.poll:woken")
        # Only now: what was fetched before a wait nobody was told of.
        self._failed -= fetched.keys()
        self._steps.note("consumer.poll", self._name, *(_summary(*entry) for entry in fetched.items()))
        await self._steps.at("consumer.poll:after")
        return fetched

    def assignment(self) -> frozenset[Partition]:
        """What the last rebalance gave us."""
        return frozenset(self._positions)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from `offset`."""
        self._check_assigned([partition])
        self._positions[partition] = offset
        self._wake.set()

    def pause(self, *partitions: Partition) -> None:
        """Stop fetching from these partitions."""
        self._check_assigned(partitions)
        self._paused.update(partitions)

    def resume(self, *partitions: Partition) -> None:
        """Fetch from these partitions again; one that was never sought stays silent."""
        self._check_assigned(partitions)
        self._paused.difference_update(partitions)
        self._wake.set()

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit group offsets."""
        await self._steps.around("consumer.commit", lambda: self._commit(offsets), self._name, *offsets.items())

    async def confirm(self, partition: Partition) -> None:
        """Ask the group whether the partition is still ours."""
        held = self._group.offsets.get(partition)
        there = {partition: self._cluster.log(partition).first if held is None else held}
        await self._steps.around("consumer.confirm", lambda: self._commit(there), self._name, partition)

    async def stop(self) -> None:
        """Leave the group."""
        self._running = False
        self._positions.clear()
        self._group.leave(self._member)

    def _commit(self, offsets: Mapping[Partition, int]) -> None:
        if not self._group.knows(self._member) or self._generation != self._group.generation:
            message = f"group {self._name} has moved on since generation {self._generation}"
            raise StaleGeneration(message)
        self._check_assigned(offsets)
        self._group.offsets.update(offsets)

    def _check_assigned(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            if partition not in self._positions:
                message = f"{partition.topic} partition {partition.index} is not assigned to us in group {self._name}"
                raise StaleGeneration(message)

    async def _follow_group(self) -> None:
        """Run the callbacks until the group asks nothing of us; each may take long, and things may change."""
        while True:
            self._group.expire(self._member)
            if self._group.must_rejoin(self._member):
                if self._positions:
                    await self._steps.at("consumer.revoke:before")
                    await self._rebalance.revoked(sorted(self._positions))
                self._positions, self._paused = {}, set()
                self._group.rejoin(self._member)
            elif self._group.is_stable and self._generation < self._member.generation:
                self._generation = self._member.generation
                self._positions = dict.fromkeys(self._member.assignment)
                self._paused = set(self._positions)
                await self._rebalance.assigned(self._member.assignment)
            else:
                return

    def _fetch(self, max_records: int) -> dict[Partition, Fetched]:
        at = self._cluster.clock.now()
        if self._outages < self._cluster.outages:
            # Also where nobody polled in between.
            self._failed.update(self._positions)
            self._outages = self._cluster.outages
        wanted = self._in_turn()
        if not wanted:
            return {}
        available = [log.available(position) for _, log, position in wanted]
        fetched: dict[Partition, Fetched] = {}
        for (partition, log, position), there, share in zip(
            wanted, available, shares(available, max_records), strict=True
        ):
            if share or not there:
                records, after = log.fetch(position, share)
                fetched[partition] = Fetched(records, after, log.end, at, partition not in self._failed)
        for partition, one in fetched.items():
            self._positions[partition] = one.next_offset
        return fetched

    def _in_turn(self) -> list[tuple[Partition, PartitionLog, int]]:
        """What can be fetched, each time beginning with another partition."""
        wanted = []
        for partition, position in self._positions.items():
            if position is None or partition in self._paused:
                continue
            log = self._cluster.log(partition)
            if not log.first <= position <= log.end:
                raise OffsetOutOfRange(partition, position, log.first, log.end)
            wanted.append((partition, log, position))
        self._turn += 1
        first = self._turn % max(1, len(wanted))
        return wanted[first:] + wanted[:first]

    async def _wait(self, seconds: float) -> None:
        """Until something changes, at most `seconds` or until a transaction times out."""
        clock = self._cluster.clock
        expiry = self._cluster.next_deadline()
        if expiry is not None:
            seconds = min(seconds, max(_MOMENT, expiry - clock.monotonic()))
        wake = self._wake = asyncio.Event()
        self._member.waiting = True
        sleep = asyncio.create_task(clock.sleep(seconds), name="poll.wait")
        try:
            with self._cluster.listening(wake, self._member.topics):
                sleep.add_done_callback(lambda _: wake.set())
                await wake.wait()
        finally:
            sleep.cancel()
            self._member.waiting = False
            self._member.seen = clock.monotonic()


def shares(available: Sequence[int], limit: int) -> list[int]:
    """How many records each partition may give, `limit` in all.

    Equal parts; what one partition cannot use goes to the others, and the odd rest to the first in turn.
    """
    level, left = 0, limit
    for served, there in enumerate(sorted(available)):
        level = left // (len(available) - served)
        if there > level:
            break
        left -= there
    given = [min(there, level) for there in available]
    rest = limit - sum(given)
    for index, there in enumerate(available):
        more = min(there - given[index], rest)
        given[index] += more
        rest -= more
    return given


def _summary(partition: Partition, fetched: Fetched) -> str:
    return f"{partition.topic}-{partition.index}+{len(fetched.records)}->{fetched.next_offset}"
