"""Frames of Modbus RTU: bytes in, frames out, wherever they lie in what was heard. Pure: no port, no clock, no waiting.

    | unit (1) | PDU (1 .. 253) | CRC (2, low byte first) |        at most 256 bytes

Worked example: unit 1, read 3 holding registers from address 107, and the answer
(MODBUS over Serial Line V1.02, sections 2.3 and 2.5.1; the CRC is described in 2.5.1.2 and 6.2.2):

    request    01 03 00 6B 00 03 74 17
    answer     01 03 06 02 2B 00 00 00 64 05 7A

Nothing in a frame says that it begins, and nothing of the same kind for all functions says how long it is. The standard
tells frames apart by silences of 3.5 characters [V1.02 2.5.1.1]; adapters and networks between us and the line move
those about, so they are no help to somebody who listens. What helps is that we know what we asked for: an answer begins
with our unit and the head of the answer, and its length and CRC must fit. A frame is looked for at every byte, so that
what stands before it does no harm. Frames that are not ours are cut out too, as far as the function says how long they
may be: they are not noise, and another master's request tells that an answer will follow that is not for us.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from functools import cache

from drivers.modbus.frames import framer
from drivers.modbus.frames.framer import Heard
from drivers.modbus.frames.pdu import Request

_LONGEST = 256
_AROUND = 3  # unit and CRC: what a frame has besides the PDU
_EXCEPTION = 5

_LENGTHS: dict[int, tuple[tuple[int, int], ...]] = {
    **dict.fromkeys((1, 2, 3, 4), ((0, 8), (2, 5))),
    **dict.fromkeys((5, 6, 8), ((0, 8),)),
    **dict.fromkeys((15, 16), ((0, 8), (6, 9))),
    7: ((0, 4), (0, 5)),
    11: ((0, 4), (0, 8)),
    **dict.fromkeys((12, 17), ((0, 4), (2, 5))),
    **dict.fromkeys((20, 21), ((2, 5),)),
    22: ((0, 10),),
    23: ((10, 13), (2, 5)),
    24: ((0, 6),),
    43: ((0, 7),),
}
"""How long a frame with that function may be, as request or answer: (where a byte counts what follows, plus so many).
0: it does not depend on any byte. Taken from the frames in V1.1b3 6."""

_NONE, _OPEN, _OURS = 0, -1, -2
"""No frame begins here; one may, when more bytes come; our own answer is coming, so look no further."""


def crc(data: bytes) -> int:
    """CRC of a frame without its own; 0 for a frame with it [V1.02 6.2.2].

    Two bytes a step: 253 bytes take 7 us instead of 13, for a table of 128 KiB.
    """
    table = _words()
    value = 0xFFFF
    for word in struct.unpack_from(f"<{len(data) // 2}H", data):
        value = table[value ^ word]
    if len(data) & 1:
        value = value >> 8 ^ _octets()[(value ^ data[-1]) & 0xFF]
    return value


@cache
def _octets() -> list[int]:
    """What one byte does to a CRC of 0. The polynomial is x^16 + x^15 + x^2 + 1, lowest bit first."""
    table = []
    for octet in range(256):
        value = octet
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
        table.append(value)
    return table


@cache
def _words() -> array[int]:
    """What two bytes, the first in the lower half, do to a CRC of 0. Made when the first frame needs it, in 5 ms."""
    second = _octets()
    first = [value >> 8 ^ second[value & 0xFF] for value in second]
    return array("H", (a ^ b for b in second for a in first))


class Framer(framer.Framer):
    """Finds frames in what is heard, however it was split, and keeps what is none until `clear`."""

    patience_s = 0.05
    """A silence after which no more of a frame will come: far more than 1.5 characters, for adapters hold bytes back
    for 16 ms, and serial device servers for longer."""

    _KEPT = 4 * _LONGEST
    __slots__ = ()

    def __repr__(self) -> str:
        return f"<rtu framer holds {len(self._heard)} bytes>"

    @staticmethod
    def frame(unit: int, pdu: bytes) -> bytes:
        """The frame to send. It costs less than looking it up would."""
        content = bytes((unit,)) + pdu
        return content + crc(content).to_bytes(2, "little")

    @staticmethod
    def length(size: int) -> int:
        """How many characters a PDU of that size takes on the line."""
        return size + _AROUND

    def receive(self, data: bytes, wanted: Sequence[Request]) -> list[Heard]:
        """The frames that are complete with `data`. `wanted` are the requests whose answers may come."""
        self._heard += data
        return list(self._cut(wanted, quiet=False))

    def settle(self, wanted: Sequence[Request]) -> list[Heard]:
        """The line is silent: what is not complete will never be. The frames that stand behind the beginning of one."""
        return list(self._cut(wanted, quiet=True))

    def is_damaged(self, request: Request) -> bool:
        """Whether what is left must have been the answer to that request: its head is there, or all but its head."""
        heard, unit = self._heard, bytes((request.unit,))
        whole = unit + request.head
        if request.head[:2] != request.pdu[:2]:  # else it may have been our own request, come back damaged
            if whole[:3] in heard:
                return True
            at = heard.find(unit + bytes((request.function | 0x80,)))
            if 0 <= at < len(heard) - 2:
                return True
        size = request.size - len(request.head) + 2
        return bool(request.size) and len(heard) >= size and crc(whole + heard[-size:]) == 0

    def _cut(self, wanted: Sequence[Request], *, quiet: bool) -> Iterator[Heard]:
        """Frames in the order in which they were heard. `_from` is left at the first byte that may begin another."""
        at, first_open = self._from, -1
        while at < len(self._heard):
            size = self._match(at, wanted)
            if size > 0:
                heard = self._heard
                self._heard, self._lost = heard[at + size :], self._lost + at
                yield heard[at], heard[at + 1 : at + size - 2]
                at, first_open = 0, -1
                continue
            if size != _NONE and not quiet and first_open < 0:
                first_open = at
            if size == _OURS and not quiet:
                break  # what looks like a frame inside our answer is values
            at += 1
        self._from = len(self._heard) if first_open < 0 else first_open
        self._trim()

    def _match(self, at: int, wanted: Sequence[Request]) -> int:
        """The length of the frame that begins there, or _NONE, _OPEN, _OURS."""
        heard = self._heard
        left = len(heard) - at
        verdict = _NONE
        for request in wanted:
            size = _size_of(request, heard, at)
            if size > left:
                verdict = _OURS if left > len(request.head) else _OPEN
            elif size and crc(heard[at : at + size]) == 0:
                return size
            if verdict == _OURS:
                return verdict
        if left < 2:
            return _OPEN
        for size in _sizes(heard, at):
            if size > left:
                verdict = _OPEN
            elif crc(heard[at : at + size]) == 0:
                return size
        return verdict


def _size_of(request: Request, heard: bytes, at: int) -> int:
    """The length of the answer to that request which begins there; 0 where none does; too long where none can tell."""
    if heard[at] != request.unit:
        return 0
    start = heard[at + 1 : at + _LONGEST]
    if start[:1] == bytes((request.function | 0x80,)):
        return _EXCEPTION
    if not start.startswith(request.head):
        return _LONGEST if request.head.startswith(start) else 0
    size = request.size or request.measure(start)
    if size is None:
        return max(_LONGEST, len(start) + 1 + _AROUND)
    return size + _AROUND if size + _AROUND <= _LONGEST else 0


def _sizes(heard: bytes, at: int) -> Iterator[int]:
    """How long a frame may be that begins there, whoever sent it. Function 43 says it in too many places to ask."""
    function = heard[at + 1]
    if function & 0x80:
        yield _EXCEPTION
        return
    left = len(heard) - at
    for place, more in _LENGTHS.get(function, ()):
        if place == 0:
            yield more
        elif place >= left:
            yield _LONGEST
        elif heard[at + place] + more <= _LONGEST:
            yield heard[at + place] + more
