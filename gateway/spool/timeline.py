"""The timeline: how far wall time ran ahead of monotonic time during this boot, and what that was worth. Pure.

Many gateways have no clock that runs while the power is off. They begin in 1970, or where the last shutdown was saved,
take samples, and are told the time a minute or a day later. Within one boot monotonic time is right throughout, so each
time that was read off the wall clock can be mended as soon as the difference of the two is known for certain:

    wall       1970-01-01 00:00:20 … 00:01:10 | 2026-11-22 06:47:11 …
    monotonic                   20 …       70 | 71 …
    stretch    offset 0, not plausible        | offset 1795330360000 ms, synchronised: the anchor of this boot
    mended     + (1795330360000 - 0)          | as it is

A *stretch* lasts until the clock steps by more than a second, or comes to be synchronised, or is so no longer. Records
taken while it was not carry the stretch's `Regime`; on the disk, the head of their frame tells it. The first *anchor*
of a boot stands for ever: a record that is sent twice has the same time twice. Later anchors (a clock that stepped
while it was synchronised) only tell that what was taken by them needs no mending.

A clock that is not synchronised is plausible as long as it shows no time that the store has seen already, nor one
before this program was made. What a boot without any anchor leaves behind is flagged for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby
from typing import Literal, TypeAlias
from uuid import UUID

from gateway.clock import RELEASED_MS
from gateway.journal.frame import Head
from gateway.model import Batch
from gateway.spool.cursor import Anchor, State
from gateway.spool.record import Gap, Message, Note, Record, Regime

Worth: TypeAlias = Literal["synced", "holdover", "unsynced"]
"""What wall time is worth: synchronised; not so, but plausible; or showing what cannot be."""

STEP_MS = 1000
"""A clock that differs by more than this from what was expected has been set; less is let pass."""

_MOST_ANCHORS = 32
_MOST_STRETCHES = 32
_MOST_OF_BOOT = 4  # anchors: the first, and the newest behind it
_LATE_MS = 60_000  # a batch that was read before the clock stepped comes in within this time, or it is not ours
_SAME_CLOCK_MS = 3_600_000  # a source that is farther from us than this has a clock of its own
_EVIDENT = 10  # and so has one that is farther from us than one in so many of what our clock was wrong by
_CLOCKS: dict[Worth, int] = {"unsynced": 0, "holdover": 1, "synced": 2}  # as in a frame's head


@dataclass(frozen=True, slots=True)
class Stretch:
    """From monotonic `since` on, wall time ran `offset` ahead (both in ms); `regime` is None while synchronised."""

    since: int
    offset: int
    regime: Regime | None

    @property
    def clock(self) -> int:
        """The state of the clock, as a frame's head says it."""
        return _CLOCKS[_worth(self.regime)]


