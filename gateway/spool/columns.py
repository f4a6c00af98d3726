"""Columns: values of one kind side by side, as bytes that compress well, and back. Pure; knows no batches.

Every value has a *kind*, told by one byte; values of a kind stand together in a *stream*:

    kind  name    a value in its stream, little endian
    ----  ------  ---------------------------------------------------------------------------
       0  flag    1 byte: 0 False, 1 True, 2 None
       1  i64     8 bytes, signed
       2  u64     8 bytes
       3  f32     4 bytes, for floats that read back equal from them
       4  f64     8 bytes
       5  object  whatever else there is; in JSON, a line for each record that has some (objects.py)

A stream is *shuffled*: first the lowest bytes of all values, then the second bytes, and so on to the highest. Signs,
exponents and the high bytes of counters then stand side by side, and any compressor sees that they hardly differ.

*Numbers* (counts, positions, times) have a form of their own: each one's signed distance to the one before it, of the
first to 0, in eight bytes, shuffled. The numbers 5, 6, 6 are `050100 000000 000000 … 000000`, 24 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, compress
from operator import itemgetter, sub
from struct import Struct
from typing import Any

FLAG, I64, U64, F32, F64, OBJECT = range(6)
WIDTHS = (1, 8, 8, 4, 8)
"""Bytes of a value in its stream, by kind; objects have no fixed width."""

FARTHEST = (1 << 62) - 1
"""Numbers stay within this on either side, so that the distance of two fits into eight bytes."""

_LETTERS = ("?", "q", "Q", "f", "d")
_FLAGS = {False: 0, True: 1, None: 2}
_MEANINGS = (False, True, None)
_U64 = (1 << 64) - 1


def shuffled(data: bytes, width: int) -> bytes:
    """Values of `width` bytes each, as planes of bytes, the lowest first."""
    return data if width == 1 else b"".join([data[plane::width] for plane in range(width)])


def unshuffled(data: bytes, width: int) -> bytes:
    """What `shuffled` was given. Raises ValueError where `data` is no whole number of values."""
    if len(data) % width:
        raise ValueError(f"{len(data)} bytes are no whole number of values of {width}")
    if width == 1:
        return data
    count = len(data) // width
    values = bytearray(len(data))
    for plane in range(width):
        values[plane::width] = data[plane * count : (plane + 1) * count]
    return bytes(values)


def numbers(values: Sequence[int]) -> bytes:
    """Integers, none farther from 0 than `FARTHEST`, in eight bytes each."""
    if not values:
        return b""
    steps = map(sub, values[1:], values)
    return shuffled(Struct(f"<{len(values)}q").pack(values[0], *steps), 8)


def near(values: Iterable[int]) -> list[int]:
    """Integers as near to 0 as `numbers` demands: nonsense does not stop the writer."""
    found = list(map(int, values))
    if found and (min(found) < -FARTHEST or max(found) > FARTHEST):
        return [max(-FARTHEST, min(FARTHEST, number)) for number in found]
    return found


def numbers_of(data: bytes) -> list[int]:
    """What `numbers` was given. Raises ValueError on bytes of another length."""
    return list(accumulate(Struct(f"<{len(data) // 8}q").unpack(unshuffled(data, 8))))


def xored(data: bytes, previous: bytes) -> bytes:
    """Both, of one length, bit by bit: zeros where nothing has changed."""
    return (int.from_bytes(data, "little") ^ int.from_bytes(previous, "little")).to_bytes(len(data), "little")


def kind_of(value: object) -> int:
    """The kind that any value fits into. Only of these very types: what is derived from them counts as an object."""
    kind = type(value)
    if value is None or kind is bool:
        return FLAG
    if kind is float:
        return F64
    if isinstance(value, int) and kind is int:
        if -(1 << 63) <= value < 1 << 63:
            return I64
        return U64 if 0 < value <= _U64 else OBJECT
    return OBJECT


def fitting(kind: int, value: Any) -> int:
    """`kind`, where it can hold the value exactly, else what can."""
    if kind == F32 and type(value) is float and _is_short(value):
        return F32
    if kind == U64 and type(value) is int and 0 <= value <= _U64:
        return U64
    return kind_of(value)


def _is_short(value: float) -> bool:
    try:
        return _FLOAT.unpack(_FLOAT.pack(value)) == (value,)
    except OverflowError:
        return False


_FLOAT = Struct("<f")


@dataclass(frozen=True, slots=True)
class Part:
    """The values of one kind in a row: how many, which, and their form in the stream. `select` is empty for all."""

    kind: int
    count: int
    select: bytes
    form: Struct

    @property
    def size(self) -> int:
        """Bytes in the stream."""
        return self.form.size


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows of the same kinds are taken apart and put together.

    `parts` are of the kinds with a stream, ascending; `objects` is the part of the others, if there are any. `order`
    brings the values of all parts, one behind the other, back into the row's order.
    """

    count: int
    parts: tuple[Part, ...]
    objects: Part | None
    order: Callable[[Sequence[Any]], tuple[Any, ...]] | None

    def pack(self, values: Sequence[Any]) -> list[bytes] | None:
        """The bytes of each part; None where a value does not fit into its kind. The types must be right already."""
        packed = []
        for part in self.parts:
            chosen = list(compress(values, part.select)) if part.select else values
            if part.kind == FLAG:
                packed.append(bytes(map(_FLAGS.__getitem__, chosen)))
                continue
            try:
                data = part.form.pack(*chosen)
            except (OverflowError, struct.error):
                return None
            if part.kind == F32 and part.form.unpack(data) != tuple(chosen):
                return None
            packed.append(data)
        return packed

    def objects_of(self, values: Sequence[Any]) -> list[Any]:
        """Those values that have no stream."""
        part = self.objects
        if part is None:
            return []
        return list(compress(values, part.select)) if part.select else list(values)

    def unpack(self, packed: Sequence[bytes], objects: Sequence[Any]) -> list[Any]:
        """The row again. Raises ValueError, IndexError or struct.error on what `pack` did not write."""
        if len(objects) != (self.objects.count if self.objects is not None else 0):
            raise ValueError("objects are missing, or there are too many")
        found = [
            map(_MEANINGS.__getitem__, data) if part.kind == FLAG else part.form.unpack(data)
            for part, data in zip(self.parts, packed, strict=True)
        ]
        values = list(chain(*found, objects))
        if len(values) != self.count:
            raise ValueError("values are missing")
        return values if self.order is None else list(self.order(values))


@lru_cache(maxsize=1024)
def layout(kinds: bytes) -> Layout:
    """The layout of rows whose values are of these kinds. Raises ValueError for a kind that there is not."""
    present = sorted(set(kinds))
    if present and present[-1] > OBJECT:
        raise ValueError(f"there is no kind {present[-1]}")
    parts = [_part(kind, kinds) for kind in present]
    objects = parts.pop() if present and present[-1] == OBJECT else None
    order: Callable[[Sequence[Any]], tuple[Any, ...]] | None = None
    if len(present) > 1:
        sources = sorted(range(len(kinds)), key=kinds.__getitem__)  # stable: places in the row, part by part
        order = itemgetter(*sorted(range(len(kinds)), key=sources.__getitem__))
    return Layout(len(kinds), tuple(parts), objects, order)


def _part(kind: int, kinds: bytes) -> Part:
    count = kinds.count(kind)
    select = b"" if count == len(kinds) else kinds.translate(bytes(n == kind for n in range(256)))
    return Part(kind, count, select, Struct(f"<{count}{_LETTERS[kind]}" if kind != OBJECT else ""))
