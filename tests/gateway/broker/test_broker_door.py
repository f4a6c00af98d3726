"""The gateway's own way in."""

import pytest

from gateway.mqtt.properties import Properties


@pytest.fixture
def door(world):
    return world.broker.door("plant7")


def test_what_the_gateway_publishes_reaches_clients(world, door):
    peer = world.peer("c")
    peer.subscribe("t", qos=2)
    for qos in (0, 1, 2):
        door.publish("t", b"%d" % qos, qos=qos, properties=Properties(content_type="x"))
    world.turn()
    assert [(seen.payload, seen.qos, seen.properties) for seen in peer.accept()] == [
        (b"0", 0, {3: "x"}),
        (b"1", 1, {3: "x"}),
        (b"2", 2, {3: "x"}),
    ]


def test_what_the_gateway_retains_is_there_for_those_who_come_later(world, door):
    door.publish("t", b"1", retain=True, properties=Properties(message_expiry=10))
    door.publish("t", b"2", retain=True, properties=Properties(message_expiry=10))
    world.advance(4)
    peer = world.peer("c")
    peer.subscribe("t")
    (seen,) = peer.packets()
    assert (seen.payload, seen.retain, seen.properties) == (b"2", True, {2: 6})
    door.publish("t", b"", retain=True)
    world.turn()
    assert peer.packets()[0].payload == b""
    other = world.peer("d")
    other.subscribe("t")
    assert other.packets() == []


def test_it_says_whether_anybody_would_get_a_message(world, door):
    assert not door.wanted("t")
    peer = world.peer("c", expiry=10)
    peer.subscribe("+", qos=1)
    assert door.wanted("t")
    peer.cut()
    assert door.wanted("t"), "it waits for the session"
    world.advance(11)
    assert not door.wanted("t")
    peer = world.peer("c")
    peer.subscribe("$share/g/#")
    assert door.wanted("t")
    world.access.unreadable.add("u")
    peer.subscribe("u")
    peer.unsubscribe("$share/g/#")
    assert not door.wanted("u")


def test_its_ears_hear_what_is_published_live_as_it_was_published(world, door):
    heard = []
    world.peer("early").publish("t/1", b"early", retain=True)
    door.subscribe("t/+", heard.append)
    publisher = world.peer("p")
    assert publisher.publish("t/1", b"1", 1, retain=True) == 0
    assert publisher.publish("t/2", b"2", 2, properties="(03 'type')") == 0
    publisher.publish("u", b"no")
    door.publish("t/3", b"own")
    assert [(m.topic, m.payload, m.qos, m.retain, m.properties.content_type) for m in heard] == [
        ("t/1", b"1", 1, True, None),
        ("t/2", b"2", 2, False, "type"),
        ("t/3", b"own", 0, False, None),
    ]
    assert heard[0].origin.client_id == "p"
    door.unsubscribe("t/+")
    door.unsubscribe("unknown")
    assert publisher.publish("t/1", b"3", 1) == 0x10
    assert len(heard) == 3


def test_an_ear_may_publish_and_unsubscribe_while_it_is_called(world, door):
    heard = []

    def answer(message):
        heard.append(message.payload)
        door.publish("reply", message.payload + b"!", qos=1)
        door.unsubscribe("ask")

    door.subscribe("ask", answer)
    peer = world.peer("c")
    peer.subscribe("reply", "ask", qos=1)
    peer.publish("ask", b"1", 1)
    assert peer.payloads() == [b"1", b"1!"]
    peer.publish("ask", b"2", 1)
    assert (heard, peer.payloads()) == ([b"1"], [b"2"])


def test_the_same_filter_again_replaces_the_callback(world, door):
    one, two = [], []
    door.subscribe("t", one.append)
    door.subscribe("t", two.append)
    door.publish("t", b"x")
    assert (len(one), len(two)) == (0, 1)


@pytest.mark.parametrize("text", ["", "a#", "$share/g/t", "a/#/b"])
def test_an_ear_on_a_bad_filter_is_an_error(door, text):
    with pytest.raises(ValueError, match=r".+"):
        door.subscribe(text, print)


def test_two_doors_do_not_end_each_others_subscriptions(world, door):
    one, two = [], []
    other = world.broker.door("other")
    door.subscribe("t", one.append)
    other.subscribe("t", two.append)
    door.unsubscribe("t")
    other.publish("t", b"x")
    assert (len(one), len(two)) == (0, 1)
    assert repr(other) == "<Door 'other' 1 subscriptions>"


def test_a_client_with_the_gateways_name_gets_its_messages_all_the_same(world, door):
    peer = world.peer("plant7")
    peer.subscribe("t", options=0x04)
    door.publish("t", b"x", retain=True)
    world.turn()
    assert peer.payloads() == [b"x"]
    peer.subscribe("t", options=0x04)
    assert peer.payloads() == [b"x"]
