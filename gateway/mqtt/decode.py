"""Bytes to packets: one packet at a time, checked to the last bit. Whatever the bytes, nothing but RemoteProtocolError.

    first             packet type in bits 7-4, flags in bits 3-0
    remaining length  varint, read by the connection
    body              as many bytes: variable header, then payload

PUBLISH of "on" to "lamp" with QoS 1 and id 10: 32 0a 00 04 6c 61 6d 70 00 0a 6f 6e; in MQTT 5.0 there is one more byte
before the payload (here 00, no properties) and the length is 0b. PUBLISH is the hottest road of the broker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from gateway.mqtt import reasons, wire
from gateway.mqtt.errors import RemoteProtocolError
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
    Will,
)
from gateway.mqtt.properties import MOST, NONE, Place, decode_properties, is_topic_name, known
from gateway.mqtt.reasons import Reason

_SUCCESS = Reason.SUCCESS
_new = object.__new__

topics: dict[bytes, str] = {}
"""Topics that PUBLISH packets came with, checked. The connection's reader looks here too."""
_TOPICS, _TOPIC_BYTES = 8192, 128
"""How many topics are remembered, and up to what length: about 2 MB of usual ones, 10 MB of the worst."""


def decode(first: int, body: bytes, level: int) -> Packet:
    """Read one packet: its first byte, and all that follows the remaining length. Raises RemoteProtocolError.

    `level` is 4 or 5; CONNECT says its own.
    """
    return (_V5 if level == V5 else _V311)[first](first, body, level)


def decode_publish(first: int, body: bytes, level: int) -> Publish:
    """Read a PUBLISH; `first` is 0x30 to 0x3f. The topic is empty only beside an alias. Raises RemoteProtocolError."""
    publish = _new(Publish)  # 50 ns less than to call the class
    try:
        at = (body[0] << 8 | body[1]) + 2
        raw = body[2:at]
        publish.topic = topics.get(raw) or _topic(raw)
        if first & 6:
            publish.qos = qos = first >> 1 & 3
            publish.dup = first & 8 != 0
            publish.packet_id = body[at] << 8 | body[at + 1]
            at += 2
            if qos == 3 or not publish.packet_id:
                _refuse_publish(first)
        else:
            publish.qos = publish.packet_id = 0
            publish.dup = False
            if first & 8:
                _refuse_publish(first)
        publish.retain = first & 1 != 0
        if level != V5:
            publish.properties = NONE
        elif (size := body[at]) == 0:
            publish.properties = NONE
            at += 1
        elif (properties := known.get(body[at : at + 1 + size])) is not None:
            publish.properties = properties
            at += 1 + size
        else:
            publish.properties, at = decode_properties(body, at, Place.PUBLISH)
    except IndexError:
        raise wire.malformed("a PUBLISH is cut off") from None
    if at > len(body):
        raise wire.malformed("a PUBLISH is cut off")
    publish.payload = body[at:]
    if not publish.topic and publish.properties.topic_alias is None:
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "a PUBLISH without topic and alias")
    return publish


def _topic(raw: bytes) -> str:
    """A topic that is seen for the first time in a while; "" stands for none."""
    if not raw:
        return ""
    topic = wire.text_of(raw)
    if not is_topic_name(topic):
        raise RemoteProtocolError(Reason.TOPIC_NAME_INVALID, "a topic with a wildcard")  # [MQTT-3.3.2-2]
    if len(raw) <= _TOPIC_BYTES:
        if len(topics) >= _TOPICS:
            topics.clear()
        topics[raw] = topic
    return topic


def _refuse_publish(first: int) -> NoReturn:
    if first & 6 == 6:
        raise wire.malformed("a PUBLISH with QoS 3")  # [MQTT-3.3.1-4]
    if not first & 6:
        raise wire.malformed("a PUBLISH with QoS 0 and DUP")  # [MQTT-3.3.1-2]
    raise _zero_id("PUBLISH")


