"""The scrubber: has old segments verified in the reading thread, at a pace that disturbs nobody. On the event loop.

One segment a minute, in slices; a pass through all of them begins once a day at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from gateway.clock import Clock
from gateway.journal.frame import Head
from gateway.journal.scrub import SLICE, Progress, Scrub
from gateway.spool.record import Gap

log = logging.getLogger("headgate.spool")

_FIRST_S = 60.0  # after the start there is enough to read
_SEGMENT_S = 60.0
_SHORTEST_S = 1.0
_PASS_S = 86_400.0
_BUSY_S = 60.0


class Scrubber:
    """Runs a scrub. `needed` tells what of a damaged range somebody still needs, and hears of it: it is lost to them.

    `is_calm` says whether the disk has nothing better to do.
    """

    def __init__(
        self,
        scrub: Scrub,
        reading: Executor,
        clock: Clock,
        *,
        segment_size: int,
        is_calm: Callable[[], bool],
        on_damage: Callable[[Gap], None],
    ) -> None:
        self._scrub = scrub
        self._reading = reading
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._is_calm = is_calm
        self._on_damage = on_damage
        self._pause_s = max(_SHORTEST_S, _SEGMENT_S * SLICE / segment_size)
        self._began = clock.monotonic()
        self._job: asyncio.Future[tuple[bool, list[Head]]] | None = None
        self._timer = self._loop.call_later(_FIRST_S, self._start)
        self.last: Gap | None = None
        self.damaged = 0

    @property
    def progress(self) -> Progress:
        """How far it came."""
        return self._scrub.progress

    def _start(self) -> None:
        if not self._is_calm():
            self._timer = self._loop.call_later(_BUSY_S, self._start)
            return
        self._job = self._loop.run_in_executor(self._reading, self._scrub.step)
        self._job.add_done_callback(self._stepped)

    def _stepped(self, job: asyncio.Future[tuple[bool, list[Head]]]) -> None:
        self._job = None
        if job.cancelled():
            return
        goes_on, found = job.result()
        for head in found:
            self.last = Gap(head.first_seq, head.last_seq, head.min_time, head.max_time, head.count, "damaged")
            self.damaged += head.count
            self._on_damage(self.last)
        pause = self._pause_s
        if not goes_on:
            now = self._clock.monotonic()
            pause = max(_SEGMENT_S, self._began + _PASS_S - now)
            self._began = now + pause
        self._timer = self._loop.call_later(pause, self._start)

    async def close(self) -> None:
        """Stop; a slice that is being read is waited for."""
        self._timer.cancel()
        if self._job is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([self._job])
            self._timer.cancel()
        self._scrub.close()
