"""Statements 57 to 59: wills, and shared subscriptions."""

import pytest

LEVELS = pytest.mark.parametrize("level", [4, 5])


@pytest.fixture
def watcher(world):
    peer = world.peer("watcher")
    peer.subscribe("will", qos=2)
    return peer


def takeover(world, peer):
    world.peer(peer.client_id, level=peer.level)


ENDS = {
    "cut": lambda world, peer: peer.cut(),
    "silent too long": lambda world, peer: world.broker.idle(peer.client, world.now),
    "malformed packet": lambda world, peer: peer.send("c1 00"),
    "protocol error": lambda world, peer: peer.send("10 .. 'MQTT' 04 02 0000 'c'"),
    "takeover": takeover,
    "thrown out": lambda world, peer: world.broker.disconnect("c", _reason(0x98), world.now),
    "shutdown": lambda world, peer: world.broker.shutdown(world.now),
}


def _reason(code):
    from gateway.mqtt.reasons import Reason

    return Reason(code)


@LEVELS
@pytest.mark.parametrize("end", ENDS)
def test_s57_the_will_is_sent_once_however_the_link_ends(world, level, end):
    watcher = world.peer("watcher", level=level, clean=False, expiry=100)
    watcher.subscribe("will", qos=2)
    peer = world.peer("c", level=level, will=("will", b"gone", 1, False))
    ENDS[end](world, peer)
    world.turn()
    assert peer.is_closed
    world.broker.lost(peer.client, world.now)
    world.advance(5)
    if watcher.is_closed:  # a shutdown sends it away as well: its session has the will
        watcher = world.peer("watcher", level=level, clean=False, expiry=100)
    (will,) = watcher.packets()
    assert will.raw == watcher.bytes(f"32 .. 'will' {will.packet_id:04x} () \"gone\"")


def test_s57_the_server_says_why_it_goes(world):
    peer = world.peer("c")
    other = world.peer("o", level=4)
    world.broker.shutdown(world.now)
    world.turn()
    peer.ended(0x8B)
    other.ended()


@LEVELS
def test_s57_disconnect_0_removes_the_will(world, watcher, level):
    peer = world.peer("c", level=level, clean=False, expiry=100, will=("will", b"gone"))
    peer.send("e0 00")
    assert peer.is_closed
    world.advance(200)
    assert watcher.silent()
    peer = world.peer("c", level=level, clean=False, expiry=100)
    peer.cut()
    assert watcher.silent(), "an old will is no will of the next connection"


@pytest.mark.parametrize("data", ["e0 00", "e0 01 00", "e0 02 00 00", "e0 .. 00 (1f 'bye')"])
def test_s57_each_way_to_write_a_normal_disconnect_removes_the_will(world, watcher, data):
    peer = world.peer("c", will=("will", b"gone"))
    peer.send(data)
    assert peer.is_closed
    assert not peer.received()
    assert watcher.silent()


@pytest.mark.parametrize("data", ["e0 01 04", "e0 02 04 00", "e0 01 80", "e0 01 83", "e0 .. 97 (1f 'full')"])
def test_s57_disconnect_with_another_code_sends_the_will(world, watcher, data):
    peer = world.peer("c", will=("will", b"gone"))
    peer.send(data)
    assert peer.is_closed
    assert not peer.received()
    watcher.expect("""30 .. 'will' () "gone" """)


def test_s57_a_will_is_sent_for_one_connection_only(world, watcher):
    for _ in range(3):
        world.peer("c", clean=False, expiry=100, will=("will", b"gone")).cut()
        watcher.expect("""30 .. 'will' () "gone" """)
    world.peer("c", clean=False, expiry=100).cut()
    assert watcher.silent()


@LEVELS
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_s57_the_will_has_the_qos_and_the_retain_flag_it_was_given(world, level, qos, retain):
    watcher = world.peer("watcher")
    watcher.subscribe("will", qos=2, options=0x08)
    world.peer("c", level=level, will=("will", b"gone", qos, retain)).cut()
    (seen,) = watcher.accept()
    assert seen.raw[0] == 0x30 | qos << 1 | retain
    late = world.peer("late")
    late.subscribe("will")
    assert late.payloads() == ([b"gone"] if retain else [])


def test_s57_a_will_goes_through_access(world, watcher):
    world.access.unwritable.add("will")
    link = world.link()
    link.send(world.connect_bytes("c", will=("will", b"gone", 1, True)))
    if link.is_closed:
        assert [seen.reason for seen in link.packets()] == [0x87]
    link.cut()
    assert watcher.silent()
    late = world.peer("late")
    late.subscribe("#")
    assert late.silent()


DELAYED = ("will", b"gone", 0, False, "18 0000000a")


def test_s58_a_delayed_will_waits(world, watcher):
    world.peer("c", expiry=100, will=DELAYED).cut()
    world.advance(9)
    assert watcher.silent()
    world.advance(2)
    watcher.expect("""30 .. 'will' () "gone" """)
    world.advance(200)
    assert watcher.silent()


