"""Traps 12, 15, 17 and 18 of docs/exactly-once.md, 4, and records that are gone before they were read.

They are about time and amounts: what takes long here takes a day, or an hour of traffic, in production.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from aiokafka import errors
from kafka.service import MINUTE_US, START_US, Service, minutes
from kafka.test_traps import member, opened, ours, raw, topic, values, written
from support.cluster import Cluster, own_broker

from evaluator.core.event import SECOND
from evaluator.errors import Watchdog
from evaluator.runtime.clock import SystemClock
from evaluator.runtime.log.kafka_client import probe
from evaluator.runtime.log.port import KafkaUnreachable, Outgoing, Partition
from evaluator.runtime.moved import watch_addresses
from evaluator.runtime.settings import KafkaSettings
from evaluator.runtime.stage import phase_of
from evaluator.runtime.worker import Pace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from evaluator.runtime.log.kafka_producer import KafkaProducer

TURN_S = 0.05
"""Of the event loop, in its own time: heartbeats and the answers of others wait for it."""


async def test_12_one_fetch_is_handed_out_in_turns_that_are_short(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka)
        async with member(log, kafka, place.topic) as reader:
            while not reader.journal:
                await reader.poll()
            reader.consumer.pause(place)
            for _ in range(2):
                # So small that one fetch of half a megabyte holds more of them than a poll may hand out.
                await log.append([Outgoing(place.topic, None, b"x" * 60, 0) for _ in range(20_000)])
            reader.consumer.resume(place)
            sizes, turns, reached = [], [], 0
            async with asyncio.timeout(60):
                while reached < 40_000:
                    began = time.thread_time()
                    fetched = await reader.consumer.poll(0.3, Pace().max_records)
                    turns.append(time.thread_time() - began)
                    sizes += [len(one.records) for one in fetched.values()]
                    reached = max([reached, *(one.next_offset for one in fetched.values())])
    assert max(sizes) == Pace().max_records
    assert statistics.median(turns) < TURN_S


async def test_17_a_transactional_id_that_was_idle_is_forgotten_and_our_next_bump_brings_it_back() -> None:
    broker = own_broker(
        transactional__id__expiration__ms="1500",
        transaction__remove__expired__transaction__cleanup__interval__ms="500",
    )
    await asyncio.to_thread(broker.start)
    try:
        async with (
            opened(broker.bootstrap) as log,
            raw(broker.bootstrap, "theirs") as theirs,
            ours(log, "idle") as idle,
        ):
            place = await topic(log, Cluster(broker.bootstrap))
            async with theirs.transaction():
                await theirs.send_and_wait(place.topic, b"1", partition=0)
            await written(idle, place, b"2")
            async with ours(log, "kept") as kept:
                before = kept._own  # noqa: SLF001  # who the broker believes us to be
                for _ in range(8):
                    await asyncio.sleep(0.5)
                    await kept.bump()
                assert before is not None
                assert kept._own is not None  # noqa: SLF001  # see above
                assert kept._own.pid == before.pid  # noqa: SLF001  # used now and then, it was never forgotten
            await theirs.begin_transaction()
            with pytest.raises((errors.KafkaError, AssertionError)):
                await theirs.send_and_wait(place.topic, b"lost", partition=0)
            await written(idle, place, b"3")
            assert await values(log, place) == [b"1", b"2", b"3"]
    finally:
        await asyncio.to_thread(broker.close)


async def test_18_commits_spread_over_the_interval_do_not_queue_up(kafka: Cluster) -> None:
    count, interval_us = 32, SECOND
    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka, count)
        producers = [log.producer(kafka.name("t")) for _ in range(count)]
        for producer in producers:
            await producer.start()
            await written(producer, place, b"first")

        async def took(index: int, producer: KafkaProducer, phase_us: int) -> float:
            await asyncio.sleep(phase_us / SECOND)
            began = time.monotonic()
            await written(producer, Partition(place.topic, index), b"x")
            return time.monotonic() - began

        async def median(phase: Callable[[int], int]) -> float:
            work = [took(index, producer, phase(index)) for index, producer in enumerate(producers)]
            return statistics.median(await asyncio.gather(*work))

        at_once = await median(lambda _: 0)
        spread = await median(lambda index: phase_of(Partition(place.topic, index), interval_us))
        await asyncio.gather(*(producer.stop() for producer in producers))
    assert spread < at_once / 2


class Hurried(SystemClock):
    """Thirty times as fast."""

    FACTOR = 30

    def monotonic(self) -> float:
        return super().monotonic() * self.FACTOR

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / self.FACTOR)


async def test_15_brokers_that_come_back_elsewhere_are_found_by_a_fresh_client_only_which_ends_us() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        elsewhere = one.getsockname()[1]
    broker = own_broker()
    await asyncio.to_thread(broker.start)
    both = KafkaSettings(bootstrap_servers=f"{broker.bootstrap},127.0.0.1:{elsewhere}")
    try:
        async with opened(both.bootstrap_servers) as log:
            place = await topic(log, Cluster(broker.bootstrap))
            await asyncio.to_thread(broker.move, elsewhere)
            await probe(both, "test")
            with pytest.raises(KafkaUnreachable):
                await log.describe([place.topic])
            async with asyncio.timeout(60):
                with pytest.raises(Watchdog, match="only a fresh start asks for the new ones"):
                    await watch_addresses(lambda: log.describe([place.topic]), lambda: probe(both, "test"), Hurried())
        async with opened(both.bootstrap_servers) as log:
            assert place.topic in await log.describe([place.topic])
    finally:
        await asyncio.to_thread(broker.close)


async def test_records_that_are_gone_before_they_were_read_are_given_up_only_on_request(
    kafka: Cluster, tmp_path: Path
) -> None:
    async with Service(kafka, tmp_path).running() as service:
        first = service.start()
        await service.write([*minutes(0, 2), *minutes(2, 6, bad=True), *minutes(6, 9)])
        before = await service.until(4, first)
        await caught_up(service)
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0, first.output()
        await service.write([*minutes(9, 11), *minutes(11, 20, bad=True)])
        for index in range(service.partitions):
            place = Partition(service.source, index)
            await service.log.trim(place, (await service.log.bounds(place))[1])
        refused = service.start()
        assert await refused.ended() == 78, refused.output()
        assert "start once with --accept-data-loss to go on with a gap in coverage" in refused.output()
        assert await service.alerts() == before
        command = [sys.executable, "-m", "evaluator", "run", "--config", str(service.rules), "--settings",
                   str(tmp_path / "settings-1.yaml"), "--accept-data-loss"]  # fmt: skip
        with (tmp_path / "accepting.log").open("wb") as stream:
            accepting = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            await service.write([*minutes(20, 26), *minutes(26, 30, bad=True), *minutes(30, 34)])
            after = (await service.until(len(before) + 4))[len(before) :]
        finally:
            accepting.send_signal(signal.SIGTERM)
            await asyncio.to_thread(accepting.wait, 40)
        # Nothing is judged of the minutes that nobody saw: neither good nor bad.
        assert {alert["startsAt"] for alert in after} == {clock(26)}
        assert [alert["status"] for alert in after].count("firing") == 2


def clock(minute: int) -> str:
    """When a minute of the traffic begins."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((START_US + minute * MINUTE_US) // SECOND))


async def caught_up(service: Service) -> None:
    """Wait until everything that was written is committed by stage 1."""
    ends = {
        index: (await service.log.bounds(Partition(service.source, index)))[1] for index in range(service.partitions)
    }
    async with asyncio.timeout(30):
        while await service.progress() != ends:
            await asyncio.sleep(0.2)
