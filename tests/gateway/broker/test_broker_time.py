"""What is due by time, in slices; and what the broker says of itself."""

import pytest

from gateway.broker.client import Identity
from gateway.mqtt.reasons import Reason


def slices(world):
    """Do pending work slice by slice; how many there were."""
    count = 1
    while world.broker.more(world.now):
        world.flush()
        count += 1
    world.flush()
    return count


def test_there_is_nothing_to_do_where_nothing_is_due(world):
    assert not world.broker.has_work
    world.peer("c", expiry=100, will=("w", b"x", 0, False, "18 00000064")).cut()
    world.broker.tick(world.now)
    assert slices(world) <= 2
    assert not world.broker.has_work


def test_ten_thousand_ends_in_one_second_are_done_in_slices(world):
    watcher = world.peer("watcher")
    watcher.subscribe("w/#")
    for n in range(300):
        world.peer(f"a{n}", expiry=5, will=(f"w/{n}", b"x", 0, False, "18 00000003")).cut()
        world.peer(f"b{n}", expiry=5).cut()
        world.broker.door().publish(f"r/{n}", b"x", retain=True)
    world.peer("p").publish("r", b"x", 1, retain=True, properties="(02 00000002)")
    assert len(world.broker._sessions) == 602
    world.now += 10
    world.broker.tick(world.now)
    assert 15 <= slices(world) <= 30
    assert len(watcher.packets()) == 300
    assert len(world.broker._sessions) == 2
    assert world.counted("sessions_expired") == 600
    kept = {message.topic for message in world.broker._retained}
    assert "r" not in kept
    assert {f"r/{n}" for n in range(300)} <= kept


def test_a_login_that_expires_ends_the_connection(world):
    peer = world.peer("c", expiry=100)
    other = world.peer("d")
    for client, expires_at in ((peer.client, world.now + 10), (other.client, None)):
        client.identity.expires_at = expires_at
        world.broker._connecting._note_pass(client)
    world.advance(9)
    assert not peer.is_closed
    world.advance(2)
    peer.ended(0xA0)
    assert not other.is_closed
    assert world.peer("c", clean=False).session_present


def test_a_login_expires_by_the_wall_clock_whichever_way_that_is_set(world):
    early, late = world.peer("early"), world.peer("late")
    for peer, lasts_s in ((early, 10), (late, 7200)):
        peer.client.identity.expires_at = world.now + lasts_s
        world.broker._connecting._note_pass(peer.client)
    world.now += 60
    world.broker.tick(world.now, -3600.0)  # it had been an hour fast: the token has most of its time still
    slices(world)
    assert not early.is_closed
    world.broker.tick(world.now, 3600.0)  # it had been an hour slow
    slices(world)
    early.ended(0xA0)
    assert not late.is_closed


def test_a_session_whose_time_is_over_is_over_before_anybody_looked(world):
    peer = world.peer("c", expiry=5)
    peer.subscribe("t", qos=1)
    peer.cut()
    world.now += 6
    assert not world.peer("c", clean=False, expiry=5).session_present


def test_figures_are_said_every_ten_seconds_and_only_to_their_own_name(world):
    world.peer("p").publish("t", b"12345", 1)
    peer = world.peer("root", username="root")
    world.access.admins.add("root")
    peer = world.peer("root", username="root")
    peer.subscribe("$SYS/#", "#")
    assert peer.packets() == []
    world.advance(11)
    said = {seen.topic: seen.payload for seen in peer.packets()}
    assert said["$SYS/broker/publish/messages/received"] == b"1"
    assert said["$SYS/broker/publish/bytes/received"] == b"5"
    assert said["$SYS/broker/clients/connected"] == b"2"
    assert said["$SYS/broker/subscriptions/count"] == b"2"
    world.advance(10)
    again = {seen.topic for seen in peer.packets()}
    assert "$SYS/broker/uptime" in again
    assert "$SYS/broker/version" not in again, "only what has changed"


def test_figures_are_there_at_the_first_tick(world):
    world.access.admins.add("root")
    world.advance(1)
    peer = world.peer("root", username="root")
    peer.subscribe("$SYS/broker/version")
    (seen,) = peer.packets()
    assert seen.payload.startswith(b"headgate version ")
    assert seen.retain


def test_somebody_else_does_not_take_over_a_session_with_what_was_meant_for_another_user(world):
    peer = world.peer("c", expiry=100, username="one")
    peer.subscribe("t", qos=1)
    peer.cut()
    world.peer("p").publish("t", b"secret", 1)
    other = world.peer("c", clean=False, expiry=100, username="two")
    assert not other.session_present
    assert other.packets() == []
    other.cut()
    assert not world.peer("c", clean=False, expiry=100).session_present


@pytest.mark.parametrize(("before", "now", "goes_on"), [("password", "none", False), ("none", "password", True)])
def test_who_only_claims_a_proven_name_does_not_get_its_session(world, before, now, goes_on):
    peer = world.peer("c", expiry=100, username="u")
    session = world.broker._sessions.get("c", world.now)
    peer.cut()
    session.identity.proof = before
    client = world.link(5).client
    identity = Identity("c", "u", proof=now)
    connecting = world.broker._connecting
    from gateway.mqtt.packets import Connect

    connect = Connect(client_id="c", clean_start=False, username="u")
    found, is_resumed = connecting._session(identity, connect, 100, world.now)
    assert (is_resumed, found is session) == (goes_on, goes_on)
    assert client.session is None


def test_a_client_is_sent_away_by_name(world):
    peer = world.peer("c")
    world.broker.disconnect("nobody", Reason.ADMINISTRATIVE_ACTION, world.now)
    world.broker.disconnect("c", Reason.ADMINISTRATIVE_ACTION, world.now)
    world.turn()
    peer.ended(0x98)


def test_assigned_names_are_new_each_time_and_never_somebody_elses(world):
    first = world.peer("").connack.properties[0x12]
    parts = first.rpartition("-")
    taken = f"{parts[0]}-{int(parts[2], 16) + 1:x}"
    world.peer(taken)
    second = world.peer("").connack.properties[0x12]
    assert len({first, taken, second}) == 3


def test_the_broker_says_how_it_stands(world):
    world.peer("c", expiry=10).cut()
    world.peer("d")
    assert repr(world.broker) == "<Broker: 1 clients, 2 sessions>"
