"""What does not move any more, and cannot be mended from inside: end the process, a fresh one goes on.

Being behind is no failure, and neither is a broker that is away. A partition that is ours and that nobody
works on is one, and so is a client that fetches nothing while the log has news (its background task died, or
it waits for an answer that was lost).
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
    """Since when we know of news that nobody fetched; `seen_at` is when the partition was last heard of."""

    since: float
    seen_at: float


class Watch:
    """Looks at both crews. `turn` is told of each turn; `look` asks the log and runs beside the turns."""

    def __init__(self, crews: Sequence[Crew], log_port: Log, clock: Clock) -> None:
        self._crews, self._log, self._clock = crews, log_port, clock
        self._waiting: dict[tuple[str, Partition], float] = {}
        self._suspects: dict[Partition, _Suspect] = {}
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
        """Ask the log whether there is news of partitions that were not heard of. Raises `Watchdog`."""
        now = self._clock.monotonic()
        suspects: dict[Partition, _Suspect] = {}
        for crew in self._crews:
            for task in crew.running():
                partition = task.stage.input
                seen_at = crew.seen_at.get(partition, now)
                if crew.is_held(partition) or now - seen_at < LOOK_EVERY_S:
                    continue
                try:
                    _, end = await self._log.bounds(partition)
                except KafkaUnreachable:
                    # Nobody can fetch either: a client is given its time again when the brokers are back.
                    self._suspects.clear()
                    return
                if end > task.stage.next_offset:
                    suspects[partition] = self._suspected(partition, seen_at, now)
        self._suspects = suspects

    def _suspected(self, partition: Partition, seen_at: float, now: float) -> _Suspect:
        before = self._suspects.get(partition)
        if before is None or before.seen_at != seen_at:
            return _Suspect(now, seen_at)
        if now - before.since >= STUCK_S:
            message = (f"{partition.topic}/{partition.index} has records that were not fetched for "
                       f"{now - before.since:.0f} s; the Kafka client does not move any more")  # fmt: skip
            raise Watchdog(message)
        return before
