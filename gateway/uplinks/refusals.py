"""What the server does not take: named in the log once, and once when it goes out again; how long to wait meanwhile.

Lives as long as the uplink: a record that is refused is refused again on the next connection, and nobody wants to read
that each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import random

from gateway.metrics import Counter
from gateway.uplinks.reasons import reason

log = logging.getLogger("headgate.uplinks")

TRIES = 3
"""How often a record is sent whose bytes the server calls wrong."""

_SHORTEST_S = 1.0
_LONGEST_S = 60.0
_MOST = 256  # topics remembered as named: beyond, they are named again


class Refusals:
    """The refused and the skipped of one uplink. `refused` and `skipped` count publishes and records or values."""

    def __init__(self, uplink: str, *, refused: Counter, skipped: Counter, dice: Callable[[], float] = random) -> None:
        self._uplink = uplink
        self._refused = refused
        self._skipped = skipped
        self._dice = dice
        self._named: set[str] = set()
        self._waits = 0
        self.active: dict[str, int] = {}
        """Topics that are refused now, with the reason code."""

    def refuse(self, topic: str, code: int) -> None:
        """The server refused a publish."""
        self._refused.value += 1
        if self.active.get(topic) == code:
            return
        if len(self.active) < _MOST:
            self.active[topic] = code
        log.error("uplink '%s': the server refuses '%s': %s. What waits stays", self._uplink, topic, reason(code))

    def accept(self, topic: str) -> None:
        """The server took a publish on that topic."""
        if self.active.pop(topic, None) is not None:
            log.info("uplink '%s': the server takes '%s' again", self._uplink, topic)

    def skip(self, topic: str, why: str) -> None:
        """Something cannot be sent, now or later; the queue goes on without it."""
        self._skipped.value += 1
        self.active.pop(topic, None)
        if topic in self._named:
            return
        if len(self._named) >= _MOST:
            self._named.clear()
        self._named.add(topic)
        log.error("uplink '%s': left out of '%s': %s. The next ones there are only counted", self._uplink, topic, why)

    def next_wait_s(self) -> float:
        """Seconds until what was refused is tried again: between 1 s and a ceiling that doubles from 2 s to 60 s."""
        ceiling = min(_LONGEST_S, _SHORTEST_S * 2.0 ** (self._waits + 1))
        self._waits = min(self._waits + 1, 16)
        return _SHORTEST_S + (ceiling - _SHORTEST_S) * self._dice()

    def relieved(self) -> None:
        """What was refused went out, or was given up: the next wait is short again."""
        self._waits = 0
