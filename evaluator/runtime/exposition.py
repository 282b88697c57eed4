"""Metric families without duplicates, in the text format or OpenMetrics, whichever the reader asks for.

prometheus-client decides the format and writes the head of each family. The samples are written here: it takes ten
microseconds for one, which is seconds of a scrape of 10,000 series. Two series whose labels come out the same (the
overflow series of two shards, values that differ in what cannot be written) are combined, because a scrape with a
duplicate is refused as a whole.
"""

from __future__ import annotations

import re
from math import inf
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evaluator.runtime.histogram import Histogram

_OURS = frozenset({"alertname", "surface", "severity", "slo", "outcome", "stat", "quantile", "le"})
"""Names that a `group_by` label cannot have here: our own, and those that belong to histograms and summaries."""

EXEMPLAR_LIMIT = 128
"""Characters of an exemplar's names and values together; OpenMetrics refuses more."""

_SUFFIX = {"counter": "_total", "info": "_info"}
"""What OpenMetrics adds to the names of samples."""

_ESCAPING = re.compile(r";\s*escaping=[^,;]*")
_END = "# EOF\n"
_number: Callable[[float], str] = floatToGoString


class Family:
    """One metric: a value for each label set. `combine` says what two values with the same labels make."""

    def __init__(
        self, name: str, kind: str, documentation: str, combine: Callable[[float, float], float] = max
    ) -> None:
        self.name, self.kind, self.documentation = name, kind, documentation
        self._combine = combine
        self._values: dict[str, float] = {}
        self._exemplars: dict[str, str] = {}
        self._histograms: list[tuple[Mapping[str, str], Histogram]] = []

    def add(self, labels: Mapping[str, str], value: float) -> None:
        """One more value."""
        self.put(written(labels), value)

    def put(self, labels: str, value: float) -> None:
        """One more value, of labels as `written`."""
        known = self._values.get(labels)
        self._values[labels] = value if known is None else self._combine(known, value)

    def exemplify(self, labels: str, trace_id: str) -> None:
        """Name a trace that was counted under labels as `written`, if it is short enough to be named."""
        if trace_id and len("trace_id") + len(trace_id) <= EXEMPLAR_LIMIT:
            self._exemplars[labels] = f" # {{{written({'trace_id': trace_id})}}} 1.0"

    def observe(self, labels: Mapping[str, str], histogram: Histogram) -> None:
        """One more histogram."""
        self._histograms.append((labels, histogram))

    def samples(self, *, exemplars: bool) -> Iterator[str]:
        """A line each, without its end."""
        name, named = self.name + _SUFFIX.get(self.kind, ""), self._exemplars if exemplars else {}
        for labels, value in self._values.items():
            yield _sample(name, labels, value) + named.get(labels, "")
        for of_histogram, histogram in self._histograms:
            yield from _buckets(self.name, of_histogram, histogram)


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


class SeriesLabels(NamedTuple):
    """The labels of an alert over a series as they are written: its own, with its severity, around two others."""

    plain: str
    severe: str
    stat: tuple[str, str]
    outcome: tuple[str, str]

    @classmethod
    def of(cls, alertname: str, surface: str, severity: str, group: Mapping[str, str]) -> SeriesLabels:
        """Written once for each record of a series: that is most of what a scrape would take."""
        of_series = {"surface": surface, **group_labels(group)}
        labels = {"alertname": alertname, **of_series}
        severe = written({**labels, "severity": severity})
        return cls(written(labels), severe, around(labels, "stat"), around(of_series, "outcome"))


def group_labels(group: Mapping[str, str]) -> dict[str, str]:
    """`group_by` labels for a metric; a name that is taken gets `exported_`, as Prometheus itself does it."""
    return {(f"exported_{n}" if n in _OURS or n.startswith("__") else n): value for n, value in group.items()}


def written(labels: Mapping[str, str]) -> str:
    """Labels as they stand between the braces, sorted by name."""
    text = ",".join([f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items())])
    # Half of a surrogate pair cannot be written in UTF-8: a question mark stands for it.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def around(labels: Mapping[str, str], name: str) -> tuple[str, str]:
    """What is `written` of labels before and behind a further one of that name."""
    before = {each: value for each, value in labels.items() if each < name}
    behind = {each: value for each, value in labels.items() if each > name}
    return f"{written(before)}," if before else "", f",{written(behind)}" if behind else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def content_type_of(accept: str) -> str:
    """The content type of the format that the `Accept` header prefers; one of a few."""
    return _chosen(accept)[1]


def encode(families: Sequence[Family], accept: str) -> tuple[bytes, str]:
    """The exposition and its content type, in the format that the `Accept` header prefers."""
    encoder, content_type = _chosen(accept)
    is_open = content_type.startswith("application/openmetrics-text")
    end = _END if is_open else ""
    parts = []
    for family in families:
        parts.append(encoder(_Head(family)).decode().removesuffix(end))
        parts += [f"{line}\n" for line in family.samples(exemplars=is_open)]
    return "".join([*parts, end]).encode(), content_type


def _chosen(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    # Our names need no escaping, whichever the reader prefers; the library would escape those of the heads alone.
    return choose_encoder(_ESCAPING.sub("", accept))


class _Head(Collector):
    """A family without samples: prometheus-client knows how each format introduces it."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield Metric(self._family.name, self._family.documentation, self._family.kind)


def _sample(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {_number(value)}" if labels else f"{name} {_number(value)}"


def _buckets(name: str, labels: Mapping[str, str], histogram: Histogram) -> Iterator[str]:
    plain, count = written(labels), 0
    for bound, count in histogram.cumulative():
        le = written({**labels, "le": "+Inf" if bound == inf else str(bound)})
        yield _sample(f"{name}_bucket", le, count)
    yield _sample(f"{name}_count", plain, count)
    yield _sample(f"{name}_sum", plain, histogram.sum)
