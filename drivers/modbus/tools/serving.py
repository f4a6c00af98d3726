"""The server's side of Modbus: requests cut out of what a client sends, answers as frames, in all three framings. Pure.

| framing | frame                                                                                              |
| tcp     | transaction (2), 0 (2), length (2), unit (1), PDU                                                  |
| rtu     | unit (1), PDU, CRC (2, low byte first) [Modbus over Serial Line V1.02 2.5.1]                       |
| ascii   | ":", unit, PDU and LRC as two hexadecimal digits a byte, CR LF [V1.02 2.5.2]                       |

An RTU frame says nowhere how long it is: the function code decides, and the CRC tells whether that was right. What is
no frame is skipped byte by byte until one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from drivers.modbus.frames import ascii as ascii_frames
from drivers.modbus.frames import pdu as functions
from drivers.modbus.frames import rtu
from drivers.modbus.frames.ascii import lrc
from drivers.modbus.frames.mbap import Framer
from drivers.modbus.frames.pdu import Request
from drivers.modbus.frames.rtu import crc
from drivers.modbus.lines.url import Framing

Size: TypeAlias = Callable[[bytes], int | None]
"""How long a PDU is that begins so: None where that is too short to tell, 0 where it can be none."""

_LONGEST_PDU = 253
_LONGEST_FRAME = 256
_KEPT = 4 * _LONGEST_FRAME
"""What is held back at most while a frame is not complete."""

_FIVE = frozenset({1, 2, 3, 4, functions.WRITE_COIL, functions.WRITE_REGISTER, functions.DIAGNOSTICS})
_ALONE = frozenset({functions.READ_EXCEPTION_STATUS, functions.GET_EVENT_COUNTER, 12, functions.REPORT_SERVER_ID})
_COUNTED = {functions.WRITE_COILS: 5, functions.WRITE_REGISTERS: 5, functions.READ_FILE: 1, 21: 1, 23: 9}
"""Where a request says how many bytes follow."""
_FIXED = {functions.MASK_WRITE: 7, functions.READ_FIFO: 3, functions.READ_IDENTITY: 4}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was heard; `transaction` only where frames carry one."""

    unit: int
    pdu: bytes
    transaction: int = 0


def request_size(start: bytes) -> int | None:
    """How long a request is whose PDU begins with `start`: None says "not enough yet", 0 "no request that I know"."""
    if not start:
        return None
    function = start[0]
    if function in _FIVE:
        return 5
    if function in _ALONE:
        return 1
    if function in _FIXED:
        return _FIXED[function]
    at = _COUNTED.get(function)
    if at is None:
        return 0
    return at + 1 + start[at] if len(start) > at else None


def answer_size(asked: bytes) -> Size:
    """How long the answer to that request is: an exception has two bytes, else the function code decides."""

    def size(start: bytes) -> int | None:
        if not start:
            return None
        if start[0] == asked[0] | 0x80:
            return 2
        if start[0] != asked[0]:
            return 0
        if asked[0] in {1, 2, 3, 4, functions.READ_WRITE, functions.READ_FILE, 12, 21}:
            return 2 + start[1] if len(start) > 1 else None
        if asked[0] in {functions.WRITE_COILS, functions.WRITE_REGISTERS, functions.GET_EVENT_COUNTER}:
            return 5
        if asked[0] == functions.READ_EXCEPTION_STATUS:
            return 2
        if asked[0] in {functions.REPORT_SERVER_ID, functions.READ_FIFO, functions.READ_IDENTITY}:
            return Request(0, asked[0], pdu=asked, head=asked[:1]).measure(start)
        return len(asked)  # the request repeated

    return size


# --- cutting --------------------------------------------------------------------------------------------------------


