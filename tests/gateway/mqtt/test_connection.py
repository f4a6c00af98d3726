"""One connection from the server's end: what may come and go when. Bytes in, packets out; packets in, bytes out."""

import itertools
import sys
from dataclasses import replace

import pytest

from gateway.mqtt.connection import Connection, Terms
from gateway.mqtt.decode import decode
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
)
from gateway.mqtt.properties import NONE, Properties
from gateway.mqtt.reasons import Reason

TERMS = Terms()
LEVELS = pytest.mark.parametrize("level", [V311, V5])
CONTINUE, AGAIN = Reason.CONTINUE_AUTHENTICATION, Reason.REAUTHENTICATE
ORDINARY = [
    Publish("t", b"x"),
    Puback(1),
    Pubrec(1),
    Pubrel(1),
    Pubcomp(1),
    Subscribe(1, (Subscription("t"),)),
    Unsubscribe(1, ("t",)),
    Pingreq(),
]
NOT_A_CLIENTS = [Connack(), Suback(1, (Reason.SUCCESS,)), Unsuback(1, (Reason.SUCCESS,)), Pingresp()]


def asked(level=V5, terms=TERMS, **fields):
    """A connection that has read a CONNECT; keyword arguments are properties of it, and `expiry`."""
    connection = Connection(terms)
    properties = Properties(**fields) if fields else NONE
    connect = Connect(level=level, client_id="c", keep_alive=60, properties=properties)
    connection.feed(encode(connect, level))
    assert list(connection.events()) == [connect]
    return connection


def opened(level=V5, terms=TERMS, **fields):
    connection = asked(level, terms, **fields)
    assert connection.send(Connack())
    return connection


def read(connection, *packets):
    """What comes out when these packets, or bytes, come in."""
    for packet in packets:
        connection.feed(packet if isinstance(packet, bytes) else encode(packet, connection.level or V5))
    return list(connection.events())


def refused(connection, *packets):
    """The reason with which the last of these is refused; the others pass, and after it nothing does."""
    passed = []
    for packet in packets:
        connection.feed(packet if isinstance(packet, bytes) else encode(packet, connection.level or V5))
    with pytest.raises(RemoteProtocolError) as caught:
        passed.extend(connection.events())
    connection.feed(b"\xc0\0")
    assert list(connection.events()) == []
    assert connection.buffered == 0
    return caught.value.reason


def said(data, level=V5):
    """The packets that these bytes are."""
    packets, at = [], 0
    while at < len(data):
        shift = size = 0
        first, at = data[at], at + 1
        while True:
            byte, at = data[at], at + 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        packets.append(decode(first, data[at : at + size], level))
        at += size
    return packets


# 3.1 CONNECT comes first, once


@pytest.mark.parametrize("packet", [*ORDINARY, *NOT_A_CLIENTS, Disconnect(), Auth()])
def test_3_1_0_1_the_first_packet_is_connect(packet):
    connection = Connection(TERMS)
    assert refused(connection, packet) is Reason.PROTOCOL_ERROR
    assert connection.send(Connack(reason=Reason.PROTOCOL_ERROR)) == b""  # closed silently
    assert connection.send(Disconnect(reason=Reason.PROTOCOL_ERROR)) == b""


def test_3_1_0_1_a_stranger_is_sent_away_at_the_first_byte():
    for stranger in (b"G", b"\0", b"\x30"):
        assert refused(Connection(TERMS), stranger) is Reason.PROTOCOL_ERROR
    assert refused(Connection(TERMS), bytes.fromhex("16 03 01 00 f4")) is Reason.MALFORMED_PACKET  # begins TLS


@LEVELS
def test_3_1_0_2_a_second_connect_ends_the_connection(level):
    connection = opened(level)
    assert refused(connection, Connect(level=level, client_id="c")) is Reason.PROTOCOL_ERROR


def test_connect_says_what_the_client_takes():
    connection = asked(
        receive_maximum=7,
        maximum_packet_size=99,
        topic_alias_maximum=3,
        request_problem_information=0,
        session_expiry=5,
    )
    assert (connection.level, connection.keep_alive) == (V5, 60)
    assert connection.client_receive_maximum == 7
    assert connection.client_maximum_packet_size == 99
    assert connection.client_topic_alias_maximum == 3
    assert not connection.wants_problem_information
    assert not connection.is_connected


@LEVELS
def test_what_connect_leaves_out_has_the_standards_default(level):
    connection = asked(level)
    assert connection.level == level
    assert connection.client_receive_maximum == 65535
    assert connection.client_maximum_packet_size is None
    assert connection.client_topic_alias_maximum == 0
    assert connection.wants_problem_information


