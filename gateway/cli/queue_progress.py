"""How far long work is, on a terminal's standard error; nowhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_EVERY_S = 0.2
_WIDTH = 24


class Progress:
    """A line that says how much of `total` is done, how fast, and how long it will take. A context manager.

    Bytes by default; with another `unit` plain numbers.
    """

    def __init__(self, label: str, total: int, *, unit: str = "bytes") -> None:
        self._label = label
        self._total = max(1, total)
        self._unit = unit
        self._done = 0
        self._began = self._shown = time.monotonic()
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def advance(self, done: int) -> None:
        """So much more is done."""
        self._done += done
        if self._is_shown and time.monotonic() - self._shown >= _EVERY_S:
            self._shown = time.monotonic()
            print(f"\r{self.line()}\x1b[K", end="", file=sys.stderr, flush=True)

    def expect(self, total: int, label: str) -> None:
        """The work has turned out to be so much, and is called so from now on."""
        self._total = max(1, total)
        self._label = label

    def line(self) -> str:
        """The line as it stands now."""
        from gateway.quantities import format_size
        from gateway.upkeep.moments import lasted

        share = min(1.0, self._done / self._total)
        spent = time.monotonic() - self._began
        rate = self._done / spent if spent else 0.0
        speed = f"{format_size(round(rate))}/s" if self._unit == "bytes" else f"{rate:,.0f} {self._unit}/s"
        left = f", {lasted((self._total - self._done) / rate)} left" if rate and share < 1 else ""
        bar = "#" * round(share * _WIDTH)
        return f"{self._label}  {share:4.0%} [{bar:<{_WIDTH}}] {speed}{left}"
