"""What is due now. Pure: time is an argument, seconds on any clock that only grows.

Each entry has a grid: first due time + k * period. A grid point that passes while the line is busy is missed and
counted, never made up for: polls do not pile up. First due times are spread, so that entries of equal period do not all
fall due at one moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import ceil

_GOLDEN = 0.6180339887498949
"""Multiples of the golden ratio, modulo 1, spread any number of phases evenly without knowing how many will come."""

_FIRST_WITHIN_S = 2.0
"""A tag read once an hour still shows its first value soon after the start."""


_SLOT_S = 0.01
"""Due times fall on common slots: what is due at the same moment on several lines shares one wake-up of the loop."""


def first_due(number: int, period_s: float, now: float) -> float:
    """When entry `number` (counted over all lines) is due for the first time: soon after `now`, spread, on a slot."""
    spread = (number * _GOLDEN % 1.0) * min(period_s, _FIRST_WITHIN_S)
    return ceil((now + spread) / _SLOT_S) * _SLOT_S


class Schedule:
    """Due times of entries 0 … n-1 with the given periods and first due times, in seconds."""

    def __init__(self, periods: Sequence[float], first: Sequence[float]) -> None:
        self._periods = list(periods)
        self._grid = list(first)
        self._due = list(first)
        self._heap = [(at, i) for i, at in enumerate(first)]
        heapq.heapify(self._heap)
        self.missed = 0

    def __repr__(self) -> str:
        return f"<Schedule of {len(self._due)}, next at {self.next_due:.3f}, missed {self.missed}>"

    @property
    def next_due(self) -> float:
        """When the next entry is due; infinity when there is none."""
        heap, due = self._heap, self._due
        while heap and heap[0][0] != due[heap[0][1]]:  # left behind by `hurry`
            heapq.heappop(heap)
        return heap[0][0] if heap else float("inf")

    def pop(self, now: float) -> int | None:
        """The entry that is due longest, or None. Its next due time is the first point of its grid after `now`."""
        if self.next_due > now:
            return None
        at, i = self._heap[0]
        period, grid = self._periods[i], self._grid[i]
        skipped = max(0, int((now - grid) // period)) if grid <= now else -1
        self._grid[i] = due = grid + (skipped + 1) * period
        if at == grid:
            self.missed += skipped
        self._due[i] = due
        heapq.heapreplace(self._heap, (due, i))
        return i

    def hurry(self, i: int, at: float) -> None:
        """Make entry `i` due at `at` if that is earlier than its grid says. The grid itself stays."""
        if at < self._due[i]:
            self._due[i] = at
            heapq.heappush(self._heap, (at, i))

    def resume(self, now: float) -> None:
        """After a pause of the whole line: everything is due now, and what the pause left out is not counted missed."""
        for i, period in enumerate(self._periods):
            if self._grid[i] <= now:
                self._grid[i] += (int((now - self._grid[i]) // period) + 1) * period
            self._due[i] = now
        self._heap = [(now, i) for i in range(len(self._due))]