def test_s58_a_reconnect_in_time_cancels_it(world, watcher):
    world.peer("c", expiry=100, will=DELAYED).cut()
    world.advance(9)
    peer = world.peer("c", clean=False, expiry=100)
    assert peer.session_present
    world.advance(200)
    assert watcher.silent()


def test_s58_the_next_connections_will_is_another(world, watcher):
    world.peer("c", expiry=100, will=DELAYED).cut()
    world.advance(5)
    peer = world.peer("c", clean=False, expiry=100, will=("will", b"second", 0, False, "18 00000014"))
    world.advance(8)
    peer.cut()
    world.advance(18)
    assert watcher.silent()
    world.advance(3)
    watcher.expect("""30 .. 'will' () "second" """)


@pytest.mark.parametrize(("expiry", "due"), [(0, 0), (None, 0), (4, 4), (10, 10), (50, 10)])
def test_s58_the_end_of_the_session_sends_it_early(world, watcher, expiry, due):
    world.peer("c", expiry=expiry, will=DELAYED).cut()
    if due:
        world.advance(due - 1)
        assert watcher.silent()
        world.advance(2)
    watcher.expect("""30 .. 'will' () "gone" """)


def test_s58_takeover_with_clean_start_sends_it_at_once(world, watcher):
    world.peer("c", expiry=100, will=DELAYED)
    world.peer("c", clean=True, expiry=100)
    watcher.expect("""30 .. 'will' () "gone" """)


@pytest.mark.parametrize("clean", [False, True])
def test_s58_takeover_of_a_session_of_expiry_0_sends_it_at_once(world, watcher, clean):
    world.peer("c", expiry=0, will=DELAYED)
    taker = world.peer("c", clean=clean, expiry=100)
    assert not taker.session_present
    watcher.expect("""30 .. 'will' () "gone" """)


def test_s58_a_clean_start_after_the_link_is_gone_sends_it_at_once(world, watcher):
    world.peer("c", expiry=100, will=DELAYED).cut()
    assert watcher.silent()
    world.peer("c", clean=True, expiry=100)
    watcher.expect("""30 .. 'will' () "gone" """)
    world.advance(50)
    assert watcher.silent()


def test_s58_disconnect_with_will_starts_the_delay_and_expiry_0_there_sends_it_at_once(world, watcher):
    peer = world.peer("c", expiry=100, will=DELAYED)
    peer.send("e0 01 04")
    assert watcher.silent()
    world.advance(11)
    watcher.expect("""30 .. 'will' () "gone" """)
    peer = world.peer("c", expiry=100, will=DELAYED)
    peer.send("e0 .. 04 (11 00000000)")
    watcher.expect("""30 .. 'will' () "gone" """)


def test_s58_an_empty_retained_will_deletes(world, watcher):
    world.peer("p").publish("will", b"kept", 1, retain=True)
    watcher.accept()
    world.peer("c", will=("will", b"", 1, True)).cut()
    (seen,) = watcher.accept()
    assert seen.payload == b""
    late = world.peer("late")
    late.subscribe("will")
    assert late.silent()


def test_s58_the_delay_itself_is_not_passed_on(world, watcher):
    world.peer("c", expiry=100, will=("will", b"x", 0, False, "18 00000001 03 'type' 26 'n' 'v'")).cut()
    world.advance(2)
    watcher.expect("""30 .. 'will' (03 'type' 26 'n' 'v') "x" """)


def test_s58_311_has_no_delay(world, watcher):
    world.peer("c", level=4, clean=False, will=("will", b"gone")).cut()
    watcher.expect("""30 .. 'will' () "gone" """)


@LEVELS
@pytest.mark.parametrize(
    "filter_", ["$share//t", "$share/+/t", "$share/#/t", "$share/a+/t", "$share/a#b/t", "$share/g/"]
)
def test_s59_a_name_that_is_empty_or_has_a_wildcard_is_refused(world, level, filter_):
    peer = world.peer(level=level)
    assert peer.subscribe(filter_, "$share/g/t") == (0x8F if level == 5 else 0x80, 0)


@LEVELS
@pytest.mark.parametrize("filter_", ["$share/g", "$share/"])
def test_s59_a_shared_filter_without_a_filter_is_refused(world, level, filter_):
    assert world.peer(level=level).subscribe(filter_, "t") == (0x8F if level == 5 else 0x80, 0)


@LEVELS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_s59_each_message_goes_to_one_member(world, level, qos):
    members = [world.peer(name, level=level) for name in ("a", "b", "c")]
    for member in members:
        member.subscribe("$share/g/t/#", qos=qos)
    publisher = world.peer("p")
    for n in range(30):
        publisher.publish("t/x", b"%d" % n, qos)
    shares = [member.payloads() for member in members]
    assert sorted(int(payload) for share in shares for payload in share) == list(range(30))
    assert all(len(share) >= 5 for share in shares), "spread"


