"""What holds whatever happens to the links: QoS 2 exactly once, order, windows that come back, books that balance."""

import random

import pytest

EXPIRY = 1_000_000


def session_of(world, name):
    return world.broker._sessions.get(name, world.now)


def balanced(world):
    """Every queue is what its books say."""
    queues = world.broker._queues
    total = 0
    for session in world.broker._sessions:
        waiting = [*(session.waiting or ()), *(session.waiting_0 or ())]
        assert session.waiting_bytes == sum(sending[0].size for sending in waiting)
        flying = [sending[0].size for sending in session.in_flight.values() if sending is not None]
        assert session.flight_bytes == sum(flying)
        assert (session in queues.backlog) == bool(waiting)
        total += session.waiting_bytes
    assert queues.total_bytes == total


class Publisher:
    """Sends numbered messages with QoS 1 or 2, some at a time, and repeats what was not acknowledged."""

    def __init__(self, world, rng, count, qos):
        self.world, self.rng, self.qos = world, rng, qos
        self.left = list(range(count))
        self.open = {}  # packet id -> number, None when PUBREC came
        self.dial()

    def dial(self):
        self.peer = self.world.peer("publisher", clean=False, expiry=EXPIRY)
        for packet_id, number in list(self.open.items()):
            if number is None:
                self.peer.send(f"62 02 {packet_id:04x}")
            else:
                self.say(packet_id, number, dup=True)

    def say(self, packet_id, number, *, dup=False):
        notation = self.world.notation
        topic = notation.string(f"t/{number % 2}")
        head = 0x30 | self.qos << 1 | dup << 3
        self.peer.send(notation.packet(head, topic, packet_id.to_bytes(2, "big"), b"\0", b"%d" % number))

    def step(self):
        self.peer.look()
        if self.peer.inbox and self.rng.random() < 0.8:
            self.read(self.peer.inbox.pop(0))
        elif self.left and len(self.open) < 5:
            number = self.left.pop(0)
            packet_id = next(i for i in range(1, 10) if i not in self.open)
            self.open[packet_id] = number
            self.say(packet_id, number)

    def read(self, seen):
        assert seen.reason < 0x80 or (seen.kind, seen.reason) == ("PUBCOMP", 0x92)  # the first PUBCOMP was lost
        if seen.kind == "PUBREC":
            self.open[seen.packet_id] = None
            self.peer.send(f"62 02 {seen.packet_id:04x}")
        else:
            self.open.pop(seen.packet_id, None)

    def cut(self):
        self.peer.cut()
        self.dial()

    @property
    def is_done(self):
        self.peer.look()
        return not self.left and not self.open and not self.peer.inbox


class Subscriber:
    """Notes what it is given; with QoS 2 each message once."""

    def __init__(self, world, rng, qos):
        self.world, self.rng, self.qos = world, rng, qos
        self.known = set()
        self.given = []
        self.dial()
        self.peer.subscribe("t/+", qos=qos)

    def dial(self):
        self.peer = self.world.peer("subscriber", clean=False, expiry=EXPIRY, receive_maximum=self.rng.randint(1, 4))

    def step(self):
        self.peer.look()
        if self.peer.inbox:
            self.read(self.peer.inbox.pop(0))

    def read(self, seen):
        if seen.kind == "PUBREL":
            self.known.discard(seen.packet_id)
            self.peer.send(f"70 02 {seen.packet_id:04x}")
            return
        if seen.qos == 1:
            self.given.append(int(seen.payload))
            self.peer.send(f"40 02 {seen.packet_id:04x}")
            return
        if seen.packet_id not in self.known:
            self.known.add(seen.packet_id)
            self.given.append(int(seen.payload))
        else:
            assert seen.dup
        self.peer.send(f"50 02 {seen.packet_id:04x}")

    def cut(self):
        self.peer.cut()
        if self.rng.random() < 0.3:
            self.world.advance(1)
        self.dial()

    @property
    def is_done(self):
        self.peer.look()
        return not self.peer.inbox


