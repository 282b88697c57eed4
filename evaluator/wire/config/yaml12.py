"""YAML 1.2 documents in which every key and value knows its line and column.

PyYAML reads the syntax and speaks YAML 1.1; this module takes its events and resolves plain scalars by the
core schema of YAML 1.2 instead. What the two versions read differently (`yes`, `010`, `1:30`, `1_000`) is
refused, because whoever wrote it may have meant either. So are tags, merge keys and odd white space.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from evaluator.wire.config.finding import Code, Finding, Path, Place, shown
from evaluator.wire.config.plain import ambiguity, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 32
"""Levels of nesting; a rules file needs 8. Deeper ones would let the depth of our own stack decide."""

MAX_VALUES = 500_000
"""Values after aliases are followed. A real file of 10,000 alerts has 200,000; a billion laughs has more."""


@dataclass(slots=True)
class Document:
    """A parsed file: plain values, the place of every key and value by its path, and what is wrong with it.

    The place of a mapping's entry is the value's in `values` and the key's in `keys`. `value` is None where
    the file could not be read at all.
    """

    file: str
    value: object = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class _Scalar:
    place: Place
    value: object


@dataclass(slots=True)
class _Sequence:
    place: Place
    items: list[_Node] = field(default_factory=list)


@dataclass(slots=True)
class _Mapping:
    place: Place
    entries: dict[str, tuple[Place, _Node]] = field(default_factory=dict)
    key: _Scalar | None = None


_Node = _Scalar | _Sequence | _Mapping


class _Stop(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def parse(text: str, file: str) -> Document:
    """Read one document. Never raises: what is wrong with it is in `findings`."""
    document = Document(file)
    try:
        root = _Composer(text, document).root()
        document.value = _Flattener(document).plain(root, (), 0) if root is not None else None
    except _Stop as stop:
        document.findings.append(stop.finding)
    if any(finding.code is Code.ODD_CHARACTER for finding in document.findings):
        document.value = None  # such a character makes other keys of what stands there: guesses would mislead
    return document


class _Composer:
    """Makes a tree of the events of PyYAML's parser, without recursion: depth is data, not stack."""

    def __init__(self, text: str, document: Document) -> None:
        self._text = text
        self._file = document.file
        self._findings = document.findings
        self._open: list[_Sequence | _Mapping] = []
        self._anchors: dict[str, _Node] = {}
        self._pending: list[str | None] = []
        self._root: _Node | None = None
        self._documents = 0

    def root(self) -> _Node | None:
        """The tree; None for a file that holds nothing."""
        for event in self._events():
            self._take(event)
        return self._root

    def _events(self) -> Iterator[Any]:
        try:
            yield from yaml.parse(self._text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as bad:
            place = _place_of(self._text, bad.position, self._file)
            what = f"holds the control character U+{int(bad.character):04X}; delete it, or write an escape in quotes"
            raise _Stop(Finding.at(place, Code.ODD_CHARACTER, (), what)) from None
        except yaml.MarkedYAMLError as bad:
            raise _Stop(_syntax_finding(self._text, self._file, bad)) from None

    def _take(self, event: yaml.Event) -> None:
        place = self._place(event)
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._stop(place, Code.NOT_YAML, "a second document begins here; a rules file is one document")
            case yaml.AliasEvent():
                self._alias(event, place)
            case yaml.ScalarEvent():
                self._check_tag(event, place)
                self._add(_Scalar(place, self._scalar(event, place)), event.anchor)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._check_tag(event, place)
                self._begin(_Sequence(place) if isinstance(event, yaml.SequenceStartEvent) else _Mapping(place), event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._add(self._open.pop(), self._pending.pop())

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1) if mark is not None else Place(self._file, 1, 1)

    def _begin(self, node: _Sequence | _Mapping, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) >= MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep; a rules file needs 8"
            raise _Stop(Finding.at(node.place, Code.TOO_LARGE, (), message))  # its path would fill the screen
        parent = self._open[-1] if self._open else None
        if isinstance(parent, _Mapping) and parent.key is None:
            self._stop(node.place, Code.NOT_YAML, "a key must be text, found a list or a mapping; quote it")
        self._open.append(node)
        self._pending.append(event.anchor)

    def _alias(self, event: yaml.AliasEvent, place: Place) -> None:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            message = f'*{event.anchor} stands for nothing so far; to test that a field is present, write "*" in quotes'
            self._stop(place, Code.NOT_YAML, message)
        self._add(node, None)

    def _add(self, node: _Node, anchor: str | None) -> None:
        """Put a finished node where the innermost open one wants it."""
        if anchor is not None:
            self._anchors[anchor] = node
        parent = self._open[-1] if self._open else None
        match parent:
            case None:
                self._root = node
            case _Sequence():
                parent.items.append(node)
            case _Mapping(key=None):
                parent.key = node if isinstance(node, _Scalar) else None
                if parent.key is None:
                    self._stop(node.place, Code.NOT_YAML, "a key must be text, found a list or a mapping; quote it")
            case _Mapping(key=_Scalar() as key):
                parent.key = None
                self._enter(parent, key, node)

    def _enter(self, mapping: _Mapping, key: _Scalar, node: _Node) -> None:
        name = key.value
        if name == "<<":
            self._find(key.place, Code.AMBIGUOUS, "merge keys (<<) are not part of YAML 1.2; repeat the keys")
        elif not isinstance(name, str):
            self._find(key.place, Code.AMBIGUOUS, f"a key must be text, found {shown(name)}; put it in quotes")
        elif name in mapping.entries:
            first = mapping.entries[name][0].line
            self._find(key.place, Code.DUPLICATE_KEY, f'the key "{name}" is here twice; first on line {first}')
        else:
            mapping.entries[name] = (key.place, node)

    def _check_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, place: Place) -> None:
        if event.tag is not None:
            what = 'a text that starts with "!" needs quotes, as in "!= start" (YAML reads a tag here)'
            self._stop(place, Code.AMBIGUOUS, what)

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> object:
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._find(place, Code.ODD_CHARACTER, "holds half of a surrogate pair, which is no text")
            return "?"
        if event.style is not None:
            return text
        odd = next((index for index, character in enumerate(text) if _is_odd(character)), None)
        if odd is not None:
            one_line = event.end_mark is not None and event.end_mark.line + 1 == place.line
            exact = place._replace(column=place.column + odd) if one_line else place
            self._find(exact, Code.ODD_CHARACTER, _odd_message(text[odd]))
            return text
        problem = ambiguity(text)
        if problem is not None:
            self._find(place, Code.AMBIGUOUS, problem)
            return text
        return resolved(text)

    def _find(self, place: Place, code: Code, message: str) -> None:
        self._findings.append(Finding.at(place, code, self._path(), message))

    def _path(self) -> Path:
        """The path of what is being read."""
        path: list[str | int] = []
        for node in self._open:
            if isinstance(node, _Sequence):
                path.append(len(node.items))
            elif node.key is not None:
                path.append(str(node.key.value))
        return tuple(path)

    def _stop(self, place: Place, code: Code, message: str) -> NoReturn:
        raise _Stop(Finding.at(place, code, self._path(), message))


