"""Statements 35 to 39: retained messages."""

import pytest


def look(world, topic="t", qos=2):
    """What a newcomer is shown, as packets."""
    peer = world.peer("look")
    peer.subscribe(topic, qos=qos)
    found = peer.accept()
    peer.leave()
    return found


@pytest.mark.parametrize("level", [4, 5])
def test_s35_the_newest_replaces_with_its_qos_and_properties(world, level):
    publisher = world.peer("p", level=level)
    publisher.publish("t", b"1", 2, retain=True, properties="(03 'old' 26 'n' 'v' 01 01)")
    publisher.publish("t", b"2", 1, retain=True, properties="(26 'm' 'w')")
    (seen,) = look(world)
    assert seen.raw == world.notation.raw(
        f"33 .. 't' {seen.packet_id:04x} {'(26 !m! !w!)' if level == 5 else '()'} \"2\"".replace("!", "'")
    )
    publisher.publish("t", b"3", 0, retain=True)
    (seen,) = look(world)
    assert seen.raw == world.notation.raw("""31 .. 't' () "3" """)


def test_s35_qos_0_replaces_as_well(world):
    publisher = world.peer("p")
    publisher.publish("t", b"1", 2, retain=True)
    publisher.publish("t", b"2", 0, retain=True)
    assert [(seen.payload, seen.qos) for seen in look(world)] == [(b"2", 0)]


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_s35_an_empty_payload_deletes_is_forwarded_and_is_never_stored(world, level, qos):
    watcher = world.peer("w", level=level)
    watcher.subscribe("t", qos=qos)
    publisher = world.peer("p", level=level)
    publisher.publish("t", b"1", 1, retain=True)
    publisher.publish("t", b"", qos, retain=True)
    _, gone = watcher.accept()
    packet_id = f"{gone.packet_id:04x}" if qos else ""
    assert gone.raw == watcher.bytes(f"{0x30 | qos << 1:02x} .. 't' {packet_id} ()"), "forwarded, retain 0"
    assert not look(world)
    publisher.publish("t", b"", qos, retain=True)  # where there is none
    assert len(watcher.accept()) == 1
    assert not look(world)
    assert not look(world, "#")


def test_s35_an_empty_payload_with_an_alias_deletes_too(world):
    publisher = world.peer("p")
    publisher.send("""31 .. 't' (23 0001) "x" """, "31 .. '' (23 0001)")
    assert not look(world)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_s36_retain_0_does_not_touch_the_stored_one(world, qos):
    publisher = world.peer("p")
    publisher.publish("t", b"stays", 1, retain=True, properties="(26 'n' 'v')")
    publisher.publish("t", b"passes", qos)
    publisher.publish("t", b"", qos)
    (seen,) = look(world)
    assert (seen.payload, seen.properties) == (b"stays", {0x26: [("n", "v")]})
    publisher.publish("u", b"x", qos)
    assert not look(world, "u")


SUBSCRIBED = "82 .. 0001 () 't' {:02x}"


def test_s37_retain_handling_0_sends_at_each_subscribe(world):
    world.peer("p").publish("t", b"x", retain=True)
    peer = world.peer()
    for _ in range(2):
        peer.send(SUBSCRIBED.format(0x00))
        peer.expect("90 .. 0001 () 00", """31 .. 't' () "x" """)


def test_s37_retain_handling_1_sends_only_where_the_subscription_is_new(world):
    world.peer("p").publish("t", b"x", retain=True)
    peer = world.peer("c", expiry=100)
    peer.send(SUBSCRIBED.format(0x10))
    peer.expect("90 .. 0001 () 00", """31 .. 't' () "x" """)
    peer.send(SUBSCRIBED.format(0x11))
    peer.expect("90 .. 0001 () 01")
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100)
    peer.send(SUBSCRIBED.format(0x10))
    peer.expect("90 .. 0001 () 00")  # it existed, in the resumed session
    peer.unsubscribe("t")
    peer.send(SUBSCRIBED.format(0x10))
    peer.expect("90 .. 0001 () 00", """31 .. 't' () "x" """)
    peer.cut()
    peer = world.peer("c", clean=True, expiry=100)
    peer.send(SUBSCRIBED.format(0x10))
    peer.expect("90 .. 0001 () 00", """31 .. 't' () "x" """)


def test_s37_retain_handling_2_sends_nothing_but_live_messages(world):
    publisher = world.peer("p")
    publisher.publish("t", b"x", retain=True)
    peer = world.peer()
    peer.send(SUBSCRIBED.format(0x20))
    peer.expect("90 .. 0001 () 00")
    publisher.publish("t", b"y", retain=True)
    peer.expect("""30 .. 't' () "y" """)


