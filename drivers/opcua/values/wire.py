"""OPC UA Binary as it stands in a message: strings, node ids, times, headers [Part 6 5.2]. Without the library.

All is little endian and unpadded. A reader takes the message and a position, and gives what stands there and the
position behind it. What does not fit into the message raises ValueError, struct.error or IndexError, which whoever
parses a whole message makes ValueError (`refused`): a length from the wire is compared with what is left before
anything of that size is made.

    String, ByteString   Int32 length (-1: null), that many bytes          06 00 00 00 57 61 74 65 72 21
    array                Int32 length (-1: null), that many elements
    NodeId               Byte kind, namespace, identifier                  01 02 4D 03 = ns=2;i=845 (kind 1: four bytes)
    DateTime             Int64, 100 ns since 1601
    ExtensionObject      NodeId of its encoding, Byte 0 none 1 binary 2 XML, Int32 length, body
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, TypeAlias

Key: TypeAlias = tuple[int, str, int | str | bytes]
"""A NodeId: namespace index, kind (i, s, g, b), identifier; that of a Guid is its text."""

MAX_DEPTH: Final = 100
"""How deep values may hold one another: the least that a decoder has to bear [Part 6 5.1.8], and the most here."""

INT32: Final = struct.Struct("<i").unpack_from
UINT32: Final = struct.Struct("<I").unpack_from
INT64: Final = struct.Struct("<q").unpack_from
_SHORT: Final = struct.Struct("<BH").unpack_from
_LONG: Final = struct.Struct("<HI").unpack_from
_UINT16: Final = struct.Struct("<H").unpack_from
_GUID: Final = struct.Struct("<IHH").unpack_from
_HEADER: Final = struct.Struct("<qII").unpack_from

_START: Final = datetime(1601, 1, 1, tzinfo=UTC)
_LAST: Final = 2_650_467_743_990_000_000
"""9999-12-31T23:59:59 in ticks: what is later means the end of all time [Part 6 5.2.2.5]."""


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Make of whatever a reader raises over a message that breaks off a ValueError that says what was read."""
    try:
        yield
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"{what} cannot be decoded: {error}") from error


def size_of(data: bytes, at: int) -> int:
    """An array's length, -1 for null. An element takes a byte at least: ValueError where there are not so many."""
    (size,) = INT32(data, at)
    if size > len(data) - at - 4:
        raise ValueError(f"{size} elements in {len(data) - at - 4} bytes")
    return int(size) if size >= 0 else -1


def byte_string(data: bytes, at: int) -> tuple[bytes | None, int]:
    """A ByteString, None for null."""
    (size,) = INT32(data, at)
    at += 4
    if size < 0:
        return None, at
    end = at + size
    if end > len(data):
        raise ValueError(f"{size} bytes where {len(data) - at} are left")
    return data[at:end], end


def string(data: bytes, at: int) -> tuple[str | None, int]:
    """A String, None for null; bytes that are no UTF-8 are replaced, for JSON has no word for them."""
    (size,) = INT32(data, at)
    at += 4
    if size < 0:
        return None, at
    end = at + size
    if end > len(data):
        raise ValueError(f"{size} bytes of text where {len(data) - at} are left")
    return data[at:end].decode("utf-8", "replace"), end


def guid(data: bytes, at: int) -> tuple[str, int]:
    """A Guid as text, 72962B91-FA75-4AE6-8D28-B404DC7DAF63 in lower case [Part 6 5.1.3]."""
    first, second, third = _GUID(data, at)
    rest = data[at + 8 : at + 16]
    if len(rest) < 8:
        raise ValueError("a Guid breaks off")
    return f"{first:08x}-{second:04x}-{third:04x}-{rest[:2].hex()}-{rest[2:].hex()}", at + 16


def node_id(data: bytes, at: int) -> tuple[Key, int]:
    """A NodeId; what an ExpandedNodeId has beyond it is left out."""
    (key, _, _), at = expanded_node_id(data, at)
    return key, at


