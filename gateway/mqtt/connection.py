"""One client's connection as the server sees it: what may come and go, when, how much. Rules about state are here.

    state        reads                             says
    START        CONNECT                           CONNACK with an error, which is nothing: nobody asked
    ASKED        nothing: packets wait             CONNACK
    PROVING      DISCONNECT                        CONNACK, AUTH (continue)
    CHALLENGED   AUTH (continue), DISCONNECT       CONNACK with an error
    OPEN         all but CONNECT; AUTH (again)     all but CONNACK and AUTH
    RENEWING     all but CONNECT and AUTH          all but CONNACK; AUTH (continue, success)
    RECHALLENGED all but CONNECT; AUTH (continue)  all but CONNACK and AUTH
    BROKEN       nothing: broken before CONNACK    CONNACK with an error
    HEARD        nothing: broken, or DISCONNECT    what OPEN says
    OVER         nothing                           nothing

PROVING to RECHALLENGED with AUTH exist only where CONNECT named an authentication method (4.12). What a session knows
(packet ids to the client, QoS 2 ids from it, windows) outlives the connection and is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from gateway.mqtt import reasons, wire
from gateway.mqtt.encode import encode
from gateway.mqtt.errors import LocalProtocolError
from gateway.mqtt.packets import (
    V5,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Unsuback,
)
from gateway.mqtt.properties import NONE, Place, Properties, encode_properties
from gateway.mqtt.reader import Kind, Pace, Reader, kind_name
from gateway.mqtt.reasons import Reason

_SUCCESS = Reason.SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the server allows on every connection. Bytes and counts.

    `connect_bytes` is the largest packet until CONNACK. `receive_maximum` binds MQTT 5.0 clients only: one of 3.1.1 is
    not told of it. `topic_alias_maximum` may be 0. CONNACK says them.
    """

    receive_maximum: int = 1000
    maximum_packet_size: int = 1024 * 1024
    connect_bytes: int = 16 * 1024
    topic_alias_maximum: int = 64


class State(IntEnum):
    """Where a connection stands; the table is at the head of the file."""

    START = 0
    ASKED = 1
    PROVING = 2
    CHALLENGED = 3
    OPEN = 4
    RENEWING = 5
    RECHALLENGED = 6
    HEARD = 7
    BROKEN = 8
    OVER = 9


class Word(IntEnum):
    """What a server says, as far as the state minds."""

    ACCEPT = 0  # CONNACK with success
    REFUSE = 1  # CONNACK with an error
    CHALLENGE = 2  # AUTH, continue
    PROVEN = 3  # AUTH, success
    DISCONNECT = 4
    OTHER = 5


_ORDINARY = (
    Kind.PUBLISH,
    Kind.PUBACK,
    Kind.PUBREC,
    Kind.PUBREL,
    Kind.PUBCOMP,
    Kind.SUBSCRIBE,
    Kind.UNSUBSCRIBE,
    Kind.PINGREQ,
    Kind.DISCONNECT,
)
_READS: Mapping[State, tuple[Pace, frozenset[int]]] = {
    State.START: (Pace.CAREFUL, frozenset({Kind.CONNECT})),  # [MQTT-3.1.0-1]
    State.ASKED: (Pace.HELD, frozenset()),
    State.PROVING: (Pace.CAREFUL, frozenset({Kind.DISCONNECT})),  # [MQTT-3.1.2-30]
    State.CHALLENGED: (Pace.CAREFUL, frozenset({Kind.AUTH, Kind.DISCONNECT})),
    State.OPEN: (Pace.OPEN, frozenset({*_ORDINARY, Kind.AUTH})),  # [MQTT-3.1.0-2]: no CONNECT
    State.RENEWING: (Pace.OPEN, frozenset(_ORDINARY)),
    State.RECHALLENGED: (Pace.OPEN, frozenset({*_ORDINARY, Kind.AUTH})),
    State.HEARD: (Pace.OVER, frozenset()),
    State.BROKEN: (Pace.OVER, frozenset()),
    State.OVER: (Pace.OVER, frozenset()),
}
_ON_AUTH: Mapping[State, tuple[Reason, State]] = {
    State.CHALLENGED: (Reason.CONTINUE_AUTHENTICATION, State.PROVING),
    State.OPEN: (Reason.REAUTHENTICATE, State.RENEWING),
    State.RECHALLENGED: (Reason.CONTINUE_AUTHENTICATION, State.RENEWING),
}
"""What AUTH must say, and where it leads."""
_ENDS = {Word.DISCONNECT: State.OVER}
_SAYS: Mapping[State, Mapping[Word, State]] = {
    State.START: {Word.REFUSE: State.OVER} | _ENDS,
    State.ASKED: {Word.ACCEPT: State.OPEN, Word.REFUSE: State.OVER} | _ENDS,
    State.PROVING: {Word.ACCEPT: State.OPEN, Word.REFUSE: State.OVER, Word.CHALLENGE: State.CHALLENGED} | _ENDS,
    State.CHALLENGED: {Word.REFUSE: State.OVER} | _ENDS,
    State.OPEN: {Word.OTHER: State.OPEN} | _ENDS,
    State.RENEWING: {Word.OTHER: State.RENEWING, Word.CHALLENGE: State.RECHALLENGED, Word.PROVEN: State.OPEN} | _ENDS,
    State.RECHALLENGED: {Word.OTHER: State.RECHALLENGED} | _ENDS,
    State.HEARD: {Word.OTHER: State.HEARD} | _ENDS,
    State.BROKEN: {Word.REFUSE: State.OVER} | _ENDS,
    State.OVER: {},
}
_CONNECTED = frozenset({State.OPEN, State.RENEWING, State.RECHALLENGED, State.HEARD})
_ACK_HEADS: Mapping[type[Packet], int] = {
    Puback: 0x40020000,
    Pubrec: 0x50020000,
    Pubrel: 0x62020000,
    Pubcomp: 0x70020000,
}
_PUBREC, _PUBREL = _ACK_HEADS[Pubrec], _ACK_HEADS[Pubrel]

