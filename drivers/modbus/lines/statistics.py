"""What each unit of a line was asked and how it answered: counts, and turnaround in a histogram of fixed size.

Exported as metrics with the labels `line` and `unit`; the sum over the units is the line's. Turnaround is counted into
steps of a fixed ratio, so that an answer costs one search in a short table and nothing ever grows. Old answers lose
weight: when the fullest step has come to 1,000, all steps are halved.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from gateway.metrics import Metrics

_SHORTEST_S = 20e-6
_STEPS_AN_OCTAVE = 8
_OCTAVES = 22
"""20 us to 84 s: what takes longer than any timeout, or less than any network, need not be told apart."""

_EDGES = [_SHORTEST_S * 2 ** (i / _STEPS_AN_OCTAVE) for i in range(_STEPS_AN_OCTAVE * _OCTAVES + 1)]
_MIDDLE = 2 ** (-0.5 / _STEPS_AN_OCTAVE)
"""The middle of a step by its upper edge, as a ratio: at most 4.4 % from any value in it."""

_FULL = 1000
"""How much a step may hold before all are halved: p99 is then that of the last one or two thousand answers."""

_OTHER = "other"
"""The label of all units that no device of the line has: whoever scans a line must not make 250 rows of metrics."""


class Tally:
    """One unit's counts. Add to the counters directly; `note` takes the turnaround of an answer."""

    __slots__ = ("_steps", "crc_errors", "exceptions", "late", "requests", "timeouts")

    def __init__(self, metrics: Metrics, *, line: str, unit: str) -> None:
        self.requests = metrics.counter("modbus_requests_total", line=line, unit=unit)
        self.timeouts = metrics.counter("modbus_timeouts_total", line=line, unit=unit)
        self.crc_errors = metrics.counter("modbus_crc_errors_total", line=line, unit=unit)
        self.exceptions = metrics.counter("modbus_exceptions_total", line=line, unit=unit)
        self.late = metrics.counter("modbus_late_answers_total", line=line, unit=unit)
        self._steps = [0] * (len(_EDGES) + 1)
        for share in (0.5, 0.99):
            read = partial(self._shown, share)
            metrics.gauge("modbus_turnaround_seconds", read, line=line, unit=unit, quantile=f"{share:g}")

    def __repr__(self) -> str:
        median = self.turnaround()
        shown = "none answered" if median is None else f"{median * 1000:.3g} ms"
        return f"<tally {self.requests.value} requests, {shown}>"

    def note(self, seconds: float) -> None:
        """An answer, good or an exception, came that long after its request."""
        steps = self._steps
        step = bisect(_EDGES, seconds)
        steps[step] = held = steps[step] + 1
        if held >= _FULL:
            self._steps = [n // 2 for n in steps]

    def turnaround(self, share: float = 0.5) -> float | None:
        """The time in s within which that share of the answers came, 4.4 % more or less; None before any came."""
        wanted = share * sum(self._steps)
        if not wanted:
            return None
        for step, held in enumerate(self._steps):
            wanted -= held
            if wanted <= 0 and held:
                return _EDGES[min(step, len(_EDGES) - 1)] * _MIDDLE
        return None

    def _shown(self, share: float) -> float:
        """For a gauge, which must be a number: 0 says that no answer came yet."""
        return self.turnaround(share) or 0.0


class _Tallies(dict[int, Tally]):
    """Tallies by unit; a unit without one of its own has the tally of all such units."""

    def __init__(self, units: Iterable[int], make: Callable[[str], Tally]) -> None:
        super().__init__((unit, make(str(unit))) for unit in units)
        self._make = make
        self._other: Tally | None = None

    def __missing__(self, unit: int) -> Tally:
        if self._other is None:
            self._other = self._make(_OTHER)
        return self._other


class Statistics:
    """The tallies of one line. `units` are those of its devices; all others share one tally.

    `tallies[unit]` gives the one to count into, whatever the unit.
    """

    def __init__(self, line: str, units: Iterable[int], metrics: Metrics) -> None:
        self.tallies: Mapping[int, Tally] = _Tallies(units, lambda unit: Tally(metrics, line=line, unit=unit))
        self._line = line

    def __repr__(self) -> str:
        return f"<statistics of {self._line}: {self.tallies}>"

    def turnaround(self, unit: int) -> float | None:
        """The median time in s from a request to its answer; None before that unit has answered."""
        tally = self.tallies.get(unit)
        return None if tally is None else tally.turnaround()
