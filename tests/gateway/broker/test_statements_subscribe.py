"""Statements 40 to 48: SUBSCRIBE, UNSUBSCRIBE, and which filter matches which topic."""

import unicodedata

import pytest


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("data", ["82 .. 0001 ()", "a2 .. 0001 ()", "82 00", "a2 00", "82 01 00"])
def test_s40_an_empty_list_of_filters_is_malformed(world, level, data):
    peer = world.peer(level=level)
    peer.send(data)
    peer.ended(0x81, 0x82)


@pytest.mark.parametrize(
    ("level", "options"),
    [(5, o) for o in ("03", "30", "33", "40", "80", "c0", "ff")]
    + [(4, o) for o in ("03", "04", "08", "10", "20", "40", "80", "ff")],
)
@pytest.mark.parametrize("place", ["'a' OO", "'a' 00 'b' OO", "'a' OO 'b' 00"])
def test_s40_reserved_option_bits_qos_3_and_retain_handling_3_are_malformed(world, level, options, place):
    peer = world.peer(level=level)
    peer.send("82 .. 0001 () " + place.replace("OO", options))
    peer.ended(0x81, 0x82)
    world.peer("p").publish("a")
    assert not peer.received()


@pytest.mark.parametrize("data", ["82 .. 0001 () 'a'", "82 .. 0001 () 'a' 00 'b'", "82 .. 0001 () 0005 61 00"])
def test_s40_a_filter_without_options_or_cut_short_is_malformed(world, data):
    for level in (4, 5):
        peer = world.peer(level=level)
        peer.send(data)
        peer.ended(0x81)


def test_s41_no_local_spares_the_client_its_own_messages_only(world):
    peer, other = world.peer("c"), world.peer("o")
    peer.subscribe("t", options=0x04)
    other.subscribe("t", options=0x04)
    peer.publish("t", b"mine")
    assert peer.silent()
    other.expect("""30 .. 't' () "mine" """)
    other.publish("t", b"yours")
    peer.expect("""30 .. 't' () "yours" """)
    assert other.silent()


def test_s41_no_local_is_judged_by_client_id_not_by_connection(world):
    peer = world.peer("c", expiry=100, will=("t", b"my will", 1))
    peer.subscribe("t", qos=1, options=0x04)
    peer.publish("t", b"before", 1)
    peer.cut()  # its will is its own message as well
    world.peer("o").publish("t", b"theirs", 1)
    peer = world.peer("c", clean=False, expiry=100)
    assert peer.payloads() == [b"theirs"]
    peer.publish("t", b"after", 1)
    assert peer.silent()


def test_s41_a_retained_message_of_the_clients_own_is_not_replayed_to_it(world):
    peer = world.peer("c")
    peer.publish("t", b"mine", retain=True)
    assert peer.subscribe("t", options=0x04) == (0,)
    assert peer.silent()
    peer.subscribe("t")
    peer.expect("""31 .. 't' () "mine" """)
    other = world.peer("o")
    other.subscribe("t", options=0x04)
    other.expect("""31 .. 't' () "mine" """)


def test_s41_two_anonymous_names_are_not_one_client(world):
    one, two = world.peer(""), world.peer("")
    one.subscribe("t", options=0x04)
    two.publish("t", b"x")
    one.expect("""30 .. 't' () "x" """)


@pytest.mark.parametrize("options", ["04", "05", "06", "0c"])
def test_s41_no_local_on_a_shared_subscription_is_a_protocol_error(world, options):
    peer = world.peer()
    peer.send(f"82 .. 0001 () 'a' 00 '$share/g/t' {options}")
    peer.ended(0x82)


