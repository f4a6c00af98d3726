"""Statements 23 to 34: PUBLISH, its properties, aliases, expiry, overlapping subscriptions, and the windows."""

import pytest


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("first", ["38", "39", "36", "3e", "37", "3f"])
def test_s23_dup_with_qos_0_and_qos_3_are_malformed(world, level, first):
    watcher = world.peer("w")
    watcher.subscribe("#", qos=2)
    peer = world.peer(level=level)
    peer.send(f"{first} .. 't' 0001 () \"x\"" if first[1] in "67ef" else f"{first} .. 't' () \"x\"")
    peer.ended(0x81)
    assert watcher.silent()


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(("first", "out"), [("3a", "32"), ("3c", "34"), ("32", "32"), ("3b", "32")])
def test_s24_dup_is_not_forwarded(world, level, first, out):
    watcher = world.peer("w", level=level)
    watcher.subscribe("t", qos=2)
    peer = world.peer(level=level)
    peer.send(f"{first} .. 't' 0007 () \"x\"")
    (seen,) = watcher.packets()
    assert seen.raw == watcher.bytes(f"{out} .. 't' {seen.packet_id:04x} () \"x\"")


def test_s24_dup_of_a_delivery_is_its_own(world):
    watcher = world.peer("w", expiry=100)
    watcher.subscribe("t", qos=1)
    other = world.peer("o")
    other.subscribe("t", qos=1)
    peer = world.peer()
    peer.send("""3a .. 't' 0007 () "x" """)
    (first,) = watcher.packets()
    watcher.cut()
    watcher = world.peer("w", clean=False, expiry=100)
    watcher.expect(f"3a .. 't' {first.packet_id:04x} () \"x\"")
    (seen,) = other.packets()
    assert not seen.dup


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(
    "topic", ["''", "'+'", "'#'", "'a/+'", "'a/#'", "'a/+/b'", "'a+'", "'a#b'"], ids=lambda topic: topic.strip("'")
)
@pytest.mark.parametrize("first", ["30", "32", "34"])
def test_s25_an_empty_topic_or_a_wildcard_in_it_ends_the_connection(world, level, topic, first):
    watcher = world.peer("w")
    watcher.subscribe("#", qos=2)
    peer = world.peer(level=level)
    peer.send(f'{first} .. {topic} {"" if first == "30" else "0001"} () "x"')
    peer.ended(0x81, 0x82, 0x90)
    assert watcher.silent()


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("topic", ["''", "'a/+'", "'#'"])
def test_s25_the_topic_of_a_will_obeys_as_well(world, level, topic):
    link = world.link(level)
    link.send(f"10 .. 'MQTT' {level:02x} 06 0000 () 'c' () {topic} 'p'")
    assert link.is_closed
    assert all(seen.reason in (0x81, 0x82, 0x90) for seen in link.packets())


@pytest.mark.parametrize("first", ["30", "32", "34"])
@pytest.mark.parametrize("alias", ["0000", "0041", "ffff"])
def test_s26_an_alias_of_0_or_above_the_maximum_is_an_error(world, first, alias):
    peer = world.peer()
    assert peer.connack.properties[0x22] == 0x40
    peer.send(f"{first} .. 't' {'' if first == '30' else '0001'} (23 {alias})")
    peer.ended(0x94, 0x82)


def test_s26_an_alias_that_was_never_bound_is_an_error(world):
    peer = world.peer()
    peer.send("30 .. 't' (23 0001)", "30 .. '' (23 0002)")
    peer.ended(0x94, 0x82)


def test_s26_an_alias_stands_for_its_topic_and_may_be_bound_anew(world):
    watcher = world.peer("w")
    watcher.subscribe("#")
    peer = world.peer()
    peer.send("""30 .. 'a' (23 0001) "1" """, """30 .. '' (23 0001) "2" """, """30 .. 'b' (23 0040) "3" """)
    peer.send("""30 .. '' (23 0001) "4" """, """30 .. 'c' (23 0001) "5" """, """30 .. '' (23 0001) "6" """)
    peer.send("""30 .. '' (23 0040) "7" """, """30 .. 'a' () "8" """)
    watcher.expect(
        *("""30 .. 'a' () "1" """, """30 .. 'a' () "2" """, """30 .. 'b' () "3" """, """30 .. 'a' () "4" """),
        *("""30 .. 'c' () "5" """, """30 .. 'c' () "6" """, """30 .. 'b' () "7" """, """30 .. 'a' () "8" """),
    )


