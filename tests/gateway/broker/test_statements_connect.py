"""Statements 9 to 22: CONNECT, the session behind it, keep-alive, and what each side announces."""

import pytest

FOREVER = 0xFFFFFFFF


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(
    "data",
    [
        *("30 .. 't' ()", "32 .. 't' 0001 ()", "82 .. 0001 () 'a' 00", "a2 .. 0001 () 'a'", "c0 00", "e0 00"),
        *("40 02 0001", "50 02 0001", "62 02 0001", "70 02 0001", "f0 00", "20 02 0000", "00 00"),
    ],
)
def test_s09_a_first_packet_that_is_not_connect_closes_the_link_without_a_word(world, level, data):
    watcher = world.peer("w")
    watcher.subscribe("#")
    link = world.link(level)
    link.send(data, "10 .. 'MQTT' 05 02 0000 () 'c'")
    assert link.is_closed
    assert not link.received()
    assert watcher.silent()


@pytest.mark.parametrize("level", [4, 5])
def test_s09_a_second_connect_is_a_protocol_error(world, level):
    watcher = world.peer("w")
    watcher.subscribe("will")
    peer = world.peer(level=level, will=("will", b"gone"))
    peer.send(f"10 .. 'MQTT' {level:02x} 02 0000 () 'c'")
    peer.ended(0x82)
    watcher.expect("""30 .. 'will' () "gone" """)


def test_s09_a_second_connect_in_the_same_segment_is_one_too(world):
    link = world.link()
    link.send("10 .. 'MQTT' 05 02 0000 () 'c'", "10 .. 'MQTT' 05 02 0000 () 'c'")
    connack, disconnect = link.packets()
    assert (connack.kind, connack.reason) == ("CONNACK", 0)
    assert (disconnect.kind, disconnect.reason) == ("DISCONNECT", 0x82)
    assert link.is_closed


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(
    "data",
    [
        "10 .. 'MQTT' LL 03 0000 () 'c'",  # the reserved flag
        "10 .. 'MQTT' LL 01 0000 () 'c'",
        "10 .. 'MQTT' LL 1e 0000 () 'c' () 't' 'p'",  # will QoS 3
        "10 .. 'MQTT' LL 0a 0000 () 'c'",  # will QoS 1 without a will
        "10 .. 'MQTT' LL 12 0000 () 'c'",  # will QoS 2 without a will
        "10 .. 'MQTT' LL 22 0000 () 'c'",  # will retain without a will
        "10 .. 'MQTT' LL 0a 0000 () 'c' () 't' 'p'",
        "10 .. 'MQTT' LL 3a 0000 () 'c'",
    ],
)
def test_s10_connect_flags_that_cannot_be_close_the_link(world, level, data):
    link = world.link(level)
    link.send(data.replace("LL", f"{level:02x}"))
    link.ended(0x81, 0x82)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("flags", ["06", "0e", "16", "26", "2e", "36"])
def test_s10_connect_flags_that_can_be_do_not(world, level, flags):
    link = world.link(level)
    link.send(f"10 .. 'MQTT' {level:02x} {flags} 0000 () 'c' () 't' 'p'")
    assert link.take("CONNACK").reason == 0


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(
    "data",
    [
        "10 .. 'MQTT' LL 82 0000 () 'c'",  # a user name is announced and missing
        "10 .. 'MQTT' LL c2 0000 () 'c' 'u'",  # a password is announced and missing
        "10 .. 'MQTT' LL 02 0000 () 'c' 'u'",  # a user name is there and not announced
        "10 .. 'MQTT' LL 82 0000 () 'c' 'u' 'p'",  # a password is there and not announced
        "10 .. 'MQTT' LL 06 0000 () 'c'",  # a will is announced and missing
        "10 .. 'MQTT' LL 06 0000 () 'c' () 't'",  # half a will
        "10 .. 'MQTT' LL 02 0000 () 'c' () 't' 'p'",  # a will is there and not announced
        "10 .. 'MQTT' LL 02 0000 () 'c' 00",  # a byte behind
        "10 .. 'MQTT' LL c2 0000 () 'c' 'u' 'p' 00",
        "10 .. 'MQTT' LL 02 0000 ()",  # no client id
        "10 .. 'MQTT' LL 02 00",
        "10 .. 'MQTT' LL 02",
        "10 .. 'MQTT' LL",
        "10 .. 'MQTT'",
        "10 .. 0004 4d51",
        "10 00",
    ],
)
def test_s11_connect_whose_flags_and_fields_disagree_is_malformed(world, level, data):
    link = world.link(level)
    link.send(data.replace("LL", f"{level:02x}"))
    assert link.is_closed
    found = link.packets()
    if level == 4 or "LL" not in data:
        assert not found
    else:
        assert all(seen.kind == "CONNACK" and seen.reason in (0x81, 0x82) for seen in found)


