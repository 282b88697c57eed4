"""`evaluator run` as a process of its own that can be hurt from inside.

    python child.py RULES SETTINGS HARM

HARM is JSON, see `Harm`. What is hurt is counted in the log, a line `harm.done` each time.
"""

# The background tasks have no public names; what they do when they die is what is tried here.
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from evaluator.errors import EvaluatorError
from evaluator.runtime import logs
from evaluator.runtime.daemon import Run, run
from evaluator.runtime.log import kafka_client
from evaluator.runtime.log.kafka import KafkaLog
from evaluator.runtime.log.kafka_client import Patience
from evaluator.runtime.settings import load
from evaluator.wire.codecs import CODECS, Codecs
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.runtime.log.kafka_consumer import KafkaConsumer
    from evaluator.runtime.log.kafka_producer import KafkaProducer
    from evaluator.runtime.log.port import Rebalance

log = structlog.get_logger("harm")


class Harm:
    """What to do to this process, and how patient it is.

    `patience`: fields of `Patience`. `request_timeout_ms`: of the Kafka client. `constants`: `module:NAME` to a
    value, for limits that would take minutes. `hooks`: at which moment of the log (`log.read:before`) to sleep
    (`sleep_s`), to block the loop (`block_s`) or to be killed (`kills`), how often (`times`), after how many times
    (`after`). `group`: added to the names of the groups, so that this process alone believes to own everything.
    `release`: "next" is one after this, with other schemas (`support.next_release`).
    `usr1`: what SIGUSR1 does: `end:TASK` of the Kafka client, `files:N` and `memory:BYTES` set limits,
    `block:SECONDS` blocks the loop.
    """

    def __init__(self, wish: dict[str, Any]) -> None:
        self.patience = Patience(**wish.get("patience", {}))
        self.request_timeout_ms: int | None = wish.get("request_timeout_ms")
        self.constants: dict[str, float] = wish.get("constants", {})
        self.usr1: str | None = wish.get("usr1")
        self.group: str = wish.get("group", "")
        self.codecs = _next_release() if wish.get("release") == "next" else CODECS
        self._hooks: list[dict[str, Any]] = wish.get("hooks", [])
        self._done = [0] * len(self._hooks)

    async def step(self, moment: str) -> None:
        """Wait or block where a hook says so."""
        for index, hook in enumerate(self._hooks):
            if hook["at"] != moment or self._done[index] >= hook.get("times", 1_000_000):
                continue
            if hook.get("after", 0) > 0:
                hook["after"] -= 1
                continue
            self._done[index] += 1
            if hook.get("kills"):
                os.kill(os.getpid(), signal.SIGKILL)
            log.info("harm.done", what=moment)
            await asyncio.sleep(hook.get("sleep_s", 0))
            if hook.get("block_s"):
                _block(hook["block_s"])

    def limit(self) -> None:
        """Be less patient."""
        if self.request_timeout_ms is not None:
            # Every client is made with what `connection` says at that time.
            kafka_client.REQUEST_TIMEOUT_MS = self.request_timeout_ms
        for name, value in self.constants.items():
            module, _, constant = name.partition(":")
            setattr(importlib.import_module(module), constant, value)


class FragileLog(KafkaLog):
    """Remembers its clients, so that their background tasks can be ended."""

    def __init__(self, *args: Any, group: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.group = group
        self.consumers: list[KafkaConsumer] = []
        self.producers: list[KafkaProducer] = []

    def consumer(self, group: str, topics: Sequence[str], rebalance: Rebalance, note: str = "") -> KafkaConsumer:
        self.consumers.append(super().consumer(group + self.group, topics, rebalance, note))
        return self.consumers[-1]

    def producer(self, transactional_id: str) -> KafkaProducer:
        self.producers.append(super().producer(transactional_id))
        return self.producers[-1]

    def background(self, name: str) -> list[asyncio.Task[Any]]:
        """The background tasks of this kind."""
        consumers = [c._kafka for c in self.consumers if c._kafka is not None]
        producers = [p._kafka for p in self.producers if p._kafka is not None]
        found: dict[str, list[Any]] = {
            "fetcher": [c._fetcher._fetch_task for c in consumers],
            "coordinator": [c._coordinator._coordination_task for c in consumers],
            "heartbeat": [c._coordinator._heartbeat_task for c in consumers],
            "metadata": [c._client._sync_task for c in consumers],
            "sender": [p._sender.sender_task for p in producers],
            "producer-metadata": [p.client._sync_task for p in producers],
            "tail": [r._fetcher._fetch_task for r in _readers()],
            "worker": [task for task in asyncio.all_tasks() if task.get_name() == "worker"],
            "loop lag": [task for task in asyncio.all_tasks() if task.get_name() == "loop lag"],
        }
        return [task for task in found[name] if task is not None and not task.done()]


def _readers() -> list[Any]:
    """The consumers outside any group: aiokafka's tasks know their object."""
    found = []
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        owner: Any = None if frame is None else frame.f_locals.get("self")
        if type(owner).__name__ != "Fetcher":
            continue
        if type(owner._subscriptions.subscription).__name__ == "ManualSubscription":
            found.append(type("Reader", (), {"_fetcher": owner}))
    return found


def _next_release() -> Codecs:
    """Read only where it is asked for: it is no part of the program."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    release: Any = importlib.import_module("support.next_release")
    codecs: Codecs = release.NEXT
    return codecs


def _block(seconds: float) -> None:
    time.sleep(seconds)  # the whole loop, on purpose


def _strike(wish: str, fragile: FragileLog) -> None:
    """What SIGUSR1 does."""
    what, _, value = wish.partition(":")
    count = 1
    if what == "end":
        tasks = fragile.background(value)
        count = len(tasks)
        for task in tasks:
            task.cancel()
    elif what == "files":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(value), hard))
    elif what == "memory":
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(value), hard))
    else:
        _block(float(value))
    log.info("harm.done", what=wish, count=count)


async def main() -> int:
    rules, settings_file, wish = sys.argv[1:]
    harm = Harm(json.loads(wish))
    harm.limit()
    settings = load(Path(settings_file), environ={})
    logs.configure(settings.log.level, "json")
    fragile = FragileLog(settings.kafka, step=harm.step, patience=harm.patience, group=harm.group)
    if harm.usr1 is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _strike, harm.usr1, fragile)
    try:
        await fragile.start()
        config = load_rules([Path(rules)])
        return await run(Run(config, settings, fragile, lambda _: None, codecs=harm.codecs))
    finally:
        await fragile.close()


if __name__ == "__main__":
    try:
        code = asyncio.run(main())
    except EvaluatorError as error:
        # As the command line does.
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    sys.exit(code)
