"""What the answers with values in them say: Publish, Republish, Read, HistoryRead [Part 4 5.11, 5.14]. Pure.

All begin with a type id and a response header, and end with an array of DiagnosticInfo, which is left alone.

    PublishResponse        subscription id (4)   array of sequence numbers (4 each) that can be asked for again
                           more (1)   message   array of results of the acknowledgements (4 each)
    RepublishResponse      message
    message                sequence number (4)   publish time (8)   array of ExtensionObjects: the notifications
    ReadResponse           array of DataValue
    HistoryReadResponse    array of results: StatusCode (4), continuation point (ByteString), an ExtensionObject with an
                           array of DataValue

A message without notifications keeps alive: its sequence number is that of the next one, and it takes none itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from drivers.opcua.values.columns import Columns
from drivers.opcua.values.runs import read_values
from drivers.opcua.values.variants import Decoder
from drivers.opcua.values.wire import INT32, UINT32, byte_string, extension, refused, response, size_of

_READ, _HISTORY_READ, _PUBLISH, _REPUBLISH = 634, 667, 829, 835
_DATA_CHANGE, _STATUS_CHANGE, _EVENTS = (0, "i", 811), (0, "i", 820), (0, "i", 916)
_HISTORY: Final = {(0, "i", 658), (0, "i", 11227)}
"""HistoryData and HistoryModifiedData [Part 11 6.6.2, 6.6.3]: both begin with the values."""


@dataclass(slots=True)
class Published:
    """One notification message. `subscription` is 0 in a republished one, which does not say.

    `sequence`: its number; of a keep-alive that of the next. `status`: the
    StatusCode of a subscription that has ended or moved, None where it lives. `results`: one StatusCode for each
    acknowledgement of the request. `events`: those nobody here asked for. `unknown`: notifications of a kind that the
    standard does not have.
    """

    subscription: int = 0
    has_more: bool = False
    sequence: int = 0
    columns: Columns = field(default_factory=Columns)
    status: int | None = None
    results: tuple[int, ...] = ()
    events: int = 0
    unknown: int = 0
    is_keep_alive: bool = False


@dataclass(slots=True)
class Remembered:
    """What the server's history has of one node. `point`: where it goes on, to ask or release; empty at the end."""

    code: int
    point: bytes
    columns: Columns = field(default_factory=Columns)


def parse_publish(body: bytes, decoder: Decoder) -> Published:
    """A PublishResponse, from its type id on. Raises ValueError for anything else."""
    with refused("a publish response"):
        at = _begin(body, _PUBLISH, decoder)
        found = Published(subscription=UINT32(body, at)[0])
        _, at = _numbers(body, at + 4)  # what can be asked for again: we ask for what is missing, and are told
        found.has_more = bool(body[at])
        at = _message(body, at + 1, decoder, found)
        found.results, at = _numbers(body, at)
        return found


def parse_republish(body: bytes, decoder: Decoder) -> Published:
    """A RepublishResponse [Part 4 5.14.6], from its type id on. Raises ValueError for anything else."""
    with refused("a republish response"):
        found = Published()
        _message(body, _begin(body, _REPUBLISH, decoder), decoder, found)
        return found


def parse_read(body: bytes, decoder: Decoder) -> Columns:
    """The values of a ReadResponse, from its type id on, in the order asked for. ValueError for anything else."""
    columns = Columns()
    with refused("a read response"):
        read_values(body, _begin(body, _READ, decoder), decoder, columns, has_handles=False)
    return columns


def parse_kinds(body: bytes) -> list[tuple[int, int, int]]:
    """Of each value of a ReadResponse its StatusCode, built-in type and rank [Part 3 5.6.2]; type 0: there is no value.

    Structures are not looked into. Raises ValueError for anything else.
    """
    decoder, found = Decoder(), []
    with refused("a read response"):
        at = _begin(body, _READ, decoder)
        count = size_of(body, at)
        at += 4
        for _ in range(count):
            kind, rank = decoder.kind(body, at + 1) if body[at] & 0x01 else (0, -1)
            (_, code, _, _), at = decoder.data_value(body, at)
            found.append((code, kind, rank))
    return found


def parse_history(body: bytes, decoder: Decoder) -> list[Remembered]:
    """The results of a HistoryReadResponse, from its type id on, one a node. Raises ValueError for anything else."""
    found = []
    with refused("a history response"):
        at = _begin(body, _HISTORY_READ, decoder)
        count = size_of(body, at)
        at += 4
        for _ in range(count):
            (code,) = UINT32(body, at)
            point, at = byte_string(body, at + 4)
            key, encoding, data, at = extension(body, at)
            remembered = Remembered(code, point or b"")
            if encoding == 1 and data is not None and key in _HISTORY:
                read_values(data, 0, decoder, remembered.columns, has_handles=False)
            found.append(remembered)
    return found


def _begin(body: bytes, expected: int, decoder: Decoder) -> int:
    """The position behind the head of a response."""
    decoder.begin()
    return response(body, expected)


def _message(body: bytes, at: int, decoder: Decoder, found: Published) -> int:
    """A NotificationMessage."""
    (found.sequence,) = UINT32(body, at)
    count = size_of(body, at + 12)  # when it was sent is not asked: values have times of their own
    at += 16
    found.is_keep_alive = count <= 0
    for _ in range(count):
        key, encoding, data, at = extension(body, at)
        if encoding != 1 or data is None:
            found.unknown += 1
        elif key == _DATA_CHANGE:
            read_values(data, 0, decoder, found.columns, has_handles=True)
        elif key == _STATUS_CHANGE:
            (found.status,) = UINT32(data, 0)
        elif key == _EVENTS:
            found.events += max(INT32(data, 0)[0], 0)
        else:
            found.unknown += 1
    return at


def _numbers(body: bytes, at: int) -> tuple[tuple[int, ...], int]:
    """An array of UInt32; null is empty."""
    count = max(size_of(body, at), 0)
    return struct.unpack_from(f"<{count}I", body, at + 4), at + 4 + 4 * count
