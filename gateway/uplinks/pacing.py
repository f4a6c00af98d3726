"""How fast a backlog goes: a bucket that limits it, a meter that says how fast it went. Pure: time is an argument."""

from __future__ import annotations

from collections import deque

_SHORTEST_S = 0.02  # a timer for each record would cost more than the record
_NOTHING = 1e-6  # of a value: what sums of floats leave over
_WINDOW_S = 15.0
_STEP_S = 1.0


class Bucket:
    """Lets `rate` values through a second, at most a second's worth at once. A record that is larger goes on credit."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._left = rate
        self._then: float | None = None

    def wait_s(self, now: float) -> float:
        """Seconds until something may pass; 0: now."""
        passed = 0.0 if self._then is None else now - self._then
        self._then = now
        self._left = min(self.rate, self._left + passed * self.rate)
        return 0.0 if self._left > -_NOTHING else max(_SHORTEST_S, -self._left / self.rate)

    def take(self, values: int) -> None:
        """So many pass."""
        self._left -= values


class Meter:
    """What went within about the last quarter of a minute: records and values a second."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, int]] = deque()
        self.records = 0
        self.values = 0

    def add(self, records: int, values: int) -> None:
        """So much went."""
        self.records += records
        self.values += values

    def look(self, now: float) -> tuple[float, float]:
        """Records and values a second lately; 0 while nothing is known. To be asked about once a second."""
        marks = self._marks
        if not marks or now - marks[-1][0] >= _STEP_S:
            marks.append((now, self.records, self.values))
        while len(marks) > 1 and now - marks[0][0] > _WINDOW_S:
            marks.popleft()
        then, records, values = marks[0]
        passed = now - then
        if passed < _STEP_S:
            return 0.0, 0.0
        return (self.records - records) / passed, (self.values - values) / passed
