"""The broker: takes (client, packet, now) and says what goes to whom, without await, clock or socket.

Here the parts meet; each keeps its own rules:

    connecting    CONNECT, DISCONNECT, take-over, the end of connections      wills      published when a client is lost
    subscribing   SUBSCRIBE, UNSUBSCRIBE                                      sessions   all sessions, and their expiry
    publishing    PUBLISH, PUBREL: check, retain, route                       routing    who gets what is published
    delivery      what goes to clients, PUBACK, PUBREC, PUBCOMP               queues     what waits for them
    restoring     what the store found at the start                           door       the gateway's own way in
    statistics    what is said below $SYS

Order of the house: store, acknowledge, deliver. Whatever must be on disk before bytes may leave is noted in the store
first and the client's `hold` set to its mark; the link holds them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.broker.client import Client
from gateway.broker.connecting import Connecting
from gateway.broker.delivery import Delivery
from gateway.broker.door import Door
from gateway.broker.message import Message
from gateway.broker.publishing import Publishing
from gateway.broker.queues import Queues
from gateway.broker.restoring import Restoring
from gateway.broker.retained import Retained
from gateway.broker.routing import Routes, Subscriptions
from gateway.broker.session import Session
from gateway.broker.sessions import Sessions
from gateway.broker.statistics import Statistics
from gateway.broker.subscribing import Subscribing
from gateway.broker.topics import Trie
from gateway.broker.wills import Wills
from gateway.mqtt.connection import Terms
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import (
    Auth,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
)
from gateway.mqtt.reasons import Reason

if TYPE_CHECKING:
    from gateway.broker.access import Access
    from gateway.broker.options import Limits
    from gateway.broker.recovery import State
    from gateway.broker.report import Report
    from gateway.broker.store import Store
    from gateway.metrics import Metrics

SYS_INTERVAL_S: Final = 10.0
"""How often `$SYS` is said anew."""

_DUE: Final = 50
"""Wills, sessions, logins or retained messages whose time has come, done in one slice."""


class Broker:
    """All of it. `terms` is what every connection is told; `has_work`: call `more` in the next turn.

    `now` is s since 1970 and only grows; whoever calls reads the clock.
    """

    def __init__(
        self, limits: Limits, *, access: Access, metrics: Metrics, report: Report, store: Store | None, now: float
    ) -> None:
        self.terms = Terms(
            receive_maximum=limits.receive_maximum,
            maximum_packet_size=limits.packet_bytes,
            connect_bytes=limits.connect_bytes,
            topic_alias_maximum=limits.topic_alias_maximum,
        )
        self._limits = limits
        self._report = report
        self._access = access
        self._now = now
        self._subscriptions: Subscriptions = Trie(limits.topic_levels)
        self._retained: Retained[Message] = Retained(
            limits.retained_messages, limits.retained_bytes, metrics, limits.topic_levels
        )
        self._routes = Routes(self._subscriptions, access)
        self._queues = Queues(limits, metrics=metrics, report=report, store=store)
        self._delivery = Delivery(
            limits, queues=self._queues, retained=self._retained, access=access, metrics=metrics, store=store
        )
        self._publishing = Publishing(
            limits,
            subscriptions=self._subscriptions,
            routes=self._routes,
            retained=self._retained,
            delivery=self._delivery,
            metrics=metrics,
            report=report,
            store=store,
        )
        self._store = store
        self._compose_clients(limits, access, metrics, report, now)
        self._on_publish = self._publishing.on_publish
        self._on_puback = self._delivery.on_puback
        self._sys_at = now - SYS_INTERVAL_S  # at the first tick
        self._is_due = False
        self._ahead_s = 0.0
        self._packets = metrics.counter("broker_packets_received_total")
        self._timeouts = metrics.counter("broker_keep_alive_timeouts_total")
        metrics.gauge("broker_subscriptions", lambda: self._subscriptions.count)

    def _compose_clients(self, limits: Limits, access: Access, metrics: Metrics, report: Report, now: float) -> None:
        """The parts that deal with clients: how they come and go, and what they subscribe to."""
        store = self._store
        self._wills = Wills(self._publishing, metrics=metrics, report=report, store=store)
        self._sessions = Sessions(
            limits,
            subscriptions=self._subscriptions,
            delivery=self._delivery,
            wills=self._wills,
            metrics=metrics,
            store=store,
        )
        self._subscribing = Subscribing(
            limits,
            subscriptions=self._subscriptions,
            retained=self._retained,
            delivery=self._delivery,
            access=access,
            metrics=metrics,
            report=report,
            store=store,
        )
        self._connecting = Connecting(
            limits,
            sessions=self._sessions,
            wills=self._wills,
            delivery=self._delivery,
            queues=self._queues,
            publishing=self._publishing,
            routes=self._routes,
            access=access,
            metrics=metrics,
            report=report,
            store=store,
            now=now,
        )
        self._statistics = Statistics(
            metrics,
            subscriptions=self._subscriptions,
            retained=self._retained,
            queues=self._queues,
            sessions=self._sessions,
            connecting=self._connecting,
            now=now,
        )

    def __repr__(self) -> str:
        return f"<Broker: {self._connecting.online} clients, {len(self._sessions)} sessions>"

    # ── what the link calls ──────────────────────────────────────────────────────────────────────────────────────

    def connect(self, client: Client, connect: Connect, now: float) -> None:
        """Accept a client whose login was successful (`client.identity` is set), or run its authentication method."""
        self._now = now
        self._packets.value += 1
        try:
            self._connecting.connect(client, connect, now)
        except RemoteProtocolError as error:
            self._connecting.violated(client, error, now)

    def refuse(self, client: Client, reason: Reason, text: str) -> None:
        """Answer CONNECT with an error, then finish."""
        self._connecting.refuse(client, reason, text)

    def handle(self, client: Client, packet: Packet, now: float) -> None:
        """Take any packet after CONNECT. What a client sends after its session was taken over goes nowhere."""
        self._now = now
        self._packets.value += 1
        session = client.session
        try:
            if session is None:
                self._handle_stranger(client, packet, now)
            elif type(packet) is Publish:
                self._on_publish(client, session, packet, now)
            elif type(packet) is Puback:
                self._on_puback(session, packet, now)
            else:
                self._handle_other(client, session, packet, now)
        except RemoteProtocolError as error:
            self._connecting.violated(client, error, now)

    def _handle_other(self, client: Client, session: Session, packet: Packet, now: float) -> None:
        match packet:
            case Pubrec():
                self._delivery.on_pubrec(session, client, packet, now)
            case Pubrel():
                self._publishing.on_pubrel(client, session, packet)
            case Pubcomp():
                self._delivery.on_pubcomp(session, packet, now)
            case Pingreq():
                client.send(client.connection.send(Pingresp()))  # [MQTT-3.12.4-1]
            case Subscribe():
                self._subscribing.on_subscribe(client, session, packet, now)
            case Unsubscribe():
                self._subscribing.on_unsubscribe(client, session, packet)
            case Disconnect():
                self._connecting.on_disconnect(client, session, packet, now)
            case Auth():
                self._connecting.authenticating.on_auth(client, packet, now)
            case _:
                raise RemoteProtocolError(Reason.PROTOCOL_ERROR, f"{type(packet).__name__.upper()} from a client")

    def _handle_stranger(self, client: Client, packet: Packet, now: float) -> None:
        """Before CONNACK there is authentication only; after the end there is nothing."""
        if client.is_finished:
            return
        if isinstance(packet, Auth):
            self._connecting.authenticating.on_auth(client, packet, now)
        elif isinstance(packet, Disconnect):
            client.finish()

    def violated(self, client: Client, error: RemoteProtocolError, now: float) -> None:
        """The client broke the protocol: it is told the code where that can be said, and sent away; its will is due."""
        self._now = now
        self._connecting.violated(client, error, now)

    def lost(self, client: Client, now: float) -> None:
        """The transport is gone: the will is due, the session's time begins. Idempotent."""
        self._now = now
        self._connecting.part(client, now)

    def resumed(self, client: Client, now: float) -> None:
        """The transport takes bytes again: go on with what waits."""
        self._now = now
        if client.session is not None:
            self._delivery.resume(client.session, now)

    def idle(self, client: Client, now: float) -> None:
        """Nothing came for one and a half times the keep-alive [MQTT-3.1.2-22]."""
        self._now = now
        if client.session is None:
            return
        self._timeouts.value += 1
        who = client.identity
        reason = f"nothing for 1.5 x {client.connection.keep_alive} s"
        self._report.say("keep_alive_timeout", client_id=who.client_id, address=who.address, reason=reason)
        self._connecting.dismiss(client, Reason.KEEP_ALIVE_TIMEOUT, "", now)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float, ahead_s: float = 0.0) -> None:
        """Once a second: what is due by time alone. `ahead_s`: by how much the wall clock is ahead of `now`."""
        self._now = now
        self._ahead_s = ahead_s
        if self._store is not None:
            self._store.ahead_s = ahead_s
        self._is_due = True
        for client in self._queues.stalled(now):
            who = client.identity
            self._report.say("stalled", client_id=who.client_id, address=who.address, reason="it takes no messages")
            self._connecting.dismiss(client, Reason.QUOTA_EXCEEDED, "messages wait and are not taken", now)
        self._queues.tell_losses()
        self._routes.tick()
        if now - self._sys_at >= SYS_INTERVAL_S:
            self._sys_at = now
            for message in self._statistics.messages(now):
                self._publishing.publish(message, now)

    @property
    def has_work(self) -> bool:
        """Whether `more` has something to do."""
        return self._is_due or bool(self._delivery.busy)

    def more(self, now: float) -> bool:
        """Do a slice of what takes long: what is due by time, replays, queues. True: call again."""
        self._now = now
        if self._is_due:
            self._is_due = self._do_due(now)
        if self._delivery.busy:
            self._delivery.more(now)
        return self.has_work

    def _do_due(self, now: float) -> bool:
        """A slice of what is due by time; ten thousand sessions may end in the same second. True: there is more."""
        if self._wills.is_due(now):
            self._wills.publish_due(now, _DUE)
        elif self._sessions.is_due(now):
            self._sessions.expire(now, _DUE)
        elif self._connecting.is_due(now + self._ahead_s):
            self._connecting.expire(now, now + self._ahead_s, _DUE)
        else:
            gone = self._retained.sweep(now, _DUE)
            for message in gone:
                if message.number and self._store is not None:
                    self._store.unretain(message.topic)
            return len(gone) == _DUE
        return True

    # ── what the gateway calls ───────────────────────────────────────────────────────────────────────────────────

    def disconnect(self, client_id: str, reason: Reason, now: float) -> None:
        """Send a client away, if it is there."""
        session = self._sessions.get(client_id, now)
        if session is not None and session.client is not None:
            self._connecting.dismiss(session.client, reason, "", now)

    def shutdown(self, now: float) -> None:
        """Send everybody away; wills without delay are published, the others when their time comes after the start."""
        self._now = now
        for session in list(self._sessions):
            if session.client is not None:
                self._connecting.dismiss(session.client, Reason.SERVER_SHUTTING_DOWN, "", now)

    def access_changed(self, now: float) -> None:
        """Users or ACL were read anew: routes are worked out again, what waits is checked before it goes."""
        self._now = now
        self._routes.forget()
        self._queues.recheck()

    def restore(self, state: State, now: float) -> None:
        """At start, before anybody is let in: go on with what the store found."""
        self._now = now
        if self._store is not None:
            Restoring(
                self._limits,
                subscriptions=self._subscriptions,
                retained=self._retained,
                queues=self._queues,
                sessions=self._sessions,
                wills=self._wills,
                store=self._store,
            ).restore(state, now)

    def door(self, name: str = "gateway") -> Door:
        """A way in for the gateway itself."""
        return Door(
            name,
            publishing=self._publishing,
            routes=self._routes,
            subscriptions=self._subscriptions,
            access=self._access,
            clock=lambda: self._now,
        )
