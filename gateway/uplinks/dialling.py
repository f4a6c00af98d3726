"""Where to connect next, in which version, and how long to wait before. Pure but for the dice it is handed.

Servers are tried in turn, from the first, without a wait but before the first of each round: that is drawn between 1 s
and a ceiling that doubles from 2 s to 60 s (full jitter: gateways that lost the same server do not come back together).
A connection that held for 30 s resets the ceiling; one that is lost at once (two clients with one id) does not.

MQTT 5 is tried first. A server that refuses the version (0x84, or code 1 of MQTT 3.1.1) is asked again with 3.1.1 at
once; one that hangs up before it answers is asked with the other version next time, for some say no in that way. What
was learned of a server is forgotten when an established connection is lost: it may come back as a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import random

from gateway.uplinks.options import Server, Version
from gateway.uplinks.reasons import QOS_NOT_SUPPORTED, RETAIN_NOT_SUPPORTED, UNSUPPORTED_VERSION

SHORTEST_S = 1.0
LONGEST_S = 60.0
STABLE_AFTER_S = 30.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What to try: a server, a version, and what the will may ask for."""

    server: Server
    version: Version
    will_qos: int
    will_retain: bool


class Dialling:
    """The order of attempts of one uplink."""

    def __init__(
        self, servers: Sequence[Server], version: Version, *, will_qos: int, dice: Callable[[], float] = random
    ) -> None:
        self._first = [Attempt(server, version, will_qos, will_retain=True) for server in servers]
        self._next = list(self._first)
        self._at = 0
        self._rounds = 0
        self._modern: set[int] = set()  # servers that have spoken MQTT 5: a hang-up of theirs means something else
        self._dice = dice

    @property
    def attempt(self) -> Attempt:
        """What to try now."""
        return self._next[self._at]

    def failed(self, code: int, *, hung_up: bool) -> float:
        """The attempt failed, with CONNACK's reason code or 0; seconds to wait before the next one.

        `hung_up`: the server closed the connection instead of answering.
        """
        now = self.attempt
        if code == UNSUPPORTED_VERSION and now.version == "5":
            return self._amend(version="3.1.1")
        if code == RETAIN_NOT_SUPPORTED and now.will_retain:
            return self._amend(will_retain=False)
        if code == QOS_NOT_SUPPORTED and now.will_qos:
            return self._amend(will_qos=0)
        if hung_up and self._first[self._at].version == "5" and self._at not in self._modern:
            self._amend(version="3.1.1" if now.version == "5" else "5")
        self._at = (self._at + 1) % len(self._next)
        return 0.0 if self._at else self._wait()

    def lost(self, held_s: float) -> float:
        """A connection that held for so long is gone; seconds to wait before the next attempt, at the first server."""
        if self.attempt.version == "5":
            self._modern.add(self._at)
        self._next[self._at] = self._first[self._at]
        self._at = 0
        if held_s >= STABLE_AFTER_S:
            self._rounds = 0
        return self._wait()

    def _amend(self, *, version: Version | None = None, will_qos: int | None = None, will_retain: bool = True) -> float:
        now = self.attempt
        self._next[self._at] = Attempt(
            now.server,
            now.version if version is None else version,
            now.will_qos if will_qos is None else will_qos,
            now.will_retain and will_retain,
        )
        return 0.0

    def _wait(self) -> float:
        ceiling = min(LONGEST_S, SHORTEST_S * 2.0 ** (self._rounds + 1))
        self._rounds = min(self._rounds + 1, 16)
        return SHORTEST_S + (ceiling - SHORTEST_S) * self._dice()
