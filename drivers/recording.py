"""The recording of a line as text: every byte with its time and direction, to read, to send in, and to replay. Pure.

A line begins with the seconds since the start; then comes what happened:

    > 01 03 00 64 00 02 85 D4     these bytes were sent to the device
    < 01 03 04 41 45             these were heard from it, cut as they came
    = opened                     the connection: opened, closed, lost and why; anything else is said to people

The head holds `# key: value` lines; other lines that begin with # and empty lines mean nothing. Worked example:

    # headgate recording 1
    # driver: modbus
    # url: tcp://10.0.0.5:502
    # framing: tcp
    # started: 2026-11-22T06:00:00Z

    0.000000 = opened
    0.001204 > 00 01 00 00 00 06 01 03 00 64 00 01
    0.004410 < 00 01 00 00 00 05 01 03 02 02 2B

Bytes that could not be kept are told by a line `= 4096 bytes left out`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

MARK = "# headgate recording 1"

Kind: TypeAlias = Literal[">", "<", "="]

_HEAD = re.compile(r"# ([a-z_]+): (.*)")
_ENTRY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ([<>=]) (.*)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened `at` s after the start: bytes sent (>), bytes heard (<), or a text (=)."""

    at: float
    kind: Kind
    data: bytes = b""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.at:.6f} {self.kind} {self.text or self.data.hex(' ').upper()}"


@dataclass(frozen=True, slots=True)
class Recording:
    """What a recording holds: its head by key, and what happened, in order."""

    head: Mapping[str, str]
    entries: tuple[Entry, ...]


def head_lines(head: Mapping[str, str]) -> list[str]:
    """The lines a recording begins with."""
    return [MARK, *(f"# {key}: {value}" for key, value in head.items()), ""]


def parse(text: str) -> Recording:
    """Read a recording. Raises ValueError with the line's number and what is wrong with it."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != MARK:
        raise ValueError(f"this is no recording: its first line must be '{MARK}'")
    head: dict[str, str] = {}
    entries: list[Entry] = []
    for number, line in enumerate(lines[1:], 2):
        if line.startswith("#"):
            if (found := _HEAD.fullmatch(line.rstrip())) and not entries:
                head[found[1]] = found[2]
        elif line.strip():
            entry = _entry(number, line.rstrip())
            if entries and entry.at < entries[-1].at:
                raise ValueError(f"line {number}: {entry.at:g} s is before the line above it")
            entries.append(entry)
    return Recording(head, tuple(entries))


def _entry(number: int, line: str) -> Entry:
    found = _ENTRY.fullmatch(line)
    if found is None:
        raise ValueError(f"line {number}: expected seconds, then >, < or =, got '{line[:40]}'")
    at, kind, rest = float(found[1]), cast(Kind, found[2]), found[3]
    if kind == "=":
        return Entry(at, kind, text=rest)
    try:
        return Entry(at, kind, bytes.fromhex(rest))
    except ValueError:
        raise ValueError(f"line {number}: expected bytes in hexadecimal after {kind}, got '{rest[:40]}'") from None
