"""Every exchange with the link cut at every packet boundary and inside every packet, and with the broker killed there.

A publisher and a subscriber, both with a session, keep what a real client would keep. One transfer of one packet on one
link is a step; at a chosen step the link is cut (before the packet, or in the middle of it) or the broker is killed.
Then both come back and go on. What the subscriber was given is compared with what the publisher was told.
"""

import random
from collections import deque

import pytest

COUNT = 4
WINDOW = 2
EXPIRY = 1_000_000


class Client:
    """What publisher and subscriber have in common: a link, packets to send, and packets that came."""

    def __init__(self, sim, name):
        self.sim = sim
        self.name = name
        self.peer = None
        self.is_accepted = False
        self.has_session = False
        self.out = deque()

    def begin(self):
        """Dial anew."""
        world = self.sim.world
        self.peer = world.link(self.sim.level)
        self.is_accepted = False
        self.out = deque([world.connect_bytes(self.name, self.sim.level, clean=False, expiry=EXPIRY)])

    def lose(self):
        if self.peer is not None:
            self.peer.look()  # the strict client has its say about what was cut off as well
        self.peer = None

    def next_in(self):
        """The oldest packet that came and was not read."""
        self.peer.look()
        return self.peer.inbox[0] if self.peer.inbox else None

    def take(self, seen):
        if seen.kind == "CONNACK":
            assert seen.reason == 0
            assert seen.session_present or not self.has_session, "the session is gone"
            self.has_session = True  # what was told once must be so for ever
            self.is_accepted = True
            self.resume()
        else:
            getattr(self, f"on_{seen.kind.lower()}")(seen)

    def packet(self, kind, packet_id):
        self.out.append(bytes([kind, 2]) + packet_id.to_bytes(2, "big"))


class Publisher(Client):
    """Publishes `COUNT` messages in order, `WINDOW` at a time, and keeps what is not acknowledged."""

    def __init__(self, sim):
        super().__init__(sim, "publisher")
        self.next = 0
        self.open = {}  # packet id -> payload, or None when PUBREC came
        self.promised = []

    @property
    def is_done(self):
        return self.next == COUNT and not self.open and not self.out

    def resume(self):
        for packet_id, payload in self.open.items():
            if payload is None:
                self.packet(0x62, packet_id)
            else:
                self.publish(payload, packet_id, dup=True)
        self.go_on()

    def publish(self, payload, packet_id, *, dup=False):
        notation, qos = self.sim.notation, self.sim.qos
        head = 0x30 | qos << 1 | (dup << 3)
        packet_id = packet_id.to_bytes(2, "big") if qos else b""
        empty = b"" if self.sim.level == 4 else b"\0"
        self.out.append(notation.packet(head, notation.string("t"), packet_id, empty, payload))

    def go_on(self):
        if not self.is_accepted or not self.sim.subscriber.is_subscribed:
            return
        while self.next < COUNT and len(self.open) < WINDOW:
            payload = b"%d" % self.next
            self.next += 1
            packet_id = self.next % 3 + 1  # numbers come round soon
            if self.sim.qos:
                while packet_id in self.open:
                    packet_id += 1
                self.open[packet_id] = payload
            self.publish(payload, packet_id)

    def on_puback(self, seen):
        assert seen.reason < 0x80
        self.promised.append(self.open.pop(seen.packet_id))
        self.go_on()

    def on_pubrec(self, seen):
        assert seen.reason < 0x80
        payload = self.open[seen.packet_id]
        if payload is not None:
            self.promised.append(payload)
        self.open[seen.packet_id] = None
        self.packet(0x62, seen.packet_id)

    def on_pubcomp(self, seen):
        self.open.pop(seen.packet_id, None)
        self.go_on()


class Subscriber(Client):
    """Subscribes once, and notes what it is given. With QoS 2 it remembers the ids that were not released."""

    def __init__(self, sim):
        super().__init__(sim, "subscriber")
        self.is_subscribed = False
        self.given = []
        self.known = set()

    def resume(self):
        if not self.is_subscribed:
            notation = self.sim.notation
            empty = b"" if self.sim.level == 4 else b"\0"
            self.out.append(notation.packet(0x82, b"\0\1", empty, notation.string("t") + bytes([self.sim.qos])))

    def on_suback(self, seen):
        assert seen.reasons == (self.sim.qos,)
        self.is_subscribed = True
        self.sim.publisher.go_on()

    def on_publish(self, seen):
        assert seen.topic == "t"
        assert seen.qos == self.sim.qos
        if seen.qos < 2:
            self.given.append(seen.payload)
            if seen.qos:
                self.packet(0x40, seen.packet_id)
            return
        if seen.packet_id not in self.known:
            self.given.append(seen.payload)
            self.known.add(seen.packet_id)
        self.packet(0x50, seen.packet_id)

    def on_pubrel(self, seen):
        self.known.discard(seen.packet_id)
        self.packet(0x70, seen.packet_id)


