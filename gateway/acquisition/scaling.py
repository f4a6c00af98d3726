"""Raw to engineering value, compiled once a group.

value = raw * scale + offset is computed as (raw * a + b) / c with whole a, b, c taken from the decimal digits the user
wrote. An integer register then gives the decimal number that is meant (3 * 0.1 is 0.3, not 0.30000000000000004), and an
integer stays one where scale and offset are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import inf, isfinite, lcm
from operator import itemgetter
from typing import Any

from gateway.floats import holds_nan, without_nan
from gateway.model import GOOD, Quality, ScanGroup, Tag, Value, uncertain

_LARGEST = 2**53
"""Beyond it a / c is no longer what the digits say when raw is a float; the plain product is as good."""

NAN = uncertain("nan")
RANGE = uncertain("range")

Values = Sequence[Value]


def coefficients(scale: float, offset: float) -> tuple[int, int, int] | None:
    """(a, b, c) with raw * scale + offset == (raw * a + b) / c, or None where they would not be small whole numbers."""
    s, o = Fraction(repr(scale)), Fraction(repr(offset))
    c = lcm(s.denominator, o.denominator)
    a, b = int(s * c), int(o * c)
    return None if max(abs(a), abs(b), c) > _LARGEST else (a, b, c)


def scaler(tag: Tag) -> Callable[[Any], Any]:
    """The function of one tag's raw value."""
    found = coefficients(tag.scale, tag.offset)
    if found is None:
        scale, offset = tag.scale, tag.offset
        return lambda raw: raw * scale + offset
    a, b, c = found
    if c == 1:
        return lambda raw: raw * a + b
    if b == 0:
        return lambda raw: raw * a / c
    return lambda raw: (raw * a + b) / c


class Scaling:
    """Scaling, and the checks for NaN, infinity and the tags' limits, of one group; for dense and sparse values alike.

    A value outside `min` … `max` is kept, it cannot be measured again, but says `uncertain:range`. Of an array each
    number is scaled.
    """

    def __init__(self, group: ScanGroup) -> None:
        self._scalers = {i: scaler(t) for i, t in enumerate(group.tags) if t.is_scaled}
        self._limits = {
            i: (-inf if t.min is None else t.min, inf if t.max is None else t.max)
            for i, t in enumerate(group.tags)
            if t.min is not None or t.max is not None
        }
        self._is_numeric = group.is_numeric
        floats = [i for i, kind in enumerate(group.types) if kind.startswith("float") or not kind]
        self._pick_floats = itemgetter(*floats) if floats else None
        self._has_one_float = len(floats) == 1

    def apply(
        self, values: Values, quality: Quality | Sequence[Quality], index: Sequence[int] | None
    ) -> tuple[Values, Quality | Sequence[Quality]]:
        """Engineering values with their quality; NaN and infinities become None with `uncertain:nan`.

        Of an array or a structure only the element is None, and the tag `uncertain:nan`.
        """
        if quality is not GOOD and isinstance(quality, Quality) and quality.level == "bad":
            return values, quality  # the same cause for all: there are no values
        if self._scalers:
            values = self._scale(values, index)
        if quality is not GOOD or index is not None or not self._are_finite(values):
            values, quality = self._without_nan(values, quality)
        return values, self._grade(values, quality, index) if self._limits else quality

    def _scale(self, values: Values, index: Sequence[int] | None) -> Values:
        out = list(values)
        scalers = self._scalers
        if index is None:
            for i, scaler in scalers.items():
                raw = out[i]
                out[i] = scaler(raw) if isinstance(raw, (int, float)) else _each(scaler, raw)
            return out
        for k, i in enumerate(index):
            if i in scalers:
                raw = out[k]
                out[k] = scalers[i](raw) if isinstance(raw, (int, float)) else _each(scalers[i], raw)
        return out

    def _are_finite(self, values: Values) -> bool:
        """One sum in C tells: it is finite when all are (an overflow of the sum only costs a second look)."""
        if self._pick_floats is None:
            return True
        try:
            if self._is_numeric:
                return isfinite(sum(values))  # type: ignore[arg-type]
            picked = self._pick_floats(values)
            return isfinite(picked if self._has_one_float else sum(picked))
        except TypeError:  # a device that says by itself what it holds may say otherwise than the mapping
            return False

    @staticmethod
    def _without_nan(
        values: Values, quality: Quality | Sequence[Quality]
    ) -> tuple[Values, Quality | Sequence[Quality]]:
        lost = [k for k, v in enumerate(values) if (not isfinite(v) if isinstance(v, float) else holds_nan(v))]
        if not lost:
            return values, quality
        out = list(values)
        grades = [quality] * len(out) if isinstance(quality, Quality) else list(quality)
        for k in lost:
            out[k] = without_nan(out[k])
            grades[k] = NAN
        return out, grades

    def _grade(
        self, values: Values, quality: Quality | Sequence[Quality], index: Sequence[int] | None
    ) -> Quality | Sequence[Quality]:
        outside = []
        for k, i in enumerate(range(len(values)) if index is None else index):
            limits = self._limits.get(i)
            value = values[k]
            if limits and isinstance(value, (int, float)) and not limits[0] <= value <= limits[1]:
                outside.append(k)
        if not outside:
            return quality
        grades = [quality] * len(values) if isinstance(quality, Quality) else list(quality)
        for k in outside:
            if grades[k].level == "good":
                grades[k] = RANGE
        return grades


def _each(scale: Callable[[Any], Any], raw: Value) -> Value:
    """The numbers of an array scaled, at any depth; what is neither number nor array as it is."""
    if isinstance(raw, (int, float)):
        return scale(raw)  # type: ignore[no-any-return]
    return [_each(scale, inner) for inner in raw] if isinstance(raw, list) else raw