def test_s11_a_password_without_a_user_name_is_legal_in_50(world):
    link = world.link()
    link.send("10 .. 'MQTT' 05 42 0000 () 'c' 'secret'")
    assert link.take("CONNACK").reason == 0


def test_s11_a_password_without_a_user_name_is_illegal_in_311(world):
    link = world.link(4)
    link.send("10 .. 'MQTT' 04 42 0000 'c' 'secret'")
    assert link.is_closed
    assert not link.received()


@pytest.mark.parametrize("level", [4, 5])
def test_s11_all_fields_at_once_are_read_in_their_order(world, level):
    watcher = world.peer("w")
    watcher.subscribe("#")
    link = world.link(level)
    link.send(f"10 .. 'MQTT' {level:02x} ce 0000 () 'c' () 'wt' 'wp' 'user' 'secret'")
    assert link.take("CONNACK").reason == 0
    assert link.client.identity.username == "user"
    link.cut()
    watcher.expect("""30 .. 'wt' () "wp" """)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        ("10 .. 'MQTT' 03 02 0000 'c'", "20 02 00 01"),
        ("10 .. 'MQTT' 00 02 0000 'c'", "20 02 00 01"),
        ("10 .. 'MQIsdp' 03 02 0000 'c'", "20 02 00 01"),  # 3.1: refused on purpose, in a way that it understands
        ("10 .. 'MQTT' 06 02 0000 () 'c'", "20 03 00 84 00"),
        ("10 .. 'MQTT' ff 02 0000 () 'c'", "20 03 00 84 00"),
    ],
)
def test_s12_an_unknown_level_is_told_so_and_closed(world, data, answer):
    link = world.link(5 if answer.startswith("20 03") else 4)
    link.send(data, "c0 00")
    assert link.is_closed
    if link.level == 4:
        link.expect(answer)
    else:
        link.expect("20 .. 00 84 (*)")


@pytest.mark.parametrize("name", ["mqtt", "MQTT5", "MQT", "HTTP", ""])
def test_s12_another_protocol_is_closed(world, name):
    link = world.link()
    link.send(f"10 .. '{name}' 05 02 0000 () 'c'")
    assert link.is_closed
    assert all(seen.reason >= 0x80 for seen in link.packets())


@pytest.mark.parametrize("flags", ["00", "02"])
def test_s13_an_empty_client_id_gets_one_assigned_in_50(world, flags):
    names = set()
    for _ in range(3):
        link = world.link()
        link.send(f"10 .. 'MQTT' 05 {flags} 0000 () ''")
        connack = link.take("CONNACK")
        assert connack.reason == 0
        assert not connack.session_present
        names.add(connack.properties[0x12])
        assert link.client.identity.client_id == connack.properties[0x12]
    assert len(names) == 3
    assert "" not in names


def test_s13_an_assigned_client_id_names_a_session_to_come_back_to(world):
    link = world.link()
    link.send("10 .. 'MQTT' 05 00 0000 (11 00000064) ''")
    name = link.take("CONNACK").properties[0x12]
    link.subscribe("t", qos=1)
    link.cut()
    world.peer("p").publish("t", b"missed", 1)
    back = world.peer(name, clean=False, expiry=100)
    assert back.session_present
    assert 0x12 not in back.connack.properties  # only where it was assigned
    assert back.payloads() == [b"missed"]


