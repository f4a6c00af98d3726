"""The timekeeper: looks at the clock now and then, and whenever a batch's time is not what was expected.

Lives on the event loop. What follows from what it sees is the timeline's; who wants to know of changes follows it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection

from gateway.clock import Clock
from gateway.spool.cursor import State
from gateway.spool.record import Record, Regime
from gateway.spool.timeline import STEP_MS, Timeline, Worth, boot_bytes

log = logging.getLogger("headgate.spool")

CLOCK_WAIT_S = 600.0
"""How long records wait, if not told otherwise, for the time they were taken at."""

_LOOK_EVERY_S = 2.0
_LONGEST_LOOK_S = 0.05  # between two readings of monotonic time, else what lies between them is not one moment
_MOST_LOOKS = 5


class Timekeeper:
    """The clock of one spool. `start` it when its timeline has learned what is stored; `stop` ends its timer.

    `followers` are called when the clock was set, came to be synchronised or is so no longer, and when waiting for that
    has come to its end. Records that cannot have the right time wait for at most `wait_s`, counted from when somebody
    first asked for them: an outage of the link is an outage of the time servers, too.
    """

    def __init__(self, clock: Clock, *, wait_s: float = CLOCK_WAIT_S) -> None:
        self.timeline = Timeline(boot_bytes(clock.boot_id))
        self.followers: list[Callable[[], None]] = []
        self._boots: set[bytes] = set()
        self._clock = clock
        self._wait_s = wait_s
        self._wait_until: float | None = None
        self._was_waiting = False
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Timekeeper({self.timeline!r})"

    @property
    def worth(self) -> Worth:
        """What wall time is worth now."""
        return self.timeline.worth

    def learn(self, state: State, boots: Collection[bytes]) -> None:
        """Take over what a queue has stored; it has records of these boots."""
        self.timeline.learn(state.anchors, state.seen, state.uncorrected)
        self._boots.update(boots)

    def start(self) -> None:
        """Look for the first time, and from then on every few seconds."""
        self.timeline.keep(self._boots)
        self._again()

    def _again(self) -> None:
        self.look()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._again)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Compare the clocks; tell the followers of what is new."""
        timeline, clock = self.timeline, self._clock
        now, offset = self._read()
        is_synced = clock.state() == "synced"
        before = timeline.worth if timeline.stretches else None
        was_ahead = timeline.offset
        is_new = timeline.look(now, now + offset, is_synced=is_synced)
        if is_new:
            self._wait_until = None
            if before is not None:
                self._say(before, offset - was_ahead)
        is_waiting = self.is_waiting
        if is_new or (self._was_waiting and not is_waiting):
            for follower in self.followers:
                follower()
        self._was_waiting = is_waiting

    def _read(self) -> tuple[int, int]:
        """Monotonic time, and by how much wall time runs ahead of it, in ms, at one and the same moment."""
        best, now, offset = math.inf, 0, 0
        for _ in range(_MOST_LOOKS):
            before = self._clock.monotonic()
            wall = self._clock.wall_ms()
            after = self._clock.monotonic()
            if after - before < best:
                best = after - before
                now = round((before + after) * 500)
                offset = wall - now
            if best <= _LONGEST_LOOK_S:
                break
        return now, offset

    def _say(self, before: Worth, step: int) -> None:
        worth = self.timeline.worth
        log.log(
            logging.INFO if worth == "synced" else logging.WARNING,
            "the clock is %s now%s, it was %s",
            _WORDS[worth],
            f" and was set by {step / 1000:+.1f} s" if abs(step) > STEP_MS else "",
            _WORDS[before],
        )

    # --- whose time it is -----------------------------------------------------------------------------------------

    def regime_of(self, time: int, now: float) -> Regime | None:
        """The regime of a time (ms) that is not what was expected at monotonic `now` (s): has the clock been set?"""
        _, offset = self._read()
        if abs(offset - self.timeline.offset) > STEP_MS:
            self.look()
        return self.timeline.regime_of(time, round(now * 1000))

    @property
    def is_waiting(self) -> bool:
        """Whether records wait for the clock."""
        until = self._wait_until
        return self.timeline.is_doubtful and (until is None or self._clock.monotonic() < until)

    def has_to_wait(self) -> bool:
        """The same, asked by who would have records: from the first time on the wait counts."""
        if not self.timeline.is_doubtful:
            return False
        if self._wait_until is None:
            self._wait_until = self._clock.monotonic() + self._wait_s
        return self.is_waiting

    def known_now(self) -> int:
        """Wall time in ms; 0, not known, where it cannot be right."""
        return self.timeline.known(self._clock.wall_ms(), self.timeline.regime)

    def timed(self, record: Record) -> Record:
        """A record on its way out, with its times mended where they can be; where not, that is remembered."""
        if record.regime is None:
            return record
        mended = self.timeline.timed(record)
        if mended is record and self.timeline.note_sent(record):
            for follower in self.followers:
                follower()
        return mended


_WORDS: dict[Worth, str] = {
    "synced": "synchronised",
    "holdover": "not synchronised",
    "unsynced": "not synchronised, and shows what cannot be",
}
