"""What may happen to processes, decided by one generator of chance: a seed is a run, to the byte.

A process lives through the `step` hook of its connection: it is awaited before and after every effect that the
process has on the log, and around each of its polls. There the scheduler lets it wait, tells it lies, freezes it
or ends it. A process that is frozen or dead simply gets no further than its next step: nothing of it cleans up.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import EvaluatorError
from evaluator.runtime.log.port import KafkaUnreachable, OutcomeUnknown, RecordTooLarge, SendFailed
from evaluator.runtime.log.steps import Adrift

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from evaluator.runtime.clock import Clock

OPEN = {"producer.send:after", "producer.commit:before"}
"""Moments at which a transaction of the process is open and holds a record."""

SILENCE: dict[str, type[EvaluatorError]] = {
    "producer.start": KafkaUnreachable,
    "producer.bump": OutcomeUnknown,
    "producer.send": OutcomeUnknown,
    "producer.commit": OutcomeUnknown,
    "producer.abort": OutcomeUnknown,
    "consumer.poll": KafkaUnreachable,
    "consumer.confirm": KafkaUnreachable,
    "consumer.commit": KafkaUnreachable,
    "log.read": KafkaUnreachable,
    "log.bounds": KafkaUnreachable,
}
"""What a client says when no answer came, by effect."""

ANSWERED = {"producer.start", "producer.bump", "producer.send", "producer.commit", "producer.abort"}
"""Effects whose lost answer is worth a lie: the others change nothing."""

RECOVERY = {"producer.bump", "producer.start", "log.bounds", "log.read"}
"""What a process does between a lost answer and its next try: the end of a transaction may arrive at any step of it."""

REQUEST_S = 3.0
"""How long a client waits for an answer."""


class Odds(NamedTuple):
    """Chances per step, of each kind of fault; a seed switches some of them off altogether."""

    crash: float = 0.0
    crash_open: float = 0.0
    lost_request: float = 0.0
    lost_answer: float = 0.0
    late_end: float = 0.0
    refused: float = 0.0
    slow: float = 0.0


class Over(BaseException):
    """The simulation ended: whatever still waits is let go."""


class Life:
    """What the scheduler knows of one process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.ended = asyncio.Event()
        self.starts = self.confirms = 0
        self.too_large = False
        self.refused_at: list[float] = []

    def end(self) -> None:
        """Nothing of it happens any more."""
        self.is_dead = True
        self.ended.set()