def test_s13_311_without_client_id_is_served_with_a_clean_session_only(world):
    link = world.link(4)
    link.send("10 .. 'MQTT' 04 02 0000 ''")
    link.expect("20 02 00 00")
    link = world.link(4)
    link.send("10 .. 'MQTT' 04 00 0000 ''", "c0 00")
    link.expect("20 02 00 02")
    assert link.is_closed


def test_s13_two_nameless_clients_of_311_do_not_throw_each_other_out(world):
    first, second = world.peer("", level=4), world.peer("", level=4)
    assert first.silent()
    assert second.silent()


@pytest.mark.parametrize("level", [4, 5])
def test_s14_session_present_tells_whether_there_was_one(world, level):
    keep = {"level": level, "expiry": 100}
    assert not world.peer("c", clean=False, **keep).session_present  # there was none
    assert world.peer("c", clean=False, **keep).session_present  # taken over
    peer = world.peer("c", clean=False, **keep)
    peer.cut()
    peer = world.peer("c", clean=False, **keep)
    assert peer.session_present  # resumed
    peer.leave()
    assert world.peer("c", clean=False, **keep).session_present
    assert not world.peer("c", clean=True, **keep).session_present  # clean start, and taken over
    assert not world.peer("other", clean=False, **keep).session_present


def test_s14_after_expiry_there_is_no_session(world):
    world.peer("c", expiry=10).cut()
    world.advance(9)
    world.peer("c", clean=False, expiry=10).cut()
    world.advance(9)
    assert world.peer("c", clean=False, expiry=10).session_present
    world.peer("c", clean=False, expiry=10).cut()
    world.advance(11)
    assert not world.peer("c", clean=False).session_present


def test_s14_an_expired_session_is_gone_although_no_tick_swept_it(world):
    world.peer("c", expiry=10).cut()
    world.now += 11
    assert not world.peer("c", clean=False, expiry=10).session_present


def test_s14_clean_start_drops_subscriptions_and_messages_and_a_resumed_one_keeps_them(world):
    peer = world.peer("c", expiry=100)
    peer.subscribe("t", qos=1)
    peer.cut()
    publisher = world.peer("p")
    publisher.publish("t", b"1", 1)
    kept = world.peer("c", clean=False, expiry=100)
    assert kept.payloads() == [b"1"]
    publisher.publish("t", b"2", 1)
    assert kept.payloads() == [b"2"]
    kept.cut()
    publisher.publish("t", b"3", 1)
    fresh = world.peer("c", clean=True, expiry=100)
    publisher.publish("t", b"4", 1)
    assert not fresh.accept()


def test_s14_session_present_is_told_to_311_with_a_5_0_session_and_back(world):
    world.peer("c", level=5, expiry=100).cut()
    link = world.link(4)
    link.send("10 .. 'MQTT' 04 00 0000 'c'")
    link.expect("20 02 01 00")
    link.cut()
    assert world.peer("c", level=5, clean=False, expiry=100).session_present


def test_s14_a_session_of_clean_session_1_ends_with_its_link(world):
    peer = world.peer("c", level=4, clean=True)
    peer.subscribe("t", qos=1)
    peer.cut()
    assert not world.peer("c", level=4, clean=False).session_present


@pytest.mark.parametrize(("reason", "code"), [(0x86, 4), (0x87, 5), (0x85, 2), (0x88, 3), (0x89, 3), (0x8A, 5)])
def test_s15_an_error_connack_says_no_session_and_is_the_last_word(world, reason, code):
    from gateway.mqtt.reasons import Reason

    world.peer("c", expiry=100).cut()
    world.access.refusals["c"] = Reason(reason)
    link = world.link(5)
    link.send("10 .. 'MQTT' 05 00 0000 (11 00000064) 'c'", "c0 00")
    (seen,) = link.packets()
    assert seen.raw[0] == 0x20
    assert seen.raw[2:4] == bytes([0, reason])
    assert link.is_closed
    old = world.link(4)
    old.send("10 .. 'MQTT' 04 00 0000 'c'", "c0 00")
    old.expect(f"20 02 00 {code:02x}")
    assert old.is_closed
    world.access.refusals.clear()
    assert world.peer("c", clean=False, expiry=100).session_present, "a refused login must not cost the session"


