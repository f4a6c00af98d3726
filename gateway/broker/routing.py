"""Who gets what is published on a topic, worked out once and remembered while no subscription changes.

A route holds for one topic: the sessions that get it (one copy each, at the highest QoS of their subscriptions, with
all identifiers), the shared subscriptions of which one member gets it, the gateway's own ears, and who may publish it.
Whoever may not read the topic is not on the route; what may have changed since is checked where it is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from gateway.broker.access import is_sys
from gateway.broker.message import Message
from gateway.broker.session import NO_SIZE, Entry, Session, Target
from gateway.broker.shared import SharedGroup
from gateway.broker.topics import Trie

if TYPE_CHECKING:
    from gateway.broker.access import Access
    from gateway.broker.client import Identity

DENIED: Final[tuple[Target, ...]] = ((None, 0, (), False),)  # type: ignore[assignment]
"""Instead of targets: this publisher may not publish here. Compared by identity."""

ROUTES = 10_000
"""Topics remembered; then all are forgotten at once."""

TARGETS = 500_000
"""Targets of all of them together; likewise."""

_TOPIC_LENGTH = 1_000
"""A longer topic is worked out each time: it is rare, and would fill the memory."""

_DEPARTED = 100
"""After so many clients have gone, the publishers of all routes are forgotten: those who are here come back at once."""

_ADMISSIONS = 200_000
"""Publishers remembered in all of them together; likewise."""


class Ear:
    """A subscription of the gateway itself: a function that is called with each message."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[Message], None]) -> None:
        self.callback = callback


Subscriptions = Trie["Session | Ear", Entry]
Group = SharedGroup["Session | Ear", Entry]


