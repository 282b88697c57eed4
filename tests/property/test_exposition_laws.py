"""The exposition is byte for byte what prometheus-client makes of the same samples."""

from __future__ import annotations

from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

from evaluator.runtime.exposition import Family, around, encode, written

OPENMETRICS = "application/openmetrics-text;version=1.0.0"

values = st.text(alphabet=st.one_of(st.characters(), st.sampled_from('"\\\n{},= ')), max_size=6)
labels = st.dictionaries(st.sampled_from(["api", "le_", "surface", "zone", "A", "_x"]), values, max_size=3)
numbers = st.one_of(st.floats(), st.integers(0, 2**60), st.booleans())
samples = st.lists(st.tuples(labels, numbers), max_size=5)


class Expected(Collector):
    """What prometheus-client is told of a family."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def collect(self) -> list[Metric]:
        return [self.metric]


def clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
@given(st.sampled_from(["gauge", "counter", "info"]), samples, values)
def test_samples_are_written_as_the_library_writes_them(
    accept: str, kind: str, found: list[tuple[dict[str, str], float]], trace: str
) -> None:
    family = Family("slo_thing", kind, 'What it is: "a\\b",\nover two lines.', add)
    expected: dict[tuple[tuple[str, str], ...], float] = {}
    for names, value in found:
        family.add(names, value)
        key = tuple((name, clean(text)) for name, text in sorted(names.items()))
        expected[key] = expected[key] + value if key in expected else value
    if found and kind == "counter":
        family.exemplify(written(found[0][0]), trace)
    metric = Metric(family.name, family.documentation, kind)
    named = {} if not (found and kind == "counter" and trace) else {next(iter(expected)): clean(trace)}
    suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
    for key, value in expected.items():
        exemplar = Exemplar({"trace_id": named[key]}, 1) if key in named else None
        metric.samples.append(Sample(family.name + suffix, dict(key), value, None, exemplar))
    encoder, content_type = choose_encoder(accept)
    assert encode([family], accept) == (encoder(Expected(metric)), content_type)


@given(labels, values)
def test_a_label_stands_between_those_around_it(others: dict[str, str], value: str) -> None:
    before, behind = around(others, "middle")
    assert before + written({"middle": value}) + behind == written({**others, "middle": value})
