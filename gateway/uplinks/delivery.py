"""One connection's work: records from the spool into publishes, acknowledgements into commits.

    alarm   ─▶ lane ──┐
    event   ─▶ lane ──┼─ the most important that is ready ─▶ window ─PUBACK─▶ its lane ─▶ commit
    data    ─▶ lane ──┘
    backlog, at its pace, with half of the window

Everything but the waiting for new records and for the disk happens in plain calls: no task, future or timer per record.
A turn of the loop sends at most 16 publishes (about 1 ms); after all queues are drained it pauses 3 ms, so that what
comes meanwhile shares a wake-up, a write and a read. A full window stops the taking; records then wait in the spool,
which is bounded.

Of several lanes that have something to send, the most important goes first, alarms before all; one that is passed over
sixteen times has its turn then. Backlog and `diag` have what the others leave.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from gateway.metrics import Counter
from gateway.model import Batch
from gateway.uplinks.encoding import Encoding
from gateway.uplinks.lane import Entry, Lane, Progress
from gateway.uplinks.message import Message
from gateway.uplinks.reasons import FIRST_ERROR, verdict
from gateway.uplinks.refusals import Refusals
from gateway.uplinks.session import Acks, SessionError, Terms
from gateway.uplinks.suspect import Suspect
from gateway.uplinks.topics import TopicError
from gateway.uplinks.window import Window

_HEADER = 5 + 2 + 2  # fixed header, length of the topic, packet identifier
_SLICE = 16
_LINGER_S = 0.003
_READ_AHEAD = 64
_WINDOW_BYTES = 1 << 20
_MOST_REPLIES = 256
_QOS_2_WINDOW = 20  # brokers drop connections with hundreds of QoS 2 exchanges under way


class Link(Protocol):
    """What the server end must be able to do; `Session` is one."""

    @property
    def terms(self) -> Terms:
        """What the server allows."""

    def listen(self, on_acks: Callable[[Acks], None]) -> None:
        """Call `on_acks` with tokens and reason codes, never from within `publish`."""

    def publish(self, message: Message, qos: int, properties: bytes = b"") -> int:
        """Queue a publish, give its token. Raises SessionError when the connection is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What one uplink counts: publishes, records, connections."""

    published: Counter
    acknowledged: Counter
    connects: Counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivers:
    """What a delivery needs of its uplink, the same for each connection.

    `on_progress` hears of commits of what is not new, `on_over` of lanes that came to their end.
    """

    encoding: Encoding
    refusals: Refusals
    suspect: Suspect
    counters: Counters
    qos: int
    max_in_flight: int
    ack_timeout_s: float
    on_progress: Callable[[Lane, Progress], None]
    on_over: Callable[[Lane], None]


class Delivery:
    """The stream of one connection. `lanes` are put in by `add`, the most important first."""

    def __init__(self, link: Link, uplink: Delivers) -> None:
        self._link = link
        self._uplink = uplink
        self._terms = link.terms
        self._qos = min(uplink.qos, self._terms.maximum_qos)
        self._limit = min(uplink.max_in_flight, self._terms.receive_maximum)
        if self._qos == 2:
            self._limit = min(self._limit, _QOS_2_WINDOW)
        self.window: Window[Entry] = Window(1 if uplink.suspect.is_careful else self._limit, _WINDOW_BYTES)
        self.lanes: list[Lane] = []
        self._encode = uplink.encoding.on(self._terms, self._qos)
        self._replies: deque[tuple[Message, bytes]] = deque()
        self._notices: dict[str, Message] = {}
        self._announced: dict[str, Message] = {}
        self._stale: set[str] = set()
        self._repeat: asyncio.TimerHandle | None = None
        self._latest: Iterator[Message] | None = None
        self._gate: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._fetches: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        link.listen(self._on_acks)

    def __repr__(self) -> str:
        holding = ", holding" if any(lane.is_holding for lane in self.lanes) else ""
        return f"<Delivery to {self._terms.server}: {self.window!r}{holding}>"

    def add(self, lane: Lane) -> None:
        """Put a lane in, less important than all that are there."""
        self.lanes.append(lane)
        self._wake.set()

    def drop(self, lane: Lane) -> None:
        """Take a lane out. What of it is under way still is acknowledged, and then nobody's."""
        if lane in self.lanes:
            self.lanes.remove(lane)
            lane.close()

    # --- what is not spooled ----------------------------------------------------------------------------------------

    def announce(self, messages: Iterable[Message]) -> None:
        """Publish states, soon and before records; of one topic only the last. What is refused is tried again."""
        for message in messages:
            self._notices[message.topic] = self._announced[message.topic] = message
            self._stale.discard(message.topic)
        self.kick()

    def reply(self, message: Message, properties: bytes) -> bool:
        """Publish an answer, before all else; False where too many wait already, or the server takes none so large."""
        size = len(message.topic.encode()) + len(message.payload) + len(properties) + _HEADER
        if len(self._replies) >= _MOST_REPLIES or size > self._terms.maximum_packet:
            return False
        if not self._replies:
            asyncio.get_running_loop().call_soon(self.kick)  # not from within the server's own callback
        self._replies.append((message, properties))
        return True

    def _announce_stale(self) -> None:
        self._repeat = None
        self.announce([self._announced[topic] for topic in self._stale])

    def refresh(self, batches: Iterable[Batch]) -> None:
        """Publish the last values anew, after what was announced and before records."""
        self._latest = self._encode.latest(list(batches))
        self.kick()

    # --- records out ------------------------------------------------------------------------------------------------

    async def run(self, *, until_empty: bool = False) -> None:
        """Send what the spool has, for ever, or until it has nothing more and all is acknowledged or refused."""
        try:
            while self._failure is None:
                self._wake.clear()
                taken = self._fill(self.lanes)
                steps = self._pump()
                if steps or taken:
                    await asyncio.sleep(_LINGER_S if 0 < taken < _SLICE else 0)
                elif until_empty and not self._is_busy and not self._fetches:
                    return
                else:
                    self._listen()
                    await self._wake.wait()
            raise self._failure
        finally:
            for lane in self.lanes:
                lane.stream.listen(None)
            for task in self._fetches:
                task.cancel()
            await asyncio.gather(*self._fetches, return_exceptions=True)

    def _listen(self) -> None:
        """Hear of new records, as far as they could be taken."""
        limit = self.window.limit
        if self.window.has_room:
            for lane in self.lanes:
                if lane.is_endless and lane.can_take(limit):
                    lane.stream.listen(self._wake.set)

    async def settled(self) -> None:
        """Wait until nothing is in flight."""
        while self._is_busy:
            self._wake.clear()
            await self._wake.wait()

    @property
    def _is_busy(self) -> bool:
        return bool(self.window.in_flight or self._notices or self._replies)

    def _fill(self, lanes: Iterable[Lane]) -> int:
        """Take records for those lanes that have none to send; how many came."""
        taken = 0
        if not self.window.has_room:
            return taken
        limit = self.window.limit
        for lane in lanes:
            if not lane.can_take(limit) or (lane.opens_at and not self._is_open(lane)):
                continue
            records = lane.stream.source.take(lane.reading, _SLICE)
            if records:
                lane.open(records, is_flooded=len(records) == _SLICE)
                taken += len(records)
            elif records is None:
                self._fetch(lane)
        return taken

    def _is_open(self, lane: Lane) -> bool:
        loop = asyncio.get_running_loop()
        if loop.time() >= lane.opens_at:
            lane.opens_at = 0.0
            return True
        self._open_at(lane.opens_at)
        return False

    def _open_at(self, when: float) -> None:
        """See that lanes are looked at again at `when`, at the latest."""
        if self._gate is not None:
            if self._gate.when() <= when:
                return
            self._gate.cancel()
        self._gate = asyncio.get_running_loop().call_at(when, self._opened)

    def _opened(self) -> None:
        self._gate = None
        self.kick()

    def _fetch(self, lane: Lane) -> None:
        """Read on from the disk, beside all else. `run` ends no sooner than these do."""
        task = lane.fetching = asyncio.create_task(
            lane.stream.source.fetch(lane.reading, _READ_AHEAD), name=f"fetch {lane!r}"
        )
        self._fetches.add(task)

        def fetched(task: asyncio.Task[None]) -> None:
            self._fetches.discard(task)
            lane.fetching = None
            if not task.cancelled():
                self._failure = task.exception()
            self._wake.set()

        task.add_done_callback(fetched)

    def kick(self) -> None:
        """Something may be sent that could not before.

        Alarms, and lanes that are known to have more, are looked at now: else what matters less would take their place.
        What else is new waits for its turn, in company.
        """
        self._fill([lane for lane in self.lanes if lane.is_alarm or lane.is_flooded])
        self._pump()
        self._wake.set()

    def _pump(self) -> int:
        """Send at most 16 messages while the window has room: replies, states, last values, then records.

        Gives how many steps that took: none where nothing more could be done.
        """
        window = self.window
        left, steps = _SLICE, 0
        try:
            while window.has_room and left:
                steps += 1
                if self._replies:
                    message, properties = self._replies.popleft()
                    self._send(message, None, min(1, self._terms.maximum_qos), properties)
                    left -= 1
                    continue
                if self._notices:
                    self._send(self._notices.pop(next(iter(self._notices))), None, min(1, self._qos))
                    left -= 1
                    continue
                lane = self._next()
                if self._latest is not None and (lane is None or not lane.is_alarm):
                    left -= self._send_latest(self._latest)
                elif lane is not None:
                    left -= self._send_next(lane)
                else:
                    steps -= 1
                    break
        except SessionError:
            return 0  # whoever waits for the end of the connection hears of it
        self._commit()
        return steps

    def _next(self) -> Lane | None:
        """The lane whose turn it is."""
        chosen = None
        for lane in self.lanes:
            if not lane.is_ready or (lane.yields and not self.window.has_room_to_yield):
                continue
            if lane.bucket is not None:
                now = asyncio.get_running_loop().time()
                wait_s = lane.wait_s(now)
                if wait_s:
                    self._open_at(now + wait_s)
                    continue
            if chosen is None:
                chosen = lane
            elif lane.is_overdue:
                chosen = lane
                break
        if chosen is not None:
            chosen.passed_over = 0
        return chosen

    def _send_latest(self, messages: Iterator[Message]) -> bool:
        message = next(messages, None)
        if message is None:
            self._latest = None
            return False
        self._send(message, None, self._qos)
        return True

    def _send_next(self, lane: Lane) -> bool:
        """Send the next message of the lane's next record; False where it had none left."""
        entry = lane.outbox[0]
        try:
            if entry.messages is None:
                if lane.bucket is not None and entry.replay:
                    lane.bucket.take(entry.values)
                entry.messages = self._encode.record(entry)
            message = next(entry.messages, None)
        except TopicError as error:
            self._uplink.refusals.skip(entry.device, str(error))
            message = None
        if message is None:
            lane.finish(entry)
            return False
        self._send(message, entry, entry.qos)
        return True

    def _send(self, message: Message, entry: Entry | None, qos: int, properties: bytes = b"") -> None:
        if message.retain and not self._terms.can_retain:
            message = message._replace(retain=False)
        token = self._link.publish(message, qos, properties if entry is None else entry.properties)
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
                    entry.lane.drop_rest(entry, topic, code)
                elif topic in self._announced and verdict(code) == "wait":
                    self._stale.add(topic)
            elif refusals.active:
                refusals.accept(topic)
            if entry is not None and entry.code and entry.is_settled:
                entry.lane.hold(entry)
        if self._stale and self._repeat is None:
            wait_s = refusals.next_wait_s()
            self._repeat = asyncio.get_running_loop().call_later(wait_s, self._announce_stale)
        self._commit()
        self.kick()

    def _commit(self) -> None:
        is_over = False
        for lane in self.lanes:
            progress = lane.commit()
            if progress is not None:
                self._committed(lane, progress)
            is_over = is_over or lane.is_over
        if is_over:
            for lane in [lane for lane in self.lanes if lane.is_over]:
                lane.end()
                self.drop(lane)
                self._uplink.on_over(lane)

    def _committed(self, lane: Lane, progress: Progress) -> None:
        uplink = self._uplink
        uplink.counters.acknowledged.value += progress.records
        if progress.backlog or lane.kind == "again":
            uplink.on_progress(lane, progress)
        suspect = uplink.suspect
        if suspect.key is not None or suspect.is_careful:
            suspect.passed(lane.stream.source.record_class, progress.above, progress.seq)
            self.window.limit = 1 if suspect.is_careful else self._limit

    async def watch(self) -> None:
        """Raise SessionError when the oldest publish stays without acknowledgement for the time-out, twice at most."""
        while True:
            oldest = self.window.oldest
            await asyncio.sleep(self._uplink.ack_timeout_s)
            if oldest is not None and self.window.oldest is oldest:
                raise SessionError(f"no acknowledgement within {self._uplink.ack_timeout_s:g} s")

    def close(self) -> None:
        """Stop timers. What is not acknowledged stays in the spool."""
        for timer in (self._repeat, self._gate):
            if timer is not None:
                timer.cancel()
        for lane in self.lanes:
            lane.close()
        self.lanes.clear()  # a call that was on its way already takes nothing more
