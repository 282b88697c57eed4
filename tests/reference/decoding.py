"""From the lines of a partition's file to accepted events: docs/semantics.md 1, 2 and 13, format `json`."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.core.event import MAX_GROUP_VALUE, MAX_LATENCY, MAX_TEXT, OVERFLOW
from reference.model import RefEvent, Series

if TYPE_CHECKING:
    from evaluator.core.rule import RuleSet

LAST_TIME = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""

BAD_VALUE, MISSING_TIME, FUTURE = "bad_value", "missing_time", "future"
PER_MICROSECOND = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:(Z)|([+-])(\d\d)(?::?(\d\d))?)")


class Rejected(Exception):
    """The event is not accepted; the reason is its argument."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a partition; `timestamp` in milliseconds, None where there is no envelope."""

    text: bytes | None
    timestamp: int | None = None
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Seen(NamedTuple):
    """An id that was decoded."""

    offset: int
    text: str


def read_partition(
    rules: RuleSet, raw: Mapping[str, Any], source: str, number: int, content: bytes, *, envelope: bool = False
) -> list[RefEvent]:
    """The accepted events of one file in log order; each line is an offset."""
    settings = raw["sources"][source]
    surfaces = [(name, each) for name, each in raw["surfaces"].items() if each["source"] == source]
    seen: list[Seen] = []
    accepted: list[RefEvent] = []
    for offset, line in enumerate(content.split(b"\n")):
        record = unwrap(line) if envelope else Record(line)
        for payload in payloads(record, batch=settings.get("batch", "one")):
            try:
                event = decode(rules, settings, surfaces, source, (number, offset), record, payload)
            except Rejected:
                continue
            if event is None:
                continue
            known = identity(payload, settings)
            dedup = settings.get("dedup", 0)
            repeated = dedup and any(each.text == known and each.offset >= offset - dedup for each in seen)
            if known is not None:
                seen.append(Seen(offset, known))
            if not repeated:
                accepted.append(event)
    return accepted


def unwrap(line: bytes) -> Record:
    """A line with `--envelope`."""
    if not line.strip():
        return Record(None)
    wrapped = json.loads(line)
    value = wrapped.get("value")
    if value is not None and not isinstance(value, str):
        text: bytes | None = json.dumps(value).encode()
    elif value is not None and wrapped.get("encoding") == "base64":
        text = base64.b64decode(value)
    else:
        text = None if value is None else value.encode()
    return Record(text, wrapped.get("timestamp"), wrapped.get("key"), wrapped.get("headers") or {})


def payloads(record: Record, *, batch: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a record; what is not one carries no event."""
    if record.text is None or not record.text.strip():
        return
    try:
        found = json.loads(record.text)
    except ValueError:
        return
    for each in found if batch == "array" and isinstance(found, list) else [found]:
        if isinstance(each, dict):
            yield each


def decode(
    rules: RuleSet,
    settings: Mapping[str, Any],
    surfaces: list[tuple[str, Mapping[str, Any]]],
    source: str,
    place: tuple[int, int],
    record: Record,
    payload: Mapping[str, Any],
) -> RefEvent | None:
    """The event of an object; None where `where` skips it."""
    fields = settings.get("fields", {})

    def look(path: str) -> Any:
        return lookup(record, payload, path)

    if "where" in settings and not matches(settings["where"], look):
        return None
    time = event_time(fields, record, look)
    stamp = record.timestamp * 1000 if record.timestamp and record.timestamp > 0 else None
    if stamp is not None and time > stamp + rules.sources[source].max_future:
        raise Rejected(FUTURE)
    return RefEvent(
        partition=place[0],
        offset=place[1],
        time=time,
        failed=outcome(fields.get("failed"), look),
        latency=latency_of(fields, look),
        weight=weight_of(fields, look),
        series=series_of(rules, surfaces, look),
        deploy=text_of(fields, "deploy", look),
        context=text_of(fields, "context", look) or "main",
        score=score_of(fields, look),
    )


def text_of(fields: Mapping[str, Any], name: str, look: Callable[[str], Any]) -> str:
    """A field's text, empty where there is none."""
    return label_value(look(fields[name])) if name in fields else ""


def score_of(fields: Mapping[str, Any], look: Callable[[str], Any]) -> int | None:
    """The score in millionths; none of a run that failed is asked for by the examples."""
    found = look(fields["score"]) if "score" in fields else None
    if found is None:
        return None
    if not 0 <= found <= 1:
        raise Rejected(BAD_VALUE)
    return round(Fraction(str(found)) * 10**6)


def identity(payload: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """The text of the event's id, if it has one."""
    path = settings.get("fields", {}).get("id")
    text = label_value(lookup(Record(None), payload, path)) if path else ""
    masked = text.startswith("xxxxxxxx-xxxx-")
    return None if masked else text.encode()[:MAX_TEXT].decode(errors="ignore") or None


def event_time(fields: Mapping[str, Any], record: Record, look: Any) -> int:
    """The time of the event: the configured field, else the record's timestamp."""
    if "time" in fields:
        found = look(fields["time"])
        unit = "ms" if fields["time"] == "record.timestamp" else fields.get("time_unit", "auto")
    else:
        found, unit = record.timestamp, "ms"
    if found is None:
        raise Rejected(MISSING_TIME)
    return time_of(found, unit)


def time_of(found: Any, unit: str) -> int:
    """A time in microseconds: a number in `unit`, or ISO 8601."""
    iso = _ISO.fullmatch(found) if isinstance(found, str) else None
    time = iso_time(iso) if iso else to_microseconds(number_of(found), unit)
    if not 0 <= time <= LAST_TIME:
        raise Rejected(BAD_VALUE)
    return time


def iso_time(found: re.Match[str]) -> int:
    """Fractions as decimals, to the nearest microsecond, ties to even."""
    year, month, day, hour, minute, second, fraction, _, sign, off_hours, off_minutes = found.groups()
    try:
        whole = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=UTC)
    except ValueError:
        raise Rejected(BAD_VALUE) from None
    offset = int(off_hours or 0) * 60 + int(off_minutes or 0)
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) - offset * (-60 if sign == "-" else 60)
    return round((seconds + Fraction(f"0.{fraction or 0}")) * 1_000_000)


