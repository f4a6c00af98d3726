"""Statements 49 to 56: the exchanges of QoS 1 and 2, resending, order, and what waits for an absent client."""

import pytest

LEVELS = pytest.mark.parametrize("level", [4, 5])


def again(world, level, **terms):
    """The client comes back to its session."""
    peer = world.peer("c", level=level, clean=False, expiry=1000, **terms)
    assert peer.session_present
    return peer


@LEVELS
def test_s49_the_same_qos_2_id_before_pubrel_is_the_same_message(world, level):
    watcher = world.peer("w")
    watcher.subscribe("t", qos=2)
    peer = world.peer(level=level)
    peer.send("""34 .. 't' 0001 () "x" """)
    peer.expect("50 02 0001")
    peer.send("""3c .. 't' 0001 () "x" """, """3c .. 't' 0001 () "x" """, """34 .. 't' 0001 () "x" """)
    assert [seen.raw[:4].hex() for seen in peer.packets()] == ["50020001"] * 3
    peer.send("62 02 0001")
    peer.expect("70 02 0001")
    assert watcher.payloads() == [b"x"]
    peer.send("""34 .. 't' 0001 () "new" """)
    peer.expect("50 02 0001")
    peer.send("62 02 0001")
    peer.expect("70 02 0001")
    assert watcher.payloads() == [b"new"]


@LEVELS
def test_s49_dedupe_holds_across_reconnects(world, level):
    watcher = world.peer("w")
    watcher.subscribe("t", qos=2)
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.send("""34 .. 't' 0005 () "x" """)
    peer.cut()
    peer = again(world, level)
    peer.send("""3c .. 't' 0005 () "x" """)
    peer.expect("50 02 0005")
    peer.cut()
    peer = again(world, level)
    peer.send("62 02 0005")
    peer.expect("70 02 0005")
    assert watcher.payloads() == [b"x"]
    peer.cut()
    peer = again(world, level)
    peer.send("62 02 0005")  # PUBCOMP was lost
    (seen,) = peer.packets()
    assert (seen.kind, seen.packet_id) == ("PUBCOMP", 5)
    peer.send("""34 .. 't' 0005 () "new" """)
    peer.expect("50 02 0005")
    peer.send("62 02 0005")
    assert watcher.payloads() == [b"new"]


def test_s49_dedupe_ends_with_the_session(world):
    watcher = world.peer("w")
    watcher.subscribe("t", qos=2)
    peer = world.peer("c", expiry=1000)
    peer.send("""34 .. 't' 0005 () "x" """)
    peer.cut()
    peer = world.peer("c", clean=True)
    peer.send("""34 .. 't' 0005 () "y" """, "62 02 0005")
    assert watcher.payloads() == [b"x", b"y"]


def test_s49_two_clients_with_the_same_id_are_two_messages(world):
    watcher = world.peer("w")
    watcher.subscribe("t", qos=2)
    one, two = world.peer("1"), world.peer("2")
    one.send("""34 .. 't' 0001 () "1" """)
    two.send("""34 .. 't' 0001 () "2" """)
    one.send("62 02 0001")
    two.send("62 02 0001")
    assert sorted(watcher.payloads()) == [b"1", b"2"]


def test_s49_a_qos_1_message_with_the_id_of_an_open_qos_2_exchange_does_not_vanish_silently(world):
    watcher = world.peer("w")
    watcher.subscribe("t", qos=2)
    peer = world.peer()
    peer.send("""34 .. 't' 0001 () "two" """)
    peer.expect("50 02 0001")
    peer.send("""32 .. 't' 0001 () "one" """)  # [MQTT-2.2.1-3] forbids it to the client
    answers = peer.packets()
    if not peer.is_closed and answers[0].reason < 0x80:
        assert watcher.payloads() == [b"two", b"one"]


@pytest.mark.parametrize("first", ["denied", "t"])
def test_s50_an_id_behind_a_refusing_pubrec_is_new(world, first):
    watcher = world.peer("w")
    watcher.subscribe("#", qos=2)
    world.access.unwritable.add("denied")
    peer = world.peer("c", expiry=1000)
    peer.send("""34 .. 'denied' 0001 () "x" """)
    peer.expect("50 .. 0001 87 (*)")
    peer.send(f"34 .. '{first}' 0001 () \"y\"")
    (seen,) = peer.packets()
    assert seen.reason == (0x87 if first == "denied" else 0)
    peer.send("""34 .. 't' 0001 () "z" """) if first == "denied" else None
    peer.send("62 02 0001")
    assert peer.packets()[-1].raw == bytes.fromhex("70020001")
    assert watcher.payloads() == ([b"z"] if first == "denied" else [b"y"])