def test_s42_the_same_filter_again_replaces_the_options_and_is_no_second_subscription(world):
    peer = world.peer()
    publisher = world.peer("p")
    for options, identifier, first in (
        (0x02, 1, 0x34),
        (0x01, None, 0x32),
        (0x08, 2, 0x31),
        (0x00, 3, 0x30),
        (0x0A, 268_435_455, 0x35),
    ):
        assert peer.subscribe("t", qos=options & 3, options=options & 0x0C, identifier=identifier) == (options & 3,)
        for seen in peer.accept():
            assert seen.retain  # the replay
        publisher.publish("t", b"x", 2, retain=True)
        (seen,) = peer.accept()
        assert seen.raw[0] == first
        assert seen.properties.get(0x0B) == ([identifier] if identifier else None)
    peer.subscribe("t", options=0x04)
    peer.accept()
    peer.publish("t", b"mine")
    assert peer.silent()
    assert peer.unsubscribe("t") == (0x00,)
    publisher.publish("t", b"x", 2)
    assert peer.silent()


@pytest.mark.parametrize("level", [4, 5])
def test_s42_the_same_filter_twice_in_one_packet_counts_once_with_the_last_options(world, level):
    peer = world.peer(level=level)
    peer.send("82 .. 0001 () 't' 00 't' 01")
    peer.expect("90 .. 0001 () 00 01")
    world.peer("p").publish("t", b"x", 2)
    assert [seen.qos for seen in peer.accept()] == [1]


def test_s42_the_same_shared_filter_again_replaces_the_options_too(world):
    peer = world.peer()
    peer.subscribe("$share/g/t", qos=0, identifier=1)
    peer.subscribe("$share/g/t", qos=2, identifier=2)
    world.peer("p").publish("t", b"x", 2)
    (seen,) = peer.accept()
    assert (seen.qos, seen.properties) == (2, {0x0B: [2]})


def test_s43_there_is_one_code_for_each_filter_in_the_same_order_and_a_bad_one_does_not_undo_the_rest(make_world):
    world = make_world(subscriptions=4)
    world.access.unsubscribable.add("denied")
    peer = world.peer()
    peer.send("82 .. 0001 () 'a' 02 'b#' 01 'denied' 01 'c' 01 '$share//x' 00 'd' 00 'e' 00 'f' 00")
    (seen,) = peer.packets()
    assert seen.raw[0] == 0x90
    assert seen.packet_id == 1
    assert seen.reasons == (0x02, 0x8F, 0x87, 0x01, 0x8F, 0x00, 0x00, 0x97)
    publisher = world.peer("p")
    for topic in "abcdef":
        publisher.publish(topic, b"x", 2)
    assert [(one.topic, one.qos) for one in peer.accept()] == [("a", 2), ("c", 1), ("d", 0), ("e", 0)]


def test_s43_311_says_80_for_every_refusal(make_world):
    world = make_world(subscriptions=2)
    world.access.unsubscribable.add("denied")
    peer = world.peer(level=4)
    peer.send("82 .. 0001 'a' 02 'b#' 01 'denied' 01 'c' 01 'd' 00")
    peer.expect("90 .. 0001 02 80 80 01 80")


def test_s43_a_filter_of_more_levels_than_allowed_is_refused_and_only_a_hash_reaches_deeper_topics(make_world):
    peer = make_world(topic_levels=3).peer()
    assert peer.subscribe("a/b/c", "a/b/c/d", "a/b/+/+", "a/#") == (0, 0x8F, 0x8F, 0)
    peer.world.peer("p").publish("a/b/c/d/e", b"deep")
    peer.world.peer("q").publish("a/b/c", b"flat")
    assert sorted(peer.payloads()) == [b"deep", b"flat"]


def test_s43_a_full_session_may_still_change_a_subscription_it_has(make_world):
    world = make_world(subscriptions=2)
    peer = world.peer()
    assert peer.subscribe("a", "b") == (0, 0)
    assert peer.subscribe("c", "a", qos=1) == (0x97, 1)
    peer.unsubscribe("b")
    assert peer.subscribe("c", qos=1) == (1,)


def test_s43_a_refused_change_leaves_the_old_subscription_alone(world):
    peer = world.peer()
    peer.subscribe("t", qos=1)
    world.access.unsubscribable.add("t")
    world.access.generation += 1
    assert peer.subscribe("t", qos=0) == (0x87,)
    world.peer("p").publish("t", b"x", 1)
    assert all(seen.qos == 1 for seen in peer.accept())


