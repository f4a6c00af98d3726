"""What a start of the broker finds on disk, and how the log is kept short: both by replaying the store's operations."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Generator
from dataclasses import dataclass, field

from gateway.broker.client import Identity
from gateway.broker.message import Message
from gateway.broker.operations import read_message, read_session, read_subscription
from gateway.broker.replay import Entry, Held, Replay
from gateway.journal.log import Log
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import Subscription

log = logging.getLogger("headgate.broker")


@dataclass(slots=True)
class StoredMessage:
    """One delivery of a session: `message` at `qos` (1 or 2), with the retain flag and the subscription identifiers.

    The same `Message` object stands in all places that share it.
    """

    message: Message
    qos: int
    retain: bool
    identifiers: tuple[int, ...] = ()


@dataclass(slots=True)
class StoredFlight:
    """A delivery that has a packet id. `delivery` is None once PUBREC came: then PUBREL is resent and nothing else."""

    packet_id: int
    delivery: StoredMessage | None


@dataclass(slots=True)
class StoredWill:
    """A will that was not published yet.

    `due`: when it shall be, s since 1970; infinity where the client was connected when the broker ended. Then it is due
    `delay_s` after the connection was lost, that is: after the start. `message.expires_at` is None: its lifetime begins
    when it is published, `message.properties.message_expiry` says it.
    """

    message: Message
    due: float = math.inf
    delay_s: int = 0


@dataclass(slots=True)
class StoredSession:
    """A session that outlives its connections.

    `number`: the core's name for it in the store; new ones must be higher than all of these. `expiry_s`: as in CONNECT,
    0xFFFFFFFF = never. `offline_since`: s since 1970, None where it was connected when the broker ended.
    `subscriptions`: by filter as the client wrote it, with `$share/…`; beside each its identifier. `in_flight` in order
    of sending; `queue` in order; `inbound`: ids of QoS 2 messages that came and were not released.
    """

    number: int
    client_id: str
    username: str | None
    expiry_s: int
    offline_since: float | None
    subscriptions: dict[str, tuple[Subscription, int | None]] = field(default_factory=dict)
    in_flight: list[StoredFlight] = field(default_factory=list)
    queue: list[StoredMessage] = field(default_factory=list)
    inbound: list[int] = field(default_factory=list)
    will: StoredWill | None = None


@dataclass(slots=True)
class State:
    """All of it. `retained`: one message a topic. Message objects are shared, and carry the store's numbers."""

    sessions: list[StoredSession] = field(default_factory=list)
    retained: list[Message] = field(default_factory=list)


def recover(logs: Log) -> tuple[State, int]:
    """The state on disk, and the highest number that a message ever had. Damage never raises.

    Raises OSError only where the folder cannot be listed.
    """
    sources = logs.recover()
    replay = Replay(sources)
    for _ in replay.run():
        pass
    logs.judge(sources)
    state = state_of(replay)
    for source in sources:
        source.close()
    return state, replay.last_message


def compact(logs: Log) -> Generator[None]:
    """Replace all files by a snapshot of what is live in them; new frames go to a new file meanwhile.

    Does a little between two steps: whoever drives it decides how long the others wait. Raises OSError; the files are
    as before then. Likewise where it is closed before its end.
    """
    sources, snapshot = logs.roll()
    is_whole = False
    try:
        replay = Replay(sources)
        yield from replay.run()
        for part in replay.parts():
            snapshot.add(part)
            yield
        snapshot.add(b"", is_last=True)
        yield
        logs.install(snapshot, sources)
        is_whole = True
    finally:
        if not is_whole:
            logs.discard(snapshot)
        for source in sources:
            source.close()


def state_of(replay: Replay) -> State:
    """What the core goes on with."""
    messages: dict[int, Message] = {}
    origins: dict[bytes, Identity] = {}
    for number, place in replay.places.items():
        try:
            messages[number] = read_message(replay.operation(place), origins)
        except (RemoteProtocolError, UnicodeDecodeError, struct.error) as error:
            log.warning("a stored message is not understood and is dropped (%s)", error)
    sessions = [_session(number, held, messages) for number, held in replay.sessions.items()]
    return State(sessions, [messages[number] for number in replay.retained.values() if number in messages])


def _session(number: int, held: Held, messages: dict[int, Message]) -> StoredSession:
    client_id, username, expiry_s, offline_since = read_session(held.head)
    session = StoredSession(number, client_id, username, expiry_s, offline_since)
    for operation in held.subscriptions.values():
        subscription, identifier = read_subscription(operation)
        session.subscriptions[subscription.filter] = (subscription, identifier)
    for packet_id, entry in held.flight.items():
        if entry is None:
            session.in_flight.append(StoredFlight(packet_id, None))
        elif entry[0] in messages:
            session.in_flight.append(StoredFlight(packet_id, _delivery(entry, messages)))
    session.queue = [_delivery(entry, messages) for entry in held.queue.values() if entry[0] in messages]
    session.inbound = list(held.inbound)
    if held.will is not None and held.will[0] in messages:
        message, due, delay_s = held.will
        session.will = StoredWill(messages[message], due, delay_s)
    return session


def _delivery(entry: Entry, messages: dict[int, Message]) -> StoredMessage:
    message, flags, identifiers = entry
    return StoredMessage(messages[message], flags & 3, bool(flags & 4), identifiers)