def _zero_id(packet: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.PROTOCOL_ERROR, f"a {packet} with packet id 0")  # [MQTT-2.2.1-3]


def _packet_id(body: bytes, packet: str) -> int:
    packet_id, _ = wire.u16(body, 0)
    if not packet_id:
        raise _zero_id(packet)
    return packet_id


def _reason(table: Mapping[int, Reason], code: int, packet: str) -> Reason:
    reason = table.get(code)
    if reason is None:
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, f"{packet} can't say 0x{code:02x}")
    return reason


def _end(body: bytes, at: int, packet: str) -> None:
    if at != len(body):
        raise wire.malformed(f"{len(body) - at} bytes behind the end of a {packet}")


def _connect(_first: int, body: bytes, _level: int) -> Connect:
    name, at = wire.utf8(body, 0)
    level, at = wire.u8(body, at)
    if name != "MQTT" or level not in (V311, V5):  # [MQTT-3.1.2-1] [MQTT-3.1.2-2]; 3.1's "MQIsdp" on purpose
        raise RemoteProtocolError(Reason.UNSUPPORTED_PROTOCOL_VERSION, f"protocol {name[:16]!r}, level {level}")
    flags, at = wire.u8(body, at)
    if flags & 0x01:
        raise wire.malformed("the reserved flag of CONNECT is set")  # [MQTT-3.1.2-3]
    if not flags & 0x04 and flags & 0x38:
        raise wire.malformed("QoS or retain of a will that is not there")  # [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    if flags & 0x18 == 0x18:
        raise wire.malformed("a will with QoS 3")  # [MQTT-3.1.2-12]
    if level == V311 and flags & 0xC0 == 0x40:
        raise wire.malformed("a password without a user name")  # 3.1.1: [MQTT-3.1.2-22]; 5.0 allows it
    keep_alive, at = wire.u16(body, at)
    properties = NONE
    if level == V5:
        properties, at = decode_properties(body, at, Place.CONNECT)
    client_id, at = wire.utf8(body, at)
    will = username = password = None
    if flags & 0x04:
        will, at = _will(flags, body, at, level)
    if flags & 0x80:
        username, at = wire.utf8(body, at)
    if flags & 0x40:
        password, at = wire.binary(body, at)
    _end(body, at, "CONNECT")
    return Connect(
        level=level,
        client_id=client_id,
        clean_start=flags & 0x02 != 0,
        keep_alive=keep_alive,
        username=username,
        password=password,
        will=will,
        properties=properties,
    )


def _will(flags: int, body: bytes, at: int, level: int) -> tuple[Will, int]:
    properties = NONE
    if level == V5:
        properties, at = decode_properties(body, at, Place.WILL)
    topic, at = wire.utf8(body, at)
    if not is_topic_name(topic):
        raise RemoteProtocolError(Reason.TOPIC_NAME_INVALID, "a will to an empty topic or one with a wildcard")
    payload, at = wire.binary(body, at)
    will = Will(topic=topic, payload=payload, qos=flags >> 3 & 3, retain=flags & 0x20 != 0, properties=properties)
    return will, at


def _connack(_first: int, body: bytes, level: int) -> Connack:
    flags, at = wire.u8(body, 0)
    code, at = wire.u8(body, at)
    if flags > 1:
        raise wire.malformed("reserved flags of CONNACK are set")  # [MQTT-3.2.2-1]
    properties = NONE
    if level == V5:
        reason = _reason(reasons.CONNACK, code, "CONNACK")
        properties, at = decode_properties(body, at, Place.CONNACK)
    else:
        reason = _reason(_RETURN_CODES, code, "CONNACK")
    _end(body, at, "CONNACK")
    if flags and reason:
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "a session with a refusal")  # [MQTT-3.2.2-6]
    return Connack(session_present=flags == 1, reason=reason, properties=properties)


