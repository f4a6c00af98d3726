"""One subscription: what is in order, what to deliver, what was missed. Pure: messages and times in, batches out.

    made ──▶ lives ──▶ ended (by the server, by silence, by what it forgot) ──▶ made anew
               │                                                     │
               └── taken up again after a loss of the link ──────────┘ where the server does not have it any more

What its items told last, the numbers seen and the gaps that are open outlive the connection, for from them follows what
must be asked for when it is back. Where it is made anew, its items tell their values at once. Those are held back
until the history between was read, so that values go on in order; but neither for ever nor too many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from drivers.opcua.listening.assembling import picked
from drivers.opcua.listening.items import Gap, Items
from drivers.opcua.listening.numbers import Numbers
from drivers.opcua.values.columns import Columns
from drivers.opcua.values.parsing import Published
from gateway.metrics import Metrics
from gateway.model import Batch

LONGEST_HOLD_S = 60.0
MOST_HELD = 200_000
"""Values of one subscription that wait for the history before them; then they go first, and history comes behind."""
MOST_GAPS = 20_000
"""Gaps of one subscription that wait to be read from history; those beyond are counted and left open."""
_UNTRUSTED: Final = 3
"""So often in one connection messages may be missing for good; then the server's numbers mean something else."""


@dataclass(slots=True)
class Hold:
    """Batches that wait, of some groups by number. `until`: monotonic seconds."""

    groups: set[int]
    until: float
    batches: list[Batch] = field(default_factory=list)
    values: int = 0


class Counts:
    """What is counted of all subscriptions of a line."""

    def __init__(self, metrics: Metrics, line: str) -> None:
        self.messages = metrics.counter("opcua_messages_total", line=line)
        self.republished = metrics.counter("opcua_republished_total", line=line)
        self.lost = metrics.counter("opcua_lost_messages_total", line=line)
        self.overflows = metrics.counter("opcua_overflows_total", line=line)
        self.aliens = metrics.counter("opcua_unknown_handles_total", line=line)
        self.events = metrics.counter("opcua_unasked_events_total", line=line)
        self.unknown = metrics.counter("opcua_unknown_notifications_total", line=line)
        self.strays = metrics.counter("opcua_unknown_subscriptions_total", line=line)
        self.recreated = metrics.counter("opcua_recreated_subscriptions_total", line=line)
        self.dead = metrics.counter("opcua_dead_items_total", line=line)
        self.open_gaps = metrics.counter("opcua_dropped_gaps_total", line=line)
        self.dropped = metrics.counter("opcua_dropped_batches_total", line=line)
        self.early = metrics.counter("opcua_released_early_total", line=line)