def test_s15_a_refused_login_does_not_take_over(world):
    from gateway.mqtt.reasons import Reason

    peer = world.peer("c")
    world.access.refusals["c"] = Reason.NOT_AUTHORIZED
    link = world.link()
    link.send("10 .. 'MQTT' 05 02 0000 () 'c'")
    assert link.is_closed
    peer.send("c0 00")
    peer.expect("d0 00")


@pytest.mark.parametrize("expiry", [None, 0])
def test_s16_expiry_0_ends_the_session_with_the_link(world, expiry):
    world.peer("c", expiry=expiry, clean=False).cut()
    assert not world.peer("c", clean=False).session_present


def test_s16_expiry_is_counted_from_the_moment_the_link_is_gone(world):
    peer = world.peer("c", expiry=10)
    world.advance(1000)
    assert not peer.is_closed
    peer.cut()
    world.advance(9)
    peer = world.peer("c", clean=False, expiry=10)
    assert peer.session_present
    world.advance(100)
    peer.leave()
    world.advance(11)
    assert not world.peer("c", clean=False, expiry=10).session_present


def test_s16_expiry_ffffffff_never_ends(world):
    world.peer("c", expiry=FOREVER).cut()
    world.advance(200 * 365 * 86_400.0)  # further than 2**32 s
    assert world.peer("c", clean=False).session_present


def test_s16_expiry_fffffffe_is_a_number(world):
    world.peer("c", expiry=FOREVER - 1).cut()
    world.advance(FOREVER - 100.0)
    world.peer("c", clean=False, expiry=FOREVER - 1).cut()
    world.advance(FOREVER + 0.0)
    assert not world.peer("c", clean=False).session_present


def test_s16_a_311_session_that_is_not_clean_has_no_expiry(world):
    world.peer("c", level=4, clean=False).cut()
    world.advance(10 * 365 * 86_400.0)
    assert world.peer("c", level=4, clean=False).session_present


def test_s16_the_expiry_of_the_last_connect_counts(world):
    world.peer("c", expiry=1000).cut()
    world.peer("c", clean=False, expiry=5).cut()
    world.advance(6)
    assert not world.peer("c", clean=False).session_present


def test_s16_disconnect_changes_the_expiry(world):
    peer = world.peer("c", expiry=10)
    peer.send("e0 .. 00 (11 000003e8)")
    world.advance(900)
    peer = world.peer("c", clean=False, expiry=1000)
    assert peer.session_present
    peer.send("e0 .. 00 (11 00000005)")
    world.advance(6)
    peer = world.peer("c", clean=False, expiry=1000)
    assert not peer.session_present
    peer.send("e0 .. 04 (11 00000000)")
    assert not world.peer("c", clean=False, expiry=1000).session_present


@pytest.mark.parametrize("expiry", [None, 0])
def test_s16_disconnect_may_not_make_an_expiry_of_0_longer(world, expiry):
    watcher = world.peer("w")
    watcher.subscribe("will")
    peer = world.peer("c", expiry=expiry, will=("will",))
    peer.send("e0 .. 00 (11 00000005)")
    peer.ended(0x82)
    watcher.expect("30 .. 'will' ()")  # a protocol error is no orderly leave
    assert not world.peer("c", clean=False).session_present


def test_s16_disconnect_may_repeat_an_expiry_of_0(world):
    peer = world.peer("c", expiry=0)
    peer.send("e0 .. 00 (11 00000000)")
    assert peer.is_closed
    assert not peer.received()


def test_s16_a_maximum_of_ours_is_told_and_kept(make_world):
    world = make_world(session_expiry_maximum_s=50)
    peer = world.peer("c", expiry=FOREVER)
    assert peer.connack.properties[0x11] == 50
    assert world.peer("d", expiry=20).connack.properties.get(0x11, 20) == 20
    peer.cut()
    world.advance(51)
    assert not world.peer("c", clean=False).session_present


