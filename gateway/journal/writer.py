"""The writer: puts frames on the disk, rolls and recycles segments, and knows what to do when the disk refuses.

Nothing here is locked: every method that touches files runs in the one writer thread; `segments` is swapped as a whole,
so that readers in other threads may walk it at any time.

What each crash leaves, and how it is found again:

| power fails                       | the folder then holds                              | the next start           |
|-----------------------------------|----------------------------------------------------|--------------------------|
| while a frame is written          | a frame whose checksum fails, behind durable ones  | skips it                 |
| after `fdatasync` of a frame      | the frame                                          | reads it                 |
| between rename and sync of folder | the old or the new name, the old frames inside     | reads them, or finds no  |
|                                   |                                                    | frame of its own: free   |
| while a spare is filled           | a file that is too short                           | removes it               |
| while a slot is written           | one torn slot, one whole                           | reads the other          |

Never appended to is what an earlier run wrote: behind a torn tail nobody can tell old from new. Before a file loses its
records, the slots say why (acknowledged, or lost and to be reported); before the first frame of a segment counts, its
name is on the medium. After a failed write or flush the segment is closed for good, and everything since its last
durable frame is written once more, from memory, into another.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from gateway.clock import Clock, SystemClock
from gateway.journal import frame
from gateway.journal.disk import Disk
from gateway.journal.frame import Body, Head
from gateway.journal.pool import Bounds, Pool
from gateway.journal.retention import needed
from gateway.journal.rewrite import Rewrite, Sparser, choose
from gateway.journal.segment import Scanner, Segment, Tally
from gateway.journal.slots import Slots

log = logging.getLogger("headgate.journal")

_USUAL = Bounds()
_LOW = 16  # so many times less than there may be is little: then thinning begins


class Keeper(Protocol):
    """The owner of the records, as far as the writer must ask it. Called in the writer thread."""

    @property
    def floor(self) -> int:
        """Records up to this number are needed by nobody."""
        ...

    @property
    def firm(self) -> int:
        """Records up to here may go before new ones are refused, though they lie above the floor."""
        ...

    def lose(self, heads: Sequence[Head]) -> None:
        """These frames, the oldest, are about to be overwritten because there is no other room."""
        ...

    def document(self) -> bytes:
        """The owner's state as it is now; it goes into every frame and into the slots."""
        ...


