"""What a walk through a store proves: which records are there, which twice, and which are in no frame. Pure.

Each frame says from which number on it accounts for everything (`covers_from`), and how many records were written to
the store before it (`ordinal`). So, between two frames,

- a hole below `covers_from` within one start of the store is a loss, with its count by the ordinals;
- a hole between two starts claims nothing: its numbers were never used, or acknowledged, or within the loss window of a
  power cut. Only where the ordinals jump, records that a start still found are gone since;
- a damaged frame at the end of one start that the next did not count any more was torn by a power cut: it had been
  promised to nobody. Nothing is known where no later start wrote a frame: then it is `open`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from gateway.journal.frame import EPOCH_START, Head
from gateway.upkeep.survey import Item, Scar, Seen, Vanished


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole frame; its records above `above` are new, the others were met before."""

    seen: Seen
    above: int


@dataclass(frozen=True, slots=True)
class Doubled:
    """Records of a frame that an earlier frame has already: the writer wrote them again after a failure. Harmless."""

    seen: Seen
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Numbers that no frame accounts for, `count` of them records; times in ms bound them from outside, 0 if unknown.

    `lost`: they were stored and are not there any more. `torn`: cut off by a power cut before they were durable.
    `open`: one of the two. `between`: no record at all may have been there. `passed`: recycled while we read.
    `scars` are the places where they may have been. `first` is 0 where nobody can tell.
    """

    kind: Literal["lost", "torn", "open", "between", "passed"]
    first: int
    last: int
    count: int
    first_time: int
    last_time: int
    scars: tuple[Seen | Scar, ...] = ()


@dataclass(frozen=True, slots=True)
class Harmless:
    """Damaged places that cost nothing: what they held has been written once more elsewhere."""

    scars: tuple[Seen | Scar, ...]


Finding: TypeAlias = Stored | Doubled | Hole | Harmless


def follow(items: Iterable[Item]) -> Iterator[Finding]:
    """What the items of a walk prove, in the order of the records."""
    return _Follower().findings(items)


@dataclass(slots=True)
class _Follower:
    """`position`: up to it everything is accounted for. `scars`: damaged places since the last whole frame."""

    position: int = 0
    last: Head | None = None
    scars: list[Seen | Scar] = field(default_factory=list)
    is_passed: bool = False

    def findings(self, items: Iterable[Item]) -> Iterator[Finding]:
        for item in items:
            if isinstance(item, Vanished):
                self.is_passed = True
            elif isinstance(item, Scar) or not item.is_whole:
                self.scars.append(item)
            else:
                yield from self._frame(item)
        yield from self._end()

    def _frame(self, seen: Seen) -> Iterator[Finding]:
        head = seen.head
        if self.last is not None and head.last_seq <= self.position:
            yield Doubled(seen, head.first_seq, head.last_seq)
            return
        yield from self._before(head)
        if self.last is not None and head.first_seq <= self.position:
            yield Doubled(seen, head.first_seq, self.position)
        yield Stored(seen, self.position)
        self.position = head.last_seq
        self.last = head
        self.scars.clear()
        self.is_passed = False

    def _before(self, head: Head) -> Iterator[Finding]:
        """What is missing between the last whole frame and this one."""
        if self.last is None:
            yield from self._at_the_front(head)
        elif head.covers_from <= self.position + 1:
            if self.scars:
                yield Harmless(tuple(self.scars))
        elif self.is_passed:
            yield self._hole("passed", self.position + 1, head.covers_from - 1, head)
        elif head.epoch == self.last.epoch or not head.flags & EPOCH_START:
            yield self._hole("lost", self.position + 1, head.covers_from - 1, head, _missing(self.last, head))
        else:
            yield from self._between(self.last, head)

    def _at_the_front(self, head: Head) -> Iterator[Finding]:
        """Before the first whole frame: what was recycled is no business of ours, what is damaged is."""
        known = _heads(self.scars)
        if self.scars and not self.is_passed:
            if known and known[0].first_seq >= head.covers_from:
                yield Harmless(tuple(self.scars))
            else:
                first = known[0].first_seq if known else 0
                count = sum(k.count for k in known)
                times = (known[0].min_time, known[-1].max_time) if known else (0, head.min_time)
                last = known[-1].last_seq if known else head.covers_from - 1
                yield Hole("lost", first, last, count, *times, scars=tuple(self.scars))
        self.position = head.covers_from - 1

    def _between(self, last: Head, head: Head) -> Iterator[Finding]:
        """The border of two starts."""
        missing = _missing(last, head)
        known = [k for k in _heads(self.scars) if k.last_seq > self.position and k.epoch == last.epoch]
        if not missing:
            torn = known[-1].last_seq if known else self.position
            if known:
                yield self._hole("torn", self.position + 1, torn, head, sum(k.count for k in known))
            elif self.scars:
                yield Harmless(tuple(self.scars))
            first = torn + 1
        else:
            until = known[-1].last_seq if known and sum(k.count for k in known) >= missing else head.covers_from - 1
            yield self._hole("lost", self.position + 1, until, head, missing)
            first = until + 1
        if first < head.covers_from:
            yield self._hole("between", first, head.covers_from - 1, head, with_scars=False)

    def _hole(
        self,
        kind: Literal["lost", "torn", "open", "between", "passed"],
        first: int,
        last: int,
        head: Head,
        count: int = 0,
        *,
        with_scars: bool = True,
    ) -> Hole:
        known = _heads(self.scars) if with_scars else []
        before = self.last.max_time if self.last is not None else 0
        return Hole(
            kind,
            first,
            last,
            min(last - first + 1, count) or last - first + 1,
            min((k.min_time for k in known), default=before),
            max((k.max_time for k in known), default=head.min_time),
            tuple(self.scars) if with_scars else (),
        )

    def _end(self) -> Iterator[Finding]:
        """Behind the last whole frame nobody can tell what was durable."""
        if not self.scars:
            return
        known = [k for k in _heads(self.scars) if k.last_seq > self.position]
        if not known and self.last is not None:
            first, last = self.position + 1, 0
            yield Hole("open", first, last, 0, self.last.max_time, 0, tuple(self.scars))
        elif known:
            first = max(self.position + 1, known[0].first_seq)
            count = sum(k.count for k in known)
            yield Hole(
                "open", first, known[-1].last_seq, count, known[0].min_time, known[-1].max_time, tuple(self.scars)
            )
        else:
            yield Hole("open", 0, 0, 0, 0, 0, tuple(self.scars))


def _missing(last: Head, head: Head) -> int:
    """How many records were written between two frames. Of thinned ones nobody can tell: those are fewer on purpose."""
    return 0 if last.level else max(0, head.ordinal - last.ordinal - last.count)


def _heads(scars: Iterable[Seen | Scar]) -> list[Head]:
    """What is known of damaged frames by their heads."""
    return [scar.head for scar in scars if isinstance(scar, Seen)]