class Route:
    """What is known of one topic.

    `admitted`: publisher -> targets, or DENIED. `readers`: whether a member of `groups` may read it. `no_local`: client
    -> what of its own messages it gets. `heads`: how a PUBLISH begins, by level and length of the payload.
    """

    __slots__ = (
        "admitted",
        "ears",
        "generation",
        "groups",
        "heads",
        "is_simple",
        "no_local",
        "readers",
        "targets",
        "topic",
    )

    def __init__(self, topic: str, generation: int) -> None:
        self.topic = topic
        self.generation = generation
        self.targets: tuple[Target, ...] = ()
        self.no_local: dict[str, Target | None] | None = None
        self.groups: list[Group] = []
        self.ears: list[Ear] = []
        self.is_simple = True
        self.readers: dict[Session, bool] = {}
        self.admitted: dict[Identity, tuple[Target, ...]] = {}
        self.heads: dict[int, bytes] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether anybody would get a message."""
        return bool(self.targets or self.groups or self.ears)


class Routes:
    """The routes of topics. `forget` when logins or rules change; changed subscriptions are noticed by generation.

    `departed`: count here who has gone; `tick` sees that nothing is kept for them.
    """

    def __init__(self, subscriptions: Subscriptions, access: Access) -> None:
        self._subscriptions = subscriptions
        self._access = access
        self.known: dict[str, Route] = {}
        self._targets = self._admissions = 0
        self._access_generation = access.generation
        self._swept = 0
        self.departed = 0
        self._route: Route
        self._now = 0.0

    def forget(self) -> None:
        """Remember nothing."""
        self.known.clear()
        self._targets = self._admissions = 0
        self._access_generation = self._access.generation

    def tick(self) -> None:
        """Once a second: let go of routes that no longer hold, and of publishers that have gone."""
        generation = self._subscriptions.generation
        if self._swept != generation:
            self._swept = generation
            for route in [route for route in self.known.values() if route.generation != generation]:
                del self.known[route.topic]
                self._targets -= len(route.targets)
        if self.departed >= _DEPARTED:
            self.departed = self._admissions = 0
            for route in self.known.values():
                route.admitted.clear()

    def find(self, topic: str) -> Route:
        """The route of a topic as it is now. `known` has it already where its generation is the subscriptions'."""
        if self._access_generation != self._access.generation:
            self.forget()
        old = self.known.get(topic)
        if old is not None and old.generation == self._subscriptions.generation:
            return old
        if len(self.known) >= ROUTES or self._targets > TARGETS:
            self.forget()
            old = None
        route = self._build(topic, old)
        if len(topic) > _TOPIC_LENGTH:
            return route
        self.known[topic] = route
        self._targets += len(route.targets) - (len(old.targets) if old is not None else 0)
        return route

    def admit(self, route: Route, who: Identity) -> tuple[Target, ...]:
        """The targets of this publisher's messages, or DENIED; remembered in the route."""
        self._admissions += 1
        if self._admissions > _ADMISSIONS:
            self.forget()  # the identities of those who have gone go too
        targets = route.targets
        if (is_sys(route.topic) and not who.is_gateway) or not self._access.may_publish(who, route.topic):
            targets = DENIED
        elif route.no_local is not None and not who.is_gateway and who.client_id in route.no_local:
            own = route.no_local[who.client_id]  # [MQTT-3.8.3-3]
            targets = tuple(t for t in targets if t[0].client_id != who.client_id) + ((own,) if own else ())
        route.admitted[who] = targets
        return targets

    def _build(self, topic: str, old: Route | None) -> Route:
        route = Route(topic, self._subscriptions.generation)
        plain, route.groups = self._subscriptions.match(topic)
        if old is not None:
            route.heads = old.heads
        single: dict[Session, Entry] = {}
        overlapping: dict[Session, list[Entry]] = {}
        for subscriber, entry in plain:
            if isinstance(subscriber, Ear):
                route.ears.append(subscriber)
            elif subscriber in single:
                overlapping.setdefault(subscriber, [single[subscriber]]).append(entry)
            else:
                single[subscriber] = entry
        readers = {target[0] for target in old.targets} if old is not None else ()
        may_read = self._access.may_read
        targets: list[Target] = []
        for session, entry in single.items():
            if session not in readers and not may_read(session.identity, topic):
                continue
            if overlapping and session in overlapping:
                targets.append(_merge(session, overlapping[session]))
            elif entry.target is not None:
                targets.append(entry.target)
            if entry.no_local or overlapping:
                self._note_no_local(route, session, overlapping.get(session, [entry]))
        route.targets = tuple(targets)
        route.is_simple = not route.groups and not route.ears
        return route

    @staticmethod
    def _note_no_local(route: Route, session: Session, entries: list[Entry]) -> None:
        """What of its own messages a client does not get back, or by fewer of its subscriptions [MQTT-3.8.3-3]."""
        rest = [entry for entry in entries if not entry.no_local]
        if len(rest) == len(entries):
            return
        if route.no_local is None:
            route.no_local = {}
        route.no_local[session.client_id] = _merge(session, rest) if rest else None

    def choose(self, route: Route, group: Group, message: Message, now: float) -> tuple[Session, Entry] | None:
        """The member of a shared subscription that gets this message; None where nobody can have it."""
        self._route, self._now = route, now
        return cast("tuple[Session, Entry] | None", group.pick(self._rank, message))  # ears are not shared

    def _rank(self, session: Session | Ear, entry: Entry, message: Message) -> int:
        """How well a member could take the message now: 0 at once, below 0 never."""
        if isinstance(session, Ear):
            return -1
        may_read = self._route.readers.get(session)
        if may_read is None:
            may_read = self._route.readers[session] = self._access.may_read(session.identity, message.topic)
        if not may_read:
            return -1
        qos = min(message.qos, entry.qos)
        client = session.client
        if client is None:
            return session.waiting_count if qos else -1
        if session.max_size != NO_SIZE:
            head, tail = message.parts(session.level, qos, False, entry.identifiers, self._now)
            if len(head) + len(tail) + 2 * (qos > 0) > session.max_size:
                return -1
        if session.has_more or client.is_congested or (qos and len(session.in_flight) >= session.window):
            return 1 + session.waiting_count
        return 0


def _merge(session: Session, entries: list[Entry]) -> Target:
    """One copy for overlapping subscriptions: the highest QoS [MQTT-3.3.4-2], all identifiers [MQTT-3.3.4-3 to -5]."""
    identifiers = tuple(identifier for entry in entries for identifier in entry.identifiers)
    retain_as_published = any(entry.retain_as_published for entry in entries)
    return session, max(entry.qos for entry in entries), identifiers, retain_as_published
