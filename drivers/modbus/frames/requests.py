"""The requests beside the four reads: writes, diagnostics, files, identity; and what their answers hold. Pure.

    | function | asks or does                     | section  | answer after the function                              |
    | 5        | write one coil                   | 6.5      | address (2), FF00 or 0000 (2): the request repeated    |
    | 6        | write one register               | 6.6      | address (2), value (2): the request repeated           |
    | 7        | exception status                 | 6.7      | eight bits (1)                                         |
    | 8        | diagnostics, a counter           | 6.8      | sub-function (2), value (2)                            |
    | 11       | event counter                    | 6.9      | status (2), count (2)                                  |
    | 15       | write coils                      | 6.11     | address (2), count (2)                                 |
    | 16       | write registers                  | 6.12     | address (2), count (2)                                 |
    | 17       | server id                        | 6.13     | byte count (1), what the maker likes                   |
    | 20       | file records                     | 6.14     | lengths (1, 1), 06, registers                          |
    | 22       | change bits of a register        | 6.16     | address, and-mask, or-mask: the request repeated       |
    | 23       | write registers, then read some  | 6.17     | byte count (1), registers                              |
    | 24       | a queue of registers             | 6.18     | byte count (2), count (2), registers                   |
    | 43 / 14  | device identification            | 6.21     | 0E, code, conformity, more, next, number, objects      |

Sections are those of the MODBUS Application Protocol V1.1b3. Worked example: set bit 3 of holding register 4, leave the
others as they are (and-mask FFF7, or-mask 0008); the answer is the same:

    16 00 04 FF F7 00 08
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from drivers.modbus.frames import pdu
from drivers.modbus.frames.pdu import Request

MAX_WRITTEN_REGISTERS = 123
"""How many registers one request may write [V1.1b3 6.12]."""
MAX_WRITTEN_BITS = 1968
"""How many coils one request may write [V1.1b3 6.11]."""
MAX_WRITTEN_WITH_READ = 121
"""How many registers one request may write that reads some too [V1.1b3 6.17]."""
MAX_FILE_REGISTERS = 121
"""How many registers of a file fit into one answer: its byte count ends at F5 [V1.1b3 6.14]."""
MAX_FIFO = 31
"""How many registers a queue holds at most [V1.1b3 6.18]."""

COUNTERS = {
    2: "diagnostic register",
    11: "bus messages",
    12: "communication errors of the bus",
    13: "exceptions answered",
    14: "messages to this device",
    15: "messages it did not answer",
    16: "negative acknowledgements",
    17: "busy answers",
    18: "characters that overran",
}
"""Sub-functions of function 8 that read and change nothing [V1.1b3 6.8.1]."""

IDENTITY = {
    "vendor": 0,
    "product": 1,
    "version": 2,
    "url": 3,
    "name": 4,
    "model": 5,
    "application": 6,
}
"""Objects of a device's identity that have a name [V1.1b3 6.21]; 128 to 255 are the maker's own."""

_MEI = 14
_REFERENCE = 6  # the only type of file records there is
_GROUP = struct.Struct(">BHHH")


def write_coil(unit: int, address: int, *, on: bool) -> Request:
    """One coil on or off."""
    return _echoed(unit, pdu.WRITE_COIL, address, struct.pack(">H", 0xFF00 if on else 0))


def write_register(unit: int, address: int, value: bytes) -> Request:
    """One register; `value` are its two bytes."""
    return _echoed(unit, pdu.WRITE_REGISTER, address, value)


def mask_register(unit: int, address: int, *, mask: int, bits: int) -> Request:
    """Change the bits of `mask` to those of `bits` and leave the others as they are; both 0 to FFFF."""
    return _echoed(unit, pdu.MASK_WRITE, address, struct.pack(">HH", ~mask & 0xFFFF, bits & mask))


def write_coils(unit: int, address: int, bits: list[bool]) -> Request:
    """Coils side by side, at most `MAX_WRITTEN_BITS`."""
    number = sum(bit << i for i, bit in enumerate(bits))
    return _counted(unit, pdu.WRITE_COILS, address, len(bits), number.to_bytes((len(bits) + 7) // 8, "little"))


def write_registers(unit: int, address: int, values: bytes) -> Request:
    """Registers side by side, two bytes each, at most `MAX_WRITTEN_REGISTERS`."""
    return _counted(unit, pdu.WRITE_REGISTERS, address, len(values) // 2, values)


def write_and_read(unit: int, address: int, values: bytes, *, read: int, count: int) -> Request:
    """Write registers, then read `count` from `read`, in one request. The payload are the registers read."""
    body = struct.pack(">BHHHHB", pdu.READ_WRITE, read, count, address, len(values) // 2, len(values)) + values
    head = bytes((pdu.READ_WRITE, count * 2))
    return Request(unit, pdu.READ_WRITE, address, len(values) // 2, pdu=body, head=head, size=2 + count * 2)


def exception_status(unit: int) -> Request:
    """The eight exception status outputs. The payload is one byte."""
    return _asked(unit, bytes((pdu.READ_EXCEPTION_STATUS,)), size=2)


def diagnostic(unit: int, counter: int) -> Request:
    """One counter of function 8, see `COUNTERS`. The payload are its two bytes."""
    head = struct.pack(">BH", pdu.DIAGNOSTICS, counter)
    return Request(unit, pdu.DIAGNOSTICS, counter, pdu=head + b"\0\0", head=head, size=5)


def event_counter(unit: int) -> Request:
    """How many requests the device has completed. The payload are status and count, two bytes each."""
    return _asked(unit, bytes((pdu.GET_EVENT_COUNTER,)), size=5)


def server_id(unit: int) -> Request:
    """What the device says of itself. See `server_id_of`."""
    return _asked(unit, bytes((pdu.REPORT_SERVER_ID,)), size=0)


def read_file(unit: int, file: int, record: int, count: int) -> Request:
    """`count` registers of a file, at most `MAX_FILE_REGISTERS`. The payload are the registers."""
    group = _GROUP.pack(_REFERENCE, file, record, count)
    size = count * 2
    head = bytes((pdu.READ_FILE, size + 2, size + 1, _REFERENCE))
    body = bytes((pdu.READ_FILE, len(group))) + group
    return Request(unit, pdu.READ_FILE, record, count, pdu=body, head=head, size=4 + size)


def read_fifo(unit: int, address: int) -> Request:
    """The queue that begins at a register. See `fifo_of`."""
    body = struct.pack(">BH", pdu.READ_FIFO, address)
    return Request(unit, pdu.READ_FIFO, address, pdu=body, head=body[:1])


def read_identity(unit: int, number: int) -> Request:
    """Objects of the device's identity, from `number` on, as a stream, which every device with an identity knows.

    See `identity_of`; what does not fit is asked for with another request, from the number it says.
    """
    code = 1 if number <= 2 else 2 if number < 0x80 else 3
    head = bytes((pdu.READ_IDENTITY, _MEI, code))
    return Request(unit, pdu.READ_IDENTITY, number, pdu=head + bytes((number,)), head=head)


def server_id_of(payload: bytes) -> bytes:
    """What follows the byte count of an answer to function 17: an id, FF or 00 (on or off), some text."""
    return payload[1:]


def fifo_of(payload: bytes) -> bytes:
    """The registers of an answer to function 24. Raises ValueError where its counts contradict each other."""
    if len(payload) < 4:
        raise ValueError("a queue has two counts")
    size, count = struct.unpack_from(">HH", payload)
    if size != 2 + 2 * count or len(payload) != 2 + size or count > MAX_FIFO:
        raise ValueError(f"a queue of {count} registers has not {size} bytes")
    return payload[4:]


@dataclass(frozen=True, slots=True)
class Identity:
    """An answer to function 43/14: the objects it holds by their number, and where to go on, None when that is all."""

    conformity: int
    objects: Mapping[int, bytes]
    next: int | None


def identity_of(payload: bytes) -> Identity:
    """The objects of an answer to function 43/14. Raises ValueError where it is cut short."""
    if len(payload) < 4:
        raise ValueError("an identity has four bytes before its objects")
    conformity, more, following, number = payload[:4]
    objects: dict[int, bytes] = {}
    at = 4
    for _ in range(number):
        if at + 2 > len(payload) or at + 2 + payload[at + 1] > len(payload):
            raise ValueError("an object of the identity is cut short")
        objects[payload[at]] = payload[at + 2 : at + 2 + payload[at + 1]]
        at += 2 + payload[at + 1]
    return Identity(conformity, objects, following if more == 0xFF else None)


def _asked(unit: int, body: bytes, *, size: int) -> Request:
    """A request without address."""
    return Request(unit, body[0], pdu=body, head=body[:1], size=size)


def _echoed(unit: int, function: int, address: int, values: bytes) -> Request:
    """A request that a good answer repeats."""
    body = struct.pack(">BH", function, address) + values
    return Request(unit, function, address, 1, pdu=body, head=body, size=len(body))


def _counted(unit: int, function: int, address: int, count: int, values: bytes) -> Request:
    """A request whose good answer repeats address and count."""
    head = struct.pack(">BHH", function, address, count)
    return Request(unit, function, address, count, pdu=head + bytes((len(values),)) + values, head=head, size=5)
