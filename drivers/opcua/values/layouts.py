"""How the fields of a structure follow one another, and reading one into a dict [Part 6 5.2.6 to 5.2.8]. Pure.

    Structure                     its fields, one behind the other
    StructureWithOptionalFields   UInt32 mask, a bit for each optional field in order; then the fields that are there
    Union                         UInt32 which field, counted from 1 and 0 for none; then that field

A field of rank 1 is an array; of a higher rank an Int32 array of its dimensions and all its elements behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Final, Literal

from drivers.opcua.values.wire import MAX_DEPTH, UINT32, size_of
from gateway.floats import shorten

if TYPE_CHECKING:
    from drivers.opcua.values.variants import Decoder

FLOAT: Final = 10
"""The built-in type of 32-bit floats."""
MAX_FIELDS: Final = 1000
"""How many fields a structure may have: more are refused where it is learned."""


@dataclass(slots=True)
class Member:
    """A field. `kind`: number of its built-in type, 0 for a structure that stands there without a head: then `layout`.

    `rank`: below 1 a scalar. `is_optional` means something only where the structure's kind is `optional`. `labels`:
    names of an enumeration's numbers.
    """

    name: str
    kind: int
    rank: int = -1
    is_optional: bool = False
    labels: Mapping[int, str] | None = None
    layout: Layout | None = None


@dataclass(slots=True)
class Layout:
    """A structure. Made before its fields are known, for it may hold itself."""

    kind: Literal["structure", "optional", "union"] = "structure"
    members: list[Member] = field(default_factory=list)


def read_structure(decoder: Decoder, layout: Layout, body: bytes, depth: int) -> dict[str, Any]:
    """All of a body. Raises ValueError, struct.error or IndexError where it is not what the layout says."""
    value, at = _Body(decoder, body).structure(layout, 0, depth)
    if at != len(body):
        raise ValueError(f"{len(body)} bytes of a structure that has {at}")
    return value


class _Body:
    """One body that is being read."""

    __slots__ = ("_data", "_decoder")

    def __init__(self, decoder: Decoder, data: bytes) -> None:
        self._decoder = decoder
        self._data = data

    def structure(self, layout: Layout, at: int, depth: int) -> tuple[dict[str, Any], int]:
        """The fields that are there, by name."""
        self._decoder.charge(1)  # bytes are no bound: a definition can nest millions of structures without any
        if depth > MAX_DEPTH:
            raise ValueError("structures hold one another too deep")
        members = layout.members
        if layout.kind != "structure":
            (mask,) = UINT32(self._data, at)
            at += 4
            if layout.kind == "union":
                members = members[mask - 1 : mask] if mask else []
            else:
                members = _present(layout.members, mask)
        value = {}
        for member in members:
            value[member.name], at = self._member(member, at, depth)
        return value, at

    def _member(self, member: Member, at: int, depth: int) -> tuple[Any, int]:
        if member.rank < 1:
            return self._one(member, at, depth)
        shape: list[int] = []
        if member.rank > 1:
            dimensions, at = self._decoder.array(6, self._data, at, depth)
            shape = dimensions or [0]
            count = prod(shape) if len(shape) <= MAX_DEPTH and min(shape) >= 0 else len(self._data)
            if count > len(self._data) - at:
                raise ValueError(f"dimensions {shape[:8]} of a field")
        else:
            count = size_of(self._data, at)
            at += 4
            if count < 0:
                return None, at
        self._decoder.charge(count)
        values = []
        for _ in range(count):
            value, at = self._one(member, at, depth)
            values.append(value)
        if values:
            for size in reversed(shape[1:]):
                values = [values[k : k + size] for k in range(0, len(values), size)]
        return values, at

    def _one(self, member: Member, at: int, depth: int) -> tuple[Any, int]:
        if member.layout is not None:
            return self.structure(member.layout, at, depth + 1)
        value, at = self._decoder.scalar(member.kind, self._data, at, depth)
        if member.labels is not None:
            return member.labels.get(value, value), at
        return inner(value, member.kind), at


def inner(value: Any, kind: int) -> Any:
    """A value of that type as it stands within others: bytes are hexadecimal text, a Float the shortest digits.

    Only of a Float that is the value itself others know the type, and cut the digits.
    """
    if isinstance(value, bytes):
        return value.hex()
    return shorten([value])[0] if kind == FLOAT else value


def _present(members: list[Member], mask: int) -> list[Member]:
    """The fields that a mask names, with those that are always there."""
    present, bit = [], 1
    for member in members:
        if not member.is_optional or mask & bit:
            present.append(member)
        bit <<= member.is_optional
    return present
