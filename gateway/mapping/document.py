"""YAML as parser events into plain dicts and lists, with a compact table of where each key and value stands.

Scalars are those of YAML 1.2's core schema: `yes`, `no`, `on`, `off`, dates and `12:30:00` are text, `0777` is 777.
Keys are always text. A key that stands twice is a mistake. An alias gives the same object as its anchor; aliases
inside an anchor are refused, and how much a file expands to is bounded, so no file grows beyond its own size by much.
Merge keys (`<<`) and tags (`!x`) are refused.
"""

from __future__ import annotations

import re
import stat
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from gateway.mapping.mistakes import Mistakes
from gateway.model import Place

LARGEST_FILE = 32 * 2**20
DEEPEST = 32
MOST_NODES = 2_000_000

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_INT = re.compile(r"[-+]?[0-9]{1,64}")
_BASED = re.compile(r"0o[0-7]{1,32}|0x[0-9a-fA-F]{1,32}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".nan": float("nan"), ".NaN": float("nan"), ".NAN": float("nan"),
    ".inf": float("inf"), ".Inf": float("inf"), ".INF": float("inf"),
    "+.inf": float("inf"), "+.Inf": float("inf"), "+.INF": float("inf"),
    "-.inf": float("-inf"), "-.Inf": float("-inf"), "-.INF": float("-inf"),
}  # fmt: skip


class Places:
    """Where keys and values of all files of one load stand: 16 bytes a key, thrown away when the load is done.

    Positions are integers (file, line and column packed); containers are known by identity and kept alive.
    """

    def __init__(self) -> None:
        self._files: list[str] = [""]
        self._marks: dict[int, array[int]] = {}
        self._kept: list[Any] = []
        self._moved: dict[int, int] = {}

    def file(self, name: str) -> int:
        """Make a file known; gives the number that `pack` takes."""
        self._files.append(name)
        return len(self._files) - 1

    @staticmethod
    def pack(file: int, line: int, column: int) -> int:
        """One position; line and column count from 1."""
        return file << 48 | line << 16 | min(column, 0xFFFF)

    def unpack(self, position: int) -> Place:
        """The place of a position."""
        return Place(self._files[position >> 48], position >> 16 & 0xFFFF_FFFF, position & 0xFFFF)

    def note(self, container: dict[str, Any] | list[Any], marks: array[int]) -> None:
        """Note the positions of a dict (key, value, key, value, …) or list (item, item, …), in its order."""
        self._marks[id(container)] = marks

    def marks(self, container: dict[str, Any] | list[Any]) -> array[int] | None:
        """The positions that were noted of a container."""
        return self._marks.get(id(container))

    def keep(self, container: Any, *, moved: int = 0) -> None:
        """Keep a root alive, so that no identity below it is given to something else.

        `moved`: the position of what a template's parameter put into it.
        """
        self._kept.append(container)
        if moved:
            self._moved[id(container)] = moved

    def moved(self, container: Any) -> Place | None:
        """Where the first filling of a container that came out of a template stands."""
        position = self._moved.get(id(container))
        return self.unpack(position) if position else None

    def forget(self) -> None:
        """Let go of everything: no place can be asked for any more."""
        self._marks.clear()
        self._moved.clear()
        self._kept.clear()

    def positions(self, container: dict[str, Any], key: str) -> tuple[int, int]:
        """Positions of a key and of its value; zeros when nothing is known."""
        marks = self._marks.get(id(container))
        if marks is None:
            return 0, 0
        k = 2 * list(container).index(key)
        return marks[k], marks[k + 1]

    def key(self, container: dict[str, Any], key: str) -> Place:
        """Where a key stands."""
        return self.unpack(self.positions(container, key)[0])

    def value(self, container: dict[str, Any], key: str) -> Place:
        """Where a key's value stands."""
        return self.unpack(self.positions(container, key)[1])

    def keys(self, container: dict[str, Any]) -> Iterable[Place]:
        """Where each key stands, in order."""
        marks = self._marks.get(id(container))
        return map(self.unpack, marks[::2] if marks is not None else [0] * len(container))

    def locate(self, container: Any, path: Iterable[str | int], start: Place, *, key: bool = False) -> Place:
        """Where the value at a path stands (or its key); of a path that leads nowhere, the last part that exists."""
        place = start
        for step in path:
            if isinstance(container, dict) and step in container:
                positions = self.positions(container, str(step))
                place = self.unpack(positions[0 if key else 1])
            elif isinstance(container, list) and isinstance(step, int) and step < len(container):
                marks = self._marks.get(id(container))
                place = self.unpack(marks[step]) if marks is not None else place
            else:
                break
            container = container[step]
        return place if place.line or not start.line else start


