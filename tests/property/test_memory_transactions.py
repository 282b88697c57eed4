"""The law of read_committed: whatever two producers do, a reader sees exactly the committed batches, in order.

The model is a drawing: a list of cells per partition, each a record with its transaction or a marker, and
for each transaction what became of it. It knows neither epochs nor offsets nor positions.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Fenced, Outgoing, Partition, TopicSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.runtime.log.memory_producer import MemoryProducer

PARTITIONS = [Partition("t", index) for index in range(2)]
EXAMPLES = 300

Act = Literal["send", "commit", "abort", "bump", "restart", "zombie", "append", "poll", "trim"]
# Sends are frequent, so that transactions overlap; whoever sends without a transaction begins one.
RARE: list[Act] = ["abort", "bump", "restart", "zombie", "append", "poll", "poll", "trim"]
OFTEN: list[Act] = ["send", "send", "commit"]
ACTS = [*OFTEN, *OFTEN, *OFTEN, "send", "send", *RARE]
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTS), st.integers(0, 1), st.sampled_from(PARTITIONS)), min_size=20, max_size=60
)


@dataclass
class Model:
    """What happened to the partitions."""

    cells: dict[Partition, list[tuple[int, bytes]]] = field(default_factory=lambda: {p: [] for p in PARTITIONS})
    fate: dict[int, str] = field(default_factory=lambda: {0: "committed"})
    overlaps: int = 0

    def record(self, partition: Partition, transaction: int) -> bytes:
        """A new cell; gives the value to be written."""
        self.fate.setdefault(transaction, "open")
        value = b"%d" % sum(map(len, self.cells.values()))
        self.cells[partition].append((transaction, value))
        return value

    def decide(self, transaction: int, fate: str) -> None:
        """End a transaction that wrote something."""
        if transaction in self.fate:
            self.fate[transaction] = fate
            self.overlaps += "open" in self.fate.values()

    def visible(self, partition: Partition) -> list[bytes]:
        """The committed values before the first open one."""
        seen = []
        for transaction, value in self.cells[partition]:
            if self.fate[transaction] == "open":
                break
            if self.fate[transaction] == "committed":
                seen.append(value)
        return seen


class Reader:
    """Reads both partitions from the beginning."""

    def __init__(self, log: MemoryLog) -> None:
        self.consumer = log.consumer("g", ["t"], self)
        self.seen: dict[Partition, list[bytes]] = {partition: [] for partition in PARTITIONS}
        self.offsets: dict[Partition, list[int]] = {partition: [] for partition in PARTITIONS}
        self.next: dict[Partition, int] = dict.fromkeys(PARTITIONS, 0)
        self.trimmed: dict[Partition, int] = dict.fromkeys(PARTITIONS, 0)

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Cannot happen here."""
        raise AssertionError(partitions)

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """Begin at the beginning."""
        for partition in partitions:
            self.consumer.seek(partition, 0)
        self.consumer.resume(*partitions)

    async def poll(self, max_records: int = 3) -> int:
        """Take what there is; how many records that was."""
        taken = 0
        for partition, fetched in (await self.consumer.poll(0, max_records)).items():
            assert self.next[partition] <= fetched.next_offset <= fetched.high_watermark
            self.next[partition] = fetched.next_offset
            self.seen[partition] += [record.value or b"" for record in fetched.records]
            self.offsets[partition] += [record.offset for record in fetched.records]
            taken += len(fetched.records)
        return taken


class Run:
    """Plays acts on the log and on the model."""

    def __init__(self, log: MemoryLog) -> None:
        self.log, self.model, self.reader = log, Model(), Reader(log)
        self._producers: list[MemoryProducer] = []
        # The number of the open transaction of each producer; None: none begun.
        self._open: list[int | None] = [None, None]
        self._zombies: list[MemoryProducer | None] = [None, None]
        self._count = 0

    async def start(self) -> None:
        """Two producers and a reader."""
        self._producers = [self.log.producer(f"id{who}") for who in range(2)]
        for producer in self._producers:
            await producer.start()
        await self.reader.consumer.start()

    async def act(self, act: Act, who: int, partition: Partition) -> None:
        """One step."""
        match act:
            case "send":
                await self._send(who, partition)
            case "commit" | "abort":
                await self._end(who, act)
            case "bump":
                await self._producers[who].bump()
                self._drop(who)
            case "restart":
                self._zombies[who] = self._producers[who]
                self._producers[who] = self.log.producer(f"id{who}")
                await self._producers[who].start()
                self._drop(who)
            case "zombie":
                await self._zombie(who)
            case "append":
                await self.log.append([Outgoing("t", b"k", self.model.record(partition, 0), partition.index)])
            case "poll":
                await self.reader.poll()
            case "trim":
                # Whatever was read is let go.
                await self.log.trim(partition, self.reader.next[partition])
                self.reader.trimmed[partition] = len(self.reader.seen[partition])

    async def _send(self, who: int, partition: Partition) -> None:
        producer = self._producers[who]
        if self._open[who] is None:
            self._count += 1
            self._open[who] = self._count
            producer.begin()
        value = self.model.record(partition, self._open[who] or 0)
        await (await producer.send(Outgoing("t", b"k", value, partition.index)))

    async def _end(self, who: int, act: Literal["commit", "abort"]) -> None:
        transaction, self._open[who] = self._open[who], None
        if transaction is None:
            with pytest.raises(RuntimeError):
                await getattr(self._producers[who], act)()
        else:
            await getattr(self._producers[who], act)()
            self.model.decide(transaction, "committed" if act == "commit" else "aborted")

    async def _zombie(self, who: int) -> None:
        """An earlier owner wakes: it gains nothing; the owner may lose its open transaction and is healed by a bump."""
        zombie = self._zombies[who]
        if zombie is None:
            return
        with pytest.raises(Fenced):
            await zombie.bump()
        if self._open[who] is not None:
            with pytest.raises(Fenced):
                await self._producers[who].commit()
            await self._producers[who].bump()
            self._drop(who)

    def _drop(self, who: int) -> None:
        transaction, self._open[who] = self._open[who], None
        if transaction is not None:
            self.model.decide(transaction, "aborted")


async def check(steps: list[tuple[Act, int, Partition]]) -> int:
    """Play the steps and compare; how often a transaction ended while another was open."""
    run = Run(MemoryLog(clock=VirtualClock(asyncio.get_running_loop())))
    await run.log.create([TopicSpec("t", 2)])
    await run.start()
    for step in steps:
        await run.act(*step)
        for partition in PARTITIONS:
            visible = run.model.visible(partition)
            seen = run.reader.seen[partition]
            assert seen == visible[: len(seen)]
            first, end = await run.log.bounds(partition)
            # What is not trimmed reads the same at once as bit by bit.
            kept = [record.value for record in await run.log.read(partition)]
            assert kept == visible[run.reader.trimmed[partition] :]
            assert run.reader.next[partition] >= first
            assert end >= len(run.model.cells[partition])
    while await run.reader.poll():
        pass
    for partition in PARTITIONS:
        assert run.reader.seen[partition] == run.model.visible(partition)
        assert run.reader.offsets[partition] == sorted(set(run.reader.offsets[partition]))
    return run.model.overlaps


def test_a_reader_sees_exactly_the_committed_batches_in_order() -> None:
    reached: Counter[bool] = Counter()

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(STEPS)
    def law(steps: list[tuple[Act, int, Partition]]) -> None:
        reached[run_virtual(check(steps)) > 0] += 1

    law()
    # The law is about transactions that overlap; most examples must have some.
    assert reached[True] > reached[False], reached
