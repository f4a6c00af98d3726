"""What a number of a device stands for, and back: a label, a moment, a date, a multiple of a power of ten. Pure.

A value that is not what the tag promises is `Flawed`: it carries the value to publish, if any, and its quality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import isfinite
from typing import Any, Protocol

from gateway.model import Quality, Value, bad, uncertain

LARGEST_EXPONENT = 10
"""Scale factors go from -10 to 10 [SunSpec Information Model Specification, type sunssf]."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"s": timedelta(seconds=1), "ms": timedelta(milliseconds=1)}


@dataclass(frozen=True, slots=True)
class Flawed:
    """A value with a quality of its own; None: there is no value."""

    value: Value
    quality: Quality


DECODE = bad("decode")
SENTINEL = Flawed(None, bad("sentinel"))
UNDECODABLE = Flawed(None, DECODE)


class Meaning(Protocol):
    """How the number of a tag becomes what is published, and back."""

    def read(self, number: Any) -> Value | Flawed:
        """What the number stands for. Raises ValueError where it stands for nothing."""
        ...

    def write(self, value: Any) -> Any:
        """The number for it. Raises ValueError with what may be written."""
        ...


class Labels:
    """Texts for some numbers. Another number is published as text of digits, and is uncertain."""

    def __init__(self, labels: Mapping[int, str]) -> None:
        self._labels = dict(labels)
        self._numbers = {label: number for number, label in labels.items()}

    def read(self, number: Any) -> Value | Flawed:
        """The label, or the digits with quality `uncertain:range`."""
        label = self._labels.get(number)
        return Flawed(str(int(number)), uncertain("range")) if label is None else label

    def write(self, value: Any) -> int:
        """The number of a label, or a number that has one."""
        if isinstance(value, str) and value in self._numbers:
            return self._numbers[value]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value in self._labels:
            return int(value)
        known = ", ".join(f"{label} ({number})" for number, label in self._labels.items())
        raise ValueError(f"the enum knows {known}; got {value!r}")


class Moment:
    """Seconds or milliseconds since 1970 as ISO 8601 text in UTC."""

    def __init__(self, unit: str) -> None:
        self._unit = _UNITS[unit]
        self._digits = "seconds" if unit == "s" else "milliseconds"

    def read(self, number: Any) -> Value:
        """The text, `2026-01-02T03:04:05Z` for example."""
        try:
            return _text(_EPOCH + number * self._unit, self._digits)
        except OverflowError:
            raise ValueError("a time beyond the year 9999") from None

    def write(self, value: Any) -> int:
        """The number. A text without an offset is taken as UTC."""
        since = _moment(value) - _EPOCH
        if since % self._unit:
            raise ValueError(f"the device counts in {self._digits}, got {value}")
        return since // self._unit


class Date:
    """Year, month, day, hour, minute and second as ISO 8601 text; years count from `first`. What they say is UTC."""

    def __init__(self, first: int) -> None:
        self._first = first

    def read(self, number: Any) -> Value:
        """The text. Raises ValueError where there is no such day."""
        year, month, day, hour, minute, second = number
        return _text(datetime(self._first + year, month, day, hour, minute, second, tzinfo=UTC), "seconds")

    def write(self, value: Any) -> list[int]:
        """The six numbers."""
        moment = _moment(value)
        if moment.microsecond:
            raise ValueError(f"the device counts in seconds, got {value}")
        return [moment.year - self._first, moment.month, moment.day, moment.hour, moment.minute, moment.second]


def _text(moment: datetime, digits: str) -> str:
    return moment.isoformat(timespec=digits).replace("+00:00", "Z")


def _moment(value: Any) -> datetime:
    """A time as somebody writes it."""
    if not isinstance(value, str):
        text = f"a time is written as text like 2026-01-02T03:04:05Z, got {value!r}"
        raise ValueError(text)  # noqa: TRY004 - a value, not our call
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"'{value[:40]}' is no time. Write it like 2026-01-02T03:04:05Z") from None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"'{value[:40]}' lies beyond the years 1 to 9999 in UTC") from None


def scaled(value: Value | Flawed, exponent: Value | Flawed) -> Value | Flawed:
    """A value, or each of a list, times ten to the power that the scale register holds."""
    if value is None or isinstance(value, Flawed):
        return value
    if isinstance(exponent, Flawed):
        return exponent
    if not isinstance(exponent, int) or abs(exponent) > LARGEST_EXPONENT:
        return UNDECODABLE
    if isinstance(value, list):
        return [None if each is None else _times(each, exponent) for each in value]
    return _times(value, exponent)


def _times(value: Any, exponent: int) -> int | float:
    scaled: int | float = value * 10**exponent if exponent >= 0 else value / 10**-exponent
    return scaled


def unscaled(value: Any, exponent: Any, *, whole: bool) -> Any:
    """What to write so that it reads as `value`. Raises ValueError where whole numbers cannot say it."""
    if isinstance(value, list):
        return [unscaled(each, exponent, whole=whole) for each in value]
    if isinstance(exponent, Flawed) or not isinstance(exponent, int) or abs(exponent) > LARGEST_EXPONENT:
        raise ValueError("the scale register holds no power of ten now, so the value cannot be written")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return value  # its type will say what is wrong with it
    exact = Fraction(repr(value)) / Fraction(10) ** exponent
    if not whole:
        try:
            return float(exact)
        except OverflowError:
            raise ValueError(f"{value!r} divided by 1e{exponent} is more than any number holds") from None
    if exact.denominator != 1:
        below = exact.numerator // exact.denominator
        near = " and ".join(f"{_times(n, exponent):g}" for n in (below, below + 1))
        raise ValueError(f"the device holds multiples of 1e{exponent}, got {value!r}. The nearest are {near}")
    return int(exact)
