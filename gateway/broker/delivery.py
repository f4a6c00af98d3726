"""How messages leave: straight to the client, or through its session's queue, within the client's window and ours.

Nobody waits for a subscriber: what can't go at once waits in the session (see `queues`) until an acknowledgement opens
the window, the transport takes bytes again, or the next turn of the loop comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.broker.client import Client
from gateway.broker.message import Message
from gateway.broker.queues import Queues
from gateway.broker.session import Entry, Replaying, Sending, Session
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import V5, Puback, Pubcomp, Pubrec, Pubrel
from gateway.mqtt.reasons import Reason

if TYPE_CHECKING:
    from gateway.broker.access import Access
    from gateway.broker.options import Limits
    from gateway.broker.retained import Replay, Retained
    from gateway.broker.store import Store
    from gateway.metrics import Metrics

SLICE: Final = 128
"""Messages that one session may be sent in one go; the rest goes on in the next turn, after others had theirs."""

BURST_BYTES: Final = 1024 * 1024
"""What may lie ready for one client within a turn; beyond it messages wait for the next one."""

_LOOK: Final = 64
"""Places of the retained tree looked at in one step."""

_MISSING: Final[Any] = (None, -1, False, (), 0)


class Delivery:
    """Sends to sessions. `busy`: those that go on next turn. `stored`: the store was told something since False."""

    def __init__(
        self,
        limits: Limits,
        *,
        queues: Queues,
        retained: Retained[Message],
        access: Access,
        metrics: Metrics,
        store: Store | None,
    ) -> None:
        self._flight_bytes = limits.queue_bytes
        self._queues = queues
        self._retained = retained
        self._access = access
        self._store = store
        self._pubrel = Pubrel(0)  # one says all that went well: nobody keeps it
        self.busy: dict[Session, None] = {}
        self.stored = False
        self.sent = metrics.counter("broker_messages_sent_total")
        self.sent_bytes = metrics.counter("broker_payload_bytes_sent_total")
        drops = "broker_messages_dropped_total"
        self._expired = metrics.counter(drops, cause="expired")
        self._too_large = metrics.counter(drops, cause="too_large")
        self._denied = metrics.counter(drops, cause="denied")
        self._refused = metrics.counter(drops, cause="refused")

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def deliver(
        self,
        session: Session,
        message: Message,
        qos: int,
        retain: bool,  # noqa: FBT001 - as in a Sending
        identifiers: tuple[int, ...],
        now: float,
    ) -> None:
        """Give a session a message with this QoS: now if it can take it, later if it may wait."""
        client = session.client
        if qos == 0:
            if client is None:
                return
            if session.waiting_0 or client.is_congested or client.out_bytes > BURST_BYTES:
                self._wait(session, client, message, 0, retain, identifiers)
            else:
                self._send_0(session, client, (message, 0, retain, identifiers, 0), now)
            return
        in_flight = session.in_flight
        if (
            client is None
            or session.has_more
            or session.number
            or not session.is_plain
            or len(in_flight) >= session.window
            or client.is_congested
            or client.out_bytes > BURST_BYTES
            or session.flight_bytes > self._flight_bytes
        ):
            self._deliver_carefully(session, message, qos, retain, identifiers, now)
            return
        packet_id = session.last_id + 1
        if packet_id > 0xFFFF or packet_id in in_flight:
            packet_id = session.draw_id()
        else:
            session.last_id = packet_id
        in_flight[packet_id] = (message, qos, retain, identifiers, 0)
        session.flight_bytes += message.size
        head, tail = message.parts(session.level, qos, retain, identifiers, now)
        data = head + packet_id.to_bytes(2, "big") + tail
        out = client.out
        if not out:
            client.ready()
        out.append(data)
        client.out_bytes += len(data)
        self.sent.value += 1
        self.sent_bytes.value += len(message.payload)

    def _deliver_carefully(
        self,
        session: Session,
        message: Message,
        qos: int,
        retain: bool,  # noqa: FBT001 - as in a Sending
        identifiers: tuple[int, ...],
        now: float,
    ) -> None:
        """QoS 1 and 2 for a session that is durable, or has limits, or must wait."""
        client = session.client
        if session.number:
            self._keep(session, message, qos, retain, identifiers)
        if (
            client is None
            or session.waiting
            or session.unsent
            or len(session.in_flight) >= session.window
            or client.is_congested
            or client.out_bytes > BURST_BYTES
            or session.flight_bytes > self._flight_bytes
        ):
            self._wait(session, client, message, qos, retain, identifiers)
        else:
            self._launch(session, client, (message, qos, retain, identifiers, 0), now)

    def _wait(
        self,
        session: Session,
        client: Client | None,
        message: Message,
        qos: int,
        retain: bool,  # noqa: FBT001 - as in a Sending
        identifiers: tuple[int, ...],
    ) -> None:
        self._queues.put(session, message, qos, retain, identifiers)
        if client is not None and not client.is_congested and client.out_bytes > BURST_BYTES:
            self.busy[session] = None  # nobody else will wake it

    def _keep(self, session: Session, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...]) -> None:  # noqa: FBT001
        store = self._store
        assert store is not None  # noqa: S101 - sessions have numbers only where there is a store
        if not message.number:
            store.message(message)
        store.queue(session.number, message.number, qos, retain, identifiers)
        self.stored = True

    def _send_0(self, session: Session, client: Client, sending: Sending, now: float) -> None:
        data = self._encode(session, client, sending, 0, now)
        if data is None:
            self._too_large.value += 1  # [MQTT-3.1.2-25]
            return
        client.send(data)
        self._count(sending[0])

    def _launch(self, session: Session, client: Client, sending: Sending, now: float) -> None:
        """Put a message into flight."""
        message = sending[0]
        packet_id = session.draw_id()
        data = self._encode(session, client, sending, packet_id, now)
        if data is None:
            self._too_large.value += 1  # [MQTT-3.1.2-25] as if it had been delivered
            if session.number and self._store is not None:
                self._store.drop(session.number, message.number)
            return
        session.in_flight[packet_id] = sending
        session.flight_bytes += message.size
        if session.number and self._store is not None:
            self._store.send(session.number, message.number, packet_id)
            client.hold = self._store.mark
        client.send(data)
        self._count(message)

    def _count(self, message: Message) -> None:
        self.sent.value += 1
        self.sent_bytes.value += len(message.payload)

    def _encode(
        self, session: Session, client: Client, sending: Sending, packet_id: int, now: float, *, dup: bool = False
    ) -> bytes | None:
        """The PUBLISH as this client gets it; None where it is larger than the client takes [MQTT-3.1.2-24]."""
        message, qos, retain, identifiers, _ = sending
        if session.has_aliases:
            properties = message.outward(identifiers, now)
            topic, payload = message.topic, message.payload
            return client.connection.publish(topic, payload, qos, retain, dup, packet_id, properties)
        head, tail = message.parts(session.level, qos, retain, identifiers, now)
        if dup:
            head = bytes((head[0] | 0x08,)) + head[1:]  # [MQTT-3.3.1-1]
        data = head + packet_id.to_bytes(2, "big") + tail if qos else head + tail
        return data if len(data) <= session.max_size else None

    # ── acknowledgements ─────────────────────────────────────────────────────────────────────────────────────────

    def on_puback(self, session: Session, packet: Puback, now: float) -> None:
        """QoS 1 has arrived, or was refused: either way it is over [MQTT-4.4.0-2]."""
        packet_id = packet.packet_id
        sending = session.in_flight.get(packet_id, _MISSING)
        if sending is None or sending[1] != 1:
            if sending is _MISSING:
                return  # of an exchange that was over before
            raise RemoteProtocolError(Reason.PROTOCOL_ERROR, f"PUBACK for {packet_id}, which went out with QoS 2")
        if packet.reason >= 0x80:
            self._refused.value += 1  # [MQTT-4.8.2-6] nor is it offered to another member of a shared subscription
        self._end_exchange(session, packet_id, sending, now)

    def on_pubrec(self, session: Session, client: Client, packet: Pubrec, now: float) -> None:
        """QoS 2 has arrived: from now on only PUBREL is sent [MQTT-4.3.3-6]."""
        packet_id = packet.packet_id
        sending = session.in_flight.get(packet_id, _MISSING)
        if sending is _MISSING:
            reason = Reason.PACKET_IDENTIFIER_NOT_FOUND if session.level == V5 else Reason.SUCCESS
            client.send(client.connection.send(Pubrel(packet_id, reason)))
            return
        if sending is not None:
            if sending[1] != 2:
                raise RemoteProtocolError(Reason.PROTOCOL_ERROR, f"PUBREC for {packet_id}, which went out with QoS 1")
            if packet.reason >= 0x80:
                self._refused.value += 1
                self._end_exchange(session, packet_id, sending, now)
                return
            self._release(session, client, packet_id, sending)
        release = self._pubrel
        release.packet_id = packet_id
        client.send(client.connection.send(release))

    def _release(self, session: Session, client: Client, packet_id: int, sending: Sending) -> None:
        session.in_flight[packet_id] = None
        session.flight_bytes -= sending[0].size
        if session.unsent:
            session.unsent.pop(packet_id, None)
        if session.number and self._store is not None:
            self._store.received(session.number, packet_id)
            client.hold = self._store.mark  # once PUBREL has gone, that PUBLISH must never go again

    def on_pubcomp(self, session: Session, packet: Pubcomp, now: float) -> None:
        """The end of QoS 2."""
        packet_id = packet.packet_id
        sending = session.in_flight.get(packet_id, _MISSING)
        if sending is _MISSING:
            return
        if sending is not None:
            raise RemoteProtocolError(Reason.PROTOCOL_ERROR, f"PUBCOMP for {packet_id} without PUBREC before it")
        self._end_exchange(session, packet_id, None, now)

    def _end_exchange(self, session: Session, packet_id: int, sending: Sending | None, now: float) -> None:
        """The packet identifier is free, and its place in the window [MQTT-4.9.0-2]."""
        del session.in_flight[packet_id]
        if sending is not None:
            session.flight_bytes -= sending[0].size
        if session.unsent:
            session.unsent.pop(packet_id, None)
        if session.number and self._store is not None:
            self._store.done(session.number, packet_id)
        if session.has_more:
            self.pump(session, now)

    # ── going on ─────────────────────────────────────────────────────────────────────────────────────────────────

    def pump(self, session: Session, now: float, limit: int = SLICE) -> int:
        """Send what waits: first what is in flight from an earlier connection. Returns how many."""
        count = 0
        client = session.client
        while client is not None and session.has_more and not client.is_congested:
            if count >= limit or client.out_bytes > BURST_BYTES:
                self.busy[session] = None
                break
            steps = self._step(session, client, now)
            if not steps:
                break
            count += steps
        if count:
            self._queues.moved(session)
        return count

    def _step(self, session: Session, client: Client, now: float) -> int:
        """Send one thing that waits. 0: nothing can go before an acknowledgement comes."""
        unsent, queue, queue_0 = session.unsent, session.waiting, session.waiting_0
        has_room = len(session.in_flight) - (len(unsent) if unsent else 0) < session.window
        if unsent and has_room:
            self._send_again(session, client, unsent.popitem(last=False)[0], now)
            self._queues.settle(session)
            return 1
        may_launch = has_room and not unsent and session.flight_bytes <= self._flight_bytes
        if queue_0 and not (may_launch and queue and queue[0][4] < queue_0[0][4]):
            self._send_next_0(session, client, now)  # [MQTT-4.9.0-3] it needs no place in the window
        elif queue:
            if not may_launch:
                return 0
            self._send_next(session, client, now)
        elif session.replays:
            return self._replay(session, client, session.replays, now, may_launch=may_launch)
        else:
            return 0
        self._queues.settle(session)
        return 1

    def _send_next_0(self, session: Session, client: Client, now: float) -> None:
        is_checked = not session.unchecked_0
        sending = self._queues.take_0(session)
        if self._is_wanted(session, sending, now, is_checked=is_checked):
            self._send_0(session, client, sending, now)

    def _send_next(self, session: Session, client: Client, now: float) -> None:
        is_checked = not session.unchecked
        sending = self._queues.take(session)
        if self._is_wanted(session, sending, now, is_checked=is_checked):
            self._launch(session, client, sending, now)
        else:
            self._queues.forget(session, sending)

    def _is_wanted(self, session: Session, sending: Sending, now: float, *, is_checked: bool) -> bool:
        """Whether what waited may still go: it has not expired [MQTT-3.3.2-5], and the client may (still) read it."""
        message = sending[0]
        if message.is_expired(now):
            self._expired.value += 1
            return False
        if not is_checked and not self._access.may_read(session.identity, message.topic):
            self._denied.value += 1
            return False
        return True

    def _send_again(self, session: Session, client: Client, packet_id: int, now: float) -> None:
        """Repeat what was not acknowledged on an earlier connection, with its identifier [MQTT-4.4.0-1]."""
        sending = session.in_flight[packet_id]
        if sending is None:
            client.send(client.connection.send(Pubrel(packet_id)))
            return
        if not self._access.may_read(session.identity, sending[0].topic):
            data = None
            self._denied.value += 1
        else:
            data = self._encode(session, client, sending, packet_id, now, dup=True)
            self._too_large.value += data is None
        if data is not None:
            client.send(data)
            self._count(sending[0])
            return
        session.flight_bytes -= sending[0].size
        del session.in_flight[packet_id]
        if session.number and self._store is not None:
            self._store.done(session.number, packet_id)

    def _replay(
        self, session: Session, client: Client, replays: dict[str, Replaying], now: float, *, may_launch: bool
    ) -> int:
        """Send the next retained message for a new subscription, through the window like any other."""
        text, replaying = next(iter(replays.items()))
        entry, taken = replaying.entry, replaying.taken
        if not taken:
            taken.extend(replaying.replay.take(_LOOK, now))
            if not taken and replaying.replay.is_done:
                self.end_replay(session, text)
            return _LOOK
        found = taken[0]
        qos = min(found.qos, entry.qos)
        if qos and not may_launch:
            return 0
        taken.popleft()
        if self._is_due(session, entry, found, now):
            # The store keeps a client's retained message; one of the gateway's only while somebody waits for it.
            message = found.copy() if session.number and found.origin.is_gateway else found
            if qos and session.number:
                self._keep(session, message, qos, True, entry.identifiers)
            send = self._launch if qos else self._send_0
            send(session, client, (message, qos, True, entry.identifiers, 0), now)  # [MQTT-3.3.1-8]
            message.forget()
        return 1

    def _is_due(self, session: Session, entry: Entry, message: Message, now: float) -> bool:
        """Whether a retained message is still the topic's, and for this client."""
        if self._retained.get(message.topic, now) is not message:
            return False  # what came in its place was delivered live
        origin = message.origin
        if entry.no_local and origin.client_id == session.client_id and not origin.is_gateway:
            return False  # [MQTT-3.8.3-3]
        if self._access.may_read(session.identity, message.topic):
            return True
        self._denied.value += 1
        return False

    def replay(self, session: Session, entry: Entry, replay: Replay[Message]) -> None:
        """Have retained messages sent by the next `pump`; those for the same filter that are under way begin anew."""
        self.end_replay(session, entry.filter.text)
        if session.replays is None:
            session.replays = {}
        session.replays[entry.filter.text] = Replaying(entry, replay)
        session.has_more = True

    def end_replay(self, session: Session, text: str) -> None:
        """The subscription is no more: nor are its retained messages wanted that were not sent yet."""
        if session.replays is not None and text in session.replays:
            session.replays.pop(text).replay.close()
            session.replays = session.replays or None
            session.note_more()

    def more(self, now: float) -> None:
        """A slice of what the busy sessions have to do, in turn."""
        left = SLICE
        for session in list(self.busy):
            del self.busy[session]
            left -= max(1, self.pump(session, now, left))
            if left <= 0:
                return

    def resume(self, session: Session, now: float) -> None:
        """There is a connection again, or its transport takes bytes again."""
        if session.has_more:
            self.pump(session, now)

    # ── books ────────────────────────────────────────────────────────────────────────────────────────────────────

    def detach(self, session: Session) -> None:
        """A session is offline."""
        self.busy.pop(session, None)
        self._queues.clear_0(session)

    def forget(self, session: Session) -> None:
        """A session has ended: nothing of it is sent any more."""
        self.busy.pop(session, None)
        self._queues.clear(session)
        session.unsent = None
        session.flight_bytes = 0
        session.in_flight.clear()
        for replaying in (session.replays or {}).values():
            replaying.replay.close()
        session.replays = None
        session.has_more = False
