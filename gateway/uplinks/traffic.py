"""What goes over an uplink's lanes: which a new connection gets, when those begin that may wait, how far they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from gateway.errors import HeadgateError
from gateway.spool.cursor import Span
from gateway.uplinks.backlog import Backlog, Outlook
from gateway.uplinks.delivery import Delivery
from gateway.uplinks.lane import Lane, Progress, Stream
from gateway.uplinks.options import Options, Order
from gateway.uplinks.pacing import Bucket
from gateway.uplinks.refusals import Refusals
from gateway.uplinks.replay import Replay, ReplayStatus
from gateway.uplinks.suspect import Key

_OLD_S = 60.0
_LOOK_EVERY_S = 1.0
_NONE = -1


class Traffic:
    """The traffic of one uplink, over all its connections. Times are the loop's."""

    def __init__(
        self, options: Options, streams: Sequence[Stream], refusals: Refusals, *, dice: Callable[[], float]
    ) -> None:
        self._order: Order = options.order
        self._longest_s = options.replay_delay_s
        self._bucket = None if options.replay_rate is None else Bucket(options.replay_rate)
        self._streams = streams
        self._refusals = refusals
        self._dice = dice
        self._backlog = Backlog(options.name)
        self._behind: set[Lane] = set()
        self._replay: Replay | None = None
        self._delivery: Delivery | None = None
        self._lost_at: float | None = None

    def __repr__(self) -> str:
        return f"<Traffic of {len(self._streams)} streams, {self._order}>"

    # --- connections ------------------------------------------------------------------------------------------------

    def begin(self, delivery: Delivery) -> bool:
        """Give a new connection its lanes; whether there is a backlog that what is new overtakes.

        The most important first: alarms with their backlog, then what is new, then the rest of the backlog, and last
        what somebody wants to have once more. Everything that is there now and not acknowledged is backlog.
        """
        now = asyncio.get_running_loop().time()
        waiting = [stream.waiting() for stream in self._streams]
        records, age_s = sum(n for n, _ in waiting), max((age for _, age in waiting), default=0.0)
        outage_s = age_s if self._lost_at is None else now - self._lost_at
        wait_s = delay_s(self._order, longest_s=self._longest_s, outage_s=outage_s, age_s=age_s, dice=self._dice)
        later = []
        for stream in self._streams:
            first, *others = self._lanes(stream, delivery, opens_at=now + wait_s if records else 0.0)
            delivery.add(first)
            for lane in others:
                if lane.is_alarm:
                    delivery.add(lane)
                else:
                    later.append(lane)
        for lane in later:
            delivery.add(lane)
        self._delivery = delivery
        self._behind = {lane for lane in delivery.lanes if lane.is_behind}
        if records and self._behind:
            self._backlog.begin(records, now)
        else:
            self._backlog.done(now)
        self._send_again(delivery)
        return bool(records) and self._order == "live_first"

    def _lanes(self, stream: Stream, delivery: Delivery, *, opens_at: float) -> list[Lane]:
        """One where all goes in order; else one for what is new, and one for what is not. Alarms never wait."""
        head, cursor = stream.source.head, stream.cursor
        is_alarm = stream.source.record_class == "alarm"
        new = partial(Lane, stream, refusals=self._refusals, kick=delivery.kick)
        late = partial(new, bucket=None if is_alarm else self._bucket, opens_at=0.0 if is_alarm else opens_at)
        if self._order == "in_order":
            cursor.rewind()
            return [late(reading=cursor, kind="in_order", replay_until=head)]
        cursor.rewind(until=head)
        live = new(reading=cursor.branch(head), kind="live", replay_until=_NONE)
        if cursor.committed >= head:
            return [live]
        return [live, late(reading=cursor, kind="backlog", replay_until=head, yields=not is_alarm)]

    def end(self) -> None:
        """The connection is gone."""
        if self._delivery is not None:
            self._lost_at = asyncio.get_running_loop().time()
        self._delivery = None
        self._behind = set()

    # --- what becomes of records ------------------------------------------------------------------------------------

    def on_progress(self, lane: Lane, progress: Progress) -> None:
        """Something that is not new is acknowledged."""
        if lane.kind == "again":
            if self._replay is not None:
                self._replay.add(lane, progress)
            return
        now = asyncio.get_running_loop().time()
        self._backlog.add(progress.backlog, progress.values, now)
        self._catch_up(now)

    def on_over(self, lane: Lane) -> None:
        """A lane has come to its end."""
        if lane.kind == "again" and self._replay is not None:
            self._replay.over(lane)
        self._behind.discard(lane)
        self._catch_up(asyncio.get_running_loop().time())

    def _catch_up(self, now: float) -> None:
        if self._behind:
            self._behind = {lane for lane in self._behind if lane.is_behind}
        if not self._behind and self._delivery is not None:
            self._backlog.done(now)

    async def watch(self) -> None:
        """See how fast the backlog goes, for as long as the connection lasts."""
        loop = asyncio.get_running_loop()
        while self._behind:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._catch_up(loop.time())
            self._backlog.look(loop.time())
        await loop.create_future()

    def outlook(self) -> Outlook:
        """What is left of the backlog; where there is no connection, all that waits."""
        if self._delivery is None:
            return Outlook(records=sum(stream.waiting()[0] for stream in self._streams), rate=0.0, left_s=None)
        return self._backlog.look(asyncio.get_running_loop().time())

    # --- once more --------------------------------------------------------------------------------------------------

    def replay(self, first_ms: int, last_ms: int) -> None:
        """Send once more what the spool has of that time. Raises HeadgateError where that is being done already."""
        if self._replay is not None and not self._replay.is_done:
            raise HeadgateError("a replay is under way. Wait for its end, or stop it")
        self._replay = Replay(Span(first_ms, last_ms), self._streams)
        if self._delivery is not None:
            self._send_again(self._delivery)

    def _send_again(self, delivery: Delivery) -> None:
        if self._replay is None:
            return
        for stream, reading in self._replay.readings():
            lane = Lane(
                stream,
                reading,
                "again",
                refusals=self._refusals,
                kick=delivery.kick,
                replay_until=reading.until,
                bucket=self._bucket,
                yields=True,
            )
            delivery.add(lane)

    def stop_replay(self, error: str = "") -> None:
        """Send no more of it. Nothing happens where there is none."""
        if self._replay is None or self._replay.is_done:
            return
        self._replay.end(error)
        self.quiet()

    def quiet(self) -> None:
        """Send nothing once more on this connection."""
        for lane in [] if self._delivery is None else list(self._delivery.lanes):
            if lane.kind == "again" and self._delivery is not None:
                self._delivery.drop(lane)

    def replay_status(self) -> ReplayStatus | None:
        """How far the latest replay is; None where there was none."""
        return None if self._replay is None else self._replay.status()

    def blame(self, key: Key) -> None:
        """The connection broke when a record of the replay had been on its way for longest."""
        if self._replay is not None:
            self._replay.blame(key)


def delay_s(order: Order, *, longest_s: float, outage_s: float, age_s: float, dice: Callable[[], float]) -> float:
    """How long a backlog waits, so that a fleet that was cut off together does not come back with all it has at once.

    Drawn between 0 and `longest_s`, or half of the outage where that is less. `age_s` is that of the oldest record:
    where all goes in order, and what is new would wait too, a young backlog goes at once.
    """
    if order == "in_order" and age_s <= _OLD_S:
        return 0.0
    return min(longest_s, outage_s / 2) * dice()
