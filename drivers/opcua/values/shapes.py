"""What stands at fixed places in a data value, taken out by C: after the value, or all of it where that is a number."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, Final, NamedTuple

NUMBERS: Final = {1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d"}
"""Types of fixed size whose value goes on as it is, and what struct calls them."""
MASKS: Final = range(0x40)
NONE: Final = (0,)
"""Stands behind what was unpacked: what a record does not have is taken from here."""
_PARTS: Final = ((0x02, "I"), (0x04, "q"), (0x10, "2x"), (0x08, "q"), (0x20, "2x"))
"""What follows a value, by the bits of the mask: status, source time, its picoseconds, server time, its picoseconds."""


class Shape(NamedTuple):
    """Records of one mask and one type, or their ends behind a value of any length.

    `many` takes many apart, `one` one of them. `places`: where value, status, source and server time stand in what
    comes out, -1 for nowhere; `pick` takes them from there, and from a 0 put behind it.
    """

    size: int
    many: Callable[[Any], Iterator[tuple[Any, ...]]]
    one: Callable[[bytes, int], tuple[Any, ...]]
    pick: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    places: tuple[int, ...]


def shape_of(mask: int, head: str = "") -> Shape:
    """`head` is what stands before the status: handle, mask, type, and the value at the end of it."""
    form, count = "<" + head, len(head.replace("2x", ""))
    places = [count - 1]
    for bit, letters in _PARTS:
        if mask & bit:
            form += letters
        if letters != "2x":
            places.append(count if mask & bit else -1)
            count += bool(mask & bit)
    layout = struct.Struct(form)
    return Shape(layout.size, layout.iter_unpack, layout.unpack_from, itemgetter(*places), tuple(places))


ENDS: Final = tuple(map(shape_of, MASKS))
"""Status, source and server time behind a value of any length, by the mask."""
