"""One Modbus TCP connection: requests under way, their deadlines, and which answer belongs to which.

The whole of a group's requests is handed over at once and one future answers for them all: the next request leaves from
within the call that brought the last answer, and no task is woken in between. One timer serves the connection.

What is not exactly an answer to a request under way never becomes a value: transaction, protocol, unit, function and
byte count must be ours. Answers that come too late, or that nobody asked for, are counted and dropped; a stream that
can no longer be cut into frames ends the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TypeAlias

from drivers.modbus.framing import Framer
from drivers.modbus.pdu import Failure, Request
from drivers.stream import Endpoint, Stream
from gateway.clock import Clock
from gateway.errors import LineError
from gateway.metrics import Metrics

log = logging.getLogger("headgate.modbus")

Answer: TypeAlias = bytes | Failure | None
"""The bytes of the values, or why there are none; None: not asked, because the read ended before."""

_NEVER = float("inf")
_MEMORY = 256
"""How many requests without an answer are remembered, so that a late one is known as such."""
_PATIENCE = 3
_LAST_PATIENCE = 10
"""How often in a row nothing may come before the connection is given up: when each unit of the line has been silent, or
whoever was asked. Devices lose a session without telling, and only a new connection brings them back."""


class Exchange:
    """The requests of one read and what came of them. `clean`: all were answered well; `time`: when the last was."""

    __slots__ = ("answers", "clean", "done", "gap_s", "left", "next", "requests", "time", "timeout_s")

    def __init__(self, requests: Sequence[Request], timeout_s: float, gap_s: float, done: asyncio.Future[None]) -> None:
        self.requests = requests
        self.timeout_s = timeout_s
        self.gap_s = gap_s
        self.done = done
        self.answers: list[Answer] = [None] * len(requests)
        self.left = len(requests)  # not answered yet, sent or not
        self.next = 0
        self.clean = True
        self.time = 0

    def end_early(self) -> None:
        """Send no more of it; what is under way is still waited for."""
        self.left -= len(self.requests) - self.next
        self.next = len(self.requests)


class _Flight:
    """A request under way."""

    __slots__ = ("deadline", "exchange", "index", "request", "stranger")

    def __init__(self, exchange: Exchange, index: int, deadline: float) -> None:
        self.exchange = exchange
        self.index = index
        self.request = exchange.requests[index]
        self.deadline = deadline
        self.stranger: int | None = None  # another unit that answered with our transaction


class Client:
    """A connection to `endpoint`, opened by `open` and ended by `close`, by the peer, or by a stream gone wrong.

    `units` are all that are asked on this line: when each of them is silent, the connection itself is suspected.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        units: frozenset[int],
        timeout_s: float,
        connect_delay_s: float,
        max_in_flight: int,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._endpoint = endpoint
        self._units = units
        self._timeout_s = timeout_s
        self._connect_delay_s = connect_delay_s
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._sent = metrics.counter("modbus_requests_total", line=str(endpoint))
        self._late = metrics.counter("modbus_late_answers_total", line=str(endpoint))
        self._foreign = metrics.counter("modbus_foreign_answers_total", line=str(endpoint))
        self._stream: Stream | None = None
        self._lost: LineError | None = None
        self._has_answered = False  # whether this connection was ever of use
        self._dozed = False  # whether it was closed while nobody asked for anything
        self._reset()

    def _reset(self) -> None:
        self._framer = Framer()
        self._transaction = 0
        self._waiting: list[Exchange] = []  # with requests that are not sent yet
        self._flights: dict[int, _Flight] = {}
        self._missed: dict[int, None] = {}  # transactions without an answer, oldest first
        self._quiet_until: dict[int, float] = {}  # per unit, only where a gap is asked for
        self._silences = 0
        self._silent: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._gap_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "closed" if self._stream is None else f"open, {len(self._flights)} in flight"
        return f"<modbus client {self._endpoint} {state}>"

    async def open(self) -> None:
        """Connect and wait as long as the device needs before its first request. Raises LineError."""
        self._reset()
        self._lost = None
        self._dozed = self._has_answered = False
        self._loop = asyncio.get_running_loop()
        self._stream = await self._endpoint.open(self, timeout_s=self._timeout_s)
        if self._connect_delay_s:
            try:
                await asyncio.sleep(self._connect_delay_s)
            except asyncio.CancelledError:
                await self.close()
                raise
            if self._lost is not None:
                raise self._lost

    async def close(self) -> None:
        """End the connection; whoever waits for an answer gets a LineError."""
        stream = self._stream
        self._end(LineError(f"{self._endpoint}: closed by us", cause="offline"))
        if stream is not None:
            await stream.wait_closed()

    async def fetch(self, requests: Sequence[Request], *, timeout_s: float, gap_s: float) -> Exchange:
        """Send all of it, at most `max_in_flight` at once, and return when there is an answer or a failure for each.

        A silence or another failure of the unit as a whole ends it early. Raises LineError.
        """
        if self._stream is None and self._dozed:
            await self.open()  # devices close connections that are idle: nothing was missed
        if self._stream is None:
            raise self._lost or LineError(f"{self._endpoint}: not connected", cause="offline")
        exchange = Exchange(requests, timeout_s, gap_s, self._loop.create_future())
        self._waiting.append(exchange)
        self._pump()
        try:
            await exchange.done
        except asyncio.CancelledError:
            # What is under way keeps its place until it is answered or late: the device is still busy with it.
            if exchange in self._waiting:
                self._waiting.remove(exchange)
                exchange.end_early()
            raise
        return exchange

    # --- heard ---

    def on_data(self, data: bytes) -> None:
        """Bytes from the peer."""
        for transaction, unit, pdu in self._framer.receive(data):
            flight = self._flights.get(transaction)
            if flight is None or flight.request.unit != unit:
                self._on_stranger(transaction, unit, flight)
                continue
            del self._flights[transaction]
            self._has_answered = True
            if self._silences:
                self._note_life()
            self._settle(flight, flight.request.values_of(pdu))
        if self._framer.broken:
            self._end(LineError(f"{self._endpoint}: {self._framer.broken}: is this a Modbus TCP port?", cause="decode"))
        elif self._waiting:
            self._pump()

    def on_lost(self, error: LineError) -> None:
        """The peer ended the connection, or the network did."""
        self._dozed = not self._flights and not self._waiting and self._has_answered
        self._end(error)

    def _on_stranger(self, transaction: int, unit: int, flight: _Flight | None) -> None:
        """An answer to nothing that is under way: too late, or never asked for."""
        if flight is None and transaction in self._missed:
            del self._missed[transaction]
            self._late.value += 1
            self._note_life()
            return
        self._foreign.value += 1
        if flight is not None:
            flight.stranger = unit

    def _note_life(self) -> None:
        """Somebody answered: the connection is alive."""
        self._silences = 0
        self._silent.clear()

    def _settle(self, flight: _Flight, answer: bytes | Failure) -> None:
        """Note what came of a request; tell who waits when it was the last one."""
        exchange = flight.exchange
        exchange.answers[flight.index] = answer
        if exchange.gap_s:
            self._quiet_until[flight.request.unit] = self._loop.time() + exchange.gap_s
        if isinstance(answer, Failure):
            exchange.clean = False
            if answer.act == "unit" and exchange.next < len(exchange.requests):
                self._waiting.remove(exchange)
                exchange.end_early()
        exchange.left -= 1
        if not exchange.left and not exchange.done.done():
            exchange.time = self._clock.wall_ms()
            exchange.done.set_result(None)

    # --- sent ---

    def _pump(self) -> None:
        """Send what may be sent now."""
        while self._waiting and len(self._flights) < self._max_in_flight:
            exchange = self._sendable()
            if exchange is None or self._stream is None:
                return
            index = exchange.next
            exchange.next = index + 1
            if exchange.next == len(exchange.requests):
                self._waiting.remove(exchange)
            transaction = self._next_transaction()
            deadline = self._loop.time() + exchange.timeout_s
            self._flights[transaction] = flight = _Flight(exchange, index, deadline)
            if exchange.gap_s:
                self._quiet_until[flight.request.unit] = _NEVER  # until it is answered
            if deadline < self._timer_at:
                self._set_timer(deadline)
            self._sent.value += 1
            # One frame a segment, as far as it is ours to say: small devices read no further than the first.
            self._stream.write(transaction.to_bytes(2) + flight.request.tail)

    def _sendable(self) -> Exchange | None:
        """The first exchange whose unit may be asked now. Where only a gap is in the way, come back after it."""
        wake_at = _NEVER
        for exchange in self._waiting:
            if not exchange.gap_s:
                return exchange
            quiet_until = self._quiet_until.get(exchange.requests[0].unit, 0.0)
            if quiet_until <= self._loop.time():
                return exchange
            wake_at = min(wake_at, quiet_until)
        if wake_at != _NEVER:
            if self._gap_timer is not None:
                self._gap_timer.cancel()
            self._gap_timer = self._loop.call_at(wake_at, self._pump)
        return None

    def _next_transaction(self) -> int:
        """A transaction identifier that no request under way has, and none whose answer may still come."""
        transaction = (self._transaction + 1) & 0xFFFF
        while transaction in self._missed or transaction in self._flights:
            transaction = (transaction + 1) & 0xFFFF
        self._transaction = transaction
        return transaction

    # --- ended ---

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._on_timer)
        self._timer_at = deadline

    def _on_timer(self) -> None:
        """The earliest deadline there was when the timer was set. Most often that request is long answered."""
        self._timer, self._timer_at = None, _NEVER
        now = self._loop.time()
        overdue = [(t, flight) for t, flight in self._flights.items() if flight.deadline <= now]
        self._silences += bool(overdue)
        self._silent.update(flight.request.unit for _, flight in overdue)
        if self._silences >= (_PATIENCE if self._silent >= self._units else _LAST_PATIENCE):
            text = f"{self._endpoint}: nothing was answered {self._silences} times in a row: the connection is given up"
            self._end(LineError(text, cause="timeout"))
            return
        for transaction, _ in overdue:
            del self._flights[transaction]
            self._missed[transaction] = None
        while len(self._missed) > _MEMORY:
            del self._missed[next(iter(self._missed))]
        for _, flight in overdue:
            self._settle(flight, _silence(flight))
        if self._flights and self._timer is None:
            self._set_timer(min(flight.deadline for flight in self._flights.values()))
        self._pump()

    def _end(self, error: LineError) -> None:
        """Give the connection up and tell everybody who waits."""
        if self._stream is None:
            return
        self._lost = error
        self._stream.close()
        self._stream = None
        for timer in (self._timer, self._gap_timer):
            if timer is not None:
                timer.cancel()
        waiting = {id(e): e for e in [*self._waiting, *(f.exchange for f in self._flights.values())]}
        self._waiting.clear()
        self._flights.clear()
        for exchange in waiting.values():
            if not exchange.done.done():
                exchange.done.set_exception(LineError(str(error), cause=error.cause))


def _silence(flight: _Flight) -> Failure:
    hint = ""
    if flight.stranger is not None:
        hint = f", but unit {flight.stranger} answered: is it unit: {flight.stranger}?"
    return Failure("timeout", f"no answer within {flight.exchange.timeout_s:g} s{hint}", "unit")
