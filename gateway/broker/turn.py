"""What all connections share: the loop's turns. Packets come in, then everything that is to leave goes out, once.

Within one turn of the loop the sockets' bytes are read and handled; `Turn` then runs once: connections that had more to
say than their share go on, long work gets its slice, the store is handed what must be kept, and each connection with
something to send writes it with one call. Nothing here knows a packet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from math import ceil, inf
from typing import TYPE_CHECKING, Protocol

from gateway.broker.client import Client
from gateway.broker.limits import Gate
from gateway.broker.options import Limits
from gateway.broker.report import Report
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.mqtt.connection import Terms
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import Connect, Packet
from gateway.mqtt.reasons import Reason

if TYPE_CHECKING:
    from gateway.broker.link import Link
    from gateway.broker.logins import Logins

_READ = 64 * 1024
"""Taken from a socket at once. One buffer serves all: its bytes are copied out before anybody else reads."""

_PACKETS = 2048
_MOST = 256
_LEAST = 16
"""Packets handled in a turn, shared by all that are behind; and the most and the least that one of them gets."""

_PRESSED_S = 0.002
"""While a client that acknowledges quickly still has messages waiting, all get the least for so long, and those that
are behind wait. The processor is what is short then: publishers must not outrun a subscriber until its queue is full
only because they are many and it is one. A slow subscriber presses nobody.
"""

_CATCH_UP_S = 0.002
_WRITES = 128
"""So long those that are behind go on in a turn; and to so many connections a turn writes that have just become ready,
and to as many that were ready before. The rest has the next turns.

