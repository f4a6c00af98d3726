"""The records of a store, frame by frame, each once, as far as somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gateway.journal import frame
from gateway.journal.frame import Head
from gateway.model import Definition
from gateway.spool.payload import decode
from gateway.spool.record import Gap, Record, gap_record
from gateway.spool.timeline import Timeline
from gateway.upkeep.continuity import Stored, follow
from gateway.upkeep.moments import ALWAYS, Span
from gateway.upkeep.survey import Advance, Seen, Survey

CLOCKS = ("unsynced", "holdover", "synced")
"""States of the wall clock, by their number in a frame's head."""

CODECS = {
    frame.CODEC_JSON_ZLIB: "json+zlib",
    frame.CODEC_COLUMNS_ZLIB: "columns+zlib",
    frame.CODEC_COLUMNS_ZSTD: "columns+zstd",
}
"""How bodies are stored, by the codec in a frame's head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody wants to see: times, numbers (both ends included), tags by pattern, one device."""

    span: Span = ALWAYS
    first_seq: int = 0
    last_seq: int = (1 << 64) - 1
    tag: str | None = None
    device: str | None = None

    def positions(self, definition: Definition) -> list[int] | None:
        """Which of the definition's tags are wanted, by position; None where it is all of them."""
        if self.device is not None and definition.device != self.device:
            return []
        if self.tag is None:
            return None
        return [i for i, name in enumerate(definition.names) if fnmatchcase(name, self.tag)]

    def may_hold(self, head: Head) -> bool:
        """Whether a frame may have something that is wanted. Times that are not known decide nothing."""
        if head.last_seq < self.first_seq or min(head.first_seq, head.covers_from) > self.last_seq:
            return False
        return not head.max_time or self.span.meets(head.min_time, head.max_time)


def frames(survey: Survey, wanted: Wanted, *, advance: Advance | None = None) -> Iterator[tuple[Seen, list[Record]]]:
    """Frames with those of their records that are wanted by number, oldest first; no record twice.

    Times that were taken by a clock that was wrong are mended where the store knows by how much.
    """
    timeline = timeline_of(survey)
    for finding in follow(survey.walk(advance=advance)):
        if isinstance(finding, Stored):
            seen = finding.seen
            if seen.body is not None:
                survey.learn(seen.body)
            if wanted.may_hold(timeline.mended(seen.head)):
                lowest = max(finding.above + 1, wanted.first_seq)
                found = decoded(survey, seen)
                yield seen, [timeline.timed(r) for r in found if lowest <= r.seq <= wanted.last_seq]


def timeline_of(survey: Survey) -> Timeline:
    """What the store knows of the clocks its records were taken by."""
    timeline = Timeline(bytes(16))
    state = survey.state()
    if state is not None:
        timeline.learn(state.anchors, 0, ())
    return timeline


def clock_of(head: Head, record: Record) -> str:
    """What a record's time is worth: `synced`, `mended` later, `holdover` (plausible at least), or `unsynced`."""
    if record.regime is not None:
        return "holdover" if record.regime.is_plausible else "unsynced"
    return "synced" if CLOCKS[head.clock : head.clock + 1] == ("synced",) else "mended"


def decoded(survey: Survey, seen: Seen) -> list[Record]:
    """The records of a frame; one gap in their place where they cannot be read, none where it takes another program."""
    if seen.obstacle:
        return []
    head = seen.head
    body = survey.load(seen)
    if body is not None:
        survey.learn(body)
        try:
            return decode(head, body.payload, survey.definition)
        except ValueError:
            pass
    gap = Gap(head.first_seq, head.last_seq, head.min_time, head.max_time, head.count, "damaged")
    return [gap_record(gap, head.epoch)]
