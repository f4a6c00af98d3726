"""A plain model of what the store's operations mean, dice that throw them, and the simulated disk: for its tests.

The model keeps whole messages and knows no bytes; `image` of it and of a recovered `State` are compared.
"""

import copy
import importlib.util
import math
import sys
from pathlib import Path

from gateway.broker.client import Identity
from gateway.broker.message import Message
from gateway.broker.store import Store
from gateway.mqtt.packets import Subscription
from gateway.mqtt.properties import NONE, Properties

_DISK = Path(__file__).parents[1] / "journal" / "simulated_disk.py"


def simulated_disk(**options):
    name = "headgate_tests_simulated_disk"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _DISK)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name].SimulatedDisk(**options)


class Notes(Store):
    """The store's operations without a loop: `take` gives the bytes of what was noted."""

    def __init__(self, last_message=0):
        self._message = last_message
        self.ahead_s = 0.0
        self._operations = []
        self._put = self._operations.append

    def take(self):
        data = b"".join(self._operations)
        self._operations.clear()
        return data


class Model:
    """Says every operation to a store and to itself."""

    def __init__(self, store):
        self.store = store
        self.sessions = {}
        self.retained = {}
        self.last_session = 0

    def session(self, number, client_id, username, expiry_s, offline_since):
        self.store.session(number, client_id, username, expiry_s, offline_since)
        fresh = {"subscriptions": {}, "queue": [], "flight": {}, "inbound": {}, "will": None}
        session = self.sessions.setdefault(number, fresh)
        session["who"] = (client_id, username, expiry_s, offline_since)
        self.last_session = max(self.last_session, number)

    def end_session(self, number):
        self.store.end_session(number)
        del self.sessions[number]

    def subscribe(self, number, subscription, identifier):
        self.store.subscribe(number, subscription, identifier)
        self.sessions[number]["subscriptions"][subscription.filter] = (subscription, identifier)

    def unsubscribe(self, number, text):
        self.store.unsubscribe(number, text)
        self.sessions[number]["subscriptions"].pop(text, None)

    def queue(self, number, message, qos, retain, identifiers):
        self.store.message(message)
        self.store.queue(number, message.number, qos, retain, identifiers)
        self.sessions[number]["queue"].append((message, qos, retain, identifiers))

    def _take(self, number, message):
        queue = self.sessions[number]["queue"]
        return queue.pop(next(n for n, entry in enumerate(queue) if entry[0] is message))

    def send(self, number, message, packet_id):
        self.store.send(number, message.number, packet_id)
        self.sessions[number]["flight"][packet_id] = self._take(number, message)

    def drop(self, number, message):
        self.store.drop(number, message.number)
        self._take(number, message)

    def received(self, number, packet_id):
        self.store.received(number, packet_id)
        self.sessions[number]["flight"][packet_id] = None

    def done(self, number, packet_id):
        self.store.done(number, packet_id)
        del self.sessions[number]["flight"][packet_id]

    def inbound(self, number, packet_id):
        self.store.inbound(number, packet_id)
        self.sessions[number]["inbound"][packet_id] = None

    def inbound_done(self, number, packet_id):
        self.store.inbound_done(number, packet_id)
        self.sessions[number]["inbound"].pop(packet_id, None)

    def retain(self, message):
        self.store.retain(message)
        self.retained[message.topic] = message

    def unretain(self, topic):
        self.store.unretain(topic)
        self.retained.pop(topic, None)

    def will(self, number, message, due, delay_s):
        self.store.will(number, message, due, delay_s)
        self.sessions[number]["will"] = (message, due, delay_s)

    def will_done(self, number):
        self.store.will_done(number)
        self.sessions[number]["will"] = None

    def image(self):
        """What a recovered state must look like."""
        sessions = {}
        for number, session in self.sessions.items():
            will = session["will"]
            sessions[number] = (
                session["who"],
                copy.copy(session["subscriptions"]),
                [(packet_id, entry and seen(entry)) for packet_id, entry in session["flight"].items()],
                [seen(entry) for entry in session["queue"]],
                list(session["inbound"]),
                will and (said(will[0]), will[1], will[2]),
            )
        return sessions, {topic: said(message) for topic, message in self.retained.items()}


def said(message):
    origin = "" if message.origin.is_gateway else message.origin.client_id
    return (
        message.number,
        message.topic,
        message.payload,
        message.qos,
        message.retain,
        message.properties,
        message.expires_at,
        origin,
    )


def seen(entry):
    message, qos, retain, identifiers = entry
    return said(message), qos, retain, identifiers