A turn of thousands would keep everybody waiting whose bytes come meanwhile.
"""

_LINGER_S = 1.0
"""So long a client may take to read our last words and go."""


class Broker(Protocol):
    """What the open side asks of the broker proper. `now` is s since 1970 and only grows."""

    terms: Terms

    @property
    def has_work(self) -> bool:
        """Whether `more` has something to do."""
        ...

    def connect(self, client: Client, connect: Connect, now: float) -> None:
        """`client.identity` has logged in: accept it."""
        ...

    def refuse(self, client: Client, reason: Reason, text: str) -> None:
        """Answer CONNECT with an error, then finish."""
        ...

    def handle(self, client: Client, packet: Packet, now: float) -> None:
        """Take a packet of an accepted client."""
        ...

    def violated(self, client: Client, error: RemoteProtocolError, now: float) -> None:
        """The client broke the protocol: say so where the level can, then finish."""
        ...

    def lost(self, client: Client, now: float) -> None:
        """The connection is gone."""
        ...

    def resumed(self, client: Client, now: float) -> None:
        """The client takes bytes again."""
        ...

    def idle(self, client: Client, now: float) -> None:
        """The client was silent for longer than it promised."""
        ...

    def tick(self, now: float, ahead_s: float) -> None:
        """A second has passed. `ahead_s`: by how much the wall clock is ahead of `now`, for it may have been set."""
        ...

    def more(self, now: float) -> bool:
        """Do a slice of long work. True when some is left."""
        ...

    def disconnect(self, client_id: str, reason: Reason, now: float) -> None:
        """Send a client away."""
        ...

    def shutdown(self, now: float) -> None:
        """Send everybody away."""
        ...

    def access_changed(self, now: float) -> None:
        """Users or rules were read anew."""
        ...


class Store(Protocol):
    """What the open side asks of the store: until which mark all is written, and whether it can write at all.

    `on_written` is called on the loop when one of them has changed.
    """

    written: int
    failure: str
    on_written: Callable[[], None]

    def flush(self) -> None:
        """Hand over what this turn noted."""
        ...


class Wheel:
    """Who is to be looked at in which second. An entry costs nothing until its second comes."""

    def __init__(self) -> None:
        self._seconds: dict[int, set[Link]] = {}

    def put(self, link: Link, due: float) -> None:
        """Look at the link when `due` has passed; never, for infinity. Replaces what was said before."""
        second = 0 if due == inf else ceil(due)
        if second == link.second:
            return
        self.drop(link)
        link.second = second
        if second:
            self._seconds.setdefault(second, set()).add(link)

    def drop(self, link: Link) -> None:
        """Forget the link."""
        links = self._seconds.get(link.second)
        if links is not None:
            links.discard(link)
            if not links:
                del self._seconds[link.second]
        link.second = 0

    def due(self, now: float) -> list[Link]:
        """Take out all whose second has come."""
        links: list[Link] = []
        for second in [second for second in self._seconds if second <= now]:
            links += self._seconds.pop(second)
        for link in links:
            link.second = 0
        return links


class Turn:
    """The shared half of every connection: what is ready, who is behind, who lingers, and the one clock of them all."""

    def __init__(
        self,
        *,
        broker: Broker,
        store: Store | None,
        clock: Clock,
        metrics: Metrics,
        report: Report,
        limits: Limits,
        gate: Gate,
    ) -> None:
        self.broker = broker
        self.handle = broker.handle
        self.logins: Logins
        self.store = store
        self.limits = limits
        self.gate = gate
        self.buffer = memoryview(bytearray(_READ))
        self.received = metrics.counter("broker_bytes_received_total")
        self.sent = metrics.counter("broker_bytes_sent_total")
        self.packets = metrics.counter("broker_packets_sent_total")
        self.wheel = Wheel()
        self.links: set[Link] = set()
        self.share = _MOST
        self._pressed_until = 0.0
        self._pressing: asyncio.TimerHandle | None = None
        self.ready: deque[Link] = deque()
        self.behind: deque[Link] = deque()
        self._late: deque[Link] = deque()
        self.holding: dict[Link, None] = {}
        self.loop = asyncio.get_running_loop()
        self._clock = clock
        self.report = report
        self._stalled = metrics.counter("broker_clients_stalled_total")
        self._offset = clock.wall_ms() / 1000.0 - clock.monotonic()
        self._lingering: dict[Link, float] = {}
        self._linger_timer: asyncio.TimerHandle | None = None
        self._timer = self.loop.call_later(1.0, self._tick)
        self._is_coming = False
        self._nobody: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Turn: {len(self.links)} connections, {len(self.behind)} behind, {len(self.holding)} held>"

    def now(self) -> float:
        """Seconds since 1970 at the start, plus the time since: it never jumps."""
        return self._offset + self._clock.monotonic()

    def soon(self) -> None:
        """Run at the end of this turn. Called as often as anybody likes."""
        if not self._is_coming:
            self._is_coming = True
            self.loop.call_soon(self._run)

    def press(self) -> None:
        """A client has acknowledged much, and more waits for it: let it catch up."""
        self._pressed_until = self.loop.time() + _PRESSED_S
        self.share = _LEAST

    def linger(self, link: Link) -> None:
        """The link has said its last word; it is cut off if the peer does not go by itself."""
        self._lingering[link] = self.loop.time() + _LINGER_S
        if self._linger_timer is None:
            self._linger_timer = self.loop.call_later(_LINGER_S, self._cut)

    def forget(self, link: Link) -> None:
        """The link's transport is gone."""
        self.links.discard(link)
        self._lingering.pop(link, None)
        self.holding.pop(link, None)
        self.wheel.drop(link)
        if not self.links and self._nobody is not None:
            self._nobody.set()

    async def emptied(self, within_s: float) -> None:
        """Wait until no connection is left, or that time is over."""
        if self.links:
            self._nobody = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nobody.wait(), within_s)

    def written(self) -> None:
        """The store has written, or cannot: let go what waited for it, or whom."""
        store = self.store
        if store is None:
            return
        for link in list(self.holding):
            link.release(store.written)
        if store.failure:
            for link in list(self.holding):  # what they wait for is not kept: they must not hear that it was
                link.abort()

    def stalled(self, link: Link) -> None:
        """The link took no bytes for too long."""
        self._stalled.value += 1
        who = link.identity.client_id
        self.report.say("stalled", client_id=who, address=link.address, reason="it takes no bytes")
        link.abort()

    def close(self) -> None:
        """No more turns but those under way."""
        self._timer.cancel()
        for timer in (self._linger_timer, self._pressing):
            if timer is not None:
                timer.cancel()

    def _run(self) -> None:
        self._is_coming = False
        try:
            if not self._is_pressed():
                self.share = _MOST
                if self.behind:
                    self._catch_up()
            if self.broker.has_work and self.broker.more(self.now()):
                self.soon()
            self._send()
        finally:
            if self.ready or self._late or (self.behind and self._pressing is None):
                self.soon()

    def _is_pressed(self) -> bool:
        """Whether those that are behind wait; then a timer goes on with them."""
        if not self._pressed_until:
            return False
        left_s = self._pressed_until - self.loop.time()
        if left_s <= 0.0:
            self._pressed_until = 0.0
            return False
        if self.behind and self._pressing is None:
            self._pressing = self.loop.call_later(left_s, self._relent)
        return True

    def _relent(self) -> None:
        self._pressing = None
        self.soon()

    def _catch_up(self) -> None:
        """Give connections that are behind one more share, in turn. One that fails by a mistake of ours is cut off."""
        behind = self.behind
        self.share = min(self.share, max(_LEAST, _PACKETS // len(behind)))
        until = self.now() + _CATCH_UP_S
        for _ in range(len(behind)):
            link = behind.popleft()
            is_well = False
            try:
                link.go_on()
                is_well = True
            finally:
                if not is_well:
                    link.abort()
            if self.now() > until:
                break

    def _send(self) -> None:
        store = self.store
        written = 0
        if store is not None:
            store.flush()
            written = store.written
        ready, late = self.ready, self._late
        for _ in range(min(len(late), _WRITES)):
            late.popleft().flush(written)
        for _ in range(min(len(ready), _WRITES)):
            ready.popleft().flush(written)
        if ready:  # they go on beside those who are new in the next turn, so that nobody waits for thousands
            late.extend(ready)
            ready.clear()

    def _tick(self) -> None:
        self._timer = self.loop.call_later(1.0, self._tick)
        now = self.now()
        try:
            for link in self.wheel.due(now):
                link.look(now)
            self.gate.tick(now)
            self.logins.tick(now)
            self.report.tick()
            self.written()  # also those who came to wait for a store that had failed just before
            self.broker.tick(now, self._clock.wall_ms() / 1000.0 - now)
        finally:
            self.soon()

    def _cut(self) -> None:
        self._linger_timer = None
        now = self.loop.time()
        for link, until in list(self._lingering.items()):
            if until > now:
                self._linger_timer = self.loop.call_at(until, self._cut)
                return
            del self._lingering[link]
            link.abort()
