"""What of a tag is right by itself and wrong together: address, type, order and the driver's own keys. Pure.

Every function gives the reason with its cure; nothing at all where all is well.
"""

from __future__ import annotations

from collections.abc import Iterator

from drivers.modbus.options import TagOptions
from drivers.modbus.values import address as addresses
from drivers.modbus.values.address import Address
from drivers.modbus.values.kinds import Kind
from gateway.model import Tag

_FIELD_KINDS = ("uint16", "int16")
_TEXT_TABLES = (addresses.SERVER, addresses.IDENTITIES)
_WORD_TABLES = (addresses.STATUS, addresses.DIAGNOSTIC, addresses.COUNTER)


def misfit(tag: Tag, address: Address, kind: Kind, order: str) -> str:
    """Why address, type and order do not go together; empty when they do."""
    if address.table.alone and (fault := _misfit_alone(tag.address, address, kind, order)):
        return fault
    text, is_bool = tag.address, kind.name == "bool"
    if address.table.bits and not is_bool:
        return f"{text} is one bit, {kind.name} needs registers. Use type: bool, or a holding: or input: address"
    if address.width > 1 and kind.name not in _FIELD_KINDS:
        return f"{text} is a field of {address.width} bits. Use type: uint16, or int16 where it has a sign"
    if address.width == 1 and not is_bool:
        return f"{text} is one bit of a register, not {kind.name}. Use type: bool, or leave .{address.bit} out"
    if is_bool and not address.table.bits and address.bit is None:
        return f"{text} has 16 bits, bool is one of them. Use {text}.0 for the lowest one, or type: bits for all"
    if address.table.bits and order != "ABCD":
        return f"{text} is one bit and has no order. Leave order: {order} out"
    if order in ("CDAB", "DCBA") and not kind.wide:
        one = {"string": "a text", "datetime3": "a date", "datetime6": "a date"}.get(kind.name, "one register")
        return f"order {order} moves registers about, {kind.name} is {one}. Leave it out, or use BADC to swap the bytes"
    return ""


def _misfit_alone(text: str, address: Address, kind: Kind, order: str) -> str:
    """The same for what other functions read."""
    table, is_bit = address.table, address.width == 1
    if table in _TEXT_TABLES and kind.name != "string":
        return f"{text} is a text. Use type: string, or leave type out"
    if table is addresses.FIFO and kind.name not in _FIELD_KINDS:
        return f"{text} is a list of registers. Use type: uint16 or int16"
    if table in _WORD_TABLES and not is_bit and (kind.registers != 1 or kind.octets == 1):
        return f"{text} is a number of 16 bits, {kind.name} is not. Use type: uint16, or leave type out"
    if table is not addresses.FILE and order != "ABCD":
        return f"{text} has no order. Leave order: {order} out"
    return ""


def misfits(tag: Tag, address: Address, kind: Kind, own: TagOptions) -> Iterator[str]:
    """Which keys of the tag do not go with its type and address, or with each other."""
    yield from _of_shape(address, kind, own)
    is_fifo = address.table is addresses.FIFO
    is_number = kind.is_number and not is_fifo
    if own.enum and (is_fifo or not (kind.is_whole or kind.name == "bool")):
        yield f"an enum needs whole numbers or bool, type is {kind.name}. Take enum out"
    if own.time and (not kind.is_whole or own.enum or own.scale_register or not is_number):
        yield f"time needs a whole number and nothing else that changes it, type is {kind.name}. Use uint32 or uint64"
    if own.year_from is not None and not kind.name.startswith("datetime"):
        yield f"year_from is for datetime3 and datetime6, type is {kind.name}. Leave it out"
    if own.scale_register is not None:
        yield from _of_scale_register(address, own.scale_register, is_number=is_number and not own.enum)
    if own.write_address is not None:
        try:
            addresses.parse(own.write_address)
        except ValueError as error:
            yield f"write_address: {error}"
    yield from _of_numbers(tag, kind, own, is_fifo=is_fifo)


