"""A message and its encoded forms."""

import pytest

from gateway.broker.client import Identity
from gateway.broker.message import Message, forwarded
from gateway.mqtt.decode import decode
from gateway.mqtt.packets import V5, V311
from gateway.mqtt.properties import NONE, Properties

WHO = Identity("c")


def message(payload=b"x", properties=NONE, expires_at=None, qos=1):
    return Message("t", payload, qos, False, properties, expires_at, WHO)


def decoded(parts, qos, level):
    head, tail = parts
    data = head + (b"\0\1" if qos else b"") + tail
    assert data[1] == len(data) - 2
    return decode(data[0], data[2:], level)


@pytest.mark.parametrize("level", [V311, V5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_each_form_says_what_it_is_asked_for(level, qos, retain):
    packet = decoded(message().parts(level, qos, retain, (3, 4), 0.0), qos, level)
    assert (packet.topic, packet.payload, packet.qos, packet.retain, packet.dup) == ("t", b"x", qos, retain, False)
    assert packet.properties.subscription_identifiers == ((3, 4) if level == V5 else ())


def test_one_form_is_encoded_once_also_beside_others():
    one = message()
    first = one.parts(V5, 1, False, (), 0.0)
    other = one.parts(V311, 1, False, (), 0.0)
    assert one.parts(V5, 1, False, (), 5.0) is first
    assert one.parts(V311, 1, False, (7,), 5.0) is other, "3.1.1 has no identifiers"
    assert one.parts(V5, 1, False, (7,), 0.0) is not first
    one.forget()
    assert one.parts(V5, 1, False, (), 0.0) == first


def test_forms_do_not_pile_up():
    one = message(properties=Properties(message_expiry=100_000), expires_at=100_000.0)
    for second in range(1_000):
        one.parts(V5, 1, False, (), float(second))
    assert len(one._others) <= 65


def test_the_expiry_that_is_forwarded_is_reduced_by_the_time_waited_and_never_0():
    one = message(properties=Properties(message_expiry=10, content_type="c"), expires_at=110.0)
    for now, left in ((100.0, 10), (100.5, 10), (101.0, 9), (109.9, 1), (110.0, 1), (500.0, 1), (90.0, 10)):
        packet = decoded(one.parts(V5, 1, False, (), now), 1, V5)
        assert (packet.properties.message_expiry, packet.properties.content_type) == (left, "c")
    assert [one.is_expired(now) for now in (109.9, 110.0)] == [False, True]
    assert decoded(one.parts(V311, 1, False, (), 105.0), 1, V311).properties == NONE


def test_what_a_message_is_charged_grows_with_all_that_it_holds():
    plain = message().size
    assert message(b"x" * 1000).size == plain + 999
    for properties in (
        Properties(correlation_data=b"x" * 10_000),
        Properties(content_type="x" * 10_000),
        Properties(response_topic="x" * 10_000),
        Properties(user=(("k" * 4_000, "v" * 6_000),)),
    ):
        assert message(properties=properties).size >= plain + 10_000
    assert message(properties=Properties(user=(("", ""),) * 100)).size >= plain + 10_000


def test_alias_and_will_delay_are_not_forwarded_and_all_else_is():
    assert forwarded(NONE) is NONE
    assert forwarded(Properties(topic_alias=3)) is NONE
    assert forwarded(Properties(will_delay=3, content_type="c")) == Properties(content_type="c")
    kept = Properties(user=(("a", "b"), ("a", "b")), payload_format=1)
    assert forwarded(kept) is kept
