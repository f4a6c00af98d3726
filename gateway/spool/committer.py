"""The committer: decides when something is written, and hands it to the writer thread. Lives on the event loop.

Persist on age: when the oldest record that is neither on the medium nor acknowledged by all who hold has waited for
the commit interval, it is written, and with it all others in that position. What is acknowledged sooner is never
encoded. One timer stands for the nearest deadline; one job at a time runs in the writer thread and reports back once.

While the disk fails, nothing is lost that memory can hold: the next try comes after 1, 2, 4 … 60 seconds. Where there
is no room but that of records that may not go, it comes as soon as there is some.

When there is nothing better to do, the writer thread thins what is old, makes spares, and gives room back to others.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from errno import EROFS
from functools import partial
from typing import Any, Protocol, TypeVar

from gateway.clock import Clock
from gateway.journal.frame import Head
from gateway.journal.pool import FullError
from gateway.journal.segment import bytes_above
from gateway.spool.commit import Commit
from gateway.spool.cursor import Cursors, State, Wear
from gateway.spool.pace import Latency, Pace, WearMeter
from gateway.spool.record import Gap, Record
from gateway.spool.store import RESERVE, Store
from gateway.spool.thinner import Thinner
from gateway.spool.timeline import Timeline
from gateway.spool.window import Window

log = logging.getLogger("headgate.spool")

Result = TypeVar("Result")

_SAVE_BUSY_S = 10.0
_SAVE_IDLE_S = 60.0
_LONGEST_PAUSE_S = 60.0
_SPARE_PAUSE_S = 600.0
_STALLED_S = 10.0
_TIDY_PAUSE_S = 60.0
_THIN_PAUSE_S = 0.01  # between slices: the thread is there for commits first
_NOTHING_TO_THIN_S = 10.0
_BLOCKED_PAUSE_S = 1.0
_BLOCKED_TRY_S = 60.0  # the file system may have room again, though no record was acknowledged


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How much is written when: the age at which a record must be, and the sizes of a frame and of one job.

    `thin_s`: the window of which only a few values stay, when records are thinned for the first time.
    """

    interval_s: float
    is_always: bool
    frame_bytes: int
    job_bytes: int
    thin_s: float


class Owner(Protocol):
    """Whom the committer tells what became of the records. Called on the event loop."""

    def on_settled(self) -> None:
        """More is on the medium than before."""

    def on_evicted(self, heads: Sequence[Head]) -> None:
        """These frames, the oldest, had to go."""

    def on_unwritten(self, first: int) -> None:
        """The end has come, and records from that number on are in memory only."""

    def on_too_large(self, records: Sequence[Record]) -> None:
        """On the disk, gaps stand in the place of these records."""

    def on_thinned(self, gap: Gap) -> None:
        """Of these records, some are gone to make room, others are less than they were."""


