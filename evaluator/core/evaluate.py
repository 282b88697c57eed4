"""Stage 2: partials of all partitions, merged and decided.

One `Evaluator` per shard owns the series that hash to it. It checks the chain of partials (a gap or an
overlap is refused, not assumed away), merges cells, and as soon as a source's watermark passes window ends
it decides them. Everything it must not forget is a `Snapshot` of plain values; `changes` names what of it
changed, so that a commit writes that and no more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from evaluator.core.absence import AbsenceWalk
from evaluator.core.alert import Transition, key_of, labels_of
from evaluator.core.decide import Progress, Turn, Walk, turn_of
from evaluator.core.deploys import Deploy, DeployWalk, Groups
from evaluator.core.event import FAILED, UNKNOWN, DurationUs, EpochUs, SeriesKey, overflow_of, shard_of
from evaluator.core.packed import Glance, Packed, glance
from evaluator.core.panes import Panes, Sealed
from evaluator.core.rows import merged
from evaluator.core.rule import Rule, Surface, steps_of
from evaluator.core.snapshot import (
    Changes,
    Crumb,
    Decisions,
    GroupId,
    KnownRule,
    PaneId,
    PartitionState,
    ProgressId,
    Snapshot,
    SourceState,
    Totals,
    WaitingId,
)
from evaluator.core.streak import Phase, Reason
from evaluator.core.watermark import BEGINNING, NEVER, PartitionTime, SourceTime, combine
from evaluator.errors import StateGap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evaluator.core.partial import Cell, Partial
    from evaluator.core.rule import RuleSet
    from evaluator.core.runs import RunEvent, StoredGroup


MOST_PIECES = 32
"""Pieces of a pane that are kept apart. More: memory; fewer: they are put together more often than commits ask for."""

TRAIL = 32
"""Crumbs kept per partition. Fewer: an alert names more input than it needs. More: a larger state record."""


class _Series:
    """The panes of one series by step, its run events that wait, and its alerts' progress and run groups."""

    __slots__ = ("groups", "panes", "progress", "totals", "waiting")

    def __init__(self) -> None:
        self.panes: defaultdict[DurationUs, Panes] = defaultdict(Panes)
        self.progress: dict[str, Progress] = {}
        self.totals = Totals()
        self.waiting: dict[WaitingId, list[RunEvent]] = {}
        self.groups: defaultdict[str, Groups] = defaultdict(Groups)


