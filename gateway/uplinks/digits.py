"""How many digits a number deserves: the shortest that read back as the same 32-bit float (floats.py), or `decimals`.

Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import isfinite
from operator import itemgetter
from typing import Any

from gateway.floats import shorten
from gateway.model import Definition

_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding and subtracting it rounds |x| < 2^51 to an integer, half to even
_POWERS = tuple(10.0**n for n in range(16))


class Digits:
    """The digits for all batches of one definition."""

    def __init__(self, definition: Definition) -> None:
        self._places = {i: places for i, places in enumerate(definition.decimals) if places is not None}
        self._short = [i for i, name in enumerate(definition.types) if name == "float32" and i not in self._places]
        self._is_short = frozenset(self._short)
        self._all_short = len(self._short) == len(definition.names) > 0
        self._pick = itemgetter(*self._short) if len(self._short) > 1 else None

    def of(self, values: Sequence[Any], index: Sequence[int] | None) -> Sequence[Any]:
        """The values of a batch, dense or with their positions, each as the number that prints as it should."""
        short: Sequence[int] = self._short
        places: Mapping[int, int] = self._places
        if index is not None:
            short = [k for k, i in enumerate(index) if i in self._is_short]
            places = {k: places[i] for k, i in enumerate(index) if i in places}
        elif self._all_short:
            return _shortened(values)
        if not short and not places:
            return values
        tidy = list(values)
        if short:
            picked = self._pick(values) if index is None and self._pick is not None else [values[k] for k in short]
            for k, value in zip(short, _shortened(picked), strict=True):
                tidy[k] = value
        for k, decimals in places.items():
            tidy[k] = fixed(tidy[k], decimals)
        return tidy


def _shortened(values: Sequence[Any]) -> Sequence[Any]:
    """`shorten` for what may hold nulls, and other things that are no floats."""
    try:
        if None in values:
            short = shorten([0.0 if value is None else value for value in values])
            return [None if value is None else digits for value, digits in zip(values, short, strict=True)]
        return shorten(values)
    except (struct.error, OverflowError):
        floats = [k for k, value in enumerate(values) if type(value) is float and abs(value) < 1e38]
        tidy = list(values)
        for k, value in zip(floats, shorten([values[k] for k in floats]), strict=True):
            tidy[k] = value
        return tidy


def fixed(value: object, places: int) -> object:
    """A float rounded to `places` decimals; anything else as it is. Minus zero becomes zero.

    Rounds the product with 10^places, so a tie of the decimal digits as written (2.675) goes to the even digit.
    """
    if type(value) is not float or not isfinite(value):
        return value
    if not 0 <= places <= 15:
        return round(value, places)
    scale = _POWERS[places]
    if abs(value) * scale < 2251799813685248.0:  # 2^51
        return (value * scale + _ROUND - _ROUND) / scale + 0.0
    return round(value, places)