def _of_numbers(tag: Tag, kind: Kind, own: TagOptions, *, is_fifo: bool) -> Iterator[str]:
    """Keys of every tag that need a number."""
    if tag.is_scaled and not kind.is_number:
        yield f"{kind.name} is no number, it cannot be scaled. Take scale and offset out"
    if not kind.is_number:
        reason = f"type is {kind.name}"
    elif own.enum or own.time:
        reason = f"the tag is a text by its {'enum' if own.enum else 'time'}"
    elif own.count or is_fifo:
        reason = "the tag is a list"
    else:
        return
    for key in _number_keys(tag):
        if kind.is_number or key not in ("scale", "offset"):
            yield f"{key} needs a number, and {reason}. Take {key} out"


def _of_shape(address: Address, kind: Kind, own: TagOptions) -> Iterator[str]:
    """Keys that say how a value stands in its registers."""
    is_text = kind.name == "string"
    if own.length is not None and (not is_text or address.table in _TEXT_TABLES):
        what = f"{kind.name} has {kind.octets or 'no'} bytes" if not is_text else "the answer says its own"
        yield f"length is for strings, {what}. Leave length out"
    if is_text and own.length is None and address.table not in _TEXT_TABLES:
        yield "a string needs its length. Say how many characters it has, like length: 16"
    if own.layout != "both" and not is_text and kind.octets != 1:
        yield f"layout is for strings and 8-bit numbers, type is {kind.name}. Leave layout out"
    if own.padding != "nul" and not is_text:
        yield f"padding is for strings, type is {kind.name}. Leave padding out"
    if own.count is not None:
        is_whole_register = kind.is_number and kind.octets > 1 and address.bit is None
        is_one = address.table in (addresses.FIFO, *_WORD_TABLES)
        if is_one or not (is_whole_register or address.table.bits):
            yield f"count makes a list of numbers, coils or discrete inputs, not of {kind.name} here. Take count out"
    if own.sentinel:
        yield from _of_sentinel(address, kind, own)


def _of_sentinel(address: Address, kind: Kind, own: TagOptions) -> Iterator[str]:
    if kind.name == "bool" or kind.name.startswith("datetime") or address.table is addresses.FIFO:
        yield f"sentinel is for numbers and texts, type is {kind.name}. Leave sentinel out"
    elif own.sentinel == "auto":
        if address.bit is not None or kind.name not in UNIMPLEMENTED:
            known = ", ".join(UNIMPLEMENTED)
            yield f"sentinel: auto knows {known}, not {kind.name} of {address}. Write the contents, like [0x8000]"
    elif kind.name == "string":
        yield "a text has no number as its sentinel. Use sentinel: auto, which is a text of NULs"
    else:
        bits = address.width or kind.octets * 8
        for word in own.sentinel:
            if word >= 1 << bits:
                yield f"sentinel {word:#x} has more than the {bits} bits of {kind.name}. Write what its registers hold"


def _of_scale_register(address: Address, text: str, *, is_number: bool) -> Iterator[str]:
    if not is_number or address.table.alone or address.bit is not None:
        yield "scale_register needs a number in holding or input registers. Take it out"
    try:
        found = addresses.parse(text)
    except ValueError as error:
        yield f"scale_register: {error}"
        return
    if found.table not in (addresses.HOLDING, addresses.INPUT) or found.bit is not None:
        yield f"scale_register: {text} is no register. Use holding: or input: and a number"


def _number_keys(tag: Tag) -> Iterator[str]:
    """Those keys of a tag that are there and need a number."""
    if tag.is_scaled:
        yield "scale" if tag.scale != 1 else "offset"
    for key in ("deadband", "min", "max", "decimals"):
        if getattr(tag, key) is not None:
            yield key


UNIMPLEMENTED = {
    "int16": 0x8000,
    "uint16": 0xFFFF,
    "int32": 0x8000_0000,
    "uint32": 0xFFFF_FFFF,
    "int64": 0x8000_0000_0000_0000,
    "uint64": 0xFFFF_FFFF_FFFF_FFFF,
    "float32": 0x7FC0_0000,
    "float64": 0x7FF8_0000_0000_0000,
    "bits": 0xFFFF,
    "string": 0,
}
"""What a device holds that does not implement a point [SunSpec Device Information Model Specification, points]."""
