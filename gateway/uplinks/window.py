"""The publishes of one connection that are under way: how many more may be sent. Pure.

All lanes share one window. A lane that yields (backlog, while new records go beside it) gets half of it at most, so
that what is new always finds room.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Traveller(Protocol):
    """What a publish belongs to. `unacked`: its publishes under way; `size`: bytes of the last one.

    `yields`: it may take no more than half of the window.
    """

    unacked: int
    size: int
    yields: bool


T = TypeVar("T", bound=Traveller)


class Window(Generic[T]):
    """At most `limit` publishes and about `limit_bytes` in flight (a single larger one goes alone)."""

    def __init__(self, limit: int, limit_bytes: int) -> None:
        self.limit = limit
        self._limit_bytes = limit_bytes
        self._flying: dict[int, tuple[T | None, str, int]] = {}
        self._bytes = 0
        self._yielding = 0
        self._yielding_bytes = 0

    def __repr__(self) -> str:
        return f"<Window {len(self._flying)}/{self.limit} in flight>"

    @property
    def has_room(self) -> bool:
        """Whether one more publish may be sent."""
        return len(self._flying) < self.limit and self._bytes < self._limit_bytes

    @property
    def has_room_to_yield(self) -> bool:
        """Whether one more may be sent of what yields."""
        return self._yielding < max(1, self.limit // 2) and self._yielding_bytes < self._limit_bytes // 2

    @property
    def in_flight(self) -> int:
        """Publishes that are not acknowledged."""
        return len(self._flying)

    @property
    def oldest(self) -> object:
        """What has waited longest for its acknowledgement, to be compared by identity; None: nothing is in flight."""
        return next(iter(self._flying.values()), None)

    def travellers(self) -> Iterator[T]:
        """To what the publishes under way belong, the oldest first; more than once where it has several."""
        return (traveller for traveller, _, _ in self._flying.values() if traveller is not None)

    def sent(self, token: int, traveller: T | None, topic: str, size: int) -> None:
        """Note a publish under way, of `traveller` or (None) of something that is not spooled."""
        self._flying[token] = (traveller, topic, size)
        self._bytes += size
        if traveller is not None:
            traveller.unacked += 1
            traveller.size = size
            if traveller.yields:
                self._yielding += 1
                self._yielding_bytes += size

    def acknowledged(self, token: int) -> tuple[T | None, str] | None:
        """Whose publish that was, and its topic; None for a token we do not know."""
        found = self._flying.pop(token, None)
        if found is None:
            return None
        traveller, topic, size = found
        self._bytes -= size
        if traveller is not None:
            traveller.unacked -= 1
            if traveller.yields:
                self._yielding -= 1
                self._yielding_bytes -= size
        return traveller, topic
