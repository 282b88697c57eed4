"""A release after this one: every kind of stored value has another schema, which this one cannot read.

`NEXT` reads both. Panes are laid out anew field by field; the others lie in a box.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from evaluator.core.event import EpochUs
from evaluator.core.packed import Packed, pack, unpacked
from evaluator.core.pane import Counts, Evidence, Pane
from evaluator.core.partial import Partial
from evaluator.wire.codecs import CODECS, Codecs
from evaluator.wire.progress import SourceProgress
from evaluator.wire.state import Meta, StateCodecs, StoredProgress
from evaluator.wire.stored import Codec, Form

T = TypeVar("T")


class Latency(msgspec.Struct, frozen=True, array_like=True):
    """Of a pane: one sum, in digits, instead of two pieces."""

    total: str
    largest: int
    bins: list[tuple[int, int]]


class Pane2(msgspec.Struct, frozen=True, array_like=True):
    """A pane, by what belongs together."""

    span: tuple[EpochUs, EpochUs]
    counts: tuple[Counts, Counts | None]
    latency: Latency
    proofs: tuple[tuple[Evidence, ...], tuple[Evidence, ...]]


def _pane(stored: Pane2) -> Packed:
    (first, last), (weighted, raw), (failing, slowest) = stored.span, stored.counts, stored.proofs
    latency = stored.latency
    return pack(Pane(
        weighted, first, last, raw, int(latency.total), latency.largest, dict(latency.bins), failing, slowest
    ))  # fmt: skip


def _pane2(packed: Packed) -> Pane2:
    pane = unpacked(packed)
    latency = Latency(str(pane.lat_total), pane.lat_max, list(pane.bins.items()))
    return Pane2((pane.first, pane.last), (pane.weighted, pane.raw), latency, (pane.failing, pane.slowest))


class Box(msgspec.Struct, Generic[T], frozen=True, tag="box"):
    """A value in a box."""

    inside: T


def _boxed(kind: Any) -> Form:
    return Form(Box[kind], upgrade=lambda box: box.inside, downgrade=Box)


def _followed(codec: Codec, form: Form) -> Codec:
    return Codec(codec.name, codec.schema + 1, form, former=codec.form)


NEXT = Codecs(
    _followed(CODECS.source_progress, _boxed(SourceProgress)),
    _followed(CODECS.partial, _boxed(Partial)),
    StateCodecs(
        _followed(CODECS.state.meta, _boxed(Meta)),
        _followed(CODECS.state.pane, Form(Pane2, _pane, _pane2)),
        _followed(CODECS.state.progress, _boxed(StoredProgress)),
    ),
)
