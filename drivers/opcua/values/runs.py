"""Data values of a whole message into columns, the fast way: what looks alike is taken apart by C in one go. Pure.

A record is a data value, in a notification with the client handle of its item before it:

    handle (4)   mask (1)   type (1)   number (1 to 8)   status (4)?   source time (8)?   server time (8)?

Servers tell of hundreds of items alike: same mask, same type of number. Records then have one length, and whether the
next ones look like the first is told by two slices of the message that step by that length: one of their masks and one
of their types. What they hold comes out of one `iter_unpack`. Each record that agrees says where the next one begins,
so nothing is taken for a mask that is none. Everything else is decoded one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from drivers.opcua.values.columns import Columns
from drivers.opcua.values.shapes import MASKS, NONE, NUMBERS, shape_of
from drivers.opcua.values.variants import MOST_VALUES, Decoder
from drivers.opcua.values.wire import UINT32, size_of

_FIRST, _MORE = 8, 16
"""How many records are compared at first, and how many times as many where all of these were alike."""
_WORTH = 3
"""How far away the record is that has to look like the first before any are compared: pairs are not worth it."""
_HANDLED: Final = {kind << 8 | m: shape_of(m, "I2x" + of) for kind, of in NUMBERS.items() for m in MASKS if m & 1}
_BARE: Final = {kind << 8 | m: shape_of(m, "2x" + of) for kind, of in NUMBERS.items() for m in MASKS if m & 1}
_HEAD: Final = struct.Struct("<H").unpack_from


def read_values(data: bytes, at: int, decoder: Decoder, columns: Columns, *, has_handles: bool) -> int:
    """An array of DataValues, or of MonitoredItemNotifications, onto the end of the columns. The position behind it.

    Raises what the readers of `wire` raise.
    """
    left = size_of(data, at)
    at += 4
    decoder.room -= left
    if decoder.room < 0:
        raise ValueError(f"more than {MOST_VALUES} values in one message")
    head, shapes = (4, _HANDLED) if has_handles else (0, _BARE)
    last = len(data) - head - 2
    put_value, put_code = columns.values.append, columns.codes.append
    put_source, put_server = columns.source.append, columns.server.append
    while left > 0:
        first = at + head
        shape = shapes.get(_HEAD(data, first)[0]) if at <= last else None
        if shape is None:
            (value, code, source, server), end = decoder.data_value(data, first)
        else:
            end = at + shape.size
            after = first + shape.size
            if (
                data[after : after + 2] == data[first : first + 2]
                and left > _WORTH
                and _is_worth(data, first, shape.size)
            ):
                count = _alike(data, first, shape.size, min(left, (len(data) - at) // shape.size))
                end = at + count * shape.size
                _extend(columns, shape.places, shape.many(memoryview(data)[at:end]), count)
                at = end
                left -= count
                continue
            value, code, source, server = shape.pick(shape.one(data, at) + NONE)
        if head:
            columns.handles.append(UINT32(data, at)[0])
        put_value(value)
        put_code(code)
        put_source(source)
        put_server(server)
        at = end
        left -= 1
    return at


def _is_worth(data: bytes, first: int, size: int) -> bool:
    """Whether a later record looks like this one, if all between them are as long."""
    far = first + _WORTH * size
    return data[far : far + 2] == data[first : first + 2]


def _alike(data: bytes, first: int, size: int, most: int) -> int:
    """How many records, `most` of which are there, have mask and type of the first, which stand at `first`."""
    mask, kind = data[first : first + 1], data[first + 1 : first + 2]
    found, window = 0, min(_FIRST, most)
    while True:
        begin, end, span = first + found * size, first + window * size, window - found
        masks, kinds = data[begin:end:size], data[begin + 1 : end + 1 : size]
        same = span - max(len(masks.lstrip(mask)), len(kinds.lstrip(kind)))
        found += same
        if same < span or found >= most:
            return found
        window = min(most, window * _MORE)


def _extend(columns: Columns, places: tuple[int, ...], rows: Iterator[tuple[Any, ...]], count: int) -> None:
    """Records alike onto the columns."""
    fields = [*zip(*rows, strict=True), NONE * count]
    value, code, source, server = places
    if value:
        columns.handles += fields[0]
    columns.values += fields[value]
    columns.codes += fields[code]
    columns.source += fields[source]
    columns.server += fields[server]
