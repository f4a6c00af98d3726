"""Which times of values can be. A clock of ours that is not set says nothing about those of others. Pure."""

from __future__ import annotations

from typing import Final

from drivers.opcua.values.columns import EPOCH, TICKS_PER_MS, ticks_of
from gateway.clock import Clock
from gateway.metrics import Counter

OLDEST: Final = EPOCH + 631_152_000_000 * TICKS_PER_MS
"""1990 in ticks: no clock that was ever set says less."""
FARTHEST: Final = EPOCH + 4_102_444_800_000 * TICKS_PER_MS
"""2100 in ticks: no clock that is right says more, whatever ours says."""
_AHEAD: Final = 86_400_000
"""How many ms a clock may be ahead of ours."""


class Belief:
    """Judges times by our clock, and counts in `absurd` those that cannot be."""

    def __init__(self, clock: Clock, absurd: Counter) -> None:
        self._clock = clock
        self._absurd = absurd

    def holds(self, oldest: int, newest: int, wall: int) -> bool:
        """Whether times of that span, in ticks, can be at `wall`, ours in ms.

        How far they may be ahead is asked of a clock that is set: after a start without network ours stands where it
        was at the last stop, or in 1970.
        """
        if oldest < OLDEST or newest > FARTHEST:
            return False
        return newest <= ticks_of(wall + _AHEAD) or self._clock.state() != "synced"

    def refuses(self, ticks: int, wall: int) -> bool:
        """Whether one time cannot be, which is counted; 0, which is none, is not."""
        if self.holds(ticks, ticks, wall):
            return False
        self._absurd.value += ticks != 0
        return True
