"""Is anything missing, doubled, evicted, unknown: what became of every record number, for each uplink.

The proofs are the frames (`continuity`), the gap records in them, and the stored state of each uplink: up to where it
has acknowledged, which islands above that, and what it lost. A number is for an uplink

    acknowledged   below its cursor or in an island, or never written because everybody had acknowledged it in time
    waiting        stored, and not acknowledged yet
    lost           with its cause: evicted, refused, thinned, dropped from memory, too large; damaged on the disk
    given up       by a person, with `headgate queue purge`
    doubled        stored twice after a failed write; a reader gives it once, so this is for information
    unknown        between two starts of the program, and behind the last frame: never used, acknowledged, or within the
                   loss window of a power cut. In thinned frames: acknowledged, or among those that are lost by thinning

An uplink that holds nothing has no claim on what it did not get; what is stored and what is lost is told all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from gateway.journal.frame import Head
from gateway.model import RecordClass
from gateway.spool.cursor import Mark, State
from gateway.spool.record import Gap, Note, Record
from gateway.spool.timeline import Timeline
from gateway.upkeep.continuity import Doubled, Finding, Hole, Stored, follow
from gateway.upkeep.moments import Span
from gateway.upkeep.records import decoded, timeline_of
from gateway.upkeep.survey import Advance, Survey

PURGE, FORGET = "purge", "forget"
"""Names of the audit entries that stand for what a person gave up: records of an uplink, or the uplink itself."""

Fate: TypeAlias = Literal["acknowledged", "waiting", "lost", "given up", "doubled", "unknown"]

_MOST_RANGES = 10_000
_MAY_BE_DURABLE = "torn, or damaged at the end"


@dataclass(slots=True)
class Range:
    """Neighbouring numbers of one fate: `count` records at most. Times in ms bound them, 0 where not known."""

    fate: Fate
    cause: str
    first_seq: int
    last_seq: int
    count: int
    first_time: int
    last_time: int


@dataclass(slots=True)
class Account:
    """What became of the records for one uplink. `totals` by fate and cause are complete, `ranges` are the first many.

    `name` is empty where no uplink is known.
    """

    record_class: RecordClass
    name: str
    holds: bool
    committed: int
    ranges: list[Range] = field(default_factory=list)
    totals: dict[tuple[Fate, str], int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is lost."""
        return not any(fate == "lost" and count for (fate, _), count in self.totals.items())

    def add(self, found: Range) -> None:
        """Note a range; it grows the one before where they belong together."""
        key = (found.fate, found.cause)
        self.totals[key] = self.totals.get(key, 0) + found.count
        last = self.ranges[-1] if self.ranges else None
        if last is not None and (last.fate, last.cause) == key and last.last_seq + 1 == found.first_seq:
            last.last_seq = found.last_seq
            last.count += found.count
            last.first_time = min(last.first_time or found.first_time, found.first_time or last.first_time)
            last.last_time = max(last.last_time, found.last_time)
        elif len(self.ranges) < _MOST_RANGES:
            self.ranges.append(found)


