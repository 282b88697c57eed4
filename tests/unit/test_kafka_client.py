"""What we add to clients of the Kafka library: an end whatever it raises, and what it tells nobody."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import errors
from aiokafka.protocol.fetch import FetchRequest

from evaluator.runtime.log.kafka_client import closed
from evaluator.runtime.log.kafka_fetch import note_failed_fetches
from evaluator.runtime.log.port import Partition


class Connections:
    """Of a consumer."""

    is_closed = False
    _sync_task = None

    async def close(self) -> None:
        self.is_closed = True


class Leaky:
    """A consumer whose stop lets the cancellation of its own fetch out, or waits."""

    def __init__(self, *, waits: bool = False) -> None:
        self._client = self.connections = Connections()
        self._waits = waits

    async def stop(self) -> None:
        if self._waits:
            await asyncio.Event().wait()
        raise asyncio.CancelledError


async def test_a_cancellation_that_nobody_asked_for_closes_the_connections_and_ends_there() -> None:
    consumer = Leaky()
    await closed(consumer)
    assert consumer.connections.is_closed


async def test_a_cancellation_of_ours_is_passed_on() -> None:
    closing = asyncio.create_task(closed(Leaky(waits=True)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_a_client_that_does_not_end_is_left_after_a_while() -> None:
    await closed(Leaky(waits=True), seconds=0.01)


class Refusing:
    """A Kafka client whose broker is away."""

    async def send(self, _node_id: int, _request: object) -> None:
        raise errors.NodeNotReadyError


class Consuming:
    """A consumer, as far as its client is concerned."""

    def __init__(self) -> None:
        self._client = self.client = Refusing()


def test_the_partitions_of_a_fetch_without_an_answer_are_noted_and_of_no_other_request() -> None:
    consumer, failed = Consuming(), set[Partition]()
    note_failed_fetches(consumer, failed)  # type: ignore[arg-type]  # as far as it is looked at

    async def main() -> None:
        with pytest.raises(errors.NodeNotReadyError):
            await consumer.client.send(1, object())
        assert not failed
        with pytest.raises(errors.NodeNotReadyError):
            await consumer.client.send(1, FetchRequest(250, 1, 1000, 1, [("t", [(3, 0, 10), (5, 7, 10)])]))

    asyncio.run(main())
    assert failed == {Partition("t", 3), Partition("t", 5)}