@dataclass(frozen=True, slots=True)
class Draft:
    """One frame to be written. `head` says what the records are; where it stands and in which order is filled in.

    `entries` are all dictionary entries that the payload refers to; those the segment already has are left out.
    """

    head: Head
    entries: Mapping[bytes, bytes]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start finds: the owner's newest document; the highest number of a record in any frame; the newest head.

    `saved`: whether what was saved last is sure to be known; where that is `doubtful` the document may be the last but
    one, where it is `lost`, one of any age, out of a frame.
    """

    document: bytes | None
    last_seq: int
    newest: Head | None
    saved: Literal["sure", "doubtful", "lost"] = "sure"


class Writer:
    """Writes the frames of one folder.

    `written` is the number up to which everything handed in is on the medium, `ordinal` how many records were ever
    written to this store, `epoch_first` the number of the present epoch's first record.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        segment_size: int,
        max_bytes: int,
        tally: Tally,
        bounds: Bounds = _USUAL,
        clock: Clock | None = None,
    ) -> None:
        self._disk = disk
        self._tally = tally
        self._segment_size = segment_size
        self._scanner = Scanner(disk, tally)
        self._slots = Slots(disk, tally)
        self._pool = Pool(
            disk,
            self._scanner,
            segment_size=segment_size,
            max_bytes=max_bytes,
            tally=tally,
            bounds=bounds,
            clock=clock or SystemClock(),
        )
        self._rewrite: Rewrite | None = None
        self._is_failing = False
        self._active: Segment | None = None
        self._file = -1
        self._offset = 0
        self._known: set[bytes] = set()
        self._origin = Head()
        self._generation = 0
        self._unsynced = 0
        self.ordinal = 0
        self.epoch_first = 1
        self.written = 0

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments that may hold records, oldest first."""
        return self._pool.segments

    @property
    def is_evicting(self) -> bool:
        """Whether the newest segment could only be had by giving up records that somebody still needs."""
        return self._pool.is_evicting

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all files, whether they hold records or not."""
        return self._pool.allocated_bytes

    @property
    def capacity_bytes(self) -> int:
        """Bytes of segments that there may be at once."""
        return self._pool.capacity_bytes

    def used_bytes(self, floor: int) -> int:
        """Bytes of segments that hold a record above `floor`."""
        return self._pool.used_bytes(floor)

    def filled_bytes(self, floor: int) -> int:
        """The same, without what is still free in the newest of them."""
        free = self._active.size - self._offset if self._active is not None else 0
        return max(0, self._pool.used_bytes(floor) - free)

    def left(self, floor: int) -> int:
        """How many segments more there may be before something must give way. Cheap, from any thread."""
        return self._pool.left(floor)

    def recover(self) -> Recovered:
        """Look through the folder. Damage never raises; OSError only where the folder itself cannot be listed."""
        slot = self._slots.read()
        self._pool.recover()
        document, last = None, None
        if slot is not None:
            self._generation, document = slot
        for segment in reversed(self.segments):
            newest = self._newest(segment)
            if newest is not None:
                head, body = newest
                self.ordinal, last = head.ordinal + head.count, head
                if head.generation > self._generation or document is None:
                    self._generation, document = max(self._generation, head.generation), body.document
                break
        seen = [s.last_seq or s.first.last_seq for s in self.segments if s.first is not None]
        saved: Literal["sure", "doubtful", "lost"] = "doubtful" if self._slots.is_doubtful else "sure"
        return Recovered(document, max(seen, default=0), last, saved if slot is not None else "lost")

    def _heads(self, segment: Segment) -> list[Head]:
        file = self._disk.open(segment.name)
        try:
            return list(self._scanner.heads(file, segment))
        finally:
            self._disk.close(file)

    def _newest(self, segment: Segment) -> tuple[Head, Body] | None:
        """The last whole frame of a segment; its bounds are noted on the way."""
        try:
            file = self._disk.open(segment.name)
        except OSError:
            return None
        try:
            heads = list(self._scanner.heads(file, segment))
            segment.last_seq = max((head.last_seq for head in heads), default=None)
            for head in reversed(heads):  # bodies before the last whole one are checked when they are read
                body = self._scanner.load(file, segment, head)
                if body is not None:
                    return head, body
        finally:
            self._disk.close(file)
        return None

    def begin(self, *, store: int, start: int, first_seq: int) -> None:
        """Take up the epoch in which all frames from now on are written; its records count from `first_seq`."""
        self._origin = Head(store=store, start=start)
        self.epoch_first = first_seq
        self.written = first_seq - 1

    def save(self, document: bytes) -> None:
        """Write the document alone, into the slots. Raises OSError."""
        self._generation += 1
        self._slots.write(self._generation, document)

    def write(self, drafts: Sequence[Draft], keeper: Keeper) -> None:
        """Write frames; all are on the medium when this returns.

        A failure of the disk is answered by one more try in a fresh segment. Raises OSError when that fails too, and
        FullError where all room is taken by records that may not go; what is durable by then is told by `written`.
        """
        left = deque(drafts)
        try:
            self._write(left, keeper)
        except OSError as error:
            if not self._is_failing:
                log.warning("writing to the journal failed (%s); trying once more in a fresh segment", error)
            self._is_failing = True
            try:
                self._abandon()
                if isinstance(error, FileNotFoundError):
                    self._slots.close()
                    self._pool.look_again()
                self._write(left, keeper)
            except OSError:
                self._abandon()
                raise
        self._is_failing = False

    def _write(self, left: deque[Draft], keeper: Keeper) -> None:
        """Write all of `left`; what is on the medium leaves it."""
        staged: list[Head] = []
        for draft in tuple(left):
            sealed = self._seal(draft, keeper)
            if sealed is None:
                self._settle(staged, left)
                self._roll(keeper)
                sealed = self._seal(draft, keeper)
            if sealed is None:
                raise ValueError(f"a frame of {len(draft.payload)} bytes is larger than a segment")
            head, data = sealed
            head = frame.parse(data) or head  # now with its lengths
            self._disk.pwrite(self._file, data, self._offset)
            self._tally.bytes_written.value += len(data)
            self._tally.frame_bytes.value += len(data)
            self._tally.payload_bytes.value += head.body_length
            self._offset += len(data)
            self._known.update(draft.entries)
            self._unsynced += head.count
            staged.append(head)
        self._settle(staged, left)

    def _seal(self, draft: Draft, keeper: Keeper) -> tuple[Head, bytes] | None:
        """The frame for the place where the active segment goes on; None when there is no room for it."""
        if self._active is None:
            return None
        self._generation += 1
        head = replace(
            draft.head,
            store=self._origin.store,
            start=self._origin.start,
            flags=frame.EPOCH_START if draft.head.covers_from == self.epoch_first else 0,
            segment=self._active.id,
            offset=self._offset,
            ordinal=self.ordinal + self._unsynced,
            generation=self._generation,
        )
        entries = {key: entry for key, entry in draft.entries.items() if key not in self._known}
        data = frame.seal(head, Body(entries, keeper.document(), draft.payload))
        return None if self._offset + len(data) > self._active.size else (head, data)

    def _settle(self, staged: list[Head], left: deque[Draft]) -> None:
        """Bring staged frames to the medium, and only then let readers and the owner know of them."""
        if not staged or self._active is None:
            return
        self._disk.fdatasync(self._file)
        self._disk.size(self._active.name)  # a file that somebody removed takes everything, and nobody sees it again
        self._tally.flushes.value += 1
        self._tally.frames.value += len(staged)
        self.ordinal, self._unsynced = self.ordinal + self._unsynced, 0
        self._active.first = self._active.first or staged[0]
        self._active.last_seq = self.written = staged[-1].last_seq
        self._active.end = self._offset
        for _ in staged:
            left.popleft()
        staged.clear()

    def _roll(self, keeper: Keeper) -> None:
        """Close the active segment and open the next; its name is on the medium before anything is written to it."""
        plan = self._pool.plan(keeper.floor, keeper.firm)
        if plan.lost and self._rewrite is not None and self._rewrite.done > 1:
            self._publish()
            plan = self._pool.plan(keeper.floor, keeper.firm)
        self._leave_alone(plan.victims)
        self._close()
        for segment in plan.lost:
            keeper.lose(self._heads(segment))
        if plan.victims:
            self.save(keeper.document())
        self._active = self._pool.take(plan)
        self._offset = 0
        self._known.clear()
        self._disk.sync_folder()
        self._tally.flushes.value += 1
        self._file = self._disk.open(self._active.name)

    def _leave_alone(self, segments: Sequence[Segment]) -> None:
        """These go: what was being made of them is of no use any more."""
        if self._rewrite is not None and any(segment in self._rewrite.inputs for segment in segments):
            self._give_up()

    def _abandon(self) -> None:
        """The disk failed: never touch this segment again. What is durable in it stays readable."""
        active = self._active
        self._close()
        self._unsynced = 0
        if active is not None:
            active.is_suspect = True
            if not active.end:
                self._pool.remove(active)

    def _close(self) -> None:
        self._active = None
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self._disk.close(self._file)
            self._file = -1

    def wants_spare(self, floor: int) -> bool:
        """Whether a segment should be made ready now, so that rolling need not wait for it."""
        if self._active is not None and self._offset * 2 < self._active.size:
            return False
        return self._pool.wants_spare(floor)

    def grow_spare(self) -> None:
        """Fill a part of the next spare: at most a MiB and one flush. Raises OSError."""
        self._pool.grow()

    def prepare(self) -> None:
        """Make ready the files without which nothing can be written, if they are not there. Raises OSError."""
        self._pool.prepare()

    # --- room -----------------------------------------------------------------------------------------------------

    def tidy(self, keeper: Keeper) -> bool:
        """Give files back where the file system has little left; whether any were. Raises OSError."""
        spares, segments = self._pool.to_give_back(keeper.floor)
        if not spares and not segments:
            return False
        if segments:
            self.save(keeper.document())
        self._leave_alone(segments)
        self._pool.give_back(spares, segments)
        self._disk.sync_folder()
        self._tally.flushes.value += 1
        log.info("%d files of the journal were given back: others need the room", spares + len(segments))
        return True

    def is_thinned(self, floor: int) -> bool:
        """Whether records above `floor` were thinned to make room."""
        return any(s.first is not None and s.first.level for s in needed(self.segments, floor))

    def wants_thinning(self, floor: int) -> bool:
        """Whether the oldest records should be thinned now, so that rolling need not give them up."""
        if not self._pool.is_thinning:
            return False
        return self._rewrite is not None or (self._is_low(floor) and bool(self._candidates(floor)[0]))

    def _is_low(self, floor: int) -> bool:
        return self._pool.left(floor) <= max(1, self._pool.capacity_bytes // self._segment_size // _LOW)

    def _candidates(self, floor: int) -> tuple[list[Segment], bool]:
        old = [s for s in reversed(needed(self.segments, floor)) if s is not self._active]
        return choose(old, self._segment_size)

    def _measure(self, floor: int) -> None:
        """Find out where thinned segments of earlier runs end."""
        for segment in needed(self.segments, floor):
            if segment.level and segment.last_seq is None:
                heads = self._heads(segment)
                segment.last_seq = max((head.last_seq for head in heads), default=0)

    def thin(self, keeper: Keeper, make: Callable[[int], Sparser]) -> bool:
        """Work at it for some milliseconds; False where there is nothing to do it with. Raises OSError.

        `make` gives the one who does the thinning of records that were thinned so often before.
        """
        try:
            if self._rewrite is None:
                self._measure(keeper.floor)
                inputs, is_copy = self._candidates(keeper.floor)
                name = self._pool.lend() if inputs else None
                if name is None:
                    return False
                sparser = None if is_copy else make(inputs[0].level)
                self._rewrite = Rewrite(
                    self._disk, self._scanner, self._tally, inputs, sparser, name, self._segment_size
                )
            elif not self._is_low(keeper.floor):
                self._give_up()
            elif not self._rewrite.step(lambda: self._stamp(keeper)):
                self._publish()
        except OSError:
            self._give_up(is_sound=False)
            raise
        return True

    def _stamp(self, keeper: Keeper) -> tuple[int, bytes]:
        self._generation += 1
        return self._generation, keeper.document()

    def _publish(self) -> None:
        """Let what was thinned so far take its place, if that wins a file; else it was for nothing."""
        work = self._rewrite
        if work is None:
            return
        thinned = work.finish()
        if thinned is None:
            work.pass_over()
            self._give_up()
            return
        work.close()
        self._rewrite = None
        self._pool.replace(work.name, thinned, work.inputs[: work.done])
        work.settle()

    def _give_up(self, *, is_sound: bool = True) -> None:
        """Stop thinning; what was not published yet was for nothing."""
        if self._rewrite is not None:
            self._rewrite.close()
            self._pool.take_back(self._rewrite.name, is_sound=is_sound)
            self._rewrite = None

    def close(self) -> None:
        """Close all files. Nothing is written any more."""
        self._give_up()
        self._close()
        self._slots.close()
