"""Packets to bytes. What a packet can't say on a level raises LocalProtocolError; the form of a packet is in `decode`.

MQTT 3.1.1 has no properties, no codes in acknowledgements and none in UNSUBACK: those are left out, also those of a
refusal, which 3.1.1 answers with a plain acknowledgement (3.1.1: [MQTT-3.3.5-2]). What would make another packet of it
is refused: AUTH, a DISCONNECT with a code, subscription options, a CONNACK code that 3.1.1 has no number for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.mqtt import reasons, wire
from gateway.mqtt.errors import LocalProtocolError
from gateway.mqtt.packets import (
    V5,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from gateway.mqtt.properties import NONE, Place, Properties, encode_properties, is_topic_name
from gateway.mqtt.reasons import Reason

_topics: dict[str, bytes] = {}
_TOPICS, _TOPIC_LENGTH = 8192, 128
"""Topics with their length, checked; how many are remembered, and up to what length."""


def encode(packet: Packet, level: int) -> bytes:
    """Write one packet, header and all. `level` is 4 or 5. Raises LocalProtocolError."""
    return _ENCODERS[type(packet)](packet, level)


def publish_parts(
    topic: str,
    payload: bytes,
    qos: int,
    retain: bool,  # noqa: FBT001 - the fields of a packet in their order; keywords cost 50 ns
    level: int,
    properties: Properties,
) -> tuple[bytes, bytes]:
    """Write a PUBLISH with the packet id cut out, so that many receivers can share it. Raises LocalProtocolError.

    The packet is head + packet id (2 bytes) + tail with QoS 1 and 2, whose lengths count the id; head + tail with
    QoS 0. DUP is bit 3 of the head's first byte.
    """
    name = _topics.get(topic) or _topic(topic, level, properties)
    if level != V5:
        tail = payload
    elif properties is NONE:
        tail = b"\0" + payload
    else:
        tail = encode_properties(properties, Place.PUBLISH) + payload
    size = len(name) + len(tail)
    if qos:
        size += 2
    try:
        first = _FIRST[qos, retain]
    except KeyError:
        raise LocalProtocolError(f"there is no QoS {qos}") from None
    if size < 0x80:
        return first[size] + name, tail
    if size < 0x4000:
        return bytes((first[0][0], size & 0x7F | 0x80, size >> 7)) + name, tail
    return first[0][:1] + wire.varint_bytes(size) + name, tail


_FIRST = {
    (qos, retain): tuple(bytes((0x30 | qos << 1 | retain, size)) for size in range(0x80))
    for qos in range(3)
    for retain in (False, True)
}
"""The header of a PUBLISH by QoS and retain, then by remaining length where that takes one byte."""


def _topic(topic: str, level: int, properties: Properties) -> bytes:
    """A topic with its length, that is seen for the first time in a while."""
    if not topic:
        if level != V5 or properties.topic_alias is None:
            raise LocalProtocolError("a PUBLISH without topic and alias")
        return b"\0\0"
    if not is_topic_name(topic):
        raise LocalProtocolError(f"a topic with a wildcard: {topic!r}")  # [MQTT-3.3.2-2]
    name = wire.utf8_bytes(topic)
    if len(topic) <= _TOPIC_LENGTH:
        if len(_topics) >= _TOPICS:
            _topics.clear()
        _topics[topic] = name
    return name


def _whole(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return first.to_bytes(1, "big") + wire.varint_bytes(len(body)) + body


def _packet_id(packet_id: int) -> bytes:
    if not packet_id:
        raise LocalProtocolError("a packet needs a packet id other than 0")  # [MQTT-2.2.1-3]
    return wire.u16_bytes(packet_id)


def _code(table: Mapping[int, Reason], reason: Reason, packet: str) -> bytes:
    if reason not in table:
        raise LocalProtocolError(f"{packet} can't say {reason.name.lower()}")
    return reason.to_bytes(1, "big")


def _properties(properties: Properties, place: Place, level: int) -> bytes:
    return encode_properties(properties, place) if level == V5 else b""


def _publish(packet: Publish, level: int) -> bytes:
    head, tail = publish_parts(packet.topic, packet.payload, packet.qos, packet.retain, level, packet.properties)
    if not packet.qos:
        if packet.dup or packet.packet_id:
            raise LocalProtocolError(
                "a PUBLISH with QoS 0 has no packet id and no DUP"
            )  # [MQTT-2.2.1-2] [MQTT-3.3.1-2]
        return head + tail
    if packet.dup:
        head = (head[0] | 8).to_bytes(1, "big") + head[1:]
    return head + _packet_id(packet.packet_id) + tail


def _connect(packet: Connect, level: int) -> bytes:
    if packet.level != level or level not in (V311, V5):
        raise LocalProtocolError(f"a CONNECT for level {packet.level} on level {level}")
    if level == V311 and packet.password is not None and packet.username is None:
        raise LocalProtocolError("MQTT 3.1.1 has no password without a user name")  # 3.1.1: [MQTT-3.1.2-22]
    flags = packet.clean_start << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    parts = [wire.utf8_bytes(packet.client_id)]
    will = packet.will
    if will is not None:
        if not is_topic_name(will.topic):
            raise LocalProtocolError(f"a will to an empty topic or one with a wildcard: {will.topic!r}")
        flags |= 0x04 | _qos(will.qos) << 3 | will.retain << 5
        parts.append(_properties(will.properties, Place.WILL, level))
        parts.append(wire.utf8_bytes(will.topic) + wire.binary_bytes(will.payload))
    if packet.username is not None:
        parts.append(wire.utf8_bytes(packet.username))
    if packet.password is not None:
        parts.append(wire.binary_bytes(packet.password))
    head = b"\0\4MQTT" + bytes((level, flags)) + wire.u16_bytes(packet.keep_alive)
    return _whole(0x10, head, _properties(packet.properties, Place.CONNECT, level), *parts)


def _qos(qos: int) -> int:
    if not 0 <= qos <= 2:
        raise LocalProtocolError(f"there is no QoS {qos}")
    return qos


def _connack(packet: Connack, level: int) -> bytes:
    if packet.session_present and packet.reason:
        raise LocalProtocolError("a session with a refusal")  # [MQTT-3.2.2-6]
    if level == V5:
        code = _code(reasons.CONNACK, packet.reason, "CONNACK")
    elif packet.reason in reasons.RETURN_CODES:
        code = reasons.RETURN_CODES[packet.reason].to_bytes(1, "big")
    else:
        raise LocalProtocolError(f"CONNACK of MQTT 3.1.1 can't say {packet.reason.name.lower()}")
    flags = b"\1" if packet.session_present else b"\0"
    return _whole(0x20, flags, code, _properties(packet.properties, Place.CONNACK, level))


_Acknowledgement = Puback | Pubrec | Pubrel | Pubcomp


def _acknowledgements(first: int, table: Mapping[int, Reason], place: Place) -> Callable[[Any, int], bytes]:
    short = bytes((first, 2))

    def write(packet: _Acknowledgement, level: int) -> bytes:
        packet_id = _packet_id(packet.packet_id)
        if level != V5 or (not packet.reason and packet.properties is NONE):
            return short + packet_id
        code = _code(table, packet.reason, place.name)
        properties = encode_properties(packet.properties, place)
        return _whole(first, packet_id, code, b"" if properties == b"\0" else properties)

    return write


def _subscribe(packet: Subscribe, level: int) -> bytes:
    if not packet.subscriptions:
        raise LocalProtocolError("a SUBSCRIBE without a filter")  # [MQTT-3.8.3-2]
    properties = _properties(packet.properties, Place.SUBSCRIBE, level)
    filters = [_subscription(subscription, level) for subscription in packet.subscriptions]
    return _whole(0x82, _packet_id(packet.packet_id), properties, *filters)


def _subscription(subscription: Subscription, level: int) -> bytes:
    options = subscription.no_local << 2 | subscription.retain_as_published << 3 | subscription.retain_handling << 4
    if options and level != V5:
        raise LocalProtocolError("MQTT 3.1.1 has no options of a subscription but QoS")
    if not 0 <= subscription.retain_handling <= 2:
        raise LocalProtocolError(f"there is no retain handling {subscription.retain_handling}")
    if subscription.no_local and subscription.filter.startswith("$share/"):
        raise LocalProtocolError("no local on a shared subscription")  # [MQTT-3.8.3-4]
    return wire.utf8_bytes(subscription.filter) + bytes((options | _qos(subscription.qos),))


def _suback(packet: Suback, level: int) -> bytes:
    if not packet.reasons:
        raise LocalProtocolError("a SUBACK without a code")
    codes = b"".join([_code(reasons.SUBACK, reason, "SUBACK") for reason in packet.reasons])
    if level != V5:
        codes = bytes(min(code, 0x80) for code in codes)  # 3.1.1: [MQTT-3.9.3-2]
    return _whole(0x90, _packet_id(packet.packet_id), _properties(packet.properties, Place.SUBACK, level), codes)


def _unsubscribe(packet: Unsubscribe, level: int) -> bytes:
    if not packet.filters:
        raise LocalProtocolError("an UNSUBSCRIBE without a filter")  # [MQTT-3.10.3-2]
    properties = _properties(packet.properties, Place.UNSUBSCRIBE, level)
    filters = [wire.utf8_bytes(text) for text in packet.filters]
    return _whole(0xA2, _packet_id(packet.packet_id), properties, *filters)


def _unsuback(packet: Unsuback, level: int) -> bytes:
    if level != V5:
        return _whole(0xB0, _packet_id(packet.packet_id))
    if not packet.reasons:
        raise LocalProtocolError("an UNSUBACK without a code")
    codes = [_code(reasons.UNSUBACK, reason, "UNSUBACK") for reason in packet.reasons]
    properties = encode_properties(packet.properties, Place.UNSUBACK)
    return _whole(0xB0, _packet_id(packet.packet_id), properties, *codes)


def _pingreq(_packet: Pingreq, _level: int) -> bytes:
    return b"\xc0\0"


def _pingresp(_packet: Pingresp, _level: int) -> bytes:
    return b"\xd0\0"


def _disconnect(packet: Disconnect, level: int) -> bytes:
    code = _code(reasons.DISCONNECT, packet.reason, "DISCONNECT")
    if level != V5:
        if packet.reason:
            raise LocalProtocolError(f"DISCONNECT of MQTT 3.1.1 can't say {packet.reason.name.lower()}")
        return b"\xe0\0"
    properties = encode_properties(packet.properties, Place.DISCONNECT)
    if properties == b"\0":
        return _whole(0xE0, code) if packet.reason else b"\xe0\0"
    return _whole(0xE0, code, properties)


def _auth(packet: Auth, level: int) -> bytes:
    if level != V5:
        raise LocalProtocolError("MQTT 3.1.1 has no AUTH")
    code = _code(reasons.AUTH, packet.reason, "AUTH")
    properties = encode_properties(packet.properties, Place.AUTH)
    if packet.properties.authentication_method is None:
        if packet.reason or properties != b"\0":
            raise LocalProtocolError("AUTH without a method")
        return b"\xf0\0"
    return _whole(0xF0, code, properties)


_ENCODERS: Mapping[type, Callable[[Any, int], bytes]] = {
    Connect: _connect,
    Connack: _connack,
    Publish: _publish,
    Puback: _acknowledgements(0x40, reasons.PUBACK, Place.PUBACK),
    Pubrec: _acknowledgements(0x50, reasons.PUBREC, Place.PUBREC),
    Pubrel: _acknowledgements(0x62, reasons.PUBREL, Place.PUBREL),
    Pubcomp: _acknowledgements(0x70, reasons.PUBCOMP, Place.PUBCOMP),
    Subscribe: _subscribe,
    Suback: _suback,
    Unsubscribe: _unsubscribe,
    Unsuback: _unsuback,
    Pingreq: _pingreq,
    Pingresp: _pingresp,
    Disconnect: _disconnect,
    Auth: _auth,
}