def read_text(path: Path, mistakes: Mistakes, asked: Place | None = None) -> str | None:
    """The text of a UTF-8 file. Mistakes are noted at `asked`, where somebody named the file, and give None."""
    at = asked or Place(str(path))
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # before opening: a FIFO would keep us waiting
            mistakes.add(at, f"{path} is not a file. Name a file")
            return None
        if status.st_size > LARGEST_FILE:
            mistakes.add(at, f"{path} is larger than {LARGEST_FILE >> 20} MiB. Split it into mapping files")
            return None
        data = path.read_bytes()
    except OSError as error:
        what = f"{path}: " if asked else ""  # else it is the place
        mistakes.add(at, f"{what}{(error.strerror or str(error)).lower()}. Check the path and its permissions")
        return None
    return _decode(data, path, mistakes)


def _decode(data: bytes, path: Path, mistakes: Mistakes) -> str | None:
    """Bytes as text; None and a mistake with its place when they are not clean UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        mistakes.add(Place(str(path), 1, 1), "the file is UTF-16. Save it as UTF-8")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        place = Place(str(path), before.count(b"\n") + 1, column)
        mistakes.add(place, f"the file is not UTF-8 (byte 0x{data[error.start]:02x}). Save it as UTF-8")
        return None
    if found := _CONTROL.search(text):
        start = found.start()
        place = Place(str(path), text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start))
        mistakes.add(place, f"control character U+{ord(found[0]):04X}. Take it out")
        return None
    return text


def read_yaml(
    path: Path, *, places: Places, mistakes: Mistakes, text_keys: frozenset[str], asked: Place | None = None
) -> dict[str, Any] | None:
    """The keys and values of a YAML file, or None when it cannot be read at all (every reason is noted).

    Plain scalars below `text_keys` stay text whatever they look like: `address: 00001` is not the number 1.
    """
    text = read_text(path, mistakes, asked)
    if text is None:
        return None
    builder = _Builder(text, str(path), places, mistakes, text_keys)
    try:
        data = builder.document()
    except _RefusedError as refused:
        mistakes.add(refused.place, str(refused))
        return None
    except yaml.MarkedYAMLError as error:
        mistakes.add(*_parser_says(error, str(path), text))
        return None
    if not isinstance(data, dict):
        what = "the file is empty" if data is None else "the file must hold keys and values"
        mistakes.add(Place(str(path), 1, 1), f"{what}. Write 'key: value' lines")
        return None
    places.keep(data)
    return data


class _RefusedError(Exception):
    """Well-formed YAML that we do not take."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.place = place