def test_s37_each_filter_of_a_subscribe_has_its_own_handling(world):
    publisher = world.peer("p")
    for topic in "abc":
        publisher.publish(topic, topic.encode(), retain=True)
    peer = world.peer()
    peer.subscribe("b")
    peer.packets()
    peer.send("82 .. 0001 () 'a' 00 'b' 10 'c' 20")
    peer.expect("90 .. 0001 () 00 00 00", """31 .. 'a' () "a" """)


def test_s37_311_sends_at_each_subscribe(world):
    world.peer("p").publish("t", b"x", 1, retain=True)
    peer = world.peer(level=4)
    for qos in (0, 1, 0):
        peer.send(f"82 .. 0001 't' {qos:02x}")
        first, second = peer.packets()
        assert first.raw == bytes.fromhex(f"9003 0001 {qos:02x}")
        assert second.raw == peer.bytes(
            f"{0x31 | qos << 1:02x} .. 't' {second.packet_id:04x} \"x\"" if qos else "31 .. 't' \"x\""
        )
        if qos:
            peer.answer(second)


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_s38_a_live_copy_carries_retain_0_or_the_original_as_asked(world, qos, retain):
    plain, published = world.peer("plain"), world.peer("published")
    plain.subscribe("t", qos=qos)
    published.subscribe("t", qos=qos, options=0x08)
    world.peer("p").publish("t", b"x", qos, retain=retain)
    assert [seen.raw[0] for seen in plain.accept()] == [0x30 | qos << 1]
    assert [seen.raw[0] for seen in published.accept()] == [0x30 | qos << 1 | retain]


def test_s38_a_311_client_never_sees_retain_on_a_live_copy(world):
    peer = world.peer(level=4)
    peer.subscribe("t")
    world.peer("p").publish("t", b"x", retain=True)
    peer.expect("""30 .. 't' "x" """)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("options", [0x00, 0x08])
def test_s38_a_replayed_one_is_always_retain_1(world, level, options):
    if (level, options) != (4, 0x08):
        world.peer("p").publish("t", b"x", retain=True)
        peer = world.peer(level=level)
        peer.subscribe("t", options=options)
        peer.expect("""31 .. 't' () "x" """)


def test_s38_retain_as_published_holds_for_what_waited_offline(world):
    peer = world.peer("c", expiry=100)
    peer.subscribe("plain", qos=1)
    peer.subscribe("published", qos=1, options=0x08)
    peer.cut()
    publisher = world.peer("p")
    publisher.publish("plain", b"x", 1, retain=True)
    publisher.publish("published", b"x", 1, retain=True)
    peer = world.peer("c", clean=False, expiry=100)
    assert [(seen.topic, seen.retain) for seen in peer.accept()] == [("plain", False), ("published", True)]


def test_s38_an_expired_or_deleted_one_is_not_replayed(world):
    publisher = world.peer("p")
    publisher.publish("a", b"x", retain=True, properties="(02 00000001)")
    publisher.publish("b", b"x", retain=True)
    publisher.publish("b", b"", retain=True)
    world.advance(2)
    assert not look(world, "#")


def test_s39_a_second_subscribe_replays_and_neither_loses_nor_doubles_live_messages(world):
    publisher = world.peer("p")
    publisher.publish("t", b"kept", 1, retain=True)
    peer = world.peer(receive_maximum=2)
    peer.subscribe("t", qos=1)
    peer.accept()
    for n in range(5):
        publisher.publish("t", b"%d" % n, 1)
    held = peer.packets()
    peer.subscribe("t", qos=1)
    for n in range(5, 8):
        publisher.publish("t", b"%d" % n, 1)
    peer.inbox = held + peer.inbox
    seen = peer.accept()
    assert [one.payload for one in seen if not one.retain] == [b"%d" % n for n in range(8)]
    assert [one.payload for one in seen if one.retain] == [b"kept"]


