"""A server's connection as the client sees it: what tests, bench and doctor need of a client, and a strict judge.

    state        reads                                  says
    START        nothing                                CONNECT
    ASKED        CONNACK; AUTH (continue)               all but CONNECT and AUTH; with a method only DISCONNECT
    CHALLENGED   CONNACK with an error                  AUTH (continue), DISCONNECT
    OPEN         all but CONNACK and AUTH               all but CONNECT; AUTH (again)
    RENEWING     all but CONNACK; AUTH (continue, done) all but CONNECT and AUTH
    RECHALLENGED all but CONNACK and AUTH               all but CONNECT; AUTH (continue)
    BROKEN       nothing: the server broke the rules    DISCONNECT
    OVER         nothing                                nothing

CHALLENGED, RENEWING and RECHALLENGED exist only where CONNECT named an authentication method (4.12). A session is its
user's: packet ids to use, what to send again. Here is only what one connection must keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum

from gateway.mqtt.encode import encode
from gateway.mqtt.errors import LocalProtocolError
from gateway.mqtt.packets import (
    V5,
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
    Unsuback,
    Unsubscribe,
)
from gateway.mqtt.properties import NONE, Properties
from gateway.mqtt.reader import Kind, Pace, Reader, kind_name
from gateway.mqtt.reasons import Reason

_SUCCESS = Reason.SUCCESS
NO_MAXIMUM = 65535
"""Publishes in flight where no receive maximum was said."""
LARGEST = 5 + 268_435_455
"""Bytes of the largest packet there can be (2.1.4)."""


class State(IntEnum):
    """Where a connection stands; the table is at the head of the file."""

    START = 0
    ASKED = 1
    CHALLENGED = 2
    OPEN = 3
    RENEWING = 4
    RECHALLENGED = 5
    BROKEN = 6
    OVER = 7


class Word(IntEnum):
    """What a client says, as far as the state minds."""

    CONNECT = 0
    ANSWER = 1  # AUTH, continue
    AGAIN = 2  # AUTH, re-authenticate
    DISCONNECT = 3
    OTHER = 4


_ORDINARY = (
    Kind.PUBLISH,
    Kind.PUBACK,
    Kind.PUBREC,
    Kind.PUBREL,
    Kind.PUBCOMP,
    Kind.SUBACK,
    Kind.UNSUBACK,
    Kind.PINGRESP,
    Kind.DISCONNECT,
)
_READS: Mapping[State, tuple[Pace, frozenset[int]]] = {
    State.START: (Pace.CAREFUL, frozenset()),
    State.ASKED: (Pace.CAREFUL, frozenset({Kind.CONNACK, Kind.AUTH})),  # [MQTT-3.2.0-1]
    State.CHALLENGED: (Pace.CAREFUL, frozenset({Kind.CONNACK})),
    State.OPEN: (Pace.OPEN, frozenset(_ORDINARY)),
    State.RENEWING: (Pace.OPEN, frozenset({*_ORDINARY, Kind.AUTH})),
    State.RECHALLENGED: (Pace.OPEN, frozenset(_ORDINARY)),
    State.BROKEN: (Pace.OVER, frozenset()),
    State.OVER: (Pace.OVER, frozenset()),
}
_ENDS = {Word.DISCONNECT: State.OVER}
_SAYS: Mapping[State, Mapping[Word, State]] = {
    State.START: {Word.CONNECT: State.ASKED},  # [MQTT-3.1.0-1]
    State.ASKED: {Word.OTHER: State.ASKED} | _ENDS,
    State.CHALLENGED: {Word.ANSWER: State.ASKED} | _ENDS,
    State.OPEN: {Word.OTHER: State.OPEN, Word.AGAIN: State.RENEWING} | _ENDS,
    State.RENEWING: {Word.OTHER: State.RENEWING} | _ENDS,
    State.RECHALLENGED: {Word.OTHER: State.RECHALLENGED, Word.ANSWER: State.RENEWING} | _ENDS,
    State.BROKEN: _ENDS,
    State.OVER: {},
}

ToServer = Publish | Puback | Pubrec | Pubrel | Pubcomp | Subscribe | Unsubscribe | Pingreq | Disconnect | Auth
_Answer = Puback | Pubrec | Pubcomp | Suback | Unsuback


class ClientConnection(Reader):
    """The client's end: `connect` gives the first bytes, `feed` takes the server's, `events` yields its packets.

    Raises RemoteProtocolError where the server breaks a rule, LocalProtocolError where we were about to. `connack` is
    what the server answered; `client_id` and `keep_alive` (s) are CONNECT's until CONNACK gives others.
    """

    __slots__ = (
        "_asked",
        "_awaited",
        "_bound",
        "_in_flight",
        "_pings",
        "_state",
        "client_id",
        "connack",
        "keep_alive",
    )
    _is_client = True

    def __init__(self) -> None:
        super().__init__(largest=LARGEST)
        self.client_id = ""
        self.keep_alive = 0
        self.connack: Connack | None = None
        self._asked = Connect()
        self._state = State.START
        # By packet id: which answer comes, and how many codes it has, or how many places in flight it frees.
        self._awaited: dict[int, tuple[type[_Answer | Pubrel], int]] = {}
        self._in_flight = 0
        self._pings = 0
        self._bound: set[int] = set()  # topic aliases that we gave

    def __repr__(self) -> str:
        return f"<ClientConnection {self._state.name.lower()} level={self.level} buffered={self.buffered}>"

    @property
    def is_connected(self) -> bool:
        """CONNACK with success came; it stays true."""
        return self.connack is not None and not self.connack.reason

    @property
    def granted(self) -> Properties:
        """What CONNACK's properties say, as far as it came."""
        return self.connack.properties if self.connack is not None else NONE

    # what comes

    def events(self) -> Iterator[Packet]:
        """The server's packets, each checked against what was asked of it. Raises RemoteProtocolError."""
        for packet in super().events():
            if isinstance(packet, (Puback, Pubrec, Pubcomp, Suback, Unsuback)):
                self._on_answer(packet)
            yield packet

    def _admit(self, kind: int) -> None:
        if kind not in _READS[self._state][1] or (kind == Kind.DISCONNECT and self.level != V5):
            self._fail(Reason.PROTOCOL_ERROR, f"{kind_name(kind)} while {self._state.name.lower()}")

    def _learn(self, packet: Packet) -> None:
        if isinstance(packet, Connack):
            self._on_connack(packet)
        elif isinstance(packet, Auth):
            self._on_auth(packet)
        elif isinstance(packet, Disconnect):
            if packet.properties.session_expiry is not None:
                self._fail(Reason.PROTOCOL_ERROR, "a server's DISCONNECT with a session expiry")  # [MQTT-3.14.2-2]
            self._go(State.OVER)
        elif isinstance(packet, Pingresp):
            self._pings -= 1
            if self._pings < 0:
                self._fail(Reason.PROTOCOL_ERROR, "PINGRESP without PINGREQ")

    def _on_connack(self, connack: Connack) -> None:
        properties = connack.properties
        if connack.reason:
            self.connack = connack
            self._go(State.OVER)
            return
        if self._state is State.CHALLENGED:
            self._fail(Reason.PROTOCOL_ERROR, "CONNACK before the answer to AUTH")
        if connack.session_present and self._asked.clean_start:
            self._fail(Reason.PROTOCOL_ERROR, "a session is present after a clean start")  # [MQTT-3.2.2-2]
        if properties.authentication_method != self._asked.properties.authentication_method:
            self._fail(Reason.PROTOCOL_ERROR, "CONNACK with another method than CONNECT")  # [MQTT-4.12.0-5]
        if (properties.assigned_client_id is None) == (self.level == V5 and not self.client_id):
            self._fail(Reason.PROTOCOL_ERROR, "an assigned client id comes where none was sent")  # [MQTT-3.2.2-16]
        self.connack = connack
        self.client_id = properties.assigned_client_id or self.client_id
        if properties.server_keep_alive is not None:
            self.keep_alive = properties.server_keep_alive  # [MQTT-3.1.2-21]
        if self._in_flight > (properties.receive_maximum or NO_MAXIMUM):
            raise LocalProtocolError("more publishes than the server takes were sent before its CONNACK")
        self._go(State.OPEN)

    def _on_auth(self, auth: Auth) -> None:
        if auth.properties.authentication_method != self._asked.properties.authentication_method:
            self._fail(Reason.PROTOCOL_ERROR, "AUTH with another method than CONNECT")  # [MQTT-4.12.0-5]
        is_first = self._state is State.ASKED
        if auth.reason is Reason.CONTINUE_AUTHENTICATION:
            self._go(State.CHALLENGED if is_first else State.RECHALLENGED)
        elif auth.reason is _SUCCESS and not is_first:
            self._go(State.OPEN)
        else:
            self._fail(Reason.PROTOCOL_ERROR, f"a server's AUTH with {auth.reason.name.lower()}")

    def _on_answer(self, answer: _Answer) -> None:
        """An answer is of the type that was awaited for its packet id, once, with a code for each filter."""
        packet_id = answer.packet_id
        awaited, weight = self._awaited.get(packet_id, (None, 0))
        if awaited is not type(answer):
            wanted = "nothing" if awaited is None else awaited.__name__.upper()
            text = f"{type(answer).__name__.upper()} for packet id {packet_id} that awaits {wanted}"
            self._fail(Reason.PROTOCOL_ERROR, text)
        if isinstance(answer, Pubrec) and answer.reason < 0x80:
            self._awaited[packet_id] = (Pubrel, weight)
            return
        del self._awaited[packet_id]
        if isinstance(answer, (Suback, Unsuback)):
            if len(answer.reasons) != weight and (self.level == V5 or isinstance(answer, Suback)):
                self._fail(Reason.PROTOCOL_ERROR, f"{len(answer.reasons)} codes for {weight} filters")  # [MQTT-3.8.4-6]
        else:
            self._in_flight -= weight

    def _broken(self) -> None:
        self._go(State.BROKEN)

    def _go(self, state: State) -> None:
        self._state = state
        self._read_at(_READS[state][0])

    # what goes

    def connect(self, connect: Connect) -> bytes:
        """The first bytes. From its properties come the limits that the server is held to."""
        properties = connect.properties if connect.level == V5 else NONE
        self._say(Word.CONNECT)
        self.level = connect.level
        self.client_id = connect.client_id
        self.keep_alive = connect.keep_alive
        self._asked = connect
        self._quota = properties.receive_maximum or NO_MAXIMUM
        self._largest = properties.maximum_packet_size or LARGEST
        self._alias_maximum = properties.topic_alias_maximum or 0
        return encode(connect, connect.level)

    def send(self, packet: ToServer) -> bytes:
        """The bytes of a packet. Raises LocalProtocolError where it may not be sent now, or not to this server."""
        self._say(self._word(packet))
        data = encode(packet, self.level)
        if len(data) > (self.granted.maximum_packet_size or LARGEST):
            raise LocalProtocolError(f"{len(data)} bytes are more than the server takes")  # [MQTT-3.2.2-15]
        if isinstance(packet, Publish):
            self._on_publish(packet)
        elif isinstance(packet, (Puback, Pubcomp, Pubrec)):
            if not isinstance(packet, Pubrec) or packet.reason >= 0x80:
                self._count_out(packet.packet_id)
        elif isinstance(packet, Pubrel):
            self._on_pubrel(packet.packet_id)
        elif isinstance(packet, Subscribe):
            self._await(packet.packet_id, Suback, len(packet.subscriptions))
        elif isinstance(packet, Unsubscribe):
            self._await(packet.packet_id, Unsuback, len(packet.filters))
        elif isinstance(packet, Pingreq):
            self._pings += 1
        return data

    def _word(self, packet: ToServer) -> Word:
        if isinstance(packet, Disconnect):
            return Word.DISCONNECT
        method = self._asked.properties.authentication_method
        if isinstance(packet, Auth):
            if method is None or packet.properties.authentication_method != method:
                raise LocalProtocolError("AUTH with another method than CONNECT")  # [MQTT-4.12.0-7] [MQTT-4.12.1-1]
            if not packet.reason:
                raise LocalProtocolError("AUTH of a client with success")  # 3.15.2.1
            return Word.AGAIN if packet.reason is Reason.REAUTHENTICATE else Word.ANSWER
        if method is not None and self._state is State.ASKED:
            raise LocalProtocolError("only AUTH and DISCONNECT until CONNACK")  # [MQTT-3.1.2-30]
        return Word.OTHER

    def _say(self, word: Word) -> None:
        following = _SAYS[self._state].get(word)
        if following is None:
            raise LocalProtocolError(f"{word.name} while {self._state.name.lower()}")
        self._go(following)

    def _on_publish(self, publish: Publish) -> None:
        granted = self.granted
        if publish.qos > (2 if granted.maximum_qos is None else granted.maximum_qos):
            raise LocalProtocolError(f"the server takes no QoS {publish.qos}")  # [MQTT-3.2.2-11]
        if publish.retain and granted.retain_available == 0:
            raise LocalProtocolError("the server retains nothing")  # [MQTT-3.2.2-14]
        alias = publish.properties.topic_alias
        if alias is not None:
            if alias > (granted.topic_alias_maximum or 0):
                raise LocalProtocolError(f"topic alias {alias} is above the server's maximum")  # [MQTT-3.2.2-17]
            if not publish.topic and alias not in self._bound:
                raise LocalProtocolError(f"topic alias {alias} was never bound")
            self._bound.add(alias)
        if publish.qos:
            if self._in_flight >= (granted.receive_maximum or NO_MAXIMUM):  # [MQTT-3.3.4-7]
                raise LocalProtocolError("the server takes no more publishes in flight")
            self._await(publish.packet_id, Puback if publish.qos == 1 else Pubrec, 1)
            self._in_flight += 1

    def _on_pubrel(self, packet_id: int) -> None:
        """After a PUBREC, or for an exchange that another connection began: that is not in flight here."""
        awaited, weight = self._awaited.get(packet_id, (None, 0))
        if awaited is Pubrel:
            del self._awaited[packet_id]
        self._await(packet_id, Pubcomp, weight)

    def _await(self, packet_id: int, answer: type[_Answer], weight: int) -> None:
        if packet_id in self._awaited:
            raise LocalProtocolError(f"packet id {packet_id} is in use")  # [MQTT-2.2.1-3]
        self._awaited[packet_id] = (answer, weight)
