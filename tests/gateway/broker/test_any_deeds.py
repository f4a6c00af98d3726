"""Random deeds of many clients: whatever they do, the broker raises nothing, and every client finds it strict.

Each peer checks what it is sent: windows, ids, aliases, sizes, order. Each deed is one that a client could do.
"""

import random

import pytest

TOPICS = ["a", "a/b", "a/c", "b", "b/c/d", "$x/y", "/", "a//b"]
FILTERS = [
    *TOPICS,
    "#",
    "+",
    "a/+",
    "+/b",
    "a/#",
    "$share/g/a",
    "$share/g/#",
    "$share/h/+",
    "bad#",
    "$x/#",
    "$share//x",
]
PROPERTIES = ["()", "(02 00000005)", "(26 'n' 'v')", "(01 01 03 'x')", "(08 'a' 09 'b')", "(23 0001)"]
WRONG = [
    "c1 00",
    "30 .. 'a/#' ()",
    "36 .. 'a' 0001 ()",
    "82 .. 0001 ()",
    "10 .. 'MQTT' 05 02 0000 () 'x'",
    "30 ffffffff7f",
]


class Crowd:
    """Some peers, and a script of chances."""

    def __init__(self, world, seed):
        self.world = world
        self.chance = random.Random(seed)
        self.peers = {}
        self.pick = self.chance.choice

    def peer(self):
        """Somebody who is connected."""
        here = [peer for peer in self.peers.values() if not peer.is_closed]
        return self.pick(here) if here else self.connect()

    def connect(self):
        chance, pick = self.chance, self.pick
        level, name = pick([4, 5]), pick(["c1", "c2", "c3", "c4", ""])
        terms = {"clean": chance.random() < 0.4 or not name, "keep_alive": pick([0, 10])}
        terms["expiry"] = pick([0, 3, 100, 0xFFFFFFFF])
        if chance.random() < 0.5:
            will_properties = pick(["", "18 00000003", "18 00000064 02 00000009"])
            terms["will"] = (pick(TOPICS), pick([b"", b"w"]), pick([0, 1, 2]), pick([False, True]), will_properties)
        if chance.random() < 0.6:
            terms |= {"receive_maximum": pick([1, 2, 9]), "alias_maximum": pick([0, 1, 3])}
            terms |= {"maximum_packet_size": pick([40, 100, 1000]), "problems": pick([0, 1])}
        peer = self.world.peer(name, level=level, hold=True, **terms)
        peer.is_holding_login = False
        peer.admit()
        self.peers[name] = peer
        return peer

    def publish(self):
        peer, pick = self.peer(), self.pick
        topic, qos = pick(TOPICS), pick([0, 1, 2])
        payload = pick([b"", b"x", b"y" * 60, b"z" * 3000])
        properties = pick(PROPERTIES) if peer.level == 5 else "()"
        peer.send(peer.published(topic, payload, qos, retain=pick([False, True]), properties=properties))

    def burst(self):
        peer, qos = self.peer(), self.pick([0, 1])
        topic = self.pick(TOPICS)
        peer.send(*[peer.published(topic, b"%d" % n, qos) for n in range(20)])

    def subscribe(self):
        peer, pick = self.peer(), self.pick
        filter_ = pick(FILTERS)
        options = pick([0, 1, 2]) | (pick([0, 4, 8, 0x10, 0x20]) if peer.level == 5 else 0)
        if "$share" in filter_:
            options &= ~4
        identifier = pick(["()", "(0b 05)"])
        peer.send(f"82 .. {peer.next_id():04x} {identifier} '{filter_}' {options:02x} '{pick(FILTERS)}' 01")

    def unsubscribe(self):
        peer = self.peer()
        peer.send(f"a2 .. {peer.next_id():04x} () '{self.pick(FILTERS)}' '{self.pick(FILTERS)}'")

    def answer(self):
        """Read what came, and acknowledge most of it."""
        peer = self.peer()
        for seen in peer.packets():
            answers = {"PUBREC": "62 02", "PUBREL": "70 02"}
            if seen.kind == "PUBLISH" and seen.qos:
                answers["PUBLISH"] = "40 02" if seen.qos == 1 else "50 02"
            if seen.kind in answers and seen.reason < 0x80 and self.chance.random() < 0.9 and not peer.is_closed:
                peer.send(f"{answers[seen.kind]} {seen.packet_id:04x}")

    def stall(self):
        self.peer().stall()

    def resume(self):
        peer = self.peer()
        peer.resume()

    def cut(self):
        self.peer().cut()

    def leave(self):
        peer = self.peer()
        peer.send(self.pick(["e0 00", "e0 01 04", "e0 .. 00 (11 00000002)"]) if peer.level == 5 else "e0 00")

    def err(self):
        self.peer().send(self.pick(WRONG))

    def wait(self):
        self.world.advance(self.pick([0.1, 1, 2, 4, 70]))

    def linger(self):
        """Pending work is left undone for a while."""
        self.world.does_more = not self.world.does_more

    def gateway(self):
        self.world.broker.door().publish(
            self.pick(TOPICS), b"g", qos=self.pick([0, 1, 2]), retain=self.pick([False, True])
        )
        self.world.turn()

    def rules(self):
        self.world.access.unreadable ^= {self.pick(TOPICS)}
        self.world.access.unwritable ^= {self.pick(TOPICS)}
        self.world.access.generation += 1
        self.world.broker.access_changed(self.world.now)

    def deed(self):
        deeds = [self.publish] * 6 + [self.answer] * 6 + [self.subscribe] * 4 + [self.resume] * 2 + [self.connect] * 2
        deeds += [self.unsubscribe, self.stall, self.cut, self.leave, self.err, self.wait, self.burst, self.linger]
        self.pick([*deeds, self.gateway, self.rules])()


LIMITS = [
    {},
    {"queue_messages": 3, "max_in_flight": 2, "retained_messages": 4, "subscriptions": 3, "sessions": 2},
    {"queue_bytes": 2_000, "total_queue_bytes": 4_000, "retained_bytes": 3_500, "receive_maximum": 5, "stall_s": 5},
]


@pytest.mark.parametrize("limits", LIMITS, ids=["wide", "few", "small"])
@pytest.mark.parametrize("seed", range(8))
def test_random_deeds_break_nothing(make_world, seed, limits):
    crowd = Crowd(make_world(**limits), seed)
    for _ in range(300):
        crowd.deed()
    crowd.world.does_more = True
    crowd.world.advance(5)
    for peer in crowd.peers.values():
        peer.resume()
        peer.packets()
    calm = crowd.world.peer("calm", username="root")
    calm.send("c0 00")
    calm.expect("d0 00")


@pytest.mark.parametrize("limits", LIMITS, ids=["wide", "few", "small"])
@pytest.mark.parametrize("seed", range(3))
def test_random_deeds_and_kills_break_nothing(house, seed, limits):
    crowd = Crowd(house.open_in_memory(**limits), seed)
    for _ in range(12):
        for _ in range(40):
            crowd.deed()
        if crowd.chance.random() < 0.6:
            crowd.world = crowd.world.kill(later=crowd.pick([0, 2, 50]))
            crowd.peers.clear()
        type(crowd.world).does_write = crowd.chance.random() < 0.6
    crowd.world.does_more = True
    type(crowd.world).does_write = True
    crowd.world.turn()
    calm = crowd.world.peer("calm")
    calm.send("c0 00")
    calm.expect("d0 00")