def test_s26_an_alias_works_with_qos_1_and_2_and_retain(world):
    watcher = world.peer("w")
    watcher.subscribe("a", qos=2)
    peer = world.peer()
    peer.send("""33 .. 'a' 0001 (23 0001) "1" """, """35 .. '' 0002 (23 0001) "2" """, "62 02 0002")
    assert [(seen.topic, seen.payload) for seen in watcher.accept()] == [("a", b"1"), ("a", b"2")]
    late = world.peer("l")
    late.send("82 .. 0001 () 'a' 00")
    late.expect("90 .. 0001 () 00", """31 .. 'a' () "2" """)


def test_s26_aliases_die_with_the_connection_although_the_session_lives(world):
    peer = world.peer("c", expiry=100)
    peer.send("30 .. 'a' (23 0001)")
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100)
    assert peer.session_present
    peer.send("30 .. '' (23 0001)")
    peer.ended(0x94, 0x82)


def test_s26_aliases_of_two_clients_are_apart(world):
    watcher = world.peer("w")
    watcher.subscribe("#")
    one, two = world.peer("1"), world.peer("2")
    one.send("30 .. 'a' (23 0001)")
    two.send("30 .. 'b' (23 0001)")
    one.send("30 .. '' (23 0001)")
    two.send("30 .. '' (23 0001)")
    assert [seen.topic for seen in watcher.packets()] == ["a", "b", "a", "b"]


def test_s27_without_a_maximum_of_the_client_no_alias_is_sent(world):
    peer = world.peer()
    peer.subscribe("#", qos=1)
    gateway = world.peer("p")
    for _ in range(5):
        gateway.publish("a/long/topic/that/would/be/worth/it", b"", 1)
    assert all(0x23 not in seen.properties and seen.topic for seen in peer.accept())


@pytest.mark.parametrize("maximum", [1, 2, 10, 65_535])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_s27_outbound_aliases_keep_to_the_clients_maximum_and_name_their_topic_first(world, maximum, qos):
    peer = world.peer(alias_maximum=maximum)
    peer.subscribe("#", qos=qos)
    publisher = world.peer("p")
    topics = [f"some/long/topic/{n % 7}" for n in range(30)]
    named = {}  # what a client makes of it
    for topic in topics:
        publisher.publish(topic, topic.encode(), qos)
        for seen in peer.accept():
            alias = seen.properties.get(0x23)
            assert alias is None or 1 <= alias <= maximum
            if alias and seen.topic:
                named[alias] = seen.topic
            assert (seen.topic or named[alias]).encode() == seen.payload
    assert named, "an alias was of use"


def test_s27_a_resend_on_a_new_connection_carries_its_topic(world):
    peer = world.peer("c", expiry=100, alias_maximum=10)
    peer.subscribe("t", qos=1)
    publisher = world.peer("p")
    for n in range(3):
        publisher.publish("t", b"%d" % n, 1)
    first = peer.packets()
    assert any(not seen.topic for seen in first), "an alias alone was sent"
    peer.cut()
    again = world.peer("c", clean=False, expiry=100, alias_maximum=10)  # strict: an alias must be explained here
    seen = again.accept()
    assert seen[0].topic == "t"
    assert [(one.payload, one.dup) for one in seen] == [(b"0", True), (b"1", True), (b"2", True)]
    again.cut()


def test_s27_a_resend_to_a_connection_without_aliases_has_none(world):
    peer = world.peer("c", expiry=100, alias_maximum=10)
    peer.subscribe("t", qos=1)
    for n in range(3):
        world.peer("p").publish("t", b"%d" % n, 1)
    peer.cut()
    again = world.peer("c", clean=False, expiry=100)
    assert [(seen.topic, seen.properties) for seen in again.accept()] == [("t", {})] * 3