def test_s50_pubrel_behind_a_refusing_pubrec_finds_no_exchange(world):
    world.access.unwritable.add("denied")
    peer = world.peer()
    peer.send("34 .. 'denied' 0001 ()", "62 02 0001")
    peer.expect("50 .. 0001 87 (*)", "70 .. 0001 92 (*)")


@LEVELS
def test_s50_311_has_no_refusal_and_the_message_is_taken_and_dropped(world, level):
    world.access.unwritable.add("denied")
    watcher = world.peer("w")
    watcher.subscribe("#", qos=2)
    peer = world.peer(level=level)
    peer.send("32 .. 'denied' 0001 ()", "34 .. 'denied' 0002 ()", "30 .. 'denied' ()")
    if level == 4:  # 3.3.5.2: either a positive acknowledgement, or the connection is closed
        assert peer.is_closed or [seen.raw.hex() for seen in peer.packets()] == ["40020001", "50020002"]
    else:
        peer.expect("40 .. 0001 87 (*)", "50 .. 0002 87 (*)")
    assert watcher.silent()


@LEVELS
def test_s51_pubrel_for_an_unknown_id_is_answered(world, level):
    peer = world.peer(level=level)
    for _ in range(3):
        peer.send("62 02 0009")
        peer.expect("70 .. 0009 92 (*)" if level == 5 else "70 02 0009")
    assert not peer.is_closed


@LEVELS
def test_s51_an_unknown_id_in_another_acknowledgement_is_no_error_loop(world, level):
    peer = world.peer(level=level)
    peer.send("40 02 0009", "70 02 0009")
    assert peer.silent()
    peer.send("50 02 0009")
    found = peer.packets()
    if level == 5:
        assert [(seen.kind, seen.reason) for seen in found] in ([("PUBREL", 0x92)], [])
    else:
        assert [seen.raw.hex() for seen in found] in (["62020009"], [])
    peer.strict.released.clear()
    peer.send("c0 00")
    peer.expect("d0 00")


@LEVELS
def test_s52_after_pubrec_only_pubrel_is_resent(world, level):
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=2)
    world.peer("p").publish("t", b"x", 2)
    (seen,) = peer.packets()
    peer.send(f"50 02 {seen.packet_id:04x}")
    peer.expect(f"62 02 {seen.packet_id:04x}")
    for _ in range(2):
        peer.cut()
        peer = again(world, level)
        peer.expect(f"62 02 {seen.packet_id:04x}")
    peer.send(f"70 02 {seen.packet_id:04x}")
    peer.cut()
    assert again(world, level).silent()


@LEVELS
def test_s52_a_second_pubrec_gets_another_pubrel(world, level):
    peer = world.peer("c", level=level)
    peer.subscribe("t", qos=2)
    world.peer("p").publish("t", b"x", 2)
    (seen,) = peer.packets()
    for _ in range(3):
        peer.send(f"50 02 {seen.packet_id:04x}")
        peer.expect(f"62 02 {seen.packet_id:04x}")


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("code", ["80", "87", "97"])
def test_s52_an_error_in_the_acknowledgement_ends_retransmission(world, qos, code):
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=qos)
    world.peer("p").publish("t", b"x", qos)
    (seen,) = peer.packets()
    peer.send(f"{0x40 if qos == 1 else 0x50:02x} 03 {seen.packet_id:04x} {code}")
    assert peer.silent()
    peer.cut()
    assert again(world, 5).silent()


def test_s52_pubcomp_with_an_error_ends_it_too(world):
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=2)
    world.peer("p").publish("t", b"x", 2)
    (seen,) = peer.packets()
    peer.send(f"50 02 {seen.packet_id:04x}")
    peer.take("PUBREL")
    peer.send(f"70 03 {seen.packet_id:04x} 92")
    peer.cut()
    assert again(world, 5).silent()


@LEVELS
def test_s53_unacknowledged_messages_are_resent_at_resume_with_the_same_id_dup_and_before_new_ones(world, level):
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    publisher.publish("t", b"1", 1)
    publisher.publish("t", b"2", 2)
    publisher.publish("t", b"3", 1)
    one, two, three = peer.packets()
    assert not any(seen.dup for seen in (one, two, three))
    peer.send(f"40 02 {one.packet_id:04x}")
    peer.cut()
    publisher.publish("t", b"4", 1)
    peer = again(world, level)
    *resent, new = peer.packets()
    assert [seen.raw for seen in resent] == [
        peer.bytes(f"3c .. 't' {two.packet_id:04x} () \"2\""),
        peer.bytes(f"3a .. 't' {three.packet_id:04x} () \"3\""),
    ]
    assert (new.payload, new.dup) == (b"4", False)
    assert new.packet_id not in (two.packet_id, three.packet_id)


