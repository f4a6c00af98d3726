"""How connections begin and end: accepted, taken over, resumed, left, lost. Each is one synchronous step."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from gateway.broker.agenda import Agenda
from gateway.broker.authenticating import Authenticating
from gateway.broker.client import Client, Identity
from gateway.broker.delivery import Delivery
from gateway.broker.publishing import Publishing
from gateway.broker.queues import Queues
from gateway.broker.routing import Routes
from gateway.broker.session import NEVER, Session
from gateway.broker.sessions import Sessions
from gateway.broker.wills import Wills
from gateway.mqtt import reasons
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import V5, Connack, Connect, Disconnect
from gateway.mqtt.properties import NONE, Properties
from gateway.mqtt.reasons import Reason

if TYPE_CHECKING:
    from gateway.broker.access import Access
    from gateway.broker.options import Limits
    from gateway.broker.report import Report
    from gateway.broker.store import Store
    from gateway.metrics import Metrics


class Connecting:
    """Takes CONNECT and DISCONNECT, and ends connections for whatever reason."""

    def __init__(
        self,
        limits: Limits,
        *,
        sessions: Sessions,
        wills: Wills,
        delivery: Delivery,
        queues: Queues,
        publishing: Publishing,
        routes: Routes,
        access: Access,
        metrics: Metrics,
        report: Report,
        store: Store | None,
        now: float,
    ) -> None:
        self._limits = limits
        self._sessions = sessions
        self._wills = wills
        self._delivery = delivery
        self._queues = queues
        self._publishing = publishing
        self._routes = routes
        self._report = report
        self._store = store
        self.authenticating = Authenticating(access, accept=self._accept, refuse=self.refuse, renewed=self._renewed)
        self._assigned = (f"auto-{int(now * 1000):x}-{n:x}" for n in itertools.count(1))
        self._passes: Agenda[Client] = Agenda()
        self.online = 0
        self.most_online = 0
        self.connects = metrics.counter("broker_connects_total")
        self._taken_over = metrics.counter("broker_takeovers_total")
        self._violated = metrics.counter("broker_protocol_errors_total")
        metrics.gauge("broker_clients_connected", lambda: self.online)

    # ── beginning ────────────────────────────────────────────────────────────────────────────────────────────────

    def connect(self, client: Client, connect: Connect, now: float) -> None:
        """Accept a client, or have its method ask it first."""
        self.connects.value += 1
        if connect.properties.authentication_method is None:
            self._accept(client, connect, b"", now)
        else:
            self.authenticating.begin(client, connect, now)

    def refuse(self, client: Client, reason: Reason, text: str) -> None:
        """An error CONNACK, and the end [MQTT-3.2.2-7]."""
        if reason not in reasons.CONNACK:
            reason = Reason.UNSPECIFIED_ERROR
        properties = Properties(reason_string=text) if text else NONE
        _say(client, client.connection.send(Connack(reason=reason, properties=properties)))  # [MQTT-3.2.2-6]
        client.finish()

    def _accept(self, client: Client, connect: Connect, data: bytes, now: float) -> None:
        identity = client.identity
        is_assigned = not identity.client_id
        if is_assigned and (connect.level == V5 or connect.clean_start):
            identity.client_id = self._draw_id(now)  # [MQTT-3.1.3-6]
        objection = self._objection(identity, connect, now)
        if objection is not None:
            reason, why = objection
            self._report.say("login_refused", client_id=connect.client_id, address=identity.address, reason=why)
            self.refuse(client, reason, why)
            return
        expiry_s = self._expiry(connect)
        session, is_resumed = self._session(identity, connect, expiry_s, now)
        session.expiry_s = expiry_s
        session.attach(client, self._limits.max_in_flight)
        client.session = session
        if is_resumed:
            self._sessions.note(session)
        self._wills.take(session, connect.will)
        self._sessions.come(session)
        self.online += 1
        self.most_online = max(self.most_online, self.online)
        self._note_pass(client)
        properties = self._greeting(connect, identity, expiry_s, data, is_assigned=is_assigned)
        if session.number and self._store is not None:
            client.hold = self._store.mark
        answer = Connack(session_present=is_resumed, properties=properties)  # [MQTT-3.2.2-2] [MQTT-3.2.2-3]
        greeting = client.connection.send(answer)
        if not greeting:  # it takes no packet as large as our CONNACK
            client.finish()
            self.part(client, now)
            return
        client.send(greeting)
        self._delivery.resume(session, now)

    def _objection(self, identity: Identity, connect: Connect, now: float) -> tuple[Reason, str] | None:
        """Why a client that is known is not accepted all the same, if so."""
        if not identity.client_id:
            return Reason.CLIENT_IDENTIFIER_NOT_VALID, "a session needs a client identifier"  # 3.1.1: [MQTT-3.1.3-8]
        will = connect.will
        if will is not None and not self._publishing.may_publish(identity, will.topic):
            return Reason.NOT_AUTHORIZED, f"may not publish its will to {will.topic!r}"
        failure = self._store.failure if self._store is not None else ""
        if failure and self._expiry(connect) and not self._knows(identity, connect, now):
            return Reason.QUOTA_EXCEEDED, f"no session can be stored: {failure}"
        return None

    def _knows(self, identity: Identity, connect: Connect, now: float) -> bool:
        """Whether the client goes on with a session that is stored: it shall not lose its view for want of a disk."""
        session = self._sessions.get(identity.client_id, now)
        if session is None or connect.clean_start:
            return False
        return session.number != 0 and _is_same_user(session.identity, identity)

    def _draw_id(self, now: float) -> str:
        return next(client_id for client_id in self._assigned if self._sessions.get(client_id, now) is None)

    def _expiry(self, connect: Connect) -> int:
        """How long the session outlives the connection, s."""
        if connect.level == V5:
            return self._capped(connect.properties.session_expiry or 0)
        return 0 if connect.clean_start else self._capped(NEVER)

    def _capped(self, expiry_s: int) -> int:
        most = self._limits.session_expiry_maximum_s
        return expiry_s if most is None else min(expiry_s, most)

    def _session(self, identity: Identity, connect: Connect, expiry_s: int, now: float) -> tuple[Session, bool]:
        """The session to go on with, and whether it was there before."""
        session = self._sessions.get(identity.client_id, now)
        if session is not None and session.client is not None:
            self._take_over(session.client, identity, now)
            session = self._sessions.get(identity.client_id, now)
        if session is not None:
            if not connect.clean_start and _is_same_user(session.identity, identity):
                if (session.identity.is_admin, session.identity.proof) != (identity.is_admin, identity.proof):
                    self._routes.forget()
                return session, True  # [MQTT-3.1.2-5]
            self._sessions.end(session, now)  # [MQTT-3.1.2-4]
        return self._sessions.create(identity, expiry_s), False  # [MQTT-3.1.2-6]

    def _take_over(self, old: Client, identity: Identity, now: float) -> None:
        """The same client has connected anew: the connection before is told, and ends here and now [MQTT-3.1.4-3]."""
        self._taken_over.value += 1
        reason = f"by {identity.address}, {identity.username or 'anonymous'}"
        self._report.say("taken_over", client_id=identity.client_id, address=old.identity.address, reason=reason)
        self.dismiss(old, Reason.SESSION_TAKEN_OVER, "", now)

    def _greeting(
        self, connect: Connect, identity: Identity, expiry_s: int, data: bytes, *, is_assigned: bool
    ) -> Properties:
        """What CONNACK says beside the terms, which the connection adds."""
        if connect.level != V5:
            return NONE
        most = self._limits.keep_alive_maximum_s
        is_shorter = most is not None and not 0 < connect.keep_alive <= most
        properties = Properties(
            assigned_client_id=identity.client_id if is_assigned else None,  # [MQTT-3.2.2-16]
            server_keep_alive=most if is_shorter else None,  # [MQTT-3.2.2-21]
            session_expiry=expiry_s if expiry_s != (connect.properties.session_expiry or 0) else None,
            authentication_data=data or None,
            authentication_method=connect.properties.authentication_method,
        )
        return NONE if properties == NONE else properties

    def _renewed(self, client: Client, identity: Identity) -> None:
        """A client has authenticated again: what it may do is what its new identity may."""
        identity.client_id = client.identity.client_id
        client.identity = identity
        if client.session is not None:
            client.session.identity = identity
        self._routes.forget()
        self._queues.recheck()
        self._note_pass(client)

    def _note_pass(self, client: Client) -> None:
        expires_at = client.identity.expires_at
        if expires_at is None:
            self._passes.drop(client)
        else:
            self._passes.put(client, expires_at)

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────

    def on_disconnect(self, client: Client, session: Session, packet: Disconnect, now: float) -> None:
        """The client says that it goes."""
        expiry_s = packet.properties.session_expiry
        if expiry_s is not None:
            session.expiry_s = self._capped(expiry_s)  # from 0 to more is refused by the connection (3.14.2.2.2)
        if packet.reason is Reason.SUCCESS:
            self._wills.discard(session)  # [MQTT-3.14.4-3]
        client.finish()  # [MQTT-3.14.4-1] [MQTT-3.14.4-2]
        self.part(client, now)

    def part(self, client: Client, now: float) -> None:
        """The connection is over, whoever ended it: the session goes its own way. Idempotent."""
        session = client.session
        if session is None:
            return
        client.session = None
        client.exchange = None
        self._passes.drop(client)
        self._routes.departed += 1
        self.online -= 1
        session.detach(now)
        self._delivery.detach(session)
        self._wills.begin(session, now)
        if not session.is_over and session.client is None:
            self._sessions.leave(session, now)

    def dismiss(self, client: Client, reason: Reason, text: str, now: float) -> None:
        """Send a client away with the reason, as far as its level can say it."""
        if reason not in reasons.DISCONNECT:
            reason = Reason.UNSPECIFIED_ERROR
        properties = Properties(reason_string=text) if text else NONE
        _say(client, client.connection.send(Disconnect(reason=reason, properties=properties)))
        client.finish()
        self.part(client, now)

    def violated(self, client: Client, error: RemoteProtocolError, now: float) -> None:
        """The client broke the protocol: that is the end of its connection [MQTT-4.13.1-1]."""
        self._violated.value += 1
        who = client.identity
        self._report.say("protocol_error", client_id=who.client_id, address=who.address, reason=str(error))
        if client.connection.is_connected:
            self.dismiss(client, error.reason, error.text, now)
        else:
            self.refuse(client, error.reason, error.text)

    def is_due(self, wall: float) -> bool:
        """Whether there is something for `expire` to do."""
        return self._passes.is_due(wall)

    def expire(self, now: float, wall: float, limit: int) -> None:
        """Send those away whose proof of identity has expired by the wall clock, so many at most."""
        while limit and (client := self._passes.take(wall)) is not None:
            limit -= 1
            self.dismiss(client, Reason.MAXIMUM_CONNECT_TIME, "the login has expired", now)


def _is_same_user(before: Identity, now: Identity) -> bool:
    """Whether a session may go on: another user must not get what was meant for the one before.

    Nor may somebody who only claims the name of a user that had proved it.
    """
    return before.username == now.username and (before.proof == "none" or now.proof != "none")


def _say(client: Client, data: bytes) -> None:
    if data:
        client.send(data)
