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
- Noise looks like the beginning of an answer (unit, function, byte count), so that the request is sent again, and the
  second of its two true answers comes later than such a moment after the first, while a request of that function and
  byte count is out.
- Another master asks the same unit at the same time, and its request cannot be heard here.
- In ASCII, whose checksum has 8 bits: two or more characters of an answer are damaged, one time in 256.

On TCP (client.py) the transaction identifier tells all of these apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from drivers.modbus.frames.framer import Framer
from drivers.modbus.frames.pdu import Failure, Request
from drivers.modbus.lines.connection import Connection
from drivers.modbus.lines.dialogue import Counters, Dialogue
from drivers.modbus.lines.exchange import MOST_AHEAD, Exchange, IsWanted
from drivers.modbus.lines.statistics import Statistics
from drivers.modbus.lines.url import Echo
from drivers.stream import Endpoint
from gateway.clock import Clock
from gateway.metrics import Metrics

_NEVER = float("inf")


class Bus(Connection):
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
        super().__init__(endpoint, timeout_s=timeout_s, connect_delay_s=connect_delay_s, linger_s=linger_s, clock=clock)
        self._units = units
        line = str(endpoint)
        self.statistics = Statistics(line, units, metrics)
        self._dialogue = Dialogue(
            framer,
            units=units,
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
        self._reset()

    def _reset(self) -> None:
        self._waiting = []
        self._ahead = 0  # urgent requests in a row that went before one that waits
        self._asked: tuple[Exchange, int] | None = None  # whose request is under way
        self._since = -_NEVER  # since when somebody wants the line
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    def __repr__(self) -> str:
        return f"<modbus bus {self._endpoint} {'closed' if self._stream is None else f'open, {self._dialogue!r}'}>"

    # --- opened and ended ---

    @property
    def _is_idle(self) -> bool:
        return self._asked is None and not self._waiting

    @property
    def _is_proven(self) -> bool:
        return self._dialogue.has_answered

    def _begin(self) -> None:
        self._reset()
        self._dialogue.reset()

    def _abandon(self) -> Iterable[Exchange]:
        if self._timer is not None:
            self._timer.cancel()
        own = [] if self._asked is None else [self._asked[0]]
        waiting = {id(exchange): exchange for exchange in [*own, *self._waiting]}
        self._reset()
        return waiting.values()

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
        self._stay_awake()
        exchange = Exchange(requests, timeout_s, gap_s, self._loop.create_future(), urgent, is_wanted)
        if self._is_idle:
            self._since = self._loop.time()
        self._enqueue(exchange)
        self._turn()
        await self._wait(exchange)
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
        dialogue = self._dialogue
        if self._is_forsaken(dialogue.silences, everybody=dialogue.silent >= self._units):
            return
        if self._asked is not None:
            exchange, index = self._asked
            self._asked = None
            self._since = now
            self._settle(exchange, index, outcome)
