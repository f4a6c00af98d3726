"""Engineering to raw value: the way back of scaling.py, so that what is read is what was written.

raw = (value - offset) / scale is computed exactly, from the decimal digits that the user wrote and those of the value.
A value between two steps of a whole number is refused: the device would hold another one than the reply says.
"""

from __future__ import annotations

from fractions import Fraction
from math import isfinite, ulp
from typing import Any

from gateway.acquisition.scaling import scaler
from gateway.model import Tag, Value

_WHOLE = ("int", "uint", "bcd")
_NOISE = 4
"""So many of the last digits of a double are noise: what arithmetic elsewhere may have left behind."""


def unscale(tag: Tag, value: Value) -> Value:
    """The raw value of an engineering one; of an array, that of each.

    What is no number is handed on: the driver says what is wrong with it.

    Raises ValueError with the nearest values where the tag's type holds whole numbers and the value lies between two.
    """
    if tag.is_scaled and isinstance(value, list):
        return [unscale(tag, inner) for inner in value]
    if not tag.is_scaled or isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return value
    scale, offset = Fraction(repr(tag.scale)), Fraction(repr(tag.offset))
    raw = (Fraction(repr(value)) - offset) / scale
    nearest = round(raw)
    noise = Fraction(_NOISE * ulp(float(value))) / abs(scale) if isinstance(value, float) else 0
    if abs(raw - nearest) <= noise:
        return nearest
    if tag.type.startswith(_WHOLE):
        raise ValueError(f"{tag.type} holds steps of {tag.scale:g}, got {value!r}. The nearest are {_near(tag, raw)}")
    return float(raw)


def _near(tag: Tag, raw: Fraction) -> str:
    """The engineering values on either side, the smaller first."""
    below = raw.numerator // raw.denominator
    values: list[Any] = sorted(map(scaler(tag), (below, below + 1)))
    return " and ".join(f"{value!r}" for value in values)
