"""One group commit: records to frames, frames to the disk. Runs in the writer thread.

Encoding happens here and not on the event loop: batches never change after they were handed on, so another thread may
read them, and the loop never holds a half-made frame. To leave the interpreter to the loop, encoding sleeps for a
moment after each millisecond of work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gateway.journal.frame import Head, best_codec, capacity
from gateway.journal.writer import Draft, Writer
from gateway.spool.cursor import State
from gateway.spool.document import fitted
from gateway.spool.losses import lose
from gateway.spool.payload import Payload
from gateway.spool.record import Gap, Record, gap_record
from gateway.spool.timeline import Timeline, by_stretch

_SLICE_S = 0.001
_PAUSE_S = 0.0002
_SLACK = 8192  # the document grows when, on the way, cursors lose something


class Commit:
    """Writes records, with their times of acceptance, and the state as it is; nobody needs records up to `floor`.

    Up to `firm`, only cursors need them whose uplinks are gone: such records give way before new ones are refused.

    `evicted` holds the frames that had to go, from before they go; afterwards `too_large` holds the records that no
    segment can hold. `frame_bytes` is where a commit is cut into several frames.
    """

    def __init__(
        self,
        writer: Writer,
        state: State,
        floor: int,
        firm: int,
        *,
        frame_bytes: int,
        segment_size: int,
        timeline: Timeline,
    ) -> None:
        self.floor = floor
        self.firm = firm
        self.evicted: list[Head] = []
        self.too_large: list[Record] = []
        self._writer = writer
        self._state = state
        self._frame_bytes = frame_bytes
        self._segment_size = segment_size
        self._timeline = timeline
        self._told = 0

    def save(self) -> None:
        """Write the state alone, into the slots. Raises OSError."""
        self._writer.save(self.document())

    def write(self, records: Sequence[Record], times: Sequence[float], now: float) -> None:
        """Write records, accepted at these monotonic times, at the monotonic time `now`.

        Raises OSError; `writer.written` tells how far it came.
        """
        self._writer.write(list(self._drafts(records, times, round(now * 1000))), self)

    def lose(self, heads: Sequence[Head]) -> None:
        """Note in every cursor what it loses with these frames."""
        heads = [self._timeline.mended(head) for head in heads]
        self.evicted += heads
        marks = tuple(replace(m, losses=lose(m.losses, m.committed, heads, m.spared)) for m in self._state.marks)
        self._state = replace(self._state, marks=marks)

    def news(self) -> Sequence[Head]:
        """What of `evicted` nobody has asked for yet. For the event loop, also while the writer thread is at work."""
        heads = self.evicted[self._told :]
        self._told += len(heads)
        return heads

    def document(self) -> bytes:
        """The state, with what was lost until now."""
        return fitted(self._state)

    def _drafts(self, records: Sequence[Record], times: Sequence[float], now: int) -> Iterator[Draft]:
        """The frames: the clock that a head tells of is that of all its records."""
        covers_from = self._writer.written + 1
        for stretch, first, last in by_stretch(records, times, self._timeline.stretches):
            head = Head(
                codec=best_codec(),
                clock=stretch.clock,
                boot_id=self._timeline.boot_id,
                monotonic=now,
                wall=now + stretch.offset,
            )
            for payload in self._payloads(records[first:last], times[first:last], now):
                head = replace(
                    head,
                    count=payload.count,
                    first_seq=payload.first_seq,
                    last_seq=payload.last_seq,
                    covers_from=covers_from,
                    min_time=payload.min_time,
                    max_time=payload.max_time,
                )
                yield Draft(head, payload.entries, payload.sealed())
                covers_from = payload.last_seq + 1

    def _payloads(self, records: Sequence[Record], times: Sequence[float], now: int) -> Iterator[Payload]:
        """The records in frames, encoded in slices of a millisecond."""
        largest = capacity(self._segment_size) - len(self.document()) - _SLACK
        most = min(self._frame_bytes, largest)
        slice_end = time.perf_counter() + _SLICE_S
        payload = Payload(records[0].seq)
        for record, accepted in zip(records, times, strict=True):
            age = now - round(accepted * 1000)
            if not payload.add(record, age, most):
                yield payload
                payload = Payload(record.seq)
                payload.add(record, age, most)
            if payload.size > largest:
                self.too_large.append(record)
                payload = Payload(record.seq)
                gap = Gap(record.seq, record.seq, record.time, record.time, 1, "too large")
                payload.add(gap_record(gap, record.epoch, record.regime), age, most)
            if time.perf_counter() > slice_end:
                time.sleep(_PAUSE_S)
                slice_end = time.perf_counter() + _SLICE_S
        yield payload
