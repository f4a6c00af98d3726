"""Wills: what a client has published when it goes without a word, at once or after its will delay (3.1.2.5, 3.1.3.2.2).

A will belongs to one connection of a session: the next connection begins with its own, or none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.broker.agenda import Agenda
from gateway.broker.message import Message, forwarded
from gateway.broker.publishing import Publishing
from gateway.broker.session import Session
from gateway.mqtt.packets import Will

if TYPE_CHECKING:
    from gateway.broker.report import Report
    from gateway.broker.store import Store
    from gateway.metrics import Metrics


class Wills:
    """The wills of all sessions."""

    def __init__(self, publishing: Publishing, *, metrics: Metrics, report: Report, store: Store | None) -> None:
        self._publishing = publishing
        self._report = report
        self._store = store
        self._due: Agenda[Session] = Agenda()
        self._published = metrics.counter("broker_wills_published_total")

    def take(self, session: Session, will: Will | None) -> None:
        """A connection begins; the will of the one before is no more [MQTT-3.1.3-9]."""
        if session.will is not None:
            self.discard(session)
        if will is None:
            return
        message = Message(
            will.topic, will.payload, will.qos, will.retain, forwarded(will.properties), None, session.identity
        )
        session.will = message
        session.will_delay_s = will.properties.will_delay or 0
        if session.number and self._store is not None:
            self._store.will(session.number, message, math.inf, session.will_delay_s)

    def discard(self, session: Session) -> None:
        """It will not be published [MQTT-3.1.2-10]."""
        if session.will is not None:
            if session.number and self._store is not None:
                self._store.will_done(session.number)
            self._due.drop(session)
        session.will = None

    def begin(self, session: Session, now: float) -> None:
        """The connection was lost: the will is due after its delay, or when the session ends [MQTT-3.1.2-8]."""
        if session.will is None:
            return
        if not session.will_delay_s:
            self.publish(session, now)
            return
        self.schedule(session, now + session.will_delay_s)
        if session.number and self._store is not None:
            self._store.will(session.number, session.will, now + session.will_delay_s, session.will_delay_s)

    def schedule(self, session: Session, due: float) -> None:
        """Have a will published at that time."""
        self._due.put(session, due)

    def publish(self, session: Session, now: float) -> None:
        """Publish the will, if there is one, as its client would: the rules that hold now are asked."""
        will = session.will
        if will is None:
            return
        self.discard(session)  # [MQTT-3.1.2-10] once
        expiry = will.properties.message_expiry  # counts from now on (3.1.3.2.4)
        message = Message(
            will.topic,
            will.payload,
            will.qos,
            will.retain,
            will.properties,
            None if expiry is None else now + expiry,
            will.origin,
        )
        if self._publishing.publish(message, now):
            self._published.value += 1
            return
        who = will.origin
        self._report.say("denied", client_id=who.client_id, address=who.address, reason=f"will to {will.topic!r}")

    def is_due(self, now: float) -> bool:
        """Whether there is something for `publish_due` to do."""
        return self._due.is_due(now)

    def publish_due(self, now: float, limit: int) -> None:
        """Publish the wills that are due, so many at most."""
        while limit and (session := self._due.take(now)) is not None:
            limit -= 1
            self.publish(session, now)