@LEVELS
def test_s53_nothing_is_resent_on_a_timer(world, level):
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=2)
    world.peer("p").publish("t", b"1", 1)
    world.peer("p").publish("t", b"2", 2)
    one, two = peer.packets()
    peer.send(f"50 02 {two.packet_id:04x}")
    peer.take("PUBREL")
    for _ in range(60):
        world.advance(50)
        peer.send("c0 00")
        peer.expect("d0 00")
    peer.send(f"40 02 {one.packet_id:04x}")
    assert peer.silent()


def test_s53_a_session_that_does_not_go_on_resends_nothing(world):
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=1)
    world.peer("p").publish("t", b"1", 1)
    peer.cut()
    assert world.peer("c", clean=True).silent()


@LEVELS
def test_s53_at_a_takeover_what_was_in_flight_is_resent_to_the_new_link(world, level):
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=1)
    world.peer("p").publish("t", b"1", 1)
    (one,) = peer.packets()
    taker = again(world, level)
    taker.expect(f"3a .. 't' {one.packet_id:04x} () \"1\"")


def test_s53_what_never_left_is_not_marked_dup(world):
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=1)
    peer.stall()
    world.peer("p").publish("t", b"1", 1)
    peer.cut()
    (seen,) = again(world, 5).packets()
    assert not seen.dup


@LEVELS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_s54_order_holds_for_each_topic_and_qos(world, level, qos):
    watcher = world.peer("w", level=level)
    watcher.subscribe("t/#", qos=qos)
    publisher = world.peer("p", level=level)
    for n in range(50):
        publisher.publish(f"t/{n % 3}", b"%d" % n, qos)
    assert watcher.payloads() == [b"%d" % n for n in range(50)]


@LEVELS
@pytest.mark.parametrize("qos", [1, 2])
def test_s54_order_holds_when_the_window_opens_out_of_order(world, level, qos):
    watcher = world.peer("w", level=level, receive_maximum=4)
    watcher.subscribe("t", qos=qos)
    publisher = world.peer("p")
    for n in range(20):
        publisher.publish("t", b"%d" % n, qos)
    arrived = []
    while fresh := watcher.packets():
        arrived += [seen for seen in fresh if seen.kind == "PUBLISH"]
        for seen in reversed([one for one in fresh if one.kind == "PUBLISH"]):
            watcher.inbox = []
            if qos == 2:
                watcher.send(f"50 02 {seen.packet_id:04x}")
                arrived += [one for one in watcher.packets() if one.kind == "PUBLISH"]
                watcher.send(f"70 02 {seen.packet_id:04x}")
            else:
                watcher.send(f"40 02 {seen.packet_id:04x}")
    assert [seen.payload for seen in arrived] == [b"%d" % n for n in range(20)]


@LEVELS
def test_s54_order_holds_from_offline_to_online(world, level):
    peer = world.peer("c", level=level, clean=False, expiry=1000, receive_maximum=3)
    peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    for n in range(5):
        publisher.publish("t", b"%d" % n, 1)
    peer.cut()
    for n in range(5, 10):
        publisher.publish("t", b"%d" % n, 1)
    peer = again(world, level, receive_maximum=3)
    for n in range(10, 13):
        publisher.publish("t", b"%d" % n, 1)
    came = peer.accept()
    for n in range(13, 15):
        publisher.publish("t", b"%d" % n, 1)
    came += peer.accept()
    assert [seen.payload for seen in came] == [b"%d" % n for n in range(15)]


@LEVELS
def test_s54_order_holds_when_a_congested_transport_goes_on(world, level):
    peer = world.peer(level=level)
    peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    for qos in (0, 1, 2):
        peer.stall()
        for n in range(10):
            publisher.publish("t", b"%d" % n, qos)
        peer.resume()
        for n in range(10, 15):
            publisher.publish("t", b"%d" % n, qos)
        assert peer.payloads() == [b"%d" % n for n in range(15)]


@LEVELS
def test_s54_pubrels_go_out_in_the_order_of_the_pubrecs(world, level):
    peer = world.peer(level=level)
    peer.subscribe("t", qos=2)
    for n in range(4):
        world.peer("p").publish("t", b"%d" % n, 2)
    ids = [seen.packet_id for seen in peer.packets()]
    ids = [ids[2], ids[0], ids[3], ids[1]]
    peer.send(*(f"50 02 {packet_id:04x}" for packet_id in ids))
    peer.expect(*(f"62 02 {packet_id:04x}" for packet_id in ids))


@LEVELS
def test_s54_acknowledgements_go_out_in_the_order_of_the_messages(world, level):
    watcher = world.peer("w")
    watcher.subscribe("t")
    peer = world.peer(level=level)
    ids = [7, 3, 9, 1]
    peer.send(*(f"32 .. 't' {packet_id:04x} ()" for packet_id in ids))
    peer.expect(*(f"40 02 {packet_id:04x}" for packet_id in ids))
    peer.send(*(f"34 .. 't' {packet_id:04x} ()" for packet_id in ids))
    peer.expect(*(f"50 02 {packet_id:04x}" for packet_id in ids))


