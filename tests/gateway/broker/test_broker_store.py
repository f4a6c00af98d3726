"""Store, acknowledge, deliver: what the core tells the store, in which order, and which bytes wait for it."""

import math

import pytest

LEVELS = pytest.mark.parametrize("level", [4, 5])


class Recorder:
    """Notes operations. Each turn's are one frame, written when the test says so (`lag`) or at once."""

    def __init__(self):
        self.said = []
        self.mark, self.written = 1, 0
        self.failure = ""
        self.lag = False
        self.last = 0
        self.is_dirty = False

    def note(self, *operation):
        self.said.append(operation)
        self.is_dirty = True

    def message(self, message):
        self.last = message.number = self.last + 1
        self.note("message", message.number, message.payload)

    def retain(self, message):
        if not message.number:
            self.last = message.number = self.last + 1
        self.note("retain", message.number, message.topic, message.payload)

    def will(self, number, message, due, delay_s=0):
        if not message.number:
            self.last = message.number = self.last + 1
        self.note("will", number, message.payload, due, delay_s)

    def subscribe(self, number, subscription, identifier):
        self.note("subscribe", number, subscription.filter, subscription.qos, identifier)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: self.note(name, *args)

    def flush(self):
        if self.is_dirty:
            self.is_dirty = False
            self.mark += 1
            if not self.lag:
                self.written = self.mark - 1

    def take(self):
        said, self.said = self.said, []
        return said


@pytest.fixture
def store():
    return Recorder()


@pytest.fixture
def world(make_world, store):
    return make_world(store=store)


def test_nothing_is_stored_for_who_does_not_ask_for_it(world, store):
    peer, publisher = world.peer("c"), world.peer("p", level=4)
    peer.subscribe("t", qos=2)
    for qos in (0, 1, 2):
        publisher.publish("t", b"x", qos)
    peer.accept()
    world.broker.door().publish("t", b"x", qos=1, retain=True)
    world.advance(30)
    peer.leave()
    assert store.take() == []


@LEVELS
def test_a_qos_1_message_for_an_offline_session(world, store, level):
    peer = world.peer("c", level=level, clean=False, expiry=100, username="u")
    expiry = 100 if level == 5 else 0xFFFFFFFF
    assert store.take() == [("session", 1, "c", "u", expiry, None)]
    peer.subscribe("t", qos=1)
    assert store.take() == [("subscribe", 1, "t", 1, None)]
    peer.cut()
    assert store.take() == [("session", 1, "c", "u", expiry, world.now)]
    world.peer("p").publish("t", b"x", 1)
    assert store.take() == [("message", 1, b"x"), ("queue", 1, 1, 1, False, ())]
    peer = world.peer("c", level=level, clean=False, expiry=100, username="u")
    assert store.take() == [("session", 1, "c", "u", expiry, None), ("send", 1, 1, 1)]
    peer.accept()
    assert store.take() == [("done", 1, 1)]
    peer.unsubscribe("t")
    assert store.take() == [("unsubscribe", 1, "t")]
    world.peer("c", level=level, clean=True, username="u")
    assert ("end_session", 1) in store.take()


def test_qos_2_in_both_directions(world, store):
    peer = world.peer("c", expiry=100)
    peer.subscribe("t", qos=2)
    store.take()
    peer.send("""34 .. 't' 0007 () "x" """)
    assert store.take() == [
        ("inbound", 1, 7),
        ("message", 1, b"x"),
        ("queue", 1, 1, 2, False, ()),
        ("send", 1, 1, 1),
    ]
    assert [seen.kind for seen in peer.packets()] == ["PUBREC", "PUBLISH"]
    peer.send("62 02 0007")
    assert store.take() == [("inbound_done", 1, 7)]
    peer.send("50 02 0001")
    assert store.take() == [("received", 1, 1)]
    peer.send("70 02 0001")
    assert store.take() == [("done", 1, 1)]


def test_one_message_is_stored_once_for_all_sessions(world, store):
    for n in range(3):
        peer = world.peer(f"c{n}", expiry=100)
        peer.subscribe("t", qos=1)
        peer.cut()
    store.take()
    world.peer("p").publish("t", b"x", 1, retain=True)
    assert [said[0] for said in store.take()] == ["retain", "queue", "queue", "queue"]


