"""A whole replay by the reference: a configuration and the files of one source in, transitions out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from reference.decoding import read_partition
from reference.model import RefTransition, RefVerdict, end_of_input, judge
from reference.reading import read_config

if TYPE_CHECKING:
    from collections.abc import Sequence


def judge_files(
    config_yaml: str,
    files: Sequence[bytes],
    until: int | None = None,
    *,
    envelope: bool = False,
    verdicts: list[RefVerdict] | None = None,
) -> list[RefTransition]:
    """What `replay FILE...` must find: each file is a partition of the only source; `until` in microseconds."""
    rules, raw = read_config(config_yaml)
    (source,) = rules.sources
    partitions = [
        read_partition(rules, raw, source, number, content, envelope=envelope) for number, content in enumerate(files)
    ]
    return judge(rules, source, partitions, end=end_of_input(partitions, until), verdicts=verdicts)


def as_record(found: RefTransition) -> dict[str, Any]:
    """A transition in the form of the alert record: the fields that `expected.ndjson` holds."""
    ends_at = found["endsAt_us"]
    return {
        "id": found["id"],
        "status": found["status"],
        "reason": found["reason"],
        "alertname": found["alertname"],
        "surface": found["surface"],
        "slo": found["slo"],
        "severity": found["severity"],
        "labels": found["labels"],
        "startsAt": rfc3339(found["startsAt_us"]),
        "firedAt": rfc3339(found["firedAt_us"]),
        "endsAt": None if ends_at is None else rfc3339(ends_at),
        "fingerprint": found["fingerprint"],
        "episode": found["episode"],
        "key": found["key"],
    }


def rfc3339(time: int) -> str:
    """A window's edge, which is a whole second."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    return moment.isoformat().replace("+00:00", "Z")
