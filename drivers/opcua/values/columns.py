"""Data values as they came over the wire, a list for each of their fields: the shape in which they travel in here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.model import Value

EPOCH = 116_444_736_000_000_000
"""1970 in ticks: a DateTime counts 100 ns from 1601-01-01 UTC [Part 6 5.2.2.5]."""
TICKS_PER_MS = 10_000

GOOD = 0
OVERFLOW = 0x480
"""Info bits of a data value whose predecessors were thrown away: the server's queue was full [Part 4 7.39.1]."""


@dataclass(slots=True)
class Columns:
    """Parallel lists. `handles`: client handles of monitored items, empty for what was read. `codes`: StatusCodes.

    `source` and `server`: times in ticks, 0 where there is none; ten picoseconds are left out. A value that could not
    be decoded is None with a code of its own (Bad_DecodingError).
    """

    handles: list[int] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    server: list[int] = field(default_factory=list)


def wall_ms(ticks: int) -> int:
    """Wall time in ms of a DateTime, 0 for none."""
    return (ticks - EPOCH) // TICKS_PER_MS if ticks else 0


def wall_times(ticks: Iterable[int]) -> list[int]:
    """The same for many."""
    return [(t - EPOCH) // TICKS_PER_MS if t else 0 for t in ticks]


def ticks_of(wall: int) -> int:
    """The DateTime of a wall time in ms."""
    return wall * TICKS_PER_MS + EPOCH