def audit(
    survey: Survey, span: Span, uplink: str | None = None, *, state: State | None, advance: Advance | None = None
) -> list[Account]:
    """The accounts of one class's uplinks, of the one named or of all, for what was taken in that time.

    `state` is the folder's newest, or the running gateway's. Holes have no times of their own: they count where the
    frames around them leave room for that time.
    """
    marks = () if state is None else tuple(m for m in state.marks if uplink in (None, m.name))
    record_class = survey.part.record_class
    if not marks and uplink is None:
        marks = (Mark("", holds=True, committed=0),)
    accounts = [_Accountant(Account(record_class, m.name, m.holds, m.committed), m, span) for m in marks]
    last = 0
    timeline = timeline_of(survey)
    for finding in follow(survey.walk(advance=advance)):
        for stretch in _stretches(survey, finding, timeline):
            last = max(last, stretch.last)
            for accountant in accounts:
                accountant.note(stretch)
    for accountant in accounts:
        accountant.close(last, 0 if state is None else state.ceiling)
    return [accountant.account for accountant in accounts]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Numbers of which the same can be said, whoever asks."""

    what: Literal["stored", "absent", "lost", "doubled", "unknown", "purged"]
    first: int
    last: int
    count: int
    first_time: int
    last_time: int
    cause: str = ""
    uplink: str = ""


def _stretches(survey: Survey, finding: Finding, timeline: Timeline) -> Iterator[_Stretch]:
    if isinstance(finding, Stored):
        head = timeline.mended(finding.seen.head)
        above = max(finding.above, head.covers_from - 1)
        if finding.seen.obstacle:
            yield _Stretch("stored", above + 1, head.last_seq, head.count, head.min_time, head.max_time)
            return
        yield from _within([timeline.timed(record) for record in decoded(survey, finding.seen)], head, above)
    elif isinstance(finding, Doubled):
        head = finding.seen.head
        count = min(head.count, finding.last - finding.first + 1)
        yield _Stretch("doubled", finding.first, finding.last, count, head.min_time, head.max_time)
    elif isinstance(finding, Hole):
        yield from _hole(finding)


def _hole(hole: Hole) -> Iterator[_Stretch]:
    times = (hole.first_time, hole.last_time)
    first = hole.first or hole.last
    if hole.kind == "lost":
        yield _Stretch("lost", first, hole.last, max(1, hole.count), *times, cause="damaged")
    elif hole.kind == "open" and hole.last:
        yield _Stretch("unknown", first, hole.last, hole.count, *times, cause=_MAY_BE_DURABLE)
    elif hole.kind == "torn":
        yield _Stretch("unknown", first, hole.last, hole.count, *times, cause="torn by a power cut")
    elif hole.kind in ("between", "passed"):
        cause = "between two starts" if hole.kind == "between" else "recycled while it was read"
        yield _Stretch("unknown", first, hole.last, hole.count, *times, cause=cause)


def _within(records: Sequence[Record], head: Head, above: int) -> Iterator[_Stretch]:
    """What one frame accounts for, from `above` on: records, gaps, and numbers that were acknowledged unwritten."""
    position = above
    for record in records:
        if record.seq <= position:
            continue
        gap = record.gap
        is_alone = (
            gap is None or gap.cause == "thinned"
        )  # between the numbers of such a gap stand others that are there
        first = record.seq if is_alone or gap is None else max(position + 1, min(gap.first_seq, record.seq))
        if first > position + 1:
            yield _absent(position + 1, first - 1, head)
        if gap is None:
            yield _Stretch("stored", record.seq, record.seq, 1, record.time, record.time)
        else:
            yield _lost(gap if is_alone else gap.after(position))
        if isinstance(record.other, Note) and record.other.name == PURGE:
            yield from _purged(record.other)
        position = record.seq
    if position < head.last_seq:
        yield _absent(position + 1, head.last_seq, head)


def _absent(first: int, last: int, head: Head) -> _Stretch:
    """Numbers that a frame accounts for and does not have."""
    cause = "thinned away, or acknowledged" if head.level else ""
    what: Literal["unknown", "absent"] = "unknown" if head.level else "absent"
    return _Stretch(what, first, last, last - first + 1, head.min_time, head.max_time, cause=cause)


def _lost(gap: Gap) -> _Stretch:
    first_time = gap.first_time or gap.last_time
    return _Stretch("lost", gap.first_seq, gap.last_seq, gap.count, first_time, gap.last_time, cause=gap.cause)


def _purged(note: Note) -> Iterator[_Stretch]:
    """What a person gave up, by the audit entry that was left."""
    fields = note.fields
    try:
        yield _Stretch(
            "purged",
            int(fields["first_seq"]),
            int(fields["last_seq"]),
            int(fields["count"]),
            int(fields["first_time"]),
            int(fields["last_time"]),
            uplink=str(fields["uplink"]),
        )
    except (KeyError, TypeError, ValueError):  # an entry of that name by somebody else
        return


class _Accountant:
    """Keeps one uplink's account."""

    def __init__(self, account: Account, mark: Mark, span: Span) -> None:
        self.account = account
        self._mark = mark
        self._span = span
        self._acknowledged = ((0, mark.committed), *mark.islands)

    def note(self, stretch: _Stretch) -> None:
        """Note what a stretch is to this uplink."""
        if not self._is_wanted(stretch.first_time, stretch.last_time):
            return
        if stretch.what == "purged":
            if stretch.uplink == self.account.name:
                self._add("given up", "purged", stretch, stretch.first, stretch.last)
        elif stretch.what == "doubled":
            self._add("doubled", "", stretch, stretch.first, stretch.last)
        elif stretch.what == "lost" and stretch.cause != "damaged":
            self._add("lost", stretch.cause, stretch, stretch.first, stretch.last)
        else:
            for first, last, is_done in self._split(stretch.first, stretch.last):
                self._add(*self._fate(stretch, is_done=is_done), stretch, first, last)

    def _fate(self, stretch: _Stretch, *, is_done: bool) -> tuple[Fate, str]:
        if is_done:
            return "acknowledged", ""
        if stretch.what == "stored":
            return "waiting", ""
        if stretch.what == "absent":
            return ("acknowledged", "") if self._mark.holds else ("unknown", "not kept for who holds nothing")
        return ("lost", stretch.cause) if stretch.what == "lost" else ("unknown", stretch.cause)

    def _split(self, first: int, last: int) -> Iterator[tuple[int, int, bool]]:
        """The numbers in pieces: acknowledged by this uplink, or not."""
        at = first
        for low, high in self._acknowledged:
            if high < at or low > last:
                continue
            if low > at:
                yield at, low - 1, False
                at = low
            until = min(high, last)
            yield at, until, True
            at = until + 1
            if at > last:
                return
        if at <= last:
            yield at, last, False

    def _add(self, fate: Fate, cause: str, stretch: _Stretch, first: int, last: int) -> None:
        count = min(stretch.count, last - first + 1)
        self.account.add(Range(fate, cause, first, last, count, stretch.first_time, stretch.last_time))

    def _is_wanted(self, first_time: int, last_time: int) -> bool:
        """Where a time is not known, it may be any."""
        return self._span.is_all or self._span.meets(first_time, last_time or 1 << 62)

    def close(self, last: int, ceiling: int) -> None:
        """Note what the uplink itself has lost, and what lies behind all frames."""
        for loss in self._mark.losses:
            gap = loss.gap
            if gap.last_seq > self._mark.committed:
                self.note(_lost(gap.after(self._mark.committed)))
        if ceiling > last:
            self.note(_Stretch("unknown", last + 1, ceiling, ceiling - last, 0, 0, cause="behind the last frame"))
