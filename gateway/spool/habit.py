"""Habits: which kinds of values a group's batches usually hold, so that most need no look at each single value.

Only a guess of the writing side: what a batch really holds is written beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from gateway.model import Definition
from gateway.spool.columns import F32, F64, FLAG, I64, OBJECT, U64, fitting, kind_of

_TYPES: tuple[type, ...] = (bool, int, int, float, float, str)  # by kind
_USUAL = (("bool", FLAG), ("uint", U64), ("bcd", U64), ("int", I64), ("float64", F64), ("float", F32))


class Habit:
    """The usual kinds of one group: at first by the types it declares, then as its last unusual batch had them."""

    __slots__ = ("_declared", "_kinds", "_types")

    def __init__(self, definition: Definition) -> None:
        self._declared = self._kinds = bytes(map(_declared, definition.types))
        self._types: list[type] = [_TYPES[kind] for kind in self._kinds]

    def guess(self, index: Sequence[int] | None, types: list[type]) -> bytes | None:
        """The kinds of values of these types; None where the types are not the usual ones."""
        if index is None:
            return self._kinds if types == self._types else None
        try:
            if types == [self._types[at] for at in index]:
                return bytes([self._kinds[at] for at in index])
        except IndexError:  # more than the group has: a driver's mistake must not stop the writer
            pass
        return None

    def look(self, index: Sequence[int] | None, values: Sequence[Any]) -> bytes:
        """The kinds by a look at each value."""
        known, types, end = self._kinds, self._types, len(self._kinds)
        kinds = bytearray()
        for at, value in zip(range(len(values)) if index is None else index, values, strict=True):
            if not 0 <= at < end:
                kinds.append(kind_of(value))
            else:
                kinds.append(fitting(known[at] if type(value) is types[at] else self._declared[at], value))
        return bytes(kinds)

    def learn(self, types: list[type], kinds: bytes) -> None:
        """Take the kinds of a whole batch for usual, unless a number was so large that it had to be an object."""
        has_large = OBJECT in kinds and (int, OBJECT) in zip(types, kinds, strict=True)
        if len(kinds) == len(self._kinds) and not has_large:
            self._kinds, self._types = kinds, types


@lru_cache(maxsize=4096)
def habit_of(definition: Definition) -> Habit:
    """The one habit of that definition."""
    return Habit(definition)


def _declared(kind: str) -> int:
    """The kind that values of a declared type usually have."""
    return next((usual for start, usual in _USUAL if kind.startswith(start)), OBJECT)