@pytest.mark.parametrize(
    ("name", "level", "answer"),
    [
        (b"\0\4MQTT", 3, "20 02 00 01"),
        (b"\0\4MQTT", 6, "20 03 00 84 00"),
        (b"\0\6MQIsdp", 3, "20 02 00 01"),
        (b"\0\4HTTP", 1, ""),
    ],
)
def test_3_1_2_2_an_unknown_level_is_answered_in_words_that_it_may_know(name, level, answer):
    connection = Connection(TERMS)
    body = name + bytes((level, 2, 0, 60, 0, 1)) + b"c"
    assert refused(connection, bytes((0x10, len(body))) + body) is Reason.UNSUPPORTED_PROTOCOL_VERSION
    assert connection.send(Connack(reason=Reason.UNSUPPORTED_PROTOCOL_VERSION)) == bytes.fromhex(answer)


@pytest.mark.parametrize(("level", "answer"), [(V311, b""), (V5, bytes.fromhex("20 03 00 81 00"))])
def test_3_1_4_1_a_malformed_connect_is_answered_in_5_0_only(level, answer):
    connection = Connection(TERMS)
    connect = bytearray(encode(Connect(level=level, client_id="c"), level))
    connect[9] |= 1  # the reserved flag
    assert refused(connection, bytes(connect)) is Reason.MALFORMED_PACKET
    assert connection.send(Connack(reason=Reason.MALFORMED_PACKET)) == answer


def test_a_connect_larger_than_allowed_is_refused_by_its_header():
    connection = Connection(Terms(connect_bytes=100))
    assert refused(connection, b"\x10\x63") is Reason.PACKET_TOO_LARGE  # 101 bytes, of which two came
    connection = Connection(Terms(connect_bytes=100))
    connection.feed(b"\x10\x62\0\4MQTT")
    assert list(connection.events()) == []


@LEVELS
def test_3_1_2_22_half_a_packet_is_no_packet(level):
    connection = opened(level)
    for byte in encode(Publish("t", b"x"), level)[:-1]:
        assert read(connection, bytes((byte,))) == []
    assert read(connection, b"x") == [Publish("t", b"x")]


# 3.1.4, 3.2 CONNACK


def test_3_1_4_5_packets_behind_connect_wait_for_the_answer():
    connection = asked()
    assert read(connection, Publish("a", b"1"), Pingreq()) == []
    assert connection.buffered == 9
    connection.send(Connack())
    assert list(connection.events()) == [Publish("a", b"1"), Pingreq()]
    assert connection.buffered == 0


def test_3_1_4_5_they_are_read_on_where_the_answer_comes_at_once():
    connection = Connection(TERMS)
    connection.feed(encode(Connect(client_id="c"), V5) + encode(Pingreq(), V5))
    seen = []
    for packet in connection.events():
        seen.append(type(packet))
        if isinstance(packet, Connect):
            connection.send(Connack())
    assert seen == [Connect, Pingreq]


@LEVELS
def test_3_1_4_6_they_are_ignored_after_a_refusal(level):
    connection = asked(level)
    connection.feed(encode(Publish("a", b"1"), level))
    assert connection.send(Connack(reason=Reason.NOT_AUTHORIZED))
    assert list(connection.events()) == []
    assert not connection.is_connected
    connection.feed(b"\xc0\0")
    assert connection.buffered == 0
    assert connection.send(Pingresp()) == b""


def test_what_waits_for_the_answer_is_bounded():
    connection = asked()
    packet = encode(Publish("a", bytes(1000)), V5)
    for _ in range(261):
        connection.feed(packet)
        assert list(connection.events()) == []
    assert connection.buffered > 256 * 1024
    assert refused(connection, bytes(20_000)) is Reason.QUOTA_EXCEEDED


@pytest.mark.parametrize("packet", [Puback(1), Suback(1, (Reason.SUCCESS,)), Pingresp()])
def test_3_2_0_1_nothing_goes_before_connack(packet):
    for connection in (Connection(TERMS), asked()):
        with pytest.raises(LocalProtocolError):
            connection.send(packet)
        with pytest.raises(LocalProtocolError):
            connection.publish("t", b"", 0, False, False, 0, NONE)


def test_3_2_0_2_one_connack_is_enough():
    connection = opened()
    with pytest.raises(LocalProtocolError):
        connection.send(Connack())
    with pytest.raises(LocalProtocolError):
        connection.send(Connack(reason=Reason.SERVER_BUSY))


def test_no_connack_without_connect():
    with pytest.raises(LocalProtocolError):
        Connection(TERMS).send(Connack())


def test_3_2_2_6_a_refusal_says_no_session():
    assert asked().send(Connack(session_present=True, reason=Reason.NOT_AUTHORIZED)) == bytes.fromhex("20 03 00 87 00")
    assert asked(V311).send(Connack(session_present=True, reason=Reason.NOT_AUTHORIZED)) == bytes.fromhex("20 02 00 05")


def test_a_refusal_that_3_1_1_has_no_number_for_is_no_word():
    connection = asked(V311)
    assert connection.send(Connack(reason=Reason.PACKET_TOO_LARGE)) == b""
    assert list(connection.events()) == []


