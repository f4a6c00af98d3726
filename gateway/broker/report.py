"""What an operator should know of clients, one structured line each: refused logins, denials, time-outs, take-overs.

A line is `event=login_refused client="meter 7" address=10.0.0.9 reason="..."`. Whatever a peer chose is quoted and
escaped, so that no client identifier can forge a line or a field. One event of one client is written once in a while,
and no more than a few clients of one address, behind which there may be many; what was left out in between is counted
and said with the next line.
"""

from __future__ import annotations

import json
import logging
import re

from gateway.clock import Clock
from gateway.metrics import Metrics

log = logging.getLogger("headgate.broker")

_QUIET_S = 10.0
"""So long after a line the same event of the same client, and after a few of them of its address, is only counted."""

_CLIENTS = 8
"""So many clients of an address are named in that time."""

_REMEMBERED = 4_096
_LINES_PER_S = 20.0
_BURST = 100.0
_LONGEST = 200
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:%/@+-]*", re.ASCII)


class Report:
    """Writes those lines to the logger `headgate.broker`, never more than an operator (or a disk) can take."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._suppressed = metrics.counter("broker_report_suppressed_total")
        self._seen: dict[tuple[str, str], tuple[float, int, tuple[int, ...]]] = {}  # when, left out, who was named
        self._allowance = _BURST
        self._last = clock.monotonic()

    def __repr__(self) -> str:
        return f"<Report: {len(self._seen)} events of late>"

    def say(self, event: str, *, client_id: str = "", address: str = "", reason: str = "") -> None:
        """Report an event, or only count it. `event` is a word of ours; the rest may be anything."""
        now = self._clock.monotonic()
        key = (event, address)
        who = hash(client_id or reason)  # whoever has no name yet is told apart by what is wrong
        last, left_out, named = self._seen.get(key, (now, 0, ()))
        if now - last >= _QUIET_S:
            last, named = now, ()
        if who in named or len(named) >= _CLIENTS or not self._may_write(now):
            self._suppressed.value += 1
            self._remember(key, last, left_out + 1, named)
            return
        self._remember(key, last, 0, (*named, who))
        more = f" suppressed={left_out}" if left_out > 0 else ""
        log.warning(
            "event=%s client=%s address=%s reason=%s%s", event, _value(client_id), _value(address), _value(reason), more
        )

    def tick(self) -> None:
        """Say what was left out and is over, and forget it. Call it now and then."""
        now = self._clock.monotonic()
        for (event, address), (last, left_out, _) in list(self._seen.items()):
            if now - last < _QUIET_S:
                continue
            if left_out and not self._may_write(now):
                return
            del self._seen[event, address]
            if left_out:
                log.warning("event=%s address=%s suppressed=%d", event, _value(address), left_out)

    def _may_write(self, now: float) -> bool:
        self._allowance = min(_BURST, self._allowance + (now - self._last) * _LINES_PER_S)
        self._last = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _remember(self, key: tuple[str, str], last: float, left_out: int, named: tuple[int, ...]) -> None:
        if key not in self._seen and len(self._seen) >= _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (last, left_out, named)


def _value(text: str) -> str:
    """A value as it stands in a line: bare where it can be, else a JSON string of ASCII, cut where it is very long."""
    if _PLAIN.fullmatch(text) and len(text) <= _LONGEST:
        return text
    shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return json.dumps(shown)
