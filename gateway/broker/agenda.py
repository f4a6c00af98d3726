"""What is due when: one time for each key, looked at once a second. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Agenda(Generic[K]):
    """Keys with a time each. `len()` is how many. What was replaced or dropped takes no more room than what holds."""

    __slots__ = ("_heap", "_order", "_times")

    def __init__(self) -> None:
        self._times: dict[K, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._times)

    def put(self, key: K, due: float) -> None:
        """The key is due then, and not at another time. Keys of the same time come in the order of `put`."""
        self._order += 1
        self._times[key] = (due, self._order)
        if len(self._heap) > 2 * len(self._times) + 64:
            self._heap = [(at, order, each) for each, (at, order) in self._times.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (due, self._order, key))

    def drop(self, key: K) -> None:
        """The key is not due any more, if it was."""
        self._times.pop(key, None)

    def take(self, now: float) -> K | None:
        """The key that is due first, if its time has come; it is dropped."""
        heap, times = self._heap, self._times
        while heap and heap[0][0] <= now:
            at, order, key = heapq.heappop(heap)
            if times.get(key) == (at, order):
                del times[key]
                return key
        return None

    def is_due(self, now: float) -> bool:
        """Whether `take` has something to give, or only to clear away."""
        return bool(self._heap) and self._heap[0][0] <= now
