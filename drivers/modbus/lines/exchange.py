"""What a read or write hands to the line, and what comes back: the seam between the driver and its transports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from drivers.modbus.frames.pdu import Failure, Request
from drivers.modbus.lines.statistics import Statistics

Answer: TypeAlias = bytes | Failure | None
"""The bytes of the values, or why there are none; None: not asked, because the read ended before."""


IsWanted: TypeAlias = Callable[[], bool]
"""Whether a request is still wanted, asked when it would leave."""

EXPIRED = Failure("expired", "nothing was sent: it was too late for it when its turn came", "skip")


MOST_AHEAD = 8
"""So many urgent requests in a row may go before a poll that waits; then one of its requests has its turn."""


class Exchange:
    """The requests of one read and what came of them. `clean`: all were answered well; `time`: when the last was.

    `is_wanted` says no where they must not be sent any more; those that were not are `EXPIRED` then.
    """

    __slots__ = (
        "answers", "clean", "done", "gap_s", "is_wanted", "left", "next", "requests", "time", "timeout_s", "urgent",
    )  # fmt: skip

    def __init__(
        self,
        requests: Sequence[Request],
        timeout_s: float,
        gap_s: float,
        done: asyncio.Future[None],
        urgent: bool = False,  # noqa: FBT001, FBT002 - by position it costs a read nothing
        is_wanted: IsWanted | None = None,
    ) -> None:
        self.requests = requests
        self.timeout_s = timeout_s
        self.gap_s = gap_s
        self.done = done
        self.urgent = urgent
        self.is_wanted = is_wanted
        self.answers: list[Answer] = [None] * len(requests)
        self.left = len(requests)  # not answered yet, sent or not
        self.next = 0
        self.clean = True
        self.time = 0

    def end_early(self) -> None:
        """Send no more of it; what is under way is still waited for."""
        self.left -= len(self.requests) - self.next
        self.next = len(self.requests)

    def expire(self) -> None:
        """Send no more of it, because it is too late."""
        for index in range(self.next, len(self.requests)):
            self.answers[index] = EXPIRED
        self.clean = False
        self.end_early()
        if not self.left and not self.done.done():
            self.done.set_result(None)


class Transport(Protocol):
    """How requests reach the units of one line: over TCP with many under way, or over a bus with one at a time.

    Opened again and again. `units` that share it never harm each other: what one leaves unanswered costs the others
    its timeout and nothing else.
    """

    @property
    def statistics(self) -> Statistics:
        """What the units of the line were asked and how they answered."""
        ...

    async def open(self) -> None:
        """Connect. Raises LineError."""
        ...

    async def close(self) -> None:
        """End it; whoever waits gets a LineError."""
        ...

    async def fetch(
        self,
        requests: Sequence[Request],
        *,
        timeout_s: float,
        gap_s: float,
        urgent: bool = False,
        is_wanted: IsWanted | None = None,
    ) -> Exchange:
        """Ask all of it and return when there is an answer or a failure for each; `urgent` goes before what waits.

        A silence or another failure of the unit as a whole ends it early. Raises LineError.
        """
        ...
