"""How long to wait before trying again: exponential, capped, jittered. Pure but for the dice it is handed."""

from __future__ import annotations

from collections.abc import Callable
from random import random


class Backoff:
    """Waits grow from `first_s` by a factor of two up to `longest_s`; each is drawn between half of that and all of it.

    The jitter keeps devices that died together from being probed together for ever.
    """

    def __init__(self, first_s: float, longest_s: float, *, dice: Callable[[], float] = random) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._dice = dice
        self.failures = 0

    def next_s(self) -> float:
        """Count one more failure and say how many seconds to wait."""
        full = min(self._longest_s, self._first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return full * (0.5 + self._dice() / 2)

    def reset(self) -> None:
        """It worked: the next failure starts from the beginning."""
        self.failures = 0