class Evaluator:
    """One shard: merges partials, decides windows, and says what changed.

    `snapshot` is None at the first run of the shard. A rule that is not in the snapshot is new, one with
    another definition changed: both begin where every verdict is exact again (docs/semantics.md, 12).
    """

    def __init__(self, rules: RuleSet, snapshot: Snapshot | None = None, shard: int = 0, shards: int = 1) -> None:
        self.tallies: Counter[tuple[str, ...]] = Counter()
        self._rules = rules
        self._about = rules.rules_by_kind()
        self._steps = {kind: steps_of(about) for kind, about in self._about.items()}
        self._steps_of_surface = {name: tuple(steps_of(rules.rules_of(name))) for name in rules.surfaces}
        self._of_deploys = {name: rules.deploy_rules_of(name) for name in rules.surfaces}
        self._series: dict[str, dict[SeriesKey, _Series]] = {name: {} for name in rules.surfaces}
        self._sources = {name: SourceState() for name in rules.sources}
        self._known: dict[str, KnownRule] = {}
        self._former: dict[str, KnownRule] = {}
        self._decided: dict[str, SourceTime] = {}
        self._changed_panes: set[PaneId] = set()
        self._changed_progress: set[ProgressId] = set()
        self._changed_waiting: set[WaitingId] = set()
        self._changed_groups: set[GroupId] = set()
        self._ended: list[Transition] = []
        self._in_pieces: list[list[Packed]] = []
        self._restore(snapshot)
        self._expect(shard, shards)

    # -- what a restart and a rule change do ------------------------------------------------------------

    def _restore(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            for rule in self._rules.rules.values():
                self._known[rule.name] = KnownRule(rule, self._rules.surfaces[rule.surface], BEGINNING)
            return
        # The chain of a source that left the config is kept: it may come back.
        self._sources.update(snapshot.sources)
        for rule in self._rules.rules.values():
            before = snapshot.rules.get(rule.name)
            same = before is not None and before.rule.definition == rule.definition
            begin = before.begin if before is not None and same else None
            self._known[rule.name] = KnownRule(rule, self._rules.surfaces[rule.surface], begin)
        for name, before in snapshot.rules.items():
            now = self._known.get(name)
            if now is None or now.rule.definition != before.rule.definition:
                self._former[name] = before
        for place, progress in snapshot.progress.items():
            self._restore_progress(place, progress, snapshot.rules[place.rule])
        self._restore_panes(snapshot.panes)
        self._restore_runs(snapshot)
        for key, totals in snapshot.totals.items():
            if key.surface in self._series and key in self._series[key.surface]:
                self._series[key.surface][key].totals = totals

    def _expect(self, shard: int, shards: int) -> None:
        """What is waited for is judged from the start: it may never come."""
        for rule in self._rules.rules.values():
            whole = SeriesKey(rule.surface)
            if rule.is_about_absence and shard_of(whole, shards) == shard:
                self._judged(whole, (rule,))

    def _restore_progress(self, place: ProgressId, progress: Progress, before: KnownRule) -> None:
        now = self._known.get(place.rule)
        if now is not None and now.rule.definition == before.rule.definition:
            series = self._judged(place.series, (now.rule,)) if now.rule.is_about_absence else self._of(place.series)
            series.progress[place.rule] = progress
            self._changed_progress.discard(place)
            return
        self._changed_progress.add(place)
        if progress.streak.phase is Phase.FIRING and progress.next_end is not None:
            reason = Reason.RULE_REMOVED if now is None else Reason.RULE_CHANGED
            at = EpochUs(progress.next_end - before.rule.every)
            turn = turn_of(progress, reason, at, progress.streak)
            self._ended.append(_transition(before.rule, before.surface, place.series, turn))

    def _restore_panes(self, panes: list[tuple[PaneId, Packed | Sealed]]) -> None:
        kept: dict[tuple[SeriesKey, DurationUs], Panes | None] = {}
        for place, pane in panes:
            of = key, step = place[:2]
            if of not in kept:
                is_wanted = self._fits(key) and step in self._steps[key.kind]
                kept[of] = self._of(key).panes[step] if is_wanted else None
            where = kept[of]
            if where is None:
                self._changed_panes.add(place)
            else:
                where.restore(place.slot, pane)

    def _restore_runs(self, snapshot: Snapshot) -> None:
        """Of a rule that changed the groups are kept: they tell which deploys it does not know from their first run."""
        was_of = {known.surface.name: known.surface.source for known in snapshot.rules.values()}
        for waiting_id, events in snapshot.waiting.items():
            surface = waiting_id.series.surface
            if self._takes_runs(waiting_id.series) and was_of.get(surface) == self._rules.surfaces[surface].source:
                self._of(waiting_id.series).waiting[waiting_id] = list(events)
            else:
                self._changed_waiting.add(waiting_id)
        for group_id, group in snapshot.groups.items():
            known = self._known.get(group_id.rule)
            about = None if known is None or known.rule.deploys is None else known.rule.surface
            if about == group_id.series.surface and self._takes_runs(group_id.series):
                series, before = self._of(group_id.series), snapshot.progress[ProgressId(*group_id[:2])]
                series.groups[group_id.rule].restore(Deploy(group_id.context, group_id.deploy), group)
                series.progress[group_id.rule].newest = before.newest
            else:
                self._changed_groups.add(group_id)

    def _settle(self, source: str) -> None:
        """Let new and changed rules begin, once every partition reports under their config."""
        state = self._sources[source]
        waiting = [known for known in self._known.values() if known.begin is None and known.surface.source == source]
        reported = [p for p in state.partitions.values() if p.origin.config == self._rules.hash]
        if not waiting or state.count == 0 or len(reported) < state.count:
            return
        filled = (p.since for p in reported if p.since is not None)
        begin = EpochUs(max([state.time.watermark, *filled]))
        for known in waiting:
            self._known[known.rule.name] = KnownRule(known.rule, known.surface, begin)

    # -- merging ----------------------------------------------------------------------------------------

    def merge(self, partial: Partial) -> None:
        """Add a partial's cells, then move its partition's time. Raises `StateGap`."""
        state = self._sources.setdefault(partial.source, SourceState())
        self._check_chain(state, partial)
        merged_until = state.time.watermark
        for key, cells in partial.cells:
            self._merge_series(key, cells, merged_until)
        for key, events in partial.runs:
            self._merge_runs(key, events, partial, merged_until)
        partition = state.partitions.get(partial.partition)
        if partition is None:
            partition = PartitionState(partial.begin, PartitionTime(covered=None), partial.origin)
            state.partitions[partial.partition] = partition
        if partial.part + 1 < partial.parts:
            partition.next_part = partial.part + 1
            return
        if partial.since is not None:
            partition.since = EpochUs(max(partial.since, partition.since or BEGINNING))
        partition.end, partition.time, partition.origin, partition.next_part = (
            partial.end, partial.time, partial.origin, 0,
        )  # fmt: skip
        partition.trail = self._lengthened(partition.trail, partial)
        state.count = max(state.count, partial.partitions)
        times = {index: p.time for index, p in state.partitions.items()}
        state.time = combine(times, state.count, state.time)
        self._settle(partial.source)

    def _lengthened(self, trail: tuple[Crumb, ...], partial: Partial) -> tuple[Crumb, ...]:
        source = self._rules.sources.get(partial.source)
        disorder = 0 if source is None else source.out_of_orderness
        trail = (*trail, Crumb(EpochUs(partial.time.watermark + disorder), partial.end))
        return trail if len(trail) <= TRAIL else (*trail[: TRAIL // 2 : 2], *trail[TRAIL // 2 :])

    def _check_chain(self, state: SourceState, partial: Partial) -> None:
        known = state.partitions.get(partial.partition)
        if known is not None and known.next_part:
            follows = partial.part == known.next_part
        else:
            follows = partial.part == 0 and partial.prev == (None if known is None else known.end)
        in_order = partial.prev is None or partial.prev <= partial.begin
        if not (follows and in_order):
            raise StateGap(partial.source, partial.partition, None if known is None else known.end, partial.prev)

    def _merge_series(self, key: SeriesKey, cells: tuple[Cell, ...], merged_until: EpochUs) -> None:
        on_time = [cell for cell in cells if cell.end > merged_until]
        if len(on_time) < len(cells):
            late = (glance(cell.pane.counted).n for cell in cells if cell.end <= merged_until)
            self.tallies["late", key.surface] += sum(late)
        if not on_time or not self._fits(key):
            return
        key = self._admitted(key)
        series = self._of(key)
        steps = self._steps[key.kind]
        # Each event counts once: as one of its series, or of a surface that nothing splits.
        is_own = len(key.values) == len(self._rules.surfaces[key.surface].group_by)
        counted_step = min(steps, default=None) if is_own else None
        for cell in on_time:
            if cell.step not in steps:
                continue
            pieces = series.panes[cell.step].add(cell.slot, cell.pane)
            if len(pieces) == 2:  # noqa: PLR2004  # from now on they can be put together
                self._in_pieces.append(pieces)
            elif len(pieces) == MOST_PIECES:
                self._put_together()
            self._changed_panes.add(PaneId(key, cell.step, cell.slot))
            if cell.step == counted_step:
                _count(series.totals, glance(cell.pane.counted))

    def _merge_runs(
        self, key: SeriesKey, events: tuple[RunEvent, ...], partial: Partial, merged_until: EpochUs
    ) -> None:
        on_time = [event for event in events if event.time >= merged_until]
        if len(on_time) < len(events):
            self.tallies["late", key.surface] += len(events) - len(on_time)
        if not on_time or not self._takes_runs(key):
            return
        key = self._admitted(key)
        series = self._of(key)
        place = WaitingId(key, partial.partition, partial.begin, partial.part)
        series.waiting.setdefault(place, []).extend(on_time)
        self._changed_waiting.add(place)
        if not self._steps[key.kind]:
            for event in on_time:
                _count(series.totals, _glance_of(event))

    def _put_together(self) -> None:
        """Make one of the pieces of each pane, of all series at a time."""
        if not self._in_pieces:
            return
        several, self._in_pieces = self._in_pieces, []
        for pieces, whole in zip(several, merged(several), strict=True):
            pieces[:] = [whole]

    def _fits(self, key: SeriesKey) -> bool:
        """Whether the rules still judge series of this kind.

        One that they do not is of a former config; every rule of its surface begins after its last pane.
        """
        return key.kind in self._about

    def _takes_runs(self, key: SeriesKey) -> bool:
        """Whether a series is judged by run groups; a surface as a whole that is split into series is not."""
        return self._fits(key) and any(rule.deploys is not None for rule in self._about[key.kind])

    def _admitted(self, key: SeriesKey) -> SeriesKey:
        """The series itself, or its surface's overflow series where the surface is full."""
        of_surface = self._series[key.surface]
        if key in of_surface or not key.values:
            return key
        split = len(of_surface) - (SeriesKey(key.surface) in of_surface)
        if split < self._rules.surfaces[key.surface].max_series:
            return key
        overflow = overflow_of(key)
        if key != overflow:
            self.tallies["overflow_series", key.surface] += 1
        return overflow

    def _of(self, key: SeriesKey) -> _Series:
        about = self._about[key.kind]
        series = self._series[key.surface].get(key)
        if series is not None and len(series.progress) == len(about):
            return series
        return self._judged(key, about)

    def _judged(self, key: SeriesKey, about: tuple[Rule, ...]) -> _Series:
        """A series that at least the rules `about` judge."""
        series = self._series[key.surface].setdefault(key, _Series())
        for rule in about:
            if rule.name not in series.progress:
                series.progress[rule.name] = Progress()
                self._changed_progress.add(ProgressId(key, rule.name))
        return series

    # -- deciding ---------------------------------------------------------------------------------------

    def decide(self) -> Decisions:
        """Decide every window that the watermarks have passed since the last call."""
        decisions = Decisions()
        for _ in self.deciding(decisions):
            pass
        return decisions

    def deciding(self, decisions: Decisions) -> Iterator[None]:
        """The same into `decisions`, a series at a step. Until it ends nothing may be merged, or asked for."""
        decisions.transitions += self._ended
        self._ended = []
        for surface in self._rules.surfaces.values():
            time = self._sources[surface.source].time
            if time.watermark > BEGINNING and self._has_ripened(surface, time):
                self._put_together()
                for key in sorted(self._series[surface.name]):
                    self._decide_series(surface, key, time, decisions)
                    yield
            has_moved = time.watermark > BEGINNING and time != self._decided.get(surface.name)
            if has_moved and self._of_deploys[surface.name]:
                for key in sorted(self._series[surface.name]):
                    self._decide_deploys(surface, key, time, decisions)
                    yield
            self._decided[surface.name] = time

    def _has_ripened(self, surface: Surface, time: SourceTime) -> bool:
        """Whether some window end was passed since the last time: nothing can be decided in between."""
        before = self._decided.get(surface.name)
        if before is None or before.covered != time.covered:
            return True
        steps = self._steps_of_surface[surface.name]
        return any(time.watermark // step > before.watermark // step for step in steps)

    def _decide_series(self, surface: Surface, key: SeriesKey, time: SourceTime, decisions: Decisions) -> None:
        series = self._series[surface.name][key]
        for rule in self._about[key.kind]:
            known, progress = self._known[rule.name], series.progress.get(rule.name)
            if known.begin is None or progress is None or rule.deploys is not None:
                continue
            panes = series.panes.get(rule.every) or Panes()
            walk = self._walk(rule, progress, panes, time, known.begin)
            walk.run()
            if walk.decided:
                self._changed_progress.add(ProgressId(key, rule.name))
            decisions.verdicts += [(rule, key, window) for window in walk.decided]
            decisions.transitions += [_transition(rule, surface, key, turn) for turn in walk.turns]
        self._prune(key, series, time)

    def _walk(self, rule: Rule, progress: Progress, panes: Panes, time: SourceTime, begin: EpochUs) -> Walk:
        if not rule.is_about_absence:
            return Walk(rule, progress, panes, time, begin)
        partitions = self._sources[self._rules.surfaces[rule.surface].source].partitions.values()
        first = min((p.time.first for p in partitions if p.time.first is not None), default=None)
        return AbsenceWalk(rule, progress, panes, time, begin, first)

    def _decide_deploys(self, surface: Surface, key: SeriesKey, time: SourceTime, decisions: Decisions) -> None:
        series = self._series[surface.name][key]
        events = self._taken(series, time.complete)
        joined: set[int] = set()
        for rule in self._of_deploys[surface.name]:
            known, progress = self._known[rule.name], series.progress.get(rule.name)
            if progress is None:
                continue
            since = NEVER if known.begin is None else max(known.begin, time.covered)
            walk = DeployWalk(rule, progress, series.groups[rule.name], since)
            joined.update(place for place, event in enumerate(events) if walk.take(event))
            walk.pass_time(time.watermark)
            if walk.is_touched:
                self._changed_progress.add(ProgressId(key, rule.name))
            self._changed_groups.update(GroupId(key, rule.name, *deploy) for deploy in walk.changed)
            decisions.verdicts += [(rule, key, window) for window in walk.decided]
            decisions.transitions += [_transition(rule, surface, key, turn) for turn in walk.turns]
        if len(joined) < len(events):
            self.tallies["late", surface.name] += len(events) - len(joined)
        self._drop_if_idle(key, series)

    def _taken(self, series: _Series, complete: EpochUs) -> list[RunEvent]:
        """The events before `complete` in the order (time, partition, offset): they wait no longer."""
        taken: list[tuple[EpochUs, int, RunEvent]] = []
        for place, events in list(series.waiting.items()):
            ripe = [event for event in events if event.time < complete]
            if not ripe:
                continue
            taken += [(event.time, place.partition, event) for event in ripe]
            self._changed_waiting.add(place)
            series.waiting[place] = [event for event in events if event.time >= complete]
            if not series.waiting[place]:
                del series.waiting[place]
        # Those of one record stay as they stand in it: the sort is stable, and a record is in one partial.
        return [event for *_, event in sorted(taken, key=lambda each: (each[0], each[1], each[2].offset))]

    def _prune(self, key: SeriesKey, series: _Series, time: SourceTime) -> None:
        """Drop the panes that no window will ask for, and what waits for no event when nothing else is left."""
        for step, panes in series.panes.items():
            needed = self._needed_from(key, series, step, time)
            self._changed_panes.update(PaneId(key, step, slot) for slot in panes.drop(needed // step))
            panes.complete(time.watermark // step)
        self._drop_if_idle(key, series)

    def _drop_if_idle(self, key: SeriesKey, series: _Series) -> None:
        """Let go of everything but what waits for an event that may never come, once nothing is left of the rest."""
        if series.waiting or any(series.groups.values()) or any(series.panes.values()):
            return
        about = self._about[key.kind]
        let_go = [rule.name for rule in about if not rule.is_about_absence and rule.name in series.progress]
        if any(series.progress[name].next_end is not None for name in let_go):
            return
        for name in let_go:
            del series.progress[name]
        self._changed_progress.update(ProgressId(key, name) for name in let_go)
        if not series.progress:
            del self._series[key.surface][key]

    def _needed_from(self, key: SeriesKey, series: _Series, step: DurationUs, time: SourceTime) -> EpochUs:
        """Panes that end at or before this moment are in no window that is still to be decided."""
        needed = [time.watermark]
        for rule in self._about[key.kind]:
            progress = series.progress.get(rule.name)
            if rule.grid == step and progress is not None and progress.next_end is not None:
                needed.append(EpochUs(progress.next_end - rule.window))
        return EpochUs(min(needed))

    # -- what to write and to show ------------------------------------------------------------------------

    def changes(self) -> Changes:
        """What changed since the last call."""
        self._put_together()
        changes = Changes(
            sorted(self._changed_panes), sorted(self._changed_progress), sorted(self._changed_waiting),
            sorted(self._changed_groups),
        )  # fmt: skip
        self._changed_panes, self._changed_progress = set(), set()
        self._changed_waiting, self._changed_groups = set(), set()
        return changes

    def pane(self, place: PaneId) -> Packed | None:
        """The pane at `place`, None when it is not needed any more."""
        self._put_together()
        series = self._series.get(place.series.surface, {}).get(place.series)
        return None if series is None else (series.panes.get(place.step) or Panes()).get(place.slot)

    def progress(self, place: ProgressId) -> Progress | None:
        """The progress of an alert over a series, None when it was forgotten."""
        series = self._series.get(place.series.surface, {}).get(place.series)
        return None if series is None else series.progress.get(place.rule)

    def waiting(self, place: WaitingId) -> tuple[RunEvent, ...] | None:
        """The run events at `place` that are not taken yet, None when all are."""
        series = self._series.get(place.series.surface, {}).get(place.series)
        return None if series is None or place not in series.waiting else tuple(series.waiting[place])

    def group(self, place: GroupId) -> StoredGroup | None:
        """The run group at `place`, None when it was forgotten."""
        series = self._series.get(place.series.surface, {}).get(place.series)
        groups = None if series is None else series.groups.get(place.rule)
        deploy = Deploy(place.context, place.deploy)
        return None if groups is None else groups.stored(deploy)

    def totals(self, key: SeriesKey) -> Totals:
        """The events of a series by outcome."""
        series = self._series[key.surface].get(key)
        return Totals() if series is None else series.totals

    def rule_of(self, place: ProgressId) -> KnownRule:
        """The rule that a place belongs to: as it was, where it is gone or changed and has no progress now."""
        if place.rule in self._former and self.progress(place) is None:
            return self._former[place.rule]
        return self._known[place.rule]

    @property
    def sources(self) -> dict[str, SourceState]:
        """The partitions and the time of each source."""
        return self._sources

    @property
    def rules(self) -> dict[str, KnownRule]:
        """Every rule as judged now."""
        return self._known


def _glance_of(event: RunEvent) -> Glance:
    return Glance(event.time, 1, int(event.failed != UNKNOWN), int(event.failed == FAILED))


def _count(totals: Totals, events: Glance) -> None:
    totals.bad += events.bad
    totals.good += events.known - events.bad
    totals.unknown += events.n - events.known


def _transition(rule: Rule, surface: Surface, key: SeriesKey, turn: Turn) -> Transition:
    return Transition(
        rule=rule, surface=surface, series=key, labels=labels_of(rule, surface, key),
        key=key_of(rule, surface, key), reason=turn.reason, at=turn.at, starts_at=turn.starts_at,
        fired_at=turn.fired_at, windows=turn.windows, failing=turn.failing, slowest=turn.slowest,
    )  # fmt: skip
