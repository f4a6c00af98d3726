"""Frames of Modbus TCP: bytes in, frames out. Pure: no socket, no clock, no waiting.

    | transaction (2) | protocol (2) = 0 | length (2) | unit (1) | PDU (1 .. 253) |
      counted by us     0 is Modbus        unit + PDU

Worked example: transaction 0x0001, unit 1, read 3 holding registers from address 107, and the answer
(MODBUS Messaging on TCP/IP Implementation Guide V1.0b, section 3.1.3):

    request  00 01 00 00 00 06 01 03 00 6B 00 03
    answer   00 01 00 00 00 09 01 03 06 02 2B 00 00 00 64

TCP keeps no frame boundaries: only the length field says where the next frame begins. A header that cannot be one
therefore ends the connection: there is no way to find the beginning of a frame again.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

Frame: TypeAlias = tuple[int, int, bytes]
"""Transaction identifier, unit identifier, PDU."""

_HEADER = struct.Struct(">HHHB")
_BEFORE_UNIT = 6  # what `length` does not count
_LONGEST = 254  # unit identifier and a PDU of 253 bytes


class Framer:
    """Cuts a stream into frames, however it was split. Holds less than one frame back.

    `broken` says why the stream cannot be followed any more; it is empty as long as it can.
    """

    __slots__ = ("_rest", "broken")

    def __init__(self) -> None:
        self._rest = b""
        self.broken = ""

    def __repr__(self) -> str:
        return f"<framer {self.broken or f'holds {len(self._rest)} bytes'}>"

    def receive(self, data: bytes) -> list[Frame]:
        """The frames that are complete with `data`; an empty list says "not enough yet", or `broken`."""
        frames: list[Frame] = []
        if self.broken:
            return frames
        if self._rest:
            data = self._rest + data
        at = 0
        while len(data) - at >= _HEADER.size:
            transaction, protocol, length, unit = _HEADER.unpack_from(data, at)
            if protocol != 0 or not 2 <= length <= _LONGEST:
                self.broken = f"{data[at : at + _HEADER.size].hex(' ')} is no Modbus TCP header"
                return frames
            end = at + _BEFORE_UNIT + length
            if end > len(data):
                break
            frames.append((transaction, unit, data[at + _HEADER.size : end]))
            at = end
        self._rest = data[at:]
        return frames
