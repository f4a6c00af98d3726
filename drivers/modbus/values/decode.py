"""From the bytes of a block to the values of its tags, with as few calls as there are kinds of byte order. Pure.

A value of several registers can stand in them in four ways. The letters name its bytes, A the most significant, in the
order in which they come over the wire:

    | order | 16 bits | 32 bits | 64 bits  | in words                                   |
    | ABCD  | AB      | ABCD    | ABCDEFGH | big-endian: what the standard does          |
    | CDAB  | -       | CDAB    | GHEFCDAB | lowest register first                       |
    | BADC  | BA      | BADC    | BADCFEHG | highest register first, its bytes swapped   |
    | DCBA  | -       | DCBA    | HGFEDCBA | little-endian                               |

Worked example: 1.5 as float32 is 3F C0 00 00; with order CDAB it arrives as 00 00 3F C0.

So a block is unpacked as it is or with the two bytes of each register swapped, big-endian or little-endian: swapped
little-endian is CDAB. Four ways, and each takes one C call for the whole block, whatever stands at which offset; gaps
are pad bytes. Bits go through a table of 256 tuples. Only what `struct` does not know (texts, BCD, bit fields, arrays,
sentinels, labels, times) needs a Python call for each tag: its bytes come out of the same unpacking.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from operator import itemgetter
from typing import Any, TypeAlias

from drivers.modbus.values.kinds import Kind
from drivers.modbus.values.meaning import SENTINEL, Flawed, Meaning
from gateway.model import Value

Decode: TypeAlias = Callable[[bytes], Sequence[Any]]
"""The values of a block from the bytes of an answer. None stands where the bytes are no such value, `Flawed` where they
are one with a quality of its own."""

Finish: TypeAlias = Callable[[Any], Value | Flawed]
"""What is left to do with what the unpacking gave. Raises ValueError when that is no value."""

Pick: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]
"""Some of the values, in another order."""

Cell: TypeAlias = tuple[int, str, str, int]
"""First register, struct code, order, bytes: one thing to unpack."""

ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
SWAPPED = {"ABCD": (False, ">"), "CDAB": (True, "<"), "BADC": (True, ">"), "DCBA": (False, "<")}
"""For each order whether the two bytes of each register are swapped, and what that makes of it, as `struct` says it."""

_FLOAT32 = struct.Struct(">f")
_BITS = tuple(tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256))
"""The eight bits of each byte, lowest first."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a block, or an array of them: `at` counts registers (or bits) from the block's first.

    `size` is its bytes; a string of one character a register (`layout` low or high) has twice as many as characters.
    `bit` and `width` pick bits of a register, `width` 0 means the one bit of a bool. `count` is the length of an array,
    0 where the value is no list. `sentinels` are unsigned numbers that mean "no value".
    """

    at: int
    kind: Kind
    order: str
    size: int
    bit: int | None = None
    encoding: str = "ascii"
    width: int = 0
    layout: str = "both"
    padding: str = "nul"
    count: int = 0
    sentinels: frozenset[int] = frozenset()
    meaning: Meaning | None = None

    @property
    def is_bit(self) -> bool:
        """Whether it is one bit, or an array of them: no register to unpack."""
        return self.kind.name == "bool"

    @property
    def is_plain(self) -> bool:
        """Whether `struct` gives its value, and nothing is left to do."""
        return self.is_unpacked and not self.sentinels and self.meaning is None

    @property
    def is_unpacked(self) -> bool:
        """Whether `struct` gives its number, be it a sentinel or one that stands for something; else it gives bytes.

        Floats with sentinels are compared as bytes: zero equals minus zero, and NaN nothing.
        """
        own = self.kind.read is not None or self.kind.name == "string"
        return not (own or self.width or self.count) and (self.kind.is_whole or not self.sentinels)

    @property
    def cell(self) -> Cell:
        """What must be unpacked for it: fields with equal cells share the work."""
        return self.at, self.kind.code if self.is_unpacked else "s", self.order, self.size


def decode_registers(fields: Sequence[Field], registers: int) -> Decode:
    """The decoder of a block of that many registers, with one value for each field, in their order."""
    passes, column_of_cell = _passes([f for f in fields if not f.is_bit], registers)
    used, column_of_bit = _bit_columns(_bit_at(f) for f in fields if f.is_bit)
    shift = len(column_of_cell)  # the bits' columns follow the cells'
    order = [shift + column_of_bit[_bit_at(f)] if f.is_bit else column_of_cell[f.cell] for f in fields]
    gather = _gather(passes, _spread(used, registers * 2) if used else None)
    return _finished(_then(gather, picker(order, shift + len(column_of_bit))), fields)


def decode_coils(fields: Sequence[Field], count: int) -> Decode:
    """The decoder of a block of that many coils or discrete inputs, with one value for each field, in their order."""
    if not any(f.count for f in fields):
        return _finished(decode_bits([f.at for f in fields], count), fields)
    spread = decode_bits(range(count), count)
    spans = [(f.at, f.at + f.count) if f.count else (f.at, 0) for f in fields]

    def decode(payload: bytes) -> Sequence[Value]:
        bits = spread(payload)
        return [list(bits[first:end]) if end else bits[first] for first, end in spans]

    return _finished(decode, fields)


def _finished(gather: Decode, fields: Sequence[Field]) -> Decode:
    """`gather`, and what is left to do for those of its values that are not plain."""
    finishers = [(i, finish) for i, f in enumerate(fields) if (finish := finisher(f)) is not None]
    if not finishers:
        return gather

    def decode(payload: bytes) -> Sequence[Any]:
        values = list(gather(payload))
        for i, finish in finishers:
            try:
                values[i] = finish(values[i])
            except ValueError:
                values[i] = None
        return values

    return decode


def finisher(field: Field) -> Finish | None:
    """What is left to do with what the unpacking gave; None where that is the value."""
    if field.is_bit:
        return field.meaning.read if field.meaning is not None else None
    if field.is_plain:
        return None
    if field.is_unpacked:
        return _number_reader(field)
    if field.kind.name == "string":
        return _text_reader(field)
    read, turned = _element_reader(field), SWAPPED[field.order][1] == "<"
    if not field.count:
        return (lambda raw: read(raw[::-1])) if turned else read
    octets = field.kind.octets

    def read_all(raw: bytes) -> Value | Flawed:
        parts = [raw[i : i + octets] for i in range(0, len(raw), octets)]
        return _as_list([read(part[::-1] if turned else part) for part in parts], field.kind)

    return read_all


def _number_reader(field: Field) -> Finish:
    """What a number stands for that needs no more unpacking."""
    kind, meaning = field.kind, field.meaning
    none = frozenset(kind.value_of(word.to_bytes(kind.octets)) for word in field.sentinels)
    if meaning is None:
        return lambda number: SENTINEL if number in none else number
    return lambda number: SENTINEL if number in none else meaning.read(number)


def _element_reader(field: Field) -> Callable[[bytes], Value | Flawed]:
    """The value of big-endian bytes: bits picked, sentinels recognised, meaning looked up."""
    kind, sentinels, meaning = field.kind, field.sentinels, field.meaning
    shift, mask, sign = field.bit or 0, (1 << field.width) - 1, 1 << field.width - 1 if field.width else 0
    signed = kind.low < 0

    def read(data: bytes) -> Value | Flawed:
        word = int.from_bytes(data) >> shift & mask if mask else int.from_bytes(data) if sentinels else 0
        if word in sentinels:
            return SENTINEL
        if not mask:
            number = kind.value_of(data)
        elif kind.octets == 1:
            number = kind.value_of(word.to_bytes(1))
        else:
            number = word - (signed and word & sign) * 2
        return number if meaning is None else meaning.read(number)

    return read


def _as_list(values: list[Any], kind: Kind) -> Value | Flawed:
    """The elements of an array. Those that have no value are null; when none has one, nor has the array."""
    plain = [_plain(value, kind) for value in values]
    flaws = [value for value in values if isinstance(value, Flawed)]
    if any(flaw.value is not None for flaw in flaws):
        return Flawed(plain, next(flaw.quality for flaw in flaws if flaw.value is not None))
    return SENTINEL if len(flaws) == len(values) else plain


def _plain(value: Any, kind: Kind) -> Any:
    """An element as it stands in a list, where nobody looks for its quality and its digits any more."""
    if isinstance(value, Flawed):
        return value.value
    if not isinstance(value, float):
        return value
    if not isfinite(value):
        return None
    return shortest(value) if kind.name == "float32" else value


def shortest(value: float) -> float:
    """The number with the fewest digits that is the same as float32."""
    for digits in range(6, 9):
        near = float(f"{value:.{digits}g}")
        if _FLOAT32.unpack(_FLOAT32.pack(near))[0] == value:
            return near
    return float(f"{value:.9g}")


def _text_reader(field: Field) -> Finish:
    """Text up to the first NUL, without the spaces around it."""
    encoding, sentinels = field.encoding, field.sentinels
    pick = {"both": slice(None), "high": slice(0, None, 2), "low": slice(1, None, 2)}[field.layout]

    def read(raw: bytes) -> Value | Flawed:
        data = raw[pick]
        if sentinels and not any(data):
            return SENTINEL
        return data.partition(b"\0")[0].decode(encoding).strip(" ")  # UnicodeDecodeError is a ValueError

    return read


def decode_bits(offsets: Sequence[int], count: int) -> Decode:
    """The decoder of a block of that many coils or discrete inputs: `offsets` count bits from the first, in order."""
    used, column_of_bit = _bit_columns(offsets)
    spread = _spread(used, (count + 7) // 8)
    return _then(spread, picker([column_of_bit[at] for at in offsets], len(column_of_bit)))


def _then(gather: Decode, pick: Pick | None) -> Decode:
    return gather if pick is None else lambda payload: pick(gather(payload))


def picker(order: Sequence[int], width: int) -> Pick | None:
    """A function that picks these positions out of `width` in one call; None where that would change nothing."""
    if len(order) == width and all(i == at for i, at in enumerate(order)):
        return None
    if len(order) == 1:  # itemgetter of one position gives the item, not a tuple of it
        only = order[0]
        return lambda values: (values[only],)
    return itemgetter(*order)


def swap(payload: bytes) -> array[int]:
    """The two bytes of each register swapped."""
    words = array("H", payload)
    words.byteswap()
    return words


_Pass: TypeAlias = tuple[bool, Callable[[Any], tuple[Any, ...]]]
"""Whether it wants the bytes of each register swapped, and the unpacking itself."""


def _passes(fields: Iterable[Field], registers: int) -> tuple[list[_Pass], dict[Cell, int]]:
    """The unpackings of a block, and the column in which each cell comes out of them."""
    passes: list[_Pass] = []
    column_of_cell: dict[Cell, int] = {}
    for order in ORDERS:
        swapped, endian = SWAPPED[order]
        for layer in _layers(sorted({f.cell for f in fields if f.order == order})):
            form, end = endian, 0
            for cell in layer:
                at, code, _, size = cell
                form += f"{at * 2 - end}x" + (f"{size}s" if code == "s" else code)
                end = at * 2 + size
                column_of_cell[cell] = len(column_of_cell)
            passes.append((swapped, struct.Struct(f"{form}{registers * 2 - end}x").unpack))
    return passes, column_of_cell


def _layers(cells: Iterable[Cell]) -> Iterable[list[Cell]]:
    """Cells in order of address, dealt out so that none overlaps another of its layer: a struct reads a byte once."""
    layers: list[list[Cell]] = []
    for cell in cells:
        for layer in layers:
            if layer[-1][0] * 2 + layer[-1][3] <= cell[0] * 2:
                layer.append(cell)
                break
        else:
            layers.append([cell])
    return layers


def _bit_at(field: Field) -> int:
    """Which bit of the payload a bit of a register is, counted from the lowest bit of the first byte."""
    bit = field.bit or 0
    low_comes_second = field.order != "BADC"
    byte = field.at * 2 + (low_comes_second == (bit < 8))
    return byte * 8 + bit % 8


def _bit_columns(bits: Iterable[int]) -> tuple[list[int], dict[int, int]]:
    """The bytes of a payload that hold `bits`, and the column of each bit when these bytes are spread."""
    used = sorted({bit // 8 for bit in bits})
    return used, {byte * 8 + bit: place * 8 + bit for place, byte in enumerate(used) for bit in range(8)}


def _spread(used: Sequence[int], size: int) -> Decode:
    """How to turn the `used` ones of `size` bytes into booleans."""

    def spread(payload: Iterable[int]) -> Sequence[Value]:
        return tuple(chain.from_iterable(map(_BITS.__getitem__, payload)))

    pick = picker(used, size)
    return spread if pick is None else lambda payload: spread(pick(payload))


def _gather(passes: Sequence[_Pass], spread: Decode | None) -> Decode:
    """All columns of a block: one unpacking after the other, then the bits."""
    if len(passes) == 1 and spread is None:
        swapped, unpack = passes[0]
        return (lambda payload: unpack(swap(payload))) if swapped else unpack

    swaps = any(swapped for swapped, _ in passes)

    def gather(payload: bytes) -> Sequence[Value]:
        turned = swap(payload) if swaps else b""
        columns: list[Value] = []
        for swapped, unpack in passes:
            columns += unpack(turned if swapped else payload)
        if spread is not None:
            columns += spread(payload)
        return columns

    return gather