class _Builder:
    """Events of one document into dicts and lists."""

    def __init__(self, text: str, name: str, places: Places, mistakes: Mistakes, text_keys: frozenset[str]) -> None:
        self._next = _events(text)
        self._places = places
        self._mistakes = mistakes
        self._text_keys = text_keys
        self._file = places.file(name)
        self._nodes = 0
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._open = 0
        self._words: dict[str, str] = {}

    def document(self) -> Any:
        """The root of the only document; None when there is none."""
        self._next()  # stream start
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return None
        root = self._node(self._next(), "", 0)
        self._next()  # document end
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._refuse(event, "a second document ('---') starts here; one file holds one")
        return root

    def _node(self, event: Any, key: str, depth: int) -> Any:
        """One node with all below it. `key` is the nearest key above: it decides how scalars are read."""
        self._nodes += 1
        kind = type(event)
        if kind is yaml.ScalarEvent:
            value = self._scalar(event, key)
            if event.anchor:
                self._anchors[event.anchor] = value, 1
            return value
        if kind is yaml.AliasEvent:
            return self._alias(event)
        if depth >= DEEPEST:
            raise self._refuse(event, f"nested deeper than {DEEPEST} levels. No part of the file needs that")
        if event.tag:
            raise self._refuse(event, f"the tag {event.tag} means nothing here. Take it out")
        before = self._nodes
        self._open += bool(event.anchor)
        value = self._mapping(depth) if kind is yaml.MappingStartEvent else self._sequence(key, depth)
        if event.anchor:
            self._open -= 1
            self._anchors[event.anchor] = value, self._nodes - before + 1
        return value

    def _mapping(self, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        marks = array("Q")
        while type(event := self._next()) is not yaml.MappingEndEvent:
            if type(event) is not yaml.ScalarEvent:
                raise self._refuse(event, "a key must be plain text")
            key = self._words.setdefault(event.value, event.value)
            if key == "<<" and event.implicit[0]:
                raise self._refuse(event, "merge keys ('<<') are not part of YAML 1.2. Use templates: instead")
            position, event = self._at(event), self._next()
            value = self._node(event, key, depth + 1)
            if key in data:
                first, place = map(self._places.unpack, (marks[2 * list(data).index(key)], position))
                self._mistakes.add(place, f"key '{key}' stands twice, first in line {first.line}. Take one of them out")
                continue
            data[key] = value
            marks.append(position)
            marks.append(self._at(event))
        self._places.note(data, marks)
        return data

    def _sequence(self, key: str, depth: int) -> list[Any]:
        data: list[Any] = []
        marks = array("Q")
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            data.append(self._node(event, key, depth + 1))
            marks.append(self._at(event))
        self._places.note(data, marks)
        return data

    def _scalar(self, event: Any, key: str) -> Any:
        text: str = event.value
        if event.tag and event.tag not in {"!", "tag:yaml.org,2002:str"}:
            raise self._refuse(event, f"the tag {event.tag} means nothing here. Take it out")
        if event.implicit[0] and not event.tag:
            value = resolve_scalar(text)
            if value is None or (not isinstance(value, str) and key not in self._text_keys):
                return value
        return self._words.setdefault(text, text) if len(text) <= 32 else text

    def _alias(self, event: Any) -> Any:
        if self._open:
            raise self._refuse(event, "an alias inside an anchor is not taken. Use templates: instead")
        if event.anchor not in self._anchors:
            raise self._refuse(event, f"there is no anchor &{event.anchor} above. Write it out here")
        value, size = self._anchors[event.anchor]
        self._nodes += size
        if self._nodes > MOST_NODES:
            raise self._refuse(event, f"aliases expand to more than {MOST_NODES:,} values. Use templates: instead")
        return value

    def _at(self, event: Any) -> int:
        mark = event.start_mark
        return self._places.pack(self._file, mark.line + 1, mark.column + 1)

    def _refuse(self, event: Any, text: str) -> _RefusedError:
        return _RefusedError(self._places.unpack(self._at(event)), text)


def _events(text: str) -> Callable[[], Any]:
    """A function that gives the next event: libyaml's where PyYAML was built with it (20 times faster)."""
    if yaml.__with_libyaml__:
        from yaml._yaml import CParser  # noqa: PLC0415 - absent where PyYAML was built without libyaml

        return CParser(text).get_event
    return yaml.SafeLoader(text).get_event


def resolve_scalar(text: str) -> Any:
    """What a plain scalar means in YAML 1.2's core schema: None, bool, int, float or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "0123456789+-.":
        if _INT.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _parser_says(error: yaml.MarkedYAMLError, name: str, text: str) -> tuple[Place, str]:
    """The parser's complaint with its place, and the usual cure for what stands there."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    here = lines[line] if line < len(lines) else ""
    if "\t" in here[: column + 1]:
        cure = "A tab stands here, indent with spaces"
    elif "${" in here:
        cure = "Put a value with ${…} in quotes inside { } and [ ]"
    elif "mapping values" in (error.problem or ""):
        cure = "Put a text with ': ' in quotes, or check the indentation"
    elif here[column : column + 1] in {"@", "`", "%"}:
        cure = "Put the text in quotes"
    else:
        cure = "Check indentation, brackets and quotes here and in the line above"
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return Place(name, line + 1, column + 1), f"{said}. {cure}"
