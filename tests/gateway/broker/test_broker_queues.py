"""What waits: within a turn, behind windows and full transports, and how retained messages go the same way."""

import pytest

from gateway.broker import delivery
from gateway.broker.delivery import BURST_BYTES, SLICE


def test_no_more_than_a_burst_lies_ready_for_one_client_within_a_turn(make_world):
    world = make_world(packet_bytes=300_000)
    peer, publisher = world.peer("c"), world.peer("p")
    peer.subscribe("t", qos=1)
    payload = b"x" * 200_000
    largest = 0
    real = world.flush

    def measured():
        nonlocal largest
        largest = max(largest, peer.client.out_bytes)
        real()

    world.flush = measured
    publisher.send(*[publisher.published("t", payload, n % 2) for n in range(20)])
    assert BURST_BYTES < largest < BURST_BYTES + 201_000
    assert len(peer.packets()) == 20, "without an acknowledgement"
    assert world.counted("dropped") == 0


def test_bytes_in_flight_are_bounded_and_a_reconnect_does_not_lock_it(make_world):
    world = make_world(queue_bytes=50_000)
    peer, publisher = world.peer("c", expiry=100), world.peer("p")
    peer.subscribe("t", qos=1)
    for n in range(8):
        publisher.publish("t", bytes([n]) * 9_900, 1)
    assert len(peer.packets()) == 5
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100)
    assert [seen.payload[0] for seen in peer.accept()] == list(range(8))


def test_an_acknowledgement_lets_as_many_bytes_into_flight_as_there_is_room_for(make_world):
    world = make_world(queue_bytes=50_000)
    peer, publisher = world.peer("c"), world.peer("p")
    peer.subscribe("t", qos=1)
    for n in range(9):
        publisher.publish("t", bytes([n]) * 9_900, 1)
    first, *_, last = peer.packets()
    assert last.payload[0] == 4
    peer.send(f"40 02 {first.packet_id:04x}")
    assert [seen.payload[0] for seen in peer.packets()] == [5]


def test_what_waited_for_the_transport_goes_in_the_order_it_came(world):
    peer, publisher = world.peer("c"), world.peer("p")
    peer.subscribe("t", qos=2)
    peer.stall()
    for n, qos in enumerate((1, 0, 0, 2, 1, 0)):
        publisher.publish("t", b"%d" % n, qos)
    peer.resume()
    assert [seen.payload for seen in peer.packets()] == [b"%d" % n for n in range(6)]


def test_qos_0_goes_past_what_waits_for_a_place_in_the_window(world):
    peer, publisher = world.peer("c", receive_maximum=1), world.peer("p")
    peer.subscribe("t", qos=1)
    for n, qos in enumerate((1, 1, 0)):
        publisher.publish("t", b"%d" % n, qos)
    assert [seen.payload for seen in peer.packets()] == [b"0", b"2"]
    peer.stall()
    publisher.publish("t", b"3", 0)
    peer.resume()
    assert [seen.payload for seen in peer.packets()] == [b"3"]


def test_beyond_its_bound_a_queue_loses_qos_0_first(make_world):
    world = make_world(queue_messages=4)
    peer, publisher = world.peer("c"), world.peer("p")
    peer.subscribe("t", qos=1)
    peer.stall()
    for n in range(8):
        publisher.publish("t", b"%d" % n, n % 2)
    peer.resume()
    assert peer.payloads() == [b"1", b"3", b"5", b"7"]


def test_the_queue_of_a_session_that_ends_is_no_longer_counted(world):
    peer = world.peer("c", expiry=5)
    peer.subscribe("t", qos=1)
    peer.cut()
    world.peer("p").publish("t", b"x" * 1000, 1)
    gauges = {name: value for name, _, value in world.metrics}
    assert gauges["broker_queued_bytes"] > 1000
    world.advance(6)
    gauges = {name: value for name, _, value in world.metrics}
    assert (gauges["broker_queued_bytes"], gauges["broker_queued_sessions"]) == (0, 0)
    assert world.counted("dropped") == 0


def test_an_identifier_that_was_refused_is_new_the_next_time(world):
    watcher, peer = world.peer("w"), world.peer("c")
    watcher.subscribe("t")
    world.access.unwritable.add("t")
    peer.send("""34 .. 't' 0007 () "1" """)
    assert peer.packets()[0].reason == 0x87
    world.access.unwritable.clear()
    world.access.generation += 1
    world.broker.access_changed(world.now)
    peer.send("""34 .. 't' 0007 () "2" """)
    assert peer.packets()[0].reason == 0
    assert watcher.payloads() == [b"2"]


