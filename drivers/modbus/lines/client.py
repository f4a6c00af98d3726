"""One Modbus TCP connection: requests under way, their deadlines, and which answer belongs to which.

The whole of a group's requests is handed over at once and one future answers for them all: the next request leaves from
within the call that brought the last answer, and no task is woken in between. One timer serves the connection.

What is not exactly an answer to a request under way never becomes a value: transaction, protocol, unit, function and
byte count must be ours. Answers that come too late, or that nobody asked for, are counted and dropped; a stream that
can no longer be cut into frames ends the connection.

Some gateways return wrong transaction identifiers. One that mixes them up while several requests are under way is asked
one at a time from then on. One that never returns ours needs `in_order`: then the answer is what comes next and fits,
one request is under way at a time, and a silence ends the connection, so that its late answer cannot come any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from drivers.modbus.frames.mbap import Framer
from drivers.modbus.frames.pdu import Failure, Request
from drivers.modbus.lines.connection import Connection
from drivers.modbus.lines.exchange import MOST_AHEAD, Exchange, IsWanted
from drivers.modbus.lines.statistics import Statistics, Tally
from drivers.stream import Endpoint
from gateway.clock import Clock
from gateway.errors import LineError
from gateway.metrics import Metrics

log = logging.getLogger("headgate.modbus")

_NEVER = float("inf")
_MEMORY = 256
"""How many requests without an answer are remembered, so that a late one is known as such."""
_MISNUMBERED = ", but an answer with another transaction id came: where that is always so, write match: order"


class _Flight:
    """A request under way."""

    __slots__ = ("deadline", "exchange", "hint", "index", "request", "tally")

    def __init__(self, exchange: Exchange, index: int, request: Request, deadline: float, tally: Tally) -> None:
        self.exchange = exchange
        self.index = index
        self.request = request
        self.deadline = deadline
        self.tally = tally
        self.hint = ""  # what came instead of its answer

    def fits(self, unit: int, pdu: bytes) -> bool:
        """Whether that could be its answer, if it were not for the transaction identifier."""
        if unit != self.request.unit:
            return False
        answer = self.request.values_of(pdu)
        return not isinstance(answer, Failure) or answer.cause != "decode"


class Client(Connection):
    """A connection to `endpoint`, opened by `open` and ended by `close`, by the peer, or by a stream gone wrong.

    `units` are all that are asked on this line: when each of them is silent, the connection itself is suspected.
    `linger_s` after the last answer it dozes; None: never. `in_order`: see above.
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
        linger_s: float | None = None,
        in_order: bool = False,
    ) -> None:
        super().__init__(endpoint, timeout_s=timeout_s, connect_delay_s=connect_delay_s, linger_s=linger_s, clock=clock)
        self._units = units
        self._max_in_flight = 1 if in_order else max_in_flight
        self._in_order = in_order
        self.statistics = Statistics(str(endpoint), units, metrics)
        self._foreign = metrics.counter("modbus_foreign_answers_total", line=str(endpoint))
        self._transaction = 0  # goes on: what belonged to an earlier connection may still come over this one
        self._quiet_until: dict[int, float] = {}  # per unit, only where a gap is asked for
        self._reset()

    def _reset(self) -> None:
        self._framer = Framer()
        self._waiting = []
        self._ahead = 0  # urgent requests in a row that went before one that waits
        self._flights: dict[int, _Flight] = {}
        self._missed: dict[int, None] = {}  # transactions without an answer, oldest first
        self._quiet_until = {unit: at for unit, at in self._quiet_until.items() if at != _NEVER}
        self._has_answered = False
        self._silences = 0
        self._silent: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._gap_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "closed" if self._stream is None else f"open, {len(self._flights)} in flight"
        return f"<modbus client {self._endpoint} {state}>"

    @property
    def _is_idle(self) -> bool:
        return not self._flights and not self._waiting

    @property
    def _is_proven(self) -> bool:
        return self._has_answered

    def _begin(self) -> None:
        self._reset()

    def _abandon(self) -> Iterable[Exchange]:
        for timer in (self._timer, self._gap_timer):
            if timer is not None:
                timer.cancel()
        waiting = {id(e): e for e in [*self._waiting, *(f.exchange for f in self._flights.values())]}
        self._waiting.clear()
        self._flights.clear()
        return waiting.values()

    async def fetch(
        self,
        requests: Sequence[Request],
        *,
        timeout_s: float,
        gap_s: float,
        urgent: bool = False,
        is_wanted: IsWanted | None = None,
    ) -> Exchange:
        """Send all of it, at most `max_in_flight` at once, and return when there is an answer or a failure for each.

        `urgent` goes before what waits. A silence or another failure of the unit as a whole ends it early.
        Raises LineError.
        """
        exchange = Exchange(requests, timeout_s, gap_s, asyncio.get_running_loop().create_future(), urgent, is_wanted)
        await self._finish(exchange)
        while exchange.left:  # the connection was given up for another's sake before all of it was sent
            exchange.done = self._loop.create_future()
            await self._finish(exchange)
        return exchange

    async def _finish(self, exchange: Exchange) -> None:
        """Put it where its turn is and wait until it is done with."""
        if not self._is_open:
            await self._wake()
        self._stay_awake()
        self._enqueue(exchange)
        self._pump()
        await self._wait(exchange)

    # --- heard ---

    def on_data(self, data: bytes) -> None:
        """Bytes from the peer."""
        answered: _Flight | None = None
        for number, unit, pdu in self._framer.receive(data):
            flight = self._flights.pop(number, None)
            if flight is None or flight.request.unit != unit:
                flight = self._on_stranger(number, unit, pdu, flight)
                if flight is None:
                    continue
            self._has_answered = True
            if self._silences:
                self._note_life()
            answered = flight
            answer = flight.request.values_of(pdu)
            if isinstance(answer, Failure):
                self._on_failure(flight, answer, pdu)
            self._land(flight, answer)
        if answered is not None:  # of answers that come in one piece the last is timed, which is enough and cheap
            answered.tally.note(self._loop.time() - answered.deadline + answered.exchange.timeout_s)
        if self._framer.broken:
            self._end(LineError(f"{self._endpoint}: {self._framer.broken}: is this a Modbus TCP port?", cause="decode"))
        elif self._waiting:
            self._pump()

    def _on_failure(self, flight: _Flight, answer: Failure, pdu: bytes) -> None:
        """An answer without values: an exception, or what belongs to another request."""
        if answer.cause != "decode":
            flight.tally.exceptions.value += 1
        elif any(other.fits(flight.request.unit, pdu) for other in self._flights.values()):
            self._narrow()

    def _on_stranger(self, number: int, unit: int, pdu: bytes, flight: _Flight | None) -> _Flight | None:
        """An answer that is not as it must be: too late, never asked for, or from another unit than `flight` asked.

        Where answers are known by their order, it may be that of the one request under way, which is given then.
        """
        if flight is None and number in self._missed:
            del self._missed[number]
            self.statistics.tallies[unit].late.value += 1
            self._note_life()
            return None
        if flight is not None:
            self._flights[number] = flight  # its own answer may still come
            flight.hint = f", but unit {unit} answered: is it unit: {unit}?"
        else:
            meant = next((n for n, other in self._flights.items() if other.fits(unit, pdu)), None)
            if meant is not None and self._in_order:
                return self._flights.pop(meant)
            if meant is not None:
                self._flights[meant].hint = _MISNUMBERED
        self._foreign.value += 1
        return None

    def _narrow(self) -> None:
        """Transaction identifiers are mixed up where several requests are under way: no more than one from now on."""
        if self._max_in_flight > 1:
            self._max_in_flight = 1
            text = "%s mixes up the transaction ids of requests under way: asked one by one from now on, as %s says"
            log.warning(text, self._endpoint, "max_in_flight: 1")

    def _note_life(self) -> None:
        """Somebody answered: the connection is alive."""
        self._silences = 0
        self._silent.clear()

    def _land(self, flight: _Flight, answer: bytes | Failure) -> None:
        """A request under way is done with: its unit is left in peace as long as it wants."""
        exchange = flight.exchange
        if exchange.gap_s:
            self._quiet_until[flight.request.unit] = self._loop.time() + exchange.gap_s
        self._settle(exchange, flight.index, answer)

    # --- sent ---

    def _pump(self) -> None:
        """Send what may be sent now."""
        tallies, flights, now = self.statistics.tallies, self._flights, self._loop.time()
        while self._waiting and len(flights) < self._max_in_flight:
            first = self._waiting[0]
            exchange = self._sendable(now) if first.gap_s else first
            if exchange is None or self._stream is None:
                return
            if exchange.urgent:
                exchange = self._in_turn(exchange, now)
            if exchange.is_wanted is not None and not exchange.is_wanted():
                self._waiting.remove(exchange)
                exchange.expire()
                continue
            index = exchange.next
            exchange.next = index + 1
            if exchange.next == len(exchange.requests):
                self._waiting.remove(exchange)
            transaction = self._next_transaction()
            deadline = now + exchange.timeout_s
            request = exchange.requests[index]
            tally = tallies[request.unit]
            flights[transaction] = _Flight(exchange, index, request, deadline, tally)
            if exchange.gap_s:
                self._quiet_until[request.unit] = _NEVER  # until it is answered
            if deadline < self._timer_at:
                self._set_timer(deadline)
            tally.requests.value += 1
            # One frame a segment, as far as it is ours to say: small devices read no further than the first.
            self._stream.write(transaction.to_bytes(2) + request.tail)

    def _in_turn(self, urgent: Exchange, now: float) -> Exchange:
        """What goes next: the urgent one, or a poll before which enough of them went."""
        if self._waiting[-1].urgent:
            self._ahead = 0
            return urgent
        self._ahead += 1
        if self._ahead <= MOST_AHEAD:
            return urgent
        for poll in self._waiting:
            if not poll.urgent and (not poll.gap_s or self._quiet_until.get(poll.requests[0].unit, 0.0) <= now):
                self._ahead = 0
                return poll
        return urgent

    def _sendable(self, now: float) -> Exchange | None:
        """The first exchange whose unit may be asked now. Where only a gap is in the way, come back after it."""
        wake_at = _NEVER
        for exchange in self._waiting:
            if not exchange.gap_s:
                return exchange
            quiet_until = self._quiet_until.get(exchange.requests[0].unit, 0.0)
            if quiet_until <= now:
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
        silent = {flight.request.unit for _, flight in overdue} & self._units  # a tool may ask whoever is not there
        self._silences += bool(silent)
        self._silent |= silent
        if silent and self._is_forsaken(self._silences, everybody=self._silent >= self._units):
            return
        for transaction, flight in overdue:
            del self._flights[transaction]
            self._missed[transaction] = None
            flight.tally.timeouts.value += 1
            if flight.hint is _MISNUMBERED:
                self._narrow()
        while len(self._missed) > _MEMORY:
            del self._missed[next(iter(self._missed))]
        for _, flight in overdue:
            self._land(flight, _silence(flight))
        if overdue and self._in_order:
            self._renew()
            return
        if self._flights and self._timer is None:
            self._set_timer(min(flight.deadline for flight in self._flights.values()))
        self._pump()

    def _renew(self) -> None:
        """End the connection, whose next answer could be a late one; who waits goes on with a new one."""
        waiting, self._waiting = self._waiting, []
        self._doze()
        for exchange in waiting:
            if not exchange.done.done():
                exchange.done.set_result(None)


def _silence(flight: _Flight) -> Failure:
    return Failure("timeout", f"no answer within {flight.exchange.timeout_s:g} s{flight.hint}", "unit")
