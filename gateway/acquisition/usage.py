"""What a line's time goes to, and the watchdog that notices when something takes all of it for ever.

A driver that never returns from a read is a bug, but one that must not stop the polls of its line until somebody
comes: the wait is cancelled, the line is left and entered anew. The log says so, for the bug must be found.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.clock import Clock

log = logging.getLogger("headgate.line")

NEVER = float("inf")

_LOOK_S = 15.0
_WINDOW = 5
"""Shares are those of the last minute: between the oldest and the newest of so many looks."""

_LEAST_PATIENCE_S = 60.0
_MOST_PATIENCE_S = 3600.0
_GUESTS_PATIENCE = 10
"""While a person or a command uses the line, a poll that waits for it is given so many times the patience."""


class Usage:
    """Seconds of one line's time. `began`: since when the driver is awaited, infinity when it is not.

    `began` and `busy_s` are set directly: they lie on the hot path.
    """

    __slots__ = ("_guests", "_guests_since", "_marks", "began", "busy_s", "sick_s")

    def __init__(self, now: float) -> None:
        self.began = NEVER
        self.busy_s = 0.0
        self.sick_s = 0.0
        self._guests = 0
        self._guests_since = NEVER
        self._marks: deque[tuple[float, float, float]] = deque([(now, 0.0, 0.0)], maxlen=_WINDOW)

    def fail(self, now: float) -> float:
        """What was awaited has failed. Returns what it cost the line, without the time that guests took meanwhile."""
        self._yield(now)
        cost_s = max(0.0, now - self.began)
        self.began = NEVER
        self.busy_s += cost_s
        self.sick_s += cost_s
        return cost_s

    def guest_came(self, now: float) -> None:
        """Somebody beside the poll uses the driver."""
        if not self._guests:
            self._guests_since = now
        self._guests += 1

    def guest_left(self, now: float) -> None:
        """One of them is done."""
        self._guests -= 1
        self._yield(now)
        if not self._guests:
            self._guests_since = NEVER

    def _yield(self, now: float) -> None:
        """What is awaited now began later, by as long as guests were in its way."""
        if self._guests_since < now and self.began < now:
            self.began += now - max(self._guests_since, self.began)
            self._guests_since = now

    def excuse(self, seconds: float, now: float) -> None:
        """The whole process stood still for so long: what is awaited now could not come."""
        if self.began < now:
            self.began = min(now, self.began + seconds)

    def is_overdue(self, now: float, patience_s: float) -> bool:
        """Whether the driver is awaited for longer than that; guests make it longer, but not without end."""
        return now - self.began > (patience_s * _GUESTS_PATIENCE if self._guests else patience_s)

    def mark(self, now: float) -> None:
        """Remember how things stand, for the shares."""
        self._marks.append((now, self.busy_s, self.sick_s))

    def shares(self, now: float) -> tuple[float, float]:
        """Of the last minute: the share of time that polls and probes took, and that of failed ones alone; 0 to 1."""
        at, busy_s, sick_s = self._marks[0]
        spent_s = now - at
        if spent_s <= 0:
            return 0.0, 0.0
        waiting_s = max(0.0, now - max(self.began, at))
        return min(1.0, (self.busy_s + waiting_s - busy_s) / spent_s), min(1.0, (self.sick_s - sick_s) / spent_s)


class Watchdog:
    """Looks at a line's usage each 15 s while `watching`, and cancels the task that awaits the driver for too long.

    `patience_s` must be longer than anything a driver may rightly take. It doubles, up to an hour, with each time that
    it was not enough, so that a line that is only very slow is not interrupted for ever.
    """

    def __init__(self, line: str, usage: Usage, clock: Clock, patience_s: float) -> None:
        self._line = line
        self._usage = usage
        self._clock = clock
        self._patience_s = max(_LEAST_PATIENCE_S, patience_s)
        self._bites = 0
        self.bites = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch over the task that enters this, until it leaves it."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a line runs in a task
        self._task = task
        self._wait()
        try:
            yield
        finally:
            self._timer.cancel()

    def allow(self, patience_s: float) -> None:
        """The driver may rightly take so long."""
        self._patience_s = max(self._patience_s, patience_s)

    def _wait(self) -> None:
        self._look_at = self._clock.monotonic() + _LOOK_S
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        now = self._clock.monotonic()
        self._usage.excuse(max(0.0, now - self._look_at), now)
        self._usage.mark(now)
        if self._usage.is_overdue(now, self._patience_s):
            log.error(
                "line %s: its driver has not returned for %.0f s; the line is left and entered anew. This is a bug:"
                " please report it",
                self._line,
                now - self._usage.began,
            )
            self._usage.began = now  # closing is watched too
            self._patience_s = min(self._patience_s * 2, _MOST_PATIENCE_S)
            self.bites += 1
            self._bites += 1
            self._task.cancel()
        self._wait()

    def is_stop(self) -> bool:
        """After a cancellation: whether somebody wants the task to end. What the watchdog did itself is taken back."""
        while self._bites:
            self._bites -= 1
            self._task.uncancel()
        return self._task.cancelling() > 0
