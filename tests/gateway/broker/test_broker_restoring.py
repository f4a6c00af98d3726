"""The start: what a store found is put back, as far as the limits of now allow."""

import math

import pytest

from gateway.broker.client import Identity
from gateway.broker.message import Message
from gateway.broker.recovery import State, StoredFlight, StoredMessage, StoredSession, StoredWill
from gateway.mqtt.packets import Subscription
from gateway.mqtt.properties import NONE, Properties


class Silent:
    """A store that only counts what it is told."""

    mark = written = 0
    failure = ""

    def __init__(self):
        self.said = []

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: self.said.append((name, *args))


@pytest.fixture
def store():
    return Silent()


@pytest.fixture
def restored(make_world, store):
    """`restored(state, **limits)`: a world that has begun with that state."""

    def make(state, **limits):
        world = make_world(store=store, **limits)
        world.broker.restore(state, world.now)
        return world

    return make


NOW = 1_795_330_000.0
_numbers = iter(range(1, 1_000_000))


def message(topic, payload, qos=1, expires_at=None, properties=NONE):
    return Message(topic, payload, qos, False, properties, expires_at, Identity("p"), next(_numbers))


def stored(name="c", number=1, **more):
    return StoredSession(
        **{"number": number, "client_id": name, "username": None, "expiry_s": 100, "offline_since": NOW} | more
    )


def test_everything_in_flight_is_repeated_and_what_waited_follows(restored):
    flights = [
        StoredFlight(9, StoredMessage(message("t", b"1"), 1, True, (5,))),
        StoredFlight(4, None),
        StoredFlight(11, StoredMessage(message("t", b"2", 2), 2, False)),
    ]
    queue = [StoredMessage(message("t", b"%d" % n), 1, False) for n in (3, 4)]
    world = restored(State([stored(in_flight=flights, queue=queue, inbound=[7])]))
    peer = world.peer("c", clean=False, expiry=100)
    assert peer.session_present
    seen = peer.packets()
    assert [(one.kind, one.packet_id) for one in seen] == [
        ("PUBLISH", 9),
        ("PUBREL", 4),
        ("PUBLISH", 11),
        ("PUBLISH", 12),
        ("PUBLISH", 13),
    ]
    assert [one.dup for one in seen if one.kind == "PUBLISH"] == [True, True, False, False]
    assert (seen[0].retain, seen[0].properties) == (True, {0x0B: [5]})
    peer.send("""3c .. 't' 0007 () "again" """)
    assert peer.packets()[0].reason == 0, "it is known, and not published anew"


def test_new_numbers_are_higher_than_all_that_were_there(restored, store):
    world = restored(State([stored("a", 17), stored("b", 3)]))
    store.said.clear()
    world.peer("new", expiry=10)
    assert store.said[0][:3] == ("session", 18, "new")


def test_sessions_that_were_connected_have_lost_their_connection_now(restored, store):
    world = restored(State([stored(offline_since=None)]))
    assert ("session", 1, "c", None, 100, NOW) in store.said
    world.advance(99)
    assert len(world.broker._sessions) == 1
    world.advance(2)
    assert len(world.broker._sessions) == 0


def test_a_clock_that_was_set_back_does_not_keep_a_session_for_longer(restored):
    world = restored(State([stored(offline_since=NOW + 1_000_000)]))
    world.advance(101)
    assert len(world.broker._sessions) == 0


def test_a_session_that_was_to_end_with_its_connection_ends(restored, store):
    world = restored(State([stored(expiry_s=0, offline_since=None)]))
    world.advance(1)
    assert ("end_session", 1) in store.said


def test_what_smaller_limits_have_no_room_for_is_dropped_there_too(restored, store):
    queue = [StoredMessage(message("t", b"%d" % n), 1, False) for n in range(10)]
    sessions = [stored(f"s{n}", n, offline_since=NOW - n) for n in range(1, 6)]
    retained = [message(f"r/{n}", b"x") for n in range(5)]
    deep = {"a/b/c/d": (Subscription("a/b/c/d", 1), None), "a": (Subscription("a", 1), None)}
    state = State([*sessions, stored("c", 9, queue=queue, subscriptions=deep)], retained)
    world = restored(state, queue_messages=4, sessions=3, retained_messages=2, topic_levels=3)
    assert len([said for said in store.said if said[0] == "drop"]) == 6
    assert sorted(said[1] for said in store.said if said[0] == "end_session") == [3, 4, 5], "the longest offline"
    assert len([said for said in store.said if said[0] == "unretain"]) == 3
    assert ("unsubscribe", 9, "a/b/c/d") in store.said
    peer = world.peer("c", clean=False, expiry=100)
    assert peer.payloads() == [b"6", b"7", b"8", b"9"]
    world.peer("p").publish("a", b"x", 1)
    assert peer.payloads() == [b"x"]


def test_a_shorter_maximum_of_expiry_holds_for_those_who_are_there(restored):
    world = restored(State([stored(expiry_s=0xFFFFFFFF)]), session_expiry_maximum_s=50)
    world.advance(51)
    assert len(world.broker._sessions) == 0


def test_retained_messages_are_there_and_expired_ones_are_not(restored, store):
    state = State([], [message("a", b"x"), message("b", b"y", expires_at=NOW - 1)])
    world = restored(state)
    peer = world.peer("c")
    peer.subscribe("#")
    assert [seen.payload for seen in peer.packets()] == [b"x"]
    assert ("unretain", "b") in store.said


@pytest.mark.parametrize(("due", "delay", "at"), [(math.inf, 0, 1), (math.inf, 30, 30), (NOW + 20, 30, 20)])
def test_a_will_is_published_when_it_is_due(restored, store, due, delay, at):
    will = StoredWill(message("w", b"gone", properties=Properties(message_expiry=60)), due, delay)
    world = restored(State([stored(will=will, offline_since=None if due == math.inf else NOW)]))
    watcher = world.peer("watcher")
    watcher.subscribe("w", qos=1)
    if at > 1:
        world.advance(at - 1)
        assert watcher.packets() == []
        world.advance(1)
    else:
        world.advance(1)
    (seen,) = watcher.accept()
    assert (seen.payload, seen.properties) == (b"gone", {2: 60})
    assert ("will_done", 1) in store.said


def test_members_of_a_shared_subscription_are_away_until_they_come(restored):
    shared = {"$share/g/t": (Subscription("$share/g/t", 1), None)}
    world = restored(State([stored("away", subscriptions=shared)]))
    here, publisher = world.peer("here"), world.peer("p")
    here.subscribe("$share/g/t", qos=1)
    for _ in range(4):
        publisher.publish("t", b"x", 1)
    assert len(here.accept()) == 4
    away = world.peer("away", clean=False, expiry=100)
    for _ in range(4):
        publisher.publish("t", b"x", 1)
    assert (len(here.accept()), len(away.accept())) == (2, 2)
