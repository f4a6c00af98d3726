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
are pad bytes. Bits go through a table of 256 tuples. Only strings, BCD and `bits` need a Python call for each tag.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol, TypeAlias

from gateway.model import Value

Decode: TypeAlias = Callable[[bytes], Sequence[Value]]
"""The values of a block from the bytes of an answer; None stands where the bytes are no such value."""

Pick: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]
"""Some of the values, in another order."""

Cell: TypeAlias = tuple[int, str, str, int]
"""First register, struct code, order, bytes: one thing to unpack."""

ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
_SWAPPED = {"ABCD": (False, ">"), "CDAB": (True, "<"), "BADC": (True, ">"), "DCBA": (False, "<")}

_BITS = tuple(tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256))
"""The eight bits of each byte, lowest first."""


class Finish(Protocol):
    """What is left to do with what `struct` gave, for types it does not know."""

    def __call__(self, raw: Any, encoding: str) -> Value:
        """The value. Raises ValueError when the raw one is none."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of the file: its name, struct code, registers (0: as many as the tag's length asks for), what is left.

    `wide` says that all four orders make sense: the value has several registers and is no text.
    """

    name: str
    code: str
    registers: int
    finish: Finish | None = None

    @property
    def wide(self) -> bool:
        """Whether its registers can stand in another order."""
        return self.registers > 1


def _bcd16(raw: int, encoding: str) -> Value:  # noqa: ARG001 - only strings have an encoding
    return int(f"{raw:04x}")


def _bcd32(raw: int, encoding: str) -> Value:  # noqa: ARG001 - only strings have an encoding
    return int(f"{raw:08x}")


def _string(raw: bytes, encoding: str) -> Value:
    return raw.partition(b"\0")[0].decode(encoding).strip(" ")  # UnicodeDecodeError is a ValueError


def _bits(raw: int, encoding: str) -> Value:  # noqa: ARG001 - only strings have an encoding
    return [*_BITS[raw & 0xFF], *_BITS[raw >> 8]]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("bool", "", 1),
        Kind("int16", "h", 1),
        Kind("uint16", "H", 1),
        Kind("int32", "i", 2),
        Kind("uint32", "I", 2),
        Kind("int64", "q", 4),
        Kind("uint64", "Q", 4),
        Kind("float16", "e", 1),
        Kind("float32", "f", 2),
        Kind("float64", "d", 4),
        Kind("bcd16", "H", 1, _bcd16),
        Kind("bcd32", "I", 2, _bcd32),
        Kind("string", "s", 0, _string),
        Kind("bits", "H", 1, _bits),
    )
}
"""All types. A new one is a row here and a row in its test."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a register block: `at` counts registers from the block's first; `size` is its bytes."""

    at: int
    kind: Kind
    order: str
    size: int
    bit: int | None = None
    encoding: str = "ascii"

    @property
    def cell(self) -> Cell:
        """What must be unpacked for it: fields with equal cells share the work."""
        return self.at, self.kind.code, self.order, self.size


def decode_registers(fields: Sequence[Field], registers: int) -> Decode:
    """The decoder of a block of that many registers, with one value for each field, in their order."""
    passes, column_of_cell = _passes([f for f in fields if f.bit is None], registers)
    used, column_of_bit = _bit_columns(_bit_at(f) for f in fields if f.bit is not None)
    shift = len(column_of_cell)  # the bits' columns follow the cells'
    order = [column_of_cell[f.cell] if f.bit is None else shift + column_of_bit[_bit_at(f)] for f in fields]
    gather = _gather(passes, _spread(used, registers * 2) if used else None)
    gather = _then(gather, picker(order, shift + len(column_of_bit)))
    finishers = [(i, f.kind.finish, f.encoding) for i, f in enumerate(fields) if f.kind.finish is not None]
    if not finishers:
        return gather

    def decode(payload: bytes) -> Sequence[Value]:
        values = list(gather(payload))
        for i, finish, encoding in finishers:
            try:
                values[i] = finish(values[i], encoding)
            except ValueError:
                values[i] = None
        return values

    return decode


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


def _swap(payload: bytes) -> array[int]:
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
        swapped, endian = _SWAPPED[order]
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
        return (lambda payload: unpack(_swap(payload))) if swapped else unpack

    swaps = any(swapped for swapped, _ in passes)

    def gather(payload: bytes) -> Sequence[Value]:
        turned = _swap(payload) if swaps else b""
        columns: list[Value] = []
        for swapped, unpack in passes:
            columns += unpack(turned if swapped else payload)
        if spread is not None:
            columns += spread(payload)
        return columns

    return gather
