"""One line on which one request is under way at a time: RTU or ASCII, over a serial port or a serial device server.

An answer is found wherever it lies in what is heard, among noise, our own echo and what others say. One that came
damaged is asked for again at once. After a silence the unit is left alone until its late answer has come or `max_late`
has passed since the request was sent; the other units are asked meanwhile. What is left over from before is thrown away
before a request is sent, which happens after a silence of 3.5 characters, at least 1.75 ms [V1.02 2.5.1.1].

What no master can tell apart: an answer carries no address. A frame with the right unit, function, byte count and
checksum that comes while a request is out is the answer to it, for all that can be seen, except in the cases that
doubt.py knows. A wrong value therefore needs one of these:

- The answer to an earlier request of the same function and byte count comes later than `max_late` after that request.
- The answer to such a request comes a second time, later than `max_late` after the first; or the first time it came
  damaged, so that nobody knows its bytes. Else it is known by its bytes.
- The answer comes a second time while the same is being asked again; then the value is right, but as old as the copy.
  The true answer, where the registers have changed and it comes later than a moment (four usual turnarounds of the
  unit, at least 50 ms) after its request, passes for that to the next request of the same function and byte count.
- Another master asks the same unit at the same time, and its request cannot be heard here.
- In ASCII, whose checksum has 8 bits: two or more characters of an answer are damaged, one time in 256.

On TCP (client.py) the transaction identifier tells all of these apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from drivers.modbus.frames.framer import Framer
from drivers.modbus.frames.pdu import Failure, Request
from drivers.modbus.lines.dialogue import Counters, Dialogue, Echo
from drivers.modbus.lines.exchange import MOST_AHEAD, Exchange, IsWanted
from drivers.modbus.lines.statistics import Statistics
from drivers.stream import Endpoint, Stream
from gateway.clock import Clock
from gateway.errors import LineError
from gateway.metrics import Metrics

_NEVER = float("inf")
_PATIENCE = 3
_LAST_PATIENCE = 10
"""How often in a row nothing may come before the connection is given up: when each unit of the line has been silent, or
whoever was asked. Serial device servers lose a connection without telling, and adapters hang."""


class Bus:
    """A line to `endpoint`, opened by `open` and ended by `close`, by the peer, or by everybody's silence.

    `units` are all that are asked on this line. `character_s` is how long a character takes, 0 where nobody counts.
    `max_late_s` and `retries` say for a unit how late an answer may come and how often a damaged one is asked for
    again. `linger_s` after the last answer the connection is closed until the next fetch; None: never.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        framer: Framer,
        *,
        units: frozenset[int],
        timeout_s: float,
        connect_delay_s: float = 0.0,
        linger_s: float | None = None,
        character_s: float = 0.0,
        max_late_s: Mapping[int, float] | None = None,
        retries: Mapping[int, int] | None = None,
        echo: Echo = "auto",
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._endpoint = endpoint
        self._units = units
        self._timeout_s = timeout_s
        self._connect_delay_s = connect_delay_s
        self._linger_s = linger_s
        self._clock = clock
        line = str(endpoint)
        self.statistics = Statistics(line, units, metrics)
        self._dialogue = Dialogue(
            framer,
            character_s=character_s,
            max_late_s=max_late_s or {},
            retries=retries or {},
            echo=echo,
            statistics=self.statistics,
            counters=Counters(
                foreign=metrics.counter("modbus_foreign_answers_total", line=line),
                noise=metrics.counter("modbus_noise_bytes_total", line=line),
                copies=metrics.counter("modbus_repeated_answers_total", line=line),
            ),
        )
        self._stream: Stream | None = None
        self._lost: LineError | None = None
        self._wanted = False  # between `open` and `close`
        self._is_open = False  # and the device has had its time before the first request
        self._dozed = False  # whether it was closed while nobody asked for anything
        self._waking = asyncio.Lock()
        self._reset()

    def _reset(self) -> None:
        self._waiting: list[Exchange] = []  # with requests that are not sent yet, the urgent ones first
        self._ahead = 0  # urgent requests in a row that went before one that waits
        self._asked: tuple[Exchange, int] | None = None  # whose request is under way
        self._since = -_NEVER  # since when somebody wants the line
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._linger_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<modbus bus {self._endpoint} {'closed' if self._stream is None else f'open, {self._dialogue!r}'}>"

    # --- opened and closed ---

    async def open(self) -> None:
        """Connect and wait as long as the device needs before its first request. Raises LineError."""
        self._wanted = True
        await self._connect()

    async def _connect(self) -> None:
        self._reset()
        self._lost = None
        self._dozed = False
        self._loop = asyncio.get_running_loop()
        self._dialogue.reset()
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

    def _closed(self) -> LineError:
        return LineError(f"{self._endpoint}: closed by us", cause="offline")

    def on_lost(self, error: LineError) -> None:
        """The stream ended: unplugged, or closed by the peer."""
        self._dozed = self._asked is None and not self._waiting and self._dialogue.has_answered
        self._end(error)

    def _doze(self) -> None:
        """End the connection in such a way that the next fetch opens it again."""
        self._dozed = True
        self._end(self._closed())

    def _end(self, error: LineError) -> None:
        """Give the connection up and tell everybody who waits."""
        if self._stream is None:
            return
        self._is_open = False
        self._lost = error
        self._stream.close()
        self._stream = None
        for timer in (self._timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        own = [] if self._asked is None else [self._asked[0]]
        waiting = {id(exchange): exchange for exchange in [*own, *self._waiting]}
        self._reset()
        for exchange in waiting.values():
            if not exchange.done.done():
                exchange.done.set_exception(LineError(str(error), cause=error.cause))

    # --- asked and answered ---

    async def fetch(
        self,
        requests: Sequence[Request],
        *,
        timeout_s: float,
        gap_s: float,
        urgent: bool = False,
        is_wanted: IsWanted | None = None,
    ) -> Exchange:
        """Ask all of it, one after the other, and return when there is an answer or a failure for each.

        `timeout_s` is the device's own time: what frames take on the line is not counted. `urgent` goes before what
        waits, and waits itself for a unit whose answer may still come; who is not urgent is told "timeout" then. A
        silence or another failure of the unit as a whole ends it early. Raises LineError.
        """
        if not self._is_open:
            await self._wake()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        exchange = Exchange(requests, timeout_s, gap_s, self._loop.create_future(), urgent, is_wanted)
        if self._asked is None and not self._waiting:
            self._since = self._loop.time()
        self._waiting.insert(sum(e.urgent for e in self._waiting) if urgent else len(self._waiting), exchange)
        self._turn()
        try:
            await exchange.done
        except asyncio.CancelledError:
            # What is under way keeps its place until it is answered or late: the unit is still busy with it.
            if exchange in self._waiting:
                self._waiting.remove(exchange)
                exchange.end_early()
            raise
        return exchange

    def on_data(self, data: bytes) -> None:
        """Bytes from the line, cut anywhere."""
        self._dialogue.receive(data, self._loop.time())
        if self._is_open:
            self._turn()

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, _NEVER
        self._turn()

    def _turn(self) -> None:
        """Do what is due now, and come back when the next thing is."""
        now, dialogue = self._loop.time(), self._dialogue
        wake_at = _NEVER
        while self._stream is not None:
            frame = dialogue.look(now)
            if frame is not None:
                self._stream.write(frame)
            outcome = dialogue.take()
            if outcome is not None:
                self._on_outcome(outcome, now)
            elif not dialogue.is_idle:
                wake_at = dialogue.wake_at()
                break
            elif (wake_at := self._choose(now)) > now:
                break
        if wake_at < self._timer_at and self._stream is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(wake_at, self._on_timer)
            self._timer_at = wake_at

    def _choose(self, now: float) -> float:
        """Ask the first request whose unit may be asked now; else say when to come back."""
        if not self._waiting:
            return _NEVER
        free_at = self._dialogue.free_at(self._since)
        if free_at > now:
            return free_at  # until then, somebody more urgent may come
        wake_at = _NEVER
        is_poll_due = self._ahead >= MOST_AHEAD
        for exchange in sorted(self._waiting, key=lambda e: e.urgent) if is_poll_due else tuple(self._waiting):
            request = exchange.requests[exchange.next]
            refusal = self._dialogue.refusal(request, now, patient=exchange.urgent)
            ready_at = self._dialogue.ready_at(request.unit, now)
            if refusal is None and ready_at > now:
                wake_at = min(wake_at, ready_at)
                continue
            if exchange.is_wanted is not None and not exchange.is_wanted():
                self._waiting.remove(exchange)
                exchange.expire()
                continue
            index = exchange.next
            exchange.next = index + 1
            if exchange.next == len(exchange.requests):
                self._waiting.remove(exchange)
            if refusal is not None:
                self._settle(exchange, index, refusal)
                continue
            is_ahead = exchange.urgent and bool(self._waiting) and not self._waiting[-1].urgent
            self._ahead = self._ahead + 1 if is_ahead else 0
            answered = any(isinstance(answer, bytes) for answer in exchange.answers)
            self._dialogue.ask(request, exchange.timeout_s, exchange.gap_s, since=self._since, others_answered=answered)
            self._asked = exchange, index
            return now
        return wake_at

    def _on_outcome(self, outcome: bytes | Failure, now: float) -> None:
        """The request under way is done with, one way or another."""
        silences, silent = self._dialogue.silences, self._dialogue.silent
        if silences >= (_PATIENCE if silent >= self._units else _LAST_PATIENCE):
            text = f"{self._endpoint}: nothing was answered {silences} times in a row: the connection is given up"
            self._end(LineError(text, cause="timeout"))
        elif self._asked is not None:
            exchange, index = self._asked
            self._asked = None
            self._since = now
            self._settle(exchange, index, outcome)

    def _settle(self, exchange: Exchange, index: int, answer: bytes | Failure) -> None:
        """Note what came of a request; tell who waits when it was the last one."""
        exchange.answers[index] = answer
        if isinstance(answer, Failure):
            exchange.clean = False
            if answer.act == "unit" and exchange.next < len(exchange.requests):
                self._waiting.remove(exchange)
                exchange.end_early()
        exchange.left -= 1
        if exchange.left:
            return
        if not exchange.done.done():
            exchange.time = self._clock.wall_ms()
            exchange.done.set_result(None)
        if self._linger_s is not None and self._asked is None and not self._waiting:
            self._linger_timer = self._loop.call_later(self._linger_s, self._doze)