def test_s27_an_inbound_alias_is_not_passed_on(world):
    watcher = world.peer("w", alias_maximum=0)
    watcher.subscribe("t")
    world.peer("p").send("30 .. 't' (23 0007)")
    watcher.expect("30 .. 't' ()")


RICH = (
    "01 01 03 'text/plain' 08 'answer/here' 09 0004 00ff10fe "
    "26 'b' '1' 26 'a' '2' 26 'b' '1' 26 'b' '0' 26 '' '' 26 'B' 'x'"
)


def rich(seen):
    assert seen.properties[0x01] == 1
    assert seen.properties[0x03] == "text/plain"
    assert seen.properties[0x08] == "answer/here"
    assert seen.properties[0x09] == bytes.fromhex("00ff10fe")
    pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("b", "0"), ("", ""), ("B", "x")]
    return seen.properties[0x26] == pairs


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_s28_properties_of_a_message_pass_unchanged_live(world, qos):
    watcher = world.peer("w")
    watcher.subscribe("t", qos=qos)
    world.peer("p").publish("t", "grün".encode(), qos, properties=f"({RICH})")
    (seen,) = watcher.accept()
    assert rich(seen)
    assert seen.payload == "grün".encode()
    packet_id = f"{seen.packet_id:04x}" if qos else ""
    assert seen.raw == world.notation.raw(f"{0x30 | qos << 1:02x} .. 't' {packet_id} ({RICH}) \"grün\""), (
        "byte for byte"
    )


def test_s28_properties_of_a_message_pass_retained_offline_shared_and_in_a_will(world):
    watcher = world.peer("w", expiry=100)
    watcher.subscribe("t", "will", qos=1)
    watcher.cut()
    publisher = world.peer("p", will=("will", b"x", 1, False, RICH))
    publisher.publish("t", b"x", 1, retain=True, properties=f"({RICH})")
    publisher.cut()
    watcher = world.peer("w", clean=False, expiry=100)
    seen = watcher.accept()
    assert [one.topic for one in seen] == ["t", "will"]
    assert all(rich(one) for one in seen)
    late = world.peer("late")
    late.subscribe("t")
    (replayed,) = late.packets()
    assert rich(replayed)
    member = world.peer("member")
    member.subscribe("$share/g/t2", qos=1)
    world.peer("p").publish("t2", b"x", 1, properties=f"({RICH})")
    assert rich(member.accept()[0])


def test_s28_a_311_client_gets_the_message_without_properties_and_its_own_reach_50(world):
    old, new = world.peer("o", level=4), world.peer("n")
    old.send("82 .. 0001 't' 00")
    old.expect("90 03 0001 00")
    new.subscribe("t")
    new.publish("t", b"x", properties=f"({RICH})")
    old.expect("""30 .. 't' "x" """)
    new.packets()
    old.publish("t", b"y")
    new.expect("""30 .. 't' () "y" """)


@pytest.mark.parametrize("topic", ["'a/+'", "'#'", "'a/#'"])
def test_s28_a_response_topic_with_wildcards_is_a_protocol_error(world, topic):
    watcher = world.peer("w")
    watcher.subscribe("t")
    peer = world.peer()
    peer.send(f"30 .. 't' (08 {topic})")
    peer.ended(0x81, 0x82, 0x90)
    assert watcher.silent()
    link = world.link()
    link.send(f"10 .. 'MQTT' 05 06 0000 () 'c' (08 {topic}) 't' 'p'")
    assert link.is_closed


def test_s28_request_and_response_find_each_other(world):
    asker, server = world.peer("asker"), world.peer("server")
    asker.subscribe("answers/1")
    server.subscribe("questions")
    asker.send("""30 .. 'questions' (08 'answers/1' 09 0003 000102) "?" """)
    (question,) = server.packets()
    topic, data = question.properties[0x08], question.properties[0x09].hex()
    server.send(f"30 .. '{topic}' (09 0003 {data}) \"!\"")
    asker.expect("""30 .. 'answers/1' (09 0003 000102) "!" """)