@pytest.mark.parametrize("level", [4, 5])
def test_s17_takeover_tells_the_old_link_8e_and_gives_the_new_one_the_session(world, level):
    old = world.peer("c", level=level, clean=False, expiry=100)
    old.subscribe("t", qos=1)
    new = world.peer("c", level=level, clean=False, expiry=100)
    assert new.session_present
    old.ended(0x8E)
    world.peer("p").publish("t", b"x", 1)
    assert new.payloads() == [b"x"]
    assert not old.received()


def test_s17_a_session_of_expiry_0_ends_with_the_link_that_is_taken_over(world):
    old = world.peer("c", clean=False)
    old.subscribe("t")
    new = world.peer("c", clean=False)
    assert not new.session_present
    old.ended(0x8E)
    world.peer("p").publish("t")
    assert new.silent()


@pytest.mark.parametrize("old_level", [4, 5])
@pytest.mark.parametrize("new_level", [4, 5])
def test_s17_takeover_works_across_the_levels(world, old_level, new_level):
    old = world.peer("c", level=old_level, clean=False, expiry=100)
    new = world.peer("c", level=new_level, clean=False, expiry=100)
    old.ended(0x8E)
    assert new.session_present
    new.send("c0 00")
    new.expect("d0 00")


def test_s17_the_will_of_the_old_link_is_published_at_takeover(world):
    watcher = world.peer("w")
    watcher.subscribe("#")
    world.peer("c", will=("will", b"old"), clean=False, expiry=100)
    world.peer("c", will=("will", b"new"), clean=False, expiry=100).leave()
    watcher.expect("""30 .. 'will' () "old" """)


def test_s17_a_delayed_will_of_the_old_link_is_not_because_the_session_goes_on(world):
    watcher = world.peer("w")
    watcher.subscribe("#")
    world.peer("c", will=("will", b"old", 0, False, "18 00000005"), clean=False, expiry=100)
    new = world.peer("c", clean=False, expiry=100)
    world.advance(20)
    assert watcher.silent()
    assert not new.is_closed


def test_s17_late_writes_of_the_old_link_reach_nothing(world):
    from gateway.mqtt.packets import Disconnect, Puback, Publish, Subscribe, Subscription, Unsubscribe

    watcher = world.peer("w")
    watcher.subscribe("late")
    old = world.peer("c", clean=False, expiry=100)
    old.subscribe("t", qos=1)
    publisher = world.peer("p")
    publisher.publish("t", b"1", 1)
    (first,) = old.packets()
    new = world.peer("c", clean=False, expiry=100, receive_maximum=1)
    (again,) = new.packets()
    assert again.packet_id == first.packet_id
    publisher.publish("t", b"2", 1)
    old.packets()
    old.force(Puback(first.packet_id))
    old.force(Publish("late", b""))
    old.force(Subscribe(9, (Subscription("late", 1),)))
    old.force(Unsubscribe(9, ("t",)))
    old.force(Disconnect())
    old.feed(old.bytes("30 .. 'late' ()"))
    world.broker.lost(old.client, world.now)
    world.turn()
    assert not old.received()
    assert watcher.silent()
    assert new.silent()  # the window is still full: the old link's PUBACK was not counted
    new.answer(again)
    (second,) = new.packets()
    assert second.payload == b"2"


def test_s17_packets_of_the_old_link_in_the_same_segment_as_its_end_are_not_read(world):
    watcher = world.peer("w")
    watcher.subscribe("t")
    old = world.peer("c")
    old.send("30 .. 't' ()", "e0 00", "30 .. 't' ()")
    watcher.expect("30 .. 't' ()")


def test_s17_a_takeover_by_a_refused_packet_behind_connect_still_happened(world):
    old = world.peer("c", clean=False, expiry=100)
    link = world.link()
    link.send("10 .. 'MQTT' 05 00 0000 () 'c'", "c1 00")
    old.ended(0x8E)
    assert [seen.kind for seen in link.packets()] == ["CONNACK", "DISCONNECT"]