@pytest.mark.parametrize("qos", [1, 2])
def test_publishers_and_subscribers_wait_for_the_store_and_nobody_else(world, store, qos):
    peer, publisher = world.peer("c", expiry=100), world.peer("p")
    quick, other = world.peer("quick"), world.peer("other")
    peer.subscribe("t", qos=2)
    quick.subscribe("t", qos=2)
    store.lag = True
    publisher.send(publisher.published("t", b"x", qos))
    other.publish("t/other", b"y", qos)
    assert publisher.packets() == []
    assert peer.packets() == []
    assert [seen.payload for seen in quick.packets()] == [b"x"]
    store.written = store.mark - 1
    world.written()
    assert [seen.kind for seen in publisher.packets()] == ["PUBACK" if qos == 1 else "PUBREC"]
    assert [seen.payload for seen in peer.packets()] == [b"x"]


def test_pubrel_and_pubcomp_and_suback_and_connack_of_a_session_that_lasts_wait(world, store):
    peer = world.peer("c", expiry=100)
    peer.subscribe("t", qos=2)
    peer.send("""34 .. 't' 0007 () "x" """)
    peer.packets()
    store.lag = True
    for packet, answer in (
        ("62 02 0007", "PUBCOMP"),
        ("50 02 0001", "PUBREL"),
        ("82 .. 0009 () 'u' 00", "SUBACK"),
        ("a2 .. 000a () 'u'", "UNSUBACK"),
    ):
        peer.send(packet)
        assert peer.packets() == []
        store.written = store.mark - 1
        world.written()
        assert [seen.kind for seen in peer.packets()] == [answer]
    late = world.link(5)
    late.send(world.connect_bytes("d", expiry=100))
    assert late.packets() == []
    store.written = store.mark - 1
    world.written()
    assert [seen.kind for seen in late.packets()] == ["CONNACK"]


def test_a_retained_message_waits_for_the_store_also_when_it_is_cleared(world, store):
    publisher = world.peer("p")
    store.lag = True
    for payload, said in ((b"x", ("retain", 1, "t", b"x")), (b"", ("unretain", "t"))):
        publisher.send(publisher.published("t", payload, 1, retain=True))
        assert publisher.packets() == []
        assert store.take() == [said]
        store.written = store.mark - 1
        world.written()
        assert len(publisher.packets()) == 1
    publisher.send(publisher.published("t", b"", 1, retain=True))
    assert len(publisher.packets()) == 1, "there was nothing to clear"


def test_what_the_gateway_retains_takes_the_place_of_what_a_client_had_stored(world, store):
    world.peer("p").publish("t", b"client", 1, retain=True)
    door = world.broker.door()
    door.publish("t", b"gateway", retain=True)
    assert store.take() == [("retain", 1, "t", b"client"), ("unretain", "t")]
    peer = world.peer("c", expiry=100)
    store.take()
    for identifier in (1, 2):
        peer.subscribe("t", qos=1, identifier=identifier)
    assert not any(said[0] in ("message", "retain") for said in store.take()), "QoS 0"
    door.publish("t", b"again", qos=1, retain=True)
    world.turn()
    peer.accept()
    store.take()
    for number in (3, 4):
        peer.subscribe("t", qos=1)
        peer.accept()
        assert ("message", number, b"again") in store.take(), "each delivery stores it anew, for it is not kept"


def test_expired_retained_messages_leave_the_store(world, store):
    world.peer("p").publish("t", b"x", 1, retain=True, properties="(02 00000005)")
    store.take()
    world.advance(10)
    assert store.take() == [("unretain", "t")]


def test_drops_and_expiries_and_refusals_leave_the_store(make_world, store):
    world = make_world(store=store, queue_messages=2)
    peer, publisher = world.peer("c", expiry=100), world.peer("p")
    peer.subscribe("t", qos=1)
    peer.cut()
    store.take()
    for n in range(3):
        publisher.publish("t", b"%d" % n, 1, properties="(02 00000005)" if n == 1 else "()")
    assert [said for said in store.take() if said[0] == "drop"] == [("drop", 1, 1)]
    world.advance(10)
    peer = world.peer("c", clean=False, expiry=100, maximum_packet_size=40)
    publisher.publish("t", b"x" * 100, 1)
    (seen,) = peer.packets()
    peer.send(f"40 03 {seen.packet_id:04x} 97")
    said = [said for said in store.take() if said[0] in ("drop", "send", "done")]
    assert said == [("drop", 1, 2), ("send", 1, 3, 1), ("drop", 1, 4), ("done", 1, 1)]


def test_what_a_smaller_client_cannot_take_again_is_done_with(world, store):
    peer, publisher = world.peer("c", expiry=100), world.peer("p")
    peer.subscribe("t", qos=1)
    publisher.publish("t", b"x" * 100, 1)
    peer.packets()
    peer.cut()
    store.take()
    world.peer("c", clean=False, expiry=100, maximum_packet_size=50)
    assert ("done", 1, 1) in store.take()
    assert world.broker._sessions.get("c", world.now).in_flight == {}


