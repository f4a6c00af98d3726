"""Bytes become packets: one buffer, its framing, and what both roles keep about PUBLISH packets that come in.

Which packet may come when is not said here: the role (`connection`, `client`) judges every packet but the hot ones.

    byte 0        packet type << 4 | flags
    byte 1…       remaining length, a varint of 1 to 4 bytes
    …             that many bytes

    30 06 00 03 61 2f 62 21      PUBLISH, QoS 0, topic "a/b", payload "!" (5.0 has 00 before the payload: no properties)

This is the hottest code of the broker. A buffer is read at an offset, never cut at the front; PUBLISH without
properties and acknowledgements of four bytes are read in `events` itself, all others by `decode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import IntEnum
from typing import NoReturn

from gateway.mqtt.decode import decode, decode_publish, topics
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import V5, Packet, Puback, Pubcomp, Publish, Pubrec, Pubrel
from gateway.mqtt.properties import NONE, Properties
from gateway.mqtt.reasons import Reason

SHORT = 129
"""Bytes of the largest packet whose remaining length takes one byte. `events` does not weigh those."""
MOST_HELD = 256 * 1024
"""Bytes that may wait while packets are held: one read of asyncio's transport, which is to be paused meanwhile."""


class Kind(IntEnum):
    """Packet types (2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


def kind_name(kind: int) -> str:
    """The name of a packet type, for messages."""
    return Kind(kind).name if kind else "a packet of type 0"


class Pace(IntEnum):
    """How packets are read now."""

    OVER = 0  # no more, ever
    HELD = 1  # not yet: they wait in the buffer
    CAREFUL = 2  # each is judged by the role's table
    OPEN = 3  # hot ones are legal without asking


_HELD, _OPEN = Pace.HELD, Pace.OPEN  # a global costs a fifth of an enum's attribute
_SHAPES: tuple[tuple[int, bool, bool, int] | None, ...] = tuple(
    (first >> 1 & 3, bool(first & 1), bool(first & 8), 2 if first & 6 else 0)
    if first >> 4 == 3 and first & 6 != 6 and first & 14 != 8
    else None
    for first in range(256)
)
"""By first byte of a PUBLISH: QoS, retain, DUP, bytes of packet id. QoS 3, and DUP with QoS 0, are left to `decode`."""
_BY_FIRST: Mapping[int, type[Puback | Pubrec | Pubrel | Pubcomp]] = {
    0x40: Puback,
    0x50: Pubrec,
    0x62: Pubrel,
    0x70: Pubcomp,
}
_ACKS = tuple(_BY_FIRST.get(first) for first in range(256))


class Reader:
    """What both roles have in common: `feed` bytes, iterate `events`. `level` is 0 until there was a CONNECT."""

    __slots__ = (
        "_alias_maximum",
        "_aliases",
        "_at",
        "_buffer",
        "_largest",
        "_pace",
        "_quota",
        "_unacknowledged",
        "level",
    )

    def __init__(self, *, largest: int) -> None:
        """`largest`: bytes of the largest packet that is read for now."""
        self.level = 0
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._largest = largest
        self._pace = Pace.CAREFUL
        self._alias_maximum = 0
        self._aliases: dict[int, str] | None = None
        self._quota = 65535
        self._unacknowledged: set[int] | None = None

    @property
    def buffered(self) -> int:
        """Bytes that wait."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer. After the last packet that counts they are dropped."""
        if not self._pace:
            return
        buffer = self._buffer
        if self._at == len(buffer):
            self._buffer = data
            self._at = 0
        elif type(buffer) is bytearray:
            buffer += data  # in place: a large packet in small pieces is not copied anew for each; `_at` is 0
        else:
            joined = bytearray(memoryview(buffer)[self._at :])
            joined += data
            self._buffer = joined
            self._at = 0

    def events(self) -> Iterator[Packet]:  # noqa: C901 - a call for each packet would cost a third of the whole
        """The packets that are whole, one by one. Raises RemoteProtocolError at the first that breaks a rule.

        The consumer may stop and iterate anew later, and may `feed` and `send` meanwhile. After an error, and after
        DISCONNECT, nothing more comes [MQTT-4.13.1-1].
        """
        shapes, acks, known = _SHAPES, _ACKS, topics
        while (buffer := self._whole()) is not None:
            started = at = self._at
            end = len(buffer) if self._pace is _OPEN else 0
            largest = self._largest
            plus = 1 if self.level == V5 else 0  # the byte that says "no properties"
            while end - at > 1:
                first = buffer[at]
                length = buffer[at + 1]
                body = at + 2
                if length > 127:
                    if body == end or not 0 < (high := buffer[body]) < 128:
                        break
                    body += 1
                    length += (high - 1) << 7
                    if length + 3 > largest:
                        break
                stop = body + length
                if stop > end:
                    break
                packet: Packet
                if (shape := shapes[first]) is not None:
                    qos, retain, dup, extra = shape
                    topic = None
                    if length > 2:
                        name = body + 2
                        behind = name + (buffer[body] << 8 | buffer[body + 1])
                        start = behind + extra + plus
                        if start <= stop and not (plus and buffer[start - 1]):
                            topic = known.get(buffer[name:behind])
                    if not topic or (qos and not (packet_id := buffer[behind] << 8 | buffer[behind + 1])):
                        packet = self._publish(first, buffer[body:stop])
                    elif qos:
                        if plus:
                            self._note(packet_id)
                        packet = Publish(topic, buffer[start:stop], qos, retain, dup, packet_id)
                    else:
                        packet = Publish(topic, buffer[start:stop], 0, retain)
                elif length == 2 and (ack := acks[first]) is not None:
                    if not (packet_id := buffer[body] << 8 | buffer[body + 1]):
                        break
                    packet = ack(packet_id)
                else:
                    break
                self._at = at = stop
                yield packet
                if self._at != at or self._buffer is not buffer:
                    break  # fed, ended or read on meanwhile
            if at == started:
                yield self._take(buffer)

    def _whole(self) -> bytes | None:
        """The buffer with a whole packet at `_at`, or None. Raises RemoteProtocolError where it can't become one."""
        buffer = self._buffer
        at = self._at
        waiting = len(buffer) - at
        if not waiting:
            self._buffer = b""  # let go of what was read
            self._at = 0
            return None
        if self._pace is _HELD:
            if waiting > MOST_HELD + self._largest:
                self._fail(Reason.QUOTA_EXCEEDED, "too much was sent before the answer to CONNECT")
            return None
        if self._pace is not _OPEN:
            self._admit(buffer[at] >> 4)  # a stranger is sent away at the first byte
        _, stop = self._frame(buffer, at)
        if stop > len(buffer):
            if at:
                self._buffer = buffer[at:]
                self._at = 0
            return None
        if isinstance(buffer, bytearray):
            self._buffer = buffer = bytes(buffer)
        return buffer

    def _frame(self, buffer: bytes | bytearray, at: int) -> tuple[int, int]:
        """Where the body of the packet at `at` begins and ends; beyond the buffer where it isn't whole (2.1.4)."""
        length = shift = 0
        body = at + 1
        while shift < 28:
            if body >= len(buffer):
                return body, len(buffer) + 1
            byte = buffer[body]
            body += 1
            if byte < 128:
                length |= byte << shift
                if shift and not byte:
                    break  # longer than it need be
                if body + length - at > self._largest:  # before it is buffered
                    self._fail(Reason.PACKET_TOO_LARGE, f"a packet with {body + length - at} bytes")
                return body, body + length
            length |= (byte & 127) << shift
            shift += 7
        return self._fail(Reason.MALFORMED_PACKET, "a remaining length that isn't one")  # [MQTT-1.5.5-1]

    def _take(self, buffer: bytes) -> Packet:
        """The whole packet at `_at`, judged by the role."""
        at = self._at
        first = buffer[at]
        self._admit(first >> 4)
        body, stop = self._frame(buffer, at)
        packet: Packet
        if first >> 4 == Kind.PUBLISH:
            packet = self._publish(first, buffer[body:stop])
            self._at = stop
            return packet
        try:
            packet = decode(first, buffer[body:stop], self.level or V5)
        except RemoteProtocolError:
            self._broken()
            raise
        self._at = stop
        self._learn(packet)
        return packet

    def _publish(self, first: int, body: bytes) -> Publish:
        """A PUBLISH that takes more than a glance."""
        try:
            publish = decode_publish(first, body, self.level)
        except RemoteProtocolError:
            self._broken()
            raise
        properties = publish.properties
        if properties is not NONE:
            if properties.subscription_identifiers and not self._is_client:
                self._fail(Reason.PROTOCOL_ERROR, "a subscription identifier in a client's PUBLISH")  # [MQTT-3.3.4-6]
            if properties.topic_alias is not None:
                self._resolve(publish, properties.topic_alias)
        if publish.packet_id and self.level == V5:
            self._note(publish.packet_id)
        return publish

    def _resolve(self, publish: Publish, alias: int) -> None:
        """Put the topic for the alias (3.3.2.3.4). What the alias means ends with the connection [MQTT-3.3.2-7]."""
        if not 0 < alias <= self._alias_maximum:  # [MQTT-3.3.2-8] [MQTT-3.3.2-9]
            self._fail(Reason.TOPIC_ALIAS_INVALID, f"topic alias {alias}, allowed are {self._alias_maximum}")
        aliases = self._aliases
        if aliases is None:
            aliases = self._aliases = {}
        if publish.topic:
            aliases[alias] = publish.topic  # [MQTT-3.3.2-12]; anew, where it was bound
        elif alias in aliases:
            publish.topic = aliases[alias]
        else:
            self._fail(Reason.TOPIC_ALIAS_INVALID, f"topic alias {alias} was never bound")
        publish.properties = _without_alias(publish.properties)

    def _note(self, packet_id: int) -> None:
        """Count a PUBLISH with QoS > 0 in; the role counts it out when it is acknowledged."""
        unacknowledged = self._unacknowledged
        if unacknowledged is None:
            unacknowledged = self._unacknowledged = set()
        unacknowledged.add(packet_id)  # one sent again is the same one
        if len(unacknowledged) > self._quota:  # [MQTT-3.3.4-7]
            self._fail(Reason.RECEIVE_MAXIMUM_EXCEEDED, f"more than {self._quota} publishes in flight")

    def _count_out(self, packet_id: int) -> None:
        """We acknowledge a PUBLISH: once for each id [MQTT-4.9.0-2]."""
        if self._unacknowledged:
            self._unacknowledged.discard(packet_id)

    def _fail(self, reason: Reason, text: str) -> NoReturn:
        self._broken()
        raise RemoteProtocolError(reason, text)

    def _read_at(self, pace: Pace) -> None:
        """Read at this pace from now on; carefully where packets are so short that a length is checked first."""
        if pace is Pace.OVER:
            self._drop()
        elif pace is Pace.OPEN and self._largest < SHORT:
            pace = Pace.CAREFUL
        self._pace = pace

    def _drop(self) -> None:
        """Nothing is read any more: let go of what that needed."""
        self._pace = Pace.OVER
        self._buffer = b""
        self._at = 0
        self._aliases = None

    _is_client = False

    def _admit(self, kind: int) -> None:
        """Raise through `_fail` where a packet of this type may not come now."""
        raise NotImplementedError

    def _learn(self, packet: Packet) -> None:
        """Take in what a packet says about the connection."""
        raise NotImplementedError

    def _broken(self) -> None:
        """The peer broke the protocol, in the packet at `_at`: nothing more is read."""
        raise NotImplementedError


_MOST_ALONE = 1024
_alone: dict[int, Properties] = {}


def _without_alias(properties: Properties) -> Properties:
    """`decode` gives the same object for the same bytes: those with nothing but an alias are remembered as objects."""
    if id(properties) in _alone:
        return NONE
    bare = replace(properties, topic_alias=None)
    if bare != NONE:
        return bare
    if len(_alone) >= _MOST_ALONE:
        _alone.clear()
    _alone[id(properties)] = properties
    return NONE
