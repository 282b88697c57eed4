"""What a task drives: the contract between the exactly-once machinery and the two stages.

A stage is plain and synchronous. It is told what was fetched and what time it is, and says what one transaction
must write; everything that waits or fails half-way is the task's.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from evaluator.errors import StateRefused, Superseded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from evaluator.core.event import DurationUs, EpochUs
    from evaluator.core.rule import RuleSet
    from evaluator.runtime.log.port import Fetched, Outgoing, Partition
    from evaluator.wire.records import Record

COMMIT_EARLY = 16 * 1024 * 1024
"""Bytes pending at which a commit does not wait for its interval, and reading waits for the commit before it."""


class Outbox:
    """What one transaction must write, progress last. `sequence` is how it is found again.

    The records are made as they are first asked for, of what the stage holds: until all are made, nothing may be
    applied to it. `in_steps` makes them one by one; where a step of the work has made none, there is a None.
    """

    def __init__(self, sequence: int, records: Iterable[Outgoing | None]) -> None:
        self.sequence = sequence
        self._made: list[Outgoing] = []
        self._is_whole = False
        self._steps = self._make(records)

    def _make(self, records: Iterable[Outgoing | None]) -> Iterator[None]:
        for record in records:
            if record is not None:
                self._made.append(record)
            yield
        self._is_whole = True

    def in_steps(self) -> Iterator[None]:
        """Make those that are not made yet, one in a step at most."""
        return self._steps

    @property
    def records(self) -> Sequence[Outgoing]:
        """All of them. Raises `RuntimeError` where making one of them failed: part of an outbox must not be sent."""
        for _ in self._steps:
            pass
        if not self._is_whole:
            message = f"the outbox with sequence {self.sequence} could not be made"
            raise RuntimeError(message)
        return self._made


class Stage(Protocol):
    """What a task drives. Pure: no waiting, no clock but the times it is given."""

    @property
    def name(self) -> str:
        """`aggregate` or `evaluate`."""

    @property
    def input(self) -> Partition:
        """The partition that is read."""

    @property
    def own(self) -> Partition:
        """The compacted partition that holds the stage's progress and state; this task is its only writer."""

    @property
    def transactional_id(self) -> str:
        """The id whose producer is the right to write for this partition."""

    @property
    def next_offset(self) -> int:
        """Where to read on."""

    @property
    def lag(self) -> int:
        """Records between us and the end of the input, as of the last fetch."""

    @property
    def watermark(self) -> EpochUs:
        """The event time up to which the input was read; `BEGINNING` before anything was."""

    @property
    def is_full(self) -> bool:
        """Whether what is pending is so much that reading should wait for the commit under way."""

    def restore(self, records: Sequence[Record], bounds: tuple[int, int], last: Record | None) -> None:
        """Become what the records of `own` (oldest first) say.

        `bounds` are those of the input, `last` is the input's record that was consumed last, if it is still
        there. Raises `StateRefused`, or `Superseded` where a newer revision of the rules ran.
        """

    def last_offset(self, records: Sequence[Record]) -> int | None:
        """The offset of the record consumed last, according to the records of `own`."""

    def sequence_of(self, records: Sequence[Record]) -> int | None:
        """The newest committed sequence among records of `own`."""

    def apply(self, fetched: Fetched) -> Fetched | None:
        """Take in what one fetch of the input returned, also when that is nothing; returns what was too much at once.

        That may be all of it, or without a record, where there is still work of what was taken in before.
        Raises `Superseded`; and `SchemasMissing`, where nothing of it was taken in.
        """

    def interrupted(self) -> None:
        """Reading was not continuous: a fetch failed, or the partition was away or held back."""

    def due(self, now: EpochUs) -> bool:
        """Whether it is time to commit. Not asked while a commit is under way."""

    def freeze(self, now: EpochUs) -> Outbox | None:
        """What is to be written since the last freeze; None when there is nothing.

        What is applied after all of it is made belongs to the next outbox, also before `committed`.
        """

    def committed(self, now: EpochUs) -> None:
        """The last frozen outbox is visible."""

    def trust_clock(self, *, trusted: bool) -> None:
        """Our clock and the broker's agree again, or do not any more."""


class Observer(Protocol):
    """Told about what took time or went wrong; the metrics implement it."""

    def restored(self, seconds: float) -> None:
        """A task took a partition over."""

    def committed(self, stage: str, seconds: float) -> None:
        """A transaction is visible."""

    def retried(self, stage: str) -> None:
        """A transaction has to be tried again."""

    def fenced(self) -> None:
        """A producer was fenced."""


class Unobserved:
    """Nobody looks: replay and simulation."""

    def restored(self, seconds: float) -> None:
        """Nothing."""

    def committed(self, stage: str, seconds: float) -> None:
        """Nothing."""

    def retried(self, stage: str) -> None:
        """Nothing."""

    def fenced(self) -> None:
        """Nothing."""


def phase_of(partition: Partition, interval: DurationUs | int) -> int:
    """Where in each interval a partition commits: commits at the same instant queue up at the broker."""
    return zlib.crc32(f"{partition.topic}/{partition.index}".encode()) % interval if interval > 0 else 0


def has_passed(last: EpochUs, now: EpochUs, interval: int, phase: int) -> bool:
    """Whether a tick of the grid `phase + n * interval` lies in (last, now]; always, where `interval` is 0."""
    return interval <= 0 or (now - phase) // interval > (last - phase) // interval


def check_revision(where: str, revision: int, config: str, rules: RuleSet) -> None:
    """Compare the configuration that wrote something with ours.

    Raises `Superseded` where it is a later revision, `StateRefused` where two differ under one number.
    """
    if revision > rules.revision:
        message = (f"{where}: revision {revision} of the rules ran before, this is revision {rules.revision}; "
                   f"raise `revision` above it to go back on purpose")  # fmt: skip
        raise Superseded(message)
    if revision == rules.revision > 0 and config != rules.hash:
        message = (f"{where}: two configurations call themselves revision {revision} "
                   f"({config} ran, this is {rules.hash}); raise `revision`")  # fmt: skip
        raise StateRefused(message)