def test_connack_says_the_terms():
    terms = Terms(receive_maximum=5, maximum_packet_size=2000, topic_alias_maximum=9)
    (connack,) = said(asked(terms=terms).send(Connack(properties=Properties(server_keep_alive=30))))
    expected = Properties(receive_maximum=5, maximum_packet_size=2000, topic_alias_maximum=9, server_keep_alive=30)
    assert connack == Connack(properties=expected)


@pytest.mark.parametrize(("given", "kept"), [(None, 60), (0, 0), (30, 30)])
def test_3_2_2_21_the_servers_keep_alive_counts(given, kept):
    connection = asked()
    connection.send(Connack(properties=Properties(server_keep_alive=given)))
    assert connection.keep_alive == kept


@LEVELS
def test_the_packet_limit_grows_with_connack(level):
    terms = Terms(connect_bytes=200, maximum_packet_size=1000)
    large = encode(Publish("t", bytes(900)), level)
    assert read(opened(level, terms), large) == [Publish("t", bytes(900))]
    connection = asked(level, terms)
    read(connection, large)  # waits, unlooked at
    connection.send(Connack())
    assert list(connection.events()) == [Publish("t", bytes(900))]


# what a client may send


@LEVELS
@pytest.mark.parametrize("packet", ORDINARY)
def test_a_clients_packets_come_through(level, packet):
    assert read(opened(level), packet, packet) == [packet, packet]


@LEVELS
@pytest.mark.parametrize("packet", NOT_A_CLIENTS)
def test_a_servers_packets_do_not(level, packet):
    assert refused(opened(level), packet) is Reason.PROTOCOL_ERROR


@pytest.mark.parametrize("level", [V311, V5])
@pytest.mark.parametrize(
    "raw",
    ["00 00", "41 02 00 01", "60 02 00 01", "c1 00", "80 05 00 01 00 01 74", "36 04 00 01 74 00", "38 03 00 01 74"],
)
def test_2_1_3_1_wrong_flags_and_types_end_the_connection(level, raw):
    assert refused(opened(level), bytes.fromhex(raw)) in {Reason.MALFORMED_PACKET, Reason.PROTOCOL_ERROR}


@LEVELS
@pytest.mark.parametrize(
    "raw",
    ["32 06 00 01 74 00 00 00", "34 06 00 01 74 00 00 00", "40 02 00 00", "50 02 00 00", "62 02 00 00", "70 02 00 00"],
)
def test_2_2_1_3_packet_id_0_ends_the_connection(level, raw):
    assert refused(opened(level), bytes.fromhex(raw)) is Reason.PROTOCOL_ERROR


@LEVELS
@pytest.mark.parametrize("raw", ["ff ff ff ff 01", "80 00", "81 80 00", "ff ff ff 80 00", "ff ff ff ff 80"])
@pytest.mark.parametrize("first", ["30", "c0", "82"])
def test_1_5_5_1_a_length_that_is_longer_than_needed_is_malformed(level, first, raw):
    terms = Terms(maximum_packet_size=268435460)
    assert refused(opened(level, terms), bytes.fromhex(first + raw)) is Reason.MALFORMED_PACKET
    behind_another = encode(Puback(1), level) + bytes.fromhex(first + raw) + bytes(128)
    assert refused(opened(level, terms), behind_another) is Reason.MALFORMED_PACKET


def test_4_13_1_1_what_came_before_the_error_counts_and_nothing_behind_it():
    connection = opened()
    connection.feed(encode(Pingreq(), V5) + b"\x36\x00" + encode(Pingreq(), V5))
    seen = []
    with pytest.raises(RemoteProtocolError):
        seen.extend(iter(connection.events()))
    events = connection.events()
    assert list(events) == []
    connection = opened()
    connection.feed(encode(Pingreq(), V5) + b"\x36\x00" + encode(Pingreq(), V5))
    events = connection.events()
    assert next(events) == Pingreq()
    with pytest.raises(RemoteProtocolError):
        next(events)
    assert list(connection.events()) == []
    assert connection.send(Disconnect(reason=Reason.MALFORMED_PACKET)) == bytes.fromhex("e0 01 81")


@LEVELS
@pytest.mark.parametrize("size", [127, 128, 16383, 16384, 70000])
def test_packets_of_every_length_of_length_come_through(level, size):
    publish = Publish("t", bytes(size - 4 if level == V5 else size - 3))
    assert read(opened(level), publish, publish) == [publish, publish]


@LEVELS
@pytest.mark.parametrize("most", [20, 129, 130, 131, 1000, 16386, 16387, 16388, 20000])
def test_the_packet_limit_is_exact_and_is_checked_by_the_header(level, most):
    overhead = next(n for n in (2, 3, 4) if most - n < 1 << 7 * (n - 1))
    body = most - overhead - 3 - (level == V5)
    terms = Terms(maximum_packet_size=most)
    fits = Publish("t", bytes(body))
    if len(encode(fits, level)) == most:
        assert read(opened(level, terms), fits, fits) == [fits, fits]
    large = encode(Publish("t", bytes(body + 1)), level)
    assert refused(opened(level, terms), large[:4] if overhead < 4 else large[:5]) is Reason.PACKET_TOO_LARGE
    assert refused(opened(level, terms), large) is Reason.PACKET_TOO_LARGE
    assert refused(opened(level, terms), encode(Puback(1), level) + large) is Reason.PACKET_TOO_LARGE


