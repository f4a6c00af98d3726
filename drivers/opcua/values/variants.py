"""Values of every built-in type as they are published: numbers, text, bytes, lists, dicts [Part 6 5.2.2]. Pure.

What JSON has no word for becomes text: DateTime ISO 8601, Guid and NodeId their text, StatusCode its name,
QualifiedName `2:Name`, LocalizedText the text alone. A ByteString stays bytes where it is the value itself, and is
hexadecimal text in arrays and structures, as a Float has the shortest digits there. A matrix is a list of lists.

    Variant     Byte encoding: bits 0-5 type, bit 6 dimensions follow, bit 7 array; value or array; Int32 array of these
    DataValue   Byte mask: 1 value, 2 status, 4 source time, 8 server time, 0x10 and 0x20 their picoseconds; then these,
                the picoseconds of a time right behind it

    05 0B 00 00 00 00 00 00 F8 3F 80 F4 ...    mask 5: a Double 1.5, and a source time
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final, TypeAlias

from drivers.opcua.values.layouts import FLOAT, Layout, inner, read_structure
from drivers.opcua.values.shapes import ENDS, NONE, NUMBERS
from drivers.opcua.values.status import BAD_DECODING_ERROR, name_of
from drivers.opcua.values.wire import (
    INT32,
    INT64,
    MAX_DEPTH,
    UINT32,
    Key,
    byte_string,
    expanded_node_id,
    extension,
    guid,
    size_of,
    string,
    text_of,
    time_text,
)
from gateway.floats import shorten
from gateway.model import Value

MOST_VALUES: Final = 1_000_000
"""How many values one message may hold: a byte on the wire can mean hundreds here."""
_PART: Final = 4
"""How many values a part of one counts as: an element of an array that is no number, or a structure."""
MOST_MISSING: Final = 200
"""How many structures may be asked for at a time: what a server sends beyond them comes with the next message."""
MOST_LAYOUTS: Final = 5000
"""How many may be known or known not to be told, in one session: all others stay bytes."""
_UINT16: Final = struct.Struct("<H").unpack_from

Read: TypeAlias = tuple[Any, int]
"""A value, and the position behind it."""


class MisfitError(ValueError):
    """A value that makes no sense, though it is known where it ends: nothing behind it is lost."""

    def __init__(self, text: str, end: int) -> None:
        super().__init__(text)
        self.end = end


class Decoder:
    """Knows the namespaces of a session and the structures learned so far; `missing` are those met and not yet known.

    `layouts`: by the id of their encoding; None for one that nobody can tell us. `room`: how many values may still
    come; who decodes a message says `begin` first.
    """

    def __init__(self, namespaces: Sequence[str] = ()) -> None:
        self.namespaces = tuple(namespaces)
        self.layouts: dict[Key, Layout | None] = {}
        self.missing: set[Key] = set()
        self.room = MOST_VALUES

    def begin(self) -> None:
        """Another message: it may hold as many values as any."""
        self.room = MOST_VALUES

    def charge(self, parts: int) -> None:
        """So many parts of values are about to be made. Raises ValueError where a message holds too many."""
        self.room -= _PART * parts
        if self.room < 0:
            raise ValueError(f"more than {MOST_VALUES} values in one message")

    def alone(self, data: bytes) -> Value:
        """A Variant that is no part of a message. Raises what `variant` raises."""
        self.begin()
        return self.variant(data, 0)[0]

    def variant(self, data: bytes, at: int, depth: int = 0) -> tuple[Value, int]:
        """A Variant. Raises MisfitError where its dimensions do not fit its length."""
        encoding = data[at]
        if encoding < 26:
            return READERS[encoding](self, data, at + 1, depth)
        kind = encoding & 0x3F
        if not encoding & 0x80:
            value, at = self.scalar(kind, data, at + 1, depth)
            return value, self.array(6, data, at, depth)[1] if encoding & 0x40 else at
        values, at = self.array(kind, data, at + 1, depth)
        if not encoding & 0x40:
            return values, at
        shape, at = self.array(6, data, at, depth)
        return _shaped(values, shape or (), at), at

    def kind(self, data: bytes, at: int) -> tuple[int, int]:
        """The built-in type of a Variant, 0 for none, and its rank: -1 a scalar, 1 an array, more for a matrix."""
        encoding = data[at]
        kind = encoding & 0x3F
        if not encoding & 0x80:
            return kind, -1
        if not encoding & 0x40:
            return kind, 1
        return kind, max(1, INT32(data, self.array(kind, data, at + 1, 0)[1])[0])

    def scalar(self, kind: int, data: bytes, at: int, depth: int) -> Read:
        """One value of a built-in type; types from 26 on, which are reserved, are read as ByteString [Part 6 5.1.9]."""
        return (READERS[kind] if kind < 26 else _bytes)(self, data, at, depth)

    def array(self, kind: int, data: bytes, at: int, depth: int) -> tuple[list[Any] | None, int]:
        """An array of a built-in type, None for null. Its bytes are text."""
        count = size_of(data, at)
        at += 4
        if count < 0:
            return None, at
        letter = NUMBERS.get(kind)
        if letter is not None:
            numbers = struct.unpack_from(f"<{count}{letter}", data, at)
            return shorten(numbers) if kind == FLOAT else list(numbers), at + count * _SIZES[kind]
        self.charge(count)
        read = READERS[kind] if kind < 26 else _bytes
        values = []
        for _ in range(count):
            value, at = read(self, data, at, depth)
            values.append(value.hex() if type(value) is bytes else value)
        return values, at

    def data_value(self, data: bytes, at: int, depth: int = 0) -> tuple[Sample, int]:
        """A DataValue. One that cannot be decoded though its end is known is None with Bad_DecodingError."""
        mask = data[at]
        at += 1
        value, misfit = None, False
        if mask & 0x01:
            try:
                value, at = self.variant(data, at, depth)
            except MisfitError as error:
                at, misfit = error.end, True
        end = ENDS[mask & 0x3F]
        _, code, source, server = end.pick(end.one(data, at) + NONE)
        return (value, BAD_DECODING_ERROR if misfit else code, source, server), at + end.size

    @property
    def _may_ask(self) -> bool:
        return len(self.missing) < MOST_MISSING and len(self.layouts) < MOST_LAYOUTS

    def extension_object(self, data: bytes, at: int, depth: int) -> Read:
        """A structure as a dict; {"type", "body"} where nobody knows its fields, or they do not fit its bytes."""
        key, encoding, body, at = extension(data, at)
        if not encoding and not key[2]:
            return None, at
        layout = self.layouts.get(key) if encoding == 1 else None
        if layout is not None and body is not None:
            try:
                return read_structure(self, layout, body, depth), at
            except (ValueError, struct.error, IndexError):
                pass  # the server's definition is not what it sends: its bytes are all that can be said
        elif encoding == 1 and key not in self.layouts and self._may_ask:
            self.missing.add(key)
        shown: dict[str, Any] = {"type": text_of(key, self.namespaces)}
        if body is not None:
            shown["body"] = body.decode("utf-8", "replace") if encoding == 2 else body.hex()
        return shown, at


Sample: TypeAlias = tuple[Value, int, int, int]
"""Value, StatusCode, source time and server time in ticks (0: none)."""
_Reader: TypeAlias = Callable[[Decoder, bytes, int, int], Read]


def _shaped(values: list[Any] | None, shape: Sequence[int], end: int) -> list[Any] | None:
    """A matrix as lists in lists; its elements come with the last index running fastest [Part 6 5.2.2.16]."""
    if values is None or len(shape) < 2:
        return values
    if len(shape) > MAX_DEPTH or min(shape) < 0 or prod(shape) != len(values):
        raise MisfitError(f"{len(values)} elements in dimensions {list(shape[:8])}", end)
    if not values:
        return values
    for size in reversed(shape[1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)]
    return values


def _null(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - as every reader
    return None, at


def _string(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - likewise
    return string(data, at)


def _time(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - likewise
    return time_text(INT64(data, at)[0]), at + 8


def _guid(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - likewise
    return guid(data, at)


def _bytes(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - likewise
    return byte_string(data, at)


def _node_id(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - likewise
    (key, uri, server), at = expanded_node_id(data, at)
    return text_of(key, decoder.namespaces, uri, server), at


def _status(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - likewise
    return name_of(UINT32(data, at)[0]), at + 4


def _qualified_name(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - likewise
    (space,) = _UINT16(data, at)
    name, at = string(data, at + 2)
    return f"{space}:{name or ''}" if space else name, at


def _localized_text(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - likewise
    mask = data[at]
    at += 1
    text = None
    if mask & 0x01:
        at = byte_string(data, at)[1]
    if mask & 0x02:
        text, at = string(data, at)
    return text, at


def _deeper(depth: int, levels: int = 1) -> int:
    if depth + levels > MAX_DEPTH:
        raise ValueError(f"values hold one another more than {MAX_DEPTH} deep")
    return depth + levels


def _extension_object(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:
    return decoder.extension_object(data, at, _deeper(depth, 3))  # as many calls as three others take


def _data_value(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:
    kind = data[at + 1] if data[at] & 0x01 else 0
    (value, code, source, server), at = decoder.data_value(data, at, _deeper(depth))
    shown: dict[str, Any] = {"value": inner(value, kind)}
    if code:
        shown["status"] = name_of(code)
    if source:
        shown["source"] = time_text(source)
    if server:
        shown["server"] = time_text(server)
    return shown, at


def _variant(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:
    kind = data[at]
    try:
        value, at = decoder.variant(data, at, _deeper(depth))
        return inner(value, kind), at
    except MisfitError as error:
        return None, error.end


def _diagnostics(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:
    """Numbers stand for texts in the table of the response, which nobody keeps: they go as they are."""
    mask = data[at]
    at += 1
    shown: dict[str, Any] = {}
    for bit, name in ((1, "symbolic_id"), (2, "namespace"), (8, "locale"), (4, "text")):
        if mask & bit:
            (shown[name],) = INT32(data, at)
            at += 4
    if mask & 0x10:
        shown["info"], at = string(data, at)
    if mask & 0x20:
        shown["status"] = name_of(UINT32(data, at)[0])
        at += 4
    if mask & 0x40:
        shown["inner"], at = _diagnostics(decoder, data, at, _deeper(depth))
    return shown, at


def _number(letter: str) -> _Reader:
    """A reader of a type of fixed size."""
    layout = struct.Struct("<" + letter)
    unpack, size = layout.unpack_from, layout.size

    def read(decoder: Decoder, data: bytes, at: int, depth: int) -> Read:  # noqa: ARG001 - likewise
        return unpack(data, at)[0], at + size

    return read


_SIZES: Final = {kind: struct.calcsize("<" + letter) for kind, letter in NUMBERS.items()}
READERS: Final[tuple[_Reader, ...]] = (
    _null, *map(_number, NUMBERS.values()), _string, _time, _guid, _bytes, _string, _node_id, _node_id, _status,
    _qualified_name, _localized_text, _extension_object, _data_value, _variant, _diagnostics,
)  # fmt: skip
"""By the number of the built-in type [Part 6 5.1.2]."""