class Timeline:
    """What is known of this boot's clock, and the anchors of earlier boots. Every time is an argument, in ms.

    `offset` and `regime` are those of the present stretch. `stretches`: the newest last; swapped as a whole, so that
    other threads may look. `seen`: the newest time that was believed, in this boot and before. `uncorrected`:
    clocks by which something was handed out, that could not be right.
    """

    def __init__(self, boot_id: bytes) -> None:
        self.boot_id = boot_id
        self.stretches: tuple[Stretch, ...] = ()
        self.offset = 0
        self.regime: Regime | None = None
        self.seen = 0
        self.anchors: tuple[Anchor, ...] = ()
        self.uncorrected: tuple[Regime, ...] = ()
        self._is_stored_before = False

    def __repr__(self) -> str:
        return f"Timeline({self.worth}, offset={self.offset}, stretches={len(self.stretches)})"

    @property
    def worth(self) -> Worth:
        """What wall time is worth now."""
        return _worth(self.regime)

    @property
    def is_doubtful(self) -> bool:
        """Whether times read off the clock now cannot be right, and cannot be mended either so far."""
        regime = self.regime
        return regime is not None and not regime.is_plausible and self.anchor(regime) is None

    # --- what is learned ------------------------------------------------------------------------------------------

    def learn(self, anchors: Sequence[Anchor], seen: int, uncorrected: Sequence[Regime]) -> None:
        """Take over what an earlier run has stored. Call it before the first `look`."""
        self.seen = max(self.seen, seen)
        known = self.anchors
        self.anchors = (*known, *(anchor for anchor in anchors if anchor not in known))[-_MOST_ANCHORS:]
        mine = [r for r in uncorrected if r.boot_id == self.boot_id and r not in self.uncorrected]
        self.uncorrected = (*self.uncorrected, *mine)

    def keep(self, boots: Collection[bytes]) -> None:
        """Of these boots there are records: forget the anchors of others. Call it before the first `look`."""
        self.anchors = tuple(a for a in self.anchors if a.boot_id in boots or a.boot_id == self.boot_id)
        self._is_stored_before = self.boot_id in boots

    def look(self, monotonic: int, wall: int, *, is_synced: bool) -> bool:
        """Take notice of what the clocks show. True when a new stretch begins."""
        offset = wall - monotonic
        is_same = self.stretches and is_synced is (self.regime is None) and abs(offset - self.offset) <= STEP_MS
        if not is_same:
            self._begin(monotonic, offset, is_synced=is_synced)
        if is_synced and not is_same:
            self.seen = wall  # what was seen beyond that was wrong
        elif self.regime is None or self.regime.is_plausible:
            self.seen = max(self.seen, wall)
        return not is_same

    def _begin(self, monotonic: int, offset: int, *, is_synced: bool) -> None:
        wall = monotonic + offset
        regime = None
        if not is_synced:
            is_plausible = wall >= max(RELEASED_MS, self.seen - STEP_MS)
            regime = Regime(self.boot_id, offset, is_plausible)
        self.stretches = (*self.stretches, Stretch(monotonic, offset, regime))[-_MOST_STRETCHES:]
        self.offset, self.regime = offset, regime
        if self._is_stored_before or any(stretch.regime is not None for stretch in self.stretches):
            # Before anything could need them, anchors are not worth a write.
            for stretch in self.stretches:
                if stretch.regime is None:
                    self._note_anchor(Anchor(self.boot_id, stretch.offset))

    def _note_anchor(self, anchor: Anchor) -> None:
        mine = [a for a in self.anchors if a.boot_id == self.boot_id]
        if any(abs(a.offset - anchor.offset) <= STEP_MS for a in mine):
            return
        others = [a for a in self.anchors if a.boot_id != self.boot_id]
        mine = mine[:1] + mine[1:][-(_MOST_OF_BOOT - 2) :] + [anchor]
        self.anchors = (*others, *mine)[-_MOST_ANCHORS:]

    def is_stored(self, state: State) -> bool:
        """Whether all that must outlive a power cut stands in a state."""
        return (state.anchors, state.uncorrected) == (self.anchors, self.uncorrected)

    # --- whose time it is -----------------------------------------------------------------------------------------

    def regime_of(self, time: int, monotonic: int) -> Regime | None:
        """The regime of a time read off the wall clock not long before `monotonic`.

        Usually the present one; what was read before the clock was set, and comes in late, belongs to one before.
        """
        for stretch in reversed(self.stretches):
            late = monotonic + stretch.offset - time
            if -STEP_MS <= late <= _LATE_MS and (stretch.since <= monotonic - late + STEP_MS):
                return stretch.regime
            if stretch.since < monotonic - _LATE_MS:
                break
        return self.regime

    def anchor(self, regime: Regime) -> Anchor | None:
        """The anchor by which times of that regime are mended, if there is one."""
        first: Anchor | None = None
        for anchor in self.anchors:
            if anchor.boot_id == regime.boot_id:
                if abs(anchor.offset - regime.offset) <= STEP_MS:
                    return anchor
                first = first or anchor
        return first

    def timed(self, record: Record) -> Record:
        """The record with its times mended; as it is where they need not be, or cannot be."""
        regime, batch = record.regime, record.batch
        if regime is None:
            return record
        if batch is not None and batch.is_history:  # its times are those of who remembers, whatever our clock said
            return replace(record, regime=None)
        anchor = self.anchor(regime)
        if anchor is None:
            return record
        shift = anchor.offset - regime.offset
        return Record(
            record.seq,
            record.epoch,
            None if batch is None else _moved(batch, shift),
            record.kind,
            None if record.other is None else _shifted(record.other, shift),
            None,
            record.is_thinned,
        )

    def mended(self, head: Head) -> Head:
        """A frame's head with the times of its records mended. Where they cannot be right they are left out: 0."""
        regime = regime_of_head(head)
        if regime is None:
            return head
        return replace(head, min_time=self.known(head.min_time, regime), max_time=self.known(head.max_time, regime))

    def known(self, time: int, regime: Regime | None) -> int:
        """A time that was read in that regime, mended; 0, not known, where it cannot be right."""
        if regime is None:
            return time
        anchor = self.anchor(regime)
        if anchor is None:
            return time if regime.is_plausible else 0
        return _later(time, anchor.offset - regime.offset)

    # --- what consumers must be told ------------------------------------------------------------------------------

    def note_sent(self, record: Record) -> bool:
        """Take notice that a record is handed out with the times it has. True when that is news worth storing."""
        regime = record.regime
        if regime is None or regime.is_plausible or regime.boot_id != self.boot_id or self.anchor(regime) is not None:
            return False
        if regime in self.uncorrected:
            return False
        self.uncorrected = (*self.uncorrected, regime)[-_MOST_OF_BOOT:]
        return True

    def corrections(self) -> list[tuple[int, int]]:
        """(offset of the wrong clock, ms to add to its times) for all that can be told by now; each is told once."""
        told = []
        for regime in self.uncorrected:
            anchor = self.anchor(regime)
            if anchor is not None:
                told.append((regime.offset, anchor.offset - regime.offset))
        if told:
            self.uncorrected = ()
        return told


