"""What finds frames in bytes heard on a bus, whatever they look like: the seam between framing and asking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from drivers.modbus.frames.pdu import Request

Heard: TypeAlias = tuple[int, bytes]
"""Unit and PDU of a frame whose checksum is right."""


class Framer(Protocol):
    """Finds frames, however they were split, keeps what is none until `clear`. One is in rtu.py, one in ascii.py."""

    @property
    def patience_s(self) -> float:
        """A silence after which no more of a frame will come."""
        ...

    @property
    def rest(self) -> int:
        """How many bytes were heard since the last frame."""
        ...

    def frame(self, unit: int, pdu: bytes) -> bytes:
        """The frame to send."""
        ...

    def length(self, size: int) -> int:
        """How many characters a PDU of that size takes on the line."""
        ...

    def receive(self, data: bytes, wanted: Sequence[Request]) -> list[Heard]:
        """The frames that are complete with `data`."""
        ...

    def settle(self, wanted: Sequence[Request]) -> list[Heard]:
        """The line is silent: the frames that stand behind the beginning of one."""
        ...

    def clear(self) -> int:
        """Forget all of it; how much of it was no frame."""
        ...

    def is_damaged(self, request: Request) -> bool:
        """Whether what is left must have been the answer to that request."""
        ...
