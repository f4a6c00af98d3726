"""What a client that means no good, or that is only slow, may cost: nothing that grows without a bound."""

import gc

import pytest

LEVELS = pytest.mark.parametrize("level", [4, 5])


def counted_objects():
    gc.collect()
    return len(gc.get_objects())


@LEVELS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_slow_consumer_is_bounded_by_count(make_world, level, qos):
    world = make_world(queue_messages=100, max_in_flight=10)
    slow, quick = world.peer("slow", level=level), world.peer("quick")
    slow.subscribe("t", qos=qos)
    quick.subscribe("t", qos=0)
    slow.stall()
    publisher = world.peer("p")
    got = 0
    for n in range(1000):
        publisher.publish("t", b"%d" % n, qos)
        got += len(quick.packets())
    assert got == 1000, "others do not wait"
    assert world.counted("drop") == 900
    slow.resume()
    payloads = slow.payloads()
    assert payloads == [b"%d" % n for n in range(900, 1000)], "the oldest gave way"


@pytest.mark.parametrize("qos", [0, 1])
def test_a_slow_consumer_is_bounded_by_bytes(make_world, qos):
    world = make_world(queue_bytes=100_000)
    slow = world.peer("slow")
    slow.subscribe("t", qos=qos)
    slow.stall()
    publisher = world.peer("p")
    for n in range(100):
        publisher.publish("t", b"%02d" % n + b"x" * 10_000, qos)
    slow.resume()
    payloads = slow.payloads()
    assert 5 <= len(payloads) <= 10
    assert [int(payload[:2]) for payload in payloads] == list(range(100 - len(payloads), 100))
    assert world.counted("drop") == 100 - len(payloads)


def test_a_message_larger_than_a_whole_queue_is_dropped_and_does_not_empty_it_for_nothing(make_world):
    world = make_world(queue_bytes=10_000)
    slow = world.peer("slow", expiry=100)
    slow.subscribe("t", qos=1)
    slow.cut()
    publisher = world.peer("p")
    publisher.publish("t", b"small", 1)
    publisher.publish("t", b"x" * 50_000, 1)
    publisher.publish("t", b"small too", 1)
    payloads = world.peer("slow", clean=False, expiry=100).payloads()
    assert payloads[-1] == b"small too"
    assert len(payloads) <= 3
    assert world.counted("drop") == 3 - len(payloads)


def test_all_queues_together_are_bounded_by_bytes(make_world):
    world = make_world(total_queue_bytes=200_000)
    slow = [world.peer(f"slow{n}") for n in range(20)]
    for peer in slow:
        peer.subscribe("t", qos=1)
        peer.stall()
    publisher = world.peer("p")
    for n in range(50):
        publisher.publish("t", b"%02d" % n + b"x" * 1000, 1)
    for peer in slow:
        peer.resume()
    payloads = [peer.payloads() for peer in slow]
    assert sum(len(payload) for each in payloads for payload in each) <= 220_000
    assert sum(map(len, payloads)) + world.counted("drop") == 1000
    assert all(each == sorted(each) for each in payloads)


def test_a_client_that_takes_nothing_for_long_while_messages_wait_is_sent_away(make_world):
    world = make_world(stall_s=60.0)
    slow, idle = world.peer("slow"), world.peer("idle")
    slow.subscribe("t", qos=1)
    idle.stall()  # nothing waits for it
    slow.stall()
    world.peer("p").publish("t", b"x", 1)
    world.advance(58)
    assert not slow.is_closed
    world.advance(5)
    assert slow.is_closed
    assert not idle.is_closed
    (seen,) = slow.packets()
    assert (seen.kind, seen.reason) == ("DISCONNECT", 0x97)


def test_a_client_that_never_acknowledges_is_no_stalled_transport_but_is_bounded(make_world):
    world = make_world(max_in_flight=5, queue_messages=20)
    mute = world.peer("mute")
    mute.subscribe("t", qos=1)
    for n in range(200):
        world.broker.door().publish("t", b"%d" % n, qos=1)
    world.turn()
    assert len(mute.packets()) == 5
    assert 170 <= world.counted("drop") <= 180


