"""From the records of a source to the columns of an event batch (docs/semantics.md 2).

What happens to an event, in this order; each step sees only what the one before let through:

    read     the format's rows                      rejected: not_json, wrong_shape, too_large, ...
    where    the source's filter                    skipped
    values   time, weight and score                 rejected: missing_time, bad_value
    guard    not later than record or clock allow   rejected: future
    columns  latency, failed, class, texts          trace ids are read when they are asked for, where they can be
    dedup    not seen in the last R offsets         dropped, counted
    number   series                                 accepted

Whatever could fail on what an event holds is done before anything is learned of it. So decoding is all or nothing, and
at which record it fails does not depend on those before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, cast

import numpy as np

from evaluator.core.event import (
    FAILED,
    GOOD,
    MAIN,
    NO_LATENCY,
    NO_SCORE,
    UNKNOWN,
    EventBatch,
    Int8s,
    Int64s,
    Picked,
    RunColumns,
    listed,
)
from evaluator.errors import SchemasMissing
from evaluator.wire import column, formats
from evaluator.wire.classify import Classifier
from evaluator.wire.column import Column, Kinds
from evaluator.wire.config.model import LatencySpan
from evaluator.wire.dedup import Dedup
from evaluator.wire.field import RECORD_TIMESTAMP, record_column
from evaluator.wire.guard import late_for_clock, late_for_record
from evaluator.wire.memo import Memo
from evaluator.wire.records import Record, Records
from evaluator.wire.rejection import Fault, Faults, Reason, Rejection, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import numpy.typing as npt

    from evaluator.core.event import EpochUs, SeriesTable
    from evaluator.wire.config.matcher import Matcher
    from evaluator.wire.config.model import SourceConfig

_PER_VALUE, _PER_RECORD = 48, 256
"""Bytes that are held beside a value: of its object, and of its record's objects."""