def image(state):
    """A recovered state in the form of `Model.image`."""
    sessions = {}
    for s in state.sessions:
        sessions[s.number] = (
            (s.client_id, s.username, s.expiry_s, s.offline_since),
            s.subscriptions,
            [(f.packet_id, f.delivery and delivered(f.delivery)) for f in s.in_flight],
            [delivered(d) for d in s.queue],
            s.inbound,
            s.will and (said(s.will.message), s.will.due, s.will.delay_s),
        )
    return sessions, {message.topic: said(message) for message in state.retained}


def delivered(delivery):
    return said(delivery.message), delivery.qos, delivery.retain, delivery.identifiers


def adopt(model, state):
    """Go on from a recovered state, with its very messages."""
    for s in state.sessions:
        model.sessions[s.number] = {
            "who": (s.client_id, s.username, s.expiry_s, s.offline_since),
            "subscriptions": dict(s.subscriptions),
            "queue": [(d.message, d.qos, d.retain, d.identifiers) for d in s.queue],
            "flight": {f.packet_id: f.delivery and entry(f.delivery) for f in s.in_flight},
            "inbound": dict.fromkeys(s.inbound),
            "will": s.will and (s.will.message, s.will.due, s.will.delay_s),
        }
        model.last_session = max(model.last_session, s.number)
    model.last_session += 1000  # numbers of sessions that ended are not known, and not used again
    model.retained = {message.topic: message for message in state.retained}


def entry(delivery):
    return delivery.message, delivery.qos, delivery.retain, delivery.identifiers


TOPICS = ["a", "a/b", "plant/ü/1", "/", "x" * 300, "$share-like/topic"]
FILTERS = ["#", "a/+", "$share/g/a/#", "plant/ü/+", "/"]
PROPERTIES = [
    NONE,
    NONE,
    Properties(message_expiry=60, user=(("k", "v"), ("k", "w"), ("", "ü"))),
    Properties(payload_format=1, content_type="text/plain", response_topic="r", correlation_data=b"\0\1"),
]
ORIGINS = [Identity("one"), Identity("zwei-ü", "user"), Identity("", is_gateway=True)]


def new_message(chance):
    return Message(
        chance.choice(TOPICS),
        chance.randbytes(chance.choice([0, 1, 5, 64, 900])),
        chance.randint(0, 2),
        chance.random() < 0.5,
        chance.choice(PROPERTIES),
        chance.choice([None, 1_795_330_000.25]),
        chance.choice(ORIGINS),
    )


def throw(chance, model, most_sessions=4):  # noqa: C901 - one branch an operation
    """One thing that happens to a broker, in the order in which a broker does it."""
    if not model.sessions or (len(model.sessions) < most_sessions and chance.random() < 0.1):
        number = model.last_session + 1
        model.session(
            number, f"client {number} ü", chance.choice([None, "", "user"]), chance.randint(1, 1 << 32) - 1, None
        )
        return
    number = chance.choice(list(model.sessions))
    session = model.sessions[number]
    what = chance.randrange(16)
    if what < 4:
        message = new_message(chance)
        if chance.random() < 0.4:
            model.retain(message)
        for other in chance.sample(list(model.sessions), chance.randint(0, len(model.sessions))):
            for _ in range(chance.choice([1, 1, 1, 2, 3])):  # shared and plain subscriptions: copies of their own
                identifiers = chance.choice([(), (), (5,), (7, 268_435_455)])
                model.queue(other, message, chance.randint(1, 2), chance.random() < 0.3, identifiers)
    elif what < 6 and session["queue"]:
        free = next(n for n in range(chance.randint(1, 65_000), 65_536) if n not in session["flight"])
        model.send(number, chance.choice(session["queue"])[0], free)
    elif what < 8 and session["flight"]:
        packet_id = chance.choice(list(session["flight"]))
        if session["flight"][packet_id] is not None and chance.random() < 0.5:
            model.received(number, packet_id)
        else:
            model.done(number, packet_id)
    elif what == 8 and session["queue"]:
        model.drop(number, session["queue"][0][0])
    elif what == 9:
        model.inbound(number, chance.randint(1, 9))
    elif what == 10:
        model.inbound_done(number, chance.randint(1, 9))
    elif what == 11:
        model.unretain(chance.choice(TOPICS))
    elif what == 12:
        options = (chance.randint(0, 2), chance.random() < 0.5, chance.random() < 0.5, chance.randint(0, 2))
        model.subscribe(number, Subscription(chance.choice(FILTERS), *options), chance.choice([None, 1, 268_435_455]))
    elif what == 13:
        model.unsubscribe(number, chance.choice(FILTERS))
    elif what == 14:
        if session["will"] is None or chance.random() < 0.5:
            model.will(number, new_message(chance), chance.choice([math.inf, 1_795_330_000.5]), chance.randint(0, 99))
        else:
            model.will_done(number)
    elif chance.random() < 0.3:
        model.end_session(number)
    else:
        model.session(number, *session["who"][:3], chance.choice([None, 1_795_330_000.125]))
