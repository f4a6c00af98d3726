"""The types of the file: how many registers each takes, and its value from the bytes and back. Pure.

Bytes here are those of one value, most significant first, whatever the order on the wire: decode.py and encode.py see
to that. Reading never fails for numbers; BCD fails on a digit above nine. Writing checks the range and says it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeAlias

Read: TypeAlias = Callable[[bytes], Any]
"""The value of big-endian bytes. Raises ValueError where they are none."""

Write: TypeAlias = Callable[[Any], bytes]
"""The big-endian bytes of a value. Raises ValueError with the range where it does not fit."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of the file: its name, struct code, registers (0: as many as the tag's length asks for).

    `read` is None where `struct` alone knows how to read it. Whole numbers lie within `low` and `high`.
    """

    name: str
    code: str
    registers: int
    write: Write
    read: Read | None = None
    low: int = 0
    high: int = 0

    @property
    def wide(self) -> bool:
        """Whether its registers can stand in another order: a number of several registers."""
        return self.registers in (2, 4)

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return self.name.startswith(("int", "uint", "bcd", "float"))

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.is_number and not self.name.startswith("float")

    @property
    def octets(self) -> int:
        """How many bytes one value has: 1 for those that take half a register, 0 where the length decides."""
        return 1 if self.name.endswith("int8") or self.name == "bcd8" else self.registers * 2

    def value_of(self, data: bytes) -> Any:
        """The value of big-endian bytes. Raises ValueError where they are none."""
        if self.read is not None:
            return self.read(data)
        return struct.unpack(">" + self.code, data)[0]


def _number(name: str, value: Any) -> int:
    """A whole number out of what somebody wants to write."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} holds whole numbers, got {_shown(value)}")  # noqa: TRY004 - a value, not our call
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"{name} holds whole numbers, got {value!r}")
        if value != int(value):
            low = value // 1
            raise ValueError(f"{name} holds whole numbers, got {value!r}. The nearest are {low:.0f} and {low + 1:.0f}")
    return int(value)


def within(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`. Raises ValueError with the range."""
    number = _number(name, value)
    if not low <= number <= high:
        raise ValueError(f"{name} holds {low}..{high}, got {number}")
    return number


def _shown(value: Any) -> str:
    """A value for a message, as JSON writes it where that differs, and never long."""
    plain = {True: "true", False: "false", None: "null"}
    text = plain[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _whole(name: str, code: str, registers: int) -> Kind:
    bits = struct.calcsize(">" + code) * 8
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if code.islower() else (0, (1 << bits) - 1)
    pack = struct.Struct(">" + code).pack
    return Kind(name, code, registers, lambda value: pack(within(name, value, low, high)), low=low, high=high)


def _floating(name: str, code: str, registers: int) -> Kind:
    form = struct.Struct(">" + code)

    def write(value: Any) -> bytes:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name} holds numbers, got {_shown(value)}")  # noqa: TRY004 - a value, not our call
        try:
            packed: bytes = form.pack(float(value))
        except OverflowError:
            largest = form.unpack(_LARGEST[code])[0]
            raise ValueError(f"{name} holds -{largest:g}..{largest:g}, got {_shown(value)}") from None
        return packed

    return Kind(name, code, registers, write)


_LARGEST = {"e": b"\x7b\xff", "f": b"\x7f\x7f\xff\xff", "d": b"\x7f\xef" + b"\xff" * 6}


def _decimal(name: str, code: str, registers: int) -> Kind:
    """Binary coded decimal: four bits a digit."""
    size = struct.calcsize(">" + code)
    high = 10 ** (size * 2) - 1

    def read(data: bytes) -> int:
        return int(data.hex())  # a digit above nine is a letter here, and a ValueError

    def write(value: Any) -> bytes:
        return bytes.fromhex(f"{within(name, value, 0, high):0{size * 2}d}")

    return Kind(name, code, registers, write, read, high=high)


def _read_bits(data: bytes) -> list[bool]:
    word = int.from_bytes(data)
    return [bool(word >> bit & 1) for bit in range(16)]


def _write_bits(value: Any) -> bytes:
    if not isinstance(value, list) or len(value) != 16 or not all(isinstance(bit, bool) for bit in value):
        raise ValueError(f"bits are a list of 16 times true or false, bit 0 first, got {_shown(value)}")
    word: int = sum(bit << i for i, bit in enumerate(value))
    return word.to_bytes(2)


def _write_bool(value: Any) -> bytes:
    return bytes((truth(value),))


def truth(value: Any) -> bool:
    """True or false out of what somebody wants to write; 1 and 0 mean the same. Raises ValueError."""
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise ValueError(f"bool holds true or false, got {_shown(value)}")


def _dated(name: str, code: str, registers: int) -> Kind:
    """Year, month, day, hour, minute, second, as numbers; what they mean together is the tag's to say."""
    form = struct.Struct(">" + code)

    def write(parts: Any) -> bytes:
        try:
            return form.pack(*parts)
        except struct.error:
            most = 65535 if code == "6H" else 255
            raise ValueError(f"{name} holds years of 0..{most} from its first, got {parts[0]}") from None

    return Kind(name, code, registers, write, form.unpack)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("bool", "", 1, _write_bool),
        _whole("int16", "h", 1),
        _whole("uint16", "H", 1),
        _whole("int32", "i", 2),
        _whole("uint32", "I", 2),
        _whole("int64", "q", 4),
        _whole("uint64", "Q", 4),
        _whole("int8", "b", 1),
        _whole("uint8", "B", 1),
        _floating("float16", "e", 1),
        _floating("float32", "f", 2),
        _floating("float64", "d", 4),
        _decimal("bcd8", "B", 1),
        _decimal("bcd16", "H", 1),
        _decimal("bcd32", "I", 2),
        _decimal("bcd64", "Q", 4),
        _dated("datetime3", "6B", 3),
        _dated("datetime6", "6H", 6),
        Kind("string", "s", 0, bytes),  # its length, layout and encoding are the tag's
        Kind("bits", "H", 1, _write_bits, _read_bits),
    )
}
"""All types. A new one is a row here and a row in its test."""