def number_of(found: Any) -> int | float:
    """A JSON number, or a string in JSON's grammar of numbers."""
    if isinstance(found, str) and _NUMBER.fullmatch(found):
        found = json.loads(found)
    if isinstance(found, bool) or not isinstance(found, int | float) or found in {float("inf"), float("-inf")}:
        raise Rejected(BAD_VALUE)
    return found


def to_microseconds(number: float, unit: str) -> int:
    """Exactly for an integer, else as the double times its factor; ties to even."""
    if unit == "auto":
        size = abs(number)
        unit = "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"
    times, by = PER_MICROSECOND[unit]
    if isinstance(number, int):
        return round(Fraction(number * times, by))
    return round(number * (times if by == 1 else 0.001))


def latency_of(fields: Mapping[str, Any], look: Any) -> int | None:
    """The latency; a bad one is dropped and leaves the event."""
    wanted = fields.get("latency")
    if wanted is None:
        return None
    try:
        if isinstance(wanted, dict):
            ends = [look(wanted["from"]), look(wanted["to"])]
            if None in ends:
                return None
            unit = fields.get("time_unit", "auto")
            latency = time_of(ends[1], unit) - time_of(ends[0], unit)
        else:
            found = look(wanted)
            if found is None:
                return None
            latency = to_microseconds(number_of(found), fields["latency_unit"])
    except Rejected:
        return None
    return latency if 0 <= latency <= MAX_LATENCY else None


def weight_of(fields: Mapping[str, Any], look: Any) -> int:
    """The weight, 1 where there is none."""
    found = look(fields["weight"]) if "weight" in fields else None
    if found is None:
        return 1
    weight = number_of(found)
    if weight != int(weight) or weight < 1:
        raise Rejected(BAD_VALUE)
    return int(weight)


def outcome(test: Any, look: Any) -> bool | None:
    """Whether the event failed; None where no test or none of its fields is there."""
    if test is None:
        return None
    named = [path for each in (test if isinstance(test, list) else [test]) for path in each]
    return matches(test, look) if any(look(path) is not None for path in named) else None


def series_of(rules: RuleSet, surfaces: list[tuple[str, Mapping[str, Any]]], look: Any) -> Series | None:
    """The first surface that matches, and the values of its `group_by` fields."""
    for name, found in surfaces:
        if "match" not in found or matches(found["match"], look):
            values = (label_value(look(each.path)) for each in rules.surfaces[name].group_by)
            return name, tuple(OVERFLOW if len(value.encode()) > MAX_GROUP_VALUE else value for value in values)
    return None


def label_value(found: Any) -> str:
    """Section 8: the text of a value."""
    if found is None:
        return ""
    if isinstance(found, str):
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int | float):
        number = float(found)
        return str(int(number)) if number.is_integer() else repr(number)
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def lookup(record: Record, payload: Mapping[str, Any], path: str) -> Any:
    """What a field names; None where it is missing."""
    if path.startswith("header:"):
        return record.headers.get(path.removeprefix("header:"))
    if path == "key":
        return record.key
    if path == "record.timestamp":
        return record.timestamp
    found: Any = payload
    for part in path.split("."):
        found = sole(found)
        found = found.get(part) if isinstance(found, dict) else None
    return sole(payload.get(path) if found is None else found)


def sole(found: Any) -> Any:
    """A list of length 1 is looked through."""
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found


def matches(test: Any, look: Any) -> bool:
    """A mapping: all of its fields hold; a list of mappings: any."""
    if isinstance(test, list):
        return any(matches(each, look) for each in test)
    return all(holds(each, look(path)) for path, each in test.items())


def holds(test: Any, found: Any) -> bool:
    """One test on one value."""
    op, _, operand = test.partition(" ") if isinstance(test, str) else ("", "", "")
    if found is None:
        return op in {"!=", "!~"}
    if isinstance(test, list):
        return any(equal(each, found) for each in test)
    if op in {"~", "!~"}:
        return (re.search(operand, label_value(found)) is not None) == (op == "~")
    if op in {"==", "!="}:
        return same_text(operand, found) == (op == "==")
    if op in {">=", "<=", ">", "<"}:
        return ordered(op, operand, found)
    return test == "*" or equal(test, found)


def equal(test: Any, found: Any) -> bool:
    """By type and value; numbers by value."""
    if isinstance(test, bool) or isinstance(found, bool):
        return test is found
    if isinstance(test, int | float):
        return isinstance(found, int | float) and test == found
    return isinstance(found, str) and bool(test == found)


def same_text(operand: str, found: Any) -> bool:
    """As numbers where both are, else as text."""
    if _NUMBER.fullmatch(operand) and not isinstance(found, bool) and _NUMBER.fullmatch(str(found)):
        return Fraction(operand) == Fraction(str(found))
    return label_value(found) == operand


def ordered(op: str, operand: str, found: Any) -> bool:
    """Numbers, and strings that are numbers."""
    try:
        value = Fraction(str(number_of(found)))
    except Rejected:
        return False
    bound = Fraction(operand)
    return {">=": value >= bound, "<=": value <= bound, ">": value > bound, "<": value < bound}[op]