def test_s43_suback_comes_before_the_retained_messages_and_carries_no_surprise(world):
    world.peer("p").publish("t", b"x", retain=True)
    peer = world.peer()
    peer.send("82 .. 1234 () 't' 00")
    peer.expect("90 .. 1234 () 00", """31 .. 't' () "x" """)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_s44_delivery_is_at_the_minimum_of_published_and_granted(world, level, published, granted):
    live = world.peer("live", level=level)
    assert live.subscribe("t", "will", qos=granted) == (granted, granted)
    world.peer("p", will=("will", b"x", published, True), level=level).publish("t", b"x", published, retain=True)
    world.peer("p", level=level).leave()  # takeover: the will goes out
    lowest = min(published, granted)
    assert [(seen.topic, seen.qos) for seen in live.accept()] == [("t", lowest), ("will", lowest)]
    late = world.peer("late", level=level)
    late.subscribe("t", "will", qos=granted)
    assert sorted((seen.topic, seen.qos) for seen in late.accept()) == [("t", lowest), ("will", lowest)]


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_s44_an_offline_session_gets_the_minimum_too(world, granted):
    peer = world.peer("c", expiry=100)
    peer.subscribe("t", qos=granted)
    peer.cut()
    world.peer("p").publish("t", b"x", 2)
    peer = world.peer("c", clean=False, expiry=100)
    assert [seen.qos for seen in peer.accept()] in ([[granted]] if granted else [[], [0]])


def test_s44_the_original_qos_stays_with_the_message_for_other_subscribers(world):
    zero, two = world.peer("0"), world.peer("2")
    zero.subscribe("t", qos=0)
    two.subscribe("t", qos=2)
    world.peer("p").publish("t", b"x", 2)
    zero.expect("""30 .. 't' () "x" """)
    assert [seen.qos for seen in two.accept()] == [2]


def test_s45_unsubscribe_is_literal_and_answers_11_where_there_is_none(world):
    peer = world.peer()
    peer.subscribe("a/+", "a/b")
    peer.send("a2 .. 0007 () 'a/#' 'a/b' 'a/c' '+/b' 'a/+/' 'A/+' 'a/b'")
    peer.expect("b0 .. 0007 () 11 00 11 11 11 11 11")
    publisher = world.peer("p")
    publisher.publish("a/b", b"x")
    peer.expect("""30 .. 'a/b' () "x" """)  # by a/+
    peer.send("a2 .. 0008 () 'a/+'")
    peer.expect("b0 .. 0008 () 00")
    publisher.publish("a/b", b"x")
    assert peer.silent()


def test_s45_unsubscribe_of_311_is_answered_whatever_there_was(world):
    peer = world.peer(level=4)
    peer.subscribe("a")
    peer.send("a2 .. 0007 'a' 'none'", "a2 .. 0008 'none'")
    peer.expect("b0 02 0007", "b0 02 0008")
    world.peer("p").publish("a")
    assert peer.silent()


@pytest.mark.parametrize("filter_", ["a#", "$share//x", "a/+b"])
def test_s45_unsubscribe_of_what_can_be_no_filter_is_answered(world, filter_):
    peer = world.peer()
    peer.send(f"a2 .. 0007 () '{filter_}' 'none'")
    (seen,) = peer.packets()
    assert seen.kind == "UNSUBACK"
    assert seen.reasons[0] in (0x11, 0x8F)
    assert seen.reasons[1] == 0x11


def test_s45_a_shared_subscription_is_unsubscribed_under_its_whole_name(world):
    peer = world.peer()
    peer.subscribe("$share/g/t", "t")
    assert peer.unsubscribe("$share/h/t") == (0x11,)
    assert peer.unsubscribe("t") == (0x00,)
    publisher = world.peer("p")
    publisher.publish("t", b"x")
    assert len(peer.packets()) == 1
    assert peer.unsubscribe("$share/g/t") == (0x00,)
    publisher.publish("t", b"x")
    assert peer.silent()


