"""Statements 16, 35, 49, 52, 53, 56 and 58 over a restart: the broker is killed, and another one goes on."""

import pytest

LEVELS = pytest.mark.parametrize("level", [4, 5])


def comes_back(world, name="c", level=5, **terms):
    peer = world.peer(name, level=level, clean=False, **{"expiry": 1000} | terms)
    assert peer.session_present
    return peer


@LEVELS
def test_s16_a_session_outlives_the_broker_with_its_subscriptions(house, level):
    world = house.open()
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("a/+", qos=2, options=0x08 if level == 5 else 0, identifier=7 if level == 5 else None)
    peer.subscribe("b", "gone", qos=1)
    peer.unsubscribe("gone")
    world = world.kill()
    peer = comes_back(world, level=level)
    publisher = world.peer("p")
    for topic in ("a/x", "b", "gone"):
        publisher.publish(topic, b"x", 2, retain=True)
    seen = peer.accept()
    assert [(one.topic, one.qos, one.retain) for one in seen] == [("a/x", 2, level == 5), ("b", 1, False)]
    assert [one.properties for one in seen] == ([{0x0B: [7]}, {}] if level == 5 else [{}, {}])


def test_s16_expiry_goes_on_while_the_broker_is_down(house):
    world = house.open()
    world.peer("short", expiry=100).cut()
    world.peer("long", expiry=1000).cut()
    world.peer("ever", expiry=0xFFFFFFFF).cut()
    world.advance(50)
    world = world.kill(later=60)
    assert not world.peer("short", clean=False, expiry=100).session_present
    comes_back(world, "long").cut()
    world = world.kill(later=10_000)
    assert not world.peer("long", clean=False, expiry=1000).session_present
    comes_back(world, "ever", expiry=0xFFFFFFFF)


def test_s16_a_client_that_was_connected_when_the_broker_died_has_its_expiry_from_then_or_later(house):
    world = house.open()
    world.peer("c", expiry=100)
    world.advance(1000)
    world = world.kill(later=10)
    world.advance(80)
    comes_back(world, expiry=100).cut()
    world.advance(101)
    assert not world.peer("c", clean=False, expiry=100).session_present


def test_s16_a_session_of_expiry_0_is_not_kept(house):
    world = house.open()
    peer = world.peer("c", clean=False)
    peer.subscribe("t", qos=1)
    world = world.kill()
    assert not world.peer("c", clean=False).session_present


def test_s16_clean_start_and_disconnect_end_a_stored_session_for_good(house):
    world = house.open()
    world.peer("a", expiry=1000).cut()
    world.peer("b", expiry=1000).send("e0 .. 00 (11 00000000)")
    world.peer("a", clean=True).cut()
    world = world.kill()
    assert not world.peer("a", clean=False).session_present
    assert not world.peer("b", clean=False).session_present


def test_s35_retained_messages_of_clients_outlive_the_broker(house):
    world = house.open()
    publisher = world.peer("p")
    publisher.publish("a", b"old", 2, retain=True)
    publisher.publish("a", b"new", 1, retain=True, properties="(03 'type' 26 'n' 'v' 26 'n' 'w')")
    publisher.publish("b", b"x", 1, retain=True)
    publisher.publish("b", b"", 1, retain=True)
    publisher.publish("c", b"x", 1, retain=True, properties="(02 00000064)")
    publisher.publish("d", b"x", 0, retain=True, properties="(02 00000005)")
    world = world.kill(later=10)
    peer = world.peer("look")
    peer.subscribe("#", qos=2)
    seen = sorted(peer.accept(), key=lambda one: one.topic)
    assert [(one.topic, one.payload, one.qos, one.retain) for one in seen] == [
        ("a", b"new", 1, True),
        ("c", b"x", 1, True),
    ]
    assert seen[0].properties == {0x03: "type", 0x26: [("n", "v"), ("n", "w")]}
    assert seen[1].properties == {0x02: 90}