def test_half_packets_of_many_links_are_bounded_and_named_by_their_size(make_world):
    world = make_world(packet_bytes=100_000, connect_bytes=1_000)
    links = [world.link() for _ in range(50)]
    for link in links:
        link.feed(b"\x10\xe5\x07" + b"\x00\x04MQTT\x05" + b"x" * 900)
        assert link.client.connection.buffered <= 1_000
        assert not link.is_closed
    peers = [world.peer(f"c{n}") for n in range(50)]
    for peer in peers:
        peer.feed(b"\x30\x80\xf0\x04" + b"x" * 60_000)
        assert peer.client.connection.buffered <= 100_005
        assert not peer.is_closed
        peer.cut()


@pytest.mark.parametrize("head", ["10 ffffff7f", "10 808001", "10 e907"])
def test_a_huge_connect_is_refused_before_it_is_buffered(make_world, head):
    world = make_world(connect_bytes=1_000)
    link = world.link()
    link.feed(bytes.fromhex(head.replace(" ", "")) + b"x" * 500)
    assert link.is_closed
    assert link.client.connection.buffered == 0


@LEVELS
@pytest.mark.parametrize("head", ["30 ffffff7f", "30 808040", "82 ffffff7f", "c0 ffffff7f", "e0 ffffff7f"])
def test_a_huge_remaining_length_is_refused_before_it_is_buffered(world, level, head):
    peer = world.peer(level=level)
    peer.feed(bytes.fromhex(head.replace(" ", "")) + b"x" * 50_000)
    peer.ended(0x95, 0x81)
    assert peer.client.connection.buffered == 0


@LEVELS
def test_packets_behind_a_connect_that_waits_are_bounded(make_world, level):
    world = make_world(connect_bytes=1_000)
    link = world.link(level)
    link.is_holding_login = True
    link.send(f"10 .. 'MQTT' {level:02x} 02 0000 () 'c'")
    for _ in range(1_000):
        link.feed(b"\xc0\0" * 1_000)
        if link.is_closed:
            break
    else:
        assert link.client.connection.buffered <= 2_000_000, "the link stops reading: see its own tests"
    assert not world.dirty


@LEVELS
@pytest.mark.parametrize("topic", ["/" * 65_535, "a/" * 32_767, "x" * 65_535, "+/" * 32_767, "/" * 65_534 + "#"])
def test_the_deepest_topics_and_filters_neither_recurse_nor_stay(world, level, topic):
    watcher = world.peer("watcher")
    watcher.subscribe("#", "+/#", "/#")
    peer = world.peer("c", level=level)
    codes = peer.subscribe(topic, f"$share/g/{topic}"[:65_535])
    if topic.startswith("x"):
        assert codes == (0, 0)
    else:
        assert set(codes) <= {0x8F, 0x97, 0x80}, "more levels than anybody needs"
    if "+" not in topic and "#" not in topic:
        for qos in (0, 1):
            peer.send(peer.published(topic, b"x", qos, retain=True))
    watcher.send("c0 00")
    assert any(seen.kind == "PINGRESP" for seen in watcher.packets())
    other = world.peer("other")
    other.subscribe("t")
    other.publish("t", b"x")
    assert len(other.packets()) == 1


def test_a_deep_retained_topic_is_found_by_wildcards(world):
    topic = "/".join("abc" for _ in range(60))
    world.peer("p").publish(topic, b"x", retain=True)
    peer = world.peer()
    assert peer.subscribe("abc/#", "+/" * 59 + "+") == (0, 0)
    assert [seen.topic for seen in peer.packets()] in ([topic], [topic, topic])


def packet_of_filters(world, count):
    string = world.notation.string
    filters = b"".join(string(f"filter/{n}") + b"\1" for n in range(count))
    return world.notation.packet(0x82, b"\0\1", b"\0", filters)


def test_ten_thousand_subscriptions_in_one_packet_get_ten_thousand_codes_and_a_bound(make_world):
    world = make_world(subscriptions=1_000)
    peer = world.peer()
    peer.send(packet_of_filters(world, 10_000))
    (seen,) = peer.packets()
    assert seen.reasons == (1,) * 1_000 + (0x97,) * 9_000
    peer.send(packet_of_filters(world, 10_000))
    (seen,) = peer.packets()
    assert seen.reasons == (1,) * 1_000 + (0x97,) * 9_000


