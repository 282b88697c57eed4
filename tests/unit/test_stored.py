"""Stored values have a schema number: what a release reads, what it writes, what it refuses and in which words."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from evaluator.core.event import DurationUs, SeriesKey
from evaluator.core.snapshot import GroupId, PaneId, ProgressId, WaitingId
from evaluator.errors import SchemaRefused, StateRefused
from evaluator.wire import state
from evaluator.wire.codecs import CODECS
from evaluator.wire.stored import Codec, Form


@dataclass(frozen=True, slots=True)
class Visit1:
    """Schema 1: seconds."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Visit2:
    """Schema 2: microseconds, and where from."""

    us: int
    country: str = ""


@dataclass(frozen=True, slots=True)
class Visit3:
    """Schema 3: as a span."""

    start: int
    end: int


def upgrade(visit: Visit1) -> Visit2:
    return Visit2(visit.seconds * 1_000_000)


def downgrade(visit: Visit2) -> Visit1:
    return Visit1(visit.us // 1_000_000)


FIRST = Codec("visit", 1, Form(Visit1))
SECOND = Codec("visit", 2, Form(Visit2), former=Form(Visit1, upgrade, downgrade))
THIRD = Codec(
    "visit", 3, Form(Visit3), former=Form(Visit2, lambda v: Visit3(0, v.us), lambda v: Visit2(v.end - v.start))
)

BY_FIRST = FIRST.encode(Visit1(7))
BY_SECOND = SECOND.encode(Visit2(7_000_000, "rw"))
BY_SECOND_FINALIZED = SECOND.finalized().encode(Visit2(7_000_000, "rw"))


def test_a_release_writes_what_the_one_before_reads_until_it_is_finalized() -> None:
    assert BY_SECOND == BY_FIRST
    assert FIRST.decode(BY_SECOND) == Visit1(7)
    assert BY_SECOND_FINALIZED[0] == 2


def test_a_release_reads_its_own_schema_and_the_one_before_finalized_or_not() -> None:
    for codec in (SECOND, SECOND.finalized()):
        assert codec.decode(BY_FIRST) == Visit2(7_000_000)
        assert codec.decode(BY_SECOND_FINALIZED) == Visit2(7_000_000, "rw")


def test_the_first_schema_is_written_finalized_or_not() -> None:
    assert FIRST.finalized().encode(Visit1(7)) == BY_FIRST


@pytest.mark.parametrize(
    ("codec", "stored", "writes"),
    [
        (FIRST, BY_FIRST, True),
        (SECOND, BY_FIRST, True),
        (SECOND, BY_SECOND_FINALIZED, False),
        (SECOND.finalized(), BY_FIRST, False),
        (SECOND.finalized(), BY_SECOND_FINALIZED, True),
    ],
)
def test_what_has_another_schema_than_the_one_that_is_written_is_known(
    codec: Codec, stored: bytes, *, writes: bool
) -> None:
    assert codec.would_write(stored) is writes


def test_a_later_schema_is_refused_with_the_way_out() -> None:
    with pytest.raises(SchemaRefused) as refused:
        FIRST.decode(BY_SECOND_FINALIZED)
    assert refused.value.exit_code == 78
    assert str(refused.value) == (
        "visit: stored with schema 2, this release reads schema 1; run the release that wrote it, or a later one; "
        "to go back to this one, run that one with state.finalize: false first, or start afresh under a new app_id"
    )


def test_a_schema_from_too_long_ago_is_refused_with_the_way_out() -> None:
    with pytest.raises(SchemaRefused) as refused:
        THIRD.decode(BY_FIRST)
    assert str(refused.value) == (
        "visit: stored with schema 1, this release reads schema 2 and 3; run each release in between with "
        "state.finalize: true, one after the other, or start afresh under a new app_id"
    )


@pytest.mark.parametrize("place", range(len(BY_SECOND_FINALIZED)))
@pytest.mark.parametrize("codec", [FIRST, SECOND, THIRD], ids=["first", "second", "third"])
def test_a_flipped_bit_is_damage_also_in_the_number(codec: Codec, place: int) -> None:
    for bit in range(8):
        flipped = bytearray(BY_SECOND_FINALIZED)
        flipped[place] ^= 1 << bit
        with pytest.raises(StateRefused, match="visit: a stored record is damaged"):
            codec.decode(bytes(flipped))


def test_a_stub_is_damage() -> None:
    for length in range(5):
        with pytest.raises(StateRefused, match=f"a stored record of {length} bytes is too short"):
            FIRST.decode(BY_FIRST[:length])


def test_a_body_of_another_type_is_refused_in_words() -> None:
    body = BY_SECOND_FINALIZED[5:]
    stored = struct.pack(">BI", 1, zlib.crc32(body, 1)) + body
    with pytest.raises(StateRefused, match=r"visit: a stored record says schema 1 but is not of it \(.*seconds"):
        FIRST.decode(stored)


LAYOUTS = {
    "run group": (1, "5164f40851a93d51"),
    "run events": (1, "2b9f2f0d198ad7cd"),
    "progress of a source partition": (1, "a673beff3ab37ccd"),
    "partial": (1, "41ac6b29da50013b"),
    "state of a shard": (1, "e6da79363c6c6522"),
    "pane": (1, "2a5b19f3cb21bbef"),
    "alert progress": (1, "aad59845ddd13e55"),
}
"""The schema numbers and, shortened, the hashes of the layouts that stand for them."""


def layout_of(codec: Codec) -> str:
    """A hash of everything that decides about bytes: names, types, order, defaults; no docstrings."""

    def bare(schema: Any) -> Any:
        if isinstance(schema, dict):
            return {name: bare(value) for name, value in schema.items() if name != "description"}
        return [bare(each) for each in schema] if isinstance(schema, list) else schema

    schema = msgspec.json.schema(codec.form.kind, schema_hook=lambda _: {"type": "string"})
    return hashlib.sha256(json.dumps(bare(schema)).encode()).hexdigest()[:16]


def test_a_key_of_another_build_is_refused_in_words() -> None:
    meta = state.encode_meta(state.Meta(0, 0, 1, 0, ""))
    former = b"p" + msgspec.msgpack.encode([{"surface": "api", "values": []}, 60_000_000, 7])
    with pytest.raises(StateRefused, match=r"a stored key is of no schema that is known \(Expected"):
        state.restore([(state.META_KEY, meta), (former, b"")])


def test_the_bytes_of_a_key_stay_as_they_are() -> None:
    place = PaneId(SeriesKey("api", ("x", "")), DurationUs(60_000_000), 7)
    assert state.pane_record(place, None) == (bytes.fromhex("70 93 92 a3617069 92 a178 a0 ce03938700 07"), None)
    progress = ProgressId(SeriesKey("api"), "Slow")
    assert state.progress_record(progress, None, None) == (bytes.fromhex("61 92 92 a3617069 90 a4536c6f77"), None)
    waiting = WaitingId(SeriesKey("api"), 2, 300, 0)
    assert state.waiting_record(waiting, None) == (bytes.fromhex("77 94 92 a3617069 90 02 cd012c 00"), None)
    group = GroupId(SeriesKey("api"), "Slow", "pr", "4f2")
    assert state.group_record(group, None) == (
        bytes.fromhex("67 94 92 a3617069 90 a4536c6f77 a27072 a3346632"), None,
    )  # fmt: skip


@pytest.mark.parametrize("codec", [CODECS.source_progress, CODECS.partial, *CODECS.state], ids=lambda codec: codec.name)
def test_a_layout_does_not_change_without_its_number(codec: Codec) -> None:
    """Where it must change, docs/adr/0015 says how. A field with a default that decides nothing may join a schema."""
    assert LAYOUTS[codec.name] == (codec.schema, layout_of(codec))
