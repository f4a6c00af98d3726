"""Two ways to the same devices: the second is used while the first cannot be opened, and the first as soon as it can.

While a connection over the second way is open, the first is tried every few minutes, at a moment when nobody waits for
an answer. When it can be opened again, the connection is ended: whoever uses it opens a new one, which takes the first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from drivers.stream import Endpoint, Receiver, Stream
from gateway.errors import LineError

log = logging.getLogger("headgate.modbus")

RETRY_S = 180.0
"""How often the first way is tried while the second is in use."""
_GRACE_S = 60.0
"""How long a way that failed is not tried first: who closes after each poll must not wait for it each time."""
_QUIET_S = 0.005
"""A line that heard an answer so long ago, and has asked nothing since, is idle."""


class Backup:
    """An endpoint that leads to `first`, or else to `second`. `str()` of it is the first's."""

    def __init__(self, first: Endpoint, second: Endpoint) -> None:
        self.first, self.second = first, second
        self._used: Endpoint | None = None
        self._first_failed_at = float("-inf")

    def __str__(self) -> str:
        return str(self.first)

    def __repr__(self) -> str:
        return f"<{self.first}, backup {self.second}, in use: {self._used}>"

    async def open(self, receiver: Receiver, *, timeout_s: float) -> Stream:
        """Open one of the two, each within `timeout_s`. Raises LineError that names both when neither can be."""
        loop = asyncio.get_running_loop()
        ways = [self.first, self.second]
        if self._used is self.second and loop.time() - self._first_failed_at < _GRACE_S:
            ways.reverse()
        failures: list[LineError] = []
        for way in ways:
            try:
                stream = await self._open(way, receiver, timeout_s)
            except LineError as error:
                failures.append(error)
                if way is self.first:
                    self._first_failed_at = loop.time()
                continue
            self._note(way, failures)
            return stream
        both = "; and ".join(map(str, failures))
        raise LineError(both, cause=failures[0].cause)

    async def _open(self, way: Endpoint, receiver: Receiver, timeout_s: float) -> Stream:
        if way is self.first:
            return await way.open(receiver, timeout_s=timeout_s)
        spare = _Spare(receiver, self.first, timeout_s, self._forgive)
        spare.begin(await way.open(spare, timeout_s=timeout_s))
        return spare

    def _forgive(self) -> None:
        """The first way can be opened again."""
        self._first_failed_at = float("-inf")

    def _note(self, way: Endpoint, failures: list[LineError]) -> None:
        """Say which way is used when that has changed."""
        if way is self._used:
            return
        if way is self.second:
            why = f" ({failures[0]})" if failures else ""
            log.warning("%s is out of reach%s: its backup %s is used", self.first, why, self.second)
        elif self._used is not None:
            log.info("%s can be reached again: its backup %s is left", self.first, self.second)
        self._used = way


class _Spare:
    """A connection over the second way, which ends when the first can be had again. Hears, and is heard."""

    _stream: Stream
    _task: asyncio.Task[None]

    def __init__(self, receiver: Receiver, first: Endpoint, timeout_s: float, on_found: Callable[[], None]) -> None:
        self._receiver = receiver
        self._first = first
        self._on_found = on_found
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waits = False  # whether something was asked since the last answer
        self._heard_at = self._loop.time()

    def __repr__(self) -> str:
        return f"<spare {self._stream!r}>"

    def begin(self, stream: Stream) -> None:
        """Use this stream, and look after the first way from now on."""
        self._stream = stream
        self._task = asyncio.create_task(self._watch(), name=f"modbus backup of {self._first}")

    def on_data(self, data: bytes) -> None:
        """Bytes from the peer."""
        self._waits = False
        self._heard_at = self._loop.time()
        self._receiver.on_data(data)

    def on_lost(self, error: LineError) -> None:
        """The second way is gone too; the next connection is tried over the first."""
        self._task.cancel()
        self._receiver.on_lost(error)

    def write(self, data: bytes) -> None:
        """Send, never blocks."""
        self._waits = True
        self._stream.write(data)

    def close(self) -> None:
        """End it now."""
        self._task.cancel()
        self._stream.close()

    async def wait_closed(self) -> None:
        """Return when nothing of it is left."""
        await asyncio.wait([self._task])
        await self._stream.wait_closed()

    async def _watch(self) -> None:
        """Try the first way now and then; when it can be opened, end this connection at an idle moment."""
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                trial = await self._first.open(_Nobody(), timeout_s=self._timeout_s)
            except LineError:
                continue
            trial.close()
            await trial.wait_closed()
            self._on_found()
            await self._become_idle()
            self._stream.close()
            self._receiver.on_lost(LineError(f"{self._first} can be reached again", cause="offline"))
            return

    async def _become_idle(self) -> None:
        """Wait until nobody waits for an answer, but not for ever: a line may be busy all the time."""
        deadline = self._loop.time() + RETRY_S
        while (now := self._loop.time()) < deadline:
            if not self._waits and now - self._heard_at >= _QUIET_S:
                return
            await asyncio.sleep(_QUIET_S)


class _Nobody:
    """Hears a connection that is only tried."""

    def on_data(self, data: bytes) -> None:
        """Nothing was asked."""

    def on_lost(self, error: LineError) -> None:
        """It is closed anyway."""