_RETURN_CODES: Mapping[int, Reason] = {  # 3.1.1: 3.2.2.3
    0: Reason.SUCCESS,
    1: Reason.UNSUPPORTED_PROTOCOL_VERSION,
    2: Reason.CLIENT_IDENTIFIER_NOT_VALID,
    3: Reason.SERVER_UNAVAILABLE,
    4: Reason.BAD_USER_NAME_OR_PASSWORD,
    5: Reason.NOT_AUTHORIZED,
}

_Acknowledgement = Puback | Pubrec | Pubrel | Pubcomp


def _acknowledgements(
    packet: type[_Acknowledgement], table: Mapping[int, Reason]
) -> Callable[[int, bytes, int], _Acknowledgement]:
    name = packet.__name__.upper()
    place = Place[name]

    def read(_first: int, body: bytes, level: int) -> _Acknowledgement:
        if len(body) == 2 and (packet_id := body[0] << 8 | body[1]):
            return packet(packet_id)
        packet_id = _packet_id(body, name)
        at, reason, properties = 2, _SUCCESS, NONE
        if level == V5 and len(body) > 2:  # 3.4.2.1: success may be left out, 3.4.2.2.1: so may no properties
            reason, at = _reason(table, body[2], name), 3
            if len(body) > 3:
                properties, at = decode_properties(body, 3, place)
        _end(body, at, name)
        return packet(packet_id, reason, properties)

    return read


def _subscribe(_first: int, body: bytes, level: int) -> Subscribe:
    packet_id, at = _packet_id(body, "SUBSCRIBE"), 2
    properties = NONE
    if level == V5:
        properties, at = decode_properties(body, at, Place.SUBSCRIBE)
    subscriptions = []
    while at < len(body):
        text, at = wire.utf8(body, at)  # [MQTT-3.8.3-1]
        options, at = wire.u8(body, at)
        subscriptions.append(_subscription(text, options, level))
        _check_count(len(subscriptions), "SUBSCRIBE")
    if not subscriptions:
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "a SUBSCRIBE without a filter")  # [MQTT-3.8.3-2]
    return Subscribe(packet_id, tuple(subscriptions), properties)


def _subscription(text: str, options: int, level: int) -> Subscription:
    if options & (0xC0 if level == V5 else 0xFC):
        raise wire.malformed("reserved bits of subscription options are set")  # [MQTT-3.8.3-5]
    if options & 0x03 == 0x03:
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "a subscription with QoS 3")
    if options & 0x30 == 0x30:
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "a subscription with retain handling 3")
    if options & 0x04 and text.startswith("$share/"):
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "no local on a shared subscription")  # [MQTT-3.8.3-4]
    return Subscription(text, options & 0x03, options & 0x04 != 0, options & 0x08 != 0, options >> 4)


def _check_count(count: int, packet: str) -> None:
    if count > MOST:
        raise RemoteProtocolError(Reason.QUOTA_EXCEEDED, f"a {packet} with more than {MOST} filters")


def _unsubscribe(_first: int, body: bytes, level: int) -> Unsubscribe:
    packet_id, at = _packet_id(body, "UNSUBSCRIBE"), 2
    properties = NONE
    if level == V5:
        properties, at = decode_properties(body, at, Place.UNSUBSCRIBE)
    filters = []
    while at < len(body):
        text, at = wire.utf8(body, at)  # [MQTT-3.10.3-1]
        filters.append(text)
        _check_count(len(filters), "UNSUBSCRIBE")
    if not filters:
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "an UNSUBSCRIBE without a filter")  # [MQTT-3.10.3-2]
    return Unsubscribe(packet_id, tuple(filters), properties)


def _suback(_first: int, body: bytes, level: int) -> Suback:
    packet_id, at = _packet_id(body, "SUBACK"), 2
    properties = NONE
    table = _RETURN_CODES_OF_SUBACK
    if level == V5:
        properties, at = decode_properties(body, at, Place.SUBACK)
        table = reasons.SUBACK
    return Suback(packet_id, _reasons(table, body[at:], "SUBACK"), properties)


