"""What waits for clients, bounded: by count and bytes for each session, and by bytes for all of them together.

Beyond a session's bound its oldest QoS 0 goes first, then the oldest that is not in flight. Beyond the common bound the
longest queues are shortened. Every drop is counted, and reported with its client once a second.
"""

from __future__ import annotations

import heapq
from collections import Counter as Tally
from collections import deque
from typing import TYPE_CHECKING

from gateway.broker.client import Client
from gateway.broker.message import Message
from gateway.broker.session import Sending, Session

if TYPE_CHECKING:
    from gateway.broker.options import Limits
    from gateway.broker.report import Report
    from gateway.broker.store import Store
    from gateway.metrics import Metrics


class Queues:
    """The queues of all sessions; `total_bytes` waits in them together. `backlog`: who has one."""

    def __init__(self, limits: Limits, *, metrics: Metrics, report: Report, store: Store | None) -> None:
        self._limits = limits
        self._report = report
        self._store = store
        self._place = 0
        self._lost: Tally[Session] = Tally()
        self._clogged: dict[Session, float] = {}
        self.backlog: dict[Session, None] = {}
        self.total_bytes = 0
        self._full = metrics.counter("broker_messages_dropped_total", cause="queue_full")
        self._stalled = metrics.counter("broker_clients_stalled_total")
        metrics.gauge("broker_queued_bytes", lambda: self.total_bytes)
        metrics.gauge("broker_queued_sessions", lambda: len(self.backlog))

    def put(
        self,
        session: Session,
        message: Message,
        qos: int,
        retain: bool,  # noqa: FBT001 - as in a Sending
        identifiers: tuple[int, ...],
    ) -> None:
        """Have a message wait, and make room where there is none."""
        session.has_more = True
        self._place += 1
        sending = (message, qos, retain, identifiers, self._place)
        if qos:
            if session.waiting is None:
                session.waiting = deque()
            session.waiting.append(sending)
        else:
            if session.waiting_0 is None:
                session.waiting_0 = deque()
            session.waiting_0.append(sending)
        session.waiting_bytes += message.size
        self.total_bytes += message.size
        self.backlog[session] = None
        limits = self._limits
        if session.waiting_bytes > limits.queue_bytes or session.waiting_count > limits.queue_messages:
            self._shorten(session, limits.queue_bytes)
        if self.total_bytes > limits.total_queue_bytes:
            self._shorten_longest()

    def adopt(self, session: Session, waiting: deque[Sending]) -> None:
        """What waited for a session when the broker ended."""
        session.waiting = waiting
        session.waiting_bytes = sum(sending[0].size for sending in waiting)
        session.note_more()
        self.total_bytes += session.waiting_bytes
        self.backlog[session] = None
        self._shorten(session, self._limits.queue_bytes)
        if self.total_bytes > self._limits.total_queue_bytes:
            self._shorten_longest()

    def take_0(self, session: Session) -> Sending:
        """The oldest QoS 0 message that waits; there is one. `settle` when done."""
        assert session.waiting_0 is not None  # noqa: S101 - for the type checker
        sending = session.waiting_0.popleft()
        if session.unchecked_0:
            session.unchecked_0 -= 1
        return self._taken(session, sending)

    def take(self, session: Session) -> Sending:
        """The oldest QoS 1 or 2 message that waits; there is one. `settle` when done."""
        assert session.waiting is not None  # noqa: S101 - for the type checker
        sending = session.waiting.popleft()
        if session.unchecked:
            session.unchecked -= 1
        return self._taken(session, sending)

    def _taken(self, session: Session, sending: Sending) -> Sending:
        session.waiting_bytes -= sending[0].size
        self.total_bytes -= sending[0].size
        return sending

    def settle(self, session: Session) -> None:
        """Free queues that are empty, and keep the books of who has one."""
        if not session.waiting:
            session.waiting = None
        if not session.waiting_0:
            session.waiting_0 = None
        if session.waiting is None and session.waiting_0 is None:
            self.backlog.pop(session, None)
        session.note_more()

    def forget(self, session: Session, sending: Sending) -> None:
        """A message that waited is not sent: the store need not keep it for this session."""
        if sending[1] and session.number and self._store is not None:
            self._store.drop(session.number, sending[0].number)

    def clear_0(self, session: Session) -> None:
        """The session is offline: QoS 0 that waited is of no use any more."""
        while session.waiting_0:
            self.take_0(session)
        self.settle(session)

    def clear(self, session: Session) -> None:
        """The session has ended; what waited for it goes with it, and is no drop."""
        self.backlog.pop(session, None)
        self._lost.pop(session, None)
        self.total_bytes -= session.waiting_bytes
        session.waiting = session.waiting_0 = None
        session.waiting_bytes = 0

    def _shorten(self, session: Session, max_bytes: int) -> None:
        """Drop from a queue until it fits."""
        max_messages = self._limits.queue_messages
        while session.waiting_bytes > max_bytes or session.waiting_count > max_messages:
            sending = self.take_0(session) if session.waiting_0 else self.take(session)
            self.forget(session, sending)
            self._full.value += 1
            self._lost[session] += 1
        self.settle(session)

    def _shorten_longest(self) -> None:
        """Make room in the common budget, a 64th of it at once so that looking for the longest is rare."""
        goal = self._limits.total_queue_bytes * 63 // 64
        longest = [(-session.waiting_bytes, id(session), session) for session in self.backlog]
        heapq.heapify(longest)
        while self.total_bytes > goal:
            _, _, session = heapq.heappop(longest)
            next_bytes = -longest[0][0] if longest else 0
            excess = self.total_bytes - goal
            self._shorten(session, max(0, session.waiting_bytes - excess, min(next_bytes, session.waiting_bytes - 1)))
            heapq.heappush(longest, (-session.waiting_bytes, id(session), session))

    def recheck(self) -> None:
        """Other rules hold: what waits must be checked anew before it goes."""
        for session in self.backlog:
            session.unchecked = len(session.waiting or ())
            session.unchecked_0 = len(session.waiting_0 or ())

    def stalled(self, now: float) -> list[Client]:
        """Clients whose transport has taken nothing for too long while messages wait. Looked at once a second."""
        since = {s: self._clogged.get(s, now) for s in self.backlog if s.client is not None and s.client.is_congested}
        self._clogged = since
        clients = [s.client for s, at in since.items() if s.client is not None and now - at >= self._limits.stall_s]
        self._stalled.value += len(clients)
        return clients

    def moved(self, session: Session) -> None:
        """Something of what waited was taken."""
        self._clogged.pop(session, None)

    def tell_losses(self) -> None:
        """Report what was dropped since the last time, a line for each session."""
        for session, count in self._lost.items():
            reason = f"{count} messages were dropped: too many waited"
            self._report.say("dropped", client_id=session.client_id, address=session.identity.address, reason=reason)
        self._lost.clear()