def test_s45_messages_in_flight_still_finish(world):
    peer = world.peer("c", expiry=100)
    peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    publisher.publish("t", b"1", 1)
    publisher.publish("t", b"2", 2)
    one, two = peer.packets()
    peer.send(f"50 02 {two.packet_id:04x}")
    peer.take("PUBREL")
    peer.unsubscribe("t")
    peer.cut()
    peer = world.peer("c", clean=False, expiry=100)
    peer.expect(f"3a .. 't' {one.packet_id:04x} () \"1\"", f"62 02 {two.packet_id:04x}")
    peer.send(f"40 02 {one.packet_id:04x}", f"70 02 {two.packet_id:04x}")
    peer.cut()
    assert world.peer("c", clean=False, expiry=100).silent()


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(
    "filter_",
    ["a#", "a/#/b", "#/a", "##", "#/", "/#/", "a+", "+a", "a/+b", "a/b+/c", "++", "+#", "a/##", "$share/g/a#", "a/#b"],
)
def test_s46_a_wildcard_that_is_not_a_whole_level_or_not_the_last_is_invalid(world, level, filter_):
    peer = world.peer(level=level)
    peer.send(f"82 .. 0001 () '{filter_}' 00 'good' 00")
    peer.expect(f"90 .. 0001 () {'8f' if level == 5 else '80'} 00")


@pytest.mark.parametrize("level", [4, 5])
def test_s46_an_empty_filter_is_refused(world, level):
    peer = world.peer(level=level)
    peer.send("82 .. 0001 () '' 00")
    if peer.is_closed:
        peer.ended(0x81, 0x82, 0x8F)
    else:
        assert peer.take("SUBACK").reasons in ((0x8F,), (0x80,))


@pytest.mark.parametrize(
    ("filter_", "matching", "others"),
    [
        ("a/#", ["a", "a/", "a/b", "a/b/c", "a//"], ["", "b", "/a", "ab", "A", "aa/b"]),
        ("#", ["a", "/", "a/b", "//"], ["$SYSx", "$x/a"]),
        ("+", ["a", " "], ["/", "a/", "/a", "a/b", "$x"]),
        ("+/+", ["/x", "x/", "/", "a/b"], ["a", "a/b/c", "//", "$x/b"]),
        ("/+", ["/x", "/"], ["x", "x/", "//x"]),
        ("/", ["/"], ["//", "a/", "/a"]),
        ("a/+/c", ["a/b/c", "a//c"], ["a/c", "a/b/b/c", "a/b/c/", "a/b"]),
        ("a/+", ["a/", "a/b"], ["a", "a/b/c"]),
        ("+/#", ["a", "a/b", "/", "/x"], ["$x/a"]),
        ("a//b", ["a//b"], ["a/b", "a///b"]),
        ("/#", ["/", "/a", "/a/b", "//"], ["a", "a/b"]),
        ("+/a/#", ["/a", "x/a", "x/a/b"], ["a", "x", "$x/a/b"]),
        ("a b/c", ["a b/c"], ["a b/c ", "ab/c"]),
    ],
)
@pytest.mark.parametrize("way", ["live", "retained", "shared"])
def test_s46_which_filter_matches_which_topic(world, filter_, matching, others, way):
    peer, publisher = world.peer(), world.peer("p")
    others = [topic for topic in others if topic and not topic.startswith("$SYS")]
    if way == "retained":
        for topic in matching + others:
            publisher.publish(topic, b"x", retain=True)
    peer.subscribe(f"$share/g/{filter_}" if way == "shared" else filter_)
    if way != "retained":
        for topic in matching + others:
            publisher.publish(topic, b"x")
    assert sorted(seen.topic for seen in peer.accept()) == sorted(matching)


def statistics(world, username):
    peer = world.peer("reader", username=username)
    answer = peer.subscribe("$SYS/#")
    world.advance(25)
    return answer, [seen.topic for seen in peer.accept()]