def test_3_3_4_6_a_subscription_identifier_from_a_client_is_an_error():
    publish = Publish("t", b"", properties=Properties(subscription_identifiers=(4,)))
    assert refused(opened(), publish) is Reason.PROTOCOL_ERROR


# DISCONNECT


@LEVELS
def test_3_14_nothing_comes_after_disconnect(level):
    connection = opened(level)
    assert read(connection, Disconnect(), Publish("t", b"")) == [Disconnect()]
    assert read(connection, Pingreq()) == []
    assert connection.buffered == 0


def test_3_14_1_1_reserved_flags_of_disconnect_are_malformed():
    assert refused(opened(), b"\xe1\0") is Reason.MALFORMED_PACKET


@pytest.mark.parametrize(
    ("before", "then", "is_wrong"), [(None, 5, True), (0, 5, True), (0, 0, False), (9, 5, False), (9, 0, False)]
)
def test_3_14_2_2_2_a_session_without_expiry_gets_none_at_the_end(before, then, is_wrong):
    connection = opened(session_expiry=before)
    disconnect = Disconnect(properties=Properties(session_expiry=then))
    if is_wrong:
        assert refused(connection, disconnect) is Reason.PROTOCOL_ERROR
    else:
        assert read(connection, disconnect) == [disconnect]


def test_3_14_4_1_nothing_goes_after_disconnect():
    connection = opened()
    connection.feed(encode(Pingreq(), V5))
    assert connection.send(Disconnect(reason=Reason.SESSION_TAKEN_OVER)) == bytes.fromhex("e0 01 8e")
    assert connection.send(Puback(1)) == b""
    assert connection.send(Disconnect()) == b""
    assert connection.send(Connack()) == b""
    assert connection.publish("t", b"", 0, False, False, 0, NONE) == b""
    assert list(connection.events()) == []


def test_nothing_comes_after_our_disconnect_in_the_middle_of_a_buffer():
    connection = opened()
    connection.feed(encode(Publish("t", b"1", 1, packet_id=1), V5) * 3)
    seen = []
    for packet in connection.events():
        seen.append(packet)
        connection.send(Disconnect(reason=Reason.QUOTA_EXCEEDED))
        assert connection.send(Puback(1)) == b""
    assert len(seen) == 1


def test_3_14_0_1_no_disconnect_before_connack():
    for connection in (Connection(TERMS), asked()):
        assert connection.send(Disconnect(reason=Reason.SERVER_SHUTTING_DOWN)) == b""
        assert read(connection, Pingreq()) == []
        assert connection.send(Connack(reason=Reason.SERVER_BUSY)) == b""


def test_3_1_1_servers_have_no_disconnect():
    connection = opened(V311)
    assert connection.send(Disconnect(reason=Reason.SESSION_TAKEN_OVER)) == b""
    assert read(connection, Pingreq()) == []


def test_3_14_2_2_a_server_says_no_expiry():
    with pytest.raises(LocalProtocolError):
        opened().send(Disconnect(properties=Properties(session_expiry=3)))


def test_acknowledgements_still_go_after_the_clients_disconnect():
    connection = opened()
    read(connection, Publish("t", b"", 1, packet_id=4), Disconnect())
    assert connection.send(Puback(4)) == bytes.fromhex("40 02 00 04")


# receive maximum


SHORT_AND_LONG_WAYS = pytest.mark.parametrize(
    "fields",
    [{"payload": b""}, {"payload": bytes(20_000)}, {"payload": b"", "properties": Properties(content_type="x")}],
    ids=["hot", "long", "with properties"],
)


@SHORT_AND_LONG_WAYS
@pytest.mark.parametrize("qos", [1, 2])
def test_3_3_4_7_more_than_the_receive_maximum_is_too_much(qos, fields):
    connection = opened(terms=Terms(receive_maximum=3))
    publishes = [Publish("t", qos=qos, packet_id=n, **fields) for n in (1, 2, 3)]
    assert read(connection, *publishes) == publishes
    again = Publish("t", qos=qos, dup=True, packet_id=2, **fields)
    assert read(connection, again) == [again]  # the same one once more
    assert read(connection, Publish("t", **fields)) == [Publish("t", **fields)]
    assert refused(connection, Publish("t", qos=qos, packet_id=4, **fields)) is Reason.RECEIVE_MAXIMUM_EXCEEDED


@pytest.mark.parametrize("payload", [b"", bytes(20_000)])
def test_3_1_1_clients_are_not_told_of_a_receive_maximum_and_not_held_to_it(payload):
    connection = opened(V311, Terms(receive_maximum=3))
    publishes = [Publish("t", payload, 1, packet_id=n) for n in range(1, 20)]
    assert read(connection, *publishes) == publishes


