"""Who waits until records are on the medium, or acknowledged by all who hold. Pure but for the futures."""

from __future__ import annotations

import asyncio


class Waiters:
    """Futures by number: True once all up to it is safe; False where one's own record gave way to a gap before."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, bool, asyncio.Future[bool]]] = []

    def __repr__(self) -> str:
        return f"<Waiters: {len(self.waiting)}>"

    def add(self, seq: int, *, is_own: bool) -> asyncio.Future[bool]:
        """Wait for all up to `seq`; `is_own`: for that very record."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append((seq, is_own, future))
        return future

    def lost(self, first: int, last: int) -> None:
        """A gap stands in the place of these."""
        for seq, is_own, future in self.waiting:
            if is_own and first <= seq <= last and not future.done():
                future.set_result(False)

    def settle(self, durable: int) -> None:
        """All up to `durable` is safe."""
        for seq, _, future in self.waiting:
            if seq <= durable and not future.done():
                future.set_result(True)
        self.waiting = [each for each in self.waiting if each[0] > durable and not each[2].done()]

    def cancel(self) -> None:
        """The end has come."""
        for *_, future in self.waiting:
            future.cancel()


def resolve(arrival: asyncio.Future[None]) -> None:
    """What was waited for has come."""
    if not arrival.done():
        arrival.set_result(None)
