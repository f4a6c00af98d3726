"""From the value of a tag to the bytes of its registers: the mirror of decode.py, so what is read is what was written.

Pure. Every function raises ValueError with the range or the cure where a value would not come back as it was given.

Worked example: 1.5 as float32 with order CDAB is 00 00 3F C0. The field 4 to 7 of a register holding 5 is mask 00F0,
bits 0050.
"""

from __future__ import annotations

from typing import Any

from drivers.modbus.values.decode import SWAPPED, Field, swap
from drivers.modbus.values.kinds import truth, within

_FILL = {"nul": b"\0", "space": b" "}


def encode(field: Field, value: Any) -> bytes:
    """The bytes of whole registers, as they go over the wire."""
    if field.kind.name == "string":
        return _encode_text(field, value)
    if not field.count:
        return arrange(_encode_one(field, value), field.order)
    if not isinstance(value, list) or len(value) != field.count:
        got = f"{len(value)}" if isinstance(value, list) else repr(value)[:40]
        raise ValueError(f"the tag is a list of {field.count} values, got {got}")
    return b"".join(arrange(_encode_one(field, each), field.order) for each in value)


def encode_bits(field: Field, value: Any) -> tuple[int, int]:
    """Which bits of the register are the field's, and what they become: mask and bits, as the wire numbers them."""
    if field.is_bit:
        width, number = 1, int(encode_coils(field, value)[0])
    else:
        width, number = field.width, _number_in(field, value)
    shift = field.bit or 0
    mask, bits = ((1 << width) - 1) << shift, number << shift
    if field.order == "BADC":
        mask, bits = _swapped(mask), _swapped(bits)
    return mask, bits


def encode_coils(field: Field, value: Any) -> list[bool]:
    """The coils, one or as many as the array has."""
    if not field.count:
        return [_truth(field, value)]
    if not isinstance(value, list) or len(value) != field.count:
        raise ValueError(f"the tag is a list of {field.count} times true or false, got {repr(value)[:40]}")
    return [_truth(field, each) for each in value]


def arrange(data: bytes, order: str) -> bytes:
    """Big-endian bytes of one value in the order of the wire; and back, for each order undoes itself."""
    swapped, endian = SWAPPED[order]
    if endian == "<":
        data = data[::-1]
    return swap(data).tobytes() if swapped else data


def _encode_one(field: Field, value: Any) -> bytes:
    number = value if field.meaning is None else field.meaning.write(value)
    data = field.kind.write(number)
    if int.from_bytes(data) in field.sentinels:
        raise ValueError(f"{value!r} is the number by which the device says that it has no value")
    return data


def _number_in(field: Field, value: Any) -> int:
    """The unsigned number that the bits of a field hold."""
    number = value if field.meaning is None else field.meaning.write(value)
    if field.kind.octets == 1:
        bits = int.from_bytes(field.kind.write(number))
    else:
        low, high = (
            (-(1 << field.width - 1), (1 << field.width - 1) - 1) if field.kind.low else (0, (1 << field.width) - 1)
        )
        bits = within(f"a field of {field.width} bits", number, low, high) & (1 << field.width) - 1
    if bits in field.sentinels:
        raise ValueError(f"{value!r} is the number by which the device says that it has no value")
    return bits


def _truth(field: Field, value: Any) -> bool:
    return truth(value if field.meaning is None else field.meaning.write(value))


def _encode_text(field: Field, value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"string holds text, got {repr(value)[:40]}")  # noqa: TRY004 - a value, not our call
    if value != value.strip(" ") or "\0" in value:
        raise ValueError("spaces around a text and NULs in it are lost in the registers. Leave them out")
    try:
        data = value.encode(field.encoding)
    except UnicodeEncodeError as error:
        wrong = value[error.start]
        raise ValueError(f"'{wrong}' is no character of {field.encoding}. Leave it out, or choose encoding") from None
    room = field.size if field.layout == "both" else field.size // 2
    if len(data) > room:
        raise ValueError(f"the text has {len(data)} bytes, its registers hold {room}")
    data = data.ljust(room, _FILL[field.padding])
    if field.layout == "both":
        return arrange(data + b"\0" * (room % 2), field.order)
    wide = bytearray(field.size)
    wide[field.layout == "low" :: 2] = data
    return arrange(bytes(wide), field.order)


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8
