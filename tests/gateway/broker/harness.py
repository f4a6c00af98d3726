"""A broker without a network: peers that speak bytes, time moved by hand, and a client behind each peer that checks
whatever the broker says against the standard.

`world.peer(...)` is connected; `peer.send(...)` takes bytes or the notation; `peer.expect(...)` says what must come.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from gateway.broker.access import Peer as Other
from gateway.broker.broker import Broker
from gateway.broker.client import Client, Identity
from gateway.broker.options import Limits
from gateway.metrics import Metrics
from gateway.mqtt.connection import Connection
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import Connect
from gateway.mqtt.reasons import Reason

START = 1_795_330_000.0


class ScriptedAccess:
    """Everything is allowed but what stands in the sets: topics, or filters. `refusals`: client id -> reason."""

    def __init__(self) -> None:
        self.methods: dict[str, Any] = {}
        self.generation = 0
        self.unwritable: set[str] = set()
        self.unreadable: set[str] = set()
        self.unsubscribable: set[str] = set()
        self.refusals: dict[str, Reason] = {}
        self.admins: set[str] = set()

    def may_publish(self, who: Identity, topic: str) -> bool:
        return topic not in self.unwritable

    def may_read(self, who: Identity, topic: str) -> bool:
        return topic not in self.unreadable and (who.is_admin or not topic.startswith("$SYS"))

    def may_subscribe(self, who: Identity, filter: str) -> bool:  # noqa: A002 - the specification's word
        return filter not in self.unsubscribable


class Report:
    """What was said, as (event, client id)."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def say(self, event: str, *, client_id: str, address: str, reason: str) -> None:
        self.said.append((event, client_id))


class Wire(Client):
    """The broker's end of a peer."""

    def __init__(self, peer: Any) -> None:
        super().__init__(Connection(peer.world.broker.terms), Identity(""))
        self.peer = peer

    def ready(self) -> None:
        self.peer.world.dirty[self] = None

    def finish(self) -> None:
        self.is_finished = True
        self.peer.world.dirty[self] = None

    def other_end(self) -> Any:
        return Other(address="10.0.0.1")


@dataclass
class Strict:
    """What the client at the other end knows, so that it sees when the broker breaks its word."""

    level: int
    receive_maximum: int = 65_535
    maximum_packet_size: int = 1 << 28
    alias_maximum: int = 0
    wants_problems: bool = True
    is_accepted: bool = False
    is_over: bool = False
    unacknowledged: dict[int, int] = field(default_factory=dict)  # packet id -> QoS
    released: set[int] = field(default_factory=set)
    aliases: dict[int, str] = field(default_factory=dict)

    def sees(self, seen: Any) -> None:
        assert len(seen.raw) <= self.maximum_packet_size, f"above the maximum packet size: {seen}"
        assert not self.is_over, f"behind the end: {seen}"
        assert seen.kind in ("CONNACK", "AUTH") if not self.is_accepted else seen.kind != "CONNACK", seen
        if not self.wants_problems and seen.kind not in ("PUBLISH", "CONNACK", "DISCONNECT"):
            assert not {0x1F, 0x26} & set(seen.properties), f"problem information was not asked for: {seen}"
        if seen.kind == "CONNACK":
            self.is_accepted = seen.reason == 0
            self.is_over = seen.reason != 0
        self.is_over |= seen.kind == "DISCONNECT"
        if seen.kind == "PUBLISH":
            self._publish(seen)
        elif seen.kind == "PUBREL":
            self.released.add(seen.packet_id)

    def _publish(self, seen: Any) -> None:
        alias = seen.properties.get(0x23)
        if alias is not None:
            assert alias <= self.alias_maximum, f"above the alias maximum: {seen}"
            if not seen.topic:
                assert alias in self.aliases, f"an alias that nobody explained: {seen}"
            self.aliases[alias] = seen.topic or self.aliases[alias]
        if seen.qos:
            assert seen.packet_id not in self.unacknowledged, f"the packet id is in flight: {seen}"
            assert seen.packet_id not in self.released, f"the packet id is not complete yet: {seen}"
            self.unacknowledged[seen.packet_id] = seen.qos
            assert len(self.unacknowledged) <= self.receive_maximum, f"above the receive maximum: {seen}"

    def says(self, data: bytes) -> None:
        """Notice acknowledgements among whole packets on their way to the broker."""
        if len(data) < 4 or data[0] not in (0x40, 0x50, 0x70):
            return
        packet_id = int.from_bytes(data[2:4], "big")
        if data[0] == 0x50 and not (len(data) > 4 and data[4] >= 0x80):
            return
        self.unacknowledged.pop(packet_id, None)
        self.released.discard(packet_id)


