"""Rewriting: the records of several old segments put into one, made sparser by their owner. In the writer thread.

    a.seg  b.seg  c.seg  d.seg  ...       the oldest that somebody needs
      |      |      |
      +------+------+---> spare-9         read frame by frame, thinned, written, flushed on the way
                             |
    a.seg  b.seg  c.seg <----+            made frames of c, renamed over c, and the folder synced
    spare-10      c.seg  d.seg  ...       a and b are free

| power fails                 | the folder then holds               | the next start                                   |
|-----------------------------|-------------------------------------|--------------------------------------------------|
| before the rename           | all of the old, and an odd spare    | uses the spare: its frames name another segment  |
| between rename and sync     | the old c, or the new               | reads either                                     |
| before a and b were renamed | the new c, and a or b before it     | finds that c begins before them: they are free   |

How many segments go in shows on the way: as many as fill the file, and only whole ones count. Until then the frames
belong to no segment; those of one that did not go in wholly never will. A segment that is damaged is left as it is.

Where thinned segments would fit into one as they are, they are put together so, before more detail is given up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, groupby, pairwise
from typing import Protocol

from gateway.journal import frame
from gateway.journal.disk import Disk
from gateway.journal.frame import Body, Head
from gateway.journal.segment import Scanner, Segment, Tally

DEEPEST = 4
"""How often records are thinned before they are given up."""

_UNFIT = 7  # the level of a segment that cannot be thinned
_MOST_INPUTS = 32
_FLUSH = 1024 * 1024
_SLICE_S = 0.01
_GAIN = 0.6  # what is left must be less than that share, else it is not worth the writing
_PROBE = 64  # that part of the file is written before that is judged
_NONE = 0


class Sparser(Protocol):
    """The owner's part: what frames become. Called in the writer thread."""

    def add(self, head: Head, body: Body) -> Iterable[tuple[Head, Body]]:
        """Take the next frame, and give those that can be written by now. Raises ValueError on one it cannot read."""
        ...

    def end(self) -> Iterable[tuple[Head, Body]]:
        """Give all that is left: a segment ends here."""
        ...

    def settle(self, segments: int) -> None:
        """So many of the segments that ended have given their place to what was made of them."""
        ...