def test_s29_a_live_message_carries_its_expiry_whole(world):
    watcher = world.peer("w")
    watcher.subscribe("t")
    world.peer("p").publish("t", b"x", properties="(02 0000000a)")
    watcher.expect("""30 .. 't' (02 0000000a) "x" """)


def test_s29_an_expiry_of_0_is_for_those_who_can_take_it_now(world):
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=1)
    peer.cut()
    watcher = world.peer("w")
    watcher.subscribe("t")
    world.peer("p").publish("t", b"x", 1, retain=True, properties="(02 00000000)")
    (seen,) = watcher.packets()
    assert (seen.payload, seen.properties) == (b"x", {0x02: 1})
    assert world.peer("c", clean=False, expiry=1000).accept() == []
    late = world.peer("l")
    late.subscribe("t")
    assert late.packets() == []


def test_s29_a_message_that_waited_offline_says_what_is_left_and_is_dropped_when_nothing_is(world):
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=1)
    peer.cut()
    publisher = world.peer("p")
    publisher.publish("t", b"short", 1, properties="(02 00000005)")
    publisher.publish("t", b"long", 1, properties="(02 00000064)")
    publisher.publish("t", b"eternal", 1)
    world.advance(10)
    peer = world.peer("c", clean=False, expiry=1000)
    (long, eternal) = peer.accept()
    assert (long.payload, long.properties) == (b"long", {0x02: 90})
    assert (eternal.payload, eternal.properties) == (b"eternal", {})


@pytest.mark.parametrize("waited", [4, 5, 6])
def test_s29_at_the_very_second_nothing_or_a_positive_rest_is_sent(world, waited):
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=1)
    peer.cut()
    world.peer("p").publish("t", b"x", 1, properties="(02 00000005)")
    world.now += waited  # no tick swept it
    peer = world.peer("c", clean=False, expiry=1000)
    assert [seen.properties[0x02] for seen in peer.accept()] == ([1] if waited == 4 else [])


def test_s29_retained_messages_expire_and_say_what_is_left(world):
    world.peer("p").publish("t", b"x", retain=True, properties="(02 0000000a)")
    world.advance(4)
    early = world.peer("early")
    early.send("82 .. 0001 () 't' 00")
    early.expect("90 .. 0001 () 00", """31 .. 't' (02 00000006) "x" """)
    world.now += 6  # no tick swept it
    late = world.peer("late")
    late.subscribe("t")
    assert late.silent()
    world.advance(1)
    late.subscribe("#")
    assert late.silent()


def test_s29_a_message_behind_a_full_window_ages_too(world):
    peer = world.peer(receive_maximum=1)
    peer.subscribe("t", qos=1)
    publisher = world.peer("p")
    publisher.publish("t", b"first", 1)
    publisher.publish("t", b"short", 1, properties="(02 00000005)")
    publisher.publish("t", b"long", 1, properties="(02 00000014)")
    (first,) = peer.packets()
    world.advance(8)
    peer.answer(first)
    (seen,) = peer.accept()
    assert (seen.payload, seen.properties) == (b"long", {0x02: 12})


def test_s29_a_message_behind_a_congested_transport_ages_too(world):
    peer = world.peer()
    peer.subscribe("t", qos=1)
    peer.stall()
    publisher = world.peer("p")
    publisher.publish("t", b"short", 1, properties="(02 00000005)")
    publisher.publish("t", b"long", 1, properties="(02 00000014)")
    assert not peer.received()
    world.advance(8)
    peer.resume()
    (seen,) = peer.accept()
    assert (seen.payload, seen.properties) == (b"long", {0x02: 12})


