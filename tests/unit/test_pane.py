"""Panes: merging, evidence, and the sketch."""

from __future__ import annotations

import numpy as np
import pytest

from evaluator.core import sketch
from evaluator.core.event import NO_LATENCY, EpochUs
from evaluator.core.packed import Packed, checked, pack, unpacked
from evaluator.core.pane import Counts, Evidence, Pane, strongest
from evaluator.core.panes import Panes, Sealed
from evaluator.core.rows import merged
from evaluator.core.sums import summed
from evaluator.errors import StateRefused
from evaluator.wire.codecs import CODECS


def pane(n: int, latency: int, *, raw: Counts | None = None, over: dict[int, int] | None = None) -> Pane:
    """A pane of `n` events of one latency."""
    counts = Counts(n, n, 0, n, {} if over is None else over)
    return Pane(counts, EpochUs(latency), EpochUs(latency), raw, n * latency, latency, {1: n})


def test_the_largest_latency_survives_a_merge() -> None:
    whole = pane(1, 5)
    whole.merge(pane(1, 9))
    assert (whole.lat_max, whole.lat_sum, whole.weighted.n) == (9, 14, 2)


def test_a_sum_beyond_64_bits_has_a_stored_form_and_comes_back_whole() -> None:
    heavy = Pane(Counts(1, 1, 0, 1), EpochUs(0), EpochUs(0), lat_sum=10**15 * (2**31 - 1) * 5_000)
    codec = CODECS.state.pane
    again = [codec.decode(codec.encode(pack(heavy.copy()))) for _ in range(2)]
    assert unpacked(again[0]).lat_total == heavy.lat_total
    assert merged([again])[0] == pack(Pane(
        Counts(2, 2, 0, 2), EpochUs(0), EpochUs(0), lat_sum=2 * 10**15 * (2**31 - 1) * 5_000
    ))  # fmt: skip
    assert summed([packed.counted for packed in again]).lat_sum == 2 * heavy.lat_total


def test_a_threshold_that_only_one_side_counted_is_not_known() -> None:
    whole = pane(1, 5, over={3: 1, 4: 1})
    whole.merge(pane(1, 9, over={4: 1, 7: 1}))
    assert whole.weighted.over == {4: 2}


def test_event_counts_appear_as_soon_as_one_side_has_weights() -> None:
    whole = pane(3, 5)
    whole.merge(pane(10, 5, raw=Counts(2, 2, 0, 2)))
    assert (whole.weighted.n, whole.events.n) == (13, 5)


def test_evidence_keeps_the_newest_failures_and_settles_ties_by_trace_id() -> None:
    events = tuple(Evidence(EpochUs(10), trace_id, NO_LATENCY) for trace_id in "bdacfe")
    assert [event.trace_id for event in strongest(events, failing=True)] == ["f", "e", "d", "c", "b"]


def test_evidence_keeps_the_slowest() -> None:
    events = tuple(Evidence(EpochUs(0), "", latency) for latency in (3, 9, 1, 7, 5, 8))
    assert [event.latency for event in strongest(events, failing=False)] == [9, 8, 7, 5, 3]


@pytest.mark.parametrize(("latency", "expected"), [(0, 0), (1, 0), (2, 35), (10**15, len(sketch.boundaries()) - 1)])
def test_a_latency_falls_into_the_first_bin_that_reaches_it(latency: int, expected: int) -> None:
    assert sketch.bins_of(np.array([latency])).tolist() == [expected]


def test_there_are_about_1730_boundaries_and_they_reach_the_largest_latency() -> None:
    bounds = sketch.boundaries()
    assert 1720 < len(bounds) < 1740
    assert bounds[-1] >= 10**15 > bounds[-2]


@pytest.mark.parametrize("latency", [100, 12_345, 999_999, 5_000_000, 10**12])
def test_a_shown_value_is_within_one_percent(latency: int) -> None:
    (index,) = sketch.bins_of(np.array([latency])).tolist()
    assert abs(sketch.shown(index) - latency) <= latency * 0.011


def sealed(pane: Pane, opened: list[bytes], name: bytes = b"") -> Sealed:
    """The pane, sealed under a name that is noted when it is opened."""

    def unseal(stored: bytes) -> Packed:
        opened.append(stored)
        return pack(pane)

    return Sealed(name, unseal)


PROOF = (Evidence(EpochUs(1), "t", 5),)


def proven(n: int, latency: int) -> Pane:
    found = pane(n, latency)
    found.failing = found.slowest = PROOF
    return found


