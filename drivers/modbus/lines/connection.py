"""What a client and a bus have in common: who waits, and a connection that is opened, lost, given up, and dozes.

A connection that was idle when it ended, because the device closes such connections or because we do (`linger_s`), is
dozing: the next fetch opens it again, and nothing was missed.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable

from drivers.modbus.frames.pdu import Failure
from drivers.modbus.lines.exchange import Exchange
from drivers.stream import Endpoint, Stream
from gateway.clock import Clock
from gateway.errors import LineError

PATIENCE = 3
LAST_PATIENCE = 10
"""How often in a row nothing may come before the connection is given up: when each unit of the line has been silent, or
whoever was asked. Devices and serial device servers lose a session without telling, adapters hang, and only a new
connection brings them back."""


class Connection(ABC):
    """One way to `endpoint`, opened by `open` and ended by `close`, by the peer, or by whoever is derived from it.

    `linger_s` after the last answer it dozes; None: never. `clock` tells when a read was answered.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float,
        connect_delay_s: float = 0.0,
        linger_s: float | None = None,
        clock: Clock,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._waiting: list[Exchange] = []  # with requests that are not sent yet, the urgent ones first
        self._timeout_s = timeout_s
        self._connect_delay_s = connect_delay_s
        self._linger_s = linger_s
        self._stream: Stream | None = None
        self._lost: LineError | None = None
        self._wanted = False  # between `open` and `close`
        self._is_open = False  # and the device has had its time before the first request
        self._dozed = False  # whether it was closed while nobody asked for anything
        self._waking = asyncio.Lock()
        self._linger_timer: asyncio.TimerHandle | None = None

    # --- what the derived class knows ---

    @property
    @abstractmethod
    def _is_idle(self) -> bool:
        """Whether nothing is under way and nobody waits."""

    @property
    @abstractmethod
    def _is_proven(self) -> bool:
        """Whether this connection was ever of use."""

    @abstractmethod
    def _begin(self) -> None:
        """Forget what belonged to the connection before: a new one is about to be opened."""

    @abstractmethod
    def _abandon(self) -> Iterable[Exchange]:
        """The connection has ended: forget what is under way, stop all timers, and name everybody who waits."""

    @abstractmethod
    def on_data(self, data: bytes) -> None:
        """Bytes from the peer, cut anywhere."""

    # --- opened and closed ---

    async def open(self) -> None:
        """Connect and wait as long as the device needs before its first request. Raises LineError."""
        self._wanted = True
        await self._connect()

    async def _connect(self) -> None:
        self._begin()
        self._lost = None
        self._dozed = False
        self._loop = asyncio.get_running_loop()
        stream = await self._endpoint.open(self, timeout_s=self._timeout_s)
        self._stream = stream
        if self._connect_delay_s:
            try:
                await asyncio.sleep(self._connect_delay_s)
            except asyncio.CancelledError:
                self._end(self._closed())
                await stream.wait_closed()
                raise
        if not self._wanted:  # closed while it was opened for a fetch
            self._end(self._closed())
        if self._lost is not None:
            raise self._lost
        self._is_open = True

    async def _wake(self) -> None:
        """Open what dozes. Raises LineError, also where there is no connection for another reason."""
        async with self._waking:
            if self._dozed and self._wanted:
                try:
                    await self._connect()
                except asyncio.CancelledError:
                    self._dozed = True  # whoever asks next wants it as much
                    raise
                except LineError as error:
                    self._lost = error
        if not self._is_open:
            raise self._lost or LineError(f"{self._endpoint}: not connected", cause="offline")

    async def close(self) -> None:
        """End the connection; whoever waits for an answer gets a LineError."""
        stream = self._stream
        self._wanted = self._dozed = False
        self._end(self._closed())
        if stream is not None:
            await stream.wait_closed()

    def on_lost(self, error: LineError) -> None:
        """The stream ended: unplugged, or closed by the peer or the network."""
        self._dozed = self._is_idle and self._is_proven
        self._end(error)

    # --- who waits ---

    def _enqueue(self, exchange: Exchange) -> None:
        """Let it wait for its turn: an urgent one behind those that are urgent too, any other behind all."""
        place = sum(other.urgent for other in self._waiting) if exchange.urgent else len(self._waiting)
        self._waiting.insert(place, exchange)

    async def _wait(self, exchange: Exchange) -> None:
        """Return when it is done with."""
        try:
            await exchange.done
        except asyncio.CancelledError:
            # What is under way keeps its place until it is answered or late: the device is still busy with it.
            if exchange in self._waiting:
                self._waiting.remove(exchange)
                exchange.end_early()
                self._linger()
            raise

    def _settle(self, exchange: Exchange, index: int, answer: bytes | Failure) -> None:
        """Note what came of one of its requests; tell who waits when it was the last one."""
        exchange.answers[index] = answer
        if isinstance(answer, Failure):
            exchange.clean = False
            if answer.act == "unit" and exchange.next < len(exchange.requests):
                self._waiting.remove(exchange)
                exchange.end_early()
        exchange.left -= 1
        if not exchange.left:
            if not exchange.done.done():
                exchange.time = self._clock.wall_ms()
                exchange.done.set_result(None)
            self._linger()

    # --- kept open ---

    def _stay_awake(self) -> None:
        """Somebody asks for something."""
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def _linger(self) -> None:
        """Somebody is done with: where nobody else asks for anything, the connection dozes after a while."""
        if self._linger_s is not None and self._is_idle and self._stream is not None:
            self._stay_awake()  # several may be done with at the same moment
            self._linger_timer = self._loop.call_later(self._linger_s, self._doze)

    def _doze(self) -> None:
        """End the connection in such a way that the next fetch opens it again."""
        self._dozed = True
        self._end(self._closed())

    # --- ended ---

    def _is_forsaken(self, silences: int, *, everybody: bool) -> bool:
        """Whether so many silences in a row are the connection's fault; if so, it has been given up."""
        if silences < (PATIENCE if everybody else LAST_PATIENCE):
            return False
        text = f"{self._endpoint}: nothing was answered {silences} times in a row: the connection is given up"
        self._end(LineError(text, cause="timeout"))
        return True

    def _closed(self) -> LineError:
        return LineError(f"{self._endpoint}: closed by us", cause="offline")

    def _end(self, error: LineError) -> None:
        """Give the connection up and tell everybody who waits."""
        if self._stream is None:
            return
        self._is_open = False
        self._lost = error
        self._stream.close()
        self._stream = None
        self._stay_awake()
        for exchange in self._abandon():
            if not exchange.done.done():
                exchange.done.set_exception(LineError(str(error), cause=error.cause))