class Peer:
    """A client at the other end of a link."""

    def __init__(self, world: Any, level: int, client_id: str = "") -> None:
        self.world = world
        self.level = level
        self.client_id = client_id
        self.client = Wire(self)
        self.strict = Strict(level)
        self.is_closed = False
        self.is_holding_login = False
        self.waiting: Connect | None = None
        self.session_present = False
        self.connack: Any = None
        self.inbox: list[Any] = []
        self._unread = bytearray()
        self._last_id = 0
        world.peers.add(self)

    # bytes in

    def bytes(self, *packets: str | bytes) -> bytes:
        return b"".join(p if isinstance(p, bytes) else self.world.notation.raw(p, self.level) for p in packets)

    def send(self, *packets: str | bytes) -> None:
        """Have packets arrive as one segment."""
        for each in packets:
            self.strict.says(self.bytes(each))
        self.feed(self.bytes(*packets))

    def drip(self, *packets: str | bytes) -> None:
        """Have packets arrive byte by byte."""
        for byte in self.bytes(*packets):
            self.feed(bytes([byte]))

    def feed(self, data: bytes) -> None:
        if not self.client.is_finished and not self.is_closed:
            self.client.connection.feed(data)
            self._pump()
        self.world.turn()

    def force(self, packet: Any) -> None:
        """Hand a packet to the broker although the link is closed: a late one."""
        self.world.broker.handle(self.client, packet, self.world.now)
        self.world.turn()

    def _pump(self) -> None:
        client, broker = self.client, self.world.broker
        try:
            again = True
            while again:
                again = False
                for packet in client.connection.events():
                    again = True
                    client.last_packet = self.world.now
                    if isinstance(packet, Connect) and self.waiting is None and client.session is None:
                        self.waiting = packet
                        if not self.is_holding_login:
                            self._login()
                    else:
                        broker.handle(client, packet, self.world.now)
                    if client.is_finished:
                        return
        except RemoteProtocolError as error:
            broker.violated(client, error, self.world.now)

    def _login(self) -> None:
        connect, world = self.waiting, self.world
        assert connect is not None
        reason = world.access.refusals.get(connect.client_id)
        if reason is not None:
            world.broker.refuse(self.client, reason, "not you")
            return
        is_admin = connect.username in world.access.admins
        self.client.identity = Identity(connect.client_id, connect.username, "10.0.0.1", is_admin=is_admin)
        world.broker.connect(self.client, connect, world.now)

    def admit(self) -> None:
        """End a login that was held."""
        self.is_holding_login = False
        self._login()
        self._pump()
        self.world.turn()

    # bytes out

    def arrives(self, data: bytes) -> None:
        self._unread += data

    def received(self) -> bytes:
        """All bytes that came since the last look, checked like those of `packets`."""
        return b"".join(seen.raw for seen in self.packets())

    def packets(self) -> list[Any]:
        """All packets that came since the last look."""
        self.look()
        found, self.inbox = self.inbox, []
        return found

    def look(self) -> None:
        """Check what came, and leave it for later."""
        notation = self.world.notation
        whole, rest = notation.split(bytes(self._unread))
        assert not rest, f"half a packet: {rest.hex(' ')}"
        self._unread.clear()
        for data in whole:
            seen = notation.read(data, self.level)
            self.strict.sees(seen)
            self.inbox.append(seen)

    def take(self, kind: str) -> Any:
        """The one packet of this kind among those that came; the others stay."""
        self.look()
        found = [seen for seen in self.inbox if seen.kind == kind]
        assert len(found) == 1, f"not one {kind}: {self.inbox}"
        self.inbox.remove(found[0])
        return found[0]

    def expect(self, *expected: str | bytes) -> list[Any]:
        """These packets came, in this order, and nothing else. `(*)` instead of properties: any."""
        found = self.packets()
        shown = [self._shown(e) for e in expected]
        assert len(found) == len(expected), f"expected {shown}, got {found}"
        for seen, wanted, text in zip(found, expected, shown, strict=True):
            if isinstance(wanted, str) and "(*)" in wanted:
                bare = self.world.notation.read(self.bytes(wanted.replace("(*)", "()")), self.level)
                assert seen.bare == bare.bare, f"expected {text}, got {seen}"
            else:
                assert seen.raw == self.bytes(wanted), f"expected {text}, got {seen}"
        return found

    def _shown(self, expected: str | bytes) -> str:
        return expected if isinstance(expected, str) else expected.hex(" ")

    def silent(self) -> bool:
        """Nothing came, and the link is open."""
        return not self.packets() and not self.is_closed

    def ended(self, *reasons: int) -> Any:
        """The broker closed the link: 5.0 with a DISCONNECT of one of these codes, or where CONNECT was at fault with a
        CONNACK or without a word; 3.1.1 without a word."""
        assert self.is_closed, "the link is still open"
        found = self.packets()
        if self.level == 4 or (not self.strict.is_accepted and not found):
            assert not found, found
            return None
        assert [seen.kind for seen in found] == ["DISCONNECT" if self.strict.is_accepted else "CONNACK"], found
        assert found[0].reason in reasons, f"{found[0]}: expected one of {[hex(r) for r in reasons]}"
        return found[0]

    # the other end of the link

    def cut(self) -> None:
        """The link breaks without a word."""
        if not self.is_closed:
            self.is_closed = True
            self.world.broker.lost(self.client, self.world.now)
            self.world.turn()

    def leave(self) -> None:
        """DISCONNECT, normal."""
        self.send("e0 00")
        assert self.is_closed

    def stall(self) -> None:
        """The transport takes no more."""
        self.client.is_congested = True

    def resume(self) -> None:
        self.client.is_congested = False
        self.world.broker.resumed(self.client, self.world.now)
        self.world.turn()

    # exchanges that a test needs but does not look at

    def next_id(self) -> int:
        self._last_id = self._last_id % 65_535 + 1
        return self._last_id

    def subscribe(
        self, *filters: str, qos: int = 0, options: int = 0, identifier: int | None = None
    ) -> tuple[int, ...]:
        """Subscribe; the codes. `options` are the byte's other bits. What else came stays for a later look."""
        notation = self.world.notation
        body = b"".join(notation.string(f) + bytes([qos | options]) for f in filters)
        properties = f"(0b {notation.varint(identifier).hex()})" if identifier is not None else "()"
        packet_id = self.next_id().to_bytes(2, "big")
        self.send(notation.packet(0x82, packet_id, self.bytes(properties), body))
        answer = self.take("SUBACK")
        assert answer.packet_id == int.from_bytes(packet_id, "big")
        return answer.reasons

    def unsubscribe(self, *filters: str) -> tuple[int, ...]:
        notation = self.world.notation
        body = b"".join(notation.string(f) for f in filters)
        self.send(notation.packet(0xA2, self.next_id().to_bytes(2, "big"), self.bytes("()"), body))
        return self.take("UNSUBACK").reasons

    def published(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        *,
        retain: bool = False,
        properties: str = "()",
    ) -> bytes:
        """The bytes of a PUBLISH, with the next packet id where it needs one."""
        notation = self.world.notation
        packet_id = self.next_id().to_bytes(2, "big") if qos else b""
        head = 0x30 | qos << 1 | retain
        return notation.packet(head, notation.string(topic), packet_id, self.bytes(properties), payload)

    def publish(
        self, topic: str, payload: bytes = b"", qos: int = 0, *, retain: bool = False, properties: str = "()"
    ) -> int:
        """Publish and finish the exchange; the code of the first answer."""
        self.send(self.published(topic, payload, qos, retain=retain, properties=properties))
        if not qos:
            return 0
        answer = self.take("PUBACK" if qos == 1 else "PUBREC")
        if qos == 2 and answer.reason < 0x80:
            self.send(f"62 02 {answer.packet_id:04x}")
            assert self.take("PUBCOMP").packet_id == answer.packet_id
        return int(answer.reason)

    def answer(self, seen: Any) -> None:
        """Finish the exchange of a PUBLISH that came."""
        if seen.qos == 1:
            self.send(f"40 02 {seen.packet_id:04x}")
        elif seen.qos == 2:
            self.send(f"50 02 {seen.packet_id:04x}")
            assert self.take("PUBREL").packet_id == seen.packet_id
            self.send(f"70 02 {seen.packet_id:04x}")

    def accept(self) -> list[Any]:
        """Take and answer PUBLISH packets until none is left; all that came."""
        found: list[Any] = []
        while True:
            self.look()
            fresh = [seen for seen in self.inbox if seen.kind == "PUBLISH"]
            if not fresh:
                return found
            for seen in fresh:
                self.inbox.remove(seen)
                found.append(seen)
                self.answer(seen)

    def payloads(self) -> list[bytes]:
        """The payloads of `accept`."""
        return [seen.payload for seen in self.accept()]


