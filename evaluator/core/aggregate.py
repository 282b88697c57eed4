"""Stage 1: the events of one partition, reduced to panes.

One `Aggregator` per source partition. It is fed columns and keeps nothing between two `take`s but the
partition's time, so a restart reads no state worth the name. Lateness is settled here, per record: an event
is late for a pane iff the pane ends at or before the watermark as it stood before the event's record. That
makes verdicts independent of how the log is cut into batches and how partitions interleave.

Columns are collected and reduced ten thousand events at a time, or more: sorting a large run of events costs
less per event than updating panes for every small batch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.core import group, sketch
from evaluator.core.event import (
    FAILED,
    NO_LATENCY,
    UNKNOWN,
    UNMATCHED,
    EpochUs,
    EventBatch,
    Int8s,
    Int32s,
    Int64s,
    Picked,
    SeriesKey,
    SeriesTable,
)
from evaluator.core.group import Bools
from evaluator.core.packed import EXACT, PLAIN, Packed, counts_of, pack
from evaluator.core.pane import EVIDENCE, Counts, Evidence, Pane, strongest
from evaluator.core.partial import Cell, FutureRejection, IdleAdvance, Origin, Partial
from evaluator.core.rows import Columns, merged, packed_rows
from evaluator.core.rule import steps_of
from evaluator.core.runs import RunEvent
from evaluator.core.watermark import BEGINNING, PartitionTime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluator.core.event import DurationUs
    from evaluator.core.group import Groups
    from evaluator.core.rule import RuleSet, Source

StepsOfSurface = dict[str, dict["DurationUs", tuple[int, ...]]]
"""The pane widths of each surface, and the latency thresholds that each counts."""

REDUCE_AT, REDUCE_AT_MOST = 12_288, 65_536
"""Events collected before they are reduced. Fewer: more sorting per event. More: memory, and a longer pause."""

REDUCE_A_SERIES = 64
"""Where series are many, up to the most: so many events of each. A piece of a pane costs as much as some events."""

REDUCE_AT_BYTES = 16 << 20
"""Large events are reduced earlier: their payloads are kept until then, for the few trace ids that prove something.
Smaller: more sorting per event. Larger: memory, for each partition that is read."""

PIECES_A_PANE = 8
"""So many pieces a pane has at most before they are put together. More: memory; fewer: more work at each reduce."""


class Position(NamedTuple):
    """Where a partition's stage 1 stands: what its next life must know."""

    next_offset: int
    time: PartitionTime
    newest_pane_end: EpochUs


