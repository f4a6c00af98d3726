"""The members of a shared subscription, and whose turn it is (MQTT 5.0, 4.8.2)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from gateway.broker.topics import Filter

S = TypeVar("S", bound=Hashable)
E = TypeVar("E")
M = TypeVar("M")


class SharedGroup(Generic[S, E]):
    """The members of one shared subscription: each message goes to one of them (4.8.2).

    Members that are away (a session without a connection) are kept apart, so that they cost nothing while others are
    here. Who joins, is here.
    """

    __slots__ = ("_away", "_here", "filter")

    def __init__(self, filter_: Filter) -> None:
        self.filter = filter_
        self._here: _Ring[S, E] = _Ring()
        self._away: _Ring[S, E] = _Ring()

    def __len__(self) -> int:
        return len(self._here.items) + len(self._away.items)

    def __contains__(self, session: S) -> bool:
        return session in self._here.places or session in self._away.places

    def put(self, session: S, entry: E) -> bool:
        """Add a member, or give it another entry. Whether it was one already."""
        if session in self._away.places:
            return self._away.put(session, entry)
        return self._here.put(session, entry)

    def drop(self, session: S) -> bool:
        """Remove a member. Whether it was one."""
        return self._here.drop(session) is not None or self._away.drop(session) is not None

    def leave(self, session: S) -> None:
        """The member's connection is gone: it gets messages only while nobody is here."""
        if (item := self._here.drop(session)) is not None:
            self._away.put(*item)

    def come(self, session: S) -> None:
        """The member is connected again."""
        if (item := self._away.drop(session)) is not None:
            self._here.put(*item)

    def pick(self, rank: Callable[[S, E, M], int], message: M) -> tuple[S, E] | None:
        """The member whose turn it is among those that can take the message; None where nobody may have it.

        `rank` says of a member: 0 it takes the message now; above 0 it could, the lower the better; below 0 never.
        Members that are away are asked only where nobody who is here can have it.
        """
        return self._here.pick(rank, message) or self._away.pick(rank, message)


class _Ring(Generic[S, E]):
    """Members in a list that is walked round; each is added and removed at a constant cost."""

    __slots__ = ("_turn", "items", "places")

    def __init__(self) -> None:
        self.items: list[tuple[S, E]] = []
        self.places: dict[S, int] = {}
        self._turn = 0

    def put(self, session: S, entry: E) -> bool:
        place = self.places.get(session)
        if place is not None:
            self.items[place] = (session, entry)
            return True
        self.places[session] = len(self.items)
        self.items.append((session, entry))
        return False

    def drop(self, session: S) -> tuple[S, E] | None:
        """Remove a member; the last one takes its place."""
        place = self.places.pop(session, None)
        if place is None:
            return None
        item = self.items[place]
        last = self.items.pop()
        if place < len(self.items):
            self.items[place] = last
            self.places[last[0]] = place
        return item

    def pick(self, rank: Callable[[S, E, M], int], message: M) -> tuple[S, E] | None:
        items = self.items
        count = len(items)
        turn = self._turn
        best = best_at = -1
        for at in range(turn, turn + count):
            place = at % count
            value = rank(*items[place], message)
            if value == 0:
                best_at = place
                break
            if value > 0 and (best < 0 or value < best):
                best, best_at = value, place
        if best_at < 0:
            return None
        self._turn = best_at + 1
        return items[best_at]
