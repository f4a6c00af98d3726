"""SUBSCRIBE and UNSUBSCRIBE: one code for each filter, and the retained messages that a new subscription brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.broker.client import Client
from gateway.broker.delivery import Delivery
from gateway.broker.message import Message
from gateway.broker.routing import Subscriptions
from gateway.broker.session import Entry, Session
from gateway.broker.topics import Filter, FullError, parse_filter
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import V5, Suback, Subscribe, Subscription, Unsuback, Unsubscribe
from gateway.mqtt.reasons import Reason

if TYPE_CHECKING:
    from gateway.broker.access import Access
    from gateway.broker.options import Limits
    from gateway.broker.report import Report
    from gateway.broker.retained import Retained
    from gateway.broker.store import Store
    from gateway.metrics import Metrics

_GRANTED = (Reason.SUCCESS, Reason.GRANTED_QOS_1, Reason.GRANTED_QOS_2)

_LOOKED_AT = 1_000
"""Filters of one packet that are looked at, if a session may not have more: a megabyte of them would take a second."""


class Subscribing:
    """Takes SUBSCRIBE and UNSUBSCRIBE."""

    def __init__(
        self,
        limits: Limits,
        *,
        subscriptions: Subscriptions,
        retained: Retained[Message],
        delivery: Delivery,
        access: Access,
        metrics: Metrics,
        report: Report,
        store: Store | None,
    ) -> None:
        self._limits = limits
        self._looked_at = max(limits.subscriptions, _LOOKED_AT)
        self._subscriptions = subscriptions
        self._retained = retained
        self._delivery = delivery
        self._access = access
        self._report = report
        self._store = store
        self._refused = metrics.counter("broker_subscribe_refused_total")

    def on_subscribe(self, client: Client, session: Session, packet: Subscribe, now: float) -> None:
        """Grant or refuse each filter by itself [MQTT-3.8.4-5] [MQTT-3.8.4-6]."""
        if any(s.no_local and s.filter.startswith("$share/") for s in packet.subscriptions):
            raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "no local on a shared subscription")  # [MQTT-3.8.3-4]
        identifier = (
            packet.properties.subscription_identifiers[0] if packet.properties.subscription_identifiers else None
        )
        codes: list[Reason] = []
        replays: list[Entry] = []
        for wanted in packet.subscriptions[: self._looked_at]:
            code, entry = self._grant(client, session, packet.packet_id, wanted, identifier)
            codes.append(code)
            if entry is not None:
                replays.append(entry)
        beyond = len(packet.subscriptions) - len(codes)
        codes += [Reason.QUOTA_EXCEEDED] * beyond
        self._refused.value += beyond
        if session.number and self._store is not None and any(code < 0x80 for code in codes):
            client.hold = self._store.mark
        client.send(client.connection.send(Suback(packet.packet_id, tuple(codes))))  # [MQTT-3.8.4-1]
        for entry in replays:
            self._delivery.replay(session, entry, self._retained.match(entry.filter))
        if replays:
            self._delivery.pump(session, now)

    def _grant(
        self, client: Client, session: Session, packet_id: int, wanted: Subscription, identifier: int | None
    ) -> tuple[Reason, Entry | None]:
        """The code of one filter, and the subscription if retained messages are due to it."""
        try:
            parsed = parse_filter(wanted.filter, self._limits.topic_levels)
        except ValueError as error:
            return self._refuse(client, Reason.TOPIC_FILTER_INVALID, str(error)), None
        reason, why = self._objection(session, packet_id, parsed)
        if reason is not None:
            return self._refuse(client, reason, why), None
        entry = Entry(parsed, wanted, identifier, session)
        try:
            existed = self._subscriptions.add(parsed, session, entry)  # [MQTT-3.8.4-3]
        except FullError as error:
            return self._refuse(client, Reason.QUOTA_EXCEEDED, str(error)), None
        session.subscriptions[parsed.text] = entry
        if session.number and self._store is not None:
            self._store.subscribe(session.number, wanted, identifier)
        is_due = wanted.retain_handling == 0 or (wanted.retain_handling == 1 and not existed)
        return _GRANTED[wanted.qos], entry if is_due and parsed.share is None else None  # [MQTT-3.3.1-9 to -11]

    def _objection(self, session: Session, packet_id: int, parsed: Filter) -> tuple[Reason | None, str]:
        """Why a valid filter is refused, if it is."""
        if session.level == V5 and packet_id in session.inbound:
            return Reason.PACKET_IDENTIFIER_IN_USE, f"packet identifier {packet_id} is in use"
        if not self._access.may_subscribe(session.identity, parsed.plain):
            return Reason.NOT_AUTHORIZED, f"may not subscribe to {parsed.text!r}"
        is_new = parsed.text not in session.subscriptions
        if is_new and len(session.subscriptions) >= self._limits.subscriptions:
            return Reason.QUOTA_EXCEEDED, f"it has {len(session.subscriptions)} subscriptions already"
        if is_new and session.number and self._store is not None and self._store.failure:
            return Reason.QUOTA_EXCEEDED, f"nothing can be stored: {self._store.failure}"
        return None, ""

    def _refuse(self, client: Client, reason: Reason, why: str) -> Reason:
        self._refused.value += 1
        who = client.identity
        event = "denied" if reason is Reason.NOT_AUTHORIZED else "subscribe_refused"
        self._report.say(event, client_id=who.client_id, address=who.address, reason=why)
        return reason

    def on_unsubscribe(self, client: Client, session: Session, packet: Unsubscribe) -> None:
        """End subscriptions, compared letter by letter [MQTT-3.10.4-1]; what is in flight goes on [MQTT-3.10.4-3]."""
        most = self._looked_at
        codes = tuple([self._end(session, packet.packet_id, text, at < most) for at, text in enumerate(packet.filters)])
        if session.number and self._store is not None and Reason.SUCCESS in codes:
            client.hold = self._store.mark
        client.send(client.connection.send(Unsuback(packet.packet_id, codes)))  # [MQTT-3.10.4-4] [MQTT-3.10.4-5]

    def _end(self, session: Session, packet_id: int, text: str, is_looked_at: bool) -> Reason:  # noqa: FBT001
        if session.level == V5 and packet_id in session.inbound:
            return Reason.PACKET_IDENTIFIER_IN_USE
        entry = session.subscriptions.pop(text, None)
        if entry is None:
            return self._unknown(text) if is_looked_at else Reason.NO_SUBSCRIPTION_EXISTED
        self._subscriptions.remove(entry.filter, session)
        self._delivery.end_replay(session, text)
        if session.number and self._store is not None:
            self._store.unsubscribe(session.number, text)
        return Reason.SUCCESS

    def _unknown(self, text: str) -> Reason:
        try:
            parse_filter(text, self._limits.topic_levels)
        except ValueError:
            return Reason.TOPIC_FILTER_INVALID
        return Reason.NO_SUBSCRIPTION_EXISTED