_RETURN_CODES_OF_SUBACK: Mapping[int, Reason] = {code: Reason(code) for code in (0, 1, 2, 0x80)}


def _unsuback(_first: int, body: bytes, level: int) -> Unsuback:
    packet_id = _packet_id(body, "UNSUBACK")
    if level != V5:
        _end(body, 2, "UNSUBACK")
        return Unsuback(packet_id, ())
    properties, at = decode_properties(body, 2, Place.UNSUBACK)
    return Unsuback(packet_id, _reasons(reasons.UNSUBACK, body[at:], "UNSUBACK"), properties)


def _reasons(table: Mapping[int, Reason], codes: bytes, packet: str) -> tuple[Reason, ...]:
    if not codes:
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, f"a {packet} without a code")
    return tuple(_reason(table, code, packet) for code in codes)


def _pingreq(_first: int, body: bytes, _level: int) -> Pingreq:
    _end(body, 0, "PINGREQ")
    return Pingreq()


def _pingresp(_first: int, body: bytes, _level: int) -> Pingresp:
    _end(body, 0, "PINGRESP")
    return Pingresp()


def _disconnect(_first: int, body: bytes, level: int) -> Disconnect:
    at, reason, properties = 0, _SUCCESS, NONE
    if level == V5 and body:  # 3.14.2.1: code and properties may be left out
        reason, at = _reason(reasons.DISCONNECT, body[0], "DISCONNECT"), 1
        if len(body) > 1:
            properties, at = decode_properties(body, 1, Place.DISCONNECT)
    _end(body, at, "DISCONNECT")
    return Disconnect(reason=reason, properties=properties)


def _auth(_first: int, body: bytes, _level: int) -> Auth:
    if not body:  # 3.15.2.1: success without properties may be left out
        return Auth()
    reason = _reason(reasons.AUTH, body[0], "AUTH")
    properties, at = decode_properties(body, 1, Place.AUTH)
    _end(body, at, "AUTH")
    if properties.authentication_method is None and (reason or properties is not NONE):
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "AUTH without a method")  # 3.15.2.2.2
    return Auth(reason=reason, properties=properties)


def _no_packet(first: int, _body: bytes, _level: int) -> NoReturn:
    raise wire.malformed(f"there is no packet 0x{first:02x}")  # [MQTT-2.1.3-1]


_Decoder = Callable[[int, bytes, int], Packet]


def _tables() -> tuple[tuple[_Decoder, ...], tuple[_Decoder, ...]]:
    """Decoders by first byte, for 5.0 and 3.1.1: a wrong flag is a packet that does not exist [MQTT-2.1.3-1]."""
    v5: list[_Decoder] = [_no_packet] * 256
    v5[0x10] = _connect
    v5[0x20] = _connack
    v5[0x30:0x40] = [decode_publish] * 16
    v5[0x40] = _acknowledgements(Puback, reasons.PUBACK)
    v5[0x50] = _acknowledgements(Pubrec, reasons.PUBREC)
    v5[0x62] = _acknowledgements(Pubrel, reasons.PUBREL)  # [MQTT-3.6.1-1]
    v5[0x70] = _acknowledgements(Pubcomp, reasons.PUBCOMP)
    v5[0x82] = _subscribe  # [MQTT-3.8.1-1]
    v5[0x90] = _suback
    v5[0xA2] = _unsubscribe  # [MQTT-3.10.1-1]
    v5[0xB0] = _unsuback
    v5[0xC0] = _pingreq
    v5[0xD0] = _pingresp
    v5[0xE0] = _disconnect  # [MQTT-3.14.1-1]
    v5[0xF0] = _auth  # [MQTT-3.15.1-1]
    return tuple(v5), (*v5[:0xF0], *[_no_packet] * 16)


_V5, _V311 = _tables()