@pytest.mark.parametrize(
    ("qos", "answer", "is_free"),
    [
        (1, Puback(1), True),
        (1, Puback(1, Reason.NOT_AUTHORIZED), True),
        (2, Pubrec(1), False),
        (2, Pubrec(1, Reason.NO_MATCHING_SUBSCRIBERS), False),
        (2, Pubrec(1, Reason.QUOTA_EXCEEDED), True),
        (2, Pubcomp(1), True),
        (2, Pubcomp(1, Reason.PACKET_IDENTIFIER_NOT_FOUND), True),
        (2, Pubrel(1), False),
        (2, Pubrel(1, Reason.PACKET_IDENTIFIER_NOT_FOUND), False),
        (2, Puback(2), False),
    ],
)
def test_4_9_0_2_what_gives_a_place_back(qos, answer, is_free):
    connection = opened(terms=Terms(receive_maximum=1))
    read(connection, Publish("t", b"", qos, packet_id=1))
    connection.send(answer)
    other = Publish("t", b"", qos, packet_id=9)
    if is_free:
        assert read(connection, other) == [other]
    else:
        assert refused(connection, other) is Reason.RECEIVE_MAXIMUM_EXCEEDED


def test_4_9_0_2_a_place_is_given_back_once():
    connection = opened(terms=Terms(receive_maximum=2))
    read(connection, *(Publish("t", b"", 1, packet_id=n) for n in (1, 2)))
    for _ in range(3):
        connection.send(Puback(1))
    assert read(connection, Publish("t", b"", 1, packet_id=3))
    assert refused(connection, Publish("t", b"", 1, packet_id=4)) is Reason.RECEIVE_MAXIMUM_EXCEEDED


@pytest.mark.parametrize("properties", [NONE, Properties(content_type="x")])
def test_a_thousand_publishes_find_their_place_again(properties):
    connection = opened(terms=Terms(receive_maximum=10))
    for n in range(1, 1000):
        (publish,) = read(connection, Publish("t", b"", 1 + n % 2, packet_id=n, properties=properties))
        connection.send(Puback(n) if publish.qos == 1 else Pubcomp(n))


# topic aliases from the client


def aliased(topic, alias, **fields):
    return Publish(topic, b"x", properties=Properties(topic_alias=alias, **fields))


def test_3_3_2_12_an_alias_stands_for_its_topic_and_may_be_bound_anew():
    connection = opened()
    packets = [aliased("a/b", 1), aliased("", 1), aliased("c", 64), aliased("c", 1), aliased("", 1), aliased("", 64)]
    assert [p.topic for p in read(connection, *packets)] == ["a/b", "a/b", "c", "c", "c", "c"]


def test_an_alias_is_the_connections_own_and_goes_no_further():
    connection = opened()
    plain, rich, again = read(
        connection, aliased("a", 1), aliased("", 1, content_type="x", user=(("k", "v"), ("k", "w"))), aliased("", 1)
    )
    assert plain.properties is NONE
    assert again.properties is NONE
    assert rich.properties == Properties(content_type="x", user=(("k", "v"), ("k", "w")))
    (other,) = read(opened(), aliased("b", 1))
    assert other.topic == "b"
    assert refused(opened(), aliased("", 1)) is Reason.TOPIC_ALIAS_INVALID


@pytest.mark.parametrize(("topic", "alias"), [("a", 65), ("a", 65535), ("", 65), ("", 2)])
def test_3_3_2_9_aliases_out_of_bounds_and_unknown_ones_are_invalid(topic, alias):
    assert refused(opened(), aliased("a", 1), aliased(topic, alias)) is Reason.TOPIC_ALIAS_INVALID


def test_3_3_2_8_alias_0_is_invalid():
    raw = bytes.fromhex("30 07 00 01 61 03 23 00 00")
    assert refused(opened(), raw) is Reason.TOPIC_ALIAS_INVALID


def test_where_no_alias_is_allowed_none_is():
    terms = Terms(topic_alias_maximum=0)
    (connack,) = said(asked(terms=terms).send(Connack()))
    assert connack.properties.topic_alias_maximum is None
    assert refused(opened(terms=terms), aliased("a", 1)) is Reason.TOPIC_ALIAS_INVALID


def test_a_publish_without_topic_and_alias_is_an_error():
    for level, raw in ((V5, "30 03 00 00 00"), (V311, "30 02 00 00"), (V311, "30 04 00 00 78 78")):
        assert refused(opened(level), bytes.fromhex(raw)) is Reason.PROTOCOL_ERROR


def test_many_aliases_of_many_connections_are_told_apart():
    from gateway.mqtt.reader import _alone

    terms = Terms(topic_alias_maximum=65535)
    for _ in range(2):
        connection = opened(terms=terms)
        for alias in range(1, 3000):
            (publish,) = read(connection, aliased(f"t/{alias}", alias))
            assert publish.properties is NONE
        for alias in range(1, 3000, 7):
            (publish,) = read(connection, aliased("", alias))
            assert publish.topic == f"t/{alias}"
    assert 0 < len(_alone) <= 1024