class Cutter:
    """Cuts requests out of a stream, however it was split; `skipped` counts bytes that belong to none."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._framer = Framer()
        self._rest = b""
        self.skipped = 0

    def __repr__(self) -> str:
        return f"<cutter of {self._framing} requests, holds {len(self._rest)} bytes, skipped {self.skipped}>"

    def receive(self, data: bytes) -> list[Asked]:
        """The requests that are complete with `data`."""
        if self._framing == "tcp":
            return [Asked(unit, pdu, transaction) for transaction, unit, pdu in self._framer.receive(data)]
        self._rest += data
        cut = _cut_rtu if self._framing == "rtu" else _cut_ascii
        found, used, skipped = cut(self._rest, request_size)
        self._rest = self._rest[used:][-_KEPT:]
        self.skipped += skipped
        return found

    def idle(self) -> list[Asked]:
        """The line has been silent for long: what is held back is no beginning of a frame. Gives what stood behind it.

        On TCP nothing is lost and nothing is between frames, there it changes nothing.
        """
        found: list[Asked] = []
        while self._rest and not found:
            rest, self._rest = self._rest[1:], b""
            self.skipped += 1
            found = self.receive(rest)
        return found

    @property
    def is_broken(self) -> bool:
        """Whether frames can be found no more: only where nothing marks their beginning, on TCP."""
        return bool(self._framer.broken)


_Cut: TypeAlias = tuple[list[Asked], int, int]
"""Requests, bytes used up, and how many of those belonged to none."""


def _cut_rtu(data: bytes, size_of: Size) -> _Cut:
    found: list[Asked] = []
    at = skipped = 0
    while at < len(data):
        size = size_of(data[at + 1 :]) if at + 1 < len(data) else None
        if size is None or (size and at + size + 3 > len(data)):
            if size is not None and size + 3 > _LONGEST_FRAME:
                size = 0
            else:
                break
        end = at + (size or 0) + 3
        if not size or crc(data[at : end - 2]) != int.from_bytes(data[end - 2 : end], "little"):
            at, skipped = at + 1, skipped + 1
            continue
        found.append(Asked(data[at], data[at + 1 : end - 2]))
        at = end
    return found, at, skipped


def _cut_ascii(data: bytes, _size_of: Size) -> _Cut:
    found: list[Asked] = []
    at = skipped = 0
    while (begin := data.find(b":", at)) >= 0:
        end = data.find(b"\r\n", begin)
        later = data.find(b":", begin + 1)
        if later >= 0 and (end < 0 or later < end):  # begun anew
            skipped, at = skipped + later - at, later
            continue
        if end < 0:
            return found, begin, skipped + begin - at
        skipped += begin - at
        content = _ascii_content(data[begin + 1 : end])
        if content is None:
            skipped += end + 2 - begin
        else:
            found.append(Asked(content[0], content[1:]))
        at = end + 2
    return found, len(data), skipped + len(data) - at


def _ascii_content(digits: bytes) -> bytes | None:
    """Unit and PDU of what stands between colon and CR LF; None where it is no frame."""
    try:
        content = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None
    return content[:-1] if len(content) >= 3 and lrc(content) == 0 else None


def answers_in(data: bytes, framing: Literal["rtu", "ascii"], unit: int, asked: bytes) -> Iterator[tuple[bytes, int]]:
    """Answers to that request anywhere in what was heard on a bus: the PDU, and one past its last byte."""
    if framing == "ascii":
        for end in _ends(data):
            begin = data.rfind(b":", 0, end)
            content = _ascii_content(data[begin + 1 : end]) if begin >= 0 else None
            if content and content[0] == unit and answer_size(asked)(content[1:]) == len(content) - 1:
                yield content[1:], end + 2
        return
    size_of = answer_size(asked)
    for at in range(len(data) - 3):
        size = size_of(data[at + 1 :]) if data[at] == unit else 0
        end = at + (size or 0) + 3
        if size and end <= len(data) and crc(data[at : end - 2]) == int.from_bytes(data[end - 2 : end], "little"):
            yield data[at + 1 : end - 2], end


def _ends(data: bytes) -> Iterator[int]:
    at = data.find(b"\r\n")
    while at >= 0:
        yield at
        at = data.find(b"\r\n", at + 1)


# --- framing --------------------------------------------------------------------------------------------------------


def frame(framing: Framing, asked: Asked, pdu: bytes) -> bytes:
    """The answer to that request, as it goes over the line."""
    if framing == "tcp":
        head = asked.transaction.to_bytes(2) + bytes(2) + (len(pdu) + 1).to_bytes(2)
        return head + bytes((asked.unit,)) + pdu
    return (rtu.Framer if framing == "rtu" else ascii_frames.Framer).frame(asked.unit, pdu)


def exception(asked: bytes, code: int) -> bytes:
    """The PDU that refuses this one."""
    return bytes((asked[0] | 0x80, code))
