"""What a request costs a line on which characters take time, and how many registers that is worth. Pure.

Characters of a read [serial line V1.02 2.5.1, 2.5.2], n registers:

    |       | request | answer  | before the next request |
    | RTU   | 8       | 5 + 2 n | 3.5 characters          |
    | ASCII | 17      | 11 + 4 n| likewise                |

The standard asks for that silence in RTU only; our bus keeps it on every line, so it is counted on every line.

Worked example: 20 registers at 9600 baud, 8E1 (11 bits a character, 1.146 ms), from a unit that needs 10 ms to begin:
53 characters, 60.7 ms, and 10 ms, and 4 ms of silence: 74.7 ms. Another request for the same unit costs 28.9 ms before
its first register, as much as 12.6 registers: a gap of up to 13 is read along.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivers.modbus.frames.pdu import Request
from drivers.modbus.lines.url import Route

TURNAROUND_S = 0.01
"""How long a unit takes to begin its answer, before anybody has measured it: a guess that the first reads replace."""

REQUEST_COST = 20
"""What a request costs besides its values, in registers, where nobody counts bits: a guess for a network whose device
may itself be a gateway to a serial line."""
BITS_PER_REGISTER = 16

_SHORTEST_SILENCE_S = 0.00175
"""t3.5 above 19,200 baud [serial line V1.02 2.5.1.1]. 3.5 characters are longer than that only below."""
_UNKNOWN_SIZE = 32
"""What an answer is taken for, in bytes, whose size only the device knows."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a line is. `character_s` is 0 where nobody counts bits: a network."""

    character_s: float = 0.0
    is_ascii: bool = False

    @classmethod
    def of(cls, route: Route) -> Pace:
        """The pace of the line a url leads to."""
        return cls(route.character_s, route.framing == "ascii")

    @property
    def is_known(self) -> bool:
        """Whether times can be told at all."""
        return self.character_s > 0

    @property
    def silence_s(self) -> float:
        """How long the line is quiet between two frames."""
        return max(3.5 * self.character_s, _SHORTEST_SILENCE_S) if self.is_known else 0.0

    def read_s(self, count: int, turnaround_s: float, *, bits: bool = False) -> float:
        """How long the line is busy with a read of that many registers, or bits, silence afterwards included."""
        return self._exchange_s(5, 2 + ((count + 7) // 8 if bits else 2 * count), turnaround_s)

    def request_s(self, request: Request, turnaround_s: float) -> float:
        """How long the line is busy with this request, and with the silence after its answer."""
        return self._exchange_s(len(request.pdu), request.size or _UNKNOWN_SIZE, turnaround_s)

    def worth(self, turnaround_s: float, gap_s: float = 0.0) -> tuple[int, int]:
        """What a request costs besides its values: (in registers, in bits).

        `gap_s` is how long the unit wants to be left in peace after an answer: its own next request waits for that.
        """
        if not self.is_known:
            return REQUEST_COST, REQUEST_COST * BITS_PER_REGISTER
        lost_s = self.read_s(0, turnaround_s) + max(0.0, gap_s - self.silence_s)
        byte_s = self.character_s * (2 if self.is_ascii else 1)
        return max(1, round(lost_s / (2 * byte_s))), max(1, round(8 * lost_s / byte_s))

    def _exchange_s(self, asked: int, answered: int, turnaround_s: float) -> float:
        """A frame is a PDU with its unit and a check: two bytes of CRC, or one of LRC, in twice as many digits."""
        both = asked + answered
        characters = 2 * (both + 4) + 6 if self.is_ascii else both + 6
        return characters * self.character_s + max(turnaround_s, self.silence_s) + self.silence_s
