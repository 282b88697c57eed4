"""The worked examples: each shows one clause of docs/semantics.md, its arithmetic is in its README."""

from __future__ import annotations

import orjson
import pytest
from support import cases


@pytest.mark.parametrize("name", cases.names())
def test_a_worked_case_gives_the_expected_transitions(name: str) -> None:
    folder = cases.CASES / name
    seen = [cases.compared(line) for line in cases.run(folder).alerts]
    assert cases.multiset(seen) == cases.multiset(cases.expected(folder))


@pytest.mark.parametrize("name", cases.names())
@pytest.mark.parametrize("batch", [1, 3])
def test_another_batch_size_changes_no_byte_but_provenance(name: str, batch: int) -> None:
    folder = cases.CASES / name
    whole, cut = (cases.run(folder, batch=size, verdicts=True) for size in (20_000, batch))
    assert [_without_provenance(line) for line in whole.alerts] == [_without_provenance(line) for line in cut.alerts]
    assert whole.verdicts == cut.verdicts


@pytest.mark.parametrize("name", cases.names())
def test_partitions_in_another_order_give_the_same_set(name: str) -> None:
    folder = cases.CASES / name
    forwards, backwards = (cases.run(folder, backwards=order).alerts for order in (False, True))
    assert sorted(map(_without_provenance, forwards)) == sorted(map(_without_provenance, backwards))


def _without_provenance(line: bytes) -> bytes:
    record = orjson.loads(line)
    del record["provenance"]
    return orjson.dumps(record)
