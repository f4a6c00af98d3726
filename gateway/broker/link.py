"""One connection over a transport: bytes in, a share of packets each turn, one write a turn, and an end.

The protocol itself is `gateway.mqtt.connection`; what a packet means is the broker's business. Nothing here parses.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from typing import cast

from gateway.broker.access import Peer
from gateway.broker.client import Client, Identity
from gateway.broker.limits import Meter, is_loopback
from gateway.broker.logins import Opening
from gateway.broker.options import Address
from gateway.broker.turn import Turn
from gateway.mqtt.connection import Connection
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import Packet, Puback, Pubcomp, Pubrec, Pubrel

_HIGH = 128 * 1024
_LOW = 32 * 1024
"""A transport with more than the one waiting takes no more messages, until it is down to the other."""

_DEAF = 1024 * 1024
"""A client with so many bytes waiting for it is not read either: whatever it asks, it does not take the answers."""

_ACKS = 4096
_QUICK = 64
_SLICE_S = 0.002
"""One connection's share of a turn: `Turn.share` packets or so much time, and so many acknowledgements beside.

A flood waits for its next turn. Acknowledgements are not weighed: they make room, and a subscriber must not fall behind
those who publish to it only because it is one and they are many. Its window bounds them. Who brings `_QUICK` of them at
once, and still has messages waiting, makes the others step back (`Turn.press`).
"""

_ACKNOWLEDGEMENTS = frozenset({Puback, Pubrec, Pubrel, Pubcomp})
_LOOK_AT_CLOCK = 7
_GRACE_S = 2.0

_BEHIND = 1
_METERED = 2
OPENING = 4
_UNHEARD = 8
"""Why a connection is not read: its packets wait for the next turn; it is above its rate; it is being let in; _DEAF."""


class Link(Client, asyncio.BufferedProtocol):
    """The transport's side of a client. `listener` and `address` say where it came in, and from where."""

    __slots__ = (
        "_clogged_since",
        "_held_bytes",
        "_meter",
        "_paused",
        "address",
        "listener",
        "opening",
        "second",
        "transport",
        "turn",
    )

    def __init__(self, turn: Turn, *, address: str, listener: Address, opening: Opening) -> None:
        super().__init__(Connection(turn.broker.terms), Identity("", None, address))
        self.turn = turn
        self.address = address
        self.listener = listener
        self.opening: Opening | None = opening
        self.transport: asyncio.Transport | None = None
        self.second = 0
        self._paused = 0
        self._held_bytes = 0
        self._clogged_since = inf
        self._meter = Meter(turn.limits) if Meter.needed(turn.limits) else None

    def __repr__(self) -> str:
        state = "finished" if self.is_finished else "opening" if self.opening is not None else "open"
        return f"<Link {self.listener.scheme} {self.address} {self.identity.client_id!r}: {state}>"

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there: from now on CONNECT is waited for."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_HIGH, low=_LOW)
        turn = self.turn
        turn.links.add(self)
        self.last_packet = turn.now()
        assert self.opening is not None  # noqa: S101 - for the type checker; nobody was let in before there was a transport
        turn.wheel.put(self, self.opening.deadline)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where the next bytes go: one buffer for all, empty again when `buffer_updated` returns."""
        return self.turn.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        turn = self.turn
        turn.received.value += nbytes
        if not self.is_finished:
            self.take(bytes(turn.buffer[:nbytes]))

    def eof_received(self) -> None:
        """The peer sends no more: close."""

    def pause_writing(self) -> None:
        """The transport holds more than it should."""
        self.is_congested = True
        self._clogged_since = self.turn.now()
        self.turn.wheel.put(self, self._deadline())

    def resume_writing(self) -> None:
        """The transport takes bytes again."""
        self._clogged_since = inf
        self._relieve()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """The transport is gone. What it had brought is dealt with first: it may end with DISCONNECT."""
        self.transport = None
        self.turn.forget(self)
        self.leave()
        self.out.clear()
        self.held = None
        if self._paused & _UNHEARD and self.connection.buffered:
            self._fall_behind()
        self._paused &= ~_UNHEARD
        if self.is_finished or not self._paused & (_BEHIND | _METERED):
            self._end()
        self.turn.soon()

    def leave(self) -> None:
        """Make room for another connection."""
        gate = self.turn.gate
        if self.opening is not None and self.opening.refusal is not None:
            gate.release()
        else:
            gate.leave(self.address)

    # What comes in.

    def take(self, data: bytes) -> None:
        """Have bytes of the protocol handled, as far as this turn's share goes."""
        connection = self.connection
        connection.feed(data)
        if self._paused & (_BEHIND | _METERED | _UNHEARD):
            return
        turn = self.turn
        if self.work():
            self._fall_behind()
        elif self.opening is not None and connection.buffered > turn.limits.connect_bytes:
            self._pause(OPENING)
        turn.soon()

    def work(self) -> bool:
        """Handle one share of the packets that are there. True when there may be more."""
        turn = self.turn
        now = turn.now()
        connection = self.connection
        packets: Iterator[Packet] = connection.events()
        handle: Callable[[Link, Packet, float], None] = turn.handle
        share = turn.share
        if self.opening is not None:
            handle = turn.logins.handle
            share = 1
        if self._meter is not None:
            packets = self._meter.count(packets, now)
        try:
            is_more = self._handle(packets, handle, share, now)
        except RemoteProtocolError as error:
            turn.broker.violated(self, error, now)
            return False
        if self._meter is not None and (wait_s := self._meter.wait_s(now)) > 0.0 and not self.is_finished:
            self._pause(_METERED)
            turn.loop.call_later(wait_s, self._rested)
            return False
        return is_more and connection.buffered > 0

    def _handle(
        self, packets: Iterator[Packet], handle: Callable[[Link, Packet, float], None], share: int, now: float
    ) -> bool:
        """Handle packets until the share is used up: then there may be more, and the answer is True."""
        left, acks = share, _ACKS
        is_more = False
        for packet in packets:
            handle(self, packet, now)
            if self.is_finished:
                return False
            if type(packet) in _ACKNOWLEDGEMENTS:
                acks -= 1
                if acks:
                    continue
            else:
                left -= 1
            if not left & _LOOK_AT_CLOCK or not acks:
                is_more = left <= 0 or not acks or self.turn.now() - now > _SLICE_S
                if is_more:
                    break
        if left < share or acks < _ACKS:
            self.last_packet = now  # [MQTT-3.1.2-22]: only a whole packet shows that the client lives
        if acks <= _ACKS - _QUICK and self.session is not None and self.session.waiting:
            self.turn.press()
        return is_more

    def go_on(self) -> None:
        """One more share for a connection that is behind."""
        if not self.is_finished and not self._paused & _UNHEARD and self.work():
            self.turn.behind.append(self)
            return
        self._resume(_BEHIND)
        if self.transport is None and not self._paused & _METERED:
            self._end()

    def welcomed(self, now: float) -> None:
        """CONNACK is on its way: what came behind CONNECT is handled from the next turn on."""
        self.opening = None
        self.last_packet = now
        self.turn.wheel.put(self, self._deadline())
        self._resume(OPENING)
        if self.connection.buffered:
            self._fall_behind()
        self.turn.soon()

    # What goes out.

    def ready(self) -> None:
        """`out` is no longer empty."""
        if not self.is_finished:
            self.turn.ready.append(self)
            self.turn.soon()

    def finish(self) -> None:
        """Send what is in `out`, then close; read nothing more."""
        if self.is_finished:
            return
        if not self.out:
            self.turn.ready.append(self)
            self.turn.soon()
        self.is_finished = True

    def flush(self, written: int) -> None:
        """Write what is in `out`, or hold it until the store has written up to `hold`."""
        out = self.out
        transport = self.transport
        self.out_bytes = 0
        if transport is None:
            out.clear()
            return
        if out:
            self.turn.packets.value += len(out)
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            if self.held is None and self.hold <= written:
                self.write(transport, data)
            else:
                self._keep(data)
        if self.is_finished and self.held is None:
            self._shut(transport)

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Hand bytes of the protocol to the transport."""
        self.turn.sent.value += len(data)
        transport.write(data)
        if self.is_congested and transport.get_write_buffer_size() > _DEAF:
            self._pause(_UNHEARD)

    def release(self, written: int) -> None:
        """The store has written up to that mark: let go what waited for it, in order."""
        held, transport = self.held, self.transport
        if held is None or transport is None:
            return
        parts = []
        while held and held[0][0] <= written:
            parts.append(held.popleft()[1])
        if not held:
            self.held = None
            del self.turn.holding[self]
        if parts:
            data = b"".join(parts)
            self._held_bytes -= len(data)
            self.write(transport, data)
            self._relieve()
        if self.is_finished and self.held is None and not self.out:  # else `flush` says it first
            self._shut(transport)

    def abort(self) -> None:
        """Cut the connection off, whatever is under way."""
        if self.transport is not None:
            self.transport.abort()

    def other_end(self) -> Peer:
        """The other end, as a login sees it."""
        transport = self.transport
        name = transport.get_extra_info("peername") if transport is not None else None
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        return Peer(
            address=self.address,
            port=name[1] if name else 0,
            certificate=certificate or None,
            is_local=is_loopback(self.address),
            scheme=self.listener.scheme,
        )

    def certificate(self) -> bytes | None:
        """The certificate that the other end has shown, as DER."""
        return self.transport.get_extra_info("peercert_der") if self.transport is not None else None

    # Time.

    def look(self, now: float) -> None:
        """A second came in which something may be due."""
        if self.is_finished:
            return
        if self._paused:
            self.last_packet = now  # we do not read it: its silence is our doing
        due = self._deadline()
        if due > now:
            self.turn.wheel.put(self, due)
        elif self.opening is not None:
            self.turn.logins.late(self)
        elif due == self._stalls_at():
            self.turn.stalled(self)
        else:
            self.turn.broker.idle(self, now)

    def _deadline(self) -> float:
        if self.opening is not None:
            return self.opening.deadline
        keep_alive = self.connection.keep_alive
        alive = self.last_packet + 1.5 * keep_alive if keep_alive else inf  # [MQTT-3.1.2-22]
        return min(alive, self._stalls_at())

    def _stalls_at(self) -> float:
        """When a client that takes nothing at all is cut off. Where messages wait for it the broker does so before."""
        return self._clogged_since + self.turn.limits.stall_s + _GRACE_S

    # Reading and not reading.

    def _fall_behind(self) -> None:
        if not self._paused & _BEHIND:
            self._pause(_BEHIND)
            self.turn.behind.append(self)

    def _rested(self) -> None:
        """The rate allows more."""
        if not self.is_finished:
            self._fall_behind()
        elif self.transport is None:
            self._end()
        self._paused &= ~_METERED
        self.turn.soon()

    def _pause(self, why: int) -> None:
        if not self._paused and self.transport is not None:
            self.transport.pause_reading()
        self._paused |= why

    def _resume(self, why: int) -> None:
        if self._paused:
            self._paused &= ~why
            if not self._paused and self.transport is not None:
                self.transport.resume_reading()

    # Holding, and ending.

    def _keep(self, data: bytes) -> None:
        if self.held is None:
            self.held = deque()
            self.turn.holding[self] = None
        self.held.append((self.hold, data))
        self._held_bytes += len(data)
        if self._held_bytes > _HIGH:
            self.is_congested = True
        if self._held_bytes > _DEAF:
            self._pause(_UNHEARD)

    def _relieve(self) -> None:
        if not self.is_congested or self._clogged_since != inf or self._held_bytes > _LOW:
            return
        self.is_congested = False
        if self._paused & _UNHEARD and not self._paused & _METERED and self.connection.buffered:
            self._fall_behind()
        self._resume(_UNHEARD)
        if self.opening is None and not self.is_finished:
            self.turn.broker.resumed(self, self.turn.now())
            self.turn.soon()

    def _shut(self, transport: asyncio.Transport) -> None:
        """Say that nothing more comes, and let the peer read to the end: a bare close may take our last words back."""
        if transport.is_closing():
            return
        self.turn.linger(self)
        try:
            if transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()
        except OSError:  # the peer has already reset the connection
            transport.abort()
        else:
            self._resume(~0)

    def _end(self) -> None:
        self.turn.broker.lost(self, self.turn.now())
        self.turn.soon()