def test_s39_a_long_replay_in_slices_mixes_with_live_messages_without_losing_any(world):
    publisher = world.peer("p")
    topics = [f"t/{n:04d}" for n in range(1500)]
    for topic in topics:
        publisher.send(publisher.published(topic, b"old", 1, retain=True))
    publisher.packets()
    peer = world.peer()
    world.does_more = False
    peer.subscribe("t/#", qos=1)
    publisher.publish("t/0000", b"new", 1, retain=True)
    publisher.publish("t/1499", b"new", 1, retain=True)
    publisher.publish("t/0700", b"", 1, retain=True)
    world.does_more = True
    world.turn()
    seen = peer.accept()
    latest = {one.topic: one.payload for one in seen}
    assert len(latest) == 1500
    changed = {topic for topic, payload in latest.items() if payload != b"old"}
    assert changed == {"t/0000", "t/1499", "t/0700"}
    live = [(one.topic, one.payload) for one in seen if not one.retain]
    assert live == [("t/0000", b"new"), ("t/1499", b"new"), ("t/0700", b"")], "each live message once"
    replayed = [one.topic for one in seen if one.retain]
    assert len(replayed) == len(set(replayed)), "no topic twice"


def test_s39_a_replay_ends_with_its_subscription(world):
    publisher = world.peer("p")
    for n in range(1500):
        publisher.send(publisher.published(f"t/{n}", b"x", 0, retain=True))
    peer = world.peer()
    world.does_more = False
    peer.subscribe("t/#")
    peer.send("a2 .. 0009 () 't/#'")
    before = len(peer.packets())
    world.does_more = True
    world.turn()
    assert before < 1500
    assert not peer.packets()


def test_s39_a_replay_survives_the_loss_of_its_client(world):
    publisher = world.peer("p")
    for n in range(1500):
        publisher.send(publisher.published(f"t/{n}", b"x", 0, retain=True))
    peer = world.peer()
    world.does_more = False
    peer.subscribe("t/#")
    peer.cut()
    world.does_more = True
    world.turn()
    publisher.send("c0 00")
    publisher.expect("d0 00")


def test_s39_a_replay_that_was_cut_goes_on_when_the_session_does(world):
    publisher = world.peer("p")
    for n in range(600):
        publisher.send(publisher.published(f"t/{n}", b"x", 1, retain=True))
    publisher.packets()
    peer = world.peer("c", expiry=100, receive_maximum=10)
    peer.subscribe("t/#", qos=1)
    seen = {one.topic for one in peer.packets()}
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100)
    assert len(seen | {one.topic for one in peer.accept()}) == 600


def test_s39_a_replay_keeps_to_the_window_and_to_the_transport(world):
    publisher = world.peer("p")
    for n in range(600):
        publisher.send(publisher.published(f"t/{n}", b"x", 1, retain=True))
    publisher.packets()
    peer = world.peer(receive_maximum=10)
    peer.subscribe("t/#", qos=1)
    came = peer.packets()
    assert len(came) == 10
    peer.inbox = came
    assert len({seen.topic for seen in peer.accept()}) == 600
    other = world.peer("o")
    other.stall()
    other.send("82 .. 0001 () 't/#' 00")
    assert [seen.kind for seen in other.packets()] == ["SUBACK"]
    other.resume()
    assert len(other.packets()) == 600


@pytest.mark.parametrize("level", [4, 5])
def test_s39_a_shared_subscription_is_shown_no_retained_messages(world, level):
    world.peer("p").publish("t", b"x", 1, retain=True)
    peer = world.peer(level=level)
    peer.send("82 .. 0001 () '$share/g/t' 01 '$share/g/#' 01")
    peer.expect("90 .. 0001 () 01 01")


@pytest.mark.parametrize("level", [4, 5])
def test_s39_neither_resume_nor_takeover_replays_retained_messages(world, level):
    world.peer("p").publish("t", b"x", 1, retain=True)
    peer = world.peer("c", level=level, clean=False, expiry=100)
    peer.subscribe("t", qos=1)
    assert peer.payloads() == [b"x"]
    taker = world.peer("c", level=level, clean=False, expiry=100)
    assert taker.session_present
    assert taker.silent()
    taker.cut()
    peer = world.peer("c", level=level, clean=False, expiry=100)
    assert peer.silent()


def test_s39_a_will_that_is_retained_is_replayed_and_an_empty_one_deletes(world):
    world.peer("c", will=("t", b"gone", 1, True)).cut()
    assert [(seen.payload, seen.qos) for seen in look(world)] == [(b"gone", 1)]
    world.peer("c", will=("t", b"", 1, True)).cut()
    assert not look(world)


def test_s39_retained_messages_go_through_access_at_the_time_of_replay(world):
    publisher = world.peer("p")
    publisher.publish("secret", b"x", retain=True)
    publisher.publish("open", b"x", retain=True)
    world.access.unreadable.add("secret")
    world.access.generation += 1
    assert [seen.topic for seen in look(world, "#")] == ["open"]
