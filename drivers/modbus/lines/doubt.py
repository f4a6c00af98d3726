"""What a unit on a bus has said lately and still owes, and so which of its answers may be believed. Pure.

An answer on a bus carries no address: it has the unit, the function and the byte count of the request, and that is all.
Whether it is the answer to *this* request follows from what happened before:

| what happened                                    | what follows                                                    |
|--------------------------------------------------|-----------------------------------------------------------------|
| a request was not answered in time               | its answer is owed: nothing is asked of the unit until it has   |
|                                                  | come or `max_late` has passed since the request was sent        |
| another master asked the unit something          | likewise: the answer that follows is not for us                 |
| an answer comes again, byte for byte, as the     | it may have been sent twice: the answer is held back for a      |
| answer to another request                        | moment, and asked for again when no other follows               |
| a request was answered as it was lately, or was  | if that was a copy, the true answer is on its way: changed      |
| sent again                                       | answers to other requests of its shape, sent before it would    |
|                                                  | have come, are held back likewise                               |

Being held back costs a moment and a second request. So a request whose answer changed the last time waits, before it is
sent, for the short while in which the answer to the one before could still come.

An answer that is the same as the last one to the very same request is never held back: believing it does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivers.modbus.frames.pdu import (
    MAX_BITS,
    MAX_REGISTERS,
    READ_COILS,
    READ_DISCRETE_INPUTS,
    READ_INPUT_REGISTERS,
    Failure,
    Request,
)

MOMENT_S = 0.05
"""How long a copy of an answer may be on its way at least, and how long is waited for another one at least."""
_TURNAROUNDS = 4
"""How many times its usual turnaround a unit gets before its answer no longer counts as on its way."""
_MOST_HEARD = 64
"""How many different frames of a unit are remembered, so that a copy is known as such."""
_MOST_REQUESTS = 512
"""For how many requests to a unit the last answer is remembered."""
_MOST_OWED = 8
"""How many answers a unit can owe: ours is one, the rest are another master's."""


@dataclass(frozen=True, slots=True)
class Owed:
    """An answer that may still come: to which request, until when, and whether it was ours."""

    request: Request
    until: float
    ours: bool


class Unit:
    """One unit. `window_s` is how long after its request an answer may come, and a copy after its answer."""

    __slots__ = (
        "_changing",
        "_clear_at",
        "_heard",
        "_last",
        "_surplus_until",
        "is_well",
        "owed",
        "quiet_until",
        "window_s",
    )

    def __init__(self, window_s: float) -> None:
        self.owed: list[Owed] = []
        self.window_s = window_s
        self.quiet_until = 0.0
        self.is_well = False  # whether it answered something else of the read in which it fell silent
        self._heard: dict[bytes, tuple[float, bytes]] = {}  # answer: when, and to which request; the oldest first
        self._last: dict[bytes, bytes] = {}  # request: answer
        self._changing: set[bytes] = set()  # requests whose last two answers were not the same
        self._surplus_until: dict[tuple[int, int], float] = {}  # shape: until when there may be one answer too many
        self._clear_at: dict[tuple[int, int], float] = {}  # likewise, where that is soon

    def __repr__(self) -> str:
        return f"<unit owes {len(self.owed)}, {len(self._heard)} frames heard>"

    # --- what it owes ---

    def owe(self, request: Request, until: float, *, ours: bool) -> None:
        """The answer to that request may still come."""
        self.owed = [*self.owed[-_MOST_OWED + 1 :], Owed(request, until, ours)]

    def barred_until(self, now: float) -> float:
        """When it may be asked again; in the past when it may be asked now."""
        if not self.owed:
            return 0.0
        self.owed = [owed for owed in self.owed if owed.until > now]
        return max((owed.until for owed in self.owed), default=0.0)

    def pay(self, pdu: bytes, now: float) -> Owed | None:
        """Take a frame as one of the answers that are owed, the oldest that it fits; None where it fits none."""
        for owed in self.owed:
            if owed.until > now and fits(owed.request, pdu):
                self.owed.remove(owed)
                self.note(pdu, b"", now)
                return owed
        return None

    # --- what it said ---

    def note(self, pdu: bytes, request: bytes, now: float) -> None:
        """A frame of the unit was heard, as the answer to that request or to none of ours."""
        self._heard.pop(pdu, None)
        self._heard[pdu] = (now, request)
        if len(self._heard) > _MOST_HEARD:
            del self._heard[next(iter(self._heard))]

    def is_copy(self, pdu: bytes, now: float) -> bool:
        """Whether a frame that nobody waits for was heard before."""
        known = self._heard.get(pdu)
        return known is not None and now - known[0] < self.window_s

    def is_doubtful(self, request: Request, pdu: bytes, sent_at: float, now: float) -> bool:
        """Whether a fitting frame may be something else than the answer to that request."""
        if self._last.get(request.pdu) == pdu:
            return False
        surplus_until = self._surplus_until.get((request.function, request.size), 0.0)
        return sent_at < surplus_until or self.is_copy_of_another(request, pdu, now)

    def is_copy_of_another(self, request: Request, pdu: bytes, now: float) -> bool:
        """Whether the same frame was heard lately, and not as the answer to that request."""
        known = self._heard.get(pdu)
        return known is not None and known[1] != request.pdu and now - known[0] < self.window_s

    def believe(self, request: Request, pdu: bytes, now: float) -> bool:
        """A frame was taken as the answer to that request. True: the same was heard lately, it may be a copy."""
        is_copy = self.is_copy(pdu, now)
        self.note(pdu, request.pdu, now)
        if self._last.get(request.pdu, pdu) == pdu:
            self._changing.discard(request.pdu)
        else:
            self._changing.add(request.pdu)
        self._last[request.pdu] = pdu
        if len(self._last) > _MOST_REQUESTS:
            oldest = next(iter(self._last))
            del self._last[oldest]
            self._changing.discard(oldest)
        return is_copy

    def expect_surplus(self, request: Request, until: float, *, clear_at: float = 0.0) -> None:
        """One answer more to that request may come: requests of its shape that are sent until then may meet it.

        `clear_at`: when it will most probably have come, where that is soon.
        """
        shape = request.function, request.size
        self._surplus_until[shape] = max(until, self._surplus_until.get(shape, 0.0))
        self._clear_at[shape] = clear_at

    def clear_at(self, request: Request) -> float:
        """When to send a request whose answer will probably be another one than the last; in the past for others."""
        return self._clear_at.get((request.function, request.size), 0.0) if request.pdu in self._changing else 0.0


def fits(request: Request, pdu: bytes) -> bool:
    """Whether a frame of that unit can be the answer to that request."""
    answer = request.values_of(pdu)
    return not isinstance(answer, Failure) or answer.cause != "decode"


def moment_s(turnaround: float | None, timeout_s: float) -> float:
    """How long to wait for another answer of a unit that usually takes so long: the timeout where nobody knows."""
    if turnaround is None:
        return timeout_s
    return min(timeout_s, max(MOMENT_S, _TURNAROUNDS * turnaround))


def read_of(unit: int, pdu: bytes) -> Request | None:
    """The read that a frame asks for, when it is another master's request; None where it can be none.

    Only of reads must one know: answers to writes repeat what was written.
    """
    if len(pdu) != 5 or not READ_COILS <= pdu[0] <= READ_INPUT_REGISTERS:
        return None
    count = int.from_bytes(pdu[3:])
    if not 1 <= count <= (MAX_BITS if pdu[0] <= READ_DISCRETE_INPUTS else MAX_REGISTERS):
        return None
    return Request(unit, pdu[0], int.from_bytes(pdu[1:3]), count)