def test_wills_of_sessions_that_last_are_stored_and_forgotten(world, store):
    def wills():
        return [said for said in store.take() if said[0].startswith("will")]

    peer = world.peer("c", expiry=100, will=("w", b"x", 1, False, "18 0000000a 02 00000064"))
    assert wills() == [("will", 1, b"x", math.inf, 10)]
    peer.cut()
    assert wills() == [("will", 1, b"x", world.now + 10, 10)]
    peer = world.peer("c", clean=False, expiry=100, will=("w", b"y"))
    assert wills() == [("will_done", 1), ("will", 1, b"y", math.inf, 0)]
    peer.leave()
    assert wills() == [("will_done", 1)]
    world.peer("c", clean=False, expiry=100, will=("w", b"z")).cut()
    assert wills() == [("will", 1, b"z", math.inf, 0), ("will_done", 1)]
    world.peer("d", will=("w", b"not kept")).cut()
    assert wills() == []


def test_a_changed_expiry_is_stored(world, store):
    peer = world.peer("c", expiry=100)
    peer.send("e0 .. 00 (11 00000007)")
    assert store.take()[-1] == ("session", 1, "c", None, 7, world.now)
    peer = world.peer("c", clean=False, expiry=100)
    store.take()
    peer.send("e0 .. 00 (11 00000000)")
    assert store.take() == [("end_session", 1)]


# A store that fails.


@pytest.fixture
def failing(world, store):
    """A session that lasts, one that does not, and a publisher; then the store fails."""
    lasting, brief = world.peer("lasting", expiry=100), world.peer("brief")
    lasting.subscribe("t/lasting", qos=2)
    brief.subscribe("t/#", qos=2)
    store.failure = "no room on the disk"
    return lasting, brief


def test_what_would_need_the_store_is_refused_with_0x97_and_the_rest_goes_on(world, failing):
    lasting, brief = failing
    publisher = world.peer("p")
    for qos in (1, 2):
        assert publisher.publish("t/lasting", b"no", qos) == 0x97
        assert publisher.publish("t/kept", b"no", qos, retain=True) == 0x97
        assert publisher.publish("t/brief", b"yes", qos) == 0
    publisher.publish("t/lasting", b"yes", 0)
    assert brief.payloads() == [b"yes"] * 3
    assert lasting.payloads() == [b"yes"]
    lasting.send("""34 .. 'u' 0007 () "x" """)
    assert lasting.packets()[0].reason == 0x97


def test_311_is_closed_where_it_has_no_word_for_it(world, failing):
    for topic, retain in (("t/lasting", False), ("u", True)):
        publisher = world.peer("p", level=4)
        publisher.send(publisher.published(topic, b"no", 1, retain=retain))
        publisher.ended()
    publisher = world.peer("p", level=4)
    assert publisher.publish("t/brief", b"yes", 1) == 0


def test_no_session_and_no_subscription_that_lasts_is_begun(world, failing):
    lasting, _ = failing
    assert lasting.subscribe("new", qos=1) == (0x97,)
    for level, said in ((5, "20 .. 00 97 (*)"), (4, "20 02 00 03")):
        link = world.link(level)
        link.send(world.connect_bytes("new", level, clean=False, expiry=10))
        assert link.is_closed
        link.expect(said)
    assert world.peer("new").subscribe("new", qos=1) == (1,)


def test_a_session_that_is_there_goes_on_while_the_store_fails(world, failing):
    lasting, _ = failing
    lasting.cut()
    again = world.link(5)
    again.send(world.connect_bytes("lasting", 5, clean=False, expiry=100))
    again.expect("20 .. 01 00 (*)")
    back = world.peer("lasting", clean=False, expiry=100)
    assert back.subscribe("t/lasting", qos=2) == (2,)
    world.peer("p").publish("t/lasting", b"still", 0)
    assert back.payloads() == [b"still"]
    link = world.link(5)
    link.send(world.connect_bytes("lasting", 5, clean=True, expiry=100))
    link.expect("20 .. 00 97 (*)")


def test_exchanges_under_way_finish_while_the_store_fails(world, store):
    peer, publisher = world.peer("c", expiry=100), world.peer("p")
    peer.subscribe("t", qos=2)
    publisher.publish("t", b"x", 2)
    peer.send("""34 .. 'u' 0007 () "x" """)
    seen = peer.take("PUBLISH")
    peer.take("PUBREC")
    store.failure, store.mark = "no room", 0
    peer.answer(seen)
    peer.send("62 02 0007")
    assert peer.take("PUBCOMP").reason == 0