ToClient = Connack | Puback | Pubrec | Pubrel | Pubcomp | Suback | Unsuback | Pingresp | Disconnect | Auth


class Connection(Reader):
    """The server's end of a connection: `feed` bytes, iterate `events`, `send` packets.

    `level` is 4 or 5 once a CONNECT was read, also one that was refused because of its form; 0 where nobody can be told
    anything. The `client_…` ones are what CONNECT said; `keep_alive` too (s, 0 = off), until CONNACK says another.
    `is_connected`: CONNACK with success was said; it stays true.
    """

    __slots__ = (
        "_is_brisk",
        "_is_lasting",
        "_method",
        "_said",
        "_state",
        "client_maximum_packet_size",
        "client_receive_maximum",
        "client_topic_alias_maximum",
        "is_connected",
        "keep_alive",
        "terms",
        "wants_problem_information",
    )

    def __init__(self, terms: Terms) -> None:
        super().__init__(largest=terms.connect_bytes)
        self.terms = terms
        self.keep_alive = 0
        self.client_receive_maximum = 65535
        self.client_maximum_packet_size: int | None = None
        self.client_topic_alias_maximum = 0
        self.wants_problem_information = True
        self.is_connected = False
        self._state = State.START
        self._method: str | None = None
        self._is_lasting = False  # the session outlives the connection, as CONNECT asked
        self._is_brisk = False  # connected, and acknowledgements of four bytes may go
        self._said: dict[str, int] | None = None  # topic aliases to the client

    def __repr__(self) -> str:
        return f"<Connection {self._state.name.lower()} level={self.level} buffered={self.buffered}>"

    # what comes

    def _admit(self, kind: int) -> None:
        if kind not in _READS[self._state][1]:
            self._fail(Reason.PROTOCOL_ERROR, f"{kind_name(kind)} while {self._state.name.lower()}")

    def _learn(self, packet: Packet) -> None:
        if isinstance(packet, Connect):
            self._on_connect(packet)
        elif isinstance(packet, Auth):
            self._on_auth(packet)
        elif isinstance(packet, Disconnect):
            expiry = packet.properties.session_expiry
            if expiry and not self._is_lasting:  # 3.14.2.2.2
                self._fail(Reason.PROTOCOL_ERROR, "DISCONNECT gives a session expiry to a session without")
            self._go(State.HEARD)

    def _on_connect(self, connect: Connect) -> None:
        properties = connect.properties
        self.level = connect.level
        self.keep_alive = connect.keep_alive
        self.client_receive_maximum = properties.receive_maximum or 65535
        self.client_maximum_packet_size = properties.maximum_packet_size
        self.client_topic_alias_maximum = properties.topic_alias_maximum or 0
        self.wants_problem_information = properties.request_problem_information != 0
        self._is_lasting = bool(properties.session_expiry)
        self._method = properties.authentication_method
        self._go(State.ASKED if self._method is None else State.PROVING)

    def _on_auth(self, auth: Auth) -> None:
        due, following = _ON_AUTH[self._state]
        if auth.reason is not due:
            self._fail(Reason.PROTOCOL_ERROR, f"AUTH with {auth.reason.name.lower()} while {self._state.name.lower()}")
        if auth.properties.authentication_method != self._method:  # [MQTT-4.12.0-7] [MQTT-4.12.1-1]
            self._fail(Reason.PROTOCOL_ERROR, "AUTH with another method than CONNECT, or without one there")
        self._go(following)

    def _broken(self) -> None:
        if self._state is State.START:
            self.level = _level_to_answer(self._buffer[self._at : self._at + 16])
        self._go(State.HEARD)

    def _go(self, state: State) -> None:
        if state is State.HEARD and not self.is_connected:
            state = State.BROKEN
        self._state = state
        self._read_at(_READS[state][0])
        self._is_brisk = state in _CONNECTED and (self.client_maximum_packet_size or 4) >= 4

    # what goes

    def send(self, packet: ToClient) -> bytes:
        """The bytes of a packet, on the client's level and within its limits. Raises LocalProtocolError out of order.

        b"" where nothing is to be said: after the last word (DISCONNECT, CONNACK with an error), where the level has no
        such packet, and where the client takes none that large. CONNACK with success says the terms.
        """
        if (head := _ACK_HEADS.get(type(packet))) is not None:
            ack: Any = packet
            packet_id: int = ack.packet_id
            if (waiting := self._unacknowledged) and head != _PUBREL and (head != _PUBREC or ack.reason >= 0x80):
                waiting.discard(packet_id)  # [MQTT-4.9.0-2] once for each id
            if self._is_brisk and ack.reason is _SUCCESS and ack.properties is NONE and packet_id:
                return (head | packet_id).to_bytes(4, "big")
        state = self._state
        if state is State.OVER:
            return b""  # [MQTT-3.14.4-1]
        word = _word(packet)
        following = _SAYS[state].get(word)
        if following is None:  # [MQTT-3.2.0-1] [MQTT-3.2.0-2]
            raise LocalProtocolError(f"{type(packet).__name__.upper()} while {state.name.lower()}")
        data = self._worded(packet)
        if isinstance(packet, Connack) and word is Word.ACCEPT:
            if data:
                self._accept(packet)
            else:
                following = State.OVER  # it takes no CONNACK, as small as we can make it
        self._go(following)
        return data

    def _worded(self, packet: ToClient) -> bytes:
        if isinstance(packet, Connack):
            if not self.level or (self.level == V311 and packet.reason not in reasons.RETURN_CODES):
                return b""  # it is closed without a word
            return self._fitting(self._greeting(packet))
        if isinstance(packet, Disconnect):
            if packet.properties.session_expiry is not None:
                raise LocalProtocolError("DISCONNECT of a server with a session expiry")  # [MQTT-3.14.2-2]
            if self.level != V5 or not self.is_connected:
                return b""  # [MQTT-3.14.0-1]
        elif isinstance(packet, Auth):
            packet = replace(packet, properties=self._with_method(packet.properties))
        return self._fitting(packet)

    def _greeting(self, connack: Connack) -> Connack:
        """CONNACK with what this file knows and holds the client to."""
        if connack.reason:
            return replace(connack, session_present=False)  # [MQTT-3.2.2-6]
        terms = self.terms
        properties = replace(
            self._with_method(connack.properties),
            receive_maximum=terms.receive_maximum,
            maximum_packet_size=terms.maximum_packet_size,
            topic_alias_maximum=terms.topic_alias_maximum or None,
        )
        return replace(connack, properties=properties)

    def _with_method(self, properties: Properties) -> Properties:
        if properties.authentication_method not in (None, self._method):
            raise LocalProtocolError("another authentication method than CONNECT's")  # [MQTT-4.12.0-5]
        return replace(properties, authentication_method=self._method)

    def _accept(self, connack: Connack) -> None:
        self.is_connected = True
        if connack.properties.server_keep_alive is not None:
            self.keep_alive = connack.properties.server_keep_alive  # [MQTT-3.2.2-21]
        self._largest = self.terms.maximum_packet_size
        self._quota = self.terms.receive_maximum
        self._alias_maximum = self.terms.topic_alias_maximum

    def _fitting(self, packet: ToClient | Publish) -> bytes:
        """Bytes no more than the client takes; reason string and user properties go first. b"" where nothing helps."""
        most = self.client_maximum_packet_size
        if not self.wants_problem_information and not isinstance(packet, (Connack, Disconnect, Publish)):
            packet = _less(packet, reason_string=None, user=())  # [MQTT-3.1.2-29]
        data = encode(packet, self.level)
        if most is None or len(data) <= most:  # [MQTT-3.1.2-24]
            return data
        if isinstance(packet, Publish):
            return b""
        for cut in _CUTS:  # [MQTT-3.2.2-19] [MQTT-3.4.2-2] [MQTT-3.4.2-3] and so on
            data = encode(_less(packet, **cut), self.level)
            if len(data) <= most:
                return data
        return b""

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,  # noqa: FBT001 - as in the noun
        dup: bool,  # noqa: FBT001 - as in the noun
        packet_id: int,
        properties: Properties,
    ) -> bytes | None:
        """The bytes of one PUBLISH, with a topic alias where the client takes them; they must be sent, in this order.

        None where it is larger than the client takes: it counts as sent [MQTT-3.1.2-25]. b"" after the last word.
        """
        if self._state is State.OVER:
            return b""  # [MQTT-3.14.4-1]
        if not self.is_connected:
            raise LocalProtocolError(f"PUBLISH while {self._state.name.lower()}")  # [MQTT-3.2.0-1]
        packet = Publish(topic, payload, qos, retain, dup, packet_id, properties)
        if self.client_topic_alias_maximum and (data := self._aliased(packet)):
            return data
        return self._fitting(packet) or None

    def _aliased(self, packet: Publish) -> bytes:
        """With the topic's alias; b"" where there is none left, or the packet doesn't fit with it.

        What was said on another connection was forgotten with it [MQTT-3.3.2-7]. We take no more than we allow.
        """
        said = self._said
        if said is None:
            said = self._said = {}
        alias = said.get(packet.topic)
        if alias is not None:
            data = _publish_by_alias(packet, alias)
            return data if len(data) <= (self.client_maximum_packet_size or len(data)) else b""
        alias = len(said) + 1
        most = min(self.client_topic_alias_maximum, self.terms.topic_alias_maximum)
        if alias > most:  # [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11]
            return b""
        both = replace(packet, properties=replace(packet.properties, topic_alias=alias))
        data = self._fitting(both)  # the first carries the topic too
        if data:
            said[packet.topic] = alias
        return data