class Aggregator:
    """Everything since the last `take` of one source partition.

    `start` is the offset that reading begins at; only reading from offset 0 covers all time. `time` is that
    of an earlier life. `newest` is the largest accepted event time of this life.
    """

    def __init__(
        self, rules: RuleSet, source: Source, partition: int, partitions: int, shards: int, start: int = 0,
        time: PartitionTime | None = None,
    ) -> None:  # fmt: skip
        self.time = time if time is not None else PartitionTime(covered=BEGINNING if start == 0 else None)
        self.next_offset = start
        self.newest: EpochUs | None = None
        self.newest_pane_end = BEGINNING
        self.partitions = partitions
        self.tallies: Counter[tuple[str, ...]] = Counter()
        self._source, self._partition, self._shards = source, partition, shards
        self._surfaces = [surface for surface in rules.surfaces.values() if surface.source == source.name]
        about, ours = rules.rules_by_kind(), {surface.name: len(surface.group_by) for surface in self._surfaces}
        self._steps = {name: steps_of(about[name, fields]) for name, fields in ours.items()}
        # Of surfaces that are split into series, and judged as a whole too.
        self._steps_of_whole = {name: steps_of(about.get((name, 0), ()) if ours[name] else ()) for name in ours}
        self._counted = {name: steps_of(rules.rules_of(name)) for name in ours}
        self._deploying = {name for name in ours if rules.deploy_rules_of(name)}
        self._origin = Origin(rules.revision, rules.hash)
        self._begin = start
        self._reset()

    def _reset(self) -> None:
        # One commit may carry so many series of a surface that every shard can be full.
        self.table = SeriesTable({surface.name: surface.max_series * self._shards for surface in self._surfaces})
        self._reduced: list[_Reduced] = []
        self._runs: dict[int, list[RunEvent]] = {}
        self._collected: list[tuple[EventBatch, Int64s]] = []
        self._size = self._held = self._pieces = self._kept = self._reduces = 0
        self._before = self.time.watermark
        self._idle_advances: list[IdleAdvance] = []
        self._future_rejections: list[FutureRejection] = []

    @property
    def pending(self) -> int:
        """How many events were collected and not reduced yet."""
        return self._size

    @property
    def weight(self) -> int:
        """About how many bytes a `take` would hold: what a commit is started early by."""
        decided = 32 * len(self._future_rejections)
        return 512 * self._pieces + 64 * self.pending + 256 * self._kept + decided

    def add(self, events: EventBatch, first: int, next_offset: int, rejected: Iterable[FutureRejection] = ()) -> None:
        """Take in the accepted events of the records `[first, next_offset)`, decoded against `table`.

        `rejected` are the events of these records that only a clock rejected. Raises `ValueError` where
        `first` lies before what was already taken in: offsets must rise.
        """
        if first < self.next_offset:
            message = f"records from offset {first} were taken in before (next is {self.next_offset})"
            raise ValueError(message)
        self._future_rejections += rejected
        if len(events):
            before = self._pass_time(events)
            self._collected.append((events, before))
            self._keep_runs(events, before)
            self._size += len(events)
            self._held += events.held
        self.next_offset = next_offset
        enough = min(max(REDUCE_AT, REDUCE_A_SERIES * len(self.table.keys)), REDUCE_AT_MOST)
        if self._size >= enough or self._held >= REDUCE_AT_BYTES:
            self.reduce()

    def _pass_time(self, events: EventBatch) -> Int64s:
        """Move the watermark past the events; returns the watermark before each event's record."""
        disorder = self._source.out_of_orderness
        newest = np.maximum.accumulate(events.time)
        before = np.empty_like(newest)
        before[0] = self.time.watermark
        np.maximum(newest[:-1] - disorder, self.time.watermark, out=before[1:])
        same_record = np.flatnonzero(events.offset[1:] == events.offset[:-1]) + 1
        for place in same_record.tolist():
            before[place] = before[place - 1]
        first = EpochUs(int(events.time[0]))
        if self.time.first is None:
            self.time.first = EpochUs(max(first, self.time.watermark))
        if self.time.covered is None:
            self.time.covered = EpochUs(first + disorder)
        self.newest = EpochUs(max(self.newest or BEGINNING, int(newest[-1])))
        self.time.watermark = EpochUs(max(self.time.watermark, int(newest[-1]) - disorder))
        return before

    def _keep_runs(self, events: EventBatch, before: Int64s) -> None:
        """Single events for the run groups: those that are not older than the watermark before their record."""
        if events.runs is None:
            return
        on_time = self._in_deploys(events.series) & (events.time >= before)
        chosen = np.flatnonzero(on_time).tolist()
        if not chosen:
            return
        weight = np.ones(len(events), dtype=np.int64) if events.weight is None else events.weight
        score, deploy, context = events.runs
        numbers = (events.time, events.offset, events.failed, events.latency, score, weight)
        columns = [column[on_time].tolist() for column in numbers]
        rows = zip(chosen, *columns, events.trace_ids(chosen), strict=True)
        for row, time, offset, failed, latency, scored, weighs, trace_id in rows:
            run = RunEvent(time, offset, deploy[row], context[row], failed, latency, scored, weighs, trace_id)
            self._runs.setdefault(int(events.series[row]), []).append(run)
        self._kept += len(chosen)
        # A rule that changes begins after all that was read under the old ones, panes or not.
        self.newest_pane_end = EpochUs(max(self.newest_pane_end, max(columns[0]) + 1))

    def _in_deploys(self, series: Int32s) -> Bools:
        """Which events are of a surface that is judged by run groups."""
        if not self._deploying:
            return np.zeros(len(series), dtype=bool)
        return self._of(lambda surface: surface in self._deploying, series)

    def _of(self, is_wanted: Callable[[str], bool], series: Int32s) -> Bools:
        """Which events are of a surface that is wanted."""
        wanted = np.array([is_wanted(key.surface) for key in self.table.keys] + [False])
        return wanted[series]  # UNMATCHED is -1: the last entry

    def idle(self, until: EpochUs) -> None:
        """A clock saw the partition idle at its end: the watermark moves to `until`, which is recorded."""
        if until <= self.time.watermark:
            return
        self.time.watermark = until
        if self.time.covered is None:
            self.time.covered = until
        advances = self._idle_advances
        if advances and advances[-1].offset == self.next_offset:
            # Nothing came between the two: only the last one can matter.
            advances.pop()
        advances.append(IdleAdvance(self.next_offset, until))

    def end(self, until: EpochUs) -> None:
        """The input is over: the watermark moves to `until`, and there will never be more."""
        self.idle(until)
        self.time.is_over = True

    def position(self) -> Position:
        """What a restart must know."""
        return Position(self.next_offset, self.time, self.newest_pane_end)

    def take(self) -> Partial:
        """Everything since the last take, and the watermark. The sequence and the chain are the task's."""
        self.reduce()
        cells = self._cells()
        runs = tuple(sorted((self.table.keys[series], tuple(events)) for series, events in self._runs.items()))
        partial = Partial(
            source=self._source.name, partition=self._partition, partitions=self.partitions,
            begin=self._begin, end=self.next_offset, sequence=0, before=self._before, time=replace(self.time),
            origin=self._origin, idle_advances=tuple(self._idle_advances),
            future_rejections=tuple(self._future_rejections), counted=self._counted, cells=cells, runs=runs,
        )  # fmt: skip
        for surface, count in self.table.overflowed.items():
            self.tallies["overflow_series", surface] += count
        self._begin = self.next_offset
        self._reset()
        return partial

    def _cells(self) -> tuple[tuple[SeriesKey, tuple[Cell, ...]], ...]:
        if not self._reduced:
            return ()
        keys, whole = self.table.keys, _put_together(self._reduced)
        cells = tuple(map(_cell_of, zip(whole.steps.tolist(), whole.slots.tolist(), whole.panes, strict=True)))
        edges = group.edges_of(whole.series)
        cuts = pairwise([*edges.tolist(), len(cells)])
        found = [(keys[series], cells[a:b]) for series, (a, b) in zip(whole.series[edges].tolist(), cuts, strict=True)]
        return tuple(sorted(found, key=itemgetter(0)))

    def reduce(self) -> None:
        """Reduce to panes what was collected: most of what a `take` does, where there was much of it."""
        if not self._collected:
            return
        run = _concatenated(self._collected, self.table.keys)
        self._collected, self._size, self._held = [], 0, 0
        late_anywhere = self._in_deploys(run.series) & (run.time < run.before)
        self._reduce_run(run, self._steps, late_anywhere)
        if any(self._steps_of_whole.values()):
            self._reduce_run(self._as_wholes(run), self._steps_of_whole, late_anywhere)
        for series, count in Counter(run.series[late_anywhere].tolist()).items():
            self.tallies["late", self.table.keys[series].surface] += count
        self._reduces += 1
        # A pane has a piece of each reduce at most.
        if self._reduces >= PIECES_A_PANE and self._reduced:
            self._reduced, self._reduces = [_put_together(self._reduced)], 1
            self._pieces = len(self._reduced[0].panes)

    def _as_wholes(self, run: _Run) -> _Run:
        """The same events, as those of their surface as a whole where a rule is about that."""
        wholes = [
            self.table.intern(SeriesKey(key.surface)) if self._steps_of_whole[key.surface] else UNMATCHED
            for key in tuple(self.table.keys)
        ]
        return run._replace(series=np.array([*wholes, UNMATCHED], dtype=np.int32)[run.series])

    def _reduce_run(self, run: _Run, steps: StepsOfSurface, late_anywhere: Bools) -> None:
        for step in sorted({step for of_surface in steps.values() for step in of_surface}):
            self._reduce_step(run, steps, step, late_anywhere)

    def _reduce_step(self, run: _Run, steps: StepsOfSurface, step: DurationUs, late_anywhere: Bools) -> None:
        rows = self._of(lambda surface: step in steps[surface], run.series)
        slot = run.time // step
        late = rows & ((slot + 1) * step <= run.before)
        late_anywhere |= late
        rows &= ~late
        chosen = np.flatnonzero(rows)
        if not len(chosen):
            return
        self._newest_end(int(slot[chosen].max()), step)
        grouped = group.by(run.series[chosen], slot[chosen])
        order = chosen[grouped.order]
        first = order[grouped.edges]
        panes = _reduced_panes(run, order, grouped, steps, step)
        series = run.series[first].astype(np.int64)
        self._reduced.append(_Reduced(series, np.full(len(first), step), slot[first], panes))
        self._pieces += len(panes)

    def _newest_end(self, index: int, step: DurationUs) -> None:
        self.newest_pane_end = EpochUs(max(self.newest_pane_end, (index + 1) * step))


