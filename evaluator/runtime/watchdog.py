"""What does not move any more, and cannot be mended from inside: end the process, a fresh one goes on.

Being behind is no failure, and neither is a broker that is away. A partition that is ours and that nobody
works on is one, and so is a client that fetches nothing while the log has news (its background task died, or
it waits for an answer that was lost), or a commit that does not end while the brokers answer everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import Watchdog
from evaluator.runtime.log.port import KafkaUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.crew import Crew
    from evaluator.runtime.log.port import Log, Partition

NOT_READY_S = 60.0
"""Assigned and not running: longer than any restore that is not a reason to look at it."""

GIVE_UP_S = 300.0

LOOK_EVERY_S = 30.0

STUCK_S = 120.0
"""News in the log and no answered fetch: eight request time-outs of the client."""


class _Suspect(NamedTuple):
    """Since when we know that something does not move; `mark` changes as soon as it does."""

    since: float
    mark: float


class Watch:
    """Looks at both crews. `turn` is told of each turn; `look` asks the log and runs beside the turns."""

    def __init__(self, crews: Sequence[Crew], log_port: Log, clock: Clock) -> None:
        self._crews, self._log, self._clock = crews, log_port, clock
        self._waiting: dict[tuple[str, Partition], float] = {}
        self._suspects: dict[tuple[str, Partition], _Suspect] = {}
        self._was_ready = False

    def turn(self) -> None:
        """Note who waits. Raises `Watchdog` where somebody waited too long."""
        now = self._clock.monotonic()
        waiting = {(crew.name, partition) for crew in self._crews for partition in crew.unsettled()}
        self._waiting = {place: self._waiting.get(place, now) for place in waiting}
        self._was_ready = self._was_ready or all(crew.is_settled for crew in self._crews)
        for (group, partition), since in self._waiting.items():
            if now - since > GIVE_UP_S:
                message = (f"{partition.topic}/{partition.index} was assigned to us in group {group} and could not be "
                           f"taken over for {GIVE_UP_S:.0f} s; see the log above for the cause")  # fmt: skip
                raise Watchdog(message)

    @property
    def is_ready(self) -> bool:
        """Everything that is ours was taken over once, and since then nothing has waited for long."""
        longest = self._clock.monotonic() - min(self._waiting.values(), default=self._clock.monotonic())
        return self._was_ready and longest <= NOT_READY_S

    async def look(self) -> None:
        """Ask the log about partitions that were not heard of, and commits that take long. Raises `Watchdog`."""
        now = self._clock.monotonic()
        suspects: dict[tuple[str, Partition], _Suspect] = {}
        for crew in self._crews:
            for task in crew.running():
                partition = task.stage.input
                began, seen_at = task.committing_since, crew.seen_at.get(partition, now)
                hangs = began is not None and now - began >= LOOK_EVERY_S
                unheard = not crew.is_held(partition) and now - seen_at >= LOOK_EVERY_S
                if not hangs and not unheard:
                    continue
                try:
                    _, end = await self._log.bounds(partition)
                except KafkaUnreachable:
                    # Nobody can fetch or commit either: all are given their time again when the brokers are back.
                    self._suspects.clear()
                    return
                if hangs and began is not None:
                    place = ("commit", partition)
                    suspects[place], stuck_s = self._suspected(place, began, now)
                    if stuck_s >= GIVE_UP_S:
                        message = (f"a commit of {partition.topic}/{partition.index} has not ended for {stuck_s:.0f} s "
                                   f"though the brokers answer; see the log above for its tries")  # fmt: skip
                        raise Watchdog(message)
                if unheard and end > task.stage.next_offset:
                    place = ("fetch", partition)
                    suspects[place], stuck_s = self._suspected(place, seen_at, now)
                    if stuck_s >= STUCK_S:
                        message = (f"{partition.topic}/{partition.index} has records that were not fetched for "
                                   f"{stuck_s:.0f} s; the Kafka client does not move any more")  # fmt: skip
                        raise Watchdog(message)
        self._suspects = suspects

    def _suspected(self, place: tuple[str, Partition], mark: float, now: float) -> tuple[_Suspect, float]:
        """What to remember, and for how long it has been so."""
        before = self._suspects.get(place)
        suspect = before if before is not None and before.mark == mark else _Suspect(now, mark)
        return suspect, now - suspect.since
