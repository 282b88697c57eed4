"""Stage 1 as the task sees it: records of a source partition in, partials out.

Everything clock-like is decided here and recorded: when an idle partition's watermark moves, and which
events only our clock calls future ones. A replay is given those decisions and takes none itself.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import structlog

from evaluator.core.aggregate import Aggregator
from evaluator.core.event import MINUTE, SECOND, EpochUs
from evaluator.core.partial import FutureRejection, IdleAdvance
from evaluator.core.watermark import BEGINNING
from evaluator.errors import StateRefused
from evaluator.runtime.last_net import LastNet
from evaluator.runtime.log.port import Outgoing, Partition
from evaluator.runtime.stage import COMMIT_EARLY, Outbox, check_revision, has_passed, phase_of
from evaluator.wire import partial as partial_wire
from evaluator.wire import progress as progress_wire
from evaluator.wire.codecs import CODECS
from evaluator.wire.dead_letter import dead_letter
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.progress import LastRecord, SourceProgress
from evaluator.wire.records import Records

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence

    from evaluator.core.partial import ClockDecision, Partial
    from evaluator.core.rule import Source
    from evaluator.core.watermark import PartitionTime
    from evaluator.runtime.last_net import Decoder
    from evaluator.runtime.log.port import Fetched
    from evaluator.runtime.topics import Topics
    from evaluator.wire.codecs import Codecs
    from evaluator.wire.config.load import Config
    from evaluator.wire.config.model import SourceConfig
    from evaluator.wire.decode import Decoded, Rejection
    from evaluator.wire.records import Record

log = structlog.get_logger(__name__)

LONGEST_PAUSE = 10 * SECOND
"""Fetches further apart than this are not one uninterrupted observation of an idle partition."""

COMPARE_AGAIN = 30 * SECOND
"""While our clock is distrusted an idle partition commits this often, to learn whether it still is off."""


class Timing(NamedTuple):
    """How often to commit, and what is allowed.

    A replay may not consult a clock; only who was told to may go on where records were deleted unread.
    """

    commit_interval: int
    uses_clock: bool = True
    accepts_loss: bool = False


class Taken(NamedTuple):
    """How many records were taken in, and how many events of theirs were accepted."""

    records: int
    events: int


class Observed(NamedTuple):
    """Since when a partition has been seen at its end without a new event, and when it was last looked at."""

    since: EpochUs
    last: EpochUs


class AggregateStage:
    """One source partition. `decisions` are the recorded ones of an earlier run, for a replay.

    `original`, with `start: latest`: how many partitions the source had at its first run. Those begin at their end when
    they are read first; one that was added later at its beginning, for everything in it is news.
    """

    name = "aggregate"

    def __init__(
        self, config: Config, source: str, partition: int, partitions: int, shards: int, topics: Topics,
        timing: Timing, tallies: Counter[tuple[str, ...]], decisions: Sequence[ClockDecision] = (),
        codecs: Codecs = CODECS, original: Callable[[], int] | None = None,
        decoder: Callable[[SourceConfig], Decoder] = SourceDecoder,
    ) -> None:  # fmt: skip
        self.tallies = tallies
        self.lag = 0
        self.source: Source = config.rules.sources[source]
        self.input = Partition(self.source.topic, partition)
        self.own = Partition(topics.progress(source), partition)
        self.transactional_id = f"{topics.app_id}.aggregate.{source}.{partition}"
        self._rules, self._topics, self._shards, self._timing = config.rules, topics, shards, timing
        self._codecs, self._original_count = codecs, original
        self._original = 0
        self._decoder = LastNet(decoder(config.sources[source]), source, self.input, tallies)
        ours = [rule for rule in config.rules.rules.values() if self._is_ours(rule.surface)]
        # Deploys have no grid; their shards are told often enough that nobody notices.
        self._steps = sorted({MINUTE if rule.deploys is not None else rule.every for rule in ours})
        self._aggregator = self._fresh(partitions, 0)
        self._progress: SourceProgress | None = None
        self._idle_advances = [d for d in decisions if isinstance(d, IdleAdvance)]
        self._known_future = {(d.offset, d.index) for d in decisions if isinstance(d, FutureRejection)}
        self._letters: list[Outgoing] = []
        self._letters_weigh = 0
        self._lost: tuple[int, int] | None = None
        self._last: LastRecord | None = None
        self._clock_rejected: list[FutureRejection] = []
        self._observed: Observed | None = None
        self._announced = BEGINNING
        self._announce = True
        self._committed_at = EpochUs(0)
        self._phase = phase_of(self.input, timing.commit_interval)
        self._trusts_clock = True
        self._has_compared = not timing.uses_clock
        self._ripened_at: EpochUs | None = None
        self._prime_until = 0
        self._read_from = 0

    def _is_ours(self, surface: str) -> bool:
        return bool(self._rules.surfaces[surface].source == self.source.name)

    def _fresh(self, partitions: int, start: int, time: PartitionTime | None = None) -> Aggregator:
        return Aggregator(self._rules, self.source, self.input.index, partitions, self._shards, start, time)

    @property
    def next_offset(self) -> int:
        """Where to read on; deduplication reads the offsets before its restart once more."""
        return self._read_from

    @property
    def watermark(self) -> EpochUs:
        """The partition's watermark."""
        return self._aggregator.time.watermark

    # -- taking over ------------------------------------------------------------------------------------

    def sequence_of(self, records: Sequence[Record]) -> int | None:
        """The newest committed sequence."""
        progress = self._newest(records)
        return None if progress is None else progress.sequence

    def last_offset(self, records: Sequence[Record]) -> int | None:
        """The offset of the record consumed last."""
        progress = self._newest(records)
        return None if progress is None or progress.last is None else progress.last.offset

    def restore(self, records: Sequence[Record], bounds: tuple[int, int], last: Record | None) -> None:
        """Continue where the newest progress record stands. Raises `StateRefused` where that is unsafe."""
        progress = self._newest(records)
        self._progress = progress
        if progress is None:
            self._original = 0 if self._original_count is None else self._original_count()
            self._read_from = bounds[1 if self.input.index < self._original else 0]
            self._aggregator = self._fresh(self._aggregator.partitions, self._read_from)
            return
        progress = self._without_lost(progress, bounds[0])
        self._check(progress, bounds, last)
        partitions = max(self._aggregator.partitions, progress.partitions)
        self._aggregator = self._fresh(partitions, progress.next_offset, replace(progress.time))
        self._aggregator.newest_pane_end = progress.newest_pane_end
        self._last, self._original = progress.last, progress.original
        self._clock_rejected = [FutureRejection(*place) for place in progress.clock_rejected]
        self._known_future |= set(progress.clock_rejected)
        self._prime_until = progress.next_offset
        self._read_from = max(bounds[0], progress.next_offset - self.source.dedup)

    def _newest(self, records: Sequence[Record]) -> SourceProgress | None:
        return progress_wire.newest([record.value for record in records], self._codecs.source_progress)

    def _without_lost(self, progress: SourceProgress, beginning: int) -> SourceProgress:
        """Where the user accepts it, go on behind what was deleted: nothing before the next event is covered."""
        if not self._timing.accepts_loss or progress.next_offset >= beginning:
            return progress
        self._lost = (progress.next_offset, beginning)
        log.error("records.lost", source=self.source.name, partition=self.input.index, offsets=self._lost)
        return replace(progress, next_offset=beginning, time=replace(progress.time, covered=None), last=None)

    def _check(self, progress: SourceProgress, bounds: tuple[int, int], last: Record | None) -> None:
        where = f"source {self.source.name} ({self.input.topic}/{self.input.index})"
        beginning, end = bounds
        if progress.shards != self._shards:
            _refuse(f"{where}: ran with {progress.shards} shards, now {self._shards}; shards cannot be changed "
                    f"under one app_id: set EVALUATOR_SHARDS={progress.shards} or use a new app_id")  # fmt: skip
        if progress.topic != self.input.topic:
            _refuse(f"{where}: its progress was made on topic {progress.topic}; name the source anew")
        check_revision(where, progress.revision, progress.config, self._rules)
        if progress.next_offset < beginning:
            _refuse(f"{where}: offsets {progress.next_offset} to {beginning} were deleted before they were read; "
                    f"start once with --accept-data-loss to go on with a gap in coverage")  # fmt: skip
        if progress.next_offset > end or _differs(progress.last, last):
            _refuse(f"{where}: the log is not the one that was read (offset {progress.next_offset} of {end}); "
                    f"the topic was recreated: use a new source name or app_id")  # fmt: skip

    # -- steady -----------------------------------------------------------------------------------------

    def apply(self, fetched: Fetched) -> Fetched | None:
        """Decode and add what was fetched, applying recorded decisions at their offsets."""
        records = Records.of(fetched.records)
        self._decoder.check(records)
        taken = self._take_in(records, fetched)
        rest = None
        if taken.records < len(records):
            rest = fetched._replace(records=records[taken.records :])
            fetched = fetched._replace(next_offset=int(records.offsets[taken.records]))
        self._read_from = fetched.next_offset
        self.lag = max(0, fetched.high_watermark - fetched.next_offset)
        # A turn that left records, and accepted none, says nothing of whether the partition is idle.
        if self._may_decide and (rest is None or taken.events):
            self._observe(fetched, accepted=taken.events > 0)
        return rest

    def _take_in(self, records: Records, fetched: Fetched) -> Taken:
        rows = events = 0
        if self._prime_until > self._read_from:
            # Those before the restart are for the deduplication only.
            before = records[: int(np.searchsorted(records.offsets, self._prime_until))]
            rows = self._decoder.prime(before, self._known_future)
            if rows < len(before):
                return Taken(rows, 0)
        while self._idle_advances and self._idle_advances[0].offset <= fetched.next_offset:
            advance = self._idle_advances[0]
            split = max(rows, int(np.searchsorted(records.offsets, advance.offset)))
            until = max(advance.offset, self._aggregator.next_offset)
            added = self._add(records[rows:split], until, fetched.at)
            rows, events = rows + added.records, events + added.events
            if rows < split:
                return Taken(rows, events)
            del self._idle_advances[0]
            self._aggregator.idle(advance.until)
        added = self._add(records[rows:], fetched.next_offset, fetched.at)
        return Taken(rows + added.records, events + added.events)

    def _add(self, records: Records, next_offset: int, now: EpochUs) -> Taken:
        """Decode and add as many of the records as a turn may take; up to `next_offset`, if it was all of them."""
        if next_offset <= self._aggregator.next_offset and not records:
            return Taken(0, 0)
        clock = now if self._may_decide else None
        decoded = self._decoder.decode(records, self._aggregator.table, clock, self._known_future)
        if decoded.records < len(records):
            next_offset = int(records.offsets[decoded.records])
            records = records[: decoded.records]
        first = int(records.offsets[0]) if records else next_offset
        by_clock = [FutureRejection(r.offset, r.index) for r in decoded.rejections if r.by_clock]
        before = self._aggregator.time.watermark
        self._aggregator.add(decoded.events, first, next_offset, by_clock)
        if records and self._passed_a_window_end(before):
            # Of the fetch's first record: too early by a fetch at most.
            self._ripened_at = EpochUs((records[0].timestamp or 0) * 1000)
        self._clock_rejected += by_clock
        if records:
            newest = records[-1]
            self._last = LastRecord(newest.offset, newest.timestamp or 0, progress_wire.checksum_of(newest.value))
        self._count(decoded)
        if decoded.rejections:
            for offset, of_record in groupby(decoded.rejections, key=lambda rejection: rejection.offset):
                record = records[int(np.searchsorted(records.offsets, offset))]
                others = np.searchsorted(decoded.events.offset, [offset, offset + 1])
                letter = self._letter(list(of_record), record, accepted=int(others[1] - others[0]))
                self._letters.append(letter)
                self._letters_weigh += _weight_of(letter)
        return Taken(decoded.records, len(decoded.events))

    def _letter(self, rejections: Sequence[Rejection], record: Record, accepted: int) -> Outgoing:
        """One letter a record: a batch of a thousand bad events is one record to look at, not a thousand."""
        rejection = rejections[0]
        letter = dead_letter(
            key=record.key, value=record.value, topic=self.input.topic, partition=self.input.index,
            offset=rejection.offset, index=rejection.index, reason=rejection.reason.value, detail=rejection.detail,
            events=sum(each.events for each in rejections), accepted=accepted, timestamp=record.timestamp,
            headers=record.headers,
        )  # fmt: skip
        return Outgoing(self._topics.dlq, letter.key, letter.value, headers=letter.headers)

    def _count(self, decoded: Decoded) -> None:
        name, tallies = self.source.name, self.tallies
        tallies["records", name, "ok"] += decoded.ok
        tallies["records", name, "skipped"] += decoded.skipped
        tallies["records", name, "rejected"] += sum(rejection.events for rejection in decoded.rejections)
        tallies["unmatched", name] += decoded.unmatched
        tallies["duplicates", name] += decoded.duplicates
        tallies["bad_latency", name] += decoded.bad_latencies
        tallies["oversized_groups", name] += decoded.oversized_groups
        for rejection in decoded.rejections:
            tallies["rejected", name, rejection.reason.value] += rejection.events

    def _observe(self, fetched: Fetched, *, accepted: bool) -> None:
        """Let an idle partition's watermark follow the clock: observed time only (docs/semantics.md, 3)."""
        at_end = fetched.next_offset >= fetched.high_watermark
        before = self._observed
        if not at_end:
            self._observed = None
            return
        if accepted or before is None or not fetched.is_continuous or fetched.at - before.last > LONGEST_PAUSE:
            self._observed = Observed(fetched.at, fetched.at)
            return
        self._observed = Observed(before.since, fetched.at)
        if fetched.at - before.since >= self.source.idle_after:
            self._aggregator.idle(EpochUs(fetched.at - self.source.out_of_orderness))

    def interrupted(self) -> None:
        """A fetch failed or the partition was away: observation of idleness begins anew."""
        self._observed = None

    def trust_clock(self, *, trusted: bool) -> None:
        """While our clock is off the broker's, it moves no watermark and rejects no event."""
        self._trusts_clock = trusted
        if not trusted:
            self._observed = None

    @property
    def _may_decide(self) -> bool:
        return self._timing.uses_clock and self._trusts_clock

    def finish(self, until: EpochUs) -> None:
        """The input ended: its watermark moves to `until` (docs/semantics.md, 13)."""
        self._aggregator.end(until)

    @property
    def newest(self) -> EpochUs | None:
        """The largest accepted event time, None before the first event."""
        return self._aggregator.newest

    # -- committing -------------------------------------------------------------------------------------

    def due(self, now: EpochUs) -> bool:
        """Whether there is something new, and our moment has come or the outbox is getting large."""
        if not self._has_news(now):
            return False
        return has_passed(self._committed_at, now, self._timing.commit_interval, self._phase) or self.is_full

    @property
    def is_full(self) -> bool:
        """Whether the pending outbox is so large that it should go out before more is read."""
        return self._weight() >= COMMIT_EARLY

    def _weight(self) -> int:
        return self._aggregator.weight + self._letters_weigh

    def _has_news(self, now: EpochUs) -> bool:
        progress = self._progress
        if progress is None or progress.config != self._rules.hash or self._compares_clocks(now):
            return True
        if self._aggregator.time.is_over and not progress.time.is_over:
            return True
        return self._aggregator.next_offset > progress.next_offset or self._passed_a_window_end(self._announced)

    def _compares_clocks(self, now: EpochUs) -> bool:
        """Whether to commit for the broker's time alone: before our clock decides anything, and while it is off."""
        return not self._has_compared or (not self._trusts_clock and now - self._committed_at >= COMPARE_AGAIN)

    def _passed_a_window_end(self, before: EpochUs) -> bool:
        """Whether a shard could decide something by this partition's watermark alone, since it was `before`."""
        now = self._aggregator.time.watermark
        return any(now // step > before // step for step in self._steps)

    def freeze(self, now: EpochUs) -> Outbox | None:
        """The partials of this commit, dead letters, and the progress that goes with them."""
        if not self._has_news(now):
            return None
        self._committed_at, self._has_compared = now, True
        before = self._progress
        if before is None:
            return self._genesis()
        return Outbox(before.sequence + 1, self._made(before))

    def _made(self, before: SourceProgress) -> Iterator[Outgoing | None]:
        self._aggregator.reduce()
        yield None
        new_config = before.config != self._rules.hash
        is_news = new_config or self._aggregator.time.is_over
        everywhere = self._announce or is_news or self._passed_a_window_end(self._announced)
        sent = dict(before.sent)
        partial = replace(
            self._aggregator.take(), sequence=before.sequence + 1, since=self._since(before), appended=self._ripened_at,
            lost=self._lost,
        )  # fmt: skip
        self._lost = None
        self._ripened_at = None
        self.tallies.update(self._aggregator.tallies)
        self._aggregator.tallies.clear()
        decides = bool(partial.idle_advances or partial.future_rejections)
        of_shards = list(enumerate(partial.split(self._shards)))
        told = [(shard, of_shard) for shard, of_shard in of_shards if everywhere or of_shard.cells or of_shard.runs]
        if decides and not told:
            told = of_shards[:1]  # what a clock decided is in the log, whoever needs it or not
        if everywhere:
            self._announced, self._announce = partial.time.watermark, False
        letters, self._letters, self._letters_weigh = self._letters, [], 0
        for shard, of_shard in told:
            yield from self._partials(shard, of_shard, sent)
        yield from letters
        self._progress = self._progress_after(partial.sequence, sent)
        yield self._progress_record(self._progress)

    def _since(self, before: SourceProgress) -> EpochUs | None:
        """In the first commit under a new config: where the panes filled under the old one end."""
        if before.config == self._rules.hash or before.newest_pane_end == BEGINNING:
            return None
        return before.newest_pane_end

    def _partials(self, shard: int, partial: Partial, sent: dict[int, int]) -> list[Outgoing]:
        chained = replace(partial, prev=sent.get(shard))
        sent[shard] = partial.end
        key = f"{self.source.name}/{self.input.index}".encode()
        parts = partial_wire.encode(chained, self._codecs.partial)
        return [Outgoing(self._topics.partials, key, part, shard) for part in parts]

    def _genesis(self) -> Outbox:
        """The first transaction of a partition pins where its reading began, before any record is applied."""
        self._progress = self._progress_after(0, {})
        return Outbox(0, [self._progress_record(self._progress)])

    def _progress_after(self, sequence: int, sent: dict[int, int]) -> SourceProgress:
        position = self._aggregator.position()
        oldest = position.next_offset - self.source.dedup
        self._clock_rejected = [r for r in self._clock_rejected if r.offset >= oldest] if self.source.dedup else []
        return SourceProgress(
            sequence=sequence, topic=self.input.topic, partitions=self._aggregator.partitions,
            next_offset=position.next_offset, time=replace(position.time), newest_pane_end=position.newest_pane_end,
            sent=sent, revision=self._rules.revision, config=self._rules.hash, shards=self._shards, last=self._last,
            clock_rejected=tuple((r.offset, r.index) for r in self._clock_rejected), original=self._original,
        )  # fmt: skip

    def _progress_record(self, progress: SourceProgress) -> Outgoing:
        key = progress_wire.key_of(self.input.index)
        value = progress_wire.encode(progress, self._codecs.source_progress)
        return Outgoing(self.own.topic, key, value, self.own.index)

    def committed(self, now: EpochUs) -> None:
        """Nothing to do: what was frozen is already the progress."""


def _weight_of(letter: Outgoing) -> int:
    """About how many bytes of an outbox it is."""
    return (
        len(letter.value or b"") + len(letter.key or b"") + sum(len(n) + len(data) + 32 for n, data in letter.headers)
    )


def _differs(stored: LastRecord | None, found: Record | None) -> bool:
    """Whether the record at the last consumed offset is another one now. A compacted one tells nothing."""
    if stored is None or found is None:
        return False
    same = LastRecord(found.offset, found.timestamp or 0, progress_wire.checksum_of(found.value))
    return same != stored


def _refuse(message: str) -> None:
    raise StateRefused(message)
