"""The properties of MQTT 5.0 (2.2.2): one noun that holds any of them, and their bytes.

    property length   varint, bytes of all that follow
    identifier        1 byte ┐ any number of these,
    value             by kind ┘ in any order

"content type: a/b" alone is 06 03 00 03 61 2f 62. The table below says for each its identifier, kind, and in which
packets it may stand; those of a will stand in CONNECT too, in a field of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import Any, NamedTuple

from gateway.mqtt import wire
from gateway.mqtt.errors import LocalProtocolError, RemoteProtocolError
from gateway.mqtt.reasons import Reason


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Properties:
    """What a property field says; None, or an empty tuple, where it says nothing. Intervals in s.

    `user` keeps order and duplicates. `subscription_identifiers` holds one in SUBSCRIBE, any number in PUBLISH.
    Not frozen only because a frozen one takes 2.9 us to make, this 0.5; nobody changes one: they are shared.
    """

    payload_format: int | None = None
    message_expiry: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: tuple[int, ...] = ()
    session_expiry: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_available: int | None = None
    subscription_identifiers_available: int | None = None
    shared_available: int | None = None
    raw: bytes | None = field(default=None, init=False, repr=False, compare=False)
    """The very bytes of these properties where they came with a PUBLISH and are few: it mostly goes on unchanged."""


NONE = Properties()
"""No properties. Shared: most packets have none."""


class Place(IntEnum):
    """Where properties stand: a packet, by its type (2.1.2), or the will inside CONNECT."""

    WILL = 0
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
    DISCONNECT = 14
    AUTH = 15


class _Kind(NamedTuple):
    read: Callable[[bytes, int], tuple[Any, int]]
    write: Callable[[Any], bytes]


class _Row(NamedTuple):
    identifier: int
    name: str
    kind: _Kind
    places: frozenset[Place]
    is_legal: Callable[[Any], bool] | None = None
    fault: Reason = Reason.PROTOCOL_ERROR


def _is_0_or_1(value: int) -> bool:
    return value <= 1


def _is_positive(value: int) -> bool:
    return value > 0


def is_topic_name(text: str) -> bool:
    """Whether something can be published under this name (4.7): not empty, no wildcards."""
    return text != "" and "+" not in text and "#" not in text  # [MQTT-4.7.3-1] [MQTT-4.7.1-1]


def _rows() -> tuple[_Row, ...]:
    u8 = _Kind(wire.u8, wire.u8_bytes)
    u16 = _Kind(wire.u16, wire.u16_bytes)
    u32 = _Kind(wire.u32, wire.u32_bytes)
    varint = _Kind(wire.varint, wire.varint_bytes)
    utf8 = _Kind(wire.utf8, wire.utf8_bytes)
    binary = _Kind(wire.binary, wire.binary_bytes)
    pair = _Kind(wire.pair, wire.pair_bytes)
    will, connect, connack, publish = Place.WILL, Place.CONNECT, Place.CONNACK, Place.PUBLISH
    subscribe, disconnect, auth = Place.SUBSCRIBE, Place.DISCONNECT, Place.AUTH
    everywhere = frozenset(Place)
    message = frozenset({publish, will})
    login = frozenset({connect, connack, auth})
    both = frozenset({connect, connack})
    answer = everywhere - {will, connect, publish, subscribe, Place.UNSUBSCRIBE}
    asked, granted = frozenset({connect}), frozenset({connack})
    invalid_alias = Reason.TOPIC_ALIAS_INVALID
    return (
        _Row(0x01, "payload_format", u8, message, _is_0_or_1),
        _Row(0x02, "message_expiry", u32, message),
        _Row(0x03, "content_type", utf8, message),
        _Row(0x08, "response_topic", utf8, message, is_topic_name),  # [MQTT-3.3.2-14]
        _Row(0x09, "correlation_data", binary, message),
        _Row(0x0B, "subscription_identifiers", varint, frozenset({publish, subscribe}), _is_positive),
        _Row(0x11, "session_expiry", u32, both | {disconnect}),
        _Row(0x12, "assigned_client_id", utf8, granted),
        _Row(0x13, "server_keep_alive", u16, granted),
        _Row(0x15, "authentication_method", utf8, login),
        _Row(0x16, "authentication_data", binary, login),
        _Row(0x17, "request_problem_information", u8, asked, _is_0_or_1),
        _Row(0x18, "will_delay", u32, frozenset({will})),
        _Row(0x19, "request_response_information", u8, asked, _is_0_or_1),
        _Row(0x1A, "response_information", utf8, granted),
        _Row(0x1C, "server_reference", utf8, granted | {disconnect}),
        _Row(0x1F, "reason_string", utf8, answer),
        _Row(0x21, "receive_maximum", u16, both, _is_positive),
        _Row(0x22, "topic_alias_maximum", u16, both),
        _Row(0x23, "topic_alias", u16, frozenset({publish}), _is_positive, invalid_alias),  # [MQTT-3.3.2-8]
        _Row(0x24, "maximum_qos", u8, granted, _is_0_or_1),
        _Row(0x25, "retain_available", u8, granted, _is_0_or_1),
        _Row(0x26, "user", pair, everywhere),
        _Row(0x27, "maximum_packet_size", u32, both, _is_positive),
        _Row(0x28, "wildcard_available", u8, granted, _is_0_or_1),
        _Row(0x29, "subscription_identifiers_available", u8, granted, _is_0_or_1),
        _Row(0x2A, "shared_available", u8, granted, _is_0_or_1),
    )


_ROWS = _rows()
_NAMES = {row.identifier: row.name for row in _ROWS}
_BY_PLACE = {place: {row.identifier: row for row in _ROWS if place in row.places} for place in Place}
_BYTES = tuple(bytes((identifier,)) for identifier in range(0x2B))
_USER, _IDENTIFIER = 0x26, 0x0B
_PUBLISH = Place.PUBLISH
MOST = 10_000
"""Properties in one packet: a megabyte of empty ones would hold the loop for a third of a second."""

known: dict[bytes, Properties] = {}
"""Property fields of PUBLISH with their length byte, checked: a publisher mostly says the same of each message."""
_KNOWN, _KNOWN_BYTES = 2048, 127
"""How many are remembered, and up to what length (one that takes a byte): 5 MB of the worst."""


def decode_properties(body: bytes, at: int, place: Place) -> tuple[Properties, int]:
    """Read a property field and return it with the offset behind it. Raises RemoteProtocolError.

    Malformed (0x81): bytes that can't be read, an unknown identifier. Protocol error (0x82): a property that this
    packet can't carry, one given twice, a value that its property can't have. Topic alias 0 is 0x94. More than `MOST`
    of them is 0x97.
    """
    size, start = wire.varint(body, at)  # [MQTT-2.2.2-1]
    if not size:
        return NONE, start
    end = start + size
    if end > len(body):
        raise wire.malformed(f"{size} bytes of properties are announced, {len(body) - start} are there")
    if place is not _PUBLISH or size > _KNOWN_BYTES:
        return _decoded(body[start:end], place), end
    raw = body[at:end]
    properties = known.get(raw)
    if properties is None:
        properties = _decoded(raw[1:], place)
        properties.raw = raw
        if len(known) >= _KNOWN:
            known.clear()
        known[raw] = properties
    return properties, end


def _decoded(raw: bytes, place: Place) -> Properties:
    rows = _BY_PLACE[place]
    properties = Properties()
    user: list[tuple[str, str]] = []
    identifiers: list[int] = []
    at, left, end = 0, MOST, len(raw)
    while at < end:
        left -= 1
        if left < 0:
            raise RemoteProtocolError(Reason.QUOTA_EXCEEDED, f"more than {MOST} properties in a packet")
        identifier = raw[at]
        if identifier == _USER:  # goes everywhere, and often
            pair, at = wire.pair(raw, at + 1)
            user.append(pair)
            continue
        row = rows.get(identifier)
        if row is None:
            raise _stranger(identifier, place)
        value, at = row.kind.read(raw, at + 1)
        if row.is_legal is not None and not row.is_legal(value):
            raise RemoteProtocolError(row.fault, f"{row.name} must not be {str(value)[:64]!r}")
        if identifier == _IDENTIFIER and (place is _PUBLISH or not identifiers):
            identifiers.append(value)
        elif identifier == _IDENTIFIER or getattr(properties, row.name) is not None:
            raise RemoteProtocolError(Reason.PROTOCOL_ERROR, f"{row.name} is given twice")
        else:
            setattr(properties, row.name, value)
    properties.user = tuple(user)
    properties.subscription_identifiers = tuple(identifiers)
    if properties.authentication_data is not None and properties.authentication_method is None:
        raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "authentication data without a method")
    return properties


def _stranger(identifier: int, place: Place) -> RemoteProtocolError:
    if identifier in _NAMES:
        return RemoteProtocolError(Reason.PROTOCOL_ERROR, f"{_NAMES[identifier]} has no place in {place.name}")
    return wire.malformed(f"there is no property 0x{identifier:02x}")


class _Writer(NamedTuple):
    """What one place needs to write: how, the values, and all that must be unset. Repeated properties are apart."""

    rows: tuple[tuple[bytes, Callable[[Any], bytes]], ...]
    values: Callable[[Properties], Any]
    others: Callable[[Properties], Any]
    unset: Any


def _writer(place: Place) -> _Writer:
    here = _BY_PLACE[place].values()
    rows = [row for row in here if row.identifier not in (_USER, _IDENTIFIER)]
    # Of a single name attrgetter would return the value itself: two more stand behind, and nobody looks at them.
    values = attrgetter(*(row.name for row in rows), "user", "user")
    others = attrgetter(*(row.name for row in _ROWS if row not in here))
    return _Writer(tuple((_BYTES[row.identifier], _checked(row)) for row in rows), values, others, others(NONE))


def _checked(row: _Row) -> Callable[[Any], bytes]:
    write, is_legal = row.kind.write, row.is_legal
    if is_legal is None:
        return write

    def write_legal(value: Any) -> bytes:
        if not is_legal(value):
            raise LocalProtocolError(f"{row.name} must not be {value!r}")
        return write(value)

    return write_legal


_WRITERS = {place: _writer(place) for place in Place}
_write_identifier = _checked(next(row for row in _ROWS if row.identifier == _IDENTIFIER))


def encode_properties(properties: Properties, place: Place) -> bytes:
    """Write a property field with its length. Raises LocalProtocolError where this packet can't carry that."""
    if properties is NONE:
        return b"\0"
    if place is _PUBLISH and properties.raw is not None:
        return properties.raw
    rows, values, others, unset = _WRITERS[place]
    if others(properties) != unset:
        wrong = [row.name for row in _ROWS if getattr(properties, row.name) != getattr(NONE, row.name)]
        raise LocalProtocolError(f"{place.name} has no place for one of {', '.join(wrong)}")
    parts = [
        identifier + write(value)
        for (identifier, write), value in zip(rows, values(properties), strict=False)
        if value is not None
    ]
    if identifiers := properties.subscription_identifiers:
        if len(identifiers) > 1 and place is Place.SUBSCRIBE:
            raise LocalProtocolError("a SUBSCRIBE takes one subscription identifier")
        parts += [b"\x0b" + _write_identifier(identifier) for identifier in identifiers]
    if properties.user:
        parts += [b"\x26" + wire.pair_bytes(pair) for pair in properties.user]
    if properties.authentication_data is not None and properties.authentication_method is None:
        raise LocalProtocolError("authentication data without a method")
    raw = b"".join(parts)
    return wire.varint_bytes(len(raw)) + raw
