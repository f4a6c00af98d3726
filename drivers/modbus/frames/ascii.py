"""Frames of Modbus ASCII: bytes in, frames out, wherever they lie in what was heard. Pure: no port, no clock.

    | ":" | unit (2) | PDU (2 .. 506) | LRC (2) | CR LF |        at most 513 characters

Each byte of unit, PDU and LRC is sent as two hexadecimal digits, 0-9 and A-F. Worked example: unit 1, read 3 holding
registers from address 107, and the answer (MODBUS over Serial Line V1.02, sections 2.5.2 and 6.2.1):

    request    : 01 03 006B 0003 8E CR LF
    answer     : 01 03 06 022B 0000 0064 65 CR LF

The colon says where a frame begins, whatever stood before it; up to a second may pass between two characters
[V1.02 2.5.2.1]. The LRC, which makes the sum of all bytes a multiple of 256, is weak: each error of one bit is found,
but one in 256 of the graver ones is not. Where the device has RTU, that is the better choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drivers.modbus.frames import framer
from drivers.modbus.frames.framer import Heard
from drivers.modbus.frames.pdu import Request

_LONGEST = 513
_AROUND = 7  # ":", unit, LRC, CR LF: what a frame has besides the PDU

_END = b"\r\n"


def lrc(data: bytes) -> int:
    """LRC of the bytes between colon and LRC, before they became digits [V1.02 6.2.1]."""
    return -sum(data) & 0xFF


class Framer(framer.Framer):
    """Finds frames in what is heard, however it was split, and keeps what is none until `clear`."""

    _KEPT = 2 * _LONGEST
    __slots__ = ()

    def __repr__(self) -> str:
        return f"<ascii framer holds {len(self._heard)} characters>"

    @staticmethod
    def frame(unit: int, pdu: bytes) -> bytes:
        """The frame to send."""
        content = bytes((unit,)) + pdu
        return b":%b%02X%b" % (content.hex().upper().encode(), lrc(content), _END)

    @staticmethod
    def length(size: int) -> int:
        """How many characters a PDU of that size takes on the line."""
        return 2 * size + _AROUND

    @property
    def patience_s(self) -> float:
        """A silence after which no more of a frame will come: long where one has begun [V1.02 2.5.2.1]."""
        return 1.0 if self._from < len(self._heard) else 0.05

    def receive(self, data: bytes, wanted: Sequence[Request]) -> list[Heard]:  # noqa: ARG002 - frames say where they end
        """The frames that are complete with `data`."""
        self._heard += data
        frames = list(self._cut())
        self._trim()
        return frames

    def settle(self, wanted: Sequence[Request]) -> list[Heard]:  # noqa: ARG002 - nothing hides behind a beginning
        """The line is silent: what is not complete will never be."""
        self._from = len(self._heard)
        return []

    def is_damaged(self, request: Request) -> bool:
        """Whether what is left must have been the answer to that request: its head is there, or all but its head."""
        heard = self._heard.upper()
        whole = bytes((request.unit,)) + request.head
        if request.head[:2] != request.pdu[:2]:  # else it may have been our own request, come back damaged
            refused = bytes((request.unit, request.function | 0x80))
            if any(b":" + start.hex().upper().encode() in heard for start in (whole[:3], refused)):
                return True
        if not request.size or not heard.endswith(_END):
            return False
        size = self.length(request.size)
        line = heard[-size:]
        rest = _content(line[1 + 2 * len(whole) : -len(_END)])
        return len(line) == size and rest is not None and lrc(whole + rest) == 0

    def _cut(self) -> Iterator[Heard]:
        """Frames in the order in which they were heard. `_from` is left at the first byte that may begin another."""
        at = self._from
        while (at := self._heard.find(b":", at)) >= 0:
            heard = self._heard
            end = heard.find(_END, at)
            again = heard.find(b":", at + 1, end if end >= 0 else len(heard))
            if again >= 0:
                at = again
                continue
            if end < 0:
                if len(heard) - at < _LONGEST:
                    break
                at += 1
                continue
            content = _content(heard[at + 1 : end])
            if content is not None and len(content) >= 3 and lrc(content) == 0:
                self._heard, self._lost = heard[end + len(_END) :], self._lost + at
                yield content[0], content[1:-1]
                at = 0
            else:
                at = end + len(_END)
        self._from = len(self._heard) if at < 0 else at


def _content(digits: bytes) -> bytes | None:
    """The bytes that the digits stand for; None where one of them is none."""
    if not digits.isalnum():  # fromhex would let spaces pass
        return None
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None