def test_s29_a_will_says_its_expiry_from_the_moment_it_is_published(world):
    watcher = world.peer("w")
    watcher.subscribe("will")
    peer = world.peer("c", expiry=100, will=("will", b"x", 0, False, "18 00000005 02 0000000a"))
    world.advance(50)
    peer.cut()
    world.advance(6)
    watcher.expect("""30 .. 'will' (02 0000000a) "x" """)


def test_s29_what_was_sent_once_is_resent_with_the_rest_or_not_at_all(world):
    peer = world.peer("c", expiry=1000)
    peer.subscribe("t", qos=1)
    world.peer("p").publish("t", b"x", 1, properties="(02 0000000a)")
    (seen,) = peer.packets()
    assert seen.properties[0x02] == 10
    peer.cut()
    world.advance(4)
    peer = world.peer("c", clean=False, expiry=1000)
    (seen,) = peer.packets()
    assert seen.dup
    assert seen.properties[0x02] == 6
    peer.cut()
    world.advance(20)
    peer = world.peer("c", clean=False, expiry=1000)
    assert all(seen.properties.get(0x02, 1) >= 1 for seen in peer.accept())


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_s29_an_expiry_of_0_is_never_said(world, qos):
    absent = world.peer("absent", expiry=100)
    absent.subscribe("t", qos=qos)
    absent.cut()
    peer = world.peer()
    peer.subscribe("t", qos=qos)
    world.peer("p").publish("t", b"x", qos, retain=True, properties="(02 00000000)")
    assert all(seen.properties.get(0x02) != 0 for seen in peer.accept())
    world.now += 1
    assert not world.peer("absent", clean=False, expiry=100).accept()
    late = world.peer("late")
    late.subscribe("t")
    assert late.silent()


@pytest.mark.parametrize("first", ["30", "32", "34"])
@pytest.mark.parametrize("identifier", ["00", "01", "ffffff7f"])
def test_s30_a_subscription_identifier_from_a_client_is_a_protocol_error(world, first, identifier):
    watcher = world.peer("w")
    watcher.subscribe("t")
    peer = world.peer()
    peer.send(f"{first} .. 't' {'' if first == '30' else '0001'} (0b {identifier})")
    peer.ended(0x82)
    assert watcher.silent()


@pytest.mark.parametrize("properties", ["(0b 00)", "(0b 01 0b 02)"])
def test_s30_a_subscription_identifier_of_0_or_two_of_them_is_a_protocol_error(world, properties):
    peer = world.peer()
    peer.send(f"82 .. 0001 {properties} 'a' 00")
    peer.ended(0x82)


@pytest.mark.parametrize(("identifier", "number"), [("01", 1), ("8001", 128), ("ffffff7f", 268_435_455)])
def test_s30_a_subscription_identifier_comes_back_with_each_message(world, identifier, number):
    peer = world.peer()
    peer.send(f"82 .. 0001 (0b {identifier}) 't' 00 'u' 00")
    peer.expect("90 .. 0001 () 00 00")
    peer.send("30 .. 't' ()", "30 .. 'u' (26 'n' 'v')")
    first, second = peer.packets()
    assert first.raw == world.notation.raw(f"30 .. 't' (0b {identifier})")
    assert second.properties == {0x0B: [number], 0x26: [("n", "v")]}


def test_s31_overlapping_subscriptions_get_one_copy_at_the_highest_qos_with_all_identifiers(world):
    peer = world.peer()
    peer.subscribe("a/#", qos=0, identifier=1)
    peer.subscribe("a/b", qos=2, identifier=2)
    peer.subscribe("+/b", qos=1)
    peer.subscribe("a/+", qos=1, identifier=4)
    peer.subscribe("other", qos=2, identifier=5)
    publisher = world.peer("p")
    for qos in (0, 1, 2):
        publisher.publish("a/b", b"x", qos)
        (seen,) = peer.accept()
        assert seen.qos == qos
        assert sorted(seen.properties[0x0B]) == [1, 2, 4]
    publisher.publish("a/c", b"x", 2)
    (seen,) = peer.accept()
    assert seen.qos == 1
    assert sorted(seen.properties[0x0B]) == [1, 4]
    peer.unsubscribe("a/b")
    publisher.publish("a/b", b"x", 2)
    (seen,) = peer.accept()
    assert seen.qos == 1
    assert sorted(seen.properties[0x0B]) == [1, 4]