# PUBLISH to the client


def publish(connection, topic, payload=b"x", qos=0, packet_id=0, properties=NONE, *, dup=False):
    return connection.publish(topic, payload, qos, False, dup, packet_id, properties)


@LEVELS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_without_aliases_is_what_encode_says(level, qos):
    connection = opened(level)
    packet = Publish("a/b", b"x", qos, True, qos > 0, 7 if qos else 0)
    data = connection.publish("a/b", b"x", qos, True, qos > 0, 7 if qos else 0, NONE)
    assert data == encode(packet, level)


def test_3_1_2_27_no_alias_without_the_clients_leave():
    connection = opened()
    for _ in range(2):
        assert publish(connection, "a/b") == encode(Publish("a/b", b"x"), V5)


def test_the_first_use_of_an_alias_carries_the_topic():
    connection = opened(topic_alias_maximum=2)
    sent = [said(publish(connection, topic))[0] for topic in ("a", "a", "b", "a", "c", "b", "c")]
    assert [(p.topic, p.properties.topic_alias) for p in sent] == [
        ("a", 1),
        ("", 1),
        ("b", 2),
        ("", 1),
        ("c", None),  # there are no more
        ("", 2),
        ("c", None),
    ]


def test_we_give_no_more_aliases_than_we_take():
    connection = opened(terms=Terms(topic_alias_maximum=1), topic_alias_maximum=65535)
    sent = [said(publish(connection, topic))[0] for topic in ("a", "b", "a", "b")]
    assert [p.properties.topic_alias for p in sent] == [1, None, 1, None]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("dup", [False, True])
@pytest.mark.parametrize(
    "properties",
    [
        NONE,
        Properties(content_type="x", user=(("k", "v"),), message_expiry=3, subscription_identifiers=(1, 300)),
        Properties(correlation_data=bytes(125)),
        Properties(correlation_data=bytes(200)),
    ],
)
def test_a_publish_by_its_alias_says_all_that_it_would_say_with_its_topic(qos, dup, properties):
    connection = opened(topic_alias_maximum=9)
    dup = dup and qos > 0
    packet_id = 258 if qos else 0
    for payload in (b"", b"x", bytes(120), bytes(125), bytes(20000)):
        publish(connection, "other/topic")
        publish(connection, "a/b")
        (packet,) = said(publish(connection, "a/b", payload, qos, packet_id, properties, dup=dup))
        assert packet.properties.topic_alias == 2
        packet.properties = replace(packet.properties, topic_alias=None)
        assert packet == Publish("", payload, qos, False, dup, packet_id, properties)


def test_3_1_2_24_a_publish_above_the_clients_packet_size_is_not_sent():
    connection = opened(maximum_packet_size=30)
    assert publish(connection, "t", bytes(24)) is not None
    assert publish(connection, "t", bytes(25)) is None


def test_an_alias_is_bound_only_where_the_packet_with_it_fits():
    connection = opened(maximum_packet_size=30, topic_alias_maximum=5)
    (packet,) = said(publish(connection, "t", bytes(24)))  # fits without an alias only
    assert packet.properties.topic_alias is None
    (packet,) = said(publish(connection, "t", bytes(21)))
    assert (packet.topic, packet.properties.topic_alias) == ("t", 1)
    (packet,) = said(publish(connection, "t", bytes(22)))
    assert (packet.topic, packet.properties.topic_alias) == ("", 1)
    (packet,) = said(publish(connection, "t", bytes(24)))
    assert (packet.topic, packet.properties.topic_alias) == ("t", None)
    assert publish(connection, "t", bytes(25)) is None


# what the server says


@LEVELS
@pytest.mark.parametrize("kind", [Puback, Pubrec, Pubrel, Pubcomp])
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65535])
def test_short_acknowledgements_are_what_encode_says(level, kind, packet_id):
    assert opened(level).send(kind(packet_id)) == encode(kind(packet_id), level)


@LEVELS
@pytest.mark.parametrize(
    "packet",
    [
        Pingresp(),
        Suback(5, (Reason.SUCCESS, Reason.GRANTED_QOS_1, Reason.UNSPECIFIED_ERROR)),
        Unsuback(5, (Reason.SUCCESS,)),
        Pubrec(5, Reason.QUOTA_EXCEEDED),
        Puback(5, Reason.NOT_AUTHORIZED, Properties(reason_string="no", user=(("a", "b"),))),
    ],
)
def test_other_packets_are_what_encode_says(level, packet):
    assert opened(level).send(packet) == encode(packet, level)


def test_packet_id_0_is_never_sent():
    for kind in (Puback, Pubrec, Pubrel, Pubcomp):
        with pytest.raises(LocalProtocolError):
            opened().send(kind(0))


