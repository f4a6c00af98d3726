"""What can't be said on a level, or not at all; what 3.1.1 leaves out; the topic memories."""

import pytest

from gateway.mqtt import decode as decoding
from gateway.mqtt import encode as encoding
from gateway.mqtt import wire
from gateway.mqtt.decode import decode_publish
from gateway.mqtt.encode import encode, publish_parts
from gateway.mqtt.errors import LocalProtocolError
from gateway.mqtt.packets import (
    V5,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
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

BOTH = (V311, V5)
METHOD = Properties(authentication_method="m")


@pytest.mark.parametrize(
    ("packet", "levels", "match"),
    [
        (Connect(level=V5), [V311], "level 5 on level 4"),
        (Connect(level=V311), [V5], "level 4 on level 5"),
        (Connect(level=6), [6], "level 6"),
        (Connect(level=V311, password=b"x"), [V311], "password without a user name"),
        (Connect(keep_alive=65536), [V5], "does not fit"),
        (Connect(client_id="\0"), [V5], "U\\+0000"),
        (Connect(client_id="\ud800"), [V5], "UTF-8"),
        (Connect(will=Will(topic="a", payload=b"", qos=3)), [V5], "no QoS 3"),
        (Connect(will=Will(topic="a/+", payload=b"")), [V5], "wildcard"),
        (Connect(will=Will(topic="", payload=b"")), [V5], "empty topic"),
        (Connect(will=Will(topic="a", payload=bytes(65536))), [V5], "65535 go"),
        (Connack(session_present=True, reason=Reason.BANNED), BOTH, "session with a refusal"),
        (Connack(reason=Reason.PACKET_TOO_LARGE), [V311], "can't say packet_too_large"),
        (Publish("a", b"", 3, packet_id=1), BOTH, "no QoS 3"),
        (Publish("a", b"", -1), BOTH, "no QoS -1"),
        (Publish("a", b"", 1), BOTH, "packet id other than 0"),
        (Publish("a", b"", 2, packet_id=65536), BOTH, "does not fit"),
        (Publish("a", b"", packet_id=1), BOTH, "no packet id and no DUP"),
        (Publish("a", b"", dup=True), BOTH, "no packet id and no DUP"),
        (Publish("", b""), BOTH, "without topic and alias"),
        (Publish("", b"", properties=Properties(topic_alias=1)), [V311], "without topic and alias"),
        (Publish("a/+/b", b""), BOTH, "wildcard"),
        (Publish("#", b""), BOTH, "wildcard"),
        (Publish("a\0", b""), BOTH, "U\\+0000"),
        (Publish("a\udfff", b""), BOTH, "UTF-8"),
        (Publish("a" * 65536, b""), BOTH, "65535 go"),
        (Puback(0), BOTH, "packet id other than 0"),
        (Pubrec(65536), BOTH, "does not fit"),
        (Pubrel(-1), BOTH, "does not fit"),
        (Pubcomp(0), BOTH, "packet id other than 0"),
        (Subscribe(0, (Subscription("a"),)), BOTH, "packet id other than 0"),
        (Subscribe(1, ()), BOTH, "without a filter"),
        (Subscribe(1, (Subscription("a", 3),)), BOTH, "no QoS 3"),
        (Subscribe(1, (Subscription("a", retain_handling=3),)), [V5], "no retain handling 3"),
        (Subscribe(1, (Subscription("a", no_local=True),)), [V311], "no options"),
        (Subscribe(1, (Subscription("a", retain_as_published=True),)), [V311], "no options"),
        (Subscribe(1, (Subscription("a", retain_handling=1),)), [V311], "no options"),
        (Subscribe(1, (Subscription("$share/g/a", no_local=True),)), [V5], "no local on a shared"),
        (Suback(1, ()), BOTH, "without a code"),
        (Suback(0, (Reason.SUCCESS,)), BOTH, "packet id other than 0"),
        (Unsubscribe(1, ()), BOTH, "without a filter"),
        (Unsubscribe(0, ("a",)), BOTH, "packet id other than 0"),
        (Unsuback(1, ()), [V5], "without a code"),
        (Unsuback(0, (Reason.SUCCESS,)), BOTH, "packet id other than 0"),
        (Disconnect(reason=Reason.SERVER_BUSY), [V311], "can't say server_busy"),
        (Auth(), [V311], "no AUTH"),
        (Auth(reason=Reason.REAUTHENTICATE), [V5], "without a method"),
        (Auth(properties=Properties(reason_string="x")), [V5], "without a method"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_what_a_packet_cannot_say_is_our_error(packet, levels, match):
    for level in levels:
        with pytest.raises(LocalProtocolError, match=match):
            encode(packet, level)


def test_3_1_1_leaves_out_what_nobody_misses():
    said = Properties(reason_string="no", user=(("a", "b"),))
    assert encode(Publish("a", b"x", properties=Properties(content_type="t")), V311).hex() == "3004000161" + "78"
    assert encode(Puback(1, Reason.NOT_AUTHORIZED, said), V311).hex() == "40020001"
    assert encode(Pubrec(1, Reason.QUOTA_EXCEEDED), V311).hex() == "50020001"
    assert encode(Suback(1, (Reason.GRANTED_QOS_2, Reason.NOT_AUTHORIZED), said), V311).hex() == "900400010280"
    assert encode(Unsuback(1, (Reason.NO_SUBSCRIPTION_EXISTED,), said), V311).hex() == "b0020001"
    assert encode(Connack(properties=Properties(receive_maximum=5)), V311).hex() == "20020000"


def test_a_will_of_3_1_1_has_no_properties():
    will = Will(topic="a", payload=b"x", properties=Properties(will_delay=5))
    raw = encode(Connect(level=V311, will=will, properties=Properties(session_expiry=5)), V311)
    assert raw.hex() == "1012" + "00044d515454" + "0406" + "0000" + "0000" + "000161" + "000178"


@pytest.mark.parametrize(("size", "header"), [(124, "7f"), (125, "8001"), (16380, "ff7f"), (16381, "808001")])
def test_a_publish_counts_its_length_in_as_few_bytes_as_can_be(size, header):
    head, tail = publish_parts("a", bytes(size), 0, False, V311, NONE)
    assert head.hex() == "30" + header + "000161"
    assert tail == bytes(size)


def test_the_length_of_a_publish_counts_the_packet_id():
    head, tail = publish_parts("a", b"xy", 1, True, V5, NONE)
    assert (head.hex(), tail.hex()) == ("3308000161", "007879")
    head, tail = publish_parts("a", b"xy", 2, False, V311, NONE)
    assert (head.hex(), tail.hex()) == ("3407000161", "7879")


def test_the_payload_of_3_1_1_is_not_copied():
    payload = bytes(1000)
    assert publish_parts("a", payload, 0, False, V311, NONE)[1] is payload


def test_a_packet_larger_than_mqtt_allows_is_our_error(monkeypatch):
    monkeypatch.setattr(wire, "LARGEST_VARINT", 20_000)
    encode(Publish("a", bytes(19_997)), V311)
    with pytest.raises(LocalProtocolError, match="no variable byte integer"):
        encode(Publish("a", bytes(19_998)), V311)
    with pytest.raises(LocalProtocolError, match="no variable byte integer"):
        encode(Unsubscribe(1, ("a" * 20_000,)), V311)


def test_topics_are_remembered_within_bounds():
    for number in range(20_000):
        topic = f"plant/{number}"
        head, _ = publish_parts(topic, b"", 0, False, V311, NONE)
        assert decode_publish(head[0], head[2:], V311).topic is decoding.topics[topic.encode()]
        assert publish_parts(topic, b"", 0, False, V311, NONE)[0] == head
        assert encoding._topics[topic] == head[2:]
        assert len(encoding._topics) <= encoding._TOPICS
        assert len(decoding.topics) <= decoding._TOPICS
    long = "x" * 129
    assert decode_publish(0x30, b"\0\x81" + long.encode(), V311).topic == long
    publish_parts(long, b"", 0, False, V311, NONE)
    assert long not in encoding._topics
    assert long.encode() not in decoding.topics
    assert decode_publish(0x30, b"\0\x80" + long[1:].encode(), V311).topic is decoding.topics[long[1:].encode()]


def test_a_topic_that_came_before_is_the_same_object():
    first, again = (decode_publish(0x30, bytes.fromhex("0003 612f62"), V311).topic for _ in range(2))
    assert first is again
