"""`evaluator dlq` against a real Kafka: from a bad record to its copy that is judged, and never a second one."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson
import pytest
from service import PATIENCE_S, Service, event, minutes

from evaluator.runtime.clock import SystemClock
from evaluator.runtime.dead_letters import Wanted
from evaluator.runtime.dump import Held
from evaluator.runtime.log.kafka import KafkaLog
from evaluator.runtime.log.port import Outgoing, Partition, TopicSpec
from evaluator.runtime.republish import Insist, Outcome, Republisher, transactional_id
from evaluator.runtime.settings import KafkaSettings
from evaluator.wire.dead_letter import dead_letter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from support.cluster import Cluster

    from evaluator.runtime.log.port import TopicInfo
    from evaluator.runtime.log.steps import Step

BAD = b'{"time": "soon", "region": "goma\xc2\x9b2J"}'


class Letters:
    """The command, for the dead letters of one service."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service, self._settings = service, folder / "settings-dlq.yaml"
        self._settings.write_text(json.dumps({
            "app_id": service.app, "topics": {"dlq": service.topics.dlq},
            "kafka": {"bootstrap_servers": service.bootstrap},
        }))  # fmt: skip

    async def run(self, *words: str) -> tuple[int, str, str]:
        """The command to its end: exit code, stdout, stderr."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "evaluator", "dlq", *words, "--settings", str(self._settings),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def until(self, count: int) -> None:
        """Wait for so many records among the dead letters, notes too."""
        async with asyncio.timeout(PATIENCE_S):
            while len(await self.service.log.read(Partition(self.service.topics.dlq, 0))) < count:
                await asyncio.sleep(0.2)


async def test_a_bad_record_is_listed_shown_and_sent_again_once(kafka: Cluster, tmp_path: Path) -> None:
    async with Service(kafka, tmp_path).running() as service:
        letters = Letters(service, tmp_path)
        process = service.start()
        await service.write(minutes(0, 1))
        await service.log.append([Outgoing(service.source, b"k", BAD, 1, (("h", b"v"),))])
        await letters.until(1)
        code, out, err = await letters.run("list", "-o", "json", "--reason", "bad_value", "--since", "1h")
        assert (code, out.count("\n")) == (0, 1), err
        (told,) = map(orjson.loads, out.splitlines())
        source = {"topic": service.source, "partition": 1, "offset": 10}
        assert (code, told["source"], told["reason"]) == (0, source, "bad_value"), err
        assert (told["accepted"], told["republished"]) == (0, False)
        where = f"{told['partition']}:{told['offset']}"
        code, out, _ = await letters.run("show", where)
        assert code == 0
        assert '  {"time": "soon", "region": "goma\\x9b2J"}' in out
        assert "header    h: v" in out.splitlines()
        code, out, err = await letters.run("publish", "--all", "--dry-run")
        assert (code, out.split()[:3], err.splitlines()[0]) == (
            0, ["would", "be", "sent"], "1 would be re-published, 0 skipped, 0 impossible",
        )  # fmt: skip
        code, out, err = await letters.run("publish", "--reason", "bad_value", "--source-topic", service.source)
        assert (code, out.split()[:2]) == (0, ["sent", where]), err
        # The rules are as before, so the copy is rejected again: letter, note, letter of the copy.
        await letters.until(3)
        copy = [r for r in await service.log.read(Partition(service.source, 1)) if r.value == BAD][-1]
        assert (copy.key, copy.headers) == (
            b"k", (("h", b"v"), ("evaluator-dlq", f"{service.topics.dlq}/0/{told['offset']}".encode())),
        )  # fmt: skip
        code, out, err = await letters.run("publish", where)
        assert (code, err) == (0, "0 re-published, 1 skipped, 0 impossible\n")
        assert "its copy was rejected again and is the letter" in out
        copies = [r for r in await service.log.read(Partition(service.source, 1)) if r.value == BAD]
        assert len(copies) == 2
        assert process.popen.poll() is None, process.output()


async def test_two_who_publish_at_once_send_each_record_once(kafka: Cluster, tmp_path: Path) -> None:
    async with Service(kafka, tmp_path).running() as service:
        letters = Letters(service, tmp_path)
        service.start()
        await service.log.append([Outgoing(service.source, None, b"{%d" % n, 0) for n in range(50)])
        await service.write([event(1_769_601_600_000_000, "goma")])
        await letters.until(50)
        before = len(await service.log.read(Partition(service.source, 0)))
        await asyncio.gather(letters.run("publish", "--all"), letters.run("publish", "--all"))
        done, _, err = await letters.run("publish", "--since", "1h", "--reason", "not_json")
        assert done == 0, err
        copies = (await service.log.read(Partition(service.source, 0)))[before:]
        named = [dict(copy.headers)["evaluator-dlq"] for copy in copies]
        assert len(named) == len(set(named))
        assert {b"{%d" % n for n in range(50)} == {copy.value for copy in copies}


class Unseen(KafkaLog):
    """Who has no right to see the settings of topics."""

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicInfo]:
        return {name: info._replace(config=None) for name, info in (await super().describe(topics)).items()}


class Desk:
    """An operator's process, at a topic of dead letters of its own."""

    def __init__(self, log: KafkaLog, dlq: str) -> None:
        self.log, self.dlq, self.told = log, dlq, list[str]()

    @classmethod
    @asynccontextmanager
    async def at(cls, kafka: Cluster, dlq: str, step: Step | None = None) -> AsyncIterator[Desk]:
        log = Unseen(KafkaSettings(bootstrap_servers=kafka.bootstrap), step=step)
        await log.start()
        try:
            await log.create([TopicSpec(dlq, 1)])
            yield cls(log, dlq)
        finally:
            await log.close()

    async def reject(self, topic: str, offset: int, value: bytes) -> None:
        """Write the letter of a record of partition 0."""
        made = dead_letter(
            key=b"k", value=value, topic=topic, partition=0, offset=offset, index=0, reason="not_json", detail="no"
        )
        await self.log.append([Outgoing(self.dlq, made.key, made.value, 0, made.headers)])

    async def publish(self) -> list[Outcome]:
        """All of them."""
        producer = self.log.producer(transactional_id(self.dlq))
        clock = SystemClock()
        republisher = Republisher(self.log, self.dlq, producer, clock, Held(clock, self.told.append))
        try:
            return [outcome async for outcome in republisher.run(Wanted(), Insist())]
        finally:
            await producer.stop()

    async def values(self, topic: str) -> list[bytes | None]:
        """What a committed reader sees."""
        return [record.value for record in await self.log.read(Partition(topic, 0))]


