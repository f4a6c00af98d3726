"""The client's end: two engines back to back, and a client that notices each rule that a server breaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mqtt.client import ClientConnection
from gateway.mqtt.connection import Connection, Terms
from gateway.mqtt.encode import encode
from gateway.mqtt.errors import LocalProtocolError, RemoteProtocolError
from gateway.mqtt.packets import (
    V5,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
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
from gateway.mqtt.properties import NONE, Properties
from gateway.mqtt.reasons import Reason

LEVELS = pytest.mark.parametrize("level", [V311, V5])
CONTINUE, AGAIN = Reason.CONTINUE_AUTHENTICATION, Reason.REAUTHENTICATE
OK = Reason.SUCCESS


class Pair:
    """A client and a server, and nothing between them."""

    def __init__(self, level=V5, *, terms=None, clean_start=True, client_id="c", **fields):
        self.client = ClientConnection()
        self.server = Connection(terms or Terms())
        properties = Properties(**fields) if fields and level == V5 else NONE
        self.connect = Connect(
            level=level, client_id=client_id, clean_start=clean_start, keep_alive=60, properties=properties
        )
        assert self.up(self.client.connect(self.connect)) == [self.connect]

    def up(self, *data):
        """What the server reads of it."""
        for some in data:
            self.server.feed(some)
        return list(self.server.events())

    def down(self, *data):
        """What the client reads of it."""
        for some in data:
            self.client.feed(some)
        return list(self.client.events())

    def ask(self, *packets):
        return self.up(*(self.client.send(packet) for packet in packets))

    def answer(self, *packets):
        return self.down(*(self.server.send(packet) for packet in packets))

    def publish(self, *args, **kwargs):
        packet = Publish(*args, **kwargs)
        return self.down(
            self.server.publish(
                packet.topic,
                packet.payload,
                packet.qos,
                packet.retain,
                packet.dup,
                packet.packet_id,
                packet.properties,
            )
        )


def opened(level=V5, **fields):
    pair = Pair(level, **fields)
    pair.answer(Connack())
    assert pair.client.is_connected
    assert pair.server.is_connected
    return pair


def refused(client, *packets):
    """The reason for which the client refuses the last of these; the others pass."""
    for packet in packets:
        client.feed(packet if isinstance(packet, bytes) else encode(packet, client.level))
    with pytest.raises(RemoteProtocolError) as caught:
        list(client.events())
    assert list(client.events()) == []
    return caught.value.reason


# back to back


@LEVELS
def test_a_conversation(level):
    pair = opened(level)
    subscribe = Subscribe(1, (Subscription("a/#", 2), Subscription("b")))
    assert pair.ask(subscribe) == [subscribe]
    assert pair.answer(Suback(1, (Reason.GRANTED_QOS_2, Reason.UNSPECIFIED_ERROR)))
    for packet in (Publish("a/b", b"0"), Publish("a/b", b"1", 1, packet_id=2), Publish("a/b", b"2", 2, packet_id=3)):
        assert pair.ask(packet) == [packet]
    assert pair.answer(Puback(2), Pubrec(3)) == [Puback(2), Pubrec(3)]
    assert pair.ask(Pubrel(3)) == [Pubrel(3)]
    assert pair.answer(Pubcomp(3)) == [Pubcomp(3)]
    assert pair.publish("a/b", b"x", 2, packet_id=3) == [Publish("a/b", b"x", 2, packet_id=3)]
    assert pair.ask(Pubrec(3)) == [Pubrec(3)]
    assert pair.answer(Pubrel(3)) == [Pubrel(3)]
    assert pair.ask(Pubcomp(3), Pingreq()) == [Pubcomp(3), Pingreq()]
    assert pair.answer(Pingresp()) == [Pingresp()]
    assert pair.ask(Unsubscribe(4, ("a/#",))) == [Unsubscribe(4, ("a/#",))]
    assert pair.answer(Unsuback(4, (OK,))) == [Unsuback(4, (OK,) if level == V5 else ())]
    assert pair.ask(Disconnect()) == [Disconnect()]


def test_a_will_and_a_name_go_up_and_a_given_name_comes_down():
    client, server = ClientConnection(), Connection(Terms())
    will = Will(topic="w", payload=b"x", qos=1, retain=True, properties=Properties(will_delay=3))
    connect = Connect(username="u", password=b"p", will=will)
    server.feed(client.connect(connect))
    assert list(server.events()) == [connect]
    given_back = Properties(assigned_client_id="auto-1", server_keep_alive=9)
    client.feed(server.send(Connack(properties=given_back)))
    (connack,) = client.events()
    assert client.connack is connack
    assert (client.client_id, client.keep_alive) == ("auto-1", 9)
    assert repr(client) == "<ClientConnection open level=5 buffered=0>"


def test_aliases_go_both_ways():
    pair = opened(topic_alias_maximum=3)
    for n in range(3):
        (down,) = pair.publish("down", bytes((n,)))
        assert (down.topic, down.properties) == ("down", NONE)
        (up,) = pair.ask(Publish("" if n else "up", bytes((n,)), properties=Properties(topic_alias=5)))
        assert (up.topic, up.properties) == ("up", NONE)


def test_a_login_in_steps_and_another_later():
    pair = Pair(authentication_method="M")
    step = Auth(reason=CONTINUE, properties=Properties(authentication_method="M", authentication_data=b"x"))
    for _ in range(2):
        assert pair.answer(step) == [step]
        assert pair.ask(step) == [step]
    assert pair.answer(Connack())
    again = Auth(reason=AGAIN, properties=Properties(authentication_method="M"))
    assert pair.ask(again, Pingreq()) == [again, Pingreq()]
    assert pair.answer(step) == [step]
    assert pair.ask(step) == [step]
    (done,) = pair.answer(Auth())
    assert done == Auth(properties=Properties(authentication_method="M"))
    assert pair.answer(Pingresp()) == [Pingresp()]


@st.composite
def conversations(draw):
    """Who does what: a client's or a server's publish of some QoS, an answer to the oldest that waits, or a ping."""
    return draw(
        st.lists(
            st.tuples(st.sampled_from(("up", "down", "answer", "ping")), st.integers(0, 2), st.integers(0, 5)),
            max_size=60,
        )
    )


class Life:
    """Both ends, each with what it must answer; all that goes arrives as it went."""

    def __init__(self, level):
        self.pair = opened(level, terms=Terms(receive_maximum=5, topic_alias_maximum=4), topic_alias_maximum=3)
        self.ids = {"up": 0, "down": 0}
        self.waiting = []
        self.arrived = []

    def publish(self, way, qos, topic):
        if qos:
            if sum(w == way for w, _ in self.waiting) == 5:
                return
            self.ids[way] += 1
        packet = Publish(f"{way}/{topic}", b"x", qos, packet_id=self.ids[way] if qos else 0)
        if way == "up":
            assert self.pair.ask(packet) == [packet]
        else:
            args = (packet.topic, packet.payload, qos, False, False, packet.packet_id, NONE)
            assert self.pair.down(self.pair.server.publish(*args)) == [packet]
        if qos:
            self.waiting.append((way, packet))

    def answer(self):
        if not self.waiting:
            return
        way, packet = self.waiting.pop(0)
        respond, proceed = (self.pair.answer, self.pair.ask) if way == "up" else (self.pair.ask, self.pair.answer)
        if packet.qos == 1:
            assert respond(Puback(packet.packet_id)) == [Puback(packet.packet_id)]
        else:
            assert respond(Pubrec(packet.packet_id)) == [Pubrec(packet.packet_id)]
            assert proceed(Pubrel(packet.packet_id)) == [Pubrel(packet.packet_id)]
            assert respond(Pubcomp(packet.packet_id)) == [Pubcomp(packet.packet_id)]

    def ping(self):
        assert self.pair.ask(Pingreq()) == [Pingreq()]
        assert self.pair.answer(Pingresp()) == [Pingresp()]


@given(conversations(), st.sampled_from((V311, V5)))
def test_what_one_end_may_say_the_other_takes(conversation, level):
    life = Life(level)
    for what, qos, topic in conversation:
        if what == "answer":
            life.answer()
        elif what == "ping":
            life.ping()
        else:
            life.publish(what, qos, topic)


def test_subscription_identifiers_come_down():
    pair = opened()
    (packet,) = pair.publish("t", b"", properties=Properties(subscription_identifiers=(3, 4)))
    assert packet.properties.subscription_identifiers == (3, 4)


# the server breaks a rule


@pytest.mark.parametrize("packet", [Publish("t", b""), Pingresp(), Suback(1, (OK,)), Disconnect(), Pubrel(1)])
def test_3_2_0_1_connack_comes_first(packet):
    assert refused(Pair().client, packet) is Reason.PROTOCOL_ERROR


def test_nothing_comes_before_connect():
    assert refused(ClientConnection(), b"\x20\x02\0\0") is Reason.PROTOCOL_ERROR


@LEVELS
@pytest.mark.parametrize(
    "packet", [Connack(), Connect(client_id="c"), Subscribe(1, (Subscription("t"),)), Unsubscribe(1, ("t",)), Pingreq()]
)
def test_a_server_says_nothing_that_clients_say_and_one_connack(level, packet):
    client = opened(level).client
    if isinstance(packet, Connect):
        packet = Connect(level=level, client_id="c")
    assert refused(client, packet) is Reason.PROTOCOL_ERROR


@LEVELS
def test_3_2_2_2_a_session_after_a_clean_start(level):
    assert refused(Pair(level).client, Connack(session_present=True)) is Reason.PROTOCOL_ERROR
    pair = Pair(level, clean_start=False)
    assert pair.answer(Connack(session_present=True))[0].session_present


def test_3_2_2_16_an_empty_client_id_is_answered_with_a_name():
    assert refused(Pair(client_id="").client, Connack()) is Reason.PROTOCOL_ERROR
    named = Connack(properties=Properties(assigned_client_id="x"))
    assert refused(Pair(client_id="c").client, named) is Reason.PROTOCOL_ERROR
    assert Pair(V311, client_id="").answer(Connack())


@LEVELS
def test_a_refusal_is_the_last_word(level):
    pair = Pair(level)
    (connack,) = pair.answer(Connack(reason=Reason.NOT_AUTHORIZED))
    assert connack.reason is Reason.NOT_AUTHORIZED
    assert not pair.client.is_connected
    assert pair.client.connack is connack
    with pytest.raises(LocalProtocolError):
        pair.client.send(Pingreq())
    assert pair.down(b"\xd0\0") == []


@pytest.mark.parametrize(
    ("ask", "wrong"),
    [
        (Publish("t", b"", 1, packet_id=1), Pubrec(1)),
        (Publish("t", b"", 1, packet_id=1), Pubcomp(1)),
        (Publish("t", b"", 1, packet_id=1), Puback(2)),
        (Publish("t", b"", 2, packet_id=1), Puback(1)),
        (Publish("t", b"", 2, packet_id=1), Pubcomp(1)),
        (Publish("t", b""), Puback(1)),
        (Subscribe(1, (Subscription("t"),)), Unsuback(1, (OK,))),
        (Subscribe(1, (Subscription("t"),)), Suback(2, (OK,))),
        (Subscribe(1, (Subscription("t"),)), Suback(1, (OK, OK))),
        (Subscribe(1, (Subscription("t"), Subscription("u"))), Suback(1, (OK,))),
        (Unsubscribe(1, ("t",)), Unsuback(1, (OK, OK))),
        (Unsubscribe(1, ("t",)), Suback(1, (OK,))),
        (Pubrel(1), Pubrec(1)),
    ],
)
def test_an_answer_fits_what_was_asked(ask, wrong):
    pair = opened()
    assert pair.ask(ask)
    assert refused(pair.client, wrong) is Reason.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (Publish("t", b"", 1, packet_id=1), Puback(1)),
        (Publish("t", b"", 2, packet_id=1), Pubrec(1, Reason.QUOTA_EXCEEDED)),
        (Publish("t", b"", 2, packet_id=1), Pubrec(1)),
        (Subscribe(1, (Subscription("t"),)), Suback(1, (OK,))),
        (Unsubscribe(1, ("t",)), Unsuback(1, (OK,))),
        (Pubrel(1), Pubcomp(1)),
        (Pingreq(), Pingresp()),
    ],
)
def test_an_answer_comes_once(ask, answer):
    pair = opened()
    pair.ask(ask)
    assert pair.answer(answer) == [answer]
    assert refused(pair.client, answer) is Reason.PROTOCOL_ERROR


def test_3_3_4_9_the_servers_window_is_the_clients_receive_maximum():
    pair = opened(receive_maximum=2)
    for packet_id in (1, 2):
        assert pair.publish("t", b"", 1 + packet_id % 2, packet_id=packet_id)
    assert pair.publish("t", b"")
    pair.client.send(Puback(2))
    assert pair.publish("t", b"", 1, packet_id=3)
    pair.client.send(Pubrec(1))
    assert refused(pair.client, Publish("t", b"", 1, packet_id=4)) is Reason.RECEIVE_MAXIMUM_EXCEEDED


def test_3_1_2_24_a_packet_above_the_clients_size_is_refused():
    pair = opened(maximum_packet_size=100)
    assert refused(pair.client, Publish("t", bytes(95))) is Reason.PACKET_TOO_LARGE
    pair = opened(maximum_packet_size=100)
    assert pair.publish("t", bytes(94))


@pytest.mark.parametrize("alias", [1, 4])
def test_3_1_2_26_aliases_that_the_client_does_not_take_are_refused(alias):
    most = None if alias == 1 else 3
    publish = Publish("t", b"", properties=Properties(topic_alias=alias))
    assert refused(opened(topic_alias_maximum=most).client, publish) is Reason.TOPIC_ALIAS_INVALID


def test_a_servers_disconnect_is_the_last_word_and_says_no_expiry():
    pair = opened()
    bye = Disconnect(reason=Reason.SERVER_SHUTTING_DOWN)
    assert pair.answer(bye) == [bye]
    assert pair.down(b"\xd0\0") == []
    with pytest.raises(LocalProtocolError):
        pair.client.send(Disconnect())
    expiring = Disconnect(properties=Properties(session_expiry=1))
    assert refused(opened().client, expiring) is Reason.PROTOCOL_ERROR
    assert refused(opened(V311).client, b"\xe0\0") is Reason.PROTOCOL_ERROR


def test_after_the_servers_fault_the_client_can_say_which():
    client = opened().client
    refused(client, Pingreq())
    assert client.send(Disconnect(reason=Reason.PROTOCOL_ERROR)) == bytes.fromhex("e0 01 82")
    with pytest.raises(LocalProtocolError):
        client.send(Pingreq())


def auth(reason=CONTINUE, method="M"):
    return Auth(reason=reason, properties=Properties(authentication_method=method))


@pytest.mark.parametrize("wrong", [auth(method="N"), auth(AGAIN), auth(OK), Auth(), Connack()])
def test_4_12_0_5_a_server_keeps_the_method_and_its_turn(wrong):
    assert refused(Pair(authentication_method="M").client, wrong) is Reason.PROTOCOL_ERROR


def test_4_12_0_6_no_auth_without_a_method():
    assert refused(Pair().client, auth()) is Reason.PROTOCOL_ERROR
    assert refused(opened().client, auth()) is Reason.PROTOCOL_ERROR


def test_a_server_waits_for_the_answer_but_may_refuse_meanwhile():
    accepted = Connack(properties=Properties(authentication_method="M"))
    for wrong in (auth(), accepted):
        pair = Pair(authentication_method="M")
        pair.answer(auth())
        assert refused(pair.client, wrong) is Reason.PROTOCOL_ERROR
    pair = Pair(authentication_method="M")
    pair.answer(auth())
    assert pair.answer(Connack(reason=Reason.NOT_AUTHORIZED))


# we were about to break one


def wrong(client, packet):
    with pytest.raises(LocalProtocolError):
        client.send(packet)


def test_3_1_0_1_nothing_goes_before_connect_and_one_connect():
    wrong(ClientConnection(), Pingreq())
    client = opened().client
    with pytest.raises(LocalProtocolError):
        client.connect(Connect(client_id="c"))


def test_publishes_may_go_before_connack():
    pair = Pair()
    assert pair.ask(Publish("t", b"1")) == []
    assert pair.answer(Connack())
    assert list(pair.server.events()) == [Publish("t", b"1")]


def test_3_1_2_30_with_a_method_only_auth_may():
    pair = Pair(authentication_method="M")
    wrong(pair.client, Pingreq())
    wrong(pair.client, auth())
    pair.answer(auth())
    wrong(pair.client, auth(AGAIN))
    wrong(pair.client, auth(method="N"))
    assert pair.client.send(auth())
    assert pair.client.send(Disconnect())
    wrong(Pair().client, auth())


def test_4_12_1_a_new_login_takes_turns():
    pair = Pair(authentication_method="M")
    pair.answer(Connack())
    wrong(pair.client, auth())
    wrong(pair.client, auth(OK))
    pair.ask(auth(AGAIN))
    wrong(pair.client, auth(AGAIN))
    wrong(pair.client, auth())
    wrong(opened().client, auth(AGAIN))


def test_what_connack_forbids():
    pair = Pair(terms=Terms(receive_maximum=2, maximum_packet_size=50, topic_alias_maximum=3))
    pair.answer(Connack(properties=Properties(maximum_qos=1, retain_available=0)))
    client = pair.client
    wrong(client, Publish("t", b"", 2, packet_id=1))  # [MQTT-3.2.2-11]
    wrong(client, Publish("t", b"", retain=True))  # [MQTT-3.2.2-14]
    wrong(client, Publish("t", bytes(50)))  # [MQTT-3.2.2-15]
    wrong(client, Publish("t", b"", properties=Properties(topic_alias=4)))  # [MQTT-3.2.2-17]
    wrong(client, Publish("", b"", properties=Properties(topic_alias=1)))
    for packet_id in (1, 2):
        assert pair.ask(Publish("t", b"", 1, packet_id=packet_id))
    wrong(client, Publish("t", b"", 1, packet_id=3))  # [MQTT-3.3.4-7]
    assert pair.answer(Puback(1))
    assert pair.ask(Publish("t", b"", 1, packet_id=3))


def test_2_2_1_3_a_packet_id_in_use_is_not_used():
    pair = opened()
    pair.ask(Publish("t", b"", 2, packet_id=1))
    for packet in (Publish("t", b"", 1, packet_id=1), Subscribe(1, (Subscription("t"),)), Unsubscribe(1, ("t",))):
        wrong(pair.client, packet)
    pair.answer(Pubrec(1))
    wrong(pair.client, Publish("t", b"", 1, packet_id=1))
    pair.ask(Pubrel(1))
    wrong(pair.client, Publish("t", b"", 1, packet_id=1))
    wrong(pair.client, Pubrel(1))
    pair.answer(Pubcomp(1))
    assert pair.ask(Publish("t", b"", 1, packet_id=1))


def test_an_exchange_that_another_connection_began_takes_no_place():
    pair = opened(terms=Terms(receive_maximum=1), clean_start=False)
    pair.ask(Pubrel(7))
    assert pair.ask(Publish("t", b"", 1, packet_id=1))
    assert pair.answer(Pubcomp(7), Puback(1)) == [Pubcomp(7), Puback(1)]
    assert pair.ask(Publish("t", b"", 1, packet_id=2))
    wrong(pair.client, Publish("t", b"", 1, packet_id=3))


@pytest.mark.parametrize("refusal", [None, Reason.QUOTA_EXCEEDED])
def test_a_place_in_the_servers_window_comes_back_with_the_end_of_the_exchange(refusal):
    pair = opened(terms=Terms(receive_maximum=1))
    for packet_id in range(1, 5):
        pair.ask(Publish("t", b"", 2, packet_id=packet_id))
        if refusal is None:
            pair.answer(Pubrec(packet_id))
            wrong(pair.client, Publish("t", b"", 1, packet_id=99))
            pair.ask(Pubrel(packet_id))
            pair.answer(Pubcomp(packet_id))
        else:
            pair.answer(Pubrec(packet_id, refusal))


def test_too_much_before_connack_is_noticed_with_it():
    pair = Pair(terms=Terms(receive_maximum=1))
    for packet_id in (1, 2):
        pair.client.send(Publish("t", b"", 1, packet_id=packet_id))
    with pytest.raises(LocalProtocolError):
        pair.answer(Connack())


def test_every_state_has_a_row_for_what_it_reads_and_what_it_says():
    from gateway.mqtt.client import _READS, _SAYS, State

    assert set(_READS) == set(State) == set(_SAYS)