def expanded_node_id(data: bytes, at: int) -> tuple[tuple[Key, str | None, int], int]:
    """A NodeId or an ExpandedNodeId, with its namespace URI and the index of its server [Part 6 5.2.2.9, 5.2.2.10]."""
    encoding = data[at]
    kind = encoding & 0x3F
    at += 1
    identifier: int | str | bytes | None
    if kind == 0:
        key: Key = (0, "i", data[at])
        at += 1
    elif kind == 1:
        space, identifier = _SHORT(data, at)
        key = (space, "i", identifier)
        at += 3
    elif kind == 2:
        space, identifier = _LONG(data, at)
        key = (space, "i", identifier)
        at += 6
    elif kind in {3, 4, 5}:
        (space,) = _UINT16(data, at)
        identifier, at = (string, guid, byte_string)[kind - 3](data, at + 2)
        key = (space, "sgb"[kind - 3], (b"" if kind == 5 else "") if identifier is None else identifier)
    else:
        raise ValueError(f"a node id of kind {kind}")
    uri, server = None, 0
    if encoding & 0x80:
        uri, at = string(data, at)
    if encoding & 0x40:
        (server,) = UINT32(data, at)
        at += 4
    return (key, uri, server), at


def text_of(key: Key, namespaces: Sequence[str], uri: str | None = None, server: int = 0) -> str:
    """A node id as text: `i=85`, `nsu=urn:plant;s=Tank`, `ns=9;i=1` where the URI is not known [Part 6 5.3.1.10]."""
    space, kind, identifier = key
    shown = b64encode(identifier).decode() if isinstance(identifier, bytes) else identifier
    if uri is None and 0 < space < len(namespaces):
        uri = namespaces[space]
    before = f"svr={server};" if server else ""
    if uri:
        before += f"nsu={uri.replace('%', '%25').replace(';', '%3B')};"  # [Part 6 5.3.1.11]
    elif space:
        before += f"ns={space};"
    return f"{before}{kind}={shown}"


def time_text(ticks: int) -> str:
    """A DateTime as ISO 8601 in UTC with as many digits as it needs; before 1601 and after 9999 is just then."""
    if ticks >= _LAST:
        return "9999-12-31T23:59:59Z"
    seconds, rest = divmod(max(ticks, 0), 10_000_000)
    text = _second(seconds)
    return f"{text}.{rest:07d}".rstrip("0") + "Z" if rest else text + "Z"


@lru_cache(maxsize=256)  # times of one message are mostly of the same second
def _second(seconds: int) -> str:
    return (_START + timedelta(seconds=seconds)).isoformat()[:19]


def skip_diagnostics(data: bytes, at: int, depth: int = 0) -> int:
    """The position behind a DiagnosticInfo [Part 6 5.2.2.12]."""
    if depth > MAX_DEPTH:
        raise ValueError("diagnostics hold one another too deep")
    mask = data[at]
    at += 1 + 4 * (mask & 0x0F).bit_count()
    if mask & 0x10:
        at = byte_string(data, at)[1]
    if mask & 0x20:
        at += 4
    return skip_diagnostics(data, at, depth + 1) if mask & 0x40 else at


def extension(data: bytes, at: int) -> tuple[Key, int, bytes | None, int]:
    """The head of an ExtensionObject: type id, encoding (0 none, 1 binary, 2 XML), body, and the position behind it."""
    key, at = node_id(data, at)
    encoding = data[at]
    at += 1
    if encoding == 0:
        return key, 0, None, at
    if encoding not in {1, 2}:
        raise ValueError(f"an extension object of encoding {encoding}")
    body, at = byte_string(data, at)
    return key, encoding, body, at


def response(data: bytes, expected: int) -> int:
    """The position behind the type id and the header of a response [Part 4 7.33]. ValueError where it is another."""
    key, at = node_id(data, 0)
    if key != (0, "i", expected):
        raise ValueError(f"an answer of type {text_of(key, ())} in place of i={expected}")
    _HEADER(data, at)
    at = skip_diagnostics(data, at + 16)
    count = size_of(data, at)
    at += 4
    for _ in range(count):
        at = byte_string(data, at)[1]
    return extension(data, at)[3]