class Committer:
    """Brings records and cursors to the disk.

    `due` is when the timer will ring (minus infinity while a job runs: its end looks for what is due anyway); whoever
    knows of an earlier deadline calls `expect`. `written`: everything up to it is on the medium or was acknowledged.
    `in_flight`: up to it, records are in the writer's hands. `reserve_at`: above it, more numbers must be reserved.
    `is_blocked`: nothing can be written because the records there are may not go.
    """

    def __init__(
        self,
        store: Store,
        window: Window,
        cursors: Cursors,
        owner: Owner,
        *,
        rules: Rules,
        clock: Clock,
        timeline: Timeline,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._writer = store.writer
        self._window = window
        self._cursors = cursors
        self._owner = owner
        self._rules = rules
        self._clock = clock
        self._timeline = timeline
        self._saved = store.state
        self._stored = store.recovered.last_seq
        self._dirty_since = -math.inf if store.failure is not None else math.inf
        self._urgent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._job: asyncio.Future[Any] | None = None
        self._commit: Commit | None = None
        self._job_since = 0.0
        self._retry_at = -math.inf
        self._pause_s = 1.0
        self._spare_at = self._thin_at = -math.inf
        self._tidy_at = clock.monotonic() + _BLOCKED_PAUSE_S
        self._try_at = math.inf
        self._thinned: deque[Gap] = deque()
        self._is_closing = False
        self._failure: BaseException | None = None
        self._wear = WearMeter(store.state.wear, store.tally, clock)
        self.latency = Latency()
        self.pace = Pace()
        self.is_blocked = False
        self.due = math.inf
        self.written = self.in_flight = store.writer.written
        self.reserve_at = store.state.ceiling - RESERVE // 2
        if store.failure is not None:
            self._fail(store.failure)

    @property
    def busy_s(self) -> float:
        """For how long the writer has been at its present job; 0 when it has none."""
        return 0.0 if self._job is None else self._clock.monotonic() - self._job_since

    @property
    def is_degraded(self) -> bool:
        """Whether the disk fails, or keeps us waiting for longer than disks do."""
        return self._failure is not None or self.busy_s > _STALLED_S

    @property
    def is_readonly(self) -> bool:
        """Whether the disk fails because it takes no writes at all."""
        return isinstance(self._failure, OSError) and self._failure.errno == EROFS

    @property
    def wear(self) -> Wear:
        """What was ever written."""
        return self._wear.read()

    @property
    def durable(self) -> int:
        """Everything up to it is on the medium or acknowledged by all who hold."""
        return min(self._window.head, max(self.written, self._cursors.acked))

    def expect(self, due: float) -> None:
        """See that the timer rings at `due` (monotonic seconds) at the latest."""
        if due < self.due:
            self._ring_at(due)

    def touch(self) -> None:
        """A cursor moved: it shall be stored some time soon."""
        if self._dirty_since == math.inf:
            self._dirty_since = self._clock.monotonic()
            self.expect(self._dirty_since + _SAVE_BUSY_S)

    def hurry(self) -> None:
        """Store the cursors at once."""
        self._dirty_since = -math.inf
        self.plan()

    def on_clock(self) -> None:
        """Store at once what was learned of the clock, if it is news."""
        if not self._timeline.is_stored(self._saved):
            self._dirty_since = -math.inf
            self.plan()

    def urge(self, seq: int) -> None:
        """Do not wait for the interval with records up to `seq`."""
        self._urgent = max(self._urgent, seq)
        self.plan()

    def _ring_at(self, due: float) -> None:
        self._silence()
        self.due = due
        self._timer = self._loop.call_later(max(0.0, due - self._clock.monotonic()), self.plan)

    def _silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.due = math.inf

    def plan(self) -> None:
        """Start what is due, or set the timer for what will be due next."""
        if self._job is not None or self._is_closing:
            return
        self._silence()
        now = self._clock.monotonic()
        for due, start in (
            (self._commit_due(), self._start_commit),
            (self._save_due(), self._start_save),
            (self._thin_due(), self._start_thinning),
            (self._spare_due(), self._start_growing),
            (self._tidy_at, self._start_tidying),
        ):
            if due <= now:
                start()
                return
            self.due = min(self.due, due)
        if self.due < math.inf:
            self._ring_at(self.due)

    def _commit_due(self) -> float:
        if not self._cursors.is_held:
            return math.inf
        accepted = self._window.time_after(self._pending_after())
        if accepted is None:
            return math.inf
        due = accepted if self._urgent > self.durable else accepted + self._rules.interval_s
        if self.is_blocked and self._writer.left(self._cursors.firm) <= 0:
            due = min(self._try_at, self._clock.monotonic() + _BLOCKED_PAUSE_S)
        return max(due, self._retry_at)

    def _pending_after(self) -> int:
        return self.written if self._rules.is_always else self.durable

    def _save_due(self) -> float:
        if self._window.head > self.reserve_at:
            return self._retry_at
        is_busy = any(mark.committed < self._stored for mark in self._saved.marks)
        return max(self._dirty_since + (_SAVE_BUSY_S if is_busy else _SAVE_IDLE_S), self._retry_at)

    def _spare_due(self) -> float:
        if self._cursors.is_held and self._failure is None and self._writer.wants_spare(self._cursors.floor):
            return self._spare_at
        return math.inf

    def _thin_due(self) -> float:
        if self._failure is None and self._cursors.is_held and self._writer.wants_thinning(self._cursors.floor):
            return self._thin_at
        return math.inf

    def _start_commit(self) -> None:
        records, times = self._window.pending(self._pending_after(), self._rules.job_bytes)
        self.in_flight = records[-1].seq
        state, commit = self._make()
        self._commit = commit
        now = self._clock.monotonic()
        self._run(partial(commit.write, records, times, now), partial(self._committed, state, commit))

    def _start_save(self) -> None:
        state, commit = self._make()
        self._run(commit.save, partial(self._committed, state, commit))

    def _start_growing(self) -> None:
        self._run(self._writer.grow_spare, self._grown)

    def _start_thinning(self) -> None:
        _, commit = self._make()
        self._run(partial(self._writer.thin, commit, self._thinner), self._slice_done)

    def _thinner(self, level: int) -> Thinner:
        """One for records that were thinned so often already: each time the window is twice as long."""
        rules = self._rules
        return Thinner(
            window_ms=max(1, round(rules.thin_s * 1000)) << level,
            frame_bytes=rules.frame_bytes,
            segment_size=self._store.segment_size,
            tell=self._thinned.append,
        )

    def _start_tidying(self) -> None:
        _, commit = self._make()
        self._run(partial(self._writer.tidy, commit), self._tidied)

    def _make(self) -> tuple[State, Commit]:
        """The state as it is now, with numbers reserved, and a commit that will write it."""
        ceiling = self._window.head + (0 if self._is_closing else RESERVE)
        timeline = self._timeline
        state = replace(
            self._saved,
            ceiling=ceiling,
            marks=self._cursors.marks(),
            wear=self._wear.read(),
            anchors=timeline.anchors,
            seen=timeline.seen,
            uncorrected=timeline.uncorrected,
        )
        rules = self._rules
        commit = Commit(
            self._writer,
            state,
            self._cursors.floor,
            self._cursors.firm,
            frame_bytes=rules.frame_bytes,
            segment_size=self._store.segment_size,
            timeline=timeline,
        )
        return state, commit

    def _run(self, work: Callable[[], Result], done: Callable[[asyncio.Future[Result]], None]) -> None:
        self.due = -math.inf
        self._job_since = self._clock.monotonic()
        job = self._loop.run_in_executor(self._store.writing, work)
        self._job = job
        job.add_done_callback(done)

    def _committed(self, state: State, commit: Commit, job: asyncio.Future[None]) -> None:
        """The writer thread is done with records, or with the state alone."""
        self._job = self._commit = None
        self.latency.note(self._clock.monotonic() - self._job_since)
        before = self.written
        self.written = self.in_flight = max(before, self._writer.written)
        if self._writer.written >= self._writer.epoch_first:
            self._stored = self._writer.written
        self._tell(commit)
        error = job.exception()
        if isinstance(error, FullError):
            self._block()
        elif error is not None:
            self._fail(error)
        else:
            self._succeed(state)
            self.is_blocked = self.is_blocked and self.written == before
            if commit.too_large:
                self._owner.on_too_large(commit.too_large)
        self._tell_thinned()
        self._keep_pace()
        self._owner.on_settled()
        self.plan()

    def tell_evicted(self) -> None:
        """Tell now of what the writer has given up until now, without waiting for the end of its job.

        It notes what it gives up before it touches it: who misses something on the disk hears of it here.
        """
        if self._commit is not None:
            self._tell(self._commit)

    def _tell(self, commit: Commit) -> None:
        heads = commit.news()
        if heads:
            self._owner.on_evicted(heads)

    def _keep_pace(self) -> None:
        """Note how much is stored, and warn when it becomes much."""
        writer, floor, now = self._writer, self._cursors.floor, self._clock.monotonic()
        self.pace.note(now, self._store.tally.frame_bytes.value, bytes_above(writer.segments, floor))
        self.pace.warn(now, self.fill, self.hours_left)

    @property
    def fill(self) -> float:
        """How much of the room on the disk is taken by what somebody needs: 0 to 1."""
        return self._writer.filled_bytes(self._cursors.floor) / self._writer.capacity_bytes

    @property
    def hours_left(self) -> float | None:
        """Until the disk is full at the present rate; None where it does not fill."""
        room = self._writer.capacity_bytes - self._writer.filled_bytes(self._cursors.floor)
        return self.pace.hours_left(self._clock.monotonic(), room)

    def _tell_thinned(self) -> None:
        while self._thinned:
            self._owner.on_thinned(self._thinned.popleft())

    def _block(self) -> None:
        """No room: what is not written yet waits in memory."""
        if not self.is_blocked:
            log.warning("the spool is full of records that some uplink has not got yet: new ones wait in memory")
        self.is_blocked = True
        self._try_at = self._clock.monotonic() + _BLOCKED_TRY_S

    def _succeed(self, state: State) -> None:
        if self._failure is not None:
            log.info("the spool's disk works again")
        self._failure = None
        self._retry_at, self._pause_s = -math.inf, 1.0
        self._saved = state
        self.reserve_at = state.ceiling - RESERVE // 2
        self._dirty_since = math.inf if self._cursors.marks() == state.marks else self._clock.monotonic()
        if not self._timeline.is_stored(state):
            self._dirty_since = -math.inf

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            # Whatever it is: the field side goes on, and so do the uplinks, from memory.
            log.error(
                "the spool's disk fails (%s): records are kept in memory only, until it works again",
                error,
                exc_info=None if isinstance(error, OSError) else error,
            )
        self._failure = error
        self._retry_at = self._clock.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _grown(self, job: asyncio.Future[None]) -> None:
        self._job = None
        error = job.exception()
        if error is not None:
            log.info("no spare segment can be made ready now (%s); those there are go round", error)
            self._spare_at = self._clock.monotonic() + _SPARE_PAUSE_S
        self.plan()

    def _slice_done(self, job: asyncio.Future[bool]) -> None:
        self._job = None
        error = job.exception()
        now = self._clock.monotonic()
        if error is not None:
            log.warning("old records cannot be thinned now (%s)", error)
            self._thin_at = now + _SPARE_PAUSE_S
        else:
            self._thin_at = now + (_THIN_PAUSE_S if job.result() else _NOTHING_TO_THIN_S)
        self._tell_thinned()
        self.plan()

    def _tidied(self, job: asyncio.Future[bool]) -> None:
        self._job = None
        error = job.exception()
        if error is not None and self._failure is None:
            log.info("the room on the file system cannot be looked after (%s)", error)
        is_more = error is None and job.result()
        self._tidy_at = self._clock.monotonic() + (_THIN_PAUSE_S if is_more else _TIDY_PAUSE_S)
        self.plan()

    async def close(self) -> None:
        """Write what is pending, and the state; then close all files. A disk that fails now is tried once."""
        self._is_closing = True
        self._silence()
        await self._idle()
        failures, self.is_blocked = 0, False
        while not failures and self._cursors.is_held and self._window.time_after(self._pending_after()) is not None:
            self._start_commit()
            await self._idle()
            failures += self._failure is not None or self.is_blocked
        if failures:
            why = "is full" if self.is_blocked else "fails"
            log.error("records %d to %d are lost: the disk %s", self.durable + 1, self._window.head, why)
            self._owner.on_unwritten(self.durable + 1)
        self._start_save()
        await self._idle()
        await self._loop.run_in_executor(self._store.writing, self._writer.close)

    async def _idle(self) -> None:
        """Wait for the writer thread."""
        while self._job is not None:
            await asyncio.wait([self._job])
