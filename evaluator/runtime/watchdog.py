"""What does not move any more, and cannot be mended from inside: end the process, a fresh one goes on.

Being behind is no failure, and neither is a broker that is away: nobody else could do better, and who ends then waits
out its restarts when the brokers are back. But it is no readiness either (docs/adr/0012).

| since when                                        | not ready after | ends the process after     |
| ------------------------------------------------- | --------------- | -------------------------- |
| a partition of ours waits for its task            | `NOT_READY_S`   | `GIVE_UP_S` with brokers   |
| a group has not told us what is ours              | `NOT_READY_S`   | never                      |
| no fetch of a stage was answered                  | `NOT_READY_S`   | see the next                |
| the log has news and a fetch of it has no answer  | see above       | `STUCK_S` with brokers     |
| a commit is under way                             | `NOT_READY_S`   | `GIVE_UP_S` with brokers   |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from evaluator.errors import Watchdog
from evaluator.runtime.log.port import KafkaUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.crew import Crew
    from evaluator.runtime.log.port import Log, Partition

log = structlog.get_logger(__name__)

NOT_READY_S = 60.0
"""Longer than any restore that is not a reason to look at it, and than a broker's restart (34 s were seen)."""

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
        # A None partition: the group has not told us what is ours.
        self._waiting: dict[tuple[str, Partition | None], float] = {}
        self._suspects: dict[Partition, _Suspect] = {}
        self._was_ready = self._is_ready = False
        self._away_at = clock.monotonic()

    def turn(self) -> None:
        """Note who waits; say so once when nothing moves any more, and once when everything does."""
        now = self._clock.monotonic()
        waiting: set[tuple[str, Partition | None]] = set()
        for crew in self._crews:
            if not crew.is_settled:
                places: Sequence[Partition | None] = crew.unsettled() or [None]
                waiting.update((crew.name, place) for place in places)
        self._waiting = {place: self._waiting.get(place, now) for place in waiting}
        self._was_ready = self._was_ready or not waiting
        trouble = self.trouble()
        if (trouble is None) == self._is_ready:
            return
        self._is_ready = trouble is None
        if trouble is None:
            log.info("worker.ready")
        else:
            log.warning("worker.not_ready", reason=trouble)

    def trouble(self) -> str | None:
        """Why nothing is, or might be, evaluated here; None where everything that is ours runs, or waits briefly."""
        now = self._clock.monotonic()
        if not self._was_ready:
            return "not everything that is ours was taken over yet"
        since, what = min(self._troubles(), default=(now, ""))
        return f"for {now - since:.0f} s {what}" if now - since > NOT_READY_S else None

    def _troubles(self) -> Iterator[tuple[float, str]]:
        """What does not move, and since when."""
        for (group, partition), since in self._waiting.items():
            whose = f"group {group} has not said what is ours" if partition is None else _waits(partition)
            yield since, whose
        for crew in self._crews:
            tasks = crew.running()
            # The newest of them: one whose turn comes late in a backlog is in no trouble.
            seen = [crew.seen_at[p] for task in tasks if not crew.is_held(p := task.stage.input) and p in crew.seen_at]
            if seen:
                yield max(seen), f"no broker has answered a fetch of group {crew.name}"
            for task in tasks:
                if task.committing_since is not None:
                    yield task.committing_since, f"a commit of {task.where} has been under way"

    async def look(self) -> None:
        """Ask the log whether what does not move could. Raises `Watchdog`."""
        try:
            await self._look_at_the_waiting()
            await self._look_at_the_commits()
            await self._look_at_the_silent()
        except KafkaUnreachable:
            # Nobody can do anything: all are given their time again when the brokers are back.
            self._suspects.clear()
            self._away_at = self._clock.monotonic()

    async def _look_at_the_waiting(self) -> None:
        now = self._clock.monotonic()
        waiting = [(since, group, place) for (group, place), since in self._waiting.items() if place is not None]
        since, group, partition = min(waiting, default=(now, "", None))
        if partition is None or now - since <= NOT_READY_S:
            return
        await self._log.bounds(partition)
        if now - max(since, self._away_at) > GIVE_UP_S:
            message = (f"{partition.topic}/{partition.index} was assigned to us in group {group} and could not be "
                       f"taken over for {GIVE_UP_S:.0f} s; see the log above for the cause")  # fmt: skip
            raise Watchdog(message)

    async def _look_at_the_commits(self) -> None:
        """One that hangs fills its buffer, and then its partition is held back: nobody would look at that."""
        now = self._clock.monotonic()
        for crew in self._crews:
            for task in crew.running():
                since = task.committing_since
                if since is None or now - since <= NOT_READY_S:
                    continue
                await self._log.bounds(task.stage.own)
                if now - max(since, self._away_at) > GIVE_UP_S:
                    message = (f"a commit of {task.where} has not ended for {now - since:.0f} s though the brokers "
                               f"answer; see the log above for its tries")  # fmt: skip
                    raise Watchdog(message)

    async def _look_at_the_silent(self) -> None:
        now = self._clock.monotonic()
        suspects: dict[Partition, _Suspect] = {}
        for crew in self._crews:
            for task in crew.running():
                partition = task.stage.input
                seen_at = crew.seen_at.get(partition, now)
                if crew.is_held(partition) or now - seen_at < LOOK_EVERY_S:
                    continue
                _, end = await self._log.bounds(partition)
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


def _waits(partition: Partition) -> str:
    return f"{partition.topic}/{partition.index} has waited for its task"