def run(world, rng, qos, count=60, cuts=0.1):
    subscriber, publisher = Subscriber(world, rng, qos), Publisher(world, rng, count, qos)
    steps = 0
    while not (publisher.is_done and subscriber.is_done):
        steps += 1
        assert steps < 20_000, "it goes round in circles"
        one = rng.choice([publisher, subscriber])
        if steps < 2_000 and rng.random() < cuts:
            one.cut()
        else:
            one.step()
        if steps % 50 == 0:
            balanced(world)
    balanced(world)
    return subscriber.given


@pytest.mark.parametrize("seed", range(25))
def test_qos_2_arrives_exactly_once_and_in_order_however_links_are_cut(make_world, seed):
    rng = random.Random(seed)
    given = run(make_world(max_in_flight=rng.choice([1, 3, 100])), rng, 2)
    for topic in (0, 1):
        assert [n for n in given if n % 2 == topic] == list(range(topic, 60, 2))


@pytest.mark.parametrize("seed", range(25))
def test_qos_1_arrives_at_least_once_and_first_times_are_in_order(make_world, seed):
    rng = random.Random(seed)
    given = run(make_world(max_in_flight=rng.choice([1, 3, 100])), rng, 1)
    for topic in (0, 1):
        firsts = list(dict.fromkeys(n for n in given if n % 2 == topic))
        assert firsts == list(range(topic, 60, 2))


def test_afterwards_nothing_is_left_in_flight(make_world):
    world = make_world()
    run(world, random.Random(1), 2)
    for name in ("publisher", "subscriber"):
        session = session_of(world, name)
        assert (session.in_flight, session.inbound, session.flight_bytes, session.waiting) == ({}, {}, 0, None)


@pytest.mark.parametrize("seed", range(10))
def test_each_place_in_the_window_comes_back_exactly_once(make_world, seed):
    """Acknowledgements come doubled, unknown and with errors; what is in flight is always what it should be."""
    rng = random.Random(seed)
    world = make_world()
    peer, publisher = world.peer("c", receive_maximum=5), world.peer("p")
    peer.subscribe("t", qos=2)
    for n in range(40):
        publisher.publish("t", b"%d" % n, rng.choice([1, 2]))
    session = session_of(world, "c")
    known, seen_count = {}, 0
    while seen_count < 40 or known:
        for seen in peer.packets():
            if seen.kind == "PUBLISH":
                assert seen.packet_id not in known
                known[seen.packet_id] = seen.qos
                seen_count += 1
        assert len(session.in_flight) == len(known) == min(5, 40 - seen_count + len(known))
        packet_id = rng.choice(list(known))
        noise = rng.choice(["40 02 7fff", "70 02 7fff", ""])
        if known[packet_id] == 1:
            answer = rng.choice([f"40 02 {packet_id:04x}", f"40 03 {packet_id:04x} 97"])
            peer.send(*[answer] * rng.choice([1, 1, 3]), noise)
            del known[packet_id]
        elif rng.random() < 0.3:
            peer.send(f"50 03 {packet_id:04x} 97", noise)
            del known[packet_id]
        else:
            peer.send(*[f"50 02 {packet_id:04x}"] * rng.choice([1, 2]), noise)
            peer.send(*[f"70 02 {packet_id:04x}"] * rng.choice([1, 2]), noise)
            del known[packet_id]
        balanced(world)
    assert session.in_flight == {}


@pytest.mark.parametrize("qos", [1, 2])
def test_order_holds_while_a_congested_transport_comes_and_goes(make_world, qos):
    rng = random.Random(qos)
    world = make_world()
    peer, publisher = world.peer("c", receive_maximum=3), world.peer("p")
    peer.subscribe("t", qos=2)
    given = {0: [], qos: []}
    for n in range(300):
        action = rng.random()
        if action < 0.1 and not peer.client.is_congested:
            peer.stall()
        elif action < 0.3 and peer.client.is_congested:
            peer.resume()
        publisher.publish("t", b"%d" % n, rng.choice([0, qos]))
        if rng.random() < 0.2:
            for seen in peer.accept():
                given[seen.qos].append(int(seen.payload))
    peer.resume()
    for seen in peer.accept():
        given[seen.qos].append(int(seen.payload))
    assert sorted(given[0] + given[qos]) == list(range(300))
    for numbers in given.values():
        assert numbers == sorted(numbers)
    balanced(world)
