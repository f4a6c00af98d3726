"""One connection's work: records from the spool into publishes, acknowledgements into commits.

    spool ─take─▶ outbox ─encode, publish─▶ window ─PUBACK─▶ done ─commit, in order─▶ spool
                    ▲                          │ refused
                    └──── after a wait ────────┘

Everything but the waiting for new records happens in plain calls: no task, future or timer per record. A turn of the
loop sends at most 16 records (about 1 ms); after the spool is drained it pauses 3 ms, so that what comes meanwhile
shares a wake-up, a write and a read. A full window stops the taking; records then wait in the spool, which is bounded.

A refused record holds everything behind it: the commit waits, nothing is lost. After a wait it is sent alone; when the
server takes it, the other refused ones follow in order. Only what the server calls wrong in itself (topic name, payload
format, size) is given up, after three tries.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.metrics import Counter
from gateway.model import Batch
from gateway.spool.cursor import Cursor
from gateway.spool.record import Record
from gateway.uplinks.message import Message, Room, UserProperties
from gateway.uplinks.notices import Notices
from gateway.uplinks.reasons import FIRST_ERROR, reason, verdict
from gateway.uplinks.refusals import TRIES, Refusals
from gateway.uplinks.session import Acks, SessionError, Terms
from gateway.uplinks.suspect import Suspect
from gateway.uplinks.topics import TopicError
from gateway.uplinks.window import Entry, Window

_SLICE = 16
_LINGER_S = 0.003
_WINDOW_BYTES = 1 << 20
_QOS_2_WINDOW = 20  # brokers drop connections with hundreds of QoS 2 exchanges under way
_HEADER = 5 + 2 + 2  # fixed header, length of the topic, packet identifier


class Link(Protocol):
    """What the server end must be able to do; `Session` is one."""

    @property
    def terms(self) -> Terms:
        """What the server allows."""

    def listen(self, on_acks: Callable[[Acks], None]) -> None:
        """Call `on_acks` with tokens and reason codes, never from within `publish`."""

    def publish(self, message: Message, qos: int, properties: bytes = b"") -> int:
        """Queue a publish, give its token. Raises SessionError when the connection is gone."""


class Source(Protocol):
    """The spool as one uplink sees it."""

    def take(self, cursor: Cursor, n: int) -> Sequence[Record] | None:
        """What is in memory behind the cursor; empty: nothing new; None: it must be read."""

    async def read(self, cursor: Cursor, n: int) -> Sequence[Record]:
        """Wait for the next records, at least one."""

    def commit(self, cursor: Cursor, seq: int) -> None:
        """Everything up to `seq` is acknowledged."""


class Payload(Protocol):
    """A format."""

    def encode(self, batch: Batch, seq: int, epoch: str, *, replay: bool, room: Room) -> Iterator[Message]:
        """The messages of one record. Raises TopicError, at once or when asked for the first message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What one uplink counts: publishes, records, connections."""

    published: Counter
    acknowledged: Counter
    connects: Counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivers:
    """What a delivery needs of its uplink, the same for each connection."""

    source: Source
    cursor: Cursor
    payload: Payload
    notices: Notices
    properties: UserProperties
    refusals: Refusals
    suspect: Suspect
    counters: Counters
    qos: int
    max_in_flight: int
    ack_timeout_s: float


class Delivery:
    """The stream of one connection. Records up to `replay_until` are backlog: marked, and not retained."""

    def __init__(self, link: Link, uplink: Delivers, *, replay_until: int) -> None:
        self._link = link
        self._uplink = uplink
        self._terms = link.terms
        self._replay_until = replay_until
        self._qos = min(uplink.qos, self._terms.maximum_qos)
        self._limit = min(uplink.max_in_flight, self._terms.receive_maximum)
        if self._qos == 2:
            self._limit = min(self._limit, _QOS_2_WINDOW)
        self.window: Window[Record] = Window(1 if uplink.suspect.is_careful else self._limit, _WINDOW_BYTES)
        self._notices: dict[str, Message] = {}
        self._announced: dict[str, Message] = {}
        self._stale: set[str] = set()
        self._repeat: asyncio.TimerHandle | None = None
        self._latest: Iterator[Message] = iter(())
        self._outbox: deque[Entry[Record]] = deque()
        self._refused: list[Entry[Record]] = []
        self._probe: Entry[Record] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._is_holding = False
        self._wake = asyncio.Event()
        link.listen(self._on_acks)

    def __repr__(self) -> str:
        return f"<Delivery to {self._terms.server}: {self.window!r}{', holding' if self._is_holding else ''}>"

    # --- what is not spooled ----------------------------------------------------------------------------------------

    def announce(self, messages: Iterable[Message]) -> None:
        """Publish states, soon and before records; of one topic only the last. What is refused is tried again."""
        for message in messages:
            self._notices[message.topic] = self._announced[message.topic] = message
            self._stale.discard(message.topic)
        self._pump()

    def _announce_stale(self) -> None:
        self._repeat = None
        self.announce([self._announced[topic] for topic in self._stale])

    def refresh(self, batches: Iterable[Batch]) -> None:
        """Publish the last values anew, after what was announced and before records."""
        self._latest = self._fresh(list(batches))
        self._pump()

    def _fresh(self, batches: list[Batch]) -> Iterator[Message]:
        room = self._room(0, b"")
        for batch in batches:
            try:
                yield from self._uplink.payload.encode(batch, 0, "", replay=False, room=room)
            except TopicError as error:
                self._uplink.refusals.skip(batch.group.device, str(error))

    # --- records out ------------------------------------------------------------------------------------------------

    async def run(self, *, until_empty: bool = False) -> None:
        """Send what the spool has, for ever, or until it has nothing more and all is acknowledged or refused."""
        cursor, source = self._uplink.cursor, self._uplink.source
        while True:
            while not self._can_take():
                if until_empty and self._is_stuck():
                    return
                self._wake.clear()
                await self._wake.wait()
            records = source.take(cursor, _SLICE)
            if not records:
                if until_empty and records is not None:
                    await self.settled()
                    return
                records = await source.read(cursor, _SLICE)
            for record in records:
                self._outbox.append(self.window.open(record.seq, record, replay=record.seq <= self._replay_until))
            self._pump()
            await asyncio.sleep(0 if len(records) == _SLICE else _LINGER_S)

    async def settled(self) -> None:
        """Wait until nothing is in flight and nothing more can be sent."""
        while self.window.in_flight or not (self._is_stuck() or self._can_take()):
            self._wake.clear()
            await self._wake.wait()

    def _can_take(self) -> bool:
        return not self._is_holding and not self._outbox and self.window.has_room and self.window.has_span

    def _is_stuck(self) -> bool:
        return self._is_holding and not self.window.in_flight

    def _pump(self) -> None:
        """Send while the window has room: states, then last values, then records."""
        window = self.window
        try:
            while window.has_room and (self._notices or not self._is_holding or self._probe in self._outbox):
                if self._notices:
                    self._send(self._notices.pop(next(iter(self._notices))), None, min(1, self._qos))
                elif (message := next(self._latest, None)) is not None:
                    self._send(message, None, self._qos)
                elif not self._outbox or not self._send_next(self._outbox[0]):
                    break
        except SessionError:
            return  # whoever waits for the end of the connection hears of it
        self._commit()

    def _send_next(self, entry: Entry[Record]) -> bool:
        """Send the next message of the record; False when the record must wait."""
        if self._is_holding and entry is not self._probe:
            return False
        try:
            if entry.messages is None:
                entry.messages = self._encoded(entry)
            message = next(entry.messages, None)
        except TopicError as error:
            self._uplink.refusals.skip(_device_of(entry.record), str(error))
            message = None
        if message is None:
            entry.whole = True
            self._outbox.popleft()
        else:
            self._send(message, entry, self._qos)
        return True

    def _encoded(self, entry: Entry[Record]) -> Iterator[Message]:
        record = entry.record
        uplink = self._uplink
        entry.properties = uplink.properties.pack(_device_of(record), record.epoch, record.seq)
        if record.gap is not None:
            return iter((uplink.notices.gap(record.seq, record.epoch, record.gap),))
        if record.batch is None or uplink.suspect.is_condemned(record.seq):
            uplink.refusals.skip(_device_of(record), f"the server hangs up when record {record.seq} is sent")
            return iter(())
        room = self._room(record.seq, entry.properties)
        return uplink.payload.encode(record.batch, record.seq, record.epoch, replay=entry.replay, room=room)

    def _room(self, seq: int, properties: bytes) -> Room:
        most = self._terms.maximum_packet - _HEADER - len(properties)
        return Room(most, self._uplink.suspect.aim(seq, most))

    def _send(self, message: Message, entry: Entry[Record] | None, qos: int) -> None:
        if message.retain and not self._terms.can_retain:
            message = message._replace(retain=False)
        token = self._link.publish(message, qos, b"" if entry is None else entry.properties)
        self.window.sent(token, entry, message.topic, len(message.payload))
        self._uplink.counters.published.value += 1

    # --- acknowledgements in ----------------------------------------------------------------------------------------

    def _on_acks(self, acks: Acks) -> None:
        refusals = self._uplink.refusals
        for token, code in acks:
            found = self.window.acknowledged(token)
            if found is None:
                continue
            entry, topic = found
            if code >= FIRST_ERROR:
                refusals.refuse(topic, code)
                if entry is not None:
                    self._drop_rest(entry, topic, code)
                elif topic in self._announced and verdict(code) == "wait":
                    self._stale.add(topic)
            elif refusals.active:
                refusals.accept(topic)
            if entry is not None and entry.code and entry.is_settled:
                self._hold(entry)
        if self._stale and self._repeat is None:
            wait_s = refusals.next_wait_s()
            self._repeat = asyncio.get_running_loop().call_later(wait_s, self._announce_stale)
        self._commit()
        self._pump()
        self._wake.set()

    def _commit(self) -> None:
        if self._probe is not None and self._probe.is_done:
            self._release()
        advanced = self.window.advance()
        if advanced is None:
            return
        seq, count = advanced
        uplink = self._uplink
        uplink.source.commit(uplink.cursor, seq)
        uplink.counters.acknowledged.value += count
        if uplink.suspect.seq or uplink.suspect.is_careful:
            uplink.suspect.passed(seq)
            self.window.limit = 1 if uplink.suspect.is_careful else self._limit

    def _drop_rest(self, entry: Entry[Record], topic: str, code: int) -> None:
        """Send no more of a refused record: it is sent again as a whole."""
        entry.code, entry.topic = code, topic
        if not entry.whole:
            entry.whole = True
            self._outbox.remove(entry)

    def _hold(self, entry: Entry[Record]) -> None:
        """Stop the taking, and try the refused record again later, or never."""
        entry.tries += 1
        if entry is self._probe:
            self._probe = None
        if verdict(entry.code) == "hopeless" and entry.tries >= TRIES:
            self._uplink.refusals.skip(entry.topic, f"{reason(entry.code)}, {TRIES} times")
            entry.code = 0
            if not self._probe and not self._refused:
                self._release()
                return
        else:
            self._refused.append(entry)
        self._is_holding = True
        if self._retry is None and self._probe is None:
            wait_s = self._uplink.refusals.next_wait_s()
            self._retry = asyncio.get_running_loop().call_later(wait_s, self._try_again)

    def _try_again(self) -> None:
        """Send the first refused record alone."""
        self._retry = None
        self._refused.sort(key=_seq_of)
        self._probe = self._refused.pop(0)
        self._probe.again()
        self._outbox.appendleft(self._probe)
        self._pump()

    def _release(self) -> None:
        """The way is free: what else was refused goes first, in order."""
        self._probe = None
        self._is_holding = False
        self._uplink.refusals.relieved()
        for entry in sorted(self._refused, key=_seq_of, reverse=True):
            entry.again()
            self._outbox.appendleft(entry)
        self._refused.clear()
        asyncio.get_running_loop().call_soon(self._pump)
        self._wake.set()

    async def watch(self) -> None:
        """Raise SessionError when the oldest publish stays without acknowledgement for the time-out, twice at most."""
        while True:
            oldest = self.window.oldest
            await asyncio.sleep(self._uplink.ack_timeout_s)
            if oldest is not None and self.window.oldest is oldest:
                raise SessionError(f"no acknowledgement within {self._uplink.ack_timeout_s:g} s")

    def close(self) -> None:
        """Stop timers. What is not acknowledged stays in the spool."""
        for timer in (self._retry, self._repeat):
            if timer is not None:
                timer.cancel()


def _seq_of(entry: Entry[Record]) -> int:
    return entry.seq


def _device_of(record: Record) -> str:
    return "" if record.batch is None else record.batch.group.device