def test_what_was_queued_after_the_login_is_not_checked_a_second_time(world):
    peer, publisher = world.peer("c", expiry=100), world.peer("p")
    peer.subscribe("t", qos=1)
    peer.cut()
    publisher.publish("t", b"0", 1)
    asked = []
    allowed = world.access.may_read
    world.access.may_read = lambda who, topic: asked.append(topic) or allowed(who, topic)
    peer = world.peer("c", clean=False, expiry=100, receive_maximum=1)
    for n in range(1, 5):
        publisher.publish("t", b"%d" % n, 1)
    assert peer.payloads() == [b"0", b"1", b"2", b"3", b"4"]
    assert asked == ["t"]


def test_a_smaller_window_after_a_reconnect_is_kept_to_and_nothing_is_forgotten(world):
    peer, publisher = world.peer("c", expiry=100), world.peer("p")
    peer.subscribe("t", qos=2)
    for n in range(6):
        publisher.publish("t", b"%d" % n, 2)
    one, two, *_ = peer.packets()
    peer.send(f"50 02 {one.packet_id:04x}")
    peer.take("PUBREL")
    peer.cut()
    publisher.publish("t", b"6", 2)
    peer = world.peer("c", clean=False, expiry=100, receive_maximum=2)
    first, second = peer.packets()
    assert (first.kind, first.packet_id) == ("PUBREL", one.packet_id)
    assert (second.kind, second.packet_id, second.dup) == ("PUBLISH", two.packet_id, True)
    peer.send(f"70 02 {first.packet_id:04x}", f"50 02 {second.packet_id:04x}")
    peer.send(f"70 02 {second.packet_id:04x}")
    rest = peer.packets()
    assert [seen.kind for seen in rest] == ["PUBLISH", "PUBREL", "PUBLISH"]
    for seen in rest:
        if seen.kind == "PUBLISH":
            peer.answer(seen)
    assert [(seen.payload, seen.dup) for seen in peer.accept()] == [(b"4", True), (b"5", True), (b"6", False)]


def test_an_acknowledgement_of_what_was_not_repeated_yet_frees_it(world):
    peer, publisher = world.peer("c", expiry=100), world.peer("p")
    peer.subscribe("t", qos=1)
    for n in range(4):
        publisher.publish("t", b"%d" % n, 1)
    ids = [seen.packet_id for seen in peer.packets()]
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100, receive_maximum=1)
    peer.send(*[f"40 02 {packet_id:04x}" for packet_id in ids[1:3]])
    assert [seen.payload for seen in peer.accept()] == [b"0", b"3"]


def test_what_waited_is_checked_by_the_rules_that_hold_when_it_goes(world):
    peer, publisher = world.peer("c", expiry=100), world.peer("p")
    peer.subscribe("a", "b", qos=1)
    publisher.publish("a", b"in flight", 1)
    peer.cut()
    publisher.publish("a", b"waits", 1)
    publisher.publish("b", b"goes", 1)
    world.access.unreadable.add("a")
    world.access.generation += 1
    world.broker.access_changed(world.now)
    peer = world.peer("c", clean=False, expiry=100)
    assert peer.payloads() == [b"goes"]
    assert world.counted("dropped") == 2


def test_what_waits_for_a_stalled_client_is_checked_when_rules_change_and_what_comes_later_once_only(world):
    peer, publisher = world.peer("c"), world.peer("p")
    peer.subscribe("a", "b", qos=1)
    peer.stall()
    for qos in (0, 1):
        publisher.publish("a", b"a", qos)
        publisher.publish("b", b"b", qos)
    world.access.unreadable.add("a")
    world.access.generation += 1
    world.broker.access_changed(world.now)
    publisher.publish("a", b"a", 1)
    publisher.publish("b", b"c", 1)
    peer.resume()
    assert peer.payloads() == [b"b", b"b", b"c"]


def retain(world, count, qos=1, topic="r"):
    publisher = world.peer("retainer")
    for n in range(count):
        publisher.publish(f"{topic}/{n:04}", b"%d" % n, qos, retain=True)
    return publisher


@pytest.mark.parametrize("qos", [1, 2])
def test_retained_messages_go_through_the_window_without_filling_the_queue(make_world, qos):
    world = make_world(queue_messages=5, queue_bytes=5_000)
    retain(world, 200, qos)
    peer = world.peer("c", receive_maximum=2)
    peer.subscribe("r/#", qos=2)
    assert sorted(int(seen.payload) for seen in peer.accept()) == list(range(200))
    assert world.counted("dropped") == 0


def test_a_replay_stops_at_a_full_transport_and_goes_on(world):
    retain(world, 300, 0)
    peer = world.peer("c")
    world.does_more = False
    peer.subscribe("r/#")
    first = len(peer.packets())
    assert 0 < first <= SLICE
    peer.stall()
    world.does_more = True
    world.turn()
    assert peer.packets() == []
    peer.resume()
    assert len(peer.packets()) == 300 - first