class Scheduler:
    """See above. `counts` says what really hit."""

    def __init__(self, rng: random.Random, clock: Clock, odds: Odds, crashes: set[int]) -> None:
        """`crashes`: the numbers of sends, over all processes, right after which the process that sent dies."""
        self.rng, self.clock = rng, clock
        self.odds = odds
        self.counts: Counter[str] = Counter()
        self.outage_until = -1e9
        self.too_large_at: int | None = None
        self.is_quiet = False
        self.first_open_crash: float | None = None
        self._is_over = False
        # Ends of transactions that are on their way: whose, how many steps of a recovery they take, and what they do.
        self._adrift: list[tuple[Life, int, Callable[[], object]]] = []
        self._crashes = crashes
        self._sends = 0
        self._happened: list[str] = []
        self._never = asyncio.Event()
        self._most = sum(odds)  # mostly nothing happens, which should cost nothing

    @property
    def digest(self) -> str:
        """Of everything that happened so far: two runs of a seed have the same."""
        return hashlib.blake2b("\n".join(self._happened).encode(), digest_size=16).hexdigest()

    def over(self) -> None:
        """Let go of everybody."""
        self._is_over = True
        self._never.set()

    async def at(self, life: Life, moment: str) -> None:
        """A step of a process: wait, fail, freeze or die, as chance has it."""
        await self._hold(life)
        self._happened.append(f"{life.name} {moment} {self.clock.monotonic()!r}")
        effect, _, side = moment.partition(":")
        if moment == "producer.start:before":
            life.starts += 1
        elif moment == "consumer.confirm:after":
            life.confirms += 1
        if self._adrift and effect in RECOVERY:
            self._nearer(life)
        if life.too_large and moment == "producer.send:before":
            raise RecordTooLarge(moment, b"key", 1)
        if side == "before" and self.clock.monotonic() < self.outage_until:
            await self._unanswered(effect)
        if not self.is_quiet:
            await self._disturb(life, moment, effect, side)
            await self._hold(life)
        elif self.rng.random() < _HURRIED:
            await self.clock.sleep(self.rng.random() * 0.01)
            await self._hold(life)

    async def _hold(self, life: Life) -> None:
        """Where a frozen process waits, and a dead one ends."""
        while life.is_dead or not life.thawed.is_set():
            await (self._never if life.is_dead else life.thawed).wait()
            if self._is_over:
                raise Over
        if self._is_over:
            raise Over

    async def _disturb(self, life: Life, moment: str, effect: str, side: str) -> None:
        if moment == "producer.send:after":
            self._sends += 1
            if self._sends in self._crashes:
                self.crash(life, moment)
                return
        chance = self.rng.random()
        if chance > _INTERESTING:
            await self.clock.sleep(_delay(self.rng))
            chance = self.rng.random()
        if chance > self._most:
            return
        for kind, happen in self._choices(life, moment, effect, side):
            odds: float = getattr(self.odds, kind)
            if chance < odds:
                await happen()
                return
            chance -= odds

    def _choices(self, life: Life, moment: str, effect: str, side: str) -> list[tuple[str, Callable[[], object]]]:
        """What could go wrong here."""

        async def crash() -> None:
            self.crash(life, moment)

        async def slow() -> None:
            self.counts["slow"] += 1
            await self.clock.sleep(self.rng.choice((0.5, 2.0, 8.0, 15.0)))

        async def silent() -> None:
            self.counts[f"lost {'answer' if side == 'after' else 'request'}"] += 1
            await self._unanswered(effect)

        choices: list[tuple[str, Callable[[], object]]] = [("crash", crash), ("slow", slow)]
        if moment in OPEN:
            choices.append(("crash_open", crash))
        if side == "before" and effect in SILENCE:
            choices.append(("lost_request", silent))
        if side == "after" and effect in ANSWERED:
            choices.append(("lost_answer", silent))
        if moment == "producer.commit:before":
            choices.append(("late_end", partial(self._drift, life)))
        if moment == "producer.send:before":
            choices.append(("refused", self._refuse_or_too_large(life)))
        return choices

    async def _unanswered(self, effect: str) -> None:
        await self.clock.sleep(REQUEST_S)
        error = SILENCE.get(effect)
        if error is not None:
            message = "no answer came"
            raise error(message)

    async def _drift(self, life: Life) -> None:
        """The end of a transaction is on its way, and arrives when the client has long given up."""
        delay = REQUEST_S + self.rng.random() ** 2 * 12
        steps = self.rng.randrange(1, 9) if self.rng.random() < _BY_STEPS else 0
        loop = asyncio.get_running_loop()

        def later(effect: Callable[[], object]) -> None:
            if steps:
                self._adrift.append((life, steps, effect))
            else:
                loop.call_later(delay, self._arrive, effect)

        await self.clock.sleep(REQUEST_S)
        message = "no answer came"
        raise Adrift(OutcomeUnknown(message), later)

    def _nearer(self, life: Life) -> None:
        """The process went one step of its recovery; what a dead one sent meets whoever takes over."""
        coming = [(whose, left - (whose is life or whose.is_dead), effect) for whose, left, effect in self._adrift]
        self._adrift = [one for one in coming if one[1]]
        for _, left, effect in coming:
            if not left:
                self._arrive(effect)

    def _arrive(self, effect: Callable[[], object]) -> None:
        self.counts["late end"] += 1
        try:
            effect()
        except (EvaluatorError, RuntimeError):
            self.counts["late end refused"] += 1

    def _refuse_or_too_large(self, life: Life) -> Callable[[], object]:
        async def refuse() -> None:
            if self.too_large_at is not None and self.clock.monotonic() >= self.too_large_at:
                self.too_large_at = None
                self.counts["too large"] += 1
                life.too_large = True
                raise RecordTooLarge(life.name, b"key", 1)
            self.counts["refused"] += 1
            life.refused_at.append(self.clock.monotonic())
            message = "the broker refused it"
            raise SendFailed(message)

        return refuse

    def crash(self, life: Life, moment: str) -> None:
        """The process is gone."""
        if not life.is_dead:
            self.counts["crash"] += 1
            if moment in OPEN:
                self.counts["crash in a transaction"] += 1
                if self.first_open_crash is None:
                    self.first_open_crash = self.clock.monotonic()
            life.end()


_HURRIED = 0.2
"""Of the steps of a quiet time, how many take any time."""

_BY_STEPS = 0.5
"""Of the late ends of transactions, how many arrive at a step of the recovery instead of at a time."""

_INTERESTING = 0.85
"""Above it a step takes time, which is what interleaves the processes."""


def _delay(rng: random.Random) -> float:
    """Of a request: mostly a few milliseconds."""
    return rng.random() ** 3 * 0.2
