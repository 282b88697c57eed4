"""Stage 2's state as records of `<app>.state`, one per thing that changes by itself.

    key                              value
    "m"                              sources, rules, progress in `<app>.partials`
    "p" [series, step, slot]         one pane, while a window may still ask for it
    "a" [series, alert]              one alert's progress over one series
    "w" [series, partition, begin, part]     run events that came with one partial, until they are taken in order
    "g" [series, alert, context, deploy]     one run group; a closed one is only a name

What is in brackets is msgpack.

A pane changes often and is small; what did not change is not written. A null value deletes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from evaluator.core.blind import Episode
from evaluator.core.decide import Progress
from evaluator.core.packed import Packed, checked
from evaluator.core.panes import Sealed
from evaluator.core.runs import RunEvent, StoredGroup
from evaluator.core.snapshot import GroupId, KnownRule, PaneId, ProgressId, Snapshot, SourceState, Totals, WaitingId
from evaluator.errors import StateRefused
from evaluator.wire.stored import Codec, Form

if TYPE_CHECKING:
    from collections.abc import Iterable

META_KEY = b"m"


@dataclass(frozen=True, slots=True)
class Meta:
    """The progress of a shard: written with every commit of it.

    `sequence` rises by 1 per committed transaction, `next_offset` is where to read `<app>.partials` on. `blind` are
    the sources of which the shard has told that it cannot see them.
    """

    sequence: int
    next_offset: int
    shards: int
    revision: int
    config: str
    sources: dict[str, SourceState] = field(default_factory=dict)
    rules: dict[str, KnownRule] = field(default_factory=dict)
    blind: dict[str, Episode] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredProgress:
    """An alert's progress, with the events of its series so far (for the metrics)."""

    progress: Progress
    totals: Totals


Place = PaneId | ProgressId | WaitingId | GroupId
"""Where something is stored by itself."""


def _checked_group(group: StoredGroup) -> StoredGroup:
    if group.pane is not None:
        checked(group.pane)
    return group


class StateCodecs(NamedTuple):
    """The codecs of what a shard stores."""

    meta: Codec = Codec("state of a shard", 1, Form(Meta))
    pane: Codec = Codec("pane", 1, Form(Packed, checked))
    progress: Codec = Codec("alert progress", 1, Form(StoredProgress))
    waiting: Codec = Codec("run events", 1, Form(tuple[RunEvent, ...]))
    group: Codec = Codec("run group", 1, Form(StoredGroup, _checked_group))


class Restored(NamedTuple):
    """A shard's state; both None where there never was one.

    `former` are the places whose records have another schema than the one that is written now; `is_meta_former` says
    so of the meta record.
    """

    meta: Meta | None = None
    snapshot: Snapshot | None = None
    former: tuple[Place, ...] = ()
    is_meta_former: bool = False


CODECS = StateCodecs()
_KEY = msgspec.msgpack.Encoder()
_PANE_KEY = msgspec.msgpack.Decoder(PaneId)
_PROGRESS_KEY = msgspec.msgpack.Decoder(ProgressId)
_WAITING_KEY = msgspec.msgpack.Decoder(WaitingId)
_GROUP_KEY = msgspec.msgpack.Decoder(GroupId)


def encode_meta(meta: Meta, codecs: StateCodecs = CODECS) -> bytes:
    """The value of the record `META_KEY`."""
    return codecs.meta.encode(meta)


def pane_record(place: PaneId, pane: Packed | None, codecs: StateCodecs = CODECS) -> tuple[bytes, bytes | None]:
    """Key and value of a pane; None deletes it."""
    return b"p" + _KEY.encode(place), None if pane is None else codecs.pane.encode(pane)


def progress_record(
    place: ProgressId, progress: Progress | None, totals: Totals | None, codecs: StateCodecs = CODECS
) -> tuple[bytes, bytes | None]:
    """Key and value of an alert's progress; None deletes it."""
    value = None if progress is None else codecs.progress.encode(StoredProgress(progress, totals or Totals()))
    return b"a" + _KEY.encode(place), value


def waiting_record(
    place: WaitingId, events: tuple[RunEvent, ...] | None, codecs: StateCodecs = CODECS
) -> tuple[bytes, bytes | None]:
    """Key and value of run events that wait; None deletes them."""
    return b"w" + _KEY.encode(place), None if events is None else codecs.waiting.encode(events)


def group_record(place: GroupId, group: StoredGroup | None, codecs: StateCodecs = CODECS) -> tuple[bytes, bytes | None]:
    """Key and value of a run group; None deletes it."""
    return b"g" + _KEY.encode(place), None if group is None else codecs.group.encode(group)


def restore(records: Iterable[tuple[bytes, bytes | None]], codecs: StateCodecs = CODECS) -> Restored:
    """A shard's state from its records, oldest first.

    Raises `StateRefused` where a record is damaged, of an unknown schema, or without its shard's meta.
    """
    newest: dict[bytes, bytes] = {}
    for key, value in records:
        if value is None:
            newest.pop(key, None)
        else:
            newest[key] = value
    stored = newest.pop(META_KEY, None)
    if stored is None and newest:
        message = "a shard has panes and progress but no meta record; it was damaged: restore it or use a new app_id"
        raise StateRefused(message)
    if stored is None:
        return Restored()
    meta: Meta = codecs.meta.decode(stored)
    snapshot = Snapshot(sources=meta.sources, rules=meta.rules)
    former: list[Place] = []
    check, unseal, writes = codecs.pane.check, codecs.pane.unseal, codecs.pane.writes
    for key, value in newest.items():
        if key.startswith(b"p"):
            pane_id: PaneId = _place(_PANE_KEY, key)
            sealed = Sealed(check(value), unseal)
            if value[0] == writes:
                snapshot.panes.append((pane_id, sealed))
            else:
                # One that will be written anew is opened now: if it cannot be, that is better known here.
                snapshot.panes.append((pane_id, sealed.opened))
                former.append(pane_id)
        elif key.startswith(b"w"):
            waiting_id: WaitingId = _place(_WAITING_KEY, key)
            snapshot.waiting[waiting_id] = codecs.waiting.decode(value)
            former += [] if codecs.waiting.would_write(value) else [waiting_id]
        elif key.startswith(b"g"):
            group_id: GroupId = _place(_GROUP_KEY, key)
            snapshot.groups[group_id] = codecs.group.decode(value)
            former += [] if codecs.group.would_write(value) else [group_id]
        else:
            place: ProgressId = _place(_PROGRESS_KEY, key)
            progress = codecs.progress.decode(value)
            snapshot.progress[place], snapshot.totals[place.series] = progress.progress, progress.totals
            former += [] if codecs.progress.would_write(value) else [place]
    return Restored(meta, snapshot, tuple(former), not codecs.meta.would_write(stored))


def _place(decoder: msgspec.msgpack.Decoder[Any], key: bytes) -> Any:  # noqa: ANN401  # of the decoder's type
    try:
        return decoder.decode(key[1:])
    except msgspec.DecodeError as error:
        message = (f"a stored key is of no schema that is known ({error}); it was written by a build that is no "
                   f"release: run that one, or use a new app_id")  # fmt: skip
        raise StateRefused(message) from None
