"""The start: sessions, retained messages and wills as the store found them, put back where they were."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from gateway.broker.client import Identity
from gateway.broker.message import Message
from gateway.broker.queues import Queues
from gateway.broker.retained import Retained
from gateway.broker.routing import Subscriptions
from gateway.broker.session import Entry, Session
from gateway.broker.sessions import Sessions
from gateway.broker.topics import FullError, parse_filter
from gateway.broker.wills import Wills

if TYPE_CHECKING:
    from gateway.broker.options import Limits
    from gateway.broker.recovery import State, StoredSession, StoredWill
    from gateway.broker.store import Store


class Restoring:
    """Puts a state back. Sessions that were connected when the broker ended have lost their connection now."""

    def __init__(
        self,
        limits: Limits,
        *,
        subscriptions: Subscriptions,
        retained: Retained[Message],
        queues: Queues,
        sessions: Sessions,
        wills: Wills,
        store: Store,
    ) -> None:
        self._limits = limits
        self._subscriptions = subscriptions
        self._retained = retained
        self._queues = queues
        self._sessions = sessions
        self._wills = wills
        self._store = store

    def restore(self, state: State, now: float) -> None:
        """Put everything back. What smaller limits than before have no room for is dropped, there and on disk."""
        for message in state.retained:
            if message.is_expired(now) or not self._retained.set(message):
                self._store.unretain(message.topic)
        restored = [self._session(stored, now) for stored in state.sessions]
        restored.sort(key=lambda session: session.offline_since or now)
        for session in restored:
            self._sessions.park(session, now)

    def _session(self, stored: StoredSession, now: float) -> Session:
        identity = Identity(stored.client_id, stored.username)
        most = self._limits.session_expiry_maximum_s
        expiry_s = stored.expiry_s if most is None else min(stored.expiry_s, most)
        session = Session(stored.client_id, identity, expiry_s, stored.number)
        was_connected = stored.offline_since is None
        # A clock that was set back must not keep a session for longer than it asked.
        session.offline_since = now if stored.offline_since is None else min(stored.offline_since, now)
        self._sessions.adopt(session)
        if was_connected:
            self._sessions.note(session)
        for subscription, identifier in stored.subscriptions.values():
            try:
                parsed = parse_filter(subscription.filter, self._limits.topic_levels)
                entry = Entry(parsed, subscription, identifier, session)
                self._subscriptions.add(parsed, session, entry)
            except (ValueError, FullError):
                self._store.unsubscribe(session.number, subscription.filter)
                continue
            session.subscriptions[parsed.text] = entry
            if parsed.share is not None and (group := self._subscriptions.group(parsed)) is not None:
                group.leave(session)
        self._exchanges(session, stored)
        if stored.will is not None:
            self._will(session, stored.will, now)
        return session

    def _exchanges(self, session: Session, stored: StoredSession) -> None:
        for flight in stored.in_flight:
            delivery = flight.delivery
            session.last_id = flight.packet_id
            if delivery is None:
                session.in_flight[flight.packet_id] = None
                continue
            message = delivery.message
            session.in_flight[flight.packet_id] = (message, delivery.qos, delivery.retain, delivery.identifiers, 0)
            session.flight_bytes += message.size
        session.inbound = dict.fromkeys(stored.inbound)
        if stored.queue:
            waiting = [(each.message, each.qos, each.retain, each.identifiers, 0) for each in stored.queue]
            self._queues.adopt(session, deque(waiting))

    def _will(self, session: Session, stored: StoredWill, now: float) -> None:
        will = stored.message
        session.will = Message(
            will.topic, will.payload, will.qos, will.retain, will.properties, None, session.identity, will.number
        )
        session.will_delay_s = stored.delay_s
        if stored.due != math.inf:
            self._wills.schedule(session, stored.due)
            return
        due = now + stored.delay_s
        self._store.will(session.number, session.will, due, stored.delay_s)
        self._wills.schedule(session, due)