class _Reduced(NamedTuple):
    """Pieces of panes as columns: where series are many, a piece has an event or two, and no dictionary is worth it."""

    series: Int64s
    steps: Int64s
    slots: Int64s
    panes: list[Packed]


def _put_together(reduced: list[_Reduced]) -> _Reduced:
    """One piece for each pane, in the order of (series, step, slot)."""
    series, steps, slots = (np.concatenate(columns) for columns in zip(*(each[:3] for each in reduced), strict=True))
    pieces = list(chain.from_iterable(each.panes for each in reduced))
    order = np.lexsort((slots, steps, series))
    series, steps, slots = series[order], steps[order], slots[order]
    begins = (series[1:] != series[:-1]) | (steps[1:] != steps[:-1]) | (slots[1:] != slots[:-1])
    edges = np.concatenate(([0], np.flatnonzero(begins) + 1))
    in_order = [pieces[place] for place in order.tolist()]
    cuts = pairwise([*edges.tolist(), len(in_order)])
    return _Reduced(series[edges], steps[edges], slots[edges], merged([in_order[a:b] for a, b in cuts]))


_cell_of: Callable[[tuple[DurationUs, int, Packed]], Cell] = partial(tuple.__new__, Cell)


class _Run(NamedTuple):
    """Collected batches as one set of columns, with the watermark before each event's record."""

    time: Int64s
    failed: Int8s
    latency: Int64s
    series: Int32s
    before: Int64s
    weight: Int64s | None
    picked: list[Picked]
    begins: Int64s
    keys: Sequence[SeriesKey]
    known: dict[int, str]

    def trace_ids(self, rows: list[int]) -> list[str]:
        """The trace ids of some rows; each is asked for once, and each batch once a call."""
        known = self.known
        new = np.array(sorted(set(rows) - known.keys()), dtype=np.int64)
        cuts = [0, *np.searchsorted(new, self.begins[1:]).tolist(), len(new)]
        for picked, first, (begin, end) in zip(self.picked, self.begins.tolist(), pairwise(cuts), strict=True):
            if begin < end:
                asked = new[begin:end]
                known.update(zip(asked.tolist(), picked((asked - first).tolist()), strict=True))
        return [known[row] for row in rows]


