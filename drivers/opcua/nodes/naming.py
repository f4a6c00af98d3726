"""Names for tags out of names of nodes: legal, and each only once. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_STRANGE = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST = 64
RESERVED = frozenset({"status", "set", "reply"})
"""Levels that topics use for themselves."""


def level(name: str) -> str:
    """One level of a tag's name that is as near to a browse name as the alphabet of names allows."""
    cleaned = _STRANGE.sub("_", name).strip("_.-")[:_LONGEST].rstrip("_.-") or "x"
    return f"{cleaned}_" if cleaned in RESERVED else cleaned


def joined(levels: Iterable[str]) -> str:
    """A tag's name of these browse names."""
    return "/".join(map(level, levels))


class Names:
    """Names that are taken. Who comes later and has the same gets a number: `Level`, `Level_2`, `Level_3`."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """The name, or the next one that is free."""
        name = wanted
        while name in self._taken:
            number = self._next[wanted] = self._next.get(wanted, 1) + 1
            end = f"_{number}"
            above, slash, last = wanted.rpartition("/")
            name = f"{above}{slash}{last[: _LONGEST - len(end)]}{end}"
        self._taken.add(name)
        return name