def test_s31_the_same_identifier_on_two_filters_is_said(world):
    peer = world.peer()
    peer.subscribe("a/#", identifier=7)
    peer.subscribe("a/b", identifier=7)
    world.peer("p").publish("a/b")
    (seen,) = peer.accept()
    assert set(seen.properties[0x0B]) == {7}


@pytest.mark.parametrize("order", [("a/#", "a/b"), ("a/b", "a/#")])
def test_s31_overlapping_subscriptions_of_311_get_one_copy_at_the_highest_qos(world, order):
    peer = world.peer(level=4)
    peer.subscribe(order[0], qos=2)
    peer.subscribe(order[1], qos=0)
    world.peer("p").publish("a/b", b"x", 2)
    (seen,) = peer.packets()
    assert seen.raw == peer.bytes(f"34 .. 'a/b' {seen.packet_id:04x} \"x\"")


def test_s31_overlapping_subscriptions_offline_get_one_copy_with_all_identifiers(world):
    peer = world.peer("c", expiry=100)
    peer.subscribe("a/#", qos=1, identifier=1)
    peer.subscribe("a/b", qos=2, identifier=2)
    peer.cut()
    world.peer("p").publish("a/b", b"x", 2)
    peer = world.peer("c", clean=False, expiry=100)
    (seen,) = peer.accept()
    assert seen.qos == 2
    assert sorted(seen.properties[0x0B]) == [1, 2]


def test_s31_a_no_local_subscription_takes_no_part_in_the_clients_own_messages(world):
    peer = world.peer()
    peer.subscribe("a/#", qos=2, options=0x04, identifier=1)
    peer.subscribe("a/b", qos=1, identifier=2)
    peer.send("34 .. 'a/b' 0009 ()")
    seen = next(one for one in peer.packets() if one.kind == "PUBLISH")
    assert (seen.qos, seen.properties[0x0B]) == (1, [2])


def test_s31_a_retained_message_found_by_two_filters_of_one_subscribe_says_whose_it_is(world):
    world.peer("p").publish("a/b", b"x", retain=True)
    peer = world.peer()
    peer.send("82 .. 0001 (0b 03) 'a/#' 00 'a/b' 00")
    seen = [one for one in peer.packets() if one.kind == "PUBLISH"]
    assert 1 <= len(seen) <= 2
    assert all(one.retain and one.properties[0x0B] == [3] for one in seen)


@pytest.mark.parametrize("qos", [1, 2])
def test_s32_a_client_above_our_receive_maximum_is_ended_with_93(make_world, qos):
    world = make_world(receive_maximum=2)
    peer = world.peer()
    peer.send("34 .. 't' 0001 ()", "34 .. 't' 0002 ()")
    assert len(peer.packets()) == 2
    peer.send(f"{0x30 | qos << 1:02x} .. 't' 0003 ()")
    peer.ended(0x93)


def test_s32_a_client_at_our_receive_maximum_is_not(make_world):
    world = make_world(receive_maximum=2)
    peer = world.peer()
    for turn in range(5):
        peer.send("34 .. 't' 0001 ()", "34 .. 't' 0002 ()", "3c .. 't' 0001 ()", "30 .. 't' ()", "30 .. 't' ()")
        assert [seen.kind for seen in peer.packets()] == ["PUBREC"] * 3, turn
        peer.send("62 02 0001", "62 02 0002")
        assert [seen.kind for seen in peer.packets()] == ["PUBCOMP"] * 2
    peer.send(*(f"32 .. 't' {n:04x} ()" for n in range(1, 20)))
    assert len(peer.packets()) == 19


