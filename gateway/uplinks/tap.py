"""The live tap: devices' values, states and the gateway's own status on the embedded broker, as they come.

No cursor, no backlog: who is not there gets nothing, but for what a session of the broker keeps. Encoding is for those
who listen: a batch that nobody wants and that is not retained costs one look-up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.metrics import Metrics
from gateway.model import Batch, DeviceState
from gateway.mqtt.properties import NONE, Properties
from gateway.spool.record import Note, Record
from gateway.uplinks.message import NO_MARKS, Message, Room
from gateway.uplinks.notices import Notices
from gateway.uplinks.options import DEFAULT_TOPICS
from gateway.uplinks.payload_json import JsonPayload
from gateway.uplinks.payload_value import ValuePayload
from gateway.uplinks.refusals import Refusals
from gateway.uplinks.topics import Template, TopicError

_QOS = 1
"""Who subscribes with QoS 0 gets QoS 0; a session that outlives its connection keeps what was sent meanwhile."""

_KEEP = 1024
_HEADER = 5 + 2  # fixed header and the topic's length
_PROPERTIES = 512  # gateway, device and epoch are names


@dataclass(frozen=True, slots=True)
class Form:
    """In which shape values are live. `topic` and `retain` are the payload's defaults where they are None."""

    payload: Literal["json", "value"]
    topic: str | None = None
    retain: bool | None = None


class Door(Protocol):
    """The broker, as far as the gateway needs it; `broker.door.Door` is one."""

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: Properties) -> None:
        """Route one message."""

    def wanted(self, topic: str) -> bool:
        """Whether anybody would get what is published there."""


class _Live:
    """One form: its encoder, its topics where they are one a device, and whether it is retained."""

    __slots__ = ("payload", "retain", "topic", "topics")

    def __init__(self, payload: JsonPayload | ValuePayload, topic: Template, *, retain: bool) -> None:
        self.payload = payload
        self.topic = topic
        self.retain = retain
        self.topics: dict[bytes, tuple[str, ...]] = {}


class Tap:
    """Publishes what `batch`, `device_changed`, `note`, `online` and `stopped` are told.

    `packet_bytes` limits a publish. Raises ValueError where a template is none.
    """

    def __init__(
        self,
        forms: Iterable[Form],
        *,
        gateway: str,
        prefix: str,
        door: Door,
        packet_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._door = door
        self._gateway = gateway
        self._notices = Notices(prefix)
        self._published = metrics.counter("broker_tap_publishes_total")
        self._refusals = Refusals(
            "broker",
            refused=metrics.counter("broker_tap_refused_total"),
            skipped=metrics.counter("broker_tap_skipped_total"),
        )
        most = packet_bytes - _HEADER - _PROPERTIES
        self._room = Room(most, most)
        self._forms = [self._form(form, gateway, prefix) for form in forms]

    def _form(self, form: Form, gateway: str, prefix: str) -> _Live:
        topic = Template(form.topic or DEFAULT_TOPICS[form.payload], {"gateway": gateway, "prefix": prefix})
        retain = form.payload == "value" if form.retain is None else form.retain
        kind = JsonPayload if form.payload == "json" else ValuePayload
        return _Live(kind(topic, retain=retain, skipped=self._refusals.skip), topic, retain=retain)

    # --- what others call -------------------------------------------------------------------------------------------

    def online(self) -> None:
        """Say that the gateway runs."""
        self._say(self._notices.online())

    def stopped(self) -> None:
        """Say that the gateway ends in order."""
        self._say(self._notices.stopped())

    def device_changed(self, state: DeviceState) -> None:
        """Say a device's state."""
        self._say(self._notices.device(state))

    def note(self, record: Record) -> None:
        """Publish an event or an audit entry, to who listens."""
        if isinstance(record.other, Note):
            self._say(self._notices.note(record, record.other, NO_MARKS))

    def batch(self, batch: Batch, seq: int, epoch: str) -> None:
        """Publish one record's values to whom they concern."""
        properties: Properties | None = None
        for form in self._forms:
            if not form.retain and not self._is_wanted(form, batch):
                continue
            if properties is None:
                user = (("gateway", self._gateway), ("device", batch.group.device), ("epoch", epoch), ("seq", str(seq)))
                properties = Properties(user=user)
            self._publish(form, batch, seq, epoch, properties)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _is_wanted(self, form: _Live, batch: Batch) -> bool:
        group = batch.group
        topics = form.topics.get(group.hash)
        if topics is None:
            if len(form.topics) >= _KEEP:
                form.topics.clear()
            topics = form.topics[group.hash] = self._topics(form, batch)
        wanted = self._door.wanted
        return any(wanted(topic) for topic in topics)

    def _topics(self, form: _Live, batch: Batch) -> tuple[str, ...]:
        group = batch.group
        words = {**group.fields, "device": group.device}
        try:
            names = group.names if "tag" in form.topic.names else ("",)
            return tuple(form.topic.fill({**words, "tag": name}) for name in names)
        except TopicError as error:
            self._refusals.skip(group.device, str(error))
            return ()

    def _publish(self, form: _Live, batch: Batch, seq: int, epoch: str, properties: Properties) -> None:
        try:
            for topic, payload, retain in form.payload.encode(batch, seq, epoch, replay=False, room=self._room):
                self._door.publish(topic, payload, qos=_QOS, retain=retain, properties=properties)
                self._published.value += 1
        except TopicError as error:
            self._refusals.skip(batch.group.device, str(error))

    def _say(self, message: Message) -> None:
        self._door.publish(message.topic, message.payload, qos=_QOS, retain=message.retain, properties=NONE)
        self._published.value += 1