def _concatenated(collected: list[tuple[EventBatch, Int64s]], keys: Sequence[SeriesKey]) -> _Run:
    batches = [batch for batch, _ in collected]
    weight = None
    if any(batch.weight is not None for batch in batches):
        ones = [np.ones(len(b), dtype=np.int64) if b.weight is None else b.weight for b in batches]
        weight = np.concatenate(ones)
    return _Run(
        time=np.concatenate([batch.time for batch in batches]),
        failed=np.concatenate([batch.failed for batch in batches]),
        latency=np.concatenate([batch.latency for batch in batches]),
        series=np.concatenate([batch.series for batch in batches]),
        before=np.concatenate([before for _, before in collected]),
        weight=weight,
        picked=[batch.trace_ids for batch in batches],
        begins=np.array([0, *accumulate(len(batch) for batch in batches[:-1])], dtype=np.int64),
        keys=keys,
        known={},
    )


def _reduced_panes(run: _Run, order: Int64s, grouped: Groups, steps: StepsOfSurface, step: DurationUs) -> list[Packed]:
    """A pane for each group; `order` are the rows of `run` as they are grouped."""
    edges = grouped.edges
    time, latency, failed = run.time[order], run.latency[order], run.failed[order]
    weight = None if run.weight is None else run.weight[order]
    named = [steps[run.keys[series].surface][step] for series in run.series[order[edges]].tolist()]
    over = sorted(set(chain.from_iterable(named)))
    bins = _bins(latency, weight, grouped)
    columns = _Grouped(
        over=over,
        first=np.minimum.reduceat(time, edges),
        last=np.maximum.reduceat(time, edges),
        lat_max=np.maximum.reduceat(latency, edges),
        lat_sum=_latency_sums(latency, weight, edges),
        raw=_counters(grouped, latency, failed, None, over),
        weighted=None if weight is None else _counters(grouped, latency, failed, weight, over),
        is_unit=None if weight is None else np.maximum.reduceat(weight, edges) == 1,
        sizes=np.bincount(bins[0], minlength=len(grouped)), owners=bins[0], numbers=bins[1], counts=bins[2],
    )  # fmt: skip
    failing = _evidence(run, order, grouped, failed == FAILED, failing=True)
    slowest = _evidence(run, order, grouped, latency != NO_LATENCY, failing=False)
    evidence = ([found.get(place, ()) for place in range(len(named))] for found in (failing, slowest))
    return list(map(_packed_of, zip(_packed(columns, named), *evidence, strict=True)))