@pytest.mark.parametrize("qos", [1, 2])
def test_s32_we_never_exceed_the_receive_maximum_of_the_client(world, qos):
    peer = world.peer(receive_maximum=3)
    peer.subscribe("t", qos=qos)
    publisher = world.peer("p")
    for n in range(8):
        publisher.publish("t", b"%d" % n, qos)
    publisher.publish("t", b"free", 0)
    came = peer.packets()
    assert [seen.payload for seen in came if seen.qos] == [b"0", b"1", b"2"]
    peer.inbox = came
    assert [payload for payload in peer.payloads() if payload != b"free"] == [b"%d" % n for n in range(8)]


def test_s32_pubrec_alone_does_not_open_the_window(world):
    peer = world.peer(receive_maximum=1)
    peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    publisher.publish("t", b"1", 2)
    publisher.publish("t", b"2", 2)
    (first,) = peer.packets()
    peer.send(f"50 02 {first.packet_id:04x}")
    peer.expect(f"62 02 {first.packet_id:04x}")
    peer.send(f"70 02 {first.packet_id:04x}")
    (second,) = peer.packets()
    assert second.payload == b"2"


@pytest.mark.parametrize("qos", [1, 2])
def test_s32_a_resumed_session_keeps_to_the_new_receive_maximum(world, qos):
    peer = world.peer("c", expiry=100, receive_maximum=5)
    peer.subscribe("t", qos=qos)
    publisher = world.peer("p")
    for n in range(8):
        publisher.publish("t", b"%d" % n, qos)
    assert len(peer.packets()) == 5
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100, receive_maximum=2)
    assert [(seen.payload, seen.dup) for seen in peer.accept()] == [(b"%d" % n, n < 5) for n in range(8)]


def test_s32_our_own_limit_of_flying_messages_holds_for_311_too(make_world):
    world = make_world(max_in_flight=2)
    for level in (4, 5):
        peer = world.peer("c", level=level)
        peer.subscribe("t", qos=1)
        for n in range(5):
            world.broker.door().publish("t", b"%d" % n, qos=1)
        world.turn()
        came = peer.packets()
        assert [seen.payload for seen in came] == [b"0", b"1"]
        peer.inbox = came
        assert peer.payloads() == [b"%d" % n for n in range(5)]


def test_s33_a_full_window_stops_publish_only(world):
    peer = world.peer(receive_maximum=1)
    peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    publisher.subscribe("somebody")
    publisher.publish("t", b"1", 2)
    publisher.publish("t", b"2", 2)
    (first,) = peer.packets()
    peer.send("c0 00")
    peer.expect("d0 00")
    peer.send("82 .. 0101 () 'u' 01")
    peer.expect("90 .. 0101 () 01")
    peer.send("a2 .. 0102 () 'u'")
    peer.expect("b0 .. 0102 () 00")
    peer.send("32 .. 'somebody' 0001 ()")
    peer.expect("40 02 0001")
    peer.send("34 .. 'somebody' 0002 ()")
    peer.expect("50 02 0002")
    peer.send("62 02 0002")
    peer.expect("70 02 0002")
    peer.send(f"50 02 {first.packet_id:04x}")
    peer.expect(f"62 02 {first.packet_id:04x}")
    publisher.publish("t", b"free", 0)
    assert all(seen.payload == b"free" for seen in peer.packets())
    peer.send(f"70 02 {first.packet_id:04x}")
    assert b"2" in peer.payloads()


def test_s33_the_clients_own_window_being_full_stops_nothing_else_of_it(make_world):
    world = make_world(receive_maximum=1)
    world.peer("w").subscribe("x")
    peer = world.peer()
    peer.subscribe("t", qos=1)
    peer.send("34 .. 'x' 0001 ()")
    peer.expect("50 02 0001")
    world.peer("p").publish("t", b"in", 1)
    (seen,) = peer.packets()
    peer.send(f"40 02 {seen.packet_id:04x}", "c0 00", "82 .. 0009 () 'u' 00", "30 .. 'x' ()")
    assert [one.kind for one in peer.packets()] == ["PINGRESP", "SUBACK"]
    peer.send("62 02 0001")
    peer.expect("70 02 0001")