async def test_what_the_broker_refuses_stands_before_nothing_else(kafka: Cluster) -> None:
    source, tight = kafka.name("calls"), kafka.name("tight")
    async with Desk.at(kafka, kafka.name("dlq")) as desk:
        await desk.log.create([TopicSpec(source, 1), TopicSpec(tight, 1, settings={"max.message.bytes": "5000"})])
        await desk.reject(source, 1, b"v1")
        await desk.reject(tight, 2, b"x" * 6000)
        await desk.reject(source, 1, b"v1")
        await desk.reject(source, 4, b"v4")
        fates = {str(each.found.position): (each.fate.name, each.why) for each in await desk.publish()}
        assert {where: fate for where, (fate, _) in fates.items()} == {
            "0:0": "SENT", "0:1": "IMPOSSIBLE", "0:2": "SKIPPED", "0:3": "SENT",
        }  # fmt: skip
        assert "too large" in fates["0:1"][1]
        assert (await desk.values(source), await desk.values(tight)) == ([b"v1", b"v4"], [])


@pytest.mark.parametrize("moment", ["producer.send:after", "producer.commit:before"])
async def test_who_is_cancelled_within_a_transaction_holds_no_reader_back(kafka: Cluster, moment: str) -> None:
    source, dlq, reached = kafka.name("calls"), kafka.name("dlq"), asyncio.Event()

    async def step(name: str) -> None:
        if name == moment and not reached.is_set():
            reached.set()
            await asyncio.Event().wait()

    async with Desk.at(kafka, dlq, step) as desk:
        await desk.log.create([TopicSpec(source, 1)])
        await desk.reject(source, 1, b"v1")
        publishing = asyncio.ensure_future(desk.publish())
        await reached.wait()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        await desk.log.append([Outgoing(source, None, b"fresh", 0)])
        async with asyncio.timeout(10):  # the transaction's time-out is 60 s
            while await desk.values(source) != [b"fresh"]:
                await asyncio.sleep(0.1)
        assert [each.fate.name for each in await desk.publish()] == ["SENT"]


async def test_a_read_behind_an_open_transaction_says_what_it_waits_for(kafka: Cluster) -> None:
    async with Desk.at(kafka, kafka.name("dlq")) as desk:
        other = desk.log.producer(kafka.name("other"))
        await other.start()
        other.begin()
        await (await other.send(Outgoing(desk.dlq, None, b"open", 0)))
        publishing = asyncio.ensure_future(desk.publish())
        async with asyncio.timeout(30):
            while not desk.told:
                await asyncio.sleep(0.1)
        assert not publishing.done()
        await other.abort()
        assert await publishing == []
        await other.stop()
        assert [line.split(";")[0] for line in desk.told] == [
            f"waiting at {desk.dlq}/0 offset 0: a transaction is open there"
        ]