def test_subscriptions_leave_nothing_behind_when_they_go(make_world):
    world = make_world(subscriptions=20_000)
    peer = world.peer()
    peer.send(packet_of_filters(world, 100))
    peer.packets()
    string = world.notation.string
    before = counted_objects()
    for _ in range(3):
        peer.send(packet_of_filters(world, 10_000))
        peer.packets()
        names = [string(f"filter/{n}") for n in range(100, 10_000)]
        peer.send(world.notation.packet(0xA2, b"\0\2", b"\0", *names))
        assert peer.take("UNSUBACK").reasons == (0,) * 9_900
    assert counted_objects() - before < 500


def test_shared_groups_come_and_go_without_a_trace_and_without_a_loss(world):
    publisher = world.peer("p")
    steady = world.peer("steady", expiry=1000)
    steady.subscribe("$share/g/t", qos=1)
    before = None
    received = 0
    for turn in range(300):
        member = world.peer(f"m{turn % 7}", expiry=(turn % 2) * 50)
        member.subscribe("$share/g/t", f"$share/{turn}/t", "t", qos=1)
        publisher.publish("t", b"%d" % turn, 1)
        came = [seen.payload for seen in member.accept()]
        mine = [seen.payload for seen in steady.accept()]
        received += len(mine)
        assert len(came) + len(mine) == 3, "one for the group, one for its own group, one plain"
        if turn % 3:
            member.unsubscribe("$share/g/t", f"$share/{turn}/t", "t")
        member.send("e0 .. 00 (11 00000000)" if turn % 2 else "e0 00")
        del member
        if turn == 100:
            before = counted_objects()
    assert received > 30
    assert counted_objects() - before < 500


@LEVELS
def test_a_storm_of_connections_leaves_memory_flat(world, level, monkeypatch):
    from gateway.broker import routing

    monkeypatch.setattr(routing, "ROUTES", 200)
    watcher = world.peer("watcher")
    watcher.subscribe("will/#")

    def storm(count):
        left = []
        for n in range(count):
            name = "" if n % 5 == 0 else f"c{n % 50}"
            peer = world.peer(name, level=level, will=(f"will/{n}", b"x"), keep_alive=10)
            peer.subscribe(f"own/{n}", f"$share/s{n}/x", "own/+", qos=1)
            peer.publish(f"own/{n}", b"x" * 100, 1)
            if n % 3 == 0:
                peer.leave()
            elif n % 3 == 1:
                peer.cut()
            else:  # until it is taken over, or with all the others
                left.append(peer)
            if len(left) > 10:
                left.pop(0).cut()
        for peer in left:
            peer.cut()
        world.advance(20)
        watcher.packets()

    storm(300)
    before = counted_objects()
    storm(1200)
    assert counted_objects() - before < 500


def test_a_storm_of_takeovers_leaves_memory_flat(world):
    def storm(count):
        for n in range(count):
            peer = world.peer("c", clean=n % 3 == 0, expiry=1000, will=("will", b"x", 0, False, "18 ffffffff"))
            peer.subscribe("t", qos=1)
        world.advance(5)

    storm(300)
    before = counted_objects()
    storm(1200)
    assert counted_objects() - before < 500


def test_wills_that_wait_for_ever_and_are_cancelled_leave_nothing_behind(world):
    def storm(count):
        for _ in range(count):
            world.peer("c", clean=False, expiry=0xFFFFFFFF, will=("will", b"x", 0, False, "18 ffffffff")).cut()
        world.advance(5)

    storm(200)
    before = counted_objects()
    storm(2000)
    assert counted_objects() - before < 500


def test_sessions_that_come_and_go_with_a_long_expiry_leave_nothing_behind(world):
    def storm(count):
        for n in range(count):
            world.peer(f"c{n % 10}", clean=n % 2 == 0, expiry=0xFFFFFFFE).cut()
        world.advance(5)

    storm(200)
    before = counted_objects()
    storm(2000)
    assert counted_objects() - before < 500