def test_s47_sys_is_there_for_administrators_and_only_under_its_own_name(world):
    world.access.admins.add("root")
    everything = world.peer("every", username="root")
    everything.subscribe("#", "+/#", "+/broker/uptime", "$share/g/#", "$share/g/+/broker/version")
    _, topics = statistics(world, "root")
    assert topics
    assert all(topic.startswith("$SYS/broker/") for topic in topics)
    assert everything.silent(), "live"
    everything.subscribe("#", "+/broker/uptime")
    assert everything.silent(), "retained"


def test_s47_sys_is_not_for_everybody(world):
    answer, topics = statistics(world, "somebody")
    assert answer in ((0,), (0x87,))
    assert not topics


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("retain", [False, True])
def test_s47_clients_cannot_publish_to_sys(world, level, retain):
    world.access.admins.add("root")
    reader = world.peer("reader", username="root")
    reader.subscribe("$SYS/#", "$SYS/broker/version", "#", qos=1)
    reader.accept()
    watched = world.peer("w", username="root")
    for qos in (0, 1, 2):
        link = world.link(level)
        link.send(world.connect_bytes("c", level, will=("$SYS/broker/version", b"forged", qos, retain)))
        link.cut()
        peer = world.peer("c", level=level, username="root")
        peer.send(peer.published("$SYS/broker/version", b"forged", qos, retain=retain))
        answers = peer.packets()
        if level == 5 and qos and not peer.is_closed:
            assert [seen.reason for seen in answers] == [0x87]
        peer.cut()
    assert all(seen.payload != b"forged" for seen in reader.accept())
    watched.subscribe("$SYS/#")
    assert all(seen.payload != b"forged" for seen in watched.accept())


@pytest.mark.parametrize("level", [4, 5])
def test_s47_other_topics_with_a_dollar_are_reached_by_their_own_name_only(world, level):
    peer, publisher = world.peer(level=level), world.peer("p")
    peer.subscribe("#", "+/x", "+/#", "$share/g/#", "$share/g/+/x")
    publisher.publish("$own/x", b"live", retain=True)
    assert peer.silent()
    peer.subscribe("#", "+/x")
    assert peer.silent()
    peer.subscribe("$own/#", "$share/g/$own/+")
    assert [(seen.payload, seen.retain) for seen in peer.accept()] == [(b"live", True)]
    publisher.publish("$own/x", b"again")
    assert len(peer.accept()) == 2
    publisher.publish("a/$x", b"inside a topic it is a letter")
    assert len(peer.accept()) == 2  # by # or +/#, and shared


@pytest.mark.parametrize("level", [4, 5])
def test_s48_topics_of_65535_bytes_work(world, level):
    topic = "a/" + "x" * 65_533
    peer, publisher = world.peer(level=level), world.peer("p", level=level)
    assert peer.subscribe(topic, qos=1) == (1,)
    publisher.publish(topic, b"live", 1, retain=True)
    assert [(seen.topic, seen.payload) for seen in peer.accept()] == [(topic, b"live")]
    assert peer.subscribe("a/+") == (0,)
    assert [(seen.topic, seen.payload) for seen in peer.accept()] == [(topic, b"live")]
    wide = "ü€" * 13_107  # 65,535 bytes, fewer characters
    assert len(wide.encode()) == 65_535
    peer.subscribe(wide)
    publisher.publish(wide, b"wide")
    assert [seen.topic for seen in peer.accept()] == [wide]


def test_s48_there_is_no_case_folding_and_no_normalisation(world):
    composed, apart = unicodedata.normalize("NFC", "ä/é"), unicodedata.normalize("NFD", "ä/é")
    assert composed != apart
    peer, publisher = world.peer(), world.peer("p")
    peer.subscribe("Topic/A", composed, "\u017f", "\ufb01")
    for topic in ("topic/a", "TOPIC/A", "Topic/a", "Topic/A/", "/Topic/A", apart, "s", "S", "fi"):
        publisher.publish(topic, b"x", retain=True)
    assert peer.silent()
    for topic in ("Topic/A", composed, "\u017f", "\ufb01"):
        publisher.publish(topic, b"x")
    assert [seen.topic for seen in peer.packets()] == ["Topic/A", composed, "\u017f", "\ufb01"]