class _Flattener:
    """Turns a tree into plain values, aliases followed, and notes where each stands."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def plain(self, node: _Node, path: Path, depth: int) -> object:
        """The value of a node; its places go to the document."""
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            message = "more values than any rules file needs; do its aliases multiply each other?"
            raise _Stop(Finding.at(node.place, Code.TOO_LARGE, (), message))
        self._document.values[path] = node.place
        match node:
            case _Scalar():
                return node.value
            case _Sequence():
                return [self.plain(item, (*path, index), depth + 1) for index, item in enumerate(node.items)]
            case _Mapping():
                return {name: self._entry(name, entry, path, depth) for name, entry in node.entries.items()}

    def _entry(self, name: str, entry: tuple[Place, _Node], path: Path, depth: int) -> object:
        self._document.keys[(*path, name)] = entry[0]
        return self.plain(entry[1], (*path, name), depth + 1)


def _is_odd(character: str) -> bool:
    """White space that looks like a space but is none, and characters that do not show at all."""
    return not character.isascii() and unicodedata.category(character) in {"Zs", "Zl", "Zp", "Cf", "Cc"}


def _odd_message(character: str) -> str:
    name = unicodedata.name(character, "a control character").lower()
    return f"holds {name} (U+{ord(character):04X}), which does not read as a space; type the space again, or use quotes"


_HINTS = (
    ("found character '\\t'", "a tab stands here; YAML takes only spaces for indentation"),
    ("that cannot start any token", "a text cannot start with this character; put it in quotes"),
    (
        "mapping values are not allowed here",
        'a second ": " on the line, or a wrong indentation; text with ": " needs quotes',
    ),
    ("expected chomping or indentation indicators", 'a text that starts with ">" needs quotes, as in ">= 500"'),
    ("expected alphabetic or numeric character", 'a text that starts with "*" or "&" needs quotes'),
    ("found unexpected end of stream", "a quote is never closed"),
    ("could not find expected ':'", 'a key without ":" before this line'),
    ("found unknown escape character", "a backslash in double quotes is written twice; single quotes take it as it is"),
    ("expected the node content, but found '<stream end>'", "the file ends in the middle of a list or mapping"),
    ("expected ',' or ']'", "a list in brackets is not closed, or a comma is missing"),
    ("expected ',' or '}'", "a mapping in braces is not closed, or a comma is missing"),
    ("expected <block end>", "the indentation does not fit the lines above"),
)


def _syntax_finding(text: str, file: str, bad: yaml.MarkedYAMLError) -> Finding:
    mark = bad.problem_mark or bad.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    odd = _odd_near(text, line)
    if odd is not None:
        odd_line, odd_column, character = odd
        place = Place(file, odd_line + 1, odd_column + 1)
        return Finding.at(place, Code.ODD_CHARACTER, (), _odd_message(character))
    problem = bad.problem or "not YAML"
    hint = next((hint for sign, hint in _HINTS if sign in problem), problem)
    return Finding.at(Place(file, line + 1, column + 1), Code.NOT_YAML, (), f"not YAML: {hint}")


def _odd_near(text: str, line: int) -> tuple[int, int, str] | None:
    """Invisible characters break the syntax a line later than they stand; where, if one is near `line`."""
    lines = text.splitlines()
    for number in (line, line - 1):
        content = lines[number].split(" #")[0] if 0 <= number < len(lines) else ""
        for column, character in enumerate(content):
            if _is_odd(character):
                return number, column, character
    return None


def _place_of(text: str, position: int, file: str) -> Place:
    before = text[:position]
    return Place(file, before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