def _publish_by_alias(packet: Publish, alias: int) -> bytes:
    """What `encode` makes of it with the alias for its topic, in two thirds of the time."""
    field = encode_properties(packet.properties, Place.PUBLISH)
    size, at = wire.varint(field, 0)
    body = b"".join(
        (
            b"\0\0",
            packet.packet_id.to_bytes(2, "big") if packet.qos else b"",
            wire.varint_bytes(size + 3),
            (0x230000 | alias).to_bytes(3, "big"),
            field[at:],
            packet.payload,
        )
    )
    first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    return first.to_bytes(1, "big") + wire.varint_bytes(len(body)) + body


_CUTS: tuple[dict[str, Any], ...] = ({"reason_string": None}, {"reason_string": None, "user": ()})


def _less(packet: ToClient, **cut: Any) -> ToClient:
    if isinstance(packet, Pingresp) or packet.properties is NONE:
        return packet
    properties = replace(packet.properties, **cut)
    return replace(packet, properties=NONE if properties == NONE else properties)


def _word(packet: ToClient) -> Word:
    if isinstance(packet, Connack):
        return Word.REFUSE if packet.reason else Word.ACCEPT
    if isinstance(packet, Disconnect):
        return Word.DISCONNECT
    if isinstance(packet, Auth):
        if packet.reason is Reason.REAUTHENTICATE:
            raise LocalProtocolError("AUTH of a server asks for a new login")  # 3.15.2.1
        return Word.CHALLENGE if packet.reason else Word.PROVEN
    return Word.OTHER


def _level_to_answer(packet: bytes | bytearray) -> int:
    """The level on which a CONNECT that can't be read may be answered, 0 for none [MQTT-3.1.2-2]."""
    at = 1
    while at < len(packet) and packet[at] > 127:
        at += 1
    name = packet[at + 3 : at + 3 + int.from_bytes(packet[at + 1 : at + 3], "big")]
    at += 3 + len(name)
    if packet[:1] != b"\x10" or name not in (b"MQTT", b"MQIsdp") or at >= len(packet):
        return 0
    return V5 if packet[at] >= V5 else V311
