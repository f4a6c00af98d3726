"""Routes: worked out once for each topic, and again when something has changed."""

import pytest

from gateway.broker import routing
from gateway.broker.client import Identity
from gateway.broker.message import Message
from gateway.broker.routing import DENIED, Ear, Routes
from gateway.broker.session import Entry, Session
from gateway.broker.topics import Trie, parse_filter
from gateway.mqtt.packets import Subscription


class Access:
    """Counts what it is asked."""

    def __init__(self):
        self.generation = 0
        self.methods = {}
        self.asked = []
        self.no = set()

    def may_publish(self, who, topic):
        self.asked.append(("publish", who.client_id, topic))
        return ("publish", who.client_id) not in self.no

    def may_read(self, who, topic):
        self.asked.append(("read", who.client_id, topic))
        return ("read", who.client_id) not in self.no

    def reads(self):
        return [who for what, who, _ in self.asked if what == "read"]


@pytest.fixture
def access():
    return Access()


@pytest.fixture
def trie():
    return Trie()


@pytest.fixture
def routes(trie, access):
    return Routes(trie, access)


def subscribe(trie, session, text, identifier=None, **options):
    parsed = parse_filter(text)
    trie.add(parsed, session, Entry(parsed, Subscription(text, **options), identifier, session))


def session(name):
    return Session(name, Identity(name), 0)


def test_overlapping_subscriptions_are_one_copy_at_the_highest_qos_with_all_identifiers(trie, routes):
    one = session("one")
    subscribe(trie, one, "a/+", 3, qos=1)
    subscribe(trie, one, "a/#", None, qos=0, retain_as_published=True)
    subscribe(trie, one, "#", 9, qos=2)
    ((target, qos, identifiers, as_published),) = routes.find("a/b").targets
    assert (target, qos, sorted(identifiers), as_published) == (one, 2, [3, 9], True)


def test_a_route_is_worked_out_again_only_when_a_subscription_has_changed(trie, routes, access):
    one, two = session("one"), session("two")
    subscribe(trie, one, "a")
    first = routes.find("a")
    assert routes.find("a") is first
    assert access.reads() == ["one"]
    subscribe(trie, two, "a")
    assert [target[0] for target in routes.find("a").targets] == [one, two]
    assert access.reads() == ["one", "two"], "whoever was on the route is not asked about again"
    trie.remove(parse_filter("a"), one)
    assert [target[0] for target in routes.find("a").targets] == [two]


def test_who_may_not_read_is_not_on_the_route_and_is_when_the_rules_allow_it(trie, routes, access):
    one = session("one")
    access.no.add(("read", "one"))
    subscribe(trie, one, "#")
    assert not routes.find("a").is_wanted
    access.no.clear()
    access.generation += 1
    assert routes.find("a").is_wanted


def test_a_publisher_is_judged_once_for_each_topic(trie, routes, access):
    good, bad = Identity("good"), Identity("bad")
    access.no.add(("publish", "bad"))
    subscribe(trie, session("one"), "a")
    route = routes.find("a")
    assert routes.admit(route, good) is route.targets
    assert routes.admit(route, bad) is DENIED
    assert (route.admitted[good], route.admitted[bad]) == (route.targets, DENIED)


def test_nobody_but_the_gateway_publishes_below_sys(trie, routes):
    for topic, is_denied in (("$SYS", True), ("$SYS/x", True), ("$SYSTEM", False), ("a/$SYS", False)):
        route = routes.find(topic)
        assert (routes.admit(route, Identity("root", is_admin=True)) is DENIED) is is_denied
        assert routes.admit(route, Identity("", is_gateway=True)) is not DENIED


def test_no_local_takes_a_client_off_its_own_messages_and_off_no_others(trie, routes):
    one, two = session("one"), session("two")
    subscribe(trie, one, "#", 1, qos=2, no_local=True)
    subscribe(trie, one, "a", 2, qos=1)
    subscribe(trie, two, "a", no_local=True)
    route = routes.find("a")
    assert {(t[0].client_id, t[1], t[2]) for t in routes.admit(route, Identity("one"))} == {
        ("one", 1, (2,)),
        ("two", 0, ()),
    }
    assert {(t[0].client_id, t[1]) for t in routes.admit(route, Identity("two"))} == {("one", 2)}
    assert routes.admit(route, Identity("two", is_gateway=True)) is route.targets
    assert {t[0].client_id for t in routes.admit(routes.find("b"), Identity("one"))} == set()


def test_routes_are_bounded_by_count_targets_and_length(trie, routes, monkeypatch):
    monkeypatch.setattr(routing, "ROUTES", 50)
    for n in range(500):
        routes.find(f"t/{n}")
        assert len(routes.known) <= 50
    long = "x" * 2_000
    assert routes.find(long).topic == long
    assert long not in routes.known
    monkeypatch.setattr(routing, "TARGETS", 100)
    for n in range(10):
        subscribe(trie, session(f"s{n}"), "many/+")
    for n in range(50):
        routes.find(f"many/{n}")
        assert sum(len(route.targets) for route in routes.known.values()) <= 120


def test_routes_that_no_longer_hold_and_publishers_that_have_gone_are_let_go(trie, routes):
    one = session("one")
    subscribe(trie, one, "a")
    routes.admit(routes.find("a"), Identity("p"))
    routes.find("b")
    routes.tick()
    assert set(routes.known) == {"a", "b"}
    trie.remove(parse_filter("a"), one)
    fresh = routes.find("b")
    routes.admit(fresh, Identity("p"))
    routes.tick()
    assert list(routes.known.values()) == [fresh]
    assert fresh.admitted
    routes.departed = 100
    routes.tick()
    assert not fresh.admitted


def test_a_member_of_a_group_who_may_not_read_is_passed_over_and_asked_about_once(trie, routes, access):
    access.no.add(("read", "not"))
    members = [session("not"), session("yes")]
    for member in members:
        subscribe(trie, member, "$share/g/a", qos=1)
    route = routes.find("a")
    message = Message("a", b"", 1, False)
    for _ in range(6):
        chosen, entry = routes.choose(route, route.groups[0], message, 0.0)
        assert (chosen.client_id, entry.qos) == ("yes", 1)
    assert sorted(access.reads()) == ["not", "yes"]
    assert routes.choose(route, route.groups[0], Message("a", b"", 0, False), 0.0) is None, "QoS 0 to who is offline"


def test_the_gateways_ears_are_on_the_route_apart(trie, routes, access):
    heard = []
    parsed = parse_filter("a")
    trie.add(parsed, Ear(heard.append), Entry(parsed, Subscription("a", 2), None, None))
    route = routes.find("a")
    assert (route.targets, len(route.ears), route.is_simple, route.is_wanted) == ((), 1, False, True)
    assert access.asked == []
