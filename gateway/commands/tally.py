"""What is counted of commands and what is logged of them: every one in the metrics, a few a minute in the log."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable

from gateway.clock import Clock
from gateway.commands.request import RefusalError
from gateway.metrics import Metrics

log = logging.getLogger("headgate.commands")

_BOUNDS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LINES = 20
_LONGEST = 300
_WINDOW_S = 60.0
_SENT = frozenset({"refused", "timeout", "failed", "read_back"})


class Tally:
    """Counts how commands end: `done`, `refused` before anything was sent, `failed` afterwards."""

    def __init__(self, *, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._counts = [0] * (len(_BOUNDS_S) + 1)
        self._sum_s = 0.0
        self._lines_left = _LINES
        self._window_ends = 0.0
        self._held_back = 0
        for number, bound in enumerate((*map(str, _BOUNDS_S), "+Inf")):
            metrics.gauge("command_seconds_bucket", self._upto(number), le=bound)
        metrics.gauge("command_seconds_sum", lambda: self._sum_s)
        metrics.gauge("command_seconds_count", lambda: sum(self._counts))

    def _upto(self, number: int) -> Callable[[], float]:
        return lambda: sum(self._counts[: number + 1])

    def done(self, what: str, source: str, value: str, took_s: float) -> None:
        """One was carried out, so long after it came."""
        self._metrics.counter("commands_total", outcome="done").value += 1
        self._counts[bisect_left(_BOUNDS_S, took_s)] += 1
        self._sum_s += took_s
        self._say(logging.INFO, f"{what} = {value}, as {source} wants it: done in {took_s * 1000:.0f} ms")

    def refused(self, what: str, source: str, error: RefusalError) -> None:
        """One was not carried out, or nobody knows."""
        outcome = "failed" if error.code in _SENT else "refused"
        self._metrics.counter("commands_total", outcome=outcome).value += 1
        self._metrics.counter("commands_refused_total", reason=error.code).value += 1
        level = logging.WARNING if outcome == "failed" else logging.INFO
        self._say(level, f"{what}: the command of {source} is {outcome} ({error.code}): {error}")

    def _say(self, level: int, text: str) -> None:
        now = self._clock.monotonic()
        if now >= self._window_ends:
            if self._held_back:
                log.info("%d further commands were not logged one by one", self._held_back)
            self._lines_left, self._window_ends, self._held_back = _LINES, now + _WINDOW_S, 0
        if self._lines_left:
            self._lines_left -= 1
            shown = text[:_LONGEST]
            log.log(level, "%s", shown if shown.isprintable() else ascii(shown))  # names in it are a stranger's
        else:
            self._held_back += 1
