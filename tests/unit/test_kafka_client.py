"""Clients of the Kafka library are closed whatever it raises meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from evaluator.runtime.log.kafka_client import closed


class Connections:
    """Of a consumer."""

    is_closed = False

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
