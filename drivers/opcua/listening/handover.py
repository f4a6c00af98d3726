"""Batches on their way to whoever listens. Bounded: while they are not taken, the server is not asked for more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gateway.model import Batch, Definition

MOST_VALUES = 50_000
MOST_BATCHES = 2_000


class Handover:
    """A queue between the tasks of a connection and the generator that is read. It outlives connections.

    What is put in is never refused, for it was received already; `room` is awaited before more is asked for.
    """

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._values = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def has_room(self) -> bool:
        """Whether who listens keeps up."""
        return self._room.is_set()

    def put(self, batches: Iterable[Batch]) -> None:
        """Hand over batches, in their order."""
        for batch in batches:
            self._batches.append(batch)
            self._values += len(batch.values)
        if self._batches:
            self._news.set()
        if self._values >= MOST_VALUES or len(self._batches) >= MOST_BATCHES:
            self._room.clear()

    def take(self) -> Batch | None:
        """The oldest batch, None where there is none."""
        if not self._batches:
            self._news.clear()
            return None
        batch = self._batches.popleft()
        self._values -= len(batch.values)
        if not self._room.is_set() and 2 * self._values < MOST_VALUES and 2 * len(self._batches) < MOST_BATCHES:
            self._room.set()
        return batch

    def keep(self, groups: Sequence[Definition]) -> int:
        """Only these groups are listened to from now on: what was for others goes to those that have their tags.

        Returns of how many batches something is thrown away, because no group has the tag, or as another type.
        """
        places = {_key(group, at): (group, at) for group in groups for at in range(len(group.names))}
        own, kept, gone = set(groups), list[Batch](), 0
        for batch in self._batches:
            if batch.group in own:
                kept.append(batch)
                continue
            found = _heirs(batch, places)
            kept += found
            gone += sum(len(one.values) for one in found) < len(batch.values)
        self._batches.clear()
        self._values = 0
        self._room.set()
        self.put(kept)
        return gone

    async def news(self) -> None:
        """Wait until there is something to take, or `stir`."""
        await self._news.wait()

    def stir(self) -> None:
        """Wake whoever waits for news."""
        self._news.set()

    async def room(self) -> None:
        """Wait until who listens keeps up."""
        await self._room.wait()


def _key(group: Definition, at: int) -> tuple[str, str, str]:
    """By what a tag is known again in another group; with another type its values are others too."""
    return group.device, group.names[at], group.types[at]


def _heirs(batch: Batch, places: Mapping[tuple[str, str, str], tuple[Definition, int]]) -> list[Batch]:
    """The same values as batches of the groups that have their tags now."""
    rows: dict[Definition, list[tuple[int, int]]] = {}
    for row, at in enumerate(range(len(batch.values)) if batch.index is None else batch.index):
        if (place := places.get(_key(batch.group, at))) is not None:
            rows.setdefault(place[0], []).append((place[1], row))
    return [_heir(batch, group, sorted(pairs)) for group, pairs in rows.items()]


def _heir(batch: Batch, group: Definition, pairs: Sequence[tuple[int, int]]) -> Batch:
    """A batch of these rows of another one; `pairs` are the position in the group and the row, ascending."""
    order = [row for _, row in pairs]
    times, server_times, quality = batch.times, batch.server_times, batch.quality
    return replace(
        batch,
        group=group,
        values=[batch.values[row] for row in order],
        quality=quality if isinstance(quality, str) else [quality[row] for row in order],
        index=None if len(pairs) == len(group.names) else [at for at, _ in pairs],
        times=None if times is None else [times[row] for row in order],
        server_times=None if server_times is None else [server_times[row] for row in order],
        raw=None,
    )
