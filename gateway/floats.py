"""32-bit floats as the shortest decimals that read back the same. Pure.

A register pair that holds 8.1 as IEEE 754 binary32 is the double 8.100000381469727; written like that it costs bytes
and claims digits nobody measured. `shorten` returns doubles whose own shortest form (what any JSON writer prints) is
the shortest decimal in the 32-bit float's rounding interval: 8.1.

How: let k be the decade of v and s = 10^(6-k). rint(v*s)/s is the 7-digit decimal nearest to v, as a double: both the
integer (< 2^53) and s (10^0..10^22 are exact doubles) are exact, so the one division rounds once. Where 7-digit
decimals are not sparser than floats, a decimal of 7 digits that reads back has no shorter one beside it: any shorter
one is itself a multiple of the same spacing. What does not read back gets 8, then 9 digits, which always suffice.
Each step is one list comprehension and one `struct.pack` for the whole batch; no value is formatted on its own.

Outside of 1e-13 .. 1e7, at the borders of decades and where floats are sparser than 7-digit decimals (just below 1e-3
for example) the digits are tried one count after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from math import frexp, isfinite, isnan, nan
from sys import byteorder
from typing import Any

_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding and subtracting it rounds |x| < 2^51 to an integer, half to even
_ODD = nan
_scales: dict[int, float] = {}
"""10^(6-k) by the upper half of a float, at most 65,536 of them, or `_ODD` where that upper half does not decide."""


def shorten(values: Sequence[float]) -> list[float]:
    """Doubles that print as the shortest form of these 32-bit floats, in their order.

    What is not representable in 32 bits comes back unchanged: it was not a 32-bit float. NaN and infinities likewise.
    Raises struct.error where something is not a number, OverflowError where it is far too large for 32 bits.
    """
    layout = f"={len(values)}f"
    packed = struct.pack(layout, *values)
    exact = struct.unpack(layout, packed)
    if exact != tuple(values):
        return [_shortest(v) if v == e else v for v, e in zip(values, exact, strict=True)]
    halves = _halves(len(values)).unpack(packed)
    try:
        scales = list(map(_scales.__getitem__, halves))
    except KeyError:
        _scales.update((half, _scale_of(half)) for half in halves if half not in _scales)
        scales = list(map(_scales.__getitem__, halves))
    if not isnan(sum(scales)):
        return _by_scale(values, scales, packed)
    odd = [i for i, s in enumerate(scales) if isnan(s)]
    rest = list(values)
    for i in odd:
        rest[i], scales[i] = 0.0, 1.0
    short = _by_scale(rest, scales, struct.pack(f"={len(rest)}f", *rest))
    for i in odd:
        short[i] = _shortest(values[i])
    return short


def _by_scale(values: Sequence[float], scales: list[float], packed: bytes) -> list[float]:
    """7 digits for all, 8 for those that need them, 9 for the rest."""
    layout = f"={len(values)}f"
    short = [(v * s + _ROUND - _ROUND) / s for v, s in zip(values, scales, strict=True)]
    back = struct.pack(layout, *short)
    for factor in (10.0, 100.0):
        if back == packed:
            return short
        short = [
            d if r == v else (v * (s * factor) + _ROUND - _ROUND) / (s * factor)
            for d, r, v, s in zip(short, struct.unpack(layout, back), values, scales, strict=True)
        ]
        back = struct.pack(layout, *short)
    if back == packed:
        return short
    pairs = zip(short, struct.unpack(layout, back), values, strict=True)
    return [d if r == v else _shortest(v) for d, r, v in pairs]  # subnormals share their upper half with zero


@lru_cache(maxsize=64)
def _halves(count: int) -> struct.Struct:
    """Reads of each 32-bit float the 16 bits that hold sign, exponent and the upper 7 fraction bits."""
    return struct.Struct("=" + ("xxH" if byteorder == "little" else "Hxx") * count)


def _scale_of(half: int) -> float:
    """The scale for all floats with that upper half, or `_ODD`."""
    if half == 0:
        return 1.0  # zero, and subnormals, which fail to read back as zero
    low, high = (_float_of(half & 0x7FFF, rest) for rest in (0, 0xFFFF))
    if half == 0x8000 or not (low >= 1e-13 and high < 1e7):
        return _ODD
    decade, other = (int(f"{v:.16e}".partition("e")[2]) for v in (low, high))
    spacing = 2.0 ** (frexp(low)[1] - 24)
    if decade != other or spacing > 10.0 ** (decade - 6):
        return _ODD
    return float(10 ** (6 - decade))


def _float_of(half: int, rest: int) -> float:
    return float(struct.unpack(">f", struct.pack(">HH", half, rest))[0])


def _fits(candidate: float, value: float) -> bool:
    """Whether a decimal reads back as the 32-bit float `value`."""
    try:
        return bool(struct.unpack("f", struct.pack("f", candidate))[0] == value)
    except OverflowError:  # rounds to infinity
        return False


def _shortest(value: float) -> float:
    """The same for one value of any magnitude."""
    return _tried(value) if value and isfinite(value) else value  # to a cache 0.0 and -0.0 are one key


@lru_cache(maxsize=1024)
def _tried(value: float) -> float:
    for digits in range(1, 10):
        text = f"{value:.{digits - 1}e}"
        for candidate in _neighbours(text) if abs(frexp(value)[0]) == 0.5 else (float(text),):
            if _fits(candidate, value):
                return candidate
    return value


def _neighbours(text: str) -> tuple[float, float]:
    """The decimal and the next one away from zero.

    Below a power of two floats lie twice as close as above: the nearest decimal can fall just short of the interval
    while the next one up is inside.
    """
    mantissa, _, exponent = text.partition("e")
    whole = int(mantissa.replace(".", ""))
    places = int(exponent) - len(mantissa.partition(".")[2])
    return float(text), float(f"{whole + (1 if whole > 0 else -1)}e{places}")


def holds_nan(value: Any) -> bool:
    """Whether a NaN or an infinity is anywhere in this array or structure; of anything else, False."""
    if not isinstance(value, (list, dict)):
        return False
    parts: Any = value if isinstance(value, list) else value.values()
    try:
        if isfinite(sum(parts)):  # in C; an overflow of the sum only costs a second look
            return False
    except (TypeError, OverflowError):
        pass
    return any(not isfinite(part) if isinstance(part, float) else holds_nan(part) for part in parts)


def without_nan(value: Any) -> Any:
    """The same, at any depth of arrays and structures, with None in place of each NaN and infinity."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return {key: without_nan(part) for key, part in value.items()} if isinstance(value, dict) else value
