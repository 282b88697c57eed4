"""`evaluator run` as a process of its own, that may kill itself at a chosen moment of a transaction.

    python process.py RULES SETTINGS SESSION_MS [FAILPOINT]

FAILPOINT is JSON: the transactional stage (`aggregate`, `evaluate`), the moment (`first_send`: the broker has
acknowledged the first record; `before_commit`: all of them, and the commit was not asked for), and what is pending
in it: a status of an alert for stage 2, a watermark in microseconds for stage 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evaluator.errors import EvaluatorError
from evaluator.runtime import logs
from evaluator.runtime.daemon import Run, run
from evaluator.runtime.log.kafka import KafkaLog
from evaluator.runtime.log.kafka_client import Patience
from evaluator.runtime.log.kafka_producer import KafkaProducer
from evaluator.runtime.settings import load
from evaluator.wire import partial as partial_wire
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from evaluator.runtime.log.port import Outgoing


class MortalProducer(KafkaProducer):
    """Kills its process with the transaction open."""

    failpoint: dict[str, Any]
    is_pending = False

    async def send(self, record: Outgoing) -> Awaitable[int]:
        answer = await super().send(record)
        if self._holds(record):
            self.is_pending = True
            if self.failpoint["moment"] == "first_send":
                await answer
                os.kill(os.getpid(), signal.SIGKILL)
        return answer

    def _holds(self, record: Outgoing) -> bool:
        if record.value is None:
            return False
        if self.failpoint["stage"] == "aggregate":
            is_partial = record.topic.endswith(".partials")
            return is_partial and partial_wire.decode(record.value).time.watermark >= self.failpoint["pending"]
        return record.topic == self.failpoint["alerts"] and bool(
            orjson.loads(record.value)["status"] == self.failpoint["pending"]
        )

    async def commit(self) -> None:
        if self.is_pending:
            os.kill(os.getpid(), signal.SIGKILL)
        await super().commit()


class MortalLog(KafkaLog):
    """Gives out such producers."""

    failpoint: dict[str, Any] | None = None

    def producer(self, transactional_id: str) -> KafkaProducer:
        if self.failpoint is None or f".{self.failpoint['stage']}." not in transactional_id:
            return super().producer(transactional_id)
        mortal = MortalProducer(self._connected(), transactional_id, self._steps, self._patience)
        mortal.failpoint = self.failpoint
        return mortal


async def main() -> int:
    rules, settings_file, session_ms, *failpoint = sys.argv[1:]
    settings = load(Path(settings_file), environ={})
    logs.configure("info", "json")
    log = MortalLog(settings.kafka, patience=Patience(session_ms=int(session_ms), heartbeat_ms=500))
    if failpoint:
        log.failpoint = {**json.loads(failpoint[0]), "alerts": settings.topics.alerts}
    await log.start()
    try:
        return await run(Run(load_rules([Path(rules)]), settings, log, lambda _: None))
    finally:
        await log.close()


if __name__ == "__main__":
    try:
        code = asyncio.run(main())
    except EvaluatorError as error:
        # As the command line does.
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    sys.exit(code)