class Simulation:
    """Runs both clients to the end.

    `fate(step)`: None, or (how: "before" or "half", what: "link", "both" or "kill").
    """

    def __init__(self, world, *, level, qos, fate):
        self.world = world
        self.notation = world.notation
        self.level = level
        self.qos = qos
        self.fate = fate
        self.steps = 0
        self.publisher = Publisher(self)
        self.subscriber = Subscriber(self)

    def run(self):
        clients = (self.subscriber, self.publisher)
        for _ in range(3_000):
            for client in clients:
                if client.peer is None:
                    client.begin()
            moved = [self._say(client) or self._hear(client) for client in clients]
            if not any(moved) and not self._write():
                assert self.qos == 0 or self.publisher.is_done, f"nothing moves: {self.publisher.open}"
                return
        raise AssertionError("it never ends")

    def _doom(self, client, data, say):
        """One step: let it happen, or cut."""
        self.steps += 1
        doom = self.fate(self.steps)
        if doom is None:
            return False
        how, what = doom
        if how == "half" and say:
            client.peer.feed(data[: max(1, len(data) // 2)])
        if what == "kill":
            self.world = self.world.kill()
            for each in (self.publisher, self.subscriber):
                each.peer = None
        else:
            for each in (client,) if what == "link" else (self.publisher, self.subscriber):
                if each.peer is not None:
                    each.peer.cut()
                    each.lose()
        return True

    def _say(self, client):
        if client.peer is None or not client.out:
            return False
        data = client.out[0]
        if not self._doom(client, data, say=True):
            client.out.popleft()
            client.peer.send(data)
            assert not client.peer.is_closed, client.peer.packets()
        return True

    def _hear(self, client):
        if client.peer is None or (seen := client.next_in()) is None:
            return False
        if not self._doom(client, seen.raw, say=False):
            client.peer.inbox.pop(0)
            client.take(seen)
        return True

    def _write(self):
        """Where the store writes only when nothing else moves: one job of it. A kill may come before that, too."""
        writer = getattr(self.world, "writer", None)
        if writer is None or not writer.jobs:
            return False
        self.steps += 1
        doom = self.fate(self.steps)
        if doom is not None and doom[1] == "kill":
            self.world = self.world.kill()
            self.publisher.peer = self.subscriber.peer = None
        else:
            self.world.write(1)
        return True


def judge(simulation):
    """What was given is what was promised: at most, at least, or exactly once, and in order."""
    given, everything = simulation.subscriber.given, [b"%d" % n for n in range(COUNT)]
    firsts = list(dict.fromkeys(given))
    assert firsts == sorted(firsts), f"order: {given}"
    if simulation.qos == 0:
        assert len(given) == len(firsts), f"QoS 0 twice: {given}"
        return
    assert sorted(set(simulation.publisher.promised)) == everything
    assert firsts == everything, f"lost: {given}"
    if simulation.qos == 2:
        assert given == everything, f"not exactly once: {given}"
    # and nothing is left behind: neither side has anything to say at another resume
    world = simulation.world
    if hasattr(world, "kill"):
        type(world).does_write = True
        world.write()
        world = world.kill()
    for client in (simulation.publisher, simulation.subscriber):
        peer = world.peer(client.name, level=simulation.level, clean=False, expiry=EXPIRY)
        assert peer.session_present
        assert peer.silent()


def at(step, how, what):
    return lambda n: (how, what) if n == step else None


def steps_of(make, **options):
    """How many steps the exchange takes when nothing happens to it."""
    simulation = Simulation(make(), fate=lambda n: None, **options)
    simulation.run()
    judge(simulation)
    assert simulation.subscriber.given == [b"%d" % n for n in range(COUNT)]
    return simulation.steps


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("how", ["before", "half"])
@pytest.mark.parametrize("what", ["link", "both"])
def test_a_link_cut_at_any_packet_costs_neither_message_nor_order(make_world, level, qos, how, what):
    steps = steps_of(make_world, level=level, qos=qos)
    assert steps >= (10, 15, 30)[qos]
    for step in range(1, steps + 1):
        simulation = Simulation(make_world(), level=level, qos=qos, fate=at(step, how, what))
        simulation.run()
        judge(simulation)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("receive_maximum", [1, 1000])
def test_links_cut_again_and_again_cost_neither_message_nor_order(make_world, level, qos, receive_maximum):
    chance = random.Random(level * 10 + qos)
    for _ in range(60):

        def fate(step):
            if step > 400 or chance.random() > 0.12:
                return None
            return chance.choice(["before", "half"]), chance.choice(["link", "both"])

        world = make_world(max_in_flight=receive_maximum)
        simulation = Simulation(world, level=level, qos=qos, fate=fate)
        simulation.run()
        judge(simulation)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("writes", [True, False], ids=["all written", "written late"])
def test_a_broker_killed_at_any_packet_costs_neither_message_nor_order(house, level, qos, writes):
    def make():
        world = house.open_in_memory()
        type(world).does_write = writes
        return world

    steps = steps_of(make, level=level, qos=qos)
    for step in range(1, steps + 1):
        simulation = Simulation(make(), level=level, qos=qos, fate=at(step, "half", "kill"))
        simulation.run()
        judge(simulation)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_kills_and_cuts_in_any_order_cost_neither_message_nor_order(house, level, qos):
    chance = random.Random(level * 10 + qos)
    for _ in range(12):

        def fate(step):
            if step > 300 or chance.random() > 0.1:
                return None
            return chance.choice(["before", "half"]), chance.choice(["link", "both", "kill"])

        world = house.open_in_memory()
        type(world).does_write = chance.random() < 0.5
        simulation = Simulation(world, level=level, qos=qos, fate=fate)
        simulation.run()
        judge(simulation)


class Erratic:
    """A subscriber that acknowledges in any order, twice, with errors, what it never got, and comes and goes."""

    def __init__(self, world, chance):
        self.world = world
        self.chance = chance
        self.terms = {"expiry": EXPIRY, "receive_maximum": chance.randint(1, 4)}
        self.peer = world.peer("c", **self.terms)
        self.flying = {}
        self.released = []
        self.given = []

    def come_back(self):
        self.peer.cut()
        self.peer = self.world.peer("c", clean=False, **self.terms)
        self.flying, self.released = {}, []

    def mumble(self):
        packet_id = self.chance.randint(60_000, 65_535)
        self.peer.send(f"70 02 {packet_id:04x}", f"40 02 {packet_id:04x}")

    def acknowledge(self):
        if not self.flying:
            return
        packet_id = self.chance.choice(list(self.flying))
        first = "40" if self.flying.pop(packet_id) == 1 else "50"
        good, bad = f"{first} 02 {packet_id:04x}", f"{first} 03 {packet_id:04x} 80"
        self.peer.send(*self.chance.choice([[good], [good], [good, good], [bad]]))

    def complete(self):
        if self.released:
            packet_id = self.released.pop(self.chance.randrange(len(self.released)))
            self.peer.send(*[f"70 02 {packet_id:04x}"] * self.chance.choice([1, 1, 2]))

    def read(self):
        for seen in self.peer.packets():  # the strict client counts the window
            if seen.kind == "PUBLISH":
                self.flying[seen.packet_id] = seen.qos
                self.given.append(seen.payload)
            elif seen.packet_id not in self.released:
                self.released.append(seen.packet_id)

    def finish(self):
        self.come_back()
        for seen in self.peer.packets():
            if seen.kind == "PUBREL":
                self.peer.send(f"70 02 {seen.packet_id:04x}")
            else:
                self.given.append(seen.payload)
                self.peer.answer(seen)
        self.given += self.peer.payloads()


@pytest.mark.parametrize("seed", range(40))
def test_a_window_returns_its_quota_exactly_once_whatever_the_client_does(make_world, seed):
    chance = random.Random(seed)
    world = make_world()
    client = Erratic(world, chance)
    client.peer.subscribe("t", qos=2)
    publisher = world.peer("p")
    sent = 0
    acts = [client.acknowledge] * 7 + [client.complete] * 5 + [client.come_back, client.mumble]
    for _ in range(300):
        if chance.random() < 0.35:
            publisher.publish("t", b"%d" % sent, chance.choice([1, 2]))
            sent += 1
        else:
            chance.choice(acts)()
        client.read()
    client.finish()
    firsts = list(dict.fromkeys(client.given))
    assert firsts == [b"%d" % n for n in range(sent)]
