"""All sessions by client identifier: which are there, how long those without a connection are kept, and their end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gateway.broker.agenda import Agenda
from gateway.broker.client import Identity
from gateway.broker.delivery import Delivery
from gateway.broker.routing import Subscriptions
from gateway.broker.session import NEVER, Session
from gateway.broker.wills import Wills

if TYPE_CHECKING:
    from gateway.broker.options import Limits
    from gateway.broker.store import Store
    from gateway.metrics import Metrics


class Sessions:
    """The sessions. `len()` is how many there are, with and without connection."""

    def __init__(
        self,
        limits: Limits,
        *,
        subscriptions: Subscriptions,
        delivery: Delivery,
        wills: Wills,
        metrics: Metrics,
        store: Store | None,
    ) -> None:
        self._limits = limits
        self._subscriptions = subscriptions
        self._delivery = delivery
        self._wills = wills
        self._store = store
        self._by_id: dict[str, Session] = {}
        self._offline: dict[Session, None] = {}
        self._expiries: Agenda[Session] = Agenda()
        self._last_number = 0
        self._ended = metrics.counter("broker_sessions_expired_total")
        self._displaced = metrics.counter("broker_sessions_displaced_total")
        metrics.gauge("broker_sessions", lambda: len(self._by_id))
        metrics.gauge("broker_sessions_offline", lambda: len(self._offline))

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_id.values())

    def get(self, client_id: str, now: float) -> Session | None:
        """The session of a client, unless its time is over."""
        session = self._by_id.get(client_id)
        if session is None or session.offline_since is None or not self._is_expired(session, now):
            return session
        self._ended.value += 1
        self.end(session, now)
        return None

    @staticmethod
    def _is_expired(session: Session, now: float) -> bool:
        since = session.offline_since
        return since is not None and session.expiry_s != NEVER and since + session.expiry_s <= now

    def create(self, identity: Identity, expiry_s: int) -> Session:
        """A new session, with a number of the store's where it is to outlive its connection."""
        session = Session(identity.client_id, identity, expiry_s)
        self._by_id[identity.client_id] = session
        if expiry_s and self._store is not None:
            self._last_number += 1
            session.number = self._last_number
            self.note(session)
        return session

    def adopt(self, session: Session) -> None:
        """A session of an earlier run."""
        self._by_id[session.client_id] = session
        self._last_number = max(self._last_number, session.number)

    def note(self, session: Session) -> None:
        """Have the store know how the session stands."""
        if session.number and self._store is not None:
            user = session.identity.username
            self._store.session(session.number, session.client_id, user, session.expiry_s, session.offline_since)

    def come(self, session: Session) -> None:
        """A connection has taken it up."""
        self._offline.pop(session, None)
        self._expiries.drop(session)
        for entry in session.subscriptions.values():
            if entry.filter.share is not None and (group := self._subscriptions.group(entry.filter)) is not None:
                group.come(session)

    def leave(self, session: Session, now: float) -> None:
        """Its connection is gone: from now on it is kept as long as it asked for [MQTT-3.1.2-23], or ends."""
        if not session.expiry_s:
            self.end(session, now)
            return
        for entry in session.subscriptions.values():
            if entry.filter.share is not None and (group := self._subscriptions.group(entry.filter)) is not None:
                group.leave(session)
        self.note(session)
        self.park(session, now)

    def park(self, session: Session, now: float) -> None:
        """Keep a session that is offline until it expires, within the bound of how many."""
        if session.is_over:
            return
        self._offline[session] = None
        if session.expiry_s != NEVER:
            since = now if session.offline_since is None else session.offline_since
            self._expiries.put(session, since + session.expiry_s)
        while len(self._offline) > self._limits.sessions:
            oldest = next(iter(self._offline))
            self._displaced.value += 1
            self.end(oldest, now)

    def end(self, session: Session, now: float) -> None:
        """Forget a session: subscriptions, what is in flight, what waits. A will that was to come is published now."""
        if session.is_over:
            return
        session.is_over = True
        del self._by_id[session.client_id]
        self._offline.pop(session, None)
        self._expiries.drop(session)
        for entry in session.subscriptions.values():
            self._subscriptions.remove(entry.filter, session)
        session.subscriptions.clear()
        self._delivery.forget(session)
        self._wills.publish(session, now)
        if session.number and self._store is not None:
            self._store.end_session(session.number)

    def is_due(self, now: float) -> bool:
        """Whether there is something for `expire` to do."""
        return self._expiries.is_due(now)

    def expire(self, now: float, limit: int) -> None:
        """End sessions whose time is over: so many, or so many subscriptions of theirs."""
        while limit > 0 and (session := self._expiries.take(now)) is not None:
            limit -= 1 + len(session.subscriptions)
            self._ended.value += 1
            self.end(session, now)
