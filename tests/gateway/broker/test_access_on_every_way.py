"""Whatever way a message takes to a client, its concrete topic is checked when it is delivered."""

import pytest


def deny(world, *topics):
    """From now on nobody may read these topics: the rules were read anew."""
    world.access.unreadable.update(topics)
    world.access.generation += 1
    world.broker.access_changed(world.now)
    world.turn()


FILTERS = ["secret", "#", "+", "secret/#", "$share/g/secret", "$share/g/#"]


@pytest.mark.parametrize("filter_", FILTERS)
def test_a_live_message_on_a_denied_topic_is_not_delivered_by_any_filter(world, filter_):
    world.access.unreadable.add("secret")
    peer, publisher = world.peer(), world.peer("p")
    peer.subscribe(filter_, qos=1)
    for qos in (0, 1, 2):
        publisher.publish("secret", b"x", qos)
    assert peer.silent()


@pytest.mark.parametrize("filter_", FILTERS)
def test_new_rules_hold_for_subscriptions_that_live(world, filter_):
    peer, publisher = world.peer(), world.peer("p")
    peer.subscribe(filter_, qos=1)
    publisher.publish("secret", b"1", 1)
    assert peer.payloads() == [b"1"]
    deny(world, "secret")
    publisher.publish("secret", b"2", 1)
    assert peer.silent()
    world.access.unreadable.clear()
    world.access.generation += 1
    world.broker.access_changed(world.now)
    publisher.publish("secret", b"3", 1)
    assert peer.payloads() == [b"3"]


@pytest.mark.parametrize("filter_", FILTERS)
def test_what_waited_offline_is_checked_by_the_rules_of_the_day_it_is_fetched(world, filter_):
    peer = world.peer("c", expiry=100)
    peer.subscribe(filter_, "open", qos=1)
    peer.cut()
    publisher = world.peer("p")
    publisher.publish("secret", b"x", 1)
    publisher.publish("open", b"o", 1)
    deny(world, "secret")
    seen = world.peer("c", clean=False, expiry=100).accept()
    assert {one.topic for one in seen} == {"open"}


def test_what_waits_behind_a_window_or_a_transport_is_checked_by_new_rules(world):
    peer = world.peer(receive_maximum=1)
    peer.subscribe("#", qos=1)
    publisher = world.peer("p")
    publisher.publish("open", b"1", 1)
    for n in range(3):
        publisher.publish("secret", b"%d" % n, 1)
    publisher.publish("open", b"2", 1)
    (first,) = peer.packets()
    peer.stall()
    publisher.publish("secret", b"zero", 0)
    deny(world, "secret")
    peer.resume()
    peer.answer(first)
    assert {seen.topic for seen in peer.accept()} == {"open"}


def test_a_replay_under_way_is_checked_by_new_rules(world):
    publisher = world.peer("p")
    names = [f"t/{n:03d}" for n in range(600)]
    for name in names:
        publisher.send(publisher.published(name, b"x", 0, retain=True))
    peer = world.peer()
    peer.stall()
    peer.subscribe("t/#")
    deny(world, *names[1:])
    peer.resume()
    assert {seen.topic for seen in peer.packets()} <= {names[0]}


def test_retained_messages_are_checked_at_replay(world):
    publisher = world.peer("p")
    publisher.publish("secret", b"x", 1, retain=True)
    publisher.publish("open", b"x", 1, retain=True)
    deny(world, "secret")
    peer = world.peer()
    peer.subscribe("#", "secret", qos=1)
    assert {seen.topic for seen in peer.accept()} == {"open"}


def test_a_will_is_checked_by_the_rules_of_the_moment_it_is_published(world):
    watcher = world.peer("w")
    watcher.subscribe("#")
    first, second = world.peer("a", will=("secret", b"x")), world.peer("b", will=("unwritable", b"x", 1, True))
    deny(world, "secret")
    world.access.unwritable.add("unwritable")
    world.access.generation += 1
    first.cut()
    second.cut()
    assert watcher.silent()
    late = world.peer("late")
    late.subscribe("unwritable")
    assert late.silent()


def test_a_denied_publish_reaches_nobody_and_is_not_retained(world):
    world.access.unwritable.add("t")
    watcher = world.peer("w")
    watcher.subscribe("t", qos=2)
    for level in (4, 5):
        for qos in (0, 1, 2):
            peer = world.peer("c", level=level)
            peer.send(peer.published("t", b"x", qos, retain=True))
            peer.cut()
    assert watcher.silent()
    late = world.peer("late")
    late.subscribe("#")
    assert late.silent()
    assert ("denied", "c") in world.report.said


def test_one_client_is_denied_what_another_may_read(make_world):
    world = make_world()
    world.access.may_read = lambda who, topic: who.username == "mary" or topic != "secret"
    mary, john = world.peer("m", username="mary"), world.peer("j", username="john")
    for peer in (mary, john):
        peer.subscribe("secret", "+", qos=1)
    world.peer("p").publish("secret", b"x", 1, retain=True)
    assert mary.payloads() == [b"x"]
    assert john.silent()
    john.subscribe("secret")
    assert john.silent()
