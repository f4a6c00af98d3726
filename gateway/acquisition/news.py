"""What a driver is told by itself: listened to for as long as the connection lasts, at no faster a pace than is good.

Much of it comes at once: what a server remembers of an hour stands in a few answers. The others on the loop have their
turn between its batches, and history waits for the store, which takes less in a second than one answer may hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import NoReturn, TypeAlias

from gateway.acquisition.roster import Station
from gateway.clock import Clock
from gateway.driver import Driver, Subscribes
from gateway.errors import LineError
from gateway.model import Batch, Definition

Take: TypeAlias = Callable[[Station, Batch, float], None]
"""Told each batch, of which group it is, and monotonic time."""

_BREATH_S = 0.01
"""After so long of batches that came all at once the others have their turn."""

_PORTION = 5000
"""After so many values of history it is time to ask for room."""

_LONGEST_PAUSE_S = 10.0
"""So long history waits for room, before it is sent into what room there is: what is true now comes behind it."""

_SHORTEST_PAUSE_S = 0.1
_HASTE_S = 60.0
"""Behind a wait in vain it waits only so short for so long: an outage of the disk must not cost what is true now a long
pause for each portion of a history of millions."""


class News:
    """Listens for one line. `room` returns when there is room for more history, None where there always is."""

    def __init__(self, clock: Clock, room: Callable[[], Awaitable[None]] | None) -> None:
        self._clock = clock
        self._room = room
        self._portion = 0
        self._hasty_until = 0.0

    async def listen(self, driver: Driver, stations: Sequence[Station], take: Take) -> NoReturn:
        """Hand on what comes of these groups, until the line fails. Raises LineError."""
        assert isinstance(driver, Subscribes)  # noqa: S101 - its groups say that they are pushed
        places: dict[Definition, Station] = {station.group: station for station in stations}
        news = driver.subscribe([station.group for station in stations])
        rested = self._clock.monotonic()
        try:
            async for batch in news:
                now = self._clock.monotonic()
                station = places.get(batch.group)
                if station is None:
                    raise _foreign(batch.group)
                take(station, batch, now)
                if batch.is_history:
                    await self._pace(batch)
                if now - rested > _BREATH_S:
                    await asyncio.sleep(0)
                    rested = now
        finally:
            if isinstance(news, AsyncGenerator):
                await news.aclose()
        raise LineError("what is told by itself came to an end", cause="offline")

    async def _pace(self, batch: Batch) -> None:
        self._portion += len(batch.values)
        if self._room is None or self._portion < _PORTION:
            return
        self._portion = 0
        is_hasty = self._clock.monotonic() < self._hasty_until
        try:
            async with asyncio.timeout(_SHORTEST_PAUSE_S if is_hasty else _LONGEST_PAUSE_S):
                await self._room()
        except TimeoutError:
            if not is_hasty:
                self._hasty_until = self._clock.monotonic() + _HASTE_S


def _foreign(group: Definition) -> LookupError:
    """What to say of a driver that mixes up its groups; they may have thousands of tags."""
    names = ", ".join(group.names[:5]) + (f" and {len(group.names) - 5} more" if len(group.names) > 5 else "")
    return LookupError(f"the driver told of a group of device '{group.device}' that it was not asked for: {names}")