def test_a_sealed_pane_is_opened_once_and_only_when_it_is_asked_for() -> None:
    opened: list[bytes] = []
    panes = Panes()
    panes.restore(3, sealed(pane(1, 5), opened, b"three"))
    panes.restore(7, sealed(pane(1, 5), opened, b"seven"))
    assert (sorted(panes), len(panes), panes.get(4)) == ([3, 7], 2, None)
    assert opened == []
    assert panes.add(7, pack(pane(2, 9))) == [pack(pane(1, 5)), pack(pane(2, 9))]
    assert n_within(panes, range(4, 9)) == 3
    assert opened == [b"seven"]
    assert panes.drop(7) == [3]
    assert list(panes) == [7]


def test_of_complete_panes_the_newest_evidence_is_kept() -> None:
    opened: list[bytes] = []
    panes = Panes()
    panes.restore(0, sealed(proven(1, 5), opened, b"zero"))
    panes.add(1, pack(proven(1, 5)))
    panes.add(2, pack(proven(1, 5)))
    panes.restore(3, sealed(proven(1, 5), opened, b"three"))
    panes.complete(2)
    assert opened == []
    plain, proved = pack(pane(1, 5)), pack(proven(1, 5))
    assert [panes.get(slot) for slot in range(5)] == [plain, proved, proved, proved, None]
    assert opened == [b"zero", b"three"]
    panes.complete(9)
    assert [panes.get(slot) for slot in range(5)] == [plain, plain, plain, proved, None]


def n_within(panes: Panes, slots: range) -> int | None:
    found = panes.sum(slots)
    return None if found is None else found.weighted.n


def test_panes_add_up_whether_they_grow_or_are_complete() -> None:
    panes = Panes()
    for slot in range(1, 6):
        panes.add(slot, pack(pane(slot, 1)))
    panes.complete(4)
    panes.add(5, pack(pane(100, 1)))
    assert [n_within(panes, range(start, 10)) for start in range(7)] == [115, 115, 114, 112, 109, 105, None]
    assert n_within(panes, range(2, 3)) == 2


def test_the_bytes_of_a_pane_stay_as_they_are() -> None:
    """They are stored: where they must change, docs/adr/0015 says how."""
    weighed = Pane(Counts(300, 200, 1, 260, {5: 7}), EpochUs(-1), EpochUs(9), Counts(3, 2, 1, 2, {5: 1}), 2**62 + 8, 7)
    weighed.bins = {40: 258, 2: 2}
    assert pack(weighed).counted == bytes.fromhex(
        "020201010100 0500000000000000 0200 0200"
        "ffffffffffffffff 0900000000000000 0700000000000000 0800000000000000"
        "0100 2c01 c800 0100 0401 0700  0300 0200 0100 0200 0100"
        "00 26  0200 0201"
    )


def test_a_sum_is_new_after_every_change() -> None:
    panes = Panes()
    slots = range(9)
    for slot in range(3):
        panes.add(slot, pack(pane(1, 1)))
    seen = [n_within(panes, slots)]
    panes.add(5, pack(pane(10, 1)))
    seen.append(n_within(panes, slots))
    panes.complete(2)
    seen.append(n_within(panes, slots))
    panes.drop(2)
    seen.append(n_within(panes, slots))
    panes.restore(7, pack(pane(100, 1)))
    seen.append(n_within(panes, slots))
    assert seen == [3, 13, 13, 11, 111]


@pytest.mark.parametrize("raw", [None, Counts(2, 2, 0, 2, {3: 1, 2**40: 0})])
def test_no_cut_of_a_packed_pane_and_no_other_shape_is_a_pane(raw: Counts | None) -> None:
    packed = pack(pane(300, 5, raw=raw, over={3: 1, 2**40: 0}))
    assert checked(packed) == packed
    for length in range(len(packed.counted)):
        with pytest.raises(ValueError, match="pane"):
            checked(Packed(packed.counted[:length]))
    with pytest.raises(ValueError, match="no pane is packed in 0 bytes"):
        checked(Packed(b""))
    for place in range(4):
        other = bytearray(packed.counted)
        other[place] ^= 0x41
        with pytest.raises(ValueError, match="pane"):
            checked(Packed(bytes(other)))


def test_a_stored_pane_that_is_none_is_refused() -> None:
    codec = CODECS.state.pane
    odd = codec.encode(Packed(b"nothing"))
    with pytest.raises(StateRefused, match=r"pane: a stored record says schema 1 but is not of it \(no pane is packed"):
        codec.decode(odd)