def test_sessions_beyond_the_limit_make_room_by_the_longest_absent(make_world):
    world = make_world(sessions=20)
    for n in range(50):
        peer = world.peer(f"c{n}", expiry=100_000)
        peer.subscribe("t", qos=1)
        peer.cut()
        world.advance(1)
    there = [n for n in range(50) if world.peer(f"c{n}", clean=False).session_present]
    assert there == list(range(30, 50))


def test_sessions_of_clients_that_are_connected_do_not_give_way(make_world):
    world = make_world(sessions=5)
    here = [world.peer(f"here{n}", expiry=1000) for n in range(5)]
    for n in range(10):
        world.peer(f"away{n}", expiry=1000).cut()
        world.advance(1)
    for peer in here:
        peer.send("c0 00")
        peer.expect("d0 00")


def test_ten_thousand_sessions_expire_at_once_in_slices(make_world):
    world = make_world(sessions=20_000)
    for n in range(3_000):
        peer = world.peer(f"c{n}", expiry=10)
        peer.subscribe(f"t/{n}", "all/+", qos=1)
        peer.cut()
    before = counted_objects()
    world.advance(12)
    assert before - counted_objects() > 3_000 * 3
    assert not world.peer("c7", clean=False).session_present


def test_retained_messages_are_bounded_by_count_and_bytes(make_world):
    world = make_world(retained_messages=50, retained_bytes=100_000)
    publisher = world.peer("p")
    codes = [publisher.publish(f"t/{n}", b"x", 1, retain=True) for n in range(100)]
    codes += [publisher.publish(f"big/{n}", b"x" * 30_000, 1, retain=True) for n in range(10)]
    assert set(codes) <= {0, 0x10, 0x97}
    look = world.peer("look")
    look.subscribe("#")
    seen = look.packets()
    assert len(seen) <= 50
    assert sum(len(one.payload) for one in seen) <= 100_000
    assert world.counted("retained") + world.counted("drop") > 0
    publisher.publish("t/0", b"", 1, retain=True)
    publisher.publish("t/0", b"again", 1, retain=True)
    again = world.peer("again")
    again.subscribe("t/0")
    assert [one.payload for one in again.packets()] == [b"again"], "an old place can be used again"


def test_topics_that_are_each_used_once_leave_nothing_behind(world, monkeypatch):
    from gateway.broker import routing

    monkeypatch.setattr(routing, "ROUTES", 500)  # as it is, the test would take its time
    peer = world.peer()
    peer.subscribe("one/+", qos=1)

    def flood(start, count):
        for n in range(start, start + count):
            peer.send(peer.published(f"once/{n}", b"x", n % 3))
            peer.send(f"62 02 {peer._last_id:04x}") if n % 3 == 2 else None
            peer.packets()

    flood(0, 2_100)
    before = counted_objects()
    flood(2_100, 4_000)
    assert counted_objects() - before < 1_500, "routes are remembered within a bound"


def test_inbound_qos_2_ids_that_are_never_released_are_bounded_by_the_receive_maximum(make_world):
    world = make_world(receive_maximum=50)
    peer = world.peer("c", expiry=1000)
    for turn in range(5):
        for n in range(1, 51):
            peer.send(f"34 .. 't' {n + turn * 50:04x} ()")
            if peer.is_closed:
                break
        peer.cut()
        peer = world.peer("c", clean=False, expiry=1000)
    for n in range(1, 51):
        peer.send(f"3c .. 't' {n:04x} ()")
        if peer.is_closed:
            break
    peer.packets()


def test_one_turn_of_a_long_replay_is_short(world):
    import time

    publisher = world.peer("p")
    for n in range(5_000):
        publisher.send(publisher.published(f"t/{n}", b"x", 0, retain=True))
    peer = world.peer()
    world.does_more = False
    peer.subscribe("#")
    slices = []
    while True:
        started = time.perf_counter()
        if not world.broker.more(world.now):
            break
        slices.append(time.perf_counter() - started)
        world.flush()
    world.does_more = True
    world.flush()
    assert len(peer.packets()) == 5_000
    assert len(slices) >= 5
    assert sorted(slices)[len(slices) // 2] < 0.01