@pytest.mark.parametrize("level", [4, 5])
def test_s18_a_client_that_is_silent_too_long_is_dropped_with_8d_and_its_will_is_published(world, level):
    watcher = world.peer("w")
    watcher.subscribe("will")
    peer = world.peer(level=level, keep_alive=10, will=("will",))
    world.broker.idle(peer.client, world.now)
    world.turn()
    peer.ended(0x8D)
    watcher.expect("30 .. 'will' ()")
    assert ("keep_alive_timeout", "c") in world.report.said


def test_s18_the_keep_alive_of_the_server_is_told_and_used(make_world):
    world = make_world(keep_alive_maximum_s=60)
    for asked, told in ((0, 60), (61, 60), (65_535, 60), (60, None), (10, None)):
        peer = world.peer("c", keep_alive=asked)
        assert peer.connack.properties.get(0x13) == told, asked  # [MQTT-3.2.2-21]
        assert peer.client.connection.keep_alive == (told or asked)


def test_s18_without_a_maximum_the_client_decides(world):
    for asked in (0, 1, 65_535):
        peer = world.peer("c", keep_alive=asked)
        assert 0x13 not in peer.connack.properties
        assert peer.client.connection.keep_alive == asked


@pytest.mark.parametrize("level", [4, 5])
def test_s19_nothing_is_sent_before_connack(world, level):
    world.peer("c", level=level, clean=False, expiry=100).subscribe("t", qos=1)
    world.peer("c", level=level, clean=False, expiry=100).cut()
    world.peer("p").publish("t", b"waits", 1)
    peer = world.peer("c", level=level, clean=False, expiry=100, hold=True)
    world.peer("p").publish("t", b"too", 1)
    world.advance(5)
    assert not peer.received()
    peer.admit()
    seen = peer.packets()
    assert [one.kind for one in seen] == ["CONNACK", "PUBLISH", "PUBLISH"]
    assert [one.payload for one in seen[1:]] == [b"waits", b"too"]


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("hold", [False, True])
def test_s19_packets_behind_connect_in_the_same_segment_are_handled_after_acceptance(world, level, hold):
    watcher = world.peer("w")
    watcher.subscribe("t")
    link = world.link(level)
    link.is_holding_login = hold
    link.send(f"10 .. 'MQTT' {level:02x} 02 0000 () 'c'", "82 .. 0001 () 'u' 00", """30 .. 't' () "x" """, "c0 00")
    if hold:
        assert watcher.silent()
        assert not link.received()
        link.admit()
    assert [seen.kind for seen in link.packets()] == ["CONNACK", "SUBACK", "PINGRESP"]
    watcher.expect("""30 .. 't' () "x" """)


@pytest.mark.parametrize("level", [4, 5])
def test_s19_packets_behind_connect_are_ignored_after_refusal(world, level):
    from gateway.mqtt.reasons import Reason

    world.access.refusals["c"] = Reason.NOT_AUTHORIZED
    watcher = world.peer("w")
    watcher.subscribe("#")
    link = world.link(level)
    link.send(f"10 .. 'MQTT' {level:02x} 06 0000 () 'c' () 'will' 'x'", """30 .. 't' () "x" """, "c0 00")
    assert [seen.kind for seen in link.packets()] == ["CONNACK"]
    assert link.is_closed
    assert watcher.silent(), "neither its message nor its will"


def test_s20_what_is_not_announced_as_missing_is_there_also_for_the_will(world):
    watcher = world.peer("w")
    peer = world.peer(will=("will", b"x", 2, True))
    for identifier in (0x24, 0x25, 0x28, 0x29, 0x2A):  # QoS, retain, wildcards, identifiers, shared
        assert peer.connack.properties.get(identifier, 1) == 1
    assert 0x24 not in peer.connack.properties, "a maximum QoS of 1 would be announced"
    assert watcher.subscribe("#", qos=2, identifier=1) == (2,)
    assert watcher.subscribe("$share/g/+", qos=2) == (2,)
    watcher.unsubscribe("$share/g/+")
    assert peer.publish("t", b"x", 2, retain=True) in (0, 0x10)
    peer.cut()
    assert [(seen.topic, seen.qos) for seen in watcher.accept()] == [("t", 2), ("will", 2)]
    late = world.peer("late")
    late.subscribe("#", qos=2)
    assert {(seen.topic, seen.qos, seen.retain) for seen in late.accept()} == {("t", 2, True), ("will", 2, True)}