def test_what_changed_while_a_replay_was_parked_is_not_sent_in_its_old_form(world):
    publisher = retain(world, 40)
    peer = world.peer("c", receive_maximum=1)
    peer.subscribe("r/#", qos=1)
    (first,) = peer.packets()
    late = next(n for n in range(39, 0, -1) if n != int(first.payload))
    publisher.publish(f"r/{late:04}", b"new", 1, retain=True)
    gone = late - 1 if late - 1 != int(first.payload) else late - 2
    publisher.publish(f"r/{gone:04}", b"", 1, retain=True)
    peer.send(f"40 02 {first.packet_id:04x}")
    seen = peer.accept()
    assert [one.retain for one in seen if one.payload in (b"new", b"")] == [False, False]
    assert len(seen) == 39
    assert all(int(one.payload) not in (late, gone) for one in seen if one.payload not in (b"new", b""))


def test_a_replay_goes_on_in_the_next_connection_of_a_session_that_lasts(world):
    retain(world, 10)
    peer = world.peer("c", expiry=100, receive_maximum=2)
    peer.subscribe("r/#", qos=1)
    assert len(peer.packets()) == 2
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100)
    assert sorted(int(seen.payload) for seen in peer.accept()) == list(range(10))


def test_unsubscribing_ends_a_replay_and_subscribing_again_begins_it_anew(world):
    retain(world, 10)
    peer = world.peer("c", receive_maximum=2)
    peer.subscribe("r/#", qos=1)
    assert peer.unsubscribe("r/#") == (0,)
    assert len(peer.accept()) == 2
    peer.subscribe("r/#", qos=1)
    peer.subscribe("r/#", qos=1)
    assert len(peer.accept()) == 12, "two of them had gone before the second one"
    session = world.broker._sessions.get("c", world.now)
    assert session.replays is None
    assert not session.has_more


def test_many_filters_in_one_packet_do_not_make_one_long_slice(world):
    retain(world, 300, 0)
    world.does_more = False
    peer = world.peer("c")
    peer.subscribe(*[f"r/{'+' if n else '#'}{'/#' * bool(n)}" for n in range(2)], "r/#", "#", "+/+")
    assert len(peer.packets()) <= SLICE
    world.does_more = True
    world.turn()
    assert len(peer.packets()) >= 1000


def test_busy_sessions_take_turns(world):
    retain(world, 1_000, 0)
    peers = [world.peer(f"c{n}") for n in range(3)]
    world.does_more = False
    for peer in peers:
        peer.subscribe("r/#")
        peer.packets()
    shares = []
    for _ in range(6):
        world.broker.more(world.now)
        world.flush()
        shares.append([len(peer.packets()) for peer in peers])
    assert all(sum(share) <= SLICE for share in shares)
    for n in range(3):
        assert sum(share[n] > 0 for share in shares) == 2
    world.does_more = True
    world.turn()


def test_the_common_budget_is_taken_from_the_longest_queues(make_world):
    world = make_world(total_queue_bytes=100_000)
    for n in range(5):
        peer = world.peer(f"c{n}", expiry=100)
        peer.subscribe(f"t/{n}", qos=1)
        peer.cut()
    door = world.broker.door()
    for n, count in enumerate((5, 60, 10, 60, 1)):
        for _ in range(count):
            door.publish(f"t/{n}", b"x" * 700, qos=1)
    left = [len(world.peer(f"c{n}", clean=False, expiry=100, receive_maximum=1_000).accept()) for n in range(5)]
    assert (left[0], left[2], left[4]) == (5, 10, 1)
    assert sum(left) * 904 <= 100_000
    assert sum(left) > 95
    assert abs(left[1] - left[3]) < 10
    assert world.counted("dropped") == 136 - sum(left)


def test_a_drop_is_reported_once_a_second_for_each_session(make_world):
    world = make_world(queue_messages=3)
    for name in ("a", "b"):
        peer = world.peer(name, expiry=100)
        peer.subscribe("t", qos=1)
        peer.cut()
    for _ in range(10):
        world.broker.door().publish("t", b"x", qos=1)
    world.advance(1)
    assert sorted(said for said in world.report.said if said[0] == "dropped") == [("dropped", "a"), ("dropped", "b")]
    world.advance(3)
    assert len([said for said in world.report.said if said[0] == "dropped"]) == 2


def test_the_slice_is_small_enough_for_a_millisecond_or_so():
    assert SLICE <= 128
    assert delivery._LOOK < SLICE


def test_of_a_packet_with_thousands_of_filters_a_thousand_are_looked_at(world):
    peer = world.peer("c")
    codes = peer.subscribe(*["a#"] * 999, *["x"] * 2, *["y"] * 5_000)
    assert codes == (0x8F,) * 999 + (0x00,) + (0x97,) * 5_001
    codes = peer.unsubscribe(*["a#"] * 1_001, "x", "x")
    assert codes == (0x8F,) * 1_000 + (0x11, 0x00, 0x11)