class _Grouped(NamedTuple):
    """What was counted of each group.

    `raw` and `weighted` have the columns n, known, bad, lat_n and one for each threshold of `over`; the bins of all
    groups stand in three columns, `owners` ascending, `sizes` of them for each group.
    """

    over: list[int]
    first: Int64s
    last: Int64s
    lat_max: Int64s
    lat_sum: Int64s | list[int]
    raw: Int64s
    weighted: Int64s | None
    is_unit: Bools | None
    sizes: Int64s
    owners: Int64s
    numbers: Int64s
    counts: Int64s


def _packed(columns: _Grouped, named: list[tuple[int, ...]]) -> list[bytes]:
    """What each group counted of the thresholds `named` for it."""
    found = [b""] * len(named)
    alike: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, thresholds in enumerate(named):
        alike[thresholds].append(place)
    for thresholds, places in alike.items():
        chosen = [*range(PLAIN), *(PLAIN + columns.over.index(threshold) for threshold in thresholds)]
        if columns.weighted is None and isinstance(columns.lat_sum, np.ndarray):
            packed = _packed_plain(columns, columns.lat_sum, thresholds, np.array(places), chosen)
        else:
            packed = [pack(_pane(columns, place, thresholds, chosen)).counted for place in places]
        for place, counted in zip(places, packed, strict=True):
            found[place] = counted
    return found


def _packed_plain(
    columns: _Grouped, lat_sum: Int64s, thresholds: tuple[int, ...], places: Int64s, chosen: list[int]
) -> list[bytes]:
    wanted = np.zeros(len(columns.first), dtype=np.bool_)
    wanted[places] = True
    mine = wanted[columns.owners]
    return packed_rows(Columns(
        thresholds, columns.first[places], columns.last[places], columns.lat_max[places], lat_sum[places],
        columns.raw[np.ix_(places, np.array(chosen))], columns.sizes[places], columns.numbers[mine],
        columns.counts[mine],
    ))  # fmt: skip