__all__ = ["Decoded", "Reason", "Record", "Rejection", "SourceDecoder"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a run of records gave, `records` of them: behind those there was enough for one turn.

    `rejections` are in log order; of a record with many, one stands for several. `skipped` counts records without
    events and events that `where` keeps out, `duplicates` events that were dropped; the other counts are about accepted
    events: `unmatched` have no surface, `bad_latencies` lost their latency, `oversized_groups` are group values that
    were too long for a label.
    """

    records: int
    events: EventBatch
    rejections: list[Rejection]
    skipped: int
    duplicates: int
    bad_latencies: int
    unmatched: int
    oversized_groups: int

    @property
    def ok(self) -> int:
        """The number of accepted events."""
        return len(self.events)


@dataclass(slots=True)
class _Outcome:
    """What became of those that are out already."""

    faults: Faults = field(default_factory=Faults)
    by_clock: list[Rejection] = field(default_factory=list)
    """Each of them: they are recorded."""
    skipped: int = 0
    duplicates: int = 0

    def rejections(self) -> list[Rejection]:
        """All of them, in log order."""
        found = [Rejection(at, index, it.reason, it.detail, events=it.events) for at, index, it in self.faults.kept()]
        return sorted(found + self.by_clock, key=lambda each: (each.offset, each.index))


@dataclass(slots=True)
class _Events:
    """Those that are still in: a column of values for each field, the record of each event, its index in it.

    `kinds` are the types of each column, None where they are not known.
    `time`, `weight` and `score` hold nothing before the step `values`.
    """

    columns: list[Column]
    kinds: list[Kinds] | None
    position: Int64s
    index: Int64s
    time: Int64s
    weight: Int64s | None = None
    score: Int64s | None = None

    def __len__(self) -> int:
        return len(self.position)

    def only(self, kept: npt.NDArray[np.bool_]) -> _Events:
        """Those events where `kept` is true."""
        if kept.all():
            return self
        chosen = np.flatnonzero(kept).tolist()
        columns: list[Column] = [[values[event] for event in chosen] for values in self.columns]
        weight = None if self.weight is None else self.weight[kept]
        score = None if self.score is None else self.score[kept]
        return _Events(columns, self.kinds, self.position[kept], self.index[kept], self.time[kept], weight, score)


@dataclass(slots=True)
class _Measured:
    """More columns of the events that may be duplicates still: `classes` are the classifier's, `texts` go by paths."""

    latency: Int64s
    failed: Int8s
    classes: Int64s
    texts: dict[str, list[str]]

    def only(self, kept: npt.NDArray[np.bool_]) -> _Measured:
        """Of those events where `kept` is true."""
        if kept.all():
            return self
        texts = {path: list(compress(values, kept)) for path, values in self.texts.items()}
        return _Measured(self.latency[kept], self.failed[kept], self.classes[kept], texts)

    def text(self, path: str | None) -> list[str]:
        """The texts at a path, "" where there is no path."""
        return [""] * len(self.latency) if path is None else self.texts[path]


class SourceDecoder:
    """Decodes one partition of a source, in the order of its offsets.

    With `dedup` it remembers ids: to read on elsewhere, or again, make a new one and `prime` it with the
    `dedup` offsets before.
    """

    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        format_ = formats.get(source.format)
        self._fields = fields = source.fields
        self._time = fields.time or RECORD_TIMESTAMP
        self._classifier = Classifier(source.surfaces)
        self._passes = None if source.where is None else Memo(_judge(source.where))
        self._failed = None if fields.failed is None else Memo(_outcome(fields.failed))
        self._dedup = Dedup(source.dedup) if source.dedup and fields.id else None
        paths = self._paths()
        self._about_record = {path: get for path in paths if (get := record_column(path, source.topic))}
        later = self._read_later(paths)
        self._later = None if later is None else format_.reader(source, (later,))
        self._of_values = format_.of_values
        in_payload = tuple(path for path in paths if path not in self._about_record and path != later)
        self._column = {path: number for number, path in enumerate((*in_payload, *self._about_record))}
        texts = (None if self._dedup is None else fields.id, fields.trace_id, fields.deploy, fields.context)
        self._texts = [path for path in dict.fromkeys(texts) if path in self._column]
        self._read = format_.reader(source, in_payload)

    def _read_later(self, paths: Sequence[str]) -> str | None:
        """The path of the trace ids, if they are read when asked for: one event a record, and nothing else needs it."""
        path = self._fields.trace_id
        is_alone = path in paths and path not in self._paths(but=path)
        return path if self._source.batch == "one" and is_alone and path not in self._about_record else None

    def _paths(self, but: str | None = None) -> list[str]:
        fields = self._fields
        latency = fields.latency
        paths: list[str | None] = [self._time, fields.weight, None if fields.trace_id == but else fields.trace_id]
        paths += [latency.from_, latency.to] if isinstance(latency, LatencySpan) else [latency]
        paths += [fields.id] if self._dedup is not None else []
        paths += [fields.score, *((fields.deploy, fields.context) if self._source.deploying else ())]
        for matcher in (self._source.where, fields.failed):
            paths += [] if matcher is None else matcher.fields
        paths += self._classifier.fields
        return list(dict.fromkeys(path for path in paths if path is not None))

    def check(self, records: Sequence[Record]) -> None:
        """Raises `SchemasMissing` where `decode` or `prime` would, but before anything of the records was counted."""
        missing = schemas_missing(self._source, Records.of(records).values)
        if missing:
            raise SchemasMissing(missing)

    def decode(
        self,
        records: Sequence[Record],
        table: SeriesTable,
        now: EpochUs | None,
        recorded: Collection[tuple[int, int]] = (),
    ) -> Decoded:
        """Decode `records`, whose offsets ascend, and number their series in `table`; as many as a turn may take.

        All or nothing: whatever it raises, nothing was learned or numbered, and fewer of the records may be tried.
        `now` is our clock, None where no clock may decide (it is plus infinity then). `recorded`, best a set, holds
        (offset, index) of the events that a clock rejected in an earlier run: they are rejected again.
        """
        outcome = _Outcome()
        events, measured, records = self._accepted(Records.of(records), now, recorded, outcome)
        bad = measured.latency == column.BAD
        trace_ids, held = self._trace_ids(events, measured, records)
        numbered = self._classifier.number(measured.classes, table)
        batch = EventBatch(
            offset=records.offsets[events.position],
            time=events.time,
            failed=measured.failed,
            latency=np.where(bad, NO_LATENCY, measured.latency),
            series=numbered.series,
            trace_ids=trace_ids,
            weight=events.weight,
            held=held,
            runs=self._runs(events, measured),
        )
        return Decoded(
            len(records),
            batch,
            outcome.rejections(),
            outcome.skipped,
            outcome.duplicates,
            bad_latencies=int(bad.sum()),
            unmatched=numbered.unmatched,
            oversized_groups=numbered.oversized,
        )

    def prime(self, records: Sequence[Record], recorded: Collection[tuple[int, int]] = ()) -> int:
        """Learn the ids of the `dedup` offsets before those that are decoded next. Counts nothing.

        Returns of how many of the records, as `decode` does. Both fail at the same ones.
        """
        if self._dedup is None:
            return len(records)
        _, _, read = self._accepted(Records.of(records), None, recorded, _Outcome())
        return len(read)

    def _accepted(
        self, records: Records, now: EpochUs | None, recorded: Collection[tuple[int, int]], outcome: _Outcome
    ) -> tuple[_Events, _Measured, Records]:
        """What is accepted, in two sets of columns, and the records that were read."""
        events, records = self._all(records, outcome)
        events = self._filtered(events, outcome)
        events = self._valued(events, records, outcome)
        events = self._guarded(events, records, now, recorded, outcome)
        measured = self._measured(events)
        dedup = self._dedup
        if dedup is None:
            return events, measured, records
        ids = zip(records.offsets[events.position].tolist(), measured.text(self._fields.id), strict=True)
        fresh = np.array([dedup.fresh(offset, each) for offset, each in ids], dtype=np.bool_)
        outcome.duplicates += len(fresh) - int(fresh.sum())
        return events.only(fresh), measured.only(fresh), records

    def _all(self, records: Records, outcome: _Outcome) -> tuple[_Events, Records]:
        live, positions = self._readable(records)
        are_all_live = len(live) == len(records)
        read = self._read(cast("list[bytes]", live.values), live)
        if read.until is not None:
            records = records[: int(positions[read.until])]
        if not are_all_live:
            self._count_unreadable(records, outcome)
        outcome.skipped += read.skipped
        for number, event, fault in read.faults:
            outcome.faults.add(int(live.offsets[number]), event, fault)
        if read.position is not None:
            positions = positions[np.array(read.position, dtype=np.int64)]
        index = np.zeros(read.count, dtype=np.int64) if read.index is None else np.array(read.index, dtype=np.int64)
        columns, kinds = read.columns, read.kinds
        for get in self._about_record.values():
            of_record = get(records)
            columns.append([of_record[position] for position in positions.tolist()])
            kinds = None if kinds is None else [*kinds, frozenset(map(type, columns[-1]))]
        return _Events(columns, kinds, positions, index, time=np.zeros(read.count, dtype=np.int64)), records

    def _readable(self, records: Records) -> tuple[Records, Int64s]:
        """The records that have a value of acceptable size, and where they stand in `records`."""
        fits = (records.sizes >= 0) & (records.sizes <= self._source.max_record_bytes)
        if fits.all():
            return records, np.arange(len(records), dtype=np.int64)
        kept = np.flatnonzero(fits)
        return records.only(kept.tolist()), kept

    def _count_unreadable(self, records: Records, outcome: _Outcome) -> None:
        limit = self._source.max_record_bytes
        for offset, size in zip(records.offsets.tolist(), records.sizes.tolist(), strict=True):
            if size < 0:
                outcome.skipped += 1
            elif size > limit:
                detail = f"{size} bytes are more than max_record_bytes, {limit}"
                outcome.faults.add(offset, 0, Fault(Reason.TOO_LARGE, detail))

    def _values(self, events: _Events, paths: Sequence[str]) -> list[Column]:
        return [events.columns[self._column[path]] for path in paths]

    def _kinds(self, events: _Events, paths: Sequence[str]) -> list[Kinds | None]:
        return [None if events.kinds is None else events.kinds[self._column[path]] for path in paths]

    def _filtered(self, events: _Events, outcome: _Outcome) -> _Events:
        where = self._source.where
        if self._passes is None or where is None or not where.fields:
            return events
        if self._passes.full:
            self._passes.clear()
        answers = self._passes.column(self._values(events, where.fields), self._kinds(events, where.fields))
        passes = np.array(answers, dtype=np.bool_)
        outcome.skipped += len(passes) - int(passes.sum())
        return events.only(passes)

    def _valued(self, events: _Events, records: Records, outcome: _Outcome) -> _Events:
        """Events with their time, weight and score; those that lack a time or have a wrong value are rejected."""
        events.time = self._times(events, self._time)
        good = events.time >= 0
        if self._fields.weight is not None:
            weight = column.weights(self._values(events, [self._fields.weight])[0])
            events.weight = None if (weight == 1).all() else weight
            good &= weight > 0
        if self._fields.score is not None:
            events.score = column.scores(self._values(events, [self._fields.score])[0])
            good &= events.score != column.BAD
        for event in np.flatnonzero(~good).tolist():
            outcome.faults.add(*_place(events, event, records), self._fault(events, event))
        return events.only(good)

    def _fault(self, events: _Events, event: int) -> Fault:
        if events.time[event] == column.ABSENT:
            return Fault(Reason.MISSING_TIME, f"{self._time} is missing")
        path, what = self._wrong(events, event)
        return Fault(Reason.BAD_VALUE, f"{path} is {shown(events.columns[self._column[path]][event])}, no {what}")

    def _wrong(self, events: _Events, event: int) -> tuple[str, str]:
        """The field whose value is wrong, and what it is not."""
        if events.time[event] == column.BAD:
            return self._time, "time"
        if events.score is not None and events.score[event] == column.BAD:
            return self._fields.score or "", "score from 0 to 1"
        return self._fields.weight or "", "weight"

    def _times(self, events: _Events, path: str) -> Int64s:
        unit = "ms" if path == RECORD_TIMESTAMP else self._fields.time_unit
        (kinds,) = self._kinds(events, [path])
        return column.times(events.columns[self._column[path]], unit, kinds)

    def _guarded(
        self,
        events: _Events,
        records: Records,
        now: EpochUs | None,
        recorded: Collection[tuple[int, int]],
        outcome: _Outcome,
    ) -> _Events:
        limit = self._source.max_future
        by_record = late_for_record(events.time, records.timestamps, events.position, limit)
        by_clock = late_for_clock(events.time, records.timestamps, events.position, limit, now)
        if recorded:
            offsets = records.offsets[events.position].tolist()
            again = [each in recorded for each in zip(offsets, events.index.tolist(), strict=True)]
            by_clock |= np.array(again, dtype=np.bool_)
        for event in np.flatnonzero(by_record | by_clock).tolist():
            clock = not by_record[event]
            detail = f"{events.time[event]} us is after {'our clock' if clock else 'the record timestamp'} + max_future"
            place = _place(events, event, records)
            if clock:
                outcome.by_clock.append(Rejection(*place, Reason.FUTURE, detail, by_clock=True))
            else:
                outcome.faults.add(*place, Fault(Reason.FUTURE, detail))
        return events.only(~(by_record | by_clock))

    def _measured(self, events: _Events) -> _Measured:
        fields = self._classifier.fields
        return _Measured(
            self._latencies(events),
            self._outcomes(events),
            self._classifier.classes(self._values(events, fields), len(events), self._kinds(events, fields)),
            {path: column.texts(events.columns[self._column[path]]) for path in self._texts},
        )

    def _latencies(self, events: _Events) -> Int64s:
        latency = self._fields.latency
        if latency is None:
            return np.full(len(events), NO_LATENCY, dtype=np.int64)
        if isinstance(latency, LatencySpan):
            return column.spans(self._times(events, latency.from_), self._times(events, latency.to))
        (kinds,) = self._kinds(events, [latency])
        return column.latencies(events.columns[self._column[latency]], self._fields.latency_unit or "us", kinds)

    def _outcomes(self, events: _Events) -> Int8s:
        test = self._fields.failed
        if self._failed is None or test is None or not test.fields:
            return np.full(len(events), UNKNOWN, dtype=np.int8)
        if self._failed.full:
            self._failed.clear()
        answers = self._failed.column(self._values(events, test.fields), self._kinds(events, test.fields))
        return np.array(answers, dtype=np.int8)

    def _runs(self, events: _Events, measured: _Measured) -> RunColumns | None:
        """What run groups are made of. A run that failed has no score, whatever the payload says."""
        if not self._source.deploying:
            return None
        score = np.full(len(events), NO_SCORE, dtype=np.int64) if events.score is None else events.score
        score = np.where(measured.failed == FAILED, NO_SCORE, score)
        contexts = [context or MAIN for context in measured.text(self._fields.context)]
        return RunColumns(score, measured.text(self._fields.deploy), contexts)

    def _trace_ids(self, events: _Events, measured: _Measured, records: Records) -> tuple[Picked, int]:
        """What gives the trace ids of some of the events, and about how many bytes it holds for that."""
        read = self._later
        if read is None:
            return listed(measured.text(self._fields.trace_id)), 0
        # The records without an event go at once.
        kept = records if len(events) == len(records) else records.only(events.position.tolist())
        values, held = cast("list[bytes]", kept.values), int(kept.sizes.sum())
        rows = None if self._of_values else kept

        def picked(chosen: Sequence[int]) -> list[str]:
            of_some = Records.of(()) if rows is None else rows.only(chosen)
            (texts,) = read([values[event] for event in chosen], of_some).columns
            return column.texts(texts)

        return picked, held + (_PER_VALUE if rows is None else _PER_RECORD) * len(kept)


def schemas_missing(source: SourceConfig, values: Iterable[bytes | None]) -> list[int]:
    """The schemas that these values name and the source does not know yet."""
    schema_of = formats.get(source.format).schema_of
    if schema_of is None or source.schemas is None or source.schemas.known.is_complete:
        return []
    named = (schema_of(value) for value in values if value is not None)
    return source.schemas.known.missing(schema for schema in named if schema is not None)


def _place(events: _Events, event: int, records: Records) -> tuple[int, int]:
    """The offset of an event's record, and its index in it."""
    return int(records.offsets[events.position[event]]), int(events.index[event])


def _judge(test: Matcher) -> Callable[[tuple[object, ...]], bool]:
    fields = tuple(test.fields)
    return lambda values: test.holds(dict(zip(fields, values, strict=True)).get)


def _outcome(test: Matcher) -> Callable[[tuple[object, ...]], int]:
    holds = _judge(test)

    def outcome(values: tuple[object, ...]) -> int:
        if all(value is None for value in values):
            return UNKNOWN
        return FAILED if holds(values) else GOOD

    return outcome
