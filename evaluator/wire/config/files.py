"""Several rules files as one: read, validated, merged.

An entry that is wrong is reported and left out, so that one run shows everything there is to fix. Its name
stays known: nobody wants to read that a surface does not exist because its `max_series` has a typo.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from evaluator.wire.config.diagnose import (
    SECTIONS,
    broken_entries,
    findings_of,
    key_place,
    keys_of,
    nothing_written,
    place_of,
)
from evaluator.wire.config.entry import AlertEntry, RulesEntry, SloEntry, SourceEntry, SurfaceEntry
from evaluator.wire.config.finding import Code, Finding, Path, Place, listed, shown
from evaluator.wire.config.yaml12 import Document, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(slots=True)
class Entries:
    """All valid entries of all files, in config order, and everything that was wrong so far.

    `readable` is False where a file could not be parsed: then nobody knows which names exist.
    """

    files: list[str]
    sources: dict[str, SourceEntry] = field(default_factory=dict)
    surfaces: dict[str, SurfaceEntry] = field(default_factory=dict)
    slos: dict[str, SloEntry] = field(default_factory=dict)
    alerts: dict[str, AlertEntry] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    readable: bool = True
    _homes: dict[Path, Document] = field(default_factory=dict)

    @property
    def start(self) -> Place:
        """The beginning of the first file."""
        return Place(self.files[0], 1, 1)

    def knows(self, section: str, name: str) -> bool:
        """Whether some file has an entry of that name, valid or not."""
        return (section, name) in self._homes

    def names(self, section: str) -> list[str]:
        """The names of all entries of a section, valid or not."""
        return [str(path[1]) for path in self._homes if path[0] == section and len(path) > 1]

    def value_place(self, path: Path) -> Place:
        """Where the value at a path stands; `path` begins with section and name."""
        return place_of(self._homes[path[:2]], path)

    def key_place(self, path: Path) -> Place:
        """Where the key at a path stands; `path` begins with section and name."""
        return key_place(self._homes[path[:2]], path)

    def claim(self, path: Path, document: Document) -> bool:
        """Whether the entry at `path` is the first of its name; a second one is a finding."""
        first = self._homes.setdefault(path, document)
        if first is document:
            return True
        there = key_place(first, path)
        message = f"this name is taken; first in {there.file}:{there.line}"
        self.findings.append(Finding.at(key_place(document, path), Code.NAME_TWICE, path, message))
        return False


def read(paths: Sequence[FilePath | str]) -> Entries:
    """All entries of the files in command-line order. Never raises for what is in them."""
    entries = Entries([os.fspath(path) for path in paths])
    for path in paths:
        document = _document(FilePath(path), os.fspath(path))
        _merge(entries, document)
    return entries


def _document(path: FilePath, name: str) -> Document:
    """A file, parsed; a file that cannot be read is a document with that finding."""
    document = Document(name)
    try:
        raw = path.read_bytes()
    except OSError as bad:
        reason = (bad.strerror or str(bad)).lower()
        _report(document, Code.UNREADABLE, f"cannot read the rules file: {reason}")
        return document
    except ValueError as bad:
        _report(document, Code.UNREADABLE, f"cannot read the rules file: {bad}")
        return document
    if raw.startswith(_UTF16):
        _report(document, Code.UNREADABLE, "the file is UTF-16; save it as UTF-8")
        return document
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        line = raw.count(b"\n", 0, bad.start) + 1
        column = len(raw[raw.rfind(b"\n", 0, bad.start) + 1 : bad.start].decode("utf-8", "replace")) + 1
        message = f"the byte 0x{raw[bad.start]:02x} is not UTF-8; save the file as UTF-8"
        document.findings.append(Finding.at(Place(name, line, column), Code.UNREADABLE, (), message))
        return document
    return _checked(parse(text, name))


def _checked(document: Document) -> Document:
    """The same document, with a finding where it is no mapping."""
    if document.findings or isinstance(document.value, dict):
        return document
    if document.value is None:
        _report(document, Code.SHAPE, "the file is empty; a rules file begins with version: 1")
    else:
        expected = listed(keys_of(RulesEntry))
        _report(document, Code.SHAPE, f"expected a mapping with {expected}; found {shown(document.value)}")
    return document


def _report(document: Document, code: Code, message: str) -> None:
    place = document.values.get((), Place(document.file, 1, 1))
    document.findings.append(Finding.at(place, code, (), message))


def _merge(entries: Entries, document: Document) -> None:
    if not isinstance(document.value, dict):
        entries.findings += document.findings
        entries.readable = False
        return
    valid, found = _validated(document, document.value)
    entries.findings += found
    for section in SECTIONS:
        written = document.value.get(section, {})
        into: dict[str, Any] = getattr(entries, section)
        entries.readable &= isinstance(written, dict)
        for name in written if isinstance(written, dict) else ():
            if entries.claim((section, name), document) and name in getattr(valid, section):
                into[name] = getattr(valid, section)[name]
    for key in ("revision", "blind_after", "max_replay_age", "max_skew"):
        if key in document.value and entries.claim((key,), document):
            entries.settings[key] = getattr(valid, key)


def _validated(document: Document, value: dict[str, Any]) -> tuple[RulesEntry, list[Finding]]:
    """The valid entries of a document, and what is wrong with the others, one finding a place."""
    found = [*document.findings, *nothing_written(document)]
    try:
        valid = RulesEntry.model_validate(value)
    except ValidationError as bad:
        places = {(each.line, each.column) for each in found}
        found += [each for each in findings_of(document, bad) if (each.line, each.column) not in places]
        valid = RulesEntry.model_validate(_without(value, broken_entries(bad)))
    return valid, found


def _without(value: dict[str, Any], broken: set[Path]) -> dict[str, Any]:
    """The same mapping without the broken entries; `version` is taken for granted."""
    rest = {key: each for key, each in value.items() if (key,) not in broken}
    for section in SECTIONS:
        if isinstance(rest.get(section), dict):
            rest[section] = {name: each for name, each in rest[section].items() if (section, name) not in broken}
    return rest | {"version": 1}
