"""Making an outbox visible exactly once, whatever happens on the way.

    bump the epoch -> begin -> send all -> await every send -> commit

| what went wrong                      | what is known                          | what is done                      |
| ------------------------------------ | -------------------------------------- | --------------------------------- |
| a send was refused, abort returned   | nothing of it is visible               | again, `ATTEMPTS` times           |
| no answer (also to bump and abort)   | nothing                                | revive, look, again: for ever     |
| no broker                            | nothing                                | the same, with a growing pause    |
| fenced after the bump                | somebody's bump or a time-out ended it | the next bump tells, look, again  |
| fenced by a bump                     | somebody took over since               | `Fenced`: our memory is worthless |
| a record is too large                | an outbox was made wrong: a bug        | `RecordTooLarge`, at once         |
| a right is missing                   | nothing of it is visible               | `NotAuthorized`, at once          |

To look is to search the own partition for the outbox's sequence, after the bump has decided every transaction
that was open. Brokers that are away for minutes are no reason to give up: nothing gets lost by waiting, and
whoever else could do better would have taken over.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog

from evaluator.core.event import EpochUs
from evaluator.errors import EvaluatorError, StateRefused
from evaluator.runtime.log.port import Fenced, KafkaUnreachable, NotAuthorized, OutcomeUnknown, SendFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Log, Outgoing, Producer
    from evaluator.runtime.stage import Observer, Outbox, Stage
    from evaluator.runtime.turns import Turns

log = structlog.get_logger(__name__)

ATTEMPTS = 8
"""Times that one outbox may be refused: enough for a leader move, few enough to be seen in a minute."""

BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 10.0

TAIL = 100
"""Records and markers of others' bumps between our last transaction and the end, besides our own tries."""


class Stamp(NamedTuple):
    """When a transaction was sent and acknowledged by our clock, and appended by the broker's (-1: unknown)."""

    sent: EpochUs
    acknowledged: EpochUs
    appended_ms: int


@dataclass(slots=True)
class _Trouble:
    """What went wrong with one outbox so far. `in_doubt`: it may be visible."""

    in_doubt: bool = False
    refusals: int = 0
    silences: int = 0


class Delivery:
    """The producer of one task, and how it comes back from failures."""

    def __init__(self, stage: Stage, log_port: Log, clock: Clock, observer: Observer, turns: Turns) -> None:
        self._turns = turns
        self._stage, self._log, self._clock, self._observe = stage, log_port, clock, observer
        self._producer: Producer = log_port.producer(stage.transactional_id)
        self._is_dead = False

    async def start(self) -> None:
        """Take the transactional id over; whoever had it is fenced."""
        await self._producer.start()

    async def keep_alive(self) -> None:
        """Use the transactional id, which the brokers forget after seven days. Raises `Fenced`."""
        try:
            await self._own()
        except (SendFailed, OutcomeUnknown, KafkaUnreachable) as error:
            self._is_dead = True
            log.warning("producer.keep_alive_failed", transactional_id=self._stage.transactional_id, error=str(error))

    async def stop(self) -> None:
        """Release the producer."""
        await self._producer.stop()

    async def deliver(self, outbox: Outbox) -> Stamp | None:
        """Return when `outbox` is visible; None where it was found, instead of sent by this last try.

        Raises `Fenced`, `SendFailed` after `ATTEMPTS` refusals, `RecordTooLarge`, `NotAuthorized`, `StateRefused`.
        """
        trouble = _Trouble()
        while True:
            try:
                await self._own()
                if trouble.in_doubt and await self._is_visible(outbox):
                    return None
                trouble.in_doubt = False
                return await self._attempt(outbox, trouble)
            except SendFailed as error:
                trouble.refusals += 1
                if trouble.refusals == ATTEMPTS:
                    raise SendFailed(self._gave_up()) from error
                await self._again(error, trouble.refusals)
            except (OutcomeUnknown, KafkaUnreachable) as error:
                # The client may still be retrying under the old epoch: only a new one may bump past it.
                self._is_dead = trouble.in_doubt = True
                trouble.silences += 1
                await self._again(error, trouble.silences)

    async def _own(self) -> None:
        """Raise the epoch, through a new client where the old one is dead. Raises `Fenced` for all but the owner."""
        try:
            await (self._producer.revive() if self._is_dead else self._producer.bump())
        except Fenced:
            self._observe.fenced()
            raise
        except SendFailed:
            self._is_dead = True
            raise
        self._is_dead = False

    async def _attempt(self, outbox: Outbox, trouble: _Trouble) -> Stamp:
        self._producer.begin()
        sent = self._clock.now()
        try:
            sends = await self._send(outbox.records)
            # A failed send does not fail the commit: without this the commit would succeed without it.
            appended = [await send for send in sends]
            acknowledged = self._clock.now()
            await self._producer.commit()
        except SendFailed:
            await self._abort(trouble)
            raise
        except NotAuthorized:
            # This process ends. Left open, the transaction would hold back all readers until it times out.
            with suppress(EvaluatorError):
                await self._producer.abort()
            raise
        except Fenced as error:
            # A stale owner's bump can abort our transaction once, and so does its time-out. The next bump tells.
            raise self._interrupted(trouble) from error
        return Stamp(sent, acknowledged, appended[-1] if appended else -1)

    async def _send(self, records: Iterable[Outgoing]) -> list[Awaitable[int]]:
        sends, turn = [], self._turns.begin()
        for record in records:
            sends.append(await self._producer.send(record))
            if turn.is_over:
                await turn.give_way()
        return sends

    async def _abort(self, trouble: _Trouble) -> None:
        try:
            await self._producer.abort()
        except Fenced as error:
            raise self._interrupted(trouble) from error

    def _interrupted(self, trouble: _Trouble) -> SendFailed:
        self._observe.fenced()
        trouble.in_doubt = True
        return SendFailed(f"the transaction of {self._stage.transactional_id} was ended by somebody else")

    async def _again(self, error: Exception, times: int) -> None:
        pause = min(LONGEST_BACKOFF_S, BACKOFF_S * (1 << min(times - 1, 10)))
        log.warning("commit.retried", partition=self._where(), times=times, pause_s=pause, error=str(error))
        self._observe.retried(self._stage.name)
        await self._clock.sleep(pause)

    async def _is_visible(self, outbox: Outbox) -> bool:
        own = self._stage.own
        _, end = await self._log.bounds(own)
        tail = await self._log.read(own, max(0, end - 2 * len(outbox.records) - TAIL))
        newest = self._stage.sequence_of(tail)
        if newest is None:
            newest = self._stage.sequence_of(await self._log.read(own))
        if newest is not None and newest > outbox.sequence:
            # Somebody took over between our bump and this look: then the next bump is refused. Else it is a riddle.
            await self._own()
            message = (f"{own.topic}/{own.index}: sequence {newest} was written by another owner, ours is "
                       f"{outbox.sequence}; two apps must not share an app_id")  # fmt: skip
            raise StateRefused(message)
        return newest == outbox.sequence

    def _where(self) -> str:
        return f"{self._stage.input.topic}/{self._stage.input.index}"

    def _gave_up(self) -> str:
        return (f"{self._stage.name} of {self._where()}: a commit failed {ATTEMPTS} times; "
                f"see the log above for the cause")  # fmt: skip
