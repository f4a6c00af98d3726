"""The pool of files: which segments there are, which file becomes the next, and how many there may be.

A file is allocated once, filled with zeros, and then goes round: segment, free as soon as nobody needs its records,
segment again under a new number. Nothing is given back to the file system while the limit stands and others have room,
so that an outage of yesterday's length needs no new room and no new blocks.

The next file is, in this order: the oldest segment that nobody needs and that is not kept either; a spare; a new file,
while the limit and the file system allow; the oldest that is only kept; the oldest segment with its records
(drop-oldest, by whole segments), or, where the older records matter more, none at all, but for records that only those
hold who are not there any more.

When the file system has less left than it should, no new file is made; spares are given back, then segments that
nobody needs, then those that are kept. Needed ones never: they go round, and at least two files always stay.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from typing import Literal

from gateway.clock import Clock
from gateway.journal import frame
from gateway.journal.disk import Disk
from gateway.journal.retention import Retention, needed
from gateway.journal.segment import Scanner, Segment, Tally, number_of
from gateway.journal.slots import FILE_SIZE

log = logging.getLogger("headgate.journal")

_SPARE = "spare-"
_BAD_FILES = 2  # of those set aside, and bytes at most 1/8 of the limit
_BAD_SHARE = 8
_FEWEST = 2  # one to write, one to give up: fewer cannot go round
_FEWEST_TO_THIN = 4
_STEP = 1024 * 1024
_LOOK_S = 10.0  # for so long we believe what the file system said is left
_GIVE_BACK = 16  # files in one go


class FullError(Exception):
    """There is no room but that of records somebody needs, and those are not to be given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What bounds a journal beside its limit. `min_free_bytes` of the file system are left to others.

    `keep_s` and `keep_bytes`: how long, and how much of it, stays what nobody needs any more; 0: not asked for.
    `full`: what gives way when there is no other room: the oldest records, the newest (`FullError` tells), or detail.
    """

    min_free_bytes: int = 64 << 20
    keep_s: float = 0.0
    keep_bytes: int = 0
    full: Literal["drop_oldest", "drop_newest", "thin"] = "drop_oldest"


@dataclass(frozen=True, slots=True)
class Plan:
    """The file that becomes the next segment, and what must go for it.

    `victims` lose their file, `source` may be one of theirs; `lost` are those whose records somebody still needs.
    """

    source: str
    victims: tuple[Segment, ...] = ()
    lost: tuple[Segment, ...] = ()


class Pool:
    """The files of one folder. `segments`: oldest first, swapped as a whole.

    `is_evicting`: the newest segment could only be had by giving up needed records. `is_short`: at the last look the
    file system had no room for another file.
    """

    def __init__(
        self,
        disk: Disk,
        scanner: Scanner,
        *,
        segment_size: int,
        max_bytes: int,
        tally: Tally,
        bounds: Bounds,
        clock: Clock,
    ) -> None:
        self._disk = disk
        self._scanner = scanner
        self._segment_size = segment_size
        self._most = (max_bytes - FILE_SIZE) // segment_size
        self._most_bad = max_bytes // _BAD_SHARE
        self._tally = tally
        self._bounds = bounds
        self._clock = clock
        self._retention = Retention(keep_s=bounds.keep_s, keep_bytes=bounds.keep_bytes, clock=clock)
        self._spares: list[str] = []
        self._lent: set[str] = set()
        self._bad: dict[str, int] = {}
        self._number = 0
        self._spare_number = 0
        self._growing: tuple[str, int, int] | None = None
        self._free = 0
        self._free_until = float("-inf")
        self.segments: tuple[Segment, ...] = ()
        self.is_evicting = False
        self.is_short = False

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all files."""
        others = len(self._spares) + len(self._lent) + bool(self._growing)
        kept_aside = sum(self._bad.values())
        return sum(s.size for s in self.segments) + others * self._segment_size + kept_aside + FILE_SIZE

    @property
    def capacity_bytes(self) -> int:
        """Bytes of segments that there may be at once."""
        return self._limit * self._segment_size

    def used_bytes(self, floor: int) -> int:
        """Bytes of segments that hold a record above `floor`."""
        return sum(s.size for s in needed(self.segments, floor))

    @property
    def _limit(self) -> int:
        """How many files there may be, those set aside counted off, and one for thinning where that is asked for."""
        aside = -(-sum(self._bad.values()) // self._segment_size)
        return max(_FEWEST, self._most - aside - self.is_thinning)

    @property
    def is_thinning(self) -> bool:
        """Whether old segments may be thinned: it takes one file more to do it in."""
        return self._bounds.full == "thin" and self._most >= _FEWEST_TO_THIN

    @property
    def _files(self) -> int:
        return len(self.segments) + len(self._spares)

    # --- what is there --------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Find out what the files of the folder are. Only listing the folder can raise OSError."""
        found = []
        for name in sorted(self._disk.names()):
            number = number_of(name)
            if name.startswith(_SPARE):
                self._adopt(name)
            elif number is not None:
                self._number = max(self._number, number)
                if name.endswith(".bad"):
                    self._note_bad(name)
                else:
                    found.append((number, name))
        segments = [self._inspect(number, name) for number, name in found]
        self.segments = tuple(self._whole([s for s in segments if s is not None]))
        self._thin_out_bad()

    def _whole(self, segments: Sequence[Segment]) -> list[Segment]:
        """The segments without those that a thinned one behind them holds: the power failed before they could go."""
        kept = []
        begin = 1 << 64
        for segment in reversed(segments):
            first = segment.first
            if first is not None and first.covers_from >= begin:
                self._adopt(segment.name)
                continue
            if first is not None and first.level:
                begin = first.covers_from
            kept.append(segment)
        return kept[::-1]

    def _adopt(self, name: str) -> None:
        """Keep a file without records of its own as a spare, if it has the right size."""
        if name.startswith(_SPARE) and name[len(_SPARE) :].isdigit():
            self._spare_number = max(self._spare_number, int(name[len(_SPARE) :]))
        with contextlib.suppress(OSError):
            if self._disk.size(name) == self._segment_size:
                self._spares.append(name)
            else:
                self._disk.unlink(name)

    def _inspect(self, number: int, name: str) -> Segment | None:
        """The segment in a file; None where there is no frame of it: then the file is used again or set aside."""
        start = b""
        try:
            size = self._disk.size(name)
            segment = Segment(number, size, size, is_old=True)
            file = self._disk.open(name)
            try:
                segment.first = next(self._scanner.heads(file, segment), None)
                if segment.first is None:
                    start = self._disk.pread(file, frame.BLOCK, 0)
            finally:
                self._disk.close(file)
        except OSError as error:
            log.warning("%s cannot be read (%s) and is set aside", name, error)
            self._set_aside(name)
            return None
        if segment.first is not None:
            segment.level = segment.first.level
            return segment
        # Renamed but never written to: zeros, or a frame of the file's earlier life, stand at its start.
        if not segment.damaged and (not any(start) or frame.parse(start) is not None):
            self._adopt(name)
        else:
            log.warning("%s holds nothing that can be read and is set aside", name)
            self._set_aside(name)
        return None

    def _set_aside(self, name: str) -> None:
        bad = name.removesuffix(".seg") + ".bad"
        with contextlib.suppress(OSError):
            self._disk.rename(name, bad)
            self._note_bad(bad)

    def _note_bad(self, name: str) -> None:
        self._bad[name] = self._segment_size  # should its size be as unreadable as the rest
        with contextlib.suppress(OSError):
            self._bad[name] = self._disk.size(name)

    def _thin_out_bad(self) -> None:
        """Keep the newest few damaged files for whoever wants to look."""
        size = count = 0
        for name in sorted(self._bad, reverse=True):
            count, size = count + 1, size + self._bad[name]
            if count > _BAD_FILES or (count > 1 and size > self._most_bad):
                with contextlib.suppress(OSError):
                    self._disk.unlink(name)
                del self._bad[name]

    def look_again(self) -> None:
        """Find out whether somebody took files away. Raises OSError where the folder itself is gone."""
        names = set(self._disk.names())
        gone = [segment for segment in self.segments if segment.name not in names]
        for segment in gone:
            segment.is_gone = True
        if gone:
            log.error("somebody removed %s and %d files more: their records are lost", gone[0].name, len(gone) - 1)
            self.segments = tuple(segment for segment in self.segments if not segment.is_gone)
        self._spares = [name for name in self._spares if name in names]
        self._bad = {name: size for name, size in self._bad.items() if name in names}

    # --- the next segment -----------------------------------------------------------------------------------------

    def plan(self, floor: int, firm: int) -> Plan:
        """Choose the next segment's file; nothing is taken from anybody yet. Records up to `firm` may go in any case.

        Raises FullError where needed records are in the way and may not go, OSError where there is no file at all.
        """
        segments = list(self.segments)
        wanted = needed(segments, floor)
        victims = segments[: self._surplus(segments, wanted)]
        segments = segments[len(victims) :]
        idle, kept = self._idle(segments, wanted)
        if idle > kept:
            return self._plan(segments[0].name, (*victims, segments[0]), wanted)
        if self._spares and len(segments) < self._limit:
            return self._plan(self._spares[0], victims, wanted)
        if len(segments) < self._limit:
            try:
                self._create()
                return self._plan(self._spares[0], victims, wanted)
            except OSError as error:
                if error.errno not in (ENOSPC, EDQUOT) or len(segments) < _FEWEST:
                    raise
        is_fixed = self._bounds.full == "drop_newest" and segments[:1] == needed(segments, firm)[-1:]
        if not idle and not victims and is_fixed:
            raise FullError("there is no room but that of records somebody needs")
        source = segments[0].name if segments else victims[-1].name
        return self._plan(source, (*victims, *segments[:1]), wanted)

    def _plan(self, source: str, victims: Sequence[Segment], wanted: Sequence[Segment]) -> Plan:
        return Plan(source, tuple(victims), tuple(v for v in victims if v in wanted))

    def _idle(self, segments: Sequence[Segment], wanted: Sequence[Segment]) -> tuple[int, int]:
        """How many segments, the oldest, nobody needs, and how many of those, the newest, are kept all the same."""
        idle = 0
        while idle < len(segments) and segments[idle] not in wanted:
            idle += 1
        self._retention.notice(segments[:idle])
        following = segments[idle] if idle < len(segments) else None
        return idle, self._retention.kept(segments[:idle], following)

    def _surplus(self, segments: Sequence[Segment], wanted: Sequence[Segment]) -> int:
        """How many segments stand beyond the limit, after it was lowered."""
        while self._spares and self._files > self._limit + self.is_thinning:
            with contextlib.suppress(OSError):
                self._disk.unlink(self._spares[-1])
            self._spares.pop()
        surplus = max(0, len(segments) - self._limit)
        if self._bounds.full == "drop_newest":
            surplus = min(surplus, self._idle(segments, wanted)[0])
        return surplus

    def take(self, plan: Plan) -> Segment:
        """Carry a plan out: the new, empty segment, last in `segments`. Its name is not on the medium yet."""
        self._number += 1
        segment = Segment(self._number, self._segment_size, 0)
        source = plan.source
        if any(victim.is_suspect and victim.name == source for victim in plan.victims):
            source = self._instead(plan)
        self._disk.rename(source, segment.name)
        if source in self._spares:
            self._spares.remove(source)
        self.segments = (*(s for s in self.segments if s not in plan.victims), segment)
        self.is_evicting = bool(plan.lost)
        for victim in plan.victims:
            victim.is_gone = True
            if victim.name != source:
                with contextlib.suppress(OSError):
                    self._disk.unlink(victim.name)
        return segment

    def _instead(self, plan: Plan) -> str:
        """Another file in the place of one that the disk refused to write: it is not asked again. Raises OSError."""
        for victim in plan.victims:
            self.remove(victim)
            victim.is_gone = True
        if not self._spares:
            self._create()
        return self._spares[0]

    def remove(self, segment: Segment) -> None:
        """Give up a segment that never got a durable frame, and its blocks with it."""
        self.segments = tuple(s for s in self.segments if s is not segment)
        with contextlib.suppress(OSError):
            self._disk.unlink(segment.name)

    def left(self, floor: int) -> int:
        """How many segments more there may be before something must give way. Asks nobody: cheap, from any thread."""
        segments = self.segments
        idle = len(segments) - len(needed(segments, floor))
        room = self._limit - len(segments)
        return idle + max(0, min(room, len(self._spares)) if self.is_short else room)

    # --- spares ---------------------------------------------------------------------------------------------------

    def wants_spare(self, floor: int) -> bool:
        """Whether rolling would have to wait for a new file, and there is room for one."""
        if self._growing is not None:
            return True
        if self._files + len(self._lent) >= self._limit + self.is_thinning:
            return False
        if self.is_thinning and len(self.segments) >= self._limit - 2:
            return len(self._spares) + len(self._lent) < 2
        return not self._spares and len(needed(self.segments, floor)) == len(self.segments)

    def prepare(self) -> None:
        """Make the fewest files that can go round, so that a full file system does not matter. Raises OSError."""
        while self._files < _FEWEST:
            self._create()

    def _create(self) -> None:
        self.grow()
        while self._growing is not None:
            self.grow()

    def grow(self) -> None:
        """Fill a part of the next spare with zeros: at most a MiB and one flush. Raises OSError, ENOSPC for example."""
        name, file, offset = self._growing or self._start_growing()
        step = min(_STEP, self._segment_size - offset)
        try:
            self._disk.pwrite(file, bytes(step), offset)
            self._disk.fdatasync(file)
        except OSError as error:
            self._growing = None
            self.is_short = error.errno in (ENOSPC, EDQUOT)
            with contextlib.suppress(OSError):
                self._disk.close(file)
            with contextlib.suppress(OSError):
                self._disk.unlink(name)
            raise
        self._tally.bytes_written.value += step
        self._tally.flushes.value += 1
        self._growing = (name, file, offset + step)
        if offset + step == self._segment_size:
            self._growing = None
            self._disk.close(file)
            self._spares.append(name)

    def _start_growing(self) -> tuple[str, int, int]:
        """Make the file, unless that would take the last of the file system from everybody else."""
        is_first = self._files < _FEWEST
        if self._clock.monotonic() >= self._free_until:
            self._look()
        if self._free < self._segment_size + (0 if is_first else self._bounds.min_free_bytes):
            self.is_short = True
            raise OSError(ENOSPC, "the file system is nearly full")
        name = self._spare_name()
        file = self._disk.open(name, create=True)
        self._free -= self._segment_size
        self.is_short = False
        return name, file, 0

    def _spare_name(self) -> str:
        self._spare_number += 1
        return f"{_SPARE}{self._spare_number}"

    def _look(self) -> None:
        self._free = self._disk.free_bytes()
        self._free_until = self._clock.monotonic() + _LOOK_S

    # --- room for others ------------------------------------------------------------------------------------------

    def to_give_back(self, floor: int) -> tuple[int, list[Segment]]:
        """How many spares, and which segments, should go so that the file system has enough left. Raises OSError."""
        segments = self.segments
        idle, kept = self._idle(segments, needed(segments, floor))
        self._look()
        low = self._bounds.min_free_bytes - self._free
        self.is_short = self._free < self._bounds.min_free_bytes + self._segment_size
        if low <= 0:
            return 0, []
        most = min(-(-low // self._segment_size), self._files - _FEWEST, _GIVE_BACK)
        spares = max(0, min(len(self._spares), most))
        return spares, list(segments[: max(0, min(idle - kept or kept, most - spares))])

    def give_back(self, spares: int, segments: Sequence[Segment]) -> None:
        """Return files to the file system: the newest spares, and these segments. Raises OSError."""
        for _ in range(spares):
            self._disk.unlink(self._spares.pop())
        for segment in segments:
            segment.is_gone = True
            self.segments = tuple(s for s in self.segments if s is not segment)
            self._disk.unlink(segment.name)
        self._free_until = float("-inf")

    # --- thinning -------------------------------------------------------------------------------------------------

    def lend(self) -> str | None:
        """A spare to write thinned records to, if there is one; it comes back by `settle`."""
        if not self._spares:
            return None
        name = self._spares.pop()
        self._lent.add(name)
        return name

    def take_back(self, name: str, *, is_sound: bool) -> None:
        """The file that was lent is a spare again, or goes, where the disk failed in it."""
        self._lent.discard(name)
        if is_sound:
            self._spares.append(name)
        else:
            with contextlib.suppress(OSError):
                self._disk.unlink(name)

    def replace(self, name: str, thinned: Segment, inputs: Sequence[Segment]) -> None:
        """Let the file that was lent take the place of the last of `inputs`, and set the others free. Raises OSError.

        A power cut in between leaves the old last or the new, and some of the others before it, see `_whole`.
        """
        *others, last = inputs
        self._disk.rename(name, last.name)
        self._lent.discard(name)
        last.is_gone = True
        self.segments = tuple(thinned if s is last else s for s in self.segments)
        self._disk.sync_folder()
        self._tally.flushes.value += 1
        for segment in others:
            segment.is_gone = True
        self.segments = tuple(s for s in self.segments if not s.is_gone)
        for segment in others:
            spare = self._spare_name()
            with contextlib.suppress(OSError):
                self._disk.rename(segment.name, spare)
                self._spares.append(spare)
