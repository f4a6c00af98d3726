"""Durations and sizes as people write them in the file: `100ms`, `5m`, `64KiB`. Pydantic fields and plain functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([kKMGT]?i?B)")


@lru_cache(maxsize=512)
def parse_duration(text: str) -> float:
    """Seconds in `100ms`, `1s`, `2.5m`, `2h`, `1d`. Raises ValueError with the cure."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(f"'{text[:40]}' is no duration. Write a number and its unit, such as 100ms, 1s, 5m, 2h, 1d")
    return round(float(found[1]) * _SECONDS[found[2]], 9)


def format_duration(seconds: float) -> str:
    """The text in the largest unit that gives a whole number, else in s or ms; `parse_duration` reads it back."""
    for unit in ("d", "h", "m", "s"):
        number = seconds / _SECONDS[unit]
        if number >= 1 and number == int(number):
            return f"{int(number)}{unit}"
    number, unit = (seconds, "s") if seconds >= 1 else (seconds * 1000, "ms")
    return f"{number:.9f}".rstrip("0").rstrip(".") + unit


@lru_cache(maxsize=64)
def parse_size(text: str) -> int:
    """Bytes in `64KiB`, `1GiB`, `10MB`. Raises ValueError with the cure."""
    found = _SIZE.fullmatch(text)
    if not found or found[2] not in _BYTES:
        raise ValueError(f"'{text[:40]}' is no size. Write a number and its unit, such as 64KiB, 10MB, 1GiB")
    return round(float(found[1]) * _BYTES[found[2]])


def format_size(size: int) -> str:
    """Bytes for people, in binary units: `1GiB`, `1.5MiB`, `300B`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _BYTES[unit]:
            return f"{size / _BYTES[unit]:.4g}{unit}"
    return f"{size}B"


@dataclass(frozen=True, slots=True)
class DurationRange:
    """Makes a pydantic float field (seconds) read a duration: `Annotated[float, DurationRange("1s", "1h")]`.

    A bare number does not pass: `5` could mean anything.
    """

    low: str = "1ms"
    high: str = "365d"

    def check(self, value: Any) -> float:
        """The seconds of a text. Raises ValueError with the cure."""
        if value is None:
            raise ValueError("has no value. Write a duration such as 100ms, 1s, 5m, or take the key out")
        seconds = parse_duration(str(value))
        if not parse_duration(self.low) <= seconds <= parse_duration(self.high):
            raise ValueError(f"'{value}' is outside {self.low} … {self.high}")
        return seconds

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.check,
            serialization=core_schema.plain_serializer_function_ser_schema(format_duration, when_used="json"),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_DURATION.pattern}$"}


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Makes a pydantic int field (bytes) read a size within bounds. An integer passes as bytes."""

    low: str = "1B"
    high: str = "1024TiB"

    def check(self, value: Any) -> int:
        """The bytes of a text or integer. Raises ValueError with the cure."""
        size = value if type(value) is int else parse_size(str(value))
        if not parse_size(self.low) <= size <= parse_size(self.high):
            raise ValueError(f"'{value}' is outside {self.low} … {self.high}")
        return size

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.check, serialization=core_schema.plain_serializer_function_ser_schema(format_size, when_used="json")
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": f"^{_SIZE.pattern}$"}, {"type": "integer"}]}


Duration = Annotated[float, DurationRange()]
"""Seconds, written as a duration in the file."""

Size = Annotated[int, SizeRange()]
"""Bytes, written as a size in the file."""
