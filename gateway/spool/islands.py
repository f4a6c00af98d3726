"""Islands: ranges of numbers that are acknowledged although something below them is not. Pure.

    committed                island          island
    ========|...............|=====|.........|==========|......
            backlog, not yet acknowledged               head

A list of (first, last), in order, none touching another. Where the numbers below are acknowledged too, an island
becomes part of what is committed. To forget an island is always safe: it costs duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Islands: TypeAlias = list[tuple[int, int]]


def add(islands: Islands, first: int, last: int) -> None:
    """Put a range in, one with what it touches."""
    if islands and islands[-1][0] <= first <= islands[-1][1] + 1:  # the usual case: the newest one grows
        if last > islands[-1][1]:
            islands[-1] = (islands[-1][0], last)
        return
    apart = [island for island in islands if island[1] + 1 < first or island[0] > last + 1]
    touched = [island for island in islands if island not in apart]
    one = (min(first, *(t[0] for t in touched)), max(last, *(t[1] for t in touched))) if touched else (first, last)
    islands[:] = sorted([*apart, one])


def absorb(islands: Islands, committed: int) -> int:
    """Everything up to `committed` is acknowledged: up to where is it, with the islands? They leave the list."""
    while islands and islands[0][0] <= committed + 1:
        committed = max(committed, islands.pop(0)[1])
    return committed


def beyond(islands: Sequence[tuple[int, int]], seq: int) -> int:
    """The last number of the island in which the number behind `seq` lies; `seq` where it lies in none."""
    for first, last in islands:
        if first <= seq + 1 <= last:
            return last
    return seq


def outside(islands: Sequence[tuple[int, int]], first: int, last: int) -> Islands:
    """What of a range lies in no island. The islands may come in any order and overlap."""
    left = []
    for low, high in sorted(islands):
        if low > last:
            break
        if low > first:
            left.append((first, low - 1))
        first = max(first, high + 1)
    if first <= last:
        left.append((first, last))
    return left


def count(islands: Sequence[tuple[int, int]]) -> int:
    """How many numbers they hold."""
    return sum(last - first + 1 for first, last in islands)


def largest(islands: Sequence[tuple[int, int]], most: int) -> tuple[tuple[int, int], ...]:
    """The `most` largest of them, in order; the newest is always among them, for it is the one that grows."""
    if len(islands) <= most:
        return tuple(islands)
    others = sorted(islands[:-1], key=lambda island: island[0] - island[1])[: most - 1]
    return (*sorted(others), islands[-1])
