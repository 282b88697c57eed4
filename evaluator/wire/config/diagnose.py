"""From what pydantic found in a file to findings that a person can act on.

Pydantic knows paths, the document knows places; the sentences are ours. Keys that the rules know but this
version does not act on are in one table here: each is refused, because a key that is silently ignored is an
alert that silently never comes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from evaluator.wire.config.entry import (
    AlertEntry,
    Entry,
    FieldsEntry,
    GroupEntry,
    RegistryEntry,
    RulesEntry,
    SloEntry,
    SourceEntry,
    SpanEntry,
    SurfaceEntry,
)
from evaluator.wire.config.finding import Code, Finding, did_you_mean, guidance, listed, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from evaluator.wire.config.finding import Path, Place
    from evaluator.wire.config.yaml12 import Document

SECTIONS: dict[str, type[Entry]] = {
    "sources": SourceEntry,
    "surfaces": SurfaceEntry,
    "slos": SloEntry,
    "alerts": AlertEntry,
}

NOT_SUPPORTED: dict[type[Entry], frozenset[str]] = {
    RulesEntry: frozenset({"ownership", "runbook_url", "dashboard_url", "maintenance", "control"}),
    SurfaceEntry: frozenset({"codeowners"}),
    SloEntry: frozenset({"burn_alerts"}),
    AlertEntry: frozenset({"windows", "confidence"}),
}
"""Keys of the rules that this version knows and does not act on."""

_EXAMPLES = {
    "version": "version: 1",
    "topic": "topic: easymo.events",
    "format": "format: json",
    "source": "source: api-events",
    "surface": "surface: voice-api",
    "sli": "sli: availability",
    "objective": "objective: 99.5%",
    "period": "period: 30d",
    "severity": "severity: page",
    "field": "field: metadata.region",
    "as": "as: region",
    "from": 'from: "header:x-produced-at"',
    "to": "to: record.timestamp",
    "url": "url: http://registry:8081",
}

_KINDS = {
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "bool_type": "true or false",
    "int_type": "a whole number",
}


def keys_of(entry: type[Entry]) -> tuple[str, ...]:
    """The keys of a kind of entry as they are written, in the order of its class."""
    return tuple(field.alias or name for name, field in entry.model_fields.items())


def findings_of(document: Document, bad: ValidationError) -> list[Finding]:
    """What is wrong with the entries of a document, each with its place."""
    errors = [(_path_of(error["loc"]), error) for error in bad.errors(include_url=False)]
    explained = {absent for path, error in errors for absent in _explains(path, error["type"])}
    return [
        _finding(document, path, error)
        for path, error in errors
        if not (error["type"] == "missing" and (path in explained or path[:-1] in explained))
    ]


def _explains(path: Path, kind: str) -> Iterator[Path]:
    """What need not be called missing: a key that is there with a typo, all keys beside an unsupported one."""
    entry = entry_at(path[:-1]) if kind == "extra_forbidden" else None
    if entry is None:
        return
    if path[-1] in NOT_SUPPORTED.get(entry, frozenset()):
        yield path[:-1]
    near = nearest(str(path[-1]), keys_of(entry))
    if near is not None:
        yield (*path[:-1], near)


def nothing_written(document: Document) -> Iterator[Finding]:
    """Every key whose value is missing: no key of the rules takes null."""
    for path, value in _walk(document.value, ()):
        if value is None and path:
            message = "expected a value, found nothing; write one, or leave the key out"
            yield Finding.at(place_of(document, path), Code.WRONG_TYPE, path, message)


def place_of(document: Document, path: Path) -> Place:
    """Where the value at `path` stands, or the nearest thing above it that stands anywhere."""
    while path and path not in document.values:
        path = path[:-1]
    return document.values[path]


def key_place(document: Document, path: Path) -> Place:
    """Where the key at `path` stands."""
    return document.keys.get(path) or place_of(document, path)


def _walk(value: object, path: Path) -> Iterator[tuple[Path, object]]:
    yield path, value
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _walk(child, (*path, name))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _walk(child, (*path, index))


def _path_of(loc: tuple[str | int, ...]) -> Path:
    """Pydantic's location without the tags of unions, which `entry.py` writes in angle brackets.

    Section and name come first and are no tags, whatever somebody calls an entry.
    """
    inner = (part for part in loc[2:] if not (isinstance(part, str) and re.fullmatch(r"<\w+>", part)))
    return (*loc[:2], *inner)


def _finding(document: Document, path: Path, error: ErrorDetails) -> Finding:
    kind = error["type"]
    if kind == "refused" and path[-1] == "[key]":
        path = path[:-1]
        return Finding.at(key_place(document, path), error["ctx"]["code"], path, error["ctx"]["message"])
    if kind == "missing":
        place = key_place(document, path[:-1])
        return Finding.at(place, Code.MISSING_KEY, path[:-1], _missing(str(path[-1])))
    if kind == "extra_forbidden":
        code = Code.NOT_SUPPORTED if _is_unsupported_key(path, kind) else Code.UNKNOWN_KEY
        message = "not supported yet" if code is Code.NOT_SUPPORTED else _unknown(path)
        return Finding.at(key_place(document, path), code, path, message)
    code, message = _value_message(error)
    return Finding.at(place_of(document, path), code, path, message)


def _missing(key: str) -> str:
    example = _EXAMPLES.get(key)
    return f'missing key "{key}"' + (f", for example {example}" if example else "")


def _value_message(error: ErrorDetails) -> tuple[Code, str]:
    kind, value = error["type"], error["input"]
    if kind == "refused":
        return error["ctx"]["code"], error["ctx"]["message"]
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        near = did_you_mean(value, names) if isinstance(value, str) else ""
        return Code.BAD_VALUE, f"expected one of {listed(names)}; found {shown(value)}{near}"
    if kind == "too_short":
        return Code.BAD_VALUE, "expected at least one entry, found none; leave the key out instead"
    if kind in _KINDS:
        return Code.WRONG_TYPE, f"expected {_KINDS[kind]}, found {shown(value)}"
    return Code.BAD_VALUE, f"{error['msg']}, found {shown(value)}"


def _is_unsupported_key(path: Path, kind: str) -> bool:
    entry = entry_at(path[:-1]) if kind == "extra_forbidden" else None
    return entry is not None and path[-1] in NOT_SUPPORTED.get(entry, frozenset())


_IN_SOURCE: dict[Path, type[Entry]] = {
    ("fields",): FieldsEntry,
    ("fields", "latency"): SpanEntry,
    ("schemas",): RegistryEntry,
}


def entry_at(path: Path) -> type[Entry] | None:
    """The kind of entry that stands at a path, None where none does."""
    match path:
        case ():
            return RulesEntry
        case (str() as section, _):
            return SECTIONS.get(section)
        case ("sources", _, *rest):
            return _IN_SOURCE.get(tuple(rest))
        case ("surfaces", _, "group_by", int()):
            return GroupEntry
    return None


def _unknown(path: Path) -> str:
    """What the key was probably meant to be, or where it belongs."""
    key, entry = str(path[-1]), entry_at(path[:-1])
    known = keys_of(entry) if entry is not None else ()
    home = _home_of(key) if nearest(key, known) is None else None
    if home is not None:
        return f"unknown key; it belongs under {home}. Known keys here: {listed(known)}"
    return f"unknown key{guidance(key, known, 'keys here')}"


def _home_of(key: str) -> str | None:
    homes = {section: f"{section}.NAME" for section in SECTIONS}
    for section, entry in SECTIONS.items():
        if key in keys_of(entry) or key in NOT_SUPPORTED.get(entry, frozenset()):
            return homes[section]
    if key in keys_of(FieldsEntry):
        return "sources.NAME.fields"
    return "the top of the file" if key in keys_of(RulesEntry) else None


def broken_entries(bad: ValidationError) -> set[Path]:
    """The paths of the smallest parts without which the rest of the document is valid."""
    paths = [_path_of(error["loc"]) for error in bad.errors(include_url=False, include_input=False)]
    return {path[:2] if path[0] in SECTIONS else path[:1] for path in paths}
