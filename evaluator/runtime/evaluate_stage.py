"""Stage 2 as the task sees it: partials of one shard in, transitions, status and state out."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import structlog

from evaluator.core import blind
from evaluator.core.alert import key_of
from evaluator.core.blind import Blindness, Telling
from evaluator.core.decide import Progress
from evaluator.core.evaluate import Evaluator
from evaluator.core.event import EpochUs
from evaluator.core.snapshot import Decisions, GroupId, KnownRule, PaneId, ProgressId, Totals, WaitingId
from evaluator.core.watermark import BEGINNING
from evaluator.errors import StateRefused
from evaluator.runtime.log.port import Outgoing, Partition
from evaluator.runtime.stage import COMMIT_EARLY, Outbox, check_revision, has_passed, phase_of
from evaluator.wire import partial as partial_wire
from evaluator.wire import record as record_wire
from evaluator.wire import state as state_wire
from evaluator.wire.codecs import CODECS
from evaluator.wire.record import Input, Publisher

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from evaluator.core.alert import Transition
    from evaluator.core.partial import Partial
    from evaluator.core.rule import RuleSet
    from evaluator.core.snapshot import Changes, SourceState
    from evaluator.runtime.log.port import Fetched
    from evaluator.runtime.topics import Topics
    from evaluator.wire.codecs import Codecs
    from evaluator.wire.records import Record
    from evaluator.wire.state import Restored

log = structlog.get_logger(__name__)

DELAYS_KEPT = 1000
"""Alert delays between two scrapes. More transitions than that in 15 s are one incident; its tail tells enough."""


TURN_BYTES = 128 << 10
"""How much of partials is merged in one turn: some 700 panes, half of the 50 ms that a turn may take. Smaller, and
more turns each look for windows that have ripened; larger, and heartbeats wait."""

REWRITTEN_AT_ONCE = 5_000
"""Records of another schema that one commit writes anew. More: a longer commit, fewer: more of them; a few MiB."""


DECIDED_AT_ONCE = 250
"""Some 20 ms where two alerts judge each series, and one window of it has ripened."""


class Publishing(NamedTuple):
    """What stage 2 writes, and when. A replay, which has no clock, marks nothing late and shows no status.

    `telling` is how blindness is told; None: not at all. `decided_at_once` is of how many series windows are decided in
    one turn.
    """

    publisher: Publisher
    state_interval: int
    verdicts: bool = False
    status: bool = True
    marks_late: bool = True
    telling: Telling | None = None
    decided_at_once: int = DECIDED_AT_ONCE


class EvaluateStage:
    """One shard."""

    name = "evaluate"

    def __init__(
        self, rules: RuleSet, shard: int, shards: int, topics: Topics, publishing: Publishing,
        tallies: Counter[tuple[str, ...]], codecs: Codecs = CODECS,
    ) -> None:  # fmt: skip
        self.tallies = tallies
        # Read by the metrics; bounded, because in a replay nobody does.
        self.alert_delays: deque[int] = deque(maxlen=DELAYS_KEPT)
        self.commit_delays: deque[int] = deque(maxlen=DELAYS_KEPT)
        self.input = Partition(topics.partials, shard)
        self.own = Partition(topics.state, shard)
        self.transactional_id = f"{topics.app_id}.evaluate.{shard}"
        self.next_offset = 0
        self.lag = 0
        # How far the partials are merged by what is committed.
        self.merged_until = 0
        self._rules, self._shards, self._topics, self._publishing = rules, shards, topics, publishing
        self._codecs = codecs
        self._evaluator = Evaluator(rules, None, shard, shards)
        self._meta: state_wire.Meta | None = None
        self._decided = Decisions()
        # What the last merge has ripened is decided in turns: the others of them, and what came of those before.
        self._deciding: Iterator[None] | None = None
        self._found = Decisions()
        self._blindness = self._watch({})
        self._trusts_clock = True
        # What was told of blindness since the last freeze.
        self._told: list[Transition] = []
        self._unpublished: list[Transition] = []
        # When the records were appended by which something was decided: newest, not frozen yet, not visible yet.
        self._ripened_at: EpochUs | None = None
        self._decided_by: list[EpochUs] = []
        self._unpublished_by: list[EpochUs] = []
        self._committed_at = EpochUs(0)
        self._phase = phase_of(self.input, publishing.state_interval)
        self._merged_bytes = 0
        # What is to be written anew, since it is stored with another schema than the one that is written now.
        self._former: list[state_wire.Place] = []
        self._is_meta_former = False

    @property
    def sources(self) -> dict[str, SourceState]:
        """What this shard knows of each source: watermark, coverage, partitions."""
        return self._evaluator.sources

    @property
    def watermark(self) -> EpochUs:
        """Of the source that is furthest behind: up to there all is merged, and decided by the next commit at last."""
        return min((state.time.watermark for state in self.sources.values()), default=BEGINNING)

    # -- taking over ------------------------------------------------------------------------------------

    def sequence_of(self, records: Sequence[Record]) -> int | None:
        """The newest committed sequence."""
        meta = self._restored(record for record in records if record.key == state_wire.META_KEY).meta
        return None if meta is None else meta.sequence

    def last_offset(self, _records: Sequence[Record]) -> int | None:
        """The partials carry their own chain; no record needs to be looked at again."""
        return None

    def restore(self, records: Sequence[Record], bounds: tuple[int, int], _last: Record | None) -> None:
        """Continue with the stored state. Raises `StateRefused` where that is unsafe."""
        meta, snapshot, former, self._is_meta_former = self._restored(records)
        self._meta, self._former = meta, list(former)
        if former:
            log.info("state.rewriting", shard=self.input.index, records=len(former))
        if meta is None:
            self._evaluator = Evaluator(self._rules, None, self.input.index, self._shards)
            self._blindness = self._watch({})
            self.next_offset = bounds[0]
            return
        self._check(meta, bounds)
        self._evaluator = Evaluator(self._rules, snapshot, self.input.index, self._shards)
        self._blindness = self._watch(meta.blind)
        self.next_offset = self.merged_until = meta.next_offset
        deciding = self._begin_to_decide()
        while not self._decide_some(deciding):
            pass

    def _restored(self, records: Iterable[Record]) -> Restored:
        return state_wire.restore(((record.key or b"", record.value) for record in records), self._codecs.state)

    def _check(self, meta: state_wire.Meta, bounds: tuple[int, int]) -> None:
        where = f"shard {self.input.index} ({self.own.topic})"
        check_revision(where, meta.revision, meta.config, self._rules)
        message = None
        if meta.shards != self._shards:
            message = (f"ran with {meta.shards} shards, now {self._shards}; shards cannot be changed under one "
                       f"app_id: set EVALUATOR_SHARDS={meta.shards} or use a new app_id")  # fmt: skip
        elif not bounds[0] <= meta.next_offset <= bounds[1]:
            message = (f"its next partial is at offset {meta.next_offset}, the log holds {bounds[0]} to {bounds[1]}; "
                       f"partials were deleted or the topic recreated: use a new app_id")  # fmt: skip
        if message is not None:
            refusal = f"{where}: {message}"
            raise StateRefused(refusal)

    # -- steady -----------------------------------------------------------------------------------------

    def apply(self, fetched: Fetched) -> Fetched | None:
        """Merge as many of the partials as a turn may take, and decide what they ripened; returns the others.

        Nothing is merged before all that was ripened earlier is decided. Raises `Superseded` before the first one that
        was made under a newer revision of the rules is merged.
        """
        if self._deciding is not None and (not self._decide_some(self._deciding) or fetched.records):
            return fetched
        rest, until = None, self._merged_bytes + TURN_BYTES
        for number, record in enumerate(fetched.records):
            if self._merged_bytes >= until:
                rest = fetched._replace(records=fetched.records[number:])
                fetched = fetched._replace(records=fetched.records[:number], next_offset=record.offset)
                break
            if record.value is not None:
                partial = partial_wire.decode(record.value, self._codecs.partial)
                where = f"shard {self.input.index} (a partial of {partial.source} {partial.partition})"
                check_revision(where, partial.origin.revision, partial.origin.config, self._rules)
                self._merge(partial)
                self._merged_bytes += len(record.value)
            # What is merged is not to be merged again, should the next one be refused.
            self.next_offset = record.offset + 1
        self.next_offset = fetched.next_offset
        self.lag = max(0, fetched.high_watermark - fetched.next_offset)
        if fetched.records and not self._decide_some(self._begin_to_decide()) and rest is None:
            return fetched._replace(records=())
        return rest

    def _merge(self, partial: Partial) -> None:
        before = self._watermark(partial.source)
        self._evaluator.merge(partial)
        if partial.appended is not None and self._watermark(partial.source) > before:
            self._ripened_at = partial.appended

    def _watermark(self, source: str) -> EpochUs:
        state = self.sources.get(source)
        return BEGINNING if state is None else state.time.watermark

    def _begin_to_decide(self) -> Iterator[None]:
        self._found = Decisions()
        self._deciding = self._evaluator.deciding(self._found)
        return self._deciding

    def _decide_some(self, deciding: Iterator[None]) -> bool:
        """Returns whether these were the last ones."""
        at_once = self._publishing.decided_at_once
        if sum(1 for _ in islice(deciding, at_once)) == at_once:
            return False
        self._deciding = None
        self._take(self._found)
        return True

    def _take(self, decided: Decisions) -> None:
        if decided.transitions and self._ripened_at is not None:
            self._decided_by.append(self._ripened_at)
        self._decided.transitions += decided.transitions
        if self._publishing.verdicts:
            self._decided.verdicts += decided.verdicts

    def interrupted(self) -> None:
        """Partials carry their own chain."""

    def trust_clock(self, *, trusted: bool) -> None:
        """Only blindness is told by the clock: not by one that is off."""
        self._trusts_clock = trusted
        self._blindness.forget()

    def _watch(self, episodes: Mapping[str, blind.Episode]) -> Blindness:
        return Blindness(self._rules, self.input.index, self._shards, self._publishing.telling, episodes)

    # -- committing -------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether so much was merged since the last freeze that its commit should go out before more is read."""
        return self._merged_bytes >= COMMIT_EARLY

    def due(self, now: EpochUs) -> bool:
        """At once when there are transitions, else every so often while there is something new."""
        if self._trusts_clock:
            self._told += self._blindness.look(now, self.sources)
        if self._is_urgent():
            return True
        moved = self._meta is None or self.next_offset > self._meta.next_offset
        return moved and has_passed(self._committed_at, now, self._publishing.state_interval, self._phase)

    def _is_urgent(self) -> bool:
        is_new_config = self._meta is None or self._meta.config != self._rules.hash
        is_former = bool(self._former) or self._is_meta_former
        is_told = bool(self._told or self._decided.transitions) or self._deciding is not None
        return is_told or is_new_config or is_former

    def freeze(self, now: EpochUs) -> Outbox | None:
        """Transitions, status, verdicts, what changed of the state, and the progress that goes with them."""
        moved = self._meta is None or self.next_offset > self._meta.next_offset
        self._committed_at = now
        if not (moved or self._is_urgent()):
            return None
        sequence = 0 if self._meta is None else self._meta.sequence + 1
        return Outbox(sequence, self._made(sequence, now))

    def _made(self, sequence: int, now: EpochUs) -> Iterator[Outgoing | None]:
        while self._deciding is not None:
            self._decide_some(self._deciding)
            yield None
        self._merged_bytes, self._is_meta_former = 0, False
        decided, self._decided = self._decided, Decisions()
        told, self._told = self._told, []
        self._meta = state_wire.Meta(
            sequence=sequence, next_offset=self.next_offset, shards=self._shards, revision=self._rules.revision,
            config=self._rules.hash, sources=self._evaluator.sources, rules=self._evaluator.rules,
            blind=dict(self._blindness.episodes),
        )  # fmt: skip
        meta = state_wire.encode_meta(self._meta, self._codecs.state)
        yield None
        changes = self._evaluator.changes()
        yield None
        self._unpublished = [*decided.transitions, *told]
        self._unpublished_by, self._decided_by = self._decided_by, []
        yield from (self._alert(transition, now) for transition in self._unpublished)
        yield from self._verdicts(decided)
        if self._publishing.status:
            yield from self._status(changes, now)
            yield from self._blind_status(told, now)
        yield from self._state(changes)
        yield Outgoing(self.own.topic, state_wire.META_KEY, meta, self.own.index)

    def _alert(self, transition: Transition, now: EpochUs) -> Outgoing:
        publishing = self._publishing
        late = publishing.marks_late and now - transition.at > self._rules.max_replay_age
        record = record_wire.alert_record(transition, publishing.publisher, self._inputs(transition), late=late)
        headers = record_wire.alert_headers(transition, publishing.publisher)
        key = transition.key.encode("utf-8", "replace")
        return Outgoing(self._topics.alerts, key, record_wire.dumps(record), headers=headers)

    def _inputs(self, transition: Transition) -> list[Input]:
        """Where the events of the windows shown are: from the last crumb before them to what was read."""
        source = self._rules.sources.get(transition.surface.source)
        if source is None:
            return []
        start = min((window.start for window in transition.windows), default=transition.starts_at)
        inputs = []
        for index, partition in sorted(self._evaluator.sources[source.name].partitions.items()):
            begin = max((crumb.end for crumb in partition.trail if crumb.newest < start), default=0)
            inputs.append(Input(source.topic, index, begin, partition.end))
        return inputs

    def _verdicts(self, decided: Decisions) -> Iterator[Outgoing]:
        for rule, series, window in decided.verdicts:
            record = record_wire.verdict_record(rule, self._rules.surfaces[rule.surface], series, window)
            yield Outgoing(self._topics.verdicts, record["key"].encode("utf-8", "replace"), record_wire.dumps(record))

    def _status(self, changes: Changes, now: EpochUs) -> Iterator[Outgoing]:
        for place in changes.progress:
            known, progress = self._evaluator.rule_of(place), self._evaluator.progress(place)
            key = key_of(known.rule, known.surface, place.series).encode("utf-8", "replace")
            value = None
            if progress is not None:
                source = self._evaluator.sources[known.surface.source]
                totals = self._evaluator.totals(place.series)
                value = record_wire.dumps(record_wire.status_record(known, place.series, progress, totals, source, now))
            yield Outgoing(self._topics.status, key, value)

    def _blind_status(self, told: Sequence[Transition], now: EpochUs) -> Iterator[Outgoing]:
        """Shown while it fires, then gone: there is nothing to know of a source that is seen."""
        for turn in told:
            value = None
            if turn.status == "firing":
                known, source = KnownRule(turn.rule, turn.surface, None), self.sources[turn.surface.source]
                progress = Progress(streak=blind.streak_of(turn))
                status = record_wire.status_record(known, turn.series, progress, Totals(), source, now)
                value = record_wire.dumps(status)
            yield Outgoing(self._topics.status, turn.key.encode(), value)

    def _state(self, changes: Changes) -> Iterator[Outgoing]:
        again, self._former = self._former[-REWRITTEN_AT_ONCE:], self._former[:-REWRITTEN_AT_ONCE]
        places: list[state_wire.Place] = [*changes.panes, *changes.progress, *changes.waiting, *changes.groups]
        for place in dict.fromkeys(places + again):
            yield self._state_record(place)

    def _state_record(self, place: state_wire.Place) -> Outgoing:
        codecs = self._codecs.state
        match place:
            case PaneId():
                key, value = state_wire.pane_record(place, self._evaluator.pane(place), codecs)
            case WaitingId():
                key, value = state_wire.waiting_record(place, self._evaluator.waiting(place), codecs)
            case GroupId():
                key, value = state_wire.group_record(place, self._evaluator.group(place), codecs)
            case ProgressId():
                totals = self._evaluator.totals(place.series) if place.series.surface in self._rules.surfaces else None
                key, value = state_wire.progress_record(place, self._evaluator.progress(place), totals, codecs)
        return Outgoing(self.own.topic, key, value, self.own.index)

    def committed(self, now: EpochUs) -> None:
        """The transitions of the last outbox are visible: count them."""
        for transition in self._unpublished:
            self.tallies["alerts", transition.status] += 1
            self.alert_delays.append(now - transition.at)
        self.commit_delays.extend(max(0, now - appended) for appended in self._unpublished_by)
        self._unpublished, self._unpublished_by = [], []
        self.merged_until = 0 if self._meta is None else self._meta.next_offset
        self.tallies.update(self._evaluator.tallies)
        self._evaluator.tallies.clear()
