"""What finds frames in bytes heard on a bus, whatever they look like: the seam between framing and asking."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

from drivers.modbus.frames.pdu import Request

Heard: TypeAlias = tuple[int, bytes]
"""Unit and PDU of a frame whose checksum is right."""


class Framer(ABC):
    """Finds frames, however they were split, keeps what is none until `clear`. One is in rtu.py, one in ascii.py."""

    _KEPT: ClassVar[int]
    """What is kept of bytes that are no frame. A line of pure noise must not fill the memory."""

    __slots__ = ("_from", "_heard", "_lost")

    def __init__(self) -> None:
        self._heard = b""  # since the last frame
        self._from = 0  # before that, no frame begins
        self._lost = 0  # bytes before a frame, or too many to be kept

    @property
    @abstractmethod
    def patience_s(self) -> float:
        """A silence after which no more of a frame will come."""

    @staticmethod
    @abstractmethod
    def frame(unit: int, pdu: bytes) -> bytes:
        """The frame to send."""

    @staticmethod
    @abstractmethod
    def length(size: int) -> int:
        """How many characters a PDU of that size takes on the line."""

    @abstractmethod
    def receive(self, data: bytes, wanted: Sequence[Request]) -> list[Heard]:
        """The frames that are complete with `data`. `wanted` are the requests whose answers may come."""

    @abstractmethod
    def settle(self, wanted: Sequence[Request]) -> list[Heard]:
        """The line is silent: what is not complete will never be. The frames that stand behind the beginning of one."""

    @abstractmethod
    def is_damaged(self, request: Request) -> bool:
        """Whether what is left must have been the answer to that request: its head is there, or all but its head.

        To be sure matters: asking again while the answer is still to come makes two answers out of one.
        """

    @property
    def rest(self) -> int:
        """How many bytes were heard since the last frame."""
        return len(self._heard)

    def clear(self) -> int:
        """Forget all of it. Returns how many bytes belonged to no frame since the last time."""
        noise = self._lost + len(self._heard)
        self._heard, self._from, self._lost = b"", 0, 0
        return noise

    def _trim(self) -> None:
        """Let go of the oldest bytes where too many belong to no frame."""
        if (excess := len(self._heard) - self._KEPT) > 0:
            self._heard, self._lost = self._heard[excess:], self._lost + excess
            self._from = max(0, self._from - excess)
