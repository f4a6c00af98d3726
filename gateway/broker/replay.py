"""Replaying the store's operations: what of them still counts, at a start and for a snapshot.

The replay knows where messages stand, not what they say: a million of them cost no payloads. The live ones are read
once more when they are wanted.

Operations that do not fit (a session, a message or a packet id nobody knows) are passed over: where a file is damaged,
what stands behind the damage still counts.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from gateway.broker import operations
from gateway.broker.operations import (
    MESSAGE_HEAD,
    OF_BOTH,
    OF_MESSAGE,
    OF_PACKET,
    OF_SESSION,
    OF_TOPIC,
    QUEUE_HEAD,
    RETAIN_HEAD,
    RETAINED,
    SESSION_HEAD,
    SUBSCRIBE_HEAD,
    WILL_BODY,
)
from gateway.journal.logfile import Frame, Source

log = logging.getLogger("headgate.broker")

_SLICE = 128
"""Operations between two places where a replay can be left for a while."""
_PART_BYTES = 64 * 1024

Entry = tuple[int, int, tuple[int, ...]]
"""A delivery: number of the message, QoS and retain (4), subscription identifiers."""


class Held:
    """One session as operations left it. `queue` by number of message; further copies of one have keys of their own."""

    __slots__ = ("again", "flight", "head", "inbound", "queue", "subscriptions", "will")

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.subscriptions: dict[bytes, bytes] = {}
        self.queue: dict[int, Entry] = {}
        self.again: dict[int, deque[int]] = {}
        self.flight: dict[int, Entry | None] = {}
        self.inbound: dict[int, None] = {}
        self.will: tuple[int, float, int] | None = None


class Replay:
    """The live part of what `sources` hold. Take `run` to its end, then ask for `state` or `parts`.

    `last_message`: the highest number a message ever had. `strange`: frames that could not be understood to their end.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.sessions: dict[int, Held] = {}
        self.retained: dict[bytes, int] = {}
        self.places: dict[int, int] = {}
        self._uses: dict[int, int] = {}
        self._idle: set[int] = set()
        self._base = 0
        self._copies = 0
        self.last_message = 0
        self.strange = 0
        self._operations: tuple[Callable[[bytes, int], int], ...] = (
            self._unknown,
            self._session,
            self._end_session,
            self._subscribe,
            self._unsubscribe,
            self._message,
            self._queue,
            self._send,
            self._received,
            self._done,
            self._drop,
            self._inbound,
            self._inbound_done,
            self._retain,
            self._unretain,
            self._will,
            self._will_done,
        )

    # --- replaying ----------------------------------------------------------------------------------------------------

    def run(self) -> Iterator[None]:
        """Replay everything; stops now and then, so that others may have the thread."""
        for number, source in enumerate(self._sources):
            for frame in source.frames():
                self._base = number << 48 | frame.at
                yield from self._apply(frame, source)
                if source.file.kind == "log":
                    self._settle()
            self._settle()  # in a snapshot, messages stand in front of all that need them

    def _apply(self, frame: Frame, source: Source) -> Iterator[None]:
        payload, at, known, left = frame.payload, 0, self._operations, _SLICE
        end = len(payload)
        try:
            while at < end:
                at = known[payload[at]](payload, at)
                left -= 1
                if not left:
                    left = _SLICE
                    yield
        except (IndexError, struct.error):
            self.strange += 1
            log.warning("%s: frame %d is not understood; is it of a later version?", source.file.name, frame.number)
        yield

    def _settle(self) -> None:
        """A turn is over: messages that nobody needs now are never needed again."""
        for number in self._idle:
            if not self._uses.get(number, 1):
                del self._uses[number], self.places[number]
        self._idle.clear()

    def _release(self, number: int) -> None:
        uses = self._uses.get(number)
        if uses is not None:
            self._uses[number] = uses - 1
            if uses == 1:
                self._idle.add(number)

    def _unknown(self, data: bytes, at: int) -> int:
        raise IndexError(data[at])

    def _session(self, data: bytes, at: int) -> int:
        _, number, _, _, of_client, _, of_user = SESSION_HEAD.unpack_from(data, at)
        end: int = at + SESSION_HEAD.size + of_client + of_user
        session = self.sessions.get(number)
        if session is None:
            self.sessions[number] = Held(data[at:end])
        else:
            session.head = data[at:end]
        return end

    def _end_session(self, data: bytes, at: int) -> int:
        session = self.sessions.pop(OF_SESSION.unpack_from(data, at)[1], None)
        if session is not None:
            for entry in (*session.queue.values(), *session.flight.values()):
                if entry is not None:
                    self._release(entry[0])
            if session.will is not None:
                self._release(session.will[0])
        return at + OF_SESSION.size

    def _subscribe(self, data: bytes, at: int) -> int:
        _, number, _, _, length = SUBSCRIBE_HEAD.unpack_from(data, at)
        text = at + SUBSCRIBE_HEAD.size
        end: int = text + length
        session = self.sessions.get(number)
        if session is not None:
            session.subscriptions[data[text:end]] = data[at:end]
        return end

    def _unsubscribe(self, data: bytes, at: int) -> int:
        _, number, length = OF_PACKET.unpack_from(data, at)
        at += OF_PACKET.size
        end: int = at + length
        session = self.sessions.get(number)
        if session is not None:
            session.subscriptions.pop(data[at:end], None)
        return end

    def _message(self, data: bytes, at: int) -> int:
        size: int
        _, size, number, flags, _, of_topic, _, _ = MESSAGE_HEAD.unpack_from(data, at)
        self.places[number] = self._base + at
        self._uses[number] = 0
        self._idle.add(number)
        self.last_message = max(self.last_message, number)
        if flags & RETAINED:
            topic = at + MESSAGE_HEAD.size
            self._keep(data[topic : topic + of_topic], number)
        return at + size

    def _keep(self, topic: bytes, number: int) -> None:
        if number in self._uses:
            self._uses[number] += 1
            old = self.retained.pop(topic, None)
            self.retained[topic] = number
            if old is not None:
                self._release(old)

    def _queue(self, data: bytes, at: int) -> int:
        count: int
        _, number, message, flags, count = QUEUE_HEAD.unpack_from(data, at)
        at += QUEUE_HEAD.size
        session = self.sessions.get(number)
        if session is not None and message in self._uses:
            self._uses[message] += 1
            identifiers = struct.unpack_from(f"<{count}I", data, at) if count else ()
            key = message
            if key in session.queue or key in session.again:
                self._copies -= 1
                key = self._copies
                session.again.setdefault(message, deque()).append(key)
            session.queue[key] = (message, flags, identifiers)
        return at + 4 * count

    def _take(self, session: Held, message: int) -> Entry | None:
        """The oldest copy of a message that waits for a session, taken out of its queue."""
        entry = session.queue.pop(message, None)
        if entry is None and message in session.again:
            keys = session.again[message]
            entry = session.queue.pop(keys.popleft())
            if not keys:
                del session.again[message]
        return entry

    def _send(self, data: bytes, at: int) -> int:
        _, number, message, packet_id = OF_BOTH.unpack_from(data, at)
        session = self.sessions.get(number)
        if session is not None:
            entry = self._take(session, message)
            if entry is not None:
                self._end_flight(session, packet_id)
                session.flight[packet_id] = entry
        return at + OF_BOTH.size

    def _end_flight(self, session: Held, packet_id: int) -> None:
        entry = session.flight.pop(packet_id, None)
        if entry is not None:
            self._release(entry[0])

    def _received(self, data: bytes, at: int) -> int:
        _, number, packet_id = OF_PACKET.unpack_from(data, at)
        session = self.sessions.get(number)
        if session is not None:
            entry = session.flight.get(packet_id)
            session.flight[packet_id] = None
            if entry is not None:
                self._release(entry[0])
        return at + OF_PACKET.size

    def _done(self, data: bytes, at: int) -> int:
        _, number, packet_id = OF_PACKET.unpack_from(data, at)
        session = self.sessions.get(number)
        if session is not None:
            self._end_flight(session, packet_id)
        return at + OF_PACKET.size

    def _drop(self, data: bytes, at: int) -> int:
        _, number, message = OF_MESSAGE.unpack_from(data, at)
        session = self.sessions.get(number)
        if session is not None and self._take(session, message) is not None:
            self._release(message)
        return at + OF_MESSAGE.size

    def _inbound(self, data: bytes, at: int) -> int:
        _, number, packet_id = OF_PACKET.unpack_from(data, at)
        session = self.sessions.get(number)
        if session is not None:
            session.inbound[packet_id] = None
        return at + OF_PACKET.size

    def _inbound_done(self, data: bytes, at: int) -> int:
        _, number, packet_id = OF_PACKET.unpack_from(data, at)
        session = self.sessions.get(number)
        if session is not None:
            session.inbound.pop(packet_id, None)
        return at + OF_PACKET.size

    def _retain(self, data: bytes, at: int) -> int:
        _, number, length = RETAIN_HEAD.unpack_from(data, at)
        at += RETAIN_HEAD.size
        end: int = at + length
        self._keep(data[at:end], number)
        return end

    def _unretain(self, data: bytes, at: int) -> int:
        _, length = OF_TOPIC.unpack_from(data, at)
        at += OF_TOPIC.size
        end: int = at + length
        number = self.retained.pop(data[at:end], None)
        if number is not None:
            self._release(number)
        return end

    def _will(self, data: bytes, at: int) -> int:
        _, number, message, due, delay_s = WILL_BODY.unpack_from(data, at)
        session = self.sessions.get(number)
        if session is not None and message in self._uses:
            self._uses[message] += 1
            if session.will is not None:
                self._release(session.will[0])
            session.will = (message, due, delay_s)
        return at + WILL_BODY.size

    def _will_done(self, data: bytes, at: int) -> int:
        session = self.sessions.get(OF_SESSION.unpack_from(data, at)[1])
        if session is not None and session.will is not None:
            self._release(session.will[0])
            session.will = None
        return at + OF_SESSION.size

    # --- what is left -------------------------------------------------------------------------------------------------

    def operation(self, place: int) -> bytes:
        """The message operation that stands there."""
        source, at = self._sources[place >> 48], place & (1 << 48) - 1
        return source.read(at, MESSAGE_HEAD.unpack(source.read(at, MESSAGE_HEAD.size))[1])

    def parts(self) -> Iterator[bytes]:
        """Operations that make the same state from nothing, in parts of some 64 KiB."""
        pieces: list[bytes] = []
        size = 0
        for piece in self._pieces():
            pieces.append(piece)
            size += len(piece)
            if size >= _PART_BYTES:
                yield b"".join(pieces)
                pieces.clear()
                size = 0
        yield b"".join(pieces)

    def _pieces(self) -> Iterator[bytes]:
        kept = set(self.retained.values())
        for number, place in self.places.items():
            operation = self.operation(place)
            flags = operation[operations.FLAGS_AT] & ~RETAINED | (RETAINED if number in kept else 0)
            yield b"%b%c%b" % (operation[: operations.FLAGS_AT], flags, operation[operations.FLAGS_AT + 1 :])
        for number, session in self.sessions.items():
            yield session.head
            yield from session.subscriptions.values()
            for packet_id, entry in session.flight.items():
                if entry is None:
                    yield OF_PACKET.pack(operations.RECEIVED, number, packet_id)
                else:
                    yield operations.queue_operation(number, *entry)
                    yield OF_BOTH.pack(operations.SEND, number, entry[0], packet_id)
            for entry in session.queue.values():
                yield operations.queue_operation(number, *entry)
            for packet_id in session.inbound:
                yield OF_PACKET.pack(operations.INBOUND, number, packet_id)
            if session.will is not None:
                yield WILL_BODY.pack(operations.WILL, number, *session.will)