def test_s20_the_announced_receive_maximum_packet_size_and_alias_maximum_are_enforced(make_world):
    world = make_world(receive_maximum=3, packet_bytes=200, topic_alias_maximum=2, connect_bytes=100)
    peer = world.peer("a")
    assert peer.connack.properties[0x21] == 3
    assert peer.connack.properties[0x27] == 200
    assert peer.connack.properties[0x22] == 2
    peer.send(world.notation.packet(0x30, world.notation.raw("'t' ()"), b"x" * 193))  # 200 in all
    assert peer.silent()
    peer.send(world.notation.packet(0x30, world.notation.raw("'t' ()"), b"x" * 194))
    peer.ended(0x95)
    peer = world.peer("b")
    peer.send("30 .. 't' (23 0003)")
    peer.ended(0x94)
    peer = world.peer("c")
    peer.send(*(f"34 .. 't' {i:04x} ()" for i in range(1, 5)))
    assert peer.is_closed
    assert peer.packets()[-1].reason == 0x93


def test_s20_a_packet_above_the_maximum_is_refused_at_its_header(make_world):
    world = make_world(packet_bytes=200)
    for level in (4, 5):
        peer = world.peer("a", level=level)
        peer.send("30 c901")  # 201 follow
        peer.ended(0x95)


def test_s20_a_connect_above_its_own_maximum_is_refused_at_its_header(make_world):
    world = make_world(connect_bytes=100)
    link = world.link()
    link.send("10 ffffff7f")
    link.ended(0x95, 0x81)
    assert link.client.connection.buffered == 0


def test_s20_alias_maximum_0_is_none_at_all(make_world):
    world = make_world(topic_alias_maximum=0)
    peer = world.peer()
    assert peer.connack.properties.get(0x22, 0) == 0
    peer.send("30 .. 't' (23 0001)")
    peer.ended(0x94)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_s21_a_message_above_the_clients_maximum_is_dropped_as_if_delivered(world, qos):
    peer = world.peer(maximum_packet_size=60, receive_maximum=1)
    peer.subscribe("t", qos=qos)
    publisher = world.peer("p")
    fits = 60 - 2 - 3 - 1 - (2 if qos else 0)
    for size in (fits, fits + 1, 5_000, 1):
        publisher.publish("t", b"x" * size, qos)
    assert [len(payload) for payload in peer.payloads()] == [fits, 1]
    publisher.publish("t", b"on", qos)
    assert peer.payloads() == [b"on"]
    assert world.counted("dropped") == 2


def test_s21_neither_retained_nor_waiting_messages_above_the_maximum_are_sent(world):
    publisher = world.peer("p")
    publisher.publish("t/1", b"x" * 100, 1, retain=True)
    publisher.publish("t/2", b"2", 1, retain=True)
    peer = world.peer("c", expiry=100, maximum_packet_size=60)
    peer.subscribe("t/+", qos=1)
    assert peer.payloads() == [b"2"]
    peer.cut()
    publisher.publish("t/1", b"y" * 100, 1)
    publisher.publish("t/2", b"3", 1)
    peer = world.peer("c", clean=False, expiry=100, maximum_packet_size=60)
    assert peer.payloads() == [b"3"]


def test_s21_a_smaller_maximum_at_reconnect_ends_what_was_in_flight(world):
    peer = world.peer("c", expiry=100)
    peer.subscribe("t", qos=1)
    publisher = world.peer("p")
    publisher.publish("t", b"x" * 100, 1)
    publisher.publish("t", b"small", 1)
    assert len(peer.packets()) == 2
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100, maximum_packet_size=60, receive_maximum=1)
    assert peer.payloads() == [b"small"]
    publisher.publish("t", b"on", 1)
    assert peer.payloads() == [b"on"]


