"""What is due now, and what of it goes first. Pure: time is an argument, seconds on any clock that only grows.

Each entry has a grid: first due time + k * period. A grid point that passes while the line is busy is missed and
counted, never made up for: polls do not pile up. First due times are spread, so that entries of equal period do not all
fall due at one moment.

Of what is due, the entry with the earliest deadline goes first (EDF); its deadline is the moment it fell due + its
period, that is when its next grid point comes: served later, it has missed one. This keeps every period that any order
could keep. Nobody starves where the line has too much to do: a deadline stays where it is while those of the others
move on, so that one that waits becomes the earliest before long. Periods longer than a minute count as a minute there:
on such a line what is read once a day would else have its first value after a day.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from math import ceil

_GOLDEN = 0.6180339887498949
"""Multiples of the golden ratio, modulo 1, spread any number of phases evenly without knowing how many will come."""

_FIRST_WITHIN_S = 2.0
"""A tag read once an hour still shows its first value soon after the start."""

_LONGEST_PATIENCE_S = 60.0
"""Nothing that is due waits much longer for others that are due more often."""

_SLOT_S = 0.01
"""Due times fall on common slots: what is due at the same moment on several lines shares one wake-up of the loop."""

NEVER = float("inf")


def first_due(number: int, period_s: float, now: float) -> float:
    """When entry `number` (counted over all lines) is due for the first time: soon after `now`, spread, on a slot."""
    spread = (number * _GOLDEN % 1.0) * min(period_s, _FIRST_WITHIN_S)
    return ceil((now + spread) / _SLOT_S) * _SLOT_S


class Schedule:
    """Due times of entries 0 … n-1 with the given periods and first due times, in seconds.

    `ranks` decide between deadlines in the same 10 ms, the lowest first. An entry whose period is infinite is due when
    it is called, once, and else never.
    """

    def __init__(self, periods: Sequence[float], first: Sequence[float], ranks: Sequence[int] = ()) -> None:
        self._periods = list(periods)
        self._ranks = list(ranks) or [0] * len(self._periods)
        self._grid = list(first)
        self._due = list(first)  # when it is due next, NEVER for what is parked; what the heaps say otherwise is stale
        self._patience = [min(period, _LONGEST_PATIENCE_S) for period in periods]  # from its due time to its deadline
        self._later: list[tuple[float, int]] = []  # due time, entry
        self._ready: list[tuple[int, int, float, int]] = []  # deadline in slots, rank, due time, entry
        self._missed = [0] * len(self._periods)
        self._rebuild()

    def __repr__(self) -> str:
        return f"<Schedule of {len(self._due)}, next at {self.next_due:.3f}, missed {self.missed}>"

    @property
    def missed(self) -> int:
        """How many grid points passed without a poll, over all entries."""
        return sum(self._missed)

    def missed_of(self, entries: Iterable[int]) -> int:
        """The same for some entries; those that are not there missed nothing."""
        return sum(self._missed[i] for i in entries if i < len(self._missed))

    @property
    def next_due(self) -> float:
        """When the next entry is due; infinity when there is none."""
        later, ready, due = self._later, self._ready, self._due
        while ready:
            if ready[0][2] == due[ready[0][3]]:
                return ready[0][2]
            heapq.heappop(ready)
        while later:
            at, i = later[0]
            if at == due[i]:
                return at
            heapq.heappop(later)
        return NEVER

    def pop(self, now: float) -> int | None:
        """Of the entries that are due the one that goes first, or None. It is due again at its next grid point."""
        later, ready, due = self._later, self._ready, self._due
        if not ready:
            if not later or later[0][0] > now:
                return None
            at, i = later[0]
            n = len(later)
            # Most often one alone is due, for the next of a heap is one of the two behind its first: no need to choose.
            if at == due[i] and (n < 2 or later[1][0] > now) and (n < 3 or later[2][0] > now):
                due[i] = grid = self._advance(i, at, now)
                heapq.heapreplace(later, (grid, i))
                return i
        while later and later[0][0] <= now:
            at, i = heapq.heappop(later)
            if at == due[i]:
                slot = int((at + self._patience[i]) / _SLOT_S + 0.5)
                heapq.heappush(ready, (slot, self._ranks[i], at, i))
        while ready:
            _, _, at, i = heapq.heappop(ready)
            if at == due[i]:
                self._put(i, self._advance(i, at, now))
                return i
        return None

    def _advance(self, i: int, at: float, now: float) -> float:
        """Entry `i`, due `at`, is served `now`: the first point of its grid after that."""
        grid = self._grid[i]
        if grid <= now:
            period = self._periods[i]
            skipped = int((now - grid) // period)
            if skipped and at == grid:
                self._missed[i] += skipped
            self._grid[i] = grid = grid + (skipped + 1) * period
        return grid

    def adopt(self, i: int, other: Schedule, j: int) -> None:
        """Entry `i` goes on as entry `j` of another schedule was: due or parked, on its grid, with what it missed."""
        self._grid[i], self._missed[i] = other._grid[j], other._missed[j]
        self._put(i, other._due[j])

    def hurry(self, i: int, at: float, patience_s: float = NEVER) -> None:
        """Make entry `i` due at `at` if that is earlier than its grid says, or if it is parked. The grid stays.

        `patience_s` gives it an earlier deadline: as if it had been due for so much longer.
        """
        at -= max(0.0, self._patience[i] - patience_s)
        if at < self._due[i]:
            self._put(i, at)

    def park(self, i: int) -> None:
        """Entry `i` is not due any more, until it is hurried or rejoins."""
        self._due[i] = NEVER

    def rejoin(self, i: int, now: float) -> None:
        """Entry `i` is due again with the first point of its grid after `now`."""
        grid = self._grid[i]
        if grid <= now:
            self._grid[i] = grid = grid + (int((now - grid) // self._periods[i]) + 1) * self._periods[i]
        self._put(i, grid)

    def call(self, i: int, at: float, patience_s: float) -> None:
        """Make entry `i`, which has no grid, due once at `at`, earlier or later than it was, with its own patience."""
        self._patience[i] = patience_s
        if at != self._due[i]:
            self._put(i, at)

    def resume(self, now: float) -> None:
        """After a pause of the whole line: all that is not parked is due now, and nothing is counted missed."""
        for i, period in enumerate(self._periods):
            if self._grid[i] <= now:
                self._grid[i] += (int((now - self._grid[i]) // period) + 1) * period
            if self._due[i] != NEVER:
                self._due[i] = now
        self._rebuild()

    def _put(self, i: int, at: float) -> None:
        """Note when it is due. What the heaps still hold of it is stale from now on, and is swept away in time."""
        self._due[i] = at
        if at != NEVER:
            heapq.heappush(self._later, (at, i))
            if len(self._later) + len(self._ready) > 2 * len(self._due) + 16:
                self._rebuild()

    def _rebuild(self) -> None:
        """Make the heaps from the due times alone."""
        self._ready = []
        self._later = [(at, i) for i, at in enumerate(self._due) if at != NEVER]
        heapq.heapify(self._later)
