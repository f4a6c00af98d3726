"""Losses: what was given up before a cursor had acknowledged it, until that is reported and acknowledged. Pure.

A loss of cause `overtaken` is what a cursor did not hold while no uplink bore its name. It is told in its place and
never made one with others; nothing of its range is handed out, whatever the disk may have of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from gateway.journal.frame import Head
from gateway.spool.islands import Islands, count, outside
from gateway.spool.record import Gap

_MOST_LOSSES = 4  # of a cursor, that cannot be told as one: a disk that fails at four stops in a row


@dataclass(frozen=True, slots=True)
class Loss:
    """A gap that a cursor must be told of, and the epoch it happened in."""

    epoch: str
    gap: Gap

    @property
    def is_absence(self) -> bool:
        """Whether the uplink was not there, rather than the records."""
        return self.gap.cause == "overtaken"

    def covers(self, seq: int) -> bool:
        """Whether that number lies in the gap."""
        return self.gap.first_seq <= seq <= self.gap.last_seq


Losses: TypeAlias = tuple[Loss, ...]


def gap_between(gap: Gap, position: int, until: int) -> Gap | None:
    """The part of a gap above `position` up to `until`; None where there is none."""
    first, last = max(gap.first_seq, position + 1), min(gap.last_seq, until)
    if first > last:
        return None
    if (first, last) == (gap.first_seq, gap.last_seq):
        return gap
    return replace(gap, first_seq=first, last_seq=last, count=min(gap.count, last - first + 1))


def absences(losses: Losses) -> Islands:
    """The ranges that a cursor did not hold."""
    return [(loss.gap.first_seq, loss.gap.last_seq) for loss in losses if loss.is_absence]


def lose(losses: Losses, committed: int, heads: Sequence[Head], spared: Sequence[tuple[int, int]] = ()) -> Losses:
    """A cursor's losses when these frames, the oldest on the disk, are evicted.

    With a frame go the gaps it tells of, so all it accounts for is lost; but what had been acknowledged by all is so by
    this cursor: up to `committed`, or in `spared`. Nothing is left on the disk before the frames, so earlier losses and
    this one are told as one.
    """
    absent = absences(losses)
    for head in heads:
        earlier = [
            loss
            for loss in losses
            if committed < loss.gap.last_seq and loss.gap.first_seq <= head.last_seq and not loss.is_absence
        ]
        done = max(committed, earlier[-1].gap.last_seq if earlier else 0)
        if head.last_seq <= done:  # acknowledged, or a frame that was written twice
            continue
        lost = outside([*spared, *absent], max(head.covers_from, done + 1), head.last_seq)
        if not lost:
            continue
        first, last = lost[0][0], lost[-1][1]
        gap = Gap(first, last, head.min_time, head.max_time, min(head.count, count(lost)), "evicted")
        for loss in reversed(earlier):
            gap = loss.gap.joined(gap)
        others = [loss for loss in losses if loss.is_absence or loss.gap.first_seq > head.last_seq]
        losses = tuple(sorted([Loss(head.epoch, gap), *others], key=_first_of))
    return losses


def lose_tail(losses: Losses, committed: int, gap: Gap, epoch: str) -> Losses:
    """A cursor's losses when the newest records are lost. Those on the disk before them are still to be handed out."""
    if gap.last_seq <= committed:
        return losses
    gap = gap.after(committed)
    last = losses[-1] if losses else None
    if last is not None and (last.epoch, last.gap.last_seq + 1, last.gap.cause) == (epoch, gap.first_seq, gap.cause):
        return (*losses[:-1], Loss(epoch, last.gap.joined(gap)))
    if last is None or len(losses) < _MOST_LOSSES:
        return (*losses, Loss(epoch, gap))
    # What lies between the two and is on the disk is handed out all the same.
    return (*losses[:-1], Loss(epoch, replace(last.gap.joined(gap), cause=gap.cause)))


def miss(losses: Losses, gap: Gap, epoch: str) -> Losses:
    """A cursor's losses when its uplink is back and did not hold `gap`, the newest records."""
    if len(losses) < _MOST_LOSSES:
        return (*losses, Loss(epoch, gap))
    # Of one that comes and goes without ever catching up, the times away are told as one, with what lay between.
    return (*losses[:-1], Loss(epoch, replace(losses[-1].gap.joined(gap), cause=gap.cause)))


def _first_of(loss: Loss) -> int:
    return loss.gap.first_seq
