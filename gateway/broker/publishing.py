"""What happens to a message that comes in: checked, kept where it is retained, given to whoever is on its route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.broker.client import Client, Identity
from gateway.broker.delivery import BURST_BYTES, Delivery
from gateway.broker.message import Message, forwarded
from gateway.broker.routing import DENIED, Group, Route, Routes, Subscriptions
from gateway.broker.session import Session, Target
from gateway.mqtt.encode import publish_parts
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import V5, V311, Puback, Pubcomp, Publish, Pubrec, Pubrel
from gateway.mqtt.properties import NONE, Properties
from gateway.mqtt.reasons import Reason

if TYPE_CHECKING:
    from gateway.broker.options import Limits
    from gateway.broker.report import Report
    from gateway.broker.retained import Retained
    from gateway.broker.store import Store
    from gateway.metrics import Metrics

_HEADS = 64
"""Beginnings of a PUBLISH remembered for each topic: one for each length of payload and level."""

_WHY = {
    Reason.NOT_AUTHORIZED: Properties(reason_string="not authorized to publish on this topic"),
    Reason.QUOTA_EXCEEDED: Properties(reason_string="there is no room to keep it"),
    Reason.PACKET_IDENTIFIER_IN_USE: Properties(reason_string="a QoS 2 message has this packet identifier"),
}
"""What PUBACK and PUBREC say beside a refusal."""


class Publishing:
    """Takes PUBLISH and PUBREL from clients, wills, and the gateway's own messages."""

    def __init__(
        self,
        limits: Limits,
        *,
        subscriptions: Subscriptions,
        routes: Routes,
        retained: Retained[Message],
        delivery: Delivery,
        metrics: Metrics,
        report: Report,
        store: Store | None,
    ) -> None:
        # A client of 3.1.1 isn't told our receive maximum, and a session outlives connections: ten times as many.
        self._most_inbound = 10 * limits.receive_maximum
        self._subscriptions = subscriptions
        self._routes = routes
        self._known = routes.known
        self._retained = retained
        self._delivery = delivery
        self._report = report
        self._store = store
        self._puback, self._pubrec, self._pubcomp = Puback(0), Pubrec(0), Pubcomp(0)
        # Each of these says all that went well: nobody keeps one.
        self.received = metrics.counter("broker_messages_received_total")
        self.received_bytes = metrics.counter("broker_payload_bytes_received_total")
        self._denied = metrics.counter("broker_publish_denied_total")
        self._refused = metrics.counter("broker_publish_refused_total")
        self._repeated = metrics.counter("broker_publish_repeated_total")

    # ── from clients ─────────────────────────────────────────────────────────────────────────────────────────────

    def on_publish(self, client: Client, session: Session, packet: Publish, now: float) -> None:
        """A client's message."""
        self.received.value += 1
        self.received_bytes.value += len(packet.payload)
        topic = packet.topic
        route = self._known.get(topic)
        if route is None or route.generation != self._subscriptions.generation:
            route = self._routes.find(topic)
        targets = route.admitted.get(client.identity)
        if targets is None:
            targets = self._routes.admit(route, client.identity)
        if packet.qos:
            self._acknowledge(client, session, packet, route, targets, now)
        elif targets is DENIED:
            self._deny(client, topic)
        elif route.is_simple and not packet.retain and packet.properties is NONE:
            self._fan_out(route, targets, packet.payload, client.identity, now)
        else:
            self._publish(_message(packet, client.identity, now), route, targets, now)

    def _fan_out(self, route: Route, targets: tuple[Target, ...], payload: bytes, origin: Identity, now: float) -> None:
        """QoS 0 without properties: one buffer for each level, straight into the clients' output."""
        count = 0
        message = None
        data_4 = data_5 = b""
        for session, _, identifiers, _ in targets:
            client = session.client
            if client is None:
                continue
            if (
                identifiers
                or session.has_more
                or not session.is_plain
                or client.is_congested
                or client.out_bytes > BURST_BYTES
            ):
                if message is None:
                    message = Message(route.topic, payload, 0, False, NONE, None, origin)
                self._delivery.deliver(session, message, 0, False, identifiers, now)
                continue
            if session.level == V5:
                data = data_5 = data_5 or _whole(route, payload, V5)
            else:
                data = data_4 = data_4 or _whole(route, payload, V311)
            out = client.out
            if not out:
                client.ready()
            out.append(data)
            client.out_bytes += len(data)
            count += 1
        self._delivery.sent.value += count
        self._delivery.sent_bytes.value += count * len(payload)

    def _acknowledge(
        self, client: Client, session: Session, packet: Publish, route: Route, targets: tuple[Target, ...], now: float
    ) -> None:
        """QoS 1 and 2: store, acknowledge, deliver. What all three note leaves together at the end of the turn."""
        packet_id, qos = packet.packet_id, packet.qos
        delivery = self._delivery
        delivery.stored = False
        message = None
        if packet_id in session.inbound:
            reason = self._repeat(packet, session)
        else:
            reason, message = self._judge(client, session, packet, route, targets, now)
            if qos == 2 and (message is not None or session.level != V5):
                self._note_inbound(session, packet_id)
        if reason is Reason.SUCCESS or session.level != V5:
            answer = self._puback if qos == 1 else self._pubrec
            answer.packet_id = packet_id
        else:
            properties = _WHY.get(reason, NONE)
            answer = Puback(packet_id, reason, properties) if qos == 1 else Pubrec(packet_id, reason, properties)
        data = client.connection.send(answer)
        out = client.out
        if not out:
            client.ready()
        out.append(data)
        client.out_bytes += len(data)
        if message is not None:
            self._spread(message, route, targets, now)
        if delivery.stored and self._store is not None:
            client.hold = self._store.mark

    def _repeat(self, packet: Publish, session: Session) -> Reason:
        """A PUBLISH whose identifier is in use by QoS 2: the same message again, or a mistake of the client."""
        if packet.qos == 2:
            self._repeated.value += 1
            return Reason.SUCCESS  # [MQTT-4.3.3-10] it is not published a second time
        if session.level != V5:
            raise RemoteProtocolError(Reason.PROTOCOL_ERROR, f"packet identifier {packet.packet_id} is in use")
        return Reason.PACKET_IDENTIFIER_IN_USE

    def _judge(
        self,
        client: Client,
        session: Session,
        packet: Publish,
        route: Route,
        targets: tuple[Target, ...],
        now: float,
    ) -> tuple[Reason, Message | None]:
        """The code of a QoS 1 or 2 message; and the message, kept where it is retained, if it goes on."""
        if targets is DENIED:
            self._deny(client, packet.topic)
            return Reason.NOT_AUTHORIZED, None  # 3.1.1 has no word for it: acknowledged, and dropped
        store = self._store
        if store is not None and store.failure and _needs_store(session, packet, route, targets):
            self._refused.value += 1
            if session.level != V5:
                raise RemoteProtocolError(Reason.QUOTA_EXCEEDED, f"nothing can be stored: {store.failure}")
            return Reason.QUOTA_EXCEEDED, None
        message = _message(packet, client.identity, now)
        message.is_again = packet.dup
        if packet.retain and not self._retain(message) and session.level == V5:
            self._refused.value += 1
            return Reason.QUOTA_EXCEEDED, None
        if targets or route.is_wanted:
            return Reason.SUCCESS, message
        return Reason.NO_MATCHING_SUBSCRIBERS, message

    def _note_inbound(self, session: Session, packet_id: int) -> None:
        """Until PUBREL comes, that identifier means that message [MQTT-4.3.3-10]."""
        if len(session.inbound) >= self._most_inbound:
            raise RemoteProtocolError(Reason.RECEIVE_MAXIMUM_EXCEEDED, "too many QoS 2 messages are unfinished")
        session.inbound[packet_id] = None
        if session.number and self._store is not None:
            self._store.inbound(session.number, packet_id)
            self._delivery.stored = True

    def _deny(self, client: Client, topic: str) -> None:
        who = client.identity
        self._denied.value += 1
        self._report.say("denied", client_id=who.client_id, address=who.address, reason=f"may not publish {topic!r}")

    def on_pubrel(self, client: Client, session: Session, packet: Pubrel) -> None:
        """The client will not send that message again: its identifier is free."""
        packet_id = packet.packet_id
        if packet_id in session.inbound:
            del session.inbound[packet_id]  # [MQTT-4.3.3-12]
            if session.number and self._store is not None:
                self._store.inbound_done(session.number, packet_id)
                client.hold = self._store.mark  # the client may use the identifier anew once it has seen PUBCOMP
            answer = self._pubcomp
            answer.packet_id = packet_id
        else:  # [MQTT-4.3.3-11]
            reason = Reason.PACKET_IDENTIFIER_NOT_FOUND if session.level == V5 else Reason.SUCCESS
            answer = Pubcomp(packet_id, reason)
        client.send(client.connection.send(answer))

    # ── from the broker itself ───────────────────────────────────────────────────────────────────────────────────

    def may_publish(self, who: Identity, topic: str) -> bool:
        """Whether a message of this identity would be accepted."""
        return self._routes.admit(self._routes.find(topic), who) is not DENIED

    def publish(self, message: Message, now: float) -> bool:
        """A will, or a message of the gateway. False: its origin may not publish there."""
        route = self._routes.find(message.topic)
        targets = route.admitted.get(message.origin)
        if targets is None:
            targets = self._routes.admit(route, message.origin)
        if targets is DENIED:
            self._denied.value += 1
            return False
        self._publish(message, route, targets, now)
        return True

    def _publish(self, message: Message, route: Route, targets: tuple[Target, ...], now: float) -> None:
        if message.retain:
            self._retain(message)
        self._spread(message, route, targets, now)

    def _retain(self, message: Message) -> bool:
        """Keep or clear what is retained on the topic. False: there is no room."""
        store = None if self._store is None or message.origin.is_gateway else self._store
        if not message.payload:
            old = self._retained.clear(message.topic)  # [MQTT-3.3.1-6] [MQTT-3.3.1-7]
            if old is not None and old.number and self._store is not None:
                self._store.unretain(message.topic)
                self._delivery.stored = True
            return True
        old = self._retained.get(message.topic, 0.0)
        if not self._retained.set(message):  # [MQTT-3.3.1-5]
            return False
        if store is not None:
            store.retain(message)
            self._delivery.stored = True
        elif old is not None and old.number and self._store is not None:
            self._store.unretain(message.topic)
        return True

    def _spread(self, message: Message, route: Route, targets: tuple[Target, ...], now: float) -> None:
        """Give a message to all who get it."""
        if message.expires_at is not None and message.expires_at < now:  # an expiry of 0 s: who can take it now gets it
            return
        deliver = self._delivery.deliver
        published_qos, published_retain = message.qos, message.retain
        for session, qos, identifiers, as_published in targets:
            retain = as_published and published_retain  # [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            deliver(session, message, qos if qos < published_qos else published_qos, retain, identifiers, now)  # noqa: FURB136 - hot
        if not route.is_simple:
            for ear in route.ears:
                ear.callback(message)
            for group in route.groups:
                self._share(message, route, group, now)
        if published_retain:
            message.forget()

    def _share(self, message: Message, route: Route, group: Group, now: float) -> None:
        """Give a message to one member of a shared subscription [MQTT-4.8.2-4]."""
        chosen = self._routes.choose(route, group, message, now)
        if chosen is None:
            return
        session, entry = chosen
        retain = entry.retain_as_published and message.retain
        self._delivery.deliver(session, message, min(entry.qos, message.qos), retain, entry.identifiers, now)


def _needs_store(session: Session, packet: Publish, route: Route, targets: tuple[Target, ...]) -> bool:
    if packet.retain or (packet.qos == 2 and session.number) or route.groups:
        return True
    return any(target[0].number and target[1] for target in targets)


def _message(packet: Publish, origin: Identity, now: float) -> Message:
    properties = packet.properties
    if properties is NONE:
        return Message(packet.topic, packet.payload, packet.qos, packet.retain, NONE, None, origin)
    properties = forwarded(properties)
    expires_at = None if properties.message_expiry is None else now + properties.message_expiry
    return Message(packet.topic, packet.payload, packet.qos, packet.retain, properties, expires_at, origin)


def _whole(route: Route, payload: bytes, level: int) -> bytes:
    """A PUBLISH of QoS 0 without properties. Its beginning depends on the payload's length only."""
    key = len(payload) << 3 | level
    head = route.heads.get(key)
    tail = b"\0" + payload if level == V5 else payload
    if head is None:
        head, tail = publish_parts(route.topic, payload, 0, False, level, NONE)
        if len(route.heads) >= _HEADS:
            route.heads.clear()
        route.heads[key] = head
    return head + tail
