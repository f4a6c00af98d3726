"""From a record to what is published of it: by its kind, within what the server and this uplink allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from gateway.model import Batch
from gateway.spool.record import Gap, Note, Record
from gateway.spool.record import Message as StoredMessage
from gateway.uplinks.lane import Entry
from gateway.uplinks.message import NO_MARKS, Message, Room, UserProperties
from gateway.uplinks.notices import Notices
from gateway.uplinks.refusals import Refusals
from gateway.uplinks.session import Terms
from gateway.uplinks.suspect import Suspect
from gateway.uplinks.topics import TopicError, check_topic

_HEADER = 5 + 2 + 2  # fixed header, length of the topic, packet identifier


class Payload(Protocol):
    """A format. Both raise TopicError, at once or when asked for the first message."""

    def encode(
        self, batch: Batch, seq: int, epoch: str, *, replay: bool, room: Room, marks: Mapping[str, Any]
    ) -> Iterator[Message]:
        """The messages of one record; `marks` is what else must be said of it."""

    def latest(self, batch: Batch, room: Room) -> Iterator[Message]:
        """The messages of last values, which are no record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How an uplink says things, the same for each connection."""

    payload: Payload
    notices: Notices
    properties: UserProperties
    refusals: Refusals
    suspect: Suspect

    def on(self, terms: Terms, qos: int) -> Encoder:
        """For a connection on these terms, with this quality of service at most."""
        return Encoder(self, terms, qos)


class Encoder:
    """How records go out on one connection."""

    def __init__(self, encoding: Encoding, terms: Terms, qos: int) -> None:
        self._encoding = encoding
        self._most = terms.maximum_packet - _HEADER
        self._qos = qos

    def record(self, entry: Entry) -> Iterator[Message]:
        """The messages of a record; its properties and quality of service are put into the entry. Raises TopicError."""
        encoding, record = self._encoding, entry.record
        if record.regime is not None:
            record = entry.lane.stream.source.timed(record)
        batch = record.batch
        device = "" if batch is None else batch.group.device
        entry.qos = self._qos
        entry.properties = encoding.properties.pack(device, record.epoch, record.seq)
        aim = most = self._most - len(entry.properties)
        if encoding.suspect.key is not None:
            if encoding.suspect.is_condemned(entry.key):
                encoding.refusals.skip(device, f"the server hangs up when record {record.seq} is sent")
                return iter(())
            aim = encoding.suspect.aim(entry.key, most)
        if batch is None:
            return self._other(entry, record)
        marks = _marks(record) if record.is_thinned or record.regime is not None else NO_MARKS
        room = Room(most, aim)
        return encoding.payload.encode(batch, record.seq, record.epoch, replay=entry.replay, room=room, marks=marks)

    def _other(self, entry: Entry, record: Record) -> Iterator[Message]:
        notices, other = self._encoding.notices, record.other
        if isinstance(other, StoredMessage):
            message = self._stored(entry, record, other)
        elif isinstance(other, Gap):
            message = notices.gap(record.seq, record.epoch, other)
        elif isinstance(other, Note):
            marks = {"replay": True} if entry.replay else {}
            message = notices.note(record, other, marks | _marks(record))
        else:
            return iter(())
        size = len(message.topic.encode()) + len(message.payload)
        if size > self._most - len(entry.properties):
            self._encoding.refusals.skip(message.topic, f"{size} bytes are more than the server takes")
            return iter(())
        return iter((message,))

    def _stored(self, entry: Entry, record: Record, message: StoredMessage) -> Message:
        """A message that was kept as it came. Raises TopicError."""
        wrong = check_topic(message.topic)
        if wrong:
            raise TopicError(f"'{message.topic[:200]}': {wrong}")
        entry.qos = min(message.qos, self._qos)
        if message.properties:
            entry.properties = self._encoding.properties.join(message.properties, record.epoch, record.seq)
        return Message(message.topic, message.payload, message.retain and not entry.replay)

    def latest(self, batches: Iterable[Batch]) -> Iterator[Message]:
        """Last values, as far as they have a topic."""
        room = Room(self._most, self._most)
        for batch in batches:
            try:
                yield from self._encoding.payload.latest(batch, room)
            except TopicError as error:
                self._encoding.refusals.skip(batch.group.device, str(error))


def _marks(record: Record) -> dict[str, Any]:
    """What else must be said of it: that it was denser once, that its time is not to be trusted."""
    marks: dict[str, Any] = {}
    if record.is_thinned:
        marks["thinned"] = True
    if record.regime is not None and not record.regime.is_plausible:
        marks |= {"clock": "unsynced", "boot": str(UUID(bytes=record.regime.boot_id))}
    return marks