class Rewrite:
    """One attempt. `name` is the file to write to, of `size` bytes; of `inputs` the first `done` are wholly in it.

    Without a `sparser` frames are copied as they are.
    """

    def __init__(
        self,
        disk: Disk,
        scanner: Scanner,
        tally: Tally,
        inputs: Sequence[Segment],
        sparser: Sparser | None,
        name: str,
        size: int,
    ) -> None:
        self.inputs = tuple(inputs)
        self.name = name
        self.done = 0
        self._disk = disk
        self._scanner = scanner
        self._tally = tally
        self._sparser = sparser
        self._size = size
        self._level = min(DEEPEST, inputs[0].level + (sparser is not None))
        self._stamp: Callable[[], tuple[int, bytes]] = lambda: (0, b"")
        self._file = disk.open(name)
        self._first: Head | None = None
        self._frames: list[tuple[int, bytes]] = []  # offset and head of each
        self._last_seq = 0
        self._read = self._offset = self._flushed = 0
        self._whole = (0, 0, 0)  # of the segments that are done: how many frames, where they end, their last record
        self._known: set[bytes] = set()
        self._steps = self._run()

    def step(self, stamp: Callable[[], tuple[int, bytes]]) -> bool:
        """Go on for some milliseconds; False when there is no more to do. Raises OSError.

        `stamp` gives generation and document for a frame.
        """
        self._stamp = stamp
        end = time.perf_counter() + _SLICE_S
        return any(time.perf_counter() > end for _ in self._steps)

    def _run(self) -> Generator[None]:
        """One frame of input a step; ends when the file is full, or at a segment that is better left alone."""
        for segment in self.inputs:
            file = self._disk.open(segment.name)
            try:
                for head in self._scanner.heads(file, segment):
                    body = self._scanner.load(file, segment, head)
                    if body is None:
                        break
                    self._last_seq = max(self._last_seq, head.last_seq)
                    self._read += head.extent
                    if not self._put([(head, body)] if self._sparser is None else self._sparser.add(head, body)):
                        return
                    yield
            except (ValueError, frame.FormatError):
                segment.level = _UNFIT
            finally:
                self._disk.close(file)
            if segment.damaged:
                segment.level = _UNFIT
            if segment.level == _UNFIT or not self._put(() if self._sparser is None else self._sparser.end()):
                return
            self.done += 1
            self._whole = (len(self._frames), self._offset, self._last_seq)

    def _put(self, pieces: Iterable[tuple[Head, Body]]) -> bool:
        """Write frames behind those there are; False when there is no room, or nothing to be won."""
        for plain, body in pieces:
            generation, document = self._stamp()
            head = replace(
                plain,
                flags=plain.flags & frame.EPOCH_START | self._level << frame.LEVEL_SHIFT,
                segment=_NONE,
                offset=self._offset,
                generation=generation,
            )
            entries = {key: entry for key, entry in body.entries.items() if key not in self._known}
            data = frame.seal(head, Body(entries, document, body.payload))
            if self._offset + len(data) > self._size:
                return False
            self._disk.pwrite(self._file, data, self._offset)
            self._tally.bytes_written.value += len(data)
            self._known.update(entries)
            self._first = self._first or head
            self._frames.append((self._offset, data[: frame.HEAD_LENGTH]))
            self._offset += len(data)
            if self._offset - self._flushed >= _FLUSH:
                self._flush()
        is_early = self._offset < max(frame.BLOCK, self._size // _PROBE)
        return self._sparser is None or is_early or self._offset < _GAIN * self._read

    def _flush(self) -> None:
        self._disk.fdatasync(self._file)
        self._tally.flushes.value += 1
        self._flushed = self._offset

    def finish(self) -> Segment | None:
        """Bring what was won so far to the medium: the segment for the place of `done` others; None where none is won.

        Raises OSError.
        """
        count, end, last_seq = self._whole
        if self.done < 2 or self._first is None:
            return None
        last = self.inputs[self.done - 1]
        for offset, head in self._frames[:count]:
            self._disk.pwrite(self._file, frame.moved(head, segment=last.id, offset=offset), offset)
        self._flush()
        first = replace(self._first, segment=last.id)
        return Segment(last.id, self._size, end, first, last_seq, level=first.level, life=last.life + 1)

    def pass_over(self) -> None:
        """Nothing was won: the first segment is not to be tried again with this window."""
        first = self.inputs[0]
        if first.level != _UNFIT:
            first.level = _UNFIT if self._sparser is None else first.level + 1

    def settle(self) -> None:
        """Tell the owner that what `finish` gave is in its place."""
        if self._sparser is not None:
            self._sparser.settle(self.done)

    def close(self) -> None:
        """Close all files."""
        self._steps.close()
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self._disk.close(self._file)
            self._file = -1


def choose(segments: Sequence[Segment], size: int) -> tuple[list[Segment], bool]:
    """What of these, oldest first, to put into one segment of `size` bytes, and whether as they are; nothing, if empty.

    Thinned ones that fit into one go before all others. Else it is the longest run that was thinned equally often; of
    equals the one thinned less. What stores of two identities wrote never gets into one: a segment is of one store.
    """
    runs = [list(run) for (level, _), run in groupby(segments, key=_kin) if level < _UNFIT]
    for run in runs:
        for start, (one, other) in enumerate(pairwise(run)):
            if one.level and one.end + other.end <= size:
                ends = accumulate(segment.end for segment in run[start:])
                return run[start : start + sum(1 for end in ends if end <= size)], True
    runs = [run for run in runs if len(run) > 1 and run[0].level < DEEPEST]
    return max(runs, key=lambda run: (len(run), -run[0].level), default=[])[:_MOST_INPUTS], False


def _kin(segment: Segment) -> tuple[int, int]:
    """Segments that may be put into one have this in common: how often they were thinned, and by which store."""
    return segment.level, -1 if segment.first is None else segment.first.store