class Subscription:
    """Items of one interval. `id` is the server's number of it, 0 while it has none.

    `is_whole` when all its items have been asked for. `interval_s` and `keep_alive_s` are what the server made of the
    wishes; `heard` is when it spoke last, what was told `since` then is not said again. It `is_torn` when messages are
    lost for good; `tears` counts how often that was so in this connection. It `is_behind` after a loss of the link
    until the server has told what it kept meanwhile: what its queues had no room for comes from history first then,
    else behind.
    """

    def __init__(self, every_s: float, items: Items, counts: Counts, *, is_remembering: bool) -> None:
        self.every_s = every_s
        self.items = items
        self.id = 0
        self.is_whole = False
        self.interval_s = every_s
        self.keep_alive_s = 0.0
        self.heard = 0.0
        self.since = 0.0
        self.has_more = False
        self.numbers: Numbers[Published] = Numbers()
        self.missed: set[int] = set()
        self.gaps: deque[Gap] = deque()
        self.hold: Hold | None = None
        self.is_torn = False
        self.is_behind = False
        self.tears = 0
        self._losses = 0
        self._known: set[int] = set()
        self._counts = counts
        self._is_remembering = is_remembering

    def __repr__(self) -> str:
        return f"<Subscription {self.id or 'not made'}, {len(self.items)} items each {self.every_s:g} s>"

    @property
    def is_trusted(self) -> bool:
        """Whether the server numbers its messages as the standard says: else holes mean nothing."""
        return self.tears < _UNTRUSTED

    # --- its life on the server ---

    def begin(self, number: int, interval_s: float, keep_alive_s: float, now: float) -> None:
        """The server made it, under that number. What its items told before is the beginning of a gap."""
        self.id, self.interval_s, self.keep_alive_s = number, interval_s, keep_alive_s
        self.heard = now
        self.is_whole = self.has_more = False
        self.numbers = Numbers()
        self.is_torn, self._losses = False, 0
        self._known = {h for h, heard in enumerate(self.items.heard) if heard and heard >= self.since}
        self.items.forget_server()
        self._miss_all()
        self.is_behind = False
        if self.missed:
            self._hold({self.items.layout.group_of(h) for h in self.missed}, now)

    def end(self, arrival: int, now: float) -> list[Batch]:
        """The server has it no longer; returns what waited for messages that are lost now. What is held back stays."""
        found: list[Batch] = []
        if self.numbers.waiting:
            self._counts.lost.value += len(self.numbers.missing())
            self._miss_all()
            for message in self.numbers.drain():
                found += self.deliver(message, arrival, now)
        self.id = 0
        return found

    def inherit(self, former: Subscription, heirs: Mapping[int, int]) -> None:
        """Take over what is known of the same tags under other handles: new handles by former ones."""
        self.items.inherit(former.items, heirs)
        self._note_gaps([replace(gap, handle=heirs[gap.handle]) for gap in former.gaps if gap.handle in heirs])

    def taken_up(self, began: float, arrival: int) -> list[Batch]:
        """The server has it still, in a connection that began then: what was told last is said again."""
        self.is_behind = True
        self.since = 0.0
        items = self.items
        refused = [handle for handle, code in enumerate(items.status) if code]
        return [*items.restated(began, arrival), *items.refused(refused, arrival)]

    # --- what the server says ---

    def receive(self, published: Published, now: float) -> list[Published]:
        """A publish response; returns the messages whose turn it is."""
        self.heard = now
        self.has_more = published.has_more
        if published.is_keep_alive:
            if self.is_trusted:
                self.numbers.keep_alive(published.sequence)
            return []
        self._counts.messages.value += 1
        if self.is_trusted:
            return self._counted(self.numbers.take(published.sequence, published))
        self.numbers.owe_again([published.sequence])
        return [published]

    def retake(self, number: int, published: Published, now: float) -> list[Published]:
        """A message that was asked for again; returns the messages whose turn it is."""
        self.heard = now
        self._counts.republished.value += 1
        return self.numbers.retaken(number, published)

    def give_up(self, number: int) -> list[Published]:
        """A message that the server does not have any more; returns those whose turn it is then."""
        return self._counted(self.numbers.give_up(number))

    def _counted(self, messages: list[Published]) -> list[Published]:
        """The same messages; where some before them are lost for good, all items have missed something."""
        lost = self.numbers.lost + self.numbers.jumps - self._losses
        if lost:
            self._losses += lost
            self._counts.lost.value += lost
            self._miss_all()
            if not self.is_torn:
                self.is_torn = True
                self.tears += 1
        return messages

    def _miss_all(self) -> None:
        """Between what each item told last and what it tells next there is a gap."""
        if self._is_remembering:
            items = self.items
            self.missed.update(h for h in range(len(items)) if items.told(h) and items.has_history(h))

    # --- what to deliver ---

    def deliver(self, message: Published, arrival: int, now: float) -> list[Batch]:
        """The batches of a message that are to go on now, and not to be held back; `arrival` is wall time in ms."""
        items = self.items
        columns = self._news(message.columns, now) if self._known else message.columns
        cuts, aliens = items.layout.cut(columns)
        self._counts.aliens.value += aliens
        self._counts.events.value += message.events
        self._counts.unknown.value += message.unknown
        free = []
        for cut in cuts:
            ended = items.gaps_before(cut, self.missed) if self.missed else []
            if any(cut.columns.codes):
                overflows = items.overflows(cut)
                self._counts.overflows.value += len(overflows)
                ended = [*ended, *(gap for gap in overflows if gap not in ended)] if ended else overflows
            if ended and self._note_gaps(ended) and self.is_behind:
                self._hold({cut.group}, now)
            items.note(cut, now)
            batch = items.batch(cut, arrival)
            if self.hold is None or cut.group not in self.hold.groups:
                free.append(batch)
            else:
                free += self._held(self.hold, batch, now)
        self.is_behind = self.is_behind and message.has_more
        return free

    def _news(self, columns: Columns, now: float) -> Columns:
        """Without what an item told already: made anew, it tells its value once more, though it is the same."""
        items, known = self.items, self._known
        rows = []
        for row, handle in enumerate(columns.handles):
            if handle in known:
                known.discard(handle)
                if items.is_told(handle, columns, row):
                    items.heard[handle] = now
                    self.missed.discard(handle)
                    continue
            rows.append(row)
        return picked(columns, rows) if len(rows) < len(columns.handles) else columns

    def _note_gaps(self, gaps: Sequence[Gap]) -> bool:
        """Gaps that end now. Only those count that had a beginning, and that history may tell of; whether there are."""
        before = len(self.gaps)
        for gap in gaps:
            if not self._is_remembering or not 0 < gap.after < gap.before or not self.items.has_history(gap.handle):
                continue
            if len(self.gaps) >= MOST_GAPS:
                self._counts.open_gaps.value += 1
            else:
                self.gaps.append(gap)
        return len(self.gaps) > before

    # --- held back ---

    def _hold(self, groups: set[int], now: float) -> None:
        """Hold back what these groups tell from now on."""
        if self.hold is None:
            self.hold = Hold(set(), now + LONGEST_HOLD_S)
        self.hold.groups |= groups

    def _held(self, hold: Hold, batch: Batch, now: float) -> list[Batch]:
        hold.batches.append(batch)
        hold.values += len(batch.values)
        return self.release_early(now)

    def release_early(self, now: float) -> list[Batch]:
        """What is held back, where it was held for too long or grew too much; history then comes behind."""
        if self.hold is None or (now < self.hold.until and self.hold.values < MOST_HELD):
            return []
        self._counts.early.value += 1
        return self.release()

    def release(self) -> list[Batch]:
        """What is held back: it goes on now."""
        hold, self.hold = self.hold, None
        return [] if hold is None else hold.batches