def _worth(regime: Regime | None) -> Worth:
    if regime is None:
        return "synced"
    return "holdover" if regime.is_plausible else "unsynced"


def by_stretch(
    records: Sequence[Record], times: Sequence[float], stretches: Sequence[Stretch]
) -> Iterator[tuple[Stretch, int, int]]:
    """Records, accepted at these monotonic times (s), in runs of one stretch each: (stretch, first, one past last)."""
    present = stretches[-1]
    if present.since <= times[0] * 1000 and all(record.regime == present.regime for record in records):
        yield present, 0, len(records)
        return
    runs = groupby(range(len(records)), lambda i: _stretch_of(records[i].regime, times[i] * 1000, stretches))
    for stretch, run in runs:
        members = list(run)
        yield stretch, members[0], members[-1] + 1


def _stretch_of(regime: Regime | None, accepted: float, stretches: Sequence[Stretch]) -> Stretch:
    """The newest stretch of that regime that had begun when a record was accepted."""
    fitting = [stretch for stretch in reversed(stretches) if stretch.regime == regime]
    if not fitting:  # so long ago that it was forgotten
        return Stretch(0, stretches[-1].offset if regime is None else regime.offset, regime)
    return next((stretch for stretch in fitting if stretch.since <= accepted + 1), fitting[-1])


def _later(time: int, shift: int) -> int:
    """A time, moved; 0 stays what it means, not known."""
    return time + shift if time else 0


def _moved(batch: Batch, shift: int) -> Batch:
    """A batch whose wall clock was wrong. A source's time is moved with it where it was evidently read off that clock.

    That is: it lies before the time the batch has, by no more than an hour and by no more than a tenth of the shift. By
    a clock that is right it would have been old by more than ten times that when it came. A source with a clock of its
    own is right already, or wrong in its own way; so is the server that hands its values on.
    """
    time = batch.time
    times, served = (_moved_times(column, time, shift) for column in (batch.times, batch.server_times))
    return replace(batch, time=time + shift, times=times, server_times=served)


def _moved_times(times: Sequence[int] | None, time: int, shift: int) -> Sequence[int] | None:
    near = min(_SAME_CLOCK_MS, abs(shift) // _EVIDENT)
    late = min(STEP_MS, near)
    return None if times is None else [_later(t, shift) if -near <= t - time <= late else t for t in times]


def _shifted(other: Gap | Message | Note, shift: int) -> Gap | Message | Note:
    if isinstance(other, Gap):
        return replace(other, first_time=_later(other.first_time, shift), last_time=_later(other.last_time, shift))
    return replace(other, time=other.time + shift)


def regime_of_head(head: Head) -> Regime | None:
    """The regime that all records of a frame were taken under; None where the clock was synchronised."""
    if head.clock == _CLOCKS["synced"]:
        return None
    return Regime(head.boot_id, head.wall - head.monotonic, is_plausible=head.clock == _CLOCKS["holdover"])


def boot_bytes(text: str) -> bytes:
    """The boot id's sixteen bytes; a digest where the system gives none of the usual form."""
    try:
        return UUID(text).bytes
    except ValueError:
        return blake2b(text.encode(), digest_size=16).digest()
