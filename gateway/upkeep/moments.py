"""Moments as people write and read them: ISO 8601, ms since 1970, or so long ago; and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.quantities import parse_duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 253_402_300_799_999  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time from `first` to `last`, both included, in ms since 1970; None is open."""

    first: int | None = None
    last: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing lies outside."""
        return self.first is None and self.last is None

    def holds(self, time: int) -> bool:
        """Whether that moment lies in it."""
        return (self.first is None or time >= self.first) and (self.last is None or time <= self.last)

    def meets(self, first: int, last: int) -> bool:
        """Whether any moment of the other stretch lies in it."""
        return (self.first is None or last >= self.first) and (self.last is None or first <= self.last)


ALWAYS = Span()


def parse_moment(text: str, now_ms: int) -> tuple[int, bool]:
    """Ms since 1970, and whether the text left its zone open, so that the machine's own was taken.

    `2026-11-22T06:00Z`, `2026-11-22 06:00:30.5+01:00`, `2026-11-22` (its first moment), `1795330000123` (ms), `now`,
    `-2h` (two hours ago). Raises ValueError with the cure.
    """
    if text == "now":
        return now_ms, False
    if re.fullmatch(r"[0-9]{9,15}", text):
        return int(text), False
    if text.startswith("-"):
        return now_ms - round(parse_duration(text[1:]) * 1000), False
    try:
        moment = datetime.fromisoformat(text)
        is_local = moment.tzinfo is None
        return (moment.astimezone() - _EPOCH) // timedelta(milliseconds=1), is_local
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"'{text[:40]}' is no moment. Write 2026-11-22T06:00Z (or +01:00), ms since 1970, or -2h for two hours ago"
        ) from None


def zone() -> str:
    """The machine's own zone as people know it: `CET, UTC+01:00`."""
    now = datetime.now().astimezone()
    return f"{now.tzname()}, UTC{now:%z}"


def iso(ms: int) -> str:
    """`2026-11-22T06:00:30.500Z`; empty for times that no calendar has."""
    if not 0 <= ms <= _LATEST:
        return ""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def lasted(seconds: float) -> str:
    """A length of time for people, in two units at most: `2 h 5 min`, `3.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {s} s"
