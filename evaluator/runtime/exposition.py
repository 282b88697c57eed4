"""Metric families without duplicates, in the text format or OpenMetrics, whichever the reader asks for.

prometheus-client writes the formats; it is handed finished samples and is in no hot path. Two series whose
labels come out the same (the overflow series of two shards, values that differ in what cannot be written)
are combined, because a scrape with a duplicate is refused as a whole.
"""

from __future__ import annotations

from math import inf
from operator import add
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evaluator.runtime.histogram import Histogram

Labels = tuple[tuple[str, str], ...]

_OURS = frozenset({"alertname", "surface", "severity", "slo", "outcome", "stat", "quantile", "le"})
"""Names that a `group_by` label cannot have here: our own, and those that belong to histograms and summaries."""

EXEMPLAR_LIMIT = 128
"""Characters of an exemplar's names and values together; OpenMetrics refuses more."""


class Family:
    """One metric: a value for each label set. `combine` says what two values with the same labels make."""

    def __init__(
        self, name: str, kind: str, documentation: str, combine: Callable[[float, float], float] = max
    ) -> None:
        self.name, self.kind, self.documentation = name, kind, documentation
        self._combine = combine
        self._values: dict[Labels, float] = {}
        self._exemplars: dict[Labels, Exemplar] = {}
        self._histograms: list[tuple[Mapping[str, str], Histogram]] = []

    def add(self, labels: Mapping[str, str], value: float) -> None:
        """One more value."""
        key = _key(labels)
        known = self._values.get(key)
        self._values[key] = value if known is None else self._combine(known, value)

    def exemplify(self, labels: Mapping[str, str], trace_id: str, value: float) -> None:
        """Name a trace that was counted under these labels, if it is short enough to be named."""
        trace_id = _clean(trace_id)
        if trace_id and len("trace_id") + len(trace_id) <= EXEMPLAR_LIMIT:
            self._exemplars[_key(labels)] = Exemplar({"trace_id": trace_id}, value)

    def observe(self, labels: Mapping[str, str], histogram: Histogram) -> None:
        """One more histogram."""
        self._histograms.append((labels, histogram))

    def metric(self) -> Metric:
        """The family as prometheus-client writes it."""
        metric = Metric(self.name, self.documentation, self.kind)
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        for key, value in self._values.items():
            exemplar = self._exemplars.get(key)
            metric.samples.append(Sample(self.name + suffix, dict(key), value, None, exemplar))
        for labels, histogram in self._histograms:
            metric.samples.extend(_buckets(self.name, labels, histogram))
        return metric


def gauge(name: str, documentation: str, combine: Callable[[float, float], float] = max) -> Family:
    """A value that goes up and down."""
    return Family(name, "gauge", documentation, combine)


def counter(name: str, documentation: str) -> Family:
    """A count since the beginning, named without `_total`."""
    return Family(name, "counter", documentation, add)


def info(name: str, documentation: str) -> Family:
    """Facts as labels, named without `_info`."""
    return Family(name, "info", documentation)


def histogram(name: str, documentation: str) -> Family:
    """Durations."""
    return Family(name, "histogram", documentation)


def group_labels(group: Mapping[str, str]) -> dict[str, str]:
    """`group_by` labels for a metric; a name that is taken gets `exported_`, as Prometheus itself does it."""
    return {(f"exported_{n}" if n in _OURS or n.startswith("__") else n): value for n, value in group.items()}


def encode(families: Sequence[Family], accept: str) -> tuple[bytes, str]:
    """The exposition and its content type, in the format that the `Accept` header prefers."""
    encoder, content_type = choose_encoder(accept)
    return encoder(_Finished(families)), content_type


class _Finished(Collector):
    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return (family.metric() for family in self._families)


def _buckets(name: str, labels: Mapping[str, str], histogram: Histogram) -> Iterator[Sample]:
    plain = dict(_key(labels))
    count = 0
    for bound, count in histogram.cumulative():
        yield Sample(f"{name}_bucket", {**plain, "le": "+Inf" if bound == inf else str(bound)}, count)
    yield Sample(f"{name}_count", plain, count)
    yield Sample(f"{name}_sum", plain, histogram.sum)


def _key(labels: Mapping[str, str]) -> Labels:
    return tuple((name, _clean(value)) for name, value in sorted(labels.items()))


def _clean(text: str) -> str:
    """Half of a surrogate pair cannot be written in UTF-8: a question mark stands for it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