LONG = Properties(reason_string="because " * 3, user=(("key", "value"),))
NO_STRING = Properties(user=(("key", "value"),))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: Puback(1, Reason.NOT_AUTHORIZED, p),
        lambda p: Pubrec(1, Reason.NOT_AUTHORIZED, p),
        lambda p: Pubrel(1, Reason.PACKET_IDENTIFIER_NOT_FOUND, p),
        lambda p: Pubcomp(1, Reason.PACKET_IDENTIFIER_NOT_FOUND, p),
        lambda p: Suback(1, (Reason.NOT_AUTHORIZED,), p),
        lambda p: Unsuback(1, (Reason.NOT_AUTHORIZED,), p),
        lambda p: Disconnect(reason=Reason.QUOTA_EXCEEDED, properties=p),
    ],
)
def test_3_4_2_2_reason_string_and_then_user_properties_are_cut_to_fit(make):
    sizes = {len(encode(make(p), V5)): p for p in (NONE, NO_STRING, LONG)}
    bare, shorter, whole = sorted(sizes)
    cases = [(whole, LONG), (whole - 1, NO_STRING), (shorter, NO_STRING), (shorter - 1, NONE), (bare, NONE)]
    for most, left in cases:
        connection = Connection(Terms())
        connection.feed(encode(Connect(client_id="c", properties=Properties(maximum_packet_size=1000)), V5))
        list(connection.events())
        connection.send(Connack())
        connection.client_maximum_packet_size = most
        assert said(connection.send(make(LONG))) == [make(left)]
    connection = opened(maximum_packet_size=100)
    connection.client_maximum_packet_size = bare - 1
    assert connection.send(make(LONG)) == b""


def test_3_2_2_19_connack_is_cut_to_fit_too():
    properties = Properties(assigned_client_id="auto-1", reason_string="welcome " * 9, user=(("a", "b" * 30),))
    (connack,) = said(asked(maximum_packet_size=40).send(Connack(properties=properties)))
    assert connack.properties.assigned_client_id == "auto-1"
    assert connack.properties.reason_string is None
    assert connack.properties.user == ()


def test_a_client_that_takes_no_connack_gets_none_and_is_not_connected():
    connection = asked(maximum_packet_size=10)
    assert connection.send(Connack()) == b""
    assert not connection.is_connected
    assert publish(connection, "t") == b""
    assert read(connection, Pingreq()) == []


def test_a_client_that_takes_three_bytes_gets_no_acknowledgement_but_its_place_back():
    connection = opened(terms=Terms(receive_maximum=1), maximum_packet_size=50)
    connection.client_maximum_packet_size = 3
    connection._go(connection._state)
    read(connection, Publish("t", b"", 1, packet_id=1))
    assert connection.send(Puback(1)) == b""
    assert read(connection, Publish("t", b"", 1, packet_id=2))


@pytest.mark.parametrize("problem", [0, 1, None])
def test_3_1_2_29_problem_information_goes_where_it_is_wanted(problem):
    connection = asked(request_problem_information=problem)
    (connack,) = said(connection.send(Connack(properties=LONG)))
    assert connack.properties.reason_string == LONG.reason_string
    for make in (
        lambda p: Puback(1, Reason.NOT_AUTHORIZED, p),
        lambda p: Puback(1, Reason.SUCCESS, p),
        lambda p: Suback(1, (Reason.NOT_AUTHORIZED,), p),
        lambda p: Unsuback(1, (Reason.NOT_AUTHORIZED,), p),
    ):
        assert said(connection.send(make(LONG))) == [make(NONE if problem == 0 else LONG)]
    (packet,) = said(publish(connection, "t", properties=NO_STRING))
    assert packet.properties.user == NO_STRING.user
    (bye,) = said(connection.send(Disconnect(reason=Reason.QUOTA_EXCEEDED, properties=LONG)))
    assert bye.properties == LONG


def test_3_1_2_29_what_is_cut_leaves_no_trace():
    connection = opened(request_problem_information=0)
    assert connection.send(Puback(7, Reason.SUCCESS, LONG)) == bytes.fromhex("40 02 00 07")
    assert connection.send(Pingresp()) == bytes.fromhex("d0 00")


# 4.12 enhanced authentication


def auth(reason=CONTINUE, method="M", data=None):
    return Auth(reason=reason, properties=Properties(authentication_method=method, authentication_data=data))


def test_4_12_a_login_in_two_steps():
    connection = asked(authentication_method="M", authentication_data=b"1")
    challenge = connection.send(Auth(reason=CONTINUE, properties=Properties(authentication_data=b"?")))
    assert said(challenge) == [auth(data=b"?")]
    assert read(connection, auth(data=b"2")) == [auth(data=b"2")]
    connection.send(auth())
    assert read(connection, auth(data=b"3")) == [auth(data=b"3")]
    (connack,) = said(connection.send(Connack()))
    assert connack.properties.authentication_method == "M"  # [MQTT-4.12.0-5]
    assert connection.is_connected
    assert read(connection, Pingreq()) == [Pingreq()]