def _pane(columns: _Grouped, place: int, thresholds: tuple[int, ...], chosen: list[int]) -> Pane:
    """A pane with weights, or with a sum beyond 64 bits."""
    begin, end = np.searchsorted(columns.owners, [place, place + 1]).tolist()
    bins = dict(zip(columns.numbers[begin:end].tolist(), columns.counts[begin:end].tolist(), strict=True))

    def counts(counters: Int64s) -> Counts:
        return counts_of(counters[place, chosen].tolist(), thresholds)

    has_weights = columns.is_unit is not None and not columns.is_unit[place]
    return Pane(
        weighted=counts(columns.raw if columns.weighted is None else columns.weighted),
        raw=counts(columns.raw) if has_weights else None,
        first=EpochUs(int(columns.first[place])), last=EpochUs(int(columns.last[place])),
        lat_sum=int(columns.lat_sum[place]), lat_max=int(columns.lat_max[place]), bins=bins,
    )  # fmt: skip


def _counters(grouped: Groups, latency: Int64s, failed: Int8s, weight: Int64s | None, over: Sequence[int]) -> Int64s:
    """The columns n, known, bad, lat_n, and the latencies over each threshold (NO_LATENCY is below every one)."""

    def summed(rows: Bools) -> Int64s:
        return grouped.count(rows) if weight is None else grouped.sum(rows * weight)

    everything = np.ones(len(latency), dtype=np.bool_)
    columns = [everything, failed != UNKNOWN, failed == FAILED, latency != NO_LATENCY, *(latency > t for t in over)]
    return np.stack([summed(rows) for rows in columns], axis=1)


def _latency_sums(latency: Int64s, weight: Int64s | None, edges: Int64s) -> Int64s | list[int]:
    """Weight times latency of each group; a list where 64 bits may not hold it."""
    measured = np.maximum(latency, 0)
    heaviest = 1 if weight is None else int(weight.max())
    if int(measured.max()) * heaviest * len(measured) < EXACT:
        products = measured if weight is None else measured * weight
        return np.add.reduceat(products, edges)
    exact = measured.astype(object) if weight is None else measured.astype(object) * weight.astype(object)
    return [int(x) for x in np.add.reduceat(exact, edges)]


def _bins(latency: Int64s, weight: Int64s | None, grouped: Groups) -> tuple[Int64s, Int64s, Int64s]:
    """The sketches: the group, the number and the count of each bin, in ascending order."""
    width = len(sketch.boundaries())
    combined = grouped.numbers * width + sketch.bins_of(latency)
    measured = latency != NO_LATENCY
    if not measured.all():
        combined = combined[measured]
        weight = None if weight is None else weight[measured]
    keys, counts = group.tallied(combined, weight, len(grouped) * width)
    return *np.divmod(keys, width), counts


def _evidence(
    run: _Run, order: Int64s, grouped: Groups, rows: Bools, *, failing: bool
) -> dict[int, tuple[Evidence, ...]]:
    """The strongest events of each group. `rows` marks, in the order of `order`, those that qualify."""
    places = np.flatnonzero(rows)
    if not len(places):
        return {}
    owners = grouped.numbers[places]
    strength = run.time[order[places]] if failing else run.latency[order[places]]
    kept = group.strongest(strength, owners, EVIDENCE)
    chosen, strength, owners = order[places[kept]], strength[kept], owners[kept]
    columns = (run.time[chosen].tolist(), run.trace_ids(chosen.tolist()), run.latency[chosen].tolist())
    events = list(map(_evidence_of, zip(*columns, strict=True)))
    edges = group.edges_of(owners)
    cuts = pairwise([*edges.tolist(), len(events)])
    found = {owner: tuple(events[a:b]) for owner, (a, b) in zip(owners[edges].tolist(), cuts, strict=True)}
    # Where two are as strong, more than the strength settles their order, and which of them stay.
    for owner in np.unique(owners[1:][(strength[1:] == strength[:-1]) & (owners[1:] == owners[:-1])]).tolist():
        found[owner] = strongest(found[owner], failing=failing)
    return found


_evidence_of: Callable[[tuple[int, str, int]], Evidence] = partial(tuple.__new__, Evidence)
"""What `Evidence._make` does, in a fifth of its time."""
_packed_of: Callable[[tuple[bytes, tuple[Evidence, ...], tuple[Evidence, ...]]], Packed] = partial(
    tuple.__new__, Packed
)
