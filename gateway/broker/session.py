"""What the broker remembers of one client: subscriptions, packet identifiers, what is in flight and what waits.

Pure state with its own rules (MQTT 5.0, 4.1, 4.3, 4.9). It outlives connections; what is sent when is `delivery`'s
business, when it ends is that of `sessions`.

One exchange to the client, by its place in `in_flight` (packet identifier -> what was sent):

    QoS 1   Sending ── PUBACK ──▶ gone
    QoS 2   Sending ── PUBREC ──▶ RELEASED ── PUBCOMP ──▶ gone
            Sending ── PUBREC >= 0x80 ──▶ gone
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from gateway.broker.message import Message
from gateway.broker.topics import Filter
from gateway.mqtt.packets import V5, Subscription

if TYPE_CHECKING:
    from gateway.broker.client import Client, Identity
    from gateway.broker.retained import Replay

NEVER = 0xFFFFFFFF
"""The session expiry interval that means: it does not end by itself (3.1.2.11.2)."""

Sending = tuple[Message, int, bool, tuple[int, ...], int]
"""A message as one client gets it: with this QoS, retain flag and identifiers; and its place in line, if it waited."""

Target = tuple["Session", int, tuple[int, ...], bool]
"""A session that gets a copy, its QoS at most, the identifiers, and whether retain stays as published."""

NO_SIZE = 0xFFFFFFFF
"""As a client's maximum packet size: it named none."""


class Entry:
    """One subscription: the parsed filter, and of its options (3.8.3.1) those that matter to each message.

    `identifiers`: the subscription identifier, if the client gave one. `target`: what a route needs of it, made once;
    None for the gateway's own.
    """

    __slots__ = ("filter", "identifiers", "no_local", "qos", "retain_as_published", "target")

    def __init__(self, parsed: Filter, wanted: Subscription, identifier: int | None, session: Session | None) -> None:
        self.filter = parsed
        self.qos = wanted.qos
        self.no_local = wanted.no_local
        self.retain_as_published = wanted.retain_as_published
        self.identifiers = () if identifier is None else (identifier,)
        self.target: Target | None = None
        if session is not None:
            self.target = (session, wanted.qos, self.identifiers, wanted.retain_as_published)


class Replaying:
    """Retained messages on their way for one subscription. `taken`: found, and not sent yet."""

    __slots__ = ("entry", "replay", "taken")

    def __init__(self, entry: Entry, replay: Replay[Message]) -> None:
        self.entry = entry
        self.replay = replay
        self.taken: deque[Message] = deque()


class Session:
    """A client's session. `number`: the store's name for it, 0 = it is not durable. `expiry_s`: after the connection.

    `client` is None while it is offline, since `offline_since`. `is_plain`: any buffer encoded for its level suits it,
    for it has neither aliases nor a maximum packet size. `window`: how many publications may be in flight
    [MQTT-3.3.4-9]. `unsent`: identifiers in flight from an earlier connection, not yet sent again on this one.
    `waiting` holds QoS 1 and 2 in order, `waiting_0` QoS 0. `unchecked`, `unchecked_0`: how many of them, from the
    left, were put there under another login or ACL and must be checked anew. `replays`: retained messages still to be
    sent, by filter. `has_more`: there is something to pump.
    """

    __slots__ = (
        "client",
        "client_id",
        "expiry_s",
        "flight_bytes",
        "has_aliases",
        "has_more",
        "identity",
        "in_flight",
        "inbound",
        "is_over",
        "is_plain",
        "last_id",
        "level",
        "max_size",
        "number",
        "offline_since",
        "replays",
        "subscriptions",
        "unchecked",
        "unchecked_0",
        "unsent",
        "waiting",
        "waiting_0",
        "waiting_bytes",
        "will",
        "will_delay_s",
        "window",
    )

    def __init__(self, client_id: str, identity: Identity, expiry_s: int, number: int = 0) -> None:
        self.client_id = client_id
        self.identity = identity
        self.expiry_s = expiry_s
        self.number = number
        self.client: Client | None = None
        self.level = V5
        self.window = 0
        self.max_size = NO_SIZE
        self.has_aliases = False
        self.is_plain = False
        self.is_over = False
        self.offline_since: float | None = None
        self.subscriptions: dict[str, Entry] = {}
        self.last_id = 0
        self.in_flight: dict[int, Sending | None] = {}
        self.flight_bytes = 0
        self.inbound: dict[int, None] = {}
        self.unsent: OrderedDict[int, None] | None = None
        self.waiting: deque[Sending] | None = None
        self.waiting_0: deque[Sending] | None = None
        self.waiting_bytes = 0
        self.unchecked = 0
        self.unchecked_0 = 0
        self.replays: dict[str, Replaying] | None = None
        self.has_more = False
        self.will: Message | None = None
        self.will_delay_s = 0

    def __repr__(self) -> str:
        where = "online" if self.client is not None else "offline"
        return f"<Session {self.client_id!r} {where} in_flight={len(self.in_flight)} waiting={self.waiting_count}>"

    @property
    def waiting_count(self) -> int:
        """How many messages wait, of any QoS."""
        return len(self.waiting or ()) + len(self.waiting_0 or ())

    def attach(self, client: Client, max_in_flight: int) -> None:
        """A connection takes the session up: windows and sizes are the new connection's (4.9)."""
        connection = client.connection
        self.client = client
        self.identity = client.identity
        self.level = connection.level
        self.window = min(connection.client_receive_maximum, max_in_flight)
        self.max_size = connection.client_maximum_packet_size or NO_SIZE
        self.has_aliases = connection.client_topic_alias_maximum > 0
        self.is_plain = not self.has_aliases and self.max_size == NO_SIZE
        self.offline_since = None
        self.unsent = OrderedDict.fromkeys(self.in_flight) if self.in_flight else None  # [MQTT-4.4.0-1] [MQTT-4.6.0-1]
        self.unchecked = len(self.waiting or ())
        self.note_more()

    def detach(self, now: float) -> None:
        """The connection is gone. QoS 0 that waits goes with it (4.1)."""
        self.client = None
        self.offline_since = now
        self.unsent = None

    def note_more(self) -> None:
        """Have `has_more` say the truth."""
        self.has_more = bool(self.unsent or self.waiting_0 or self.waiting or self.replays)

    def draw_id(self) -> int:
        """A packet identifier that is not in flight [MQTT-2.2.1-4]. There is one: the window is smaller than 65,535."""
        packet_id = self.last_id
        in_flight = self.in_flight
        while True:
            packet_id = packet_id + 1 if packet_id < 0xFFFF else 1  # [MQTT-2.2.1-3]
            if packet_id not in in_flight:
                self.last_id = packet_id
                return packet_id