class World:
    """A broker, its peers, and time."""

    def __init__(
        self,
        notation: Any,
        *,
        limits: Limits | None = None,
        access: Any = None,
        store: Any = None,
        metrics: Metrics | None = None,
        now: float = START,
    ) -> None:
        self.notation = notation
        self.now = now
        self.limits = limits or Limits()
        self.access = access or ScriptedAccess()
        self.metrics = metrics or Metrics()
        self.report = Report()
        self.store = store
        self.dirty: dict[Wire, None] = {}
        self.holding: dict[Wire, None] = {}
        self.does_more = True
        self.peers: weakref.WeakSet[Peer] = weakref.WeakSet()
        self.broker = Broker(
            self.limits, access=self.access, metrics=self.metrics, report=self.report, store=store, now=now
        )

    # one turn of the loop

    def turn(self) -> None:
        """Flush; do pending work to its end, unless `does_more` is off."""
        self.flush()
        for _ in range(100_000):
            if not self.does_more or not self.broker.more(self.now):
                break
            self.flush()
        else:
            raise AssertionError("the broker's pending work never ends")
        self.flush()

    def flush(self) -> None:
        if self.store is not None:
            self.store.flush()
        while self.dirty:
            if self.store is not None:
                self.store.flush()
            clients, self.dirty = self.dirty, {}
            for client in clients:
                self._flush_one(client)

    def _flush_one(self, client: Wire) -> None:
        data = b"".join(client.out)
        client.out.clear()
        client.out_bytes = 0
        written = math.inf if self.store is None else self.store.written
        if data and (client.held or client.hold > written):
            client.held = client.held if client.held is not None else deque()
            client.held.append((client.hold, data))
            self.holding[client] = None
        elif data and not client.peer.is_closed:
            client.peer.arrives(data)
        if client.is_finished and not client.held:
            self._close(client)

    def _close(self, client: Wire) -> None:
        if not client.peer.is_closed:
            client.peer.is_closed = True
            self.broker.lost(client, self.now)

    def written(self) -> None:
        """The store has written something: let go what was held for it."""
        for client in list(self.holding):
            while client.held and client.held[0][0] <= self.store.written:
                data = client.held.popleft()[1]
                if not client.peer.is_closed:
                    client.peer.arrives(data)
            if not client.held:
                del self.holding[client]
                if client.is_finished:
                    self._close(client)
        self.turn()

    def advance(self, seconds: float) -> None:
        """Let time pass: a tick a second, fewer and longer ones where it is more than a minute."""
        steps = max(1, min(60, math.ceil(seconds)))
        end = self.now + seconds
        for step in range(1, steps + 1):
            self.now = end - seconds * (steps - step) / steps
            self.broker.tick(self.now)
            self.turn()

    def counted(self, part: str) -> float:
        """The sum of the broker's counters with that word in their name."""
        return sum(v for name, _, v in self.metrics if name.startswith("broker_") and part in name)

    # peers

    def link(self, level: int = 5) -> Peer:
        """A peer that has not said anything yet."""
        return Peer(self, level)

    def peer(self, client_id: str = "c", *, level: int = 5, hold: bool = False, **terms: Any) -> Peer:
        """A peer that has sent CONNECT and got its CONNACK; `hold`: the login does not end until `admit`.

        Terms: clean=True, keep_alive=0, expiry, receive_maximum, maximum_packet_size, alias_maximum, problems (0 or 1),
        will=(topic, payload, qos, retain, properties in the notation), username, password, properties in the notation.
        """
        peer = Peer(self, level, client_id)
        peer.is_holding_login = hold
        if level == 5:
            strict = peer.strict
            strict.receive_maximum = terms.get("receive_maximum", strict.receive_maximum)
            strict.maximum_packet_size = terms.get("maximum_packet_size", strict.maximum_packet_size)
            strict.alias_maximum = terms.get("alias_maximum", 0)
            strict.wants_problems = bool(terms.get("problems", 1))
        peer.send(self.connect_bytes(client_id, level, **terms))
        if not hold:
            peer.connack = peer.take("CONNACK")
            assert peer.connack.reason == 0, peer.connack
            peer.session_present = peer.connack.session_present
        return peer

    def connect_bytes(
        self,
        client_id: str = "c",
        level: int = 5,
        *,
        clean: bool = True,
        keep_alive: int = 0,
        expiry: int | None = None,
        receive_maximum: int | None = None,
        maximum_packet_size: int | None = None,
        alias_maximum: int | None = None,
        problems: int | None = None,
        will: tuple[Any, ...] | None = None,
        username: str | None = None,
        password: bytes | None = None,
        properties: str = "",
    ) -> bytes:
        """A CONNECT."""
        flags = clean << 1 | (username is not None) << 7 | (password is not None) << 6
        said = "".join(
            f"{name:02x} {value:0{digits}x} "
            for name, value, digits in (
                (0x11, expiry, 8),
                (0x21, receive_maximum, 4),
                (0x27, maximum_packet_size, 8),
                (0x22, alias_maximum, 4),
                (0x17, problems, 2),
            )
            if value is not None
        )
        raw, string = self.notation.raw, self.notation.string
        tail = string(client_id)
        if will is not None:
            topic, payload, qos, retain, will_properties = (*will, *(b"", 0, False, "")[len(will) - 1 :])
            flags |= 4 | qos << 3 | retain << 5
            tail += raw(f"({will_properties})", level) + string(topic) + string(payload)
        tail += string(username) if username is not None else b""
        tail += string(password) if password is not None else b""
        head = raw(f"'MQTT' {level:02x} {flags:02x} {keep_alive:04x} ({said}{properties})", level)
        return bytes(self.notation.packet(0x10, head, tail))
