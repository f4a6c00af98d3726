"""Pace: how fast the disk fills and how long it will last, how long commits take, and what the card has had to bear."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace

from gateway.clock import RELEASED_MS, Clock
from gateway.journal.segment import Tally
from gateway.spool.cursor import Wear

log = logging.getLogger("headgate.spool")

_SPAN_S = 600.0  # the rate is that of so long
_SHORTEST_S = 10.0  # of storing, before a rate is told
_STEP_S = 10.0
_IDLE_S = 300.0  # without a commit: what comes then is another story
_GROWS = 0.05  # of what is stored must stay
_LEVELS = (90, 70)
_HYSTERESIS = 5
_CALM_S = 3600.0
_DAY_MS = 86_400_000
_LATENCIES = 512


class Pace:
    """How fast a queue's disk fills. Times are monotonic, in seconds; sizes in bytes."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()
        self._warned = 0
        self._high_at = 0.0

    def note(self, now: float, stored: int, backlog: int) -> None:
        """A commit was written: `stored` in all until now; of all that, `backlog` is still needed."""
        samples = self._samples
        if samples and now - samples[-1][0] > _IDLE_S:
            samples.clear()
        if len(samples) > 1 and now - samples[-2][0] < _STEP_S:
            samples.pop()
        samples.append((now, stored, backlog))
        while now - samples[0][0] > _SPAN_S:
            samples.popleft()

    def hours_left(self, now: float, room: int) -> float | None:
        """Until `room` is filled at the present rate; None while nothing is stored, or it does not grow."""
        if not self._samples or now - self._samples[-1][0] > _IDLE_S:
            return None
        first, last = self._samples[0], self._samples[-1]
        stored = last[1] - first[1]
        if last[0] - first[0] < _SHORTEST_S or last[2] - first[2] <= _GROWS * stored:
            return None
        return max(0, room) / (stored / (last[0] - first[0])) / 3600

    def warn(self, now: float, fill: float, hours: float | None) -> None:
        """Say once when it comes to 70 and 90 percent; again only after it had been well below for an hour."""
        percent = 100 * fill
        if percent >= self._warned - _HYSTERESIS:
            self._high_at = now
        level = next((level for level in _LEVELS if percent >= level), 0)
        if level > self._warned:
            lasts = "" if hours is None else f", which at the present rate lasts for {hours:.1f} hours more"
            log.warning("the spool is %d %% full%s", percent, lasts)
            self._warned = level
        elif now - self._high_at > _CALM_S:
            self._warned = level


class Latency:
    """How long commits took, in seconds: of the last few hundred, and the longest of all."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_LATENCIES)
        self.longest = 0.0

    def note(self, seconds: float) -> None:
        """One more."""
        self._recent.append(seconds)
        self.longest = max(self.longest, seconds)

    def share(self, part: float) -> float:
        """What that part of them did not exceed: 0.5 is the median; 0 where there were none."""
        ordered = sorted(self._recent)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class WearMeter:
    """Adds up what is written, today and ever, on top of what earlier starts wrote. Days are those of UTC."""

    def __init__(self, wear: Wear, tally: Tally, clock: Clock) -> None:
        self._wear = wear
        self._tally = tally
        self._clock = clock
        self._bytes = tally.bytes_written.value
        self._flushes = tally.flushes.value

    def read(self) -> Wear:
        """As it is now. A day ends by a clock that is synchronised, or at least shows no day that has been."""
        written, flushed = self._tally.bytes_written.value, self._tally.flushes.value
        more, flushes = written - self._bytes, flushed - self._flushes
        self._bytes, self._flushes = written, flushed
        wear, now = self._wear, self._clock.wall_ms()
        day = now // _DAY_MS
        if day != wear.day and (self._clock.state() == "synced" or (day > wear.day and now >= RELEASED_MS)):
            wear = replace(wear, day=day, day_bytes=0, day_flushes=0)
        self._wear = Wear(
            wear.bytes + more, wear.flushes + flushes, wear.day, wear.day_bytes + more, wear.day_flushes + flushes
        )
        return self._wear
