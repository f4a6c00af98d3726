"""Batches on their way to whoever listens. Bounded: while they are not taken, the server is not asked for more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable

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

    def keep(self, groups: Collection[Definition]) -> int:
        """Throw away what belongs to other groups than these, which nobody listens to any more; returns how many."""
        kept = [batch for batch in self._batches if batch.group in groups]
        gone = len(self._batches) - len(kept)
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