def test_s21_properties_count_into_the_size(world):
    peer = world.peer(maximum_packet_size=40)
    peer.subscribe("t", qos=1, identifier=3)
    publisher = world.peer("p")
    name = "n" * 40
    publisher.publish("t", b"x", 1, properties=f"(26 '{name}' 'v')")
    publisher.publish("t", b"y", 1)
    (seen,) = peer.accept()
    assert seen.payload == b"y"
    assert seen.properties == {0x0B: [3]}


def test_s21_a_shared_message_too_large_for_one_member_goes_to_another(world):
    small = world.peer("small", maximum_packet_size=40)
    large = world.peer("large")
    small.subscribe("$share/g/t", qos=1)
    large.subscribe("$share/g/t", qos=1)
    publisher = world.peer("p")
    for _ in range(4):
        publisher.publish("t", b"x" * 100, 1)
    assert not small.accept()
    assert len(large.accept()) == 4


@pytest.mark.parametrize("size", [6, 8, 12, 16, 20, 24, 28, 32, 40])
def test_s21_reason_strings_and_user_properties_are_cut_before_a_packet_is_too_large(world, size):
    world.access.unwritable.add("denied")
    world.access.unsubscribable.add("denied")
    peer = world.link()
    peer.strict.maximum_packet_size = size
    peer.send(world.connect_bytes("c", maximum_packet_size=size))
    if peer.is_closed:
        return  # CONNACK itself is larger, and what it says cannot be left out
    assert peer.take("CONNACK").reason == 0
    peer.send("32 .. 'denied' 0001 ()", "34 .. 'denied' 0002 ()", "62 02 0009", "82 .. 0003 () 'denied' 00")
    peer.send("a2 .. 0004 () 'never'")
    kinds = [(seen.kind, seen.reason, seen.reasons) for seen in peer.packets()]
    assert kinds == [
        *(("PUBACK", 0x87, ()), ("PUBREC", 0x87, ()), ("PUBCOMP", 0x92, ())),
        *(("SUBACK", 0, (0x87,)), ("UNSUBACK", 0, (0x11,))),
    ]
    peer.send("30 .. 't' (0b 01)")
    peer.ended(0x82)


def test_s21_the_reason_string_of_a_refusal_is_cut_too(world):
    from gateway.mqtt.reasons import Reason

    world.access.refusals["c"] = Reason.NOT_AUTHORIZED
    link = world.link()
    link.send(world.connect_bytes("c"))
    assert link.packets()[0].properties[0x1F]
    link = world.link()
    link.strict.maximum_packet_size = 8
    link.send(world.connect_bytes("c", maximum_packet_size=8))
    link.expect("20 .. 00 87 ()")
    assert link.is_closed


def test_s22_without_problem_information_reasons_stand_alone(world):
    world.access.unwritable.add("denied")
    world.access.unsubscribable.add("denied")
    peer = world.peer(problems=0)
    peer.subscribe("t")
    peer.send("32 .. 'denied' 0001 ()", "34 .. 'denied' 0002 ()", "62 02 0009", "82 .. 0003 () 'denied' 00")
    peer.send("a2 .. 0004 () 'never'")
    assert all(not seen.properties for seen in peer.packets())
    world.peer("p").publish("t", b"x", properties="(26 'n' 'v')")
    peer.expect("""30 .. 't' (26 'n' 'v') "x" """)  # what belongs to a message is no problem information
    peer.send("30 .. 't' (0b 01)")
    peer.ended(0x82)


def test_s22_with_problem_information_a_refusal_says_why(world):
    world.access.unwritable.add("denied")
    peer = world.peer(problems=1)
    peer.send("32 .. 'denied' 0001 ()")
    (seen,) = peer.packets()
    assert seen.reason == 0x87
    assert seen.properties.get(0x1F), "a reason string, so that the test above shows something"