@pytest.mark.parametrize("packet", [*ORDINARY, *NOT_A_CLIENTS, Connect(client_id="c"), auth(), auth(AGAIN)])
def test_3_1_2_30_only_disconnect_may_come_while_it_is_our_turn(packet):
    assert refused(asked(authentication_method="M"), packet) is Reason.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "packet", [*ORDINARY, *NOT_A_CLIENTS, Connect(client_id="c"), auth(AGAIN), auth(method="N"), Auth()]
)
def test_4_12_only_the_answer_and_disconnect_may_come_to_a_challenge(packet):
    connection = asked(authentication_method="M")
    connection.send(auth())
    assert refused(connection, packet) is Reason.PROTOCOL_ERROR
    assert said(connection.send(Connack(reason=Reason.NOT_AUTHORIZED)))


def test_4_12_one_answer_a_challenge():
    connection = asked(authentication_method="M")
    connection.send(auth())
    with pytest.raises(LocalProtocolError):
        connection.send(auth())
    with pytest.raises(LocalProtocolError):
        connection.send(Connack())
    assert refused(connection, auth(), auth()) is Reason.PROTOCOL_ERROR


def test_4_12_the_client_may_leave_during_the_login():
    for is_challenged in (False, True):
        connection = asked(authentication_method="M")
        if is_challenged:
            connection.send(auth())
        assert read(connection, Disconnect(), Pingreq()) == [Disconnect()]
        with pytest.raises(LocalProtocolError):
            connection.send(Connack())


@LEVELS
def test_4_12_0_7_no_auth_without_a_method(level):
    connection = opened(level)
    raw = encode(auth(AGAIN), V5)
    assert refused(connection, raw) in {Reason.PROTOCOL_ERROR, Reason.MALFORMED_PACKET}
    for reason in (CONTINUE, Reason.SUCCESS):
        for other in (asked(level), opened(level)):
            with pytest.raises(LocalProtocolError):
                other.send(Auth(reason=reason))


def test_4_12_0_5_the_method_stays():
    connection = asked(authentication_method="M")
    with pytest.raises(LocalProtocolError):
        connection.send(auth(method="N"))
    with pytest.raises(LocalProtocolError):
        connection.send(Connack(properties=Properties(authentication_method="N")))


def test_4_12_1_a_client_proves_itself_again_while_all_else_goes_on():
    connection = opened(authentication_method="M")
    assert read(connection, auth(AGAIN), Pingreq()) == [auth(AGAIN), Pingreq()]
    assert connection.send(Pingresp())
    assert said(connection.send(auth())) == [auth()]
    assert read(connection, Publish("t", b""), auth(), Pingreq()) == [Publish("t", b""), auth(), Pingreq()]
    assert said(connection.send(Auth())) == [auth(Reason.SUCCESS)]
    assert read(connection, auth(AGAIN)) == [auth(AGAIN)]
    assert said(connection.send(Disconnect(reason=Reason.NOT_AUTHORIZED)))  # [MQTT-4.12.1-2]


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ("", auth()),
        ("", auth(AGAIN, method="N")),
        ("", auth(Reason.SUCCESS)),
        ("a", auth()),
        ("a", auth(AGAIN)),
        ("ac", auth(AGAIN)),
        ("ac", auth(method="N")),
        ("ac", auth(Reason.SUCCESS)),
        ("acr", auth()),
    ],
)
def test_4_12_1_1_out_of_turn_or_with_another_method_it_fails(steps, wrong):
    connection = opened(authentication_method="M")
    for step in steps:
        if step == "a":
            read(connection, auth(AGAIN))
        elif step == "c":
            connection.send(auth())
        else:
            read(connection, auth())
    assert refused(connection, wrong) is Reason.PROTOCOL_ERROR


def test_a_server_never_asks_for_a_new_login_nor_says_success_unasked():
    connection = opened(authentication_method="M")
    for packet in (auth(AGAIN), auth(), auth(Reason.SUCCESS)):
        with pytest.raises(LocalProtocolError):
            connection.send(packet)


# the table, and what a connection costs


def test_every_state_has_a_row_for_what_it_reads_and_what_it_says():
    from gateway.mqtt.connection import _READS, _SAYS, State

    assert set(_READS) == set(State) == set(_SAYS)


def test_a_connection_tells_its_state():
    connection = Connection(TERMS)
    assert repr(connection) == "<Connection start level=0 buffered=0>"
    connection = asked(V311)
    connection.feed(b"\xc0")
    assert repr(connection) == "<Connection asked level=4 buffered=1>"


def test_an_idle_connection_is_small():
    connection = opened()
    read(connection, Pingreq())
    own = [getattr(connection, name) for kind in type(connection).__mro__[:2] for name in kind.__slots__]
    sizes = itertools.chain([sys.getsizeof(connection)], (sys.getsizeof(v) for v in own if isinstance(v, (dict, set))))
    assert not hasattr(connection, "__dict__")
    assert sum(sizes) < 300
    assert connection._buffer == b""