@LEVELS
def test_s49_dedupe_of_qos_2_holds_across_a_restart(house, level):
    world = house.open()
    watcher = world.peer("w", expiry=1000)
    watcher.subscribe("t", qos=2)
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.send("""34 .. 't' 0005 () "x" """)
    peer.expect("50 02 0005")
    world = world.kill()
    peer, watcher = comes_back(world, level=level), comes_back(world, "w")
    peer.send("""3c .. 't' 0005 () "x" """)
    peer.expect("50 02 0005")
    world = world.kill()
    peer, watcher = comes_back(world, level=level), comes_back(world, "w")
    peer.send("62 02 0005")
    peer.expect("70 02 0005")
    assert watcher.payloads() == [b"x"]
    world = world.kill()
    peer, watcher = comes_back(world, level=level), comes_back(world, "w")
    assert watcher.silent()
    peer.send("""34 .. 't' 0005 () "new" """, "62 02 0005")
    assert watcher.payloads() == [b"new"]


def test_s49_an_acknowledgement_waits_until_the_message_is_written(house):
    world = house.open()
    watcher = world.peer("w", expiry=1000)
    watcher.subscribe("t", qos=2)
    peer = world.peer("c", expiry=1000)
    world.does_write = False
    peer.send("""32 .. 't' 0001 () "one" """, """34 .. 't' 0002 () "two" """)
    assert not peer.received(), "no promise before it can be kept"
    assert not watcher.received()
    world.write()
    assert [seen.kind for seen in peer.packets()] == ["PUBACK", "PUBREC"]
    assert [seen.payload for seen in watcher.packets()] == [b"one", b"two"]


@LEVELS
def test_s52_after_pubrec_only_pubrel_is_resent_by_the_next_broker(house, level):
    world = house.open()
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=2)
    world.peer("p").publish("t", b"x", 2)
    (seen,) = peer.packets()
    peer.send(f"50 02 {seen.packet_id:04x}")
    peer.expect(f"62 02 {seen.packet_id:04x}")
    world = world.kill()
    peer = comes_back(world, level=level)
    peer.expect(f"62 02 {seen.packet_id:04x}")
    peer.send(f"70 02 {seen.packet_id:04x}")
    world = world.kill()
    assert comes_back(world, level=level).silent()


@LEVELS
def test_s53_what_was_not_acknowledged_is_resent_by_the_next_broker(house, level):
    world = house.open()
    peer = world.peer("c", level=level, clean=False, expiry=1000, receive_maximum=3)
    peer.subscribe("t", qos=2, identifier=5 if level == 5 else None)
    publisher = world.peer("p")
    for n, qos in enumerate((1, 2, 1, 2)):
        publisher.publish("t", b"%d" % n, qos, properties="(26 'n' 'v')")
    sent = peer.packets()
    peer.send(f"40 02 {sent[0].packet_id:04x}")
    late = peer.packets()
    world = world.kill()
    peer = comes_back(world, level=level, receive_maximum=3)
    again = peer.packets()
    was = [(seen.packet_id, seen.payload, seen.qos) for seen in [*sent[1:], *late]]
    assert [(seen.packet_id, seen.payload, seen.qos) for seen in again][: len(was)] == was
    assert all(seen.dup for seen in again[: len(was)])
    if level == 5:
        assert all(seen.properties == {0x26: [("n", "v")], 0x0B: [5]} for seen in again)


@LEVELS
def test_s53_ids_in_flight_before_the_restart_are_not_given_to_new_messages(house, level):
    world = house.open()
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    publisher.publish("t", b"1", 1)
    publisher.publish("t", b"2", 2)
    one, two = peer.packets()
    peer.send(f"50 02 {two.packet_id:04x}")
    world = world.kill()
    peer = comes_back(world, level=level)
    for n in range(50):
        world.peer("p").publish("t", b"%d" % n, 1)
    seen = peer.packets()  # the strict client refuses ids in flight
    ids = [each.packet_id for each in seen if each.kind == "PUBLISH" and not each.dup]
    assert len(ids) == 50
    assert not {one.packet_id, two.packet_id} & set(ids)