@LEVELS
@pytest.mark.parametrize(
    ("qos", "wrong"),
    [(1, "50"), (1, "70"), (2, "40"), (2, "70")],
    ids=["PUBREC for QoS 1", "PUBCOMP for QoS 1", "PUBACK for QoS 2", "PUBCOMP before PUBREC"],
)
def test_s55_an_acknowledgement_of_the_wrong_kind_is_a_protocol_error_and_frees_nothing(world, level, qos, wrong):
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=qos)
    world.peer("p").publish("t", b"x", qos)
    (seen,) = peer.packets()
    peer.send(f"{wrong} 02 {seen.packet_id:04x}")
    peer.ended(0x82)
    peer = again(world, level)
    peer.expect(f"{0x38 | qos << 1:02x} .. 't' {seen.packet_id:04x} () \"x\"")


@LEVELS
def test_s55_puback_after_pubrec_is_one_too(world, level):
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=2)
    world.peer("p").publish("t", b"x", 2)
    (seen,) = peer.packets()
    peer.send(f"50 02 {seen.packet_id:04x}")
    peer.take("PUBREL")
    peer.send(f"40 02 {seen.packet_id:04x}")
    peer.ended(0x82)
    again(world, level).expect(f"62 02 {seen.packet_id:04x}")


@LEVELS
def test_s56_an_offline_session_collects_qos_1_and_2(world, level):
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=2)
    peer.cut()
    publisher = world.peer("p")
    publisher.publish("t", b"1", 1)
    publisher.publish("t", b"2", 2)
    peer = again(world, level)
    assert [(seen.payload, seen.qos) for seen in peer.accept()] == [(b"1", 1), (b"2", 2)]


@LEVELS
def test_s56_beyond_its_limit_the_oldest_go_and_are_counted(make_world, level):
    world = make_world(queue_messages=5)
    peer = world.peer("c", level=level, clean=False, expiry=1000)
    peer.subscribe("t", qos=1)
    peer.cut()
    before = world.counted("drop")
    for n in range(8):
        assert world.peer("p").publish("t", b"%d" % n, 1) < 0x80
    assert world.counted("drop") - before == 3
    world.advance(1)
    assert any(event == "dropped" for event, _ in world.report.said)
    assert again(world, level).payloads() == [b"%d" % n for n in range(3, 8)]


def test_s56_beyond_its_limit_of_bytes_the_oldest_go_and_are_counted(make_world):
    world = make_world(queue_bytes=10_000)
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=1)
    peer.cut()
    for n in range(20):
        world.peer("p").publish("t", bytes([n]) * 1000, 1)
    payloads = again(world, 5).payloads()
    assert 5 <= len(payloads) <= 10
    assert [payload[0] for payload in payloads] == list(range(20 - len(payloads), 20))
    assert world.counted("drop") == 20 - len(payloads)


def test_s56_beyond_the_limit_of_all_queues_the_largest_gives(make_world):
    world = make_world(total_queue_bytes=20_000)
    for name in ("large", "small"):
        peer = world.peer(name, expiry=1000)
        peer.subscribe(f"{name}/t", qos=1)
        peer.cut()
    publisher = world.peer("p")
    publisher.publish("small/t", b"x" * 1000, 1)
    for _ in range(40):
        publisher.publish("large/t", b"x" * 1000, 1)
    assert len(world.peer("small", clean=False, expiry=1000).payloads()) == 1
    assert 10 <= len(world.peer("large", clean=False, expiry=1000).payloads()) <= 20
    assert world.counted("drop") >= 20


def test_s56_what_is_in_flight_is_not_dropped_for_what_comes_later(make_world):
    world = make_world(queue_messages=3)
    peer = world.peer("c", expiry=1000, receive_maximum=2)
    peer.subscribe("t", qos=1)
    for n in range(10):
        world.peer("p").publish("t", b"%d" % n, 1)
    assert [seen.payload for seen in peer.packets()] == [b"0", b"1"]
    peer.cut()
    payloads = again(world, 5).payloads()
    assert payloads[:2] == [b"0", b"1"]
    assert payloads[2:] == [b"7", b"8", b"9"]


def test_s56_qos_0_gives_way_first(make_world):
    world = make_world(queue_messages=4)
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=1)
    peer.stall()
    publisher = world.peer("p")
    for n in range(4):
        publisher.publish("t", b"zero", 0)
        publisher.publish("t", b"%d" % n, 1)
    peer.resume()
    assert [payload for payload in peer.payloads() if payload != b"zero"] == [b"0", b"1", b"2", b"3"]
