"""Requests and answers of Modbus as bytes: what is asked, what must come back, and what an exception says. Pure.

The requests beside the four reads are made in requests.py.

A PDU is what stands inside a frame, whatever the frame. Reading (function codes 1 to 4) goes like this; all numbers are
big-endian, addresses count from 0 (MODBUS Application Protocol V1.1b3, sections 6.1 to 6.4):

    request    | function (1) | address (2) | count (2) |
    answer     | function (1) | byte count (1) | values (byte count) |
    exception  | function + 0x80 (1) | code (1) |

Worked example: holding registers 107..109 (function 3, address 0x006B, count 3) hold 0x022B, 0x0000, 0x0064:

    request    03 00 6B 00 03
    answer     03 06 02 2B 00 00 00 64
    exception  83 02                      there is no such register

Bits come eight to a byte, the first one in the lowest bit; the last byte is filled with zeros.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal

READ_COILS = 1
READ_DISCRETE_INPUTS = 2
READ_HOLDING_REGISTERS = 3
READ_INPUT_REGISTERS = 4
WRITE_COIL = 5
WRITE_REGISTER = 6
READ_EXCEPTION_STATUS = 7
DIAGNOSTICS = 8
GET_EVENT_COUNTER = 11
WRITE_COILS = 15
WRITE_REGISTERS = 16
REPORT_SERVER_ID = 17
READ_FILE = 20
MASK_WRITE = 22
READ_WRITE = 23
READ_FIFO = 24
READ_IDENTITY = 43
WRITES = frozenset({WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS, MASK_WRITE, READ_WRITE})
"""Requests that change the device: whoever hears no answer to one cannot know whether it was done."""

MAX_REGISTERS = 125
"""How many registers one read may ask for [V1.1b3 6.3, 6.4]."""
MAX_BITS = 2000
"""How many coils or discrete inputs one read may ask for [V1.1b3 6.1, 6.2]."""

_READ = struct.Struct(">BHH")
_SEALED = struct.Struct(">HHB")  # protocol 0, length, unit: what stands between the transaction and the PDU

Act = Literal["split", "skip", "again", "busy", "unit"]
"""What follows from a failure.

`split`: look for the register that is to blame. `skip`: the block cannot be read, leave it in peace for a while.
`again`: this block failed, ask for it in the next read. `busy`: likewise, and if nothing else answered, the device is
not ready. `unit`: the device as a whole is out of reach, ask no more in this read.
"""


@dataclass(frozen=True, slots=True)
class ExceptionCode:
    """An exception code with the specification's name and sentence [V1.1b3 7], and what follows for a read."""

    code: int
    name: str
    sentence: str
    act: Act


EXCEPTIONS = {
    e.code: e
    for e in (
        ExceptionCode(
            1,
            "Illegal Function",
            "The function code received in the query is not an allowable action for the server.",
            "skip",
        ),
        ExceptionCode(
            2,
            "Illegal Data Address",
            "The data address received in the query is not an allowable address for the server.",
            "split",
        ),
        ExceptionCode(
            3,
            "Illegal Data Value",
            "A value contained in the query data field is not an allowable value for server.",
            "split",
        ),
        ExceptionCode(
            4,
            "Server Device Failure",
            "An unrecoverable error occurred while the server was attempting to perform the requested action.",
            "split",  # many devices say so where a register in the middle of a block does not exist
        ),
        ExceptionCode(
            5,
            "Acknowledge",
            "The server has accepted the request and is processing it, but a long duration of time will be required "
            "to do so.",
            "busy",
        ),
        ExceptionCode(
            6,
            "Server Device Busy",
            "The server is engaged in processing a long-duration program command.",
            "busy",
        ),
        ExceptionCode(
            8,
            "Memory Parity Error",
            "The server attempted to read record file, but detected a parity error in the memory.",
            "again",
        ),
        ExceptionCode(
            10,
            "Gateway Path Unavailable",
            "The gateway was unable to allocate an internal communication path from the input port to the output port "
            "for processing the request.",
            "unit",
        ),
        ExceptionCode(
            11,
            "Gateway Target Device Failed to Respond",
            "No response was obtained from the target device.",
            "unit",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request brought no values. `cause` is the quality's cause; `text` says it in words."""

    cause: str
    text: str
    act: Act


@dataclass(frozen=True, slots=True)
class Request:
    """One request to one unit, encoded once; without a `pdu` it reads `count` registers or bits from `address`.

    A good answer begins with `head` and has `size` bytes; a `size` of 0 means that its own length fields say how many,
    see `measure`. What follows `head` is the payload: the bytes of the values of a read, nothing for most writes.
    `tail` is the Modbus TCP frame without the transaction identifier.
    """

    unit: int
    function: int
    address: int = 0
    count: int = 0
    pdu: bytes = field(default=b"", repr=False)
    head: bytes = field(default=b"", repr=False)
    size: int = field(default=0, repr=False)
    tail: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.pdu:
            bits = self.function in (READ_COILS, READ_DISCRETE_INPUTS)
            count = (self.count + 7) // 8 if bits else self.count * 2
            object.__setattr__(self, "pdu", _READ.pack(self.function, self.address, self.count))
            object.__setattr__(self, "head", bytes((self.function, count)))
            object.__setattr__(self, "size", count + 2)
        object.__setattr__(self, "tail", _SEALED.pack(0, len(self.pdu) + 1, self.unit) + self.pdu)

    @property
    def is_write(self) -> bool:
        """Whether it changes the device."""
        return self.function in WRITES

    def measure(self, start: bytes) -> int | None:
        """How many bytes a good answer has whose PDU begins with `start`; None where that is too short to tell.

        Answers of variable size say it themselves: a byte count of one byte after the function (function 17), of two
        bytes (function 24), or a number of objects, each with its own length (function 43).
        """
        if self.size:
            return self.size
        if self.function == READ_IDENTITY:
            return _measure_objects(start)
        wide = self.function == READ_FIFO
        if len(start) < 2 + wide:
            return None
        return 2 + wide + int.from_bytes(start[1 : 2 + wide])

    def values_of(self, pdu: bytes) -> bytes | Failure:
        """The payload of an answer, or why it holds none: function, what it repeats, and size must be ours, exactly."""
        if len(pdu) == (self.size or self.measure(pdu)) and pdu.startswith(self.head):
            return pdu[len(self.head) :]
        if len(pdu) == 2 and pdu[0] == self.function | 0x80:
            return refusal(pdu[1])
        return Failure("decode", f"an answer that does not fit the question: {_clip(pdu)}", "unit")


def refusal(code: int) -> Failure:
    """What exception `code` means for the request that met it."""
    known = EXCEPTIONS.get(code)
    if known is None:
        return Failure(f"exception:{code}", f"exception {code}, which is the maker's own", "again")
    return Failure(f"exception:{code}", f"exception {code} ({known.name}: {known.sentence})", known.act)


def _measure_objects(start: bytes) -> int | None:
    """Bytes of an answer of function 43/14 [V1.1b3 6.21]: seven, and for each object its number, length and value."""
    if len(start) < 7:
        return None
    size = 7
    for _ in range(start[6]):
        if len(start) < size + 2:
            return None
        size += 2 + start[size + 1]
    return size


def _clip(pdu: bytes) -> str:
    shown = pdu[:8].hex(" ")
    return f"{shown} … ({len(pdu)} bytes)" if len(pdu) > 8 else shown or "no bytes at all"