def test_s33_acknowledgements_go_out_although_the_transport_is_congested(world):
    peer = world.peer()
    peer.subscribe("t", qos=1)
    peer.stall()
    publisher = world.peer("p")
    publisher.publish("t", b"1", 1)
    publisher.publish("t", b"2", 0)
    assert not peer.received()
    peer.send("c0 00", "32 .. 'x' 0001 ()")
    assert [seen.kind for seen in peer.packets()] == ["PINGRESP", "PUBACK"]
    peer.resume()
    assert sorted(peer.payloads()) == [b"1", b"2"]


def test_s34_puback_returns_the_quota_once(world):
    peer = world.peer(receive_maximum=2)
    peer.subscribe("t", qos=1)
    publisher = world.peer("p")
    for n in range(6):
        publisher.publish("t", b"%d" % n, 1)
    first, second = peer.packets()
    peer.send(*[f"40 02 {first.packet_id:04x}"] * 3)
    (third,) = peer.packets()
    assert third.payload == b"2"
    peer.send(f"40 02 {first.packet_id:04x}")
    assert peer.silent()
    peer.send(f"40 02 {second.packet_id:04x}", f"40 02 {third.packet_id:04x}")
    assert [seen.payload for seen in peer.packets()] == [b"3", b"4"]


def test_s34_pubcomp_returns_the_quota_once(world):
    peer = world.peer(receive_maximum=1)
    peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    for n in range(4):
        publisher.publish("t", b"%d" % n, 2)
    (first,) = peer.packets()
    peer.send(f"50 02 {first.packet_id:04x}", f"50 02 {first.packet_id:04x}")
    assert {seen.raw for seen in peer.packets()} == {bytes.fromhex(f"6202{first.packet_id:04x}")}
    peer.send(f"70 02 {first.packet_id:04x}")
    (second,) = peer.packets()
    assert second.payload == b"1"
    peer.send(f"70 02 {first.packet_id:04x}")
    assert [seen for seen in peer.packets() if seen.kind == "PUBLISH"] == []


@pytest.mark.parametrize("code", ["80", "83", "87", "90", "91", "97", "99"])
def test_s34_a_refusing_pubrec_returns_the_quota_and_ends_the_exchange(world, code):
    peer = world.peer(receive_maximum=1, expiry=100)
    peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    for n in range(3):
        publisher.publish("t", b"%d" % n, 2)
    (first,) = peer.packets()
    peer.send(f"50 03 {first.packet_id:04x} {code}")
    (second,) = peer.packets()  # no PUBREL
    assert (second.kind, second.payload, second.dup) == ("PUBLISH", b"1", False)
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100, receive_maximum=1)
    assert peer.payloads() == [b"1", b"2"]


@pytest.mark.parametrize("code", ["80", "87", "97"])
def test_s34_a_refusing_puback_returns_the_quota(world, code):
    peer = world.peer(receive_maximum=1)
    peer.subscribe("t", qos=1)
    publisher = world.peer("p")
    for n in range(2):
        publisher.publish("t", b"%d" % n, 1)
    (first,) = peer.packets()
    peer.send(f"40 03 {first.packet_id:04x} {code}")
    (second,) = peer.packets()
    assert second.payload == b"1"


def test_s34_our_refusing_pubrec_and_puback_return_the_clients_quota(make_world):
    world = make_world(receive_maximum=1)
    world.access.unwritable.add("denied")
    world.peer("w").subscribe("t")
    peer = world.peer()
    for n in range(1, 5):
        peer.send(f"34 .. 'denied' {n:04x} ()")
        peer.expect(f"50 .. {n:04x} 87 (*)")
        peer.send(f"32 .. 'denied' {n:04x} ()")
        peer.expect(f"40 .. {n:04x} 87 (*)")
    peer.send("34 .. 't' 0001 ()")
    peer.expect("50 02 0001")
    peer.send("62 02 0009")  # no exchange: nothing comes back for it
    peer.expect("70 .. 0009 92 (*)")
    peer.send("34 .. 't' 0002 ()")
    peer.ended(0x93)
