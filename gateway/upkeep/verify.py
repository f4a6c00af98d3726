"""Every frame's checksums, and what is missing for want of some: the damage of a store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gateway.model import RecordClass
from gateway.upkeep.continuity import Doubled, Finding, Harmless, Hole, Stored, follow
from gateway.upkeep.survey import Advance, File, Scar, Seen, Survey

_WRITING_S = 0.3  # what a running gateway was writing when we looked is whole by then


@dataclass(frozen=True, slots=True)
class Site:
    """Where something is wrong: `size` bytes of `file` from `offset`."""

    file: str
    offset: int
    size: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is wrong in one stretch of the store, at which sites; none where a whole file or its end is missing.

    `lost`: records are gone, `count` of them at most, numbered `first_seq` to `last_seq` (0: not known), taken between
    the two times (ms, 0: not known). `torn`: cut off by a power cut before anybody was promised anything. `open`: one
    of the two. `harmless`: what was there stands elsewhere once more. `set aside`: a whole file, of which `count`
    records can be read and may be brought back by a repair.
    """

    record_class: RecordClass
    kind: Literal["lost", "torn", "open", "harmless", "set aside"]
    sites: tuple[Site, ...]
    first_seq: int = 0
    last_seq: int = 0
    count: int = 0
    first_time: int = 0
    last_time: int = 0

    @property
    def is_serious(self) -> bool:
        """Whether somebody should know: anything but what a power cut leaves, or what costs nothing."""
        return self.kind in ("lost", "open") or (self.kind == "set aside" and self.count > 0)


@dataclass(slots=True)
class Verified:
    """What was looked at: whole frames and their bytes, and the records in them. `doubled` were written twice."""

    files: int = 0
    frames: int = 0
    bytes: int = 0
    records: int = 0
    doubled: int = 0


def verify(survey: Survey, tally: Verified, *, advance: Advance | None = None) -> Iterator[Damage]:
    """All damage of one class, in the order of the records. `tally` is counted up on the way."""
    tally.files += len(survey.files)
    for finding in follow(survey.walk(advance=advance)):
        if isinstance(finding, Stored):
            tally.frames += 1
            tally.bytes += finding.seen.head.extent
            tally.records += finding.seen.head.count
        elif isinstance(finding, Doubled):
            tally.doubled += finding.last - finding.first + 1
        else:
            yield from _damage(survey, finding)
    for file in survey.set_aside:
        yield _set_aside(survey, file)


def _damage(survey: Survey, finding: Finding) -> Iterator[Damage]:
    """What to say of one finding; nothing where a second look finds it mended."""
    record_class = survey.part.record_class
    if isinstance(finding, Harmless):
        sites = _sites(survey, finding.scars)
        if sites:
            yield Damage(record_class=record_class, kind="harmless", sites=sites)
    if isinstance(finding, Hole) and finding.kind in ("lost", "torn", "open"):
        sites = _sites(survey, finding.scars)
        if sites or not finding.scars:
            yield Damage(
                record_class=record_class,
                kind=finding.kind,
                sites=sites,
                first_seq=finding.first,
                last_seq=finding.last,
                count=finding.count,
                first_time=finding.first_time,
                last_time=finding.last_time,
            )


def _sites(survey: Survey, scars: tuple[Seen | Scar, ...]) -> tuple[Site, ...]:
    """Where it is; what is whole at a second look is left out."""
    return tuple(_site(scar) for scar in scars if not _is_mended(survey, scar))


def _is_mended(survey: Survey, scar: Seen | Scar) -> bool:
    """Whether the place is whole at a second look: a running gateway may have been writing just there."""
    if survey.is_mended(scar):
        return True
    if scar.file != survey.files[-1]:
        return False
    time.sleep(_WRITING_S)
    return survey.is_mended(scar)


def _site(scar: Seen | Scar) -> Site:
    if isinstance(scar, Scar):
        return Site(scar.file.name, scar.offset, scar.size, scar.what)
    return Site(scar.file.name, scar.head.offset, scar.head.extent, "the body of a frame is damaged")


def _set_aside(survey: Survey, file: File) -> Damage:
    is_back = any(other.number == file.number for other in survey.files)
    heads = [i.head for i in survey.walk_file(file) if isinstance(i, Seen) and i.is_whole and not is_back]
    what = "its whole frames are in the store" if is_back else f"{len(heads)} of its frames are whole"
    return Damage(
        record_class=survey.part.record_class,
        kind="harmless" if is_back else "set aside",
        sites=(Site(file.name, 0, file.size, f"set aside as damaged; {what}"),),
        first_seq=min((h.first_seq for h in heads), default=0),
        last_seq=max((h.last_seq for h in heads), default=0),
        count=sum(h.count for h in heads),
        first_time=min((h.min_time for h in heads), default=0),
        last_time=max((h.max_time for h in heads), default=0),
    )
