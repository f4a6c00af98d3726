"""The pool of files: which segments there are, which file becomes the next, and how many there may be.

A file is allocated once, filled with zeros, and then goes round: segment, free as soon as nobody needs its records,
segment again under a new number. Nothing is given back to the file system while the limit stands, so that an outage of
yesterday's length needs no new room and no new blocks.

The next file is, in this order: the oldest segment that nobody needs any more; a spare; a new file, while the limit and
the file system allow; the oldest segment with its records (drop-oldest, by whole segments).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC

from gateway.journal import frame
from gateway.journal.disk import Disk
from gateway.journal.segment import Scanner, Segment, Tally, number_of
from gateway.journal.slots import FILE_SIZE

log = logging.getLogger("headgate.journal")

_SPARE = "spare-"
_BAD_KEPT = 2
_FEWEST = 2  # one to write, one to give up: fewer cannot go round
_STEP = 1024 * 1024
_LEFT_FREE = 64 * 1024 * 1024  # bytes of the file system that we leave to others


@dataclass(frozen=True, slots=True)
class Plan:
    """The file that becomes the next segment, and what must go for it.

    `victims` lose their file, `source` may be one of theirs; `lost` are those whose records somebody still needs.
    """

    source: str
    victims: tuple[Segment, ...] = ()
    lost: tuple[Segment, ...] = ()


class Pool:
    """The files of one folder. `segments`: oldest first, swapped as a whole."""

    def __init__(self, disk: Disk, scanner: Scanner, *, segment_size: int, max_bytes: int, tally: Tally) -> None:
        self._disk = disk
        self._scanner = scanner
        self._segment_size = segment_size
        self._most = (max_bytes - FILE_SIZE) // segment_size
        self._tally = tally
        self._spares: list[str] = []
        self._bad: list[str] = []
        self._number = 0
        self._spare_number = 0
        self._growing: tuple[str, int, int] | None = None
        self.segments: tuple[Segment, ...] = ()
        self.is_evicting = False

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all files."""
        others = len(self._spares) + len(self._bad) + bool(self._growing)
        return sum(s.size for s in self.segments) + others * self._segment_size + FILE_SIZE

    def used_bytes(self, floor: int) -> int:
        """Bytes of segments that hold a record above `floor`."""
        return sum(s.size for s in _needed(self.segments, floor))

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
                    self._bad.append(name)
                else:
                    found.append((number, name))
        segments = [self._inspect(number, name) for number, name in found]
        self.segments = tuple(s for s in segments if s is not None)
        self._thin_out_bad()

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
            self._bad.append(bad)

    def _thin_out_bad(self) -> None:
        """Keep the newest few damaged files for whoever wants to look."""
        self._bad.sort()
        for name in self._bad[:-_BAD_KEPT]:
            with contextlib.suppress(OSError):
                self._disk.unlink(name)
        self._bad = self._bad[-_BAD_KEPT:]

    def plan(self, floor: int) -> Plan:
        """Choose the next segment's file; nothing is taken from anybody yet. Raises OSError where there is none."""
        segments = list(self.segments)
        needed = _needed(segments, floor)
        surplus = self._surplus(len(segments))
        victims, segments = segments[:surplus], segments[surplus:]
        if segments and segments[0] not in needed:
            victims.append(segments.pop(0))
            return self._plan(victims[-1].name, victims, needed)
        if self._spares:
            return self._plan(self._spares[0], victims, needed)
        if len(segments) < max(_FEWEST, self._most - len(self._bad)):
            try:
                self._create()
                return self._plan(self._spares[0], victims, needed)
            except OSError as error:
                if error.errno not in (ENOSPC, EDQUOT) or len(segments) < _FEWEST:
                    raise
        victims.append(segments.pop(0))
        return self._plan(victims[-1].name, victims, needed)

    def _plan(self, source: str, victims: Sequence[Segment], needed: Sequence[Segment]) -> Plan:
        return Plan(source, tuple(victims), tuple(v for v in victims if v in needed))

    def _surplus(self, segments: int) -> int:
        """How many segments stand beyond the limit, after it was lowered."""
        most = max(_FEWEST, self._most - len(self._bad))
        while self._spares and segments + len(self._spares) > most:
            with contextlib.suppress(OSError):
                self._disk.unlink(self._spares[-1])
            self._spares.pop()
        return max(0, segments - most)

    def take(self, plan: Plan) -> Segment:
        """Carry a plan out: the new, empty segment, last in `segments`. Its name is not on the medium yet."""
        self._number += 1
        segment = Segment(self._number, self._segment_size, 0)
        self._disk.rename(plan.source, segment.name)
        if plan.source in self._spares:
            self._spares.remove(plan.source)
        self.segments = (*(s for s in self.segments if s not in plan.victims), segment)
        self.is_evicting = bool(plan.lost)
        for victim in plan.victims:
            victim.is_gone = True
            if victim.name != plan.source:
                with contextlib.suppress(OSError):
                    self._disk.unlink(victim.name)
        return segment

    def remove(self, segment: Segment) -> None:
        """Give up a segment that never got a durable frame, and its blocks with it."""
        self.segments = tuple(s for s in self.segments if s is not segment)
        with contextlib.suppress(OSError):
            self._disk.unlink(segment.name)

    def wants_spare(self, floor: int) -> bool:
        """Whether rolling would have to wait for a new file, and there is room for one."""
        if self._growing is not None:
            return True
        files = len(self.segments) + len(self._spares)
        if self._spares or files >= max(_FEWEST, self._most - len(self._bad)):
            return False
        return len(_needed(self.segments, floor)) == len(self.segments)

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
        except OSError:
            self._growing = None
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
        is_needed = len(self.segments) + len(self._spares) < _FEWEST
        if self._disk.free_bytes() < self._segment_size + (0 if is_needed else _LEFT_FREE):
            raise OSError(ENOSPC, "the file system is nearly full")
        self._spare_number += 1
        name = f"{_SPARE}{self._spare_number}"
        return name, self._disk.open(name, create=True), 0


def _needed(segments: Sequence[Segment], floor: int) -> list[Segment]:
    """Those of which a record above `floor` may be wanted. A segment ends at the latest where the next one begins."""
    needed = []
    last: int | None = None
    for segment in reversed(segments):
        bound = segment.last_seq if segment.last_seq is not None else last
        if bound is None or bound > floor:
            needed.append(segment)
        if segment.first is not None:
            last = segment.first.covers_from - 1
    return needed
