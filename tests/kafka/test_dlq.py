"""`evaluator dlq` against a real Kafka: from a bad record to its copy that is judged, and never a second one."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import orjson
from service import PATIENCE_S, Service, event, minutes

from evaluator.runtime.log.port import Outgoing, Partition

if TYPE_CHECKING:
    from pathlib import Path

    from support.cluster import Cluster

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