@LEVELS
def test_s56_what_waited_offline_waits_in_the_next_broker_in_order(house, level):
    world = house.open()
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=2)
    peer.cut()
    publisher = world.peer("p")
    for n in range(5):
        publisher.publish("t", b"%d" % n, 1 + n % 2)
    publisher.publish("t", b"short", 1, properties="(02 00000005)")
    publisher.publish("t", b"long", 1, properties="(02 00000064)")
    world = world.kill(later=20)
    world.peer("p").publish("t", b"last", 1)
    seen = comes_back(world, level=level).accept()
    assert [one.payload for one in seen] == [*(b"%d" % n for n in range(5)), b"long", b"last"]
    assert not any(one.dup for one in seen)
    if level == 5:
        assert seen[-2].properties == {0x02: 80}


def test_s56_what_was_dropped_or_delivered_stays_so(house):
    world = house.open(queue_messages=3)
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=1)
    world.peer("p").publish("t", b"delivered", 1)
    assert peer.payloads() == [b"delivered"]
    peer.cut()
    for n in range(6):
        world.peer("p").publish("t", b"%d" % n, 1)
    world = world.kill()
    assert comes_back(world).payloads() == [b"3", b"4", b"5"]


def delayed(delay):
    return ("will", b"gone", 1, True, f"18 {delay:08x} 03 'type'")


@pytest.mark.parametrize("connected", [True, False])
def test_s58_a_delayed_will_survives_a_restart(house, connected):
    world = house.open()
    watcher = world.peer("w", expiry=1000)
    watcher.subscribe("will", qos=1)
    peer = world.peer("c", expiry=1000, will=delayed(30))
    if not connected:
        peer.cut()
        world.advance(10)
    world = world.kill(later=5)
    watcher = comes_back(world, "w")
    assert watcher.silent()
    world.advance(14)
    assert watcher.silent()
    world.advance(20)
    (seen,) = watcher.accept()
    assert (seen.payload, seen.qos, seen.properties) == (b"gone", 1, {0x03: "type"})
    late = world.peer("late")
    late.subscribe("will")
    assert late.payloads() == [b"gone"]
    world = world.kill()
    world.advance(100)
    assert comes_back(world, "w").silent(), "once"


def test_s58_a_will_that_fell_due_while_the_broker_was_down_is_sent_at_its_start(house):
    world = house.open()
    watcher = world.peer("w", expiry=1000)
    watcher.subscribe("will", qos=1)
    world.peer("c", expiry=1000, will=delayed(30)).cut()
    world = world.kill(later=60)
    world.advance(2)
    assert comes_back(world, "w").payloads() == [b"gone"]


def test_s58_a_session_that_ended_while_the_broker_was_down_sends_its_will_too(house):
    world = house.open()
    watcher = world.peer("w", expiry=1000)
    watcher.subscribe("will", qos=1)
    world.peer("c", expiry=20, will=delayed(500)).cut()
    world = world.kill(later=60)
    world.advance(2)
    assert comes_back(world, "w").payloads() == [b"gone"]


def test_s58_a_reconnect_after_the_restart_cancels_it(house):
    world = house.open()
    watcher = world.peer("w", expiry=1000)
    watcher.subscribe("will", qos=1)
    world.peer("c", expiry=1000, will=delayed(30))
    world = world.kill(later=5)
    watcher = comes_back(world, "w")
    peer = comes_back(world)
    world.advance(100)
    assert watcher.silent()
    peer.cut()
    world.advance(100)
    assert watcher.silent(), "the new connection has no will"
    world = world.kill()
    world.advance(100)
    assert comes_back(world, "w").silent()


def test_s58_a_will_that_was_removed_is_not_found_again(house):
    world = house.open()
    watcher = world.peer("w", expiry=1000)
    watcher.subscribe("will", qos=1)
    world.peer("c", expiry=1000, will=delayed(30)).leave()
    world = world.kill()
    world.advance(100)
    assert comes_back(world, "w").silent()


@pytest.mark.parametrize("times", [3])
def test_s53_many_restarts_change_nothing(house, times):
    world = house.open()
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=2)
    peer.cut()
    for n in range(20):
        world.peer("p").publish("t", b"%d" % n, 2)
    for _ in range(times):
        world = world.kill()
    assert comes_back(world).payloads() == [b"%d" % n for n in range(20)]
