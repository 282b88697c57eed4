"""The last net under the decoders: what nobody foresaw in one record stops no other (docs/adr/0020).

A decoder is total: whatever bytes a record holds, it gives events or rejections, and fuzzing is there to show it. Where
that is not so after all, the record in the log would end this process, and every other one that takes over, at the same
offset. Here it is found, by halves, and becomes a dead letter like any other, which can be sent again after the upgrade
that mends the bug.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import PurePath
from traceback import format_tb
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import structlog

from evaluator.errors import EvaluatorError
from evaluator.wire.rejection import MAX_DETAIL, Reason, Rejection

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Collection, Sequence

    from evaluator.core.event import EpochUs, Int64s, Picked, SeriesTable
    from evaluator.runtime.log.port import Partition
    from evaluator.wire.decode import Decoded
    from evaluator.wire.records import Record

log = structlog.get_logger(__name__)

A = TypeVar("A")
T = TypeVar("T")

MOST = 1 << 20
"""Records at once while nothing fails: more than any fetch has."""


class Decoder(Protocol):
    """What `SourceDecoder` does. A call that raises has learned nothing: it may be made again with fewer records."""

    def check(self, records: Sequence[Record]) -> None:
        """Raises `SchemasMissing`."""

    def decode(
        self, records: Sequence[Record], table: SeriesTable, now: EpochUs | None, recorded: Collection[tuple[int, int]]
    ) -> Decoded:
        """Decode some of the records, the first ones."""

    def prime(self, records: Sequence[Record], recorded: Collection[tuple[int, int]]) -> int:
        """Learn ids."""


class _Bug(NamedTuple):
    """What a decoder raised."""

    error: Exception

    @property
    def kind(self) -> str:
        """What was raised and where: one for each bug, whatever the records hold."""
        trace = self.error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = "" if trace is None else f" at {PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        return f"{type(self.error).__name__}{where}"

    @property
    def detail(self) -> str:
        """The same with its message, which payload text may be part of."""
        said = _tried(str, self.error)
        return " ".join(f"{self.kind}: {'' if isinstance(said, _Bug) else said}".split())[:MAX_DETAIL]


class LastNet:
    """A decoder of one partition that never fails because of what a record holds.

    Every catch is counted in the tally `decoder_bugs` of the source. After one, fewer records are decoded at a time,
    and twice as many with each success: a bad record among good ones costs a few attempts, a log of such ones one each.
    """

    def __init__(self, decoder: Decoder, source: str, partition: Partition, tallies: Counter[tuple[str, ...]]) -> None:
        self._decoder, self._source, self._partition, self._tallies = decoder, source, partition, tallies
        self._at_once = MOST
        self._told: set[str] = set()

    def check(self, records: Sequence[Record]) -> None:
        """Raises `SchemasMissing`, as the decoder does. Where that fails, `decode` finds the record."""
        if isinstance(_tried(self._decoder.check, records), _Bug):
            for each in records:
                _tried(self._decoder.check, [each])

    def decode(
        self, records: Sequence[Record], table: SeriesTable, now: EpochUs | None, recorded: Collection[tuple[int, int]]
    ) -> Decoded:
        """Decode as many records as the decoder takes; a record that it fails at is one rejection."""
        decoded = self._through(records, lambda some: self._decoder.decode(some, table, now, recorded))
        if isinstance(decoded, _Bug):
            rejection = Rejection(records[0].offset, 0, Reason.DECODER_BUG, decoded.detail)
            nothing = self._decoder.decode(records[:0], table, now, recorded)
            return replace(nothing, records=1, rejections=[rejection])
        events = decoded.events
        # Nothing in it leads back to the batch, which would stay then until the collector comes: that is seldom.
        events.trace_ids = partial(self._picked, events.trace_ids, events.offset)
        return decoded

    def prime(self, records: Sequence[Record], recorded: Collection[tuple[int, int]]) -> int:
        """Learn the ids of as many records as the decoder takes; nothing is learned from one that it fails at."""
        read = self._through(records, lambda some: self._decoder.prime(some, recorded))
        return 1 if isinstance(read, _Bug) else read

    def _through(self, records: Sequence[Record], call: Callable[[Sequence[Record]], T]) -> T | _Bug:
        """What `call` makes of the first records, or why it fails at the very first."""
        while True:
            some = records[: self._at_once]
            made = _tried(call, some)
            if not isinstance(made, _Bug):
                self._at_once = min(2 * self._at_once, MOST)
                return made
            if len(some) <= 1:
                self._tell(made, [each.offset for each in some])
                return made
            self._at_once = len(some) // 2
            del made  # it holds all that was made before it failed

    def _picked(self, pick: Picked, offsets: Int64s, chosen: Sequence[int]) -> Sequence[str]:
        """Trace ids that are read when they are asked for; of a record where that fails there is none."""
        texts = _tried(pick, chosen)
        if not isinstance(texts, _Bug):
            return texts
        if len(chosen) <= 1:
            self._tell(texts, [int(offsets[each]) for each in chosen])
            return [""]
        half = len(chosen) // 2
        return [*self._picked(pick, offsets, chosen[:half]), *self._picked(pick, offsets, chosen[half:])]

    def _tell(self, bug: _Bug, offsets: Sequence[int]) -> None:
        """Count what one record met, or raise it where no record is to blame: without any, or without memory.

        Each bug is logged once, and without its message: logs hold no payloads, dead letters do.
        """
        if not offsets or isinstance(bug.error, MemoryError):
            raise bug.error
        self._tallies["decoder_bugs", self._source] += 1
        if bug.kind not in self._told:
            self._told.add(bug.kind)
            place = {"source": self._source, "partition": self._partition.index, "offset": offsets[0]}
            trace = "".join(format_tb(bug.error.__traceback__))
            log.error("decoder.bug", **place, bug=bug.kind, trace=trace)


def _tried(call: Callable[[A], T], argument: A) -> T | _Bug:
    """What a call gives, or what it raises that no one foresaw."""
    try:
        return call(argument)
    except EvaluatorError:
        raise
    except Exception as error:  # noqa: BLE001  # the last net: a bug whose record would stop all that follow it
        return _Bug(error)