def test_s59_groups_and_filters_are_apart_and_each_gets_its_copy(world):
    one, two, three = world.peer("1"), world.peer("2"), world.peer("3")
    one.subscribe("$share/g/t")
    two.subscribe("$share/h/t")
    three.subscribe("$share/g/+")
    world.peer("p").publish("t", b"x")
    assert [len(peer.packets()) for peer in (one, two, three)] == [1, 1, 1]


def test_s59_an_unshared_subscription_of_the_same_client_gets_its_own_copy(world):
    one, two = world.peer("1"), world.peer("2")
    one.subscribe("t", identifier=1)
    one.subscribe("$share/g/t", identifier=2)
    two.subscribe("$share/g/t", identifier=3)
    publisher = world.peer("p")
    for n in range(10):
        publisher.publish("t", b"%d" % n)
    mine, theirs = one.packets(), two.packets()
    own = [seen.payload for seen in mine if seen.properties[0x0B] == [1]]
    shared = [seen.payload for seen in mine if seen.properties[0x0B] == [2]] + [seen.payload for seen in theirs]
    assert own == [b"%d" % n for n in range(10)]
    assert sorted(shared) == [b"%d" % n for n in range(10)]


def test_s59_a_member_that_is_away_is_not_chosen_while_others_live(world):
    away, here = world.peer("away", expiry=100), world.peer("here", expiry=100)
    away.subscribe("$share/g/t", qos=1)
    here.subscribe("$share/g/t", qos=1)
    away.cut()
    publisher = world.peer("p")
    for n in range(10):
        publisher.publish("t", b"%d" % n, 1)
    assert here.payloads() == [b"%d" % n for n in range(10)]
    here.cut()
    publisher.publish("t", b"kept", 1)
    found = [world.peer(name, clean=False, expiry=100).payloads() for name in ("away", "here")]
    assert sorted(found) == [[], [b"kept"]], "nobody lived: one of them keeps it"


def test_s59_a_member_that_is_gone_for_good_is_out(world):
    gone, here = world.peer("gone"), world.peer("here")
    gone.subscribe("$share/g/t", qos=1)
    here.subscribe("$share/g/t", qos=1)
    gone.cut()
    publisher = world.peer("p")
    for n in range(4):
        publisher.publish("t", b"%d" % n, 1)
    assert len(here.payloads()) == 4
    here.unsubscribe("$share/g/t")
    publisher.publish("t", b"x", 1)
    assert here.silent()


@pytest.mark.parametrize("qos", [1, 2])
def test_s59_what_is_in_flight_stays_with_its_member(world, qos):
    one, two = world.peer("1", expiry=100), world.peer("2", expiry=100)
    one.subscribe("$share/g/t", qos=qos)
    publisher = world.peer("p")
    publisher.publish("t", b"x", qos)
    (seen,) = one.packets()
    two.subscribe("$share/g/t", qos=qos)
    one.cut()
    world.advance(20)
    assert two.silent()
    one = world.peer("1", clean=False, expiry=100)
    one.expect(f"{0x38 | qos << 1:02x} .. 't' {seen.packet_id:04x} () \"x\"")
    assert two.silent()


@pytest.mark.parametrize(("qos", "refusal"), [(1, "40 03 {:04x} 87"), (2, "50 03 {:04x} 87")])
def test_s59_the_refusal_of_a_member_discards(world, qos, refusal):
    one = world.peer("1")
    one.subscribe("$share/g/t", qos=qos)
    world.peer("p").publish("t", b"x", qos)
    (seen,) = one.packets()
    two = world.peer("2")
    two.subscribe("$share/g/t", qos=qos)
    before = world.counted("dropped")
    one.send(refusal.format(seen.packet_id))
    assert one.silent()
    assert two.silent()
    assert world.counted("dropped") == before + 1


def test_s59_each_members_qos_is_its_own(world):
    zero, two = world.peer("0"), world.peer("2")
    zero.subscribe("$share/g/t", qos=0)
    two.subscribe("$share/g/t", qos=2)
    publisher = world.peer("p")
    for _ in range(6):
        publisher.publish("t", b"x", 2)
    assert {seen.qos for seen in zero.accept()} == {0}
    assert {seen.qos for seen in two.accept()} == {2}


def test_s59_a_member_that_may_not_read_the_topic_is_passed_over(make_world):
    world = make_world()
    may_read = world.access.may_read
    world.access.may_read = lambda who, topic: who.client_id != "blind" and may_read(who, topic)
    blind, sees = world.peer("blind"), world.peer("sees")
    blind.subscribe("$share/g/t")
    sees.subscribe("$share/g/t")
    publisher = world.peer("p")
    for _ in range(6):
        publisher.publish("t", b"x")
    assert blind.silent()
    assert len(sees.packets()) == 6


def test_s59_a_stalled_member_is_passed_over_while_another_can_take_it(world):
    stalled, quick = world.peer("stalled"), world.peer("quick")
    stalled.subscribe("$share/g/t", qos=1)
    quick.subscribe("$share/g/t", qos=1)
    stalled.stall()
    publisher = world.peer("p")
    for n in range(10):
        publisher.publish("t", b"%d" % n, 1)
    assert len(quick.payloads()) >= 9
