"""Mending a store: damaged segments are written anew without what is damaged. Nobody needs this to start a gateway.

For each segment with a damaged place there is a new file of the same number: its whole frames, moved together, and
where records are lost for certain, a gap record that says which. The old file stays as `<number>.bad`. What can still
be read in files that were set aside comes back likewise. In place, each step is one rename: whatever interrupts a
repair, every record that was readable before is readable after.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.errors import FileError, Mistake, RefusedError
from gateway.journal import frame
from gateway.journal.disk import FolderDisk
from gateway.journal.frame import Body, Head
from gateway.journal.segment import Tally, name_of
from gateway.journal.slots import Slots
from gateway.model import Place, RecordClass
from gateway.spool.lock import Lock
from gateway.spool.payload import Payload, decode
from gateway.spool.record import Cause, Gap, gap_record
from gateway.upkeep.continuity import Doubled, Hole, Stored, follow
from gateway.upkeep.folder import Part
from gateway.upkeep.survey import Advance, File, Seen, Survey

_DRAFT = "repair-"
_DAMAGED: Cause = "damaged"
_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class Mended:
    """One file after the repair. `gaps`: what is told as lost, first and last number and count of each."""

    record_class: RecordClass
    file: str
    frames: int
    dropped: int
    rescued: int
    gaps: tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class _Plan:
    """What a new file is to hold: frames, and before the frame of that index a gap."""

    file: File
    frames: list[Head] = field(default_factory=list)
    gaps: list[tuple[int, Hole]] = field(default_factory=list)
    scars: int = 0


def repair(part: Part, *, advance: Advance) -> Iterator[Mended]:
    """Mend one class's folder where it lies. Raises RefusedError where a gateway runs there, or the disk refuses."""
    lock = Lock(part.folder)
    try:
        for leftover in part.folder.glob(f"{_DRAFT}*"):
            leftover.unlink()
        yield from _rescue(part, part.folder, advance)
        for plan in _plans(Survey(part), advance):
            yield from _mend(part, plan, part.folder)
    except OSError as error:
        raise RefusedError(
            f"{part.folder}: the repair stopped ({error.strerror}); what it did so far is whole"
        ) from error
    finally:
        lock.release()


def repair_to(part: Part, folder: Path, *, advance: Advance) -> Iterator[Mended]:
    """Write a mended copy of one class to an empty folder, only reading here. Raises FileError, RefusedError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileError([Mistake(Place(str(folder)), "is not empty. Name a folder that is, or that is not there")])
        survey = Survey(part)
        _copy_state(survey, folder)
        yield from _rescue(part, folder, advance)
        plans = {plan.file.name: plan for plan in _plans(survey, lambda _: None)}
        for file in survey.files:
            if file.name in plans:
                yield from _mend(part, plans[file.name], folder)
            if file.name not in plans or not (plans[file.name].scars or (folder / file.name).exists()):
                _copy(part.folder / file.name, folder / file.name)
            advance(file.size)
        FolderDisk(folder).sync_folder()
    except OSError as error:
        raise RefusedError(f"{folder}: the copy could not be written ({error.strerror})") from error


def _plans(survey: Survey, advance: Advance) -> Iterator[_Plan]:
    """The files that must be written anew, each as soon as all is known of it."""
    plans: dict[str, _Plan] = {}
    for finding in follow(survey.walk(advance=advance)):
        if isinstance(finding, Stored | Doubled):
            plan = plans.setdefault(finding.seen.file.name, _Plan(finding.seen.file))
            if not plan.frames or plan.frames[-1] != finding.seen.head:
                plan.frames.append(finding.seen.head)
            for name in [name for name in plans if name != finding.seen.file.name]:
                done = plans.pop(name)
                if done.scars or done.gaps:
                    yield done
            continue
        for scar in finding.scars:
            plan = plans.setdefault(scar.file.name, _Plan(scar.file))
            plan.scars += 1
        if isinstance(finding, Hole) and finding.kind == "lost" and finding.first and plans:
            # Without a scar it was the end of the file before, or a file that is missing.
            plan = plans[finding.scars[0].file.name] if finding.scars else list(plans.values())[-1]
            plan.gaps.append((len(plan.frames), finding))
    yield from (plan for plan in plans.values() if plan.scars or plan.gaps)


def _rescue(part: Part, target: Path, advance: Advance) -> Iterator[Mended]:
    """Bring back the whole frames of files that were set aside, unless a file of that number is there."""
    survey = Survey(part)
    for file in survey.set_aside:
        heads = [i.head for i in survey.walk_file(file) if isinstance(i, Seen) and i.is_whole]
        there = name_of(file.number)
        if heads and not (part.folder / there).exists():
            plan = _Plan(file, heads)
            _write(part, plan, target / f"{_DRAFT}{there}")
            _name(target, f"{_DRAFT}{there}", there)
            yield Mended(part.record_class, there, len(heads), 0, sum(h.count for h in heads), ())
        advance(0)


def _mend(part: Part, plan: _Plan, target: Path) -> Iterator[Mended]:
    """Write one file anew; in place, the old one is kept beside it. Nothing is done where nothing would be better."""
    name = plan.file.name
    is_in_place = target == part.folder
    gaps: tuple[tuple[int, int, int], ...] = ()
    if plan.frames:
        gaps = _write(part, plan, target / f"{_DRAFT}{name}")
    if not plan.scars and not gaps:
        (target / f"{_DRAFT}{name}").unlink()
        return
    if is_in_place:
        _keep(target, name)
    if plan.frames:
        _name(target, f"{_DRAFT}{name}", name)
    elif is_in_place:
        (target / name).unlink()
        FolderDisk(target).sync_folder()
    yield Mended(part.record_class, name, len(plan.frames), plan.scars, 0, gaps)


def _keep(folder: Path, name: str) -> None:
    """Give the damaged file its second name, `.bad`. Where the file system has no links, it is copied."""
    bad = folder / (name.removesuffix(".seg") + ".bad")
    bad.unlink(missing_ok=True)
    try:
        os.link(folder / name, bad)
    except OSError:
        with contextlib.suppress(OSError):  # places that cannot be read are why we are here
            _copy(folder / name, bad)
    FolderDisk(folder).sync_folder()


def _name(folder: Path, draft: str, name: str) -> None:
    disk = FolderDisk(folder)
    disk.rename(draft, name)
    disk.sync_folder()


def _write(part: Part, plan: _Plan, path: Path) -> tuple[tuple[int, int, int], ...]:
    """The new file, as long as the old one, on the medium when this returns. Gives the gaps that went in."""
    survey = Survey(part)
    number, size, offset = plan.file.number, plan.file.size, 0
    room = size - sum(head.extent for head in plan.frames)
    gaps = []
    due = list(plan.gaps)
    missing = _missing_entries(survey, plan)
    is_whole = False
    source = os.open(part.folder / plan.file.name, os.O_RDONLY)
    try:
        with path.open("xb") as out:
            for index, head in enumerate([*plan.frames, None]):
                while due and due[0][0] == index:
                    hole = due.pop(0)[1]
                    made = _gap_frame(hole, plan.frames, index, segment=number, offset=offset, entries=missing)
                    if len(made) <= room:
                        out.write(made)
                        offset, room = offset + len(made), room - len(made)
                        missing = {}
                        gaps.append((hole.first, hole.last, hole.count))
                if head is not None:
                    out.write(frame.moved(os.pread(source, head.extent, head.offset), segment=number, offset=offset))
                    offset += head.extent
            out.write(bytes(size - offset))
            out.flush()
            os.fsync(out.fileno())
            is_whole = True
    finally:
        os.close(source)
        if not is_whole:
            path.unlink(missing_ok=True)
    return tuple(gaps)


def _gap_frame(
    hole: Hole, frames: list[Head], index: int, *, segment: int, offset: int, entries: dict[bytes, bytes]
) -> bytes:
    """A frame of one gap record, in the name of the start that wrote what is lost."""
    known = [scar.head for scar in hole.scars if isinstance(scar, Seen)]
    like = (known or frames[max(0, index - 1) :])[0]
    is_start = bool(known and known[0].flags & frame.EPOCH_START)
    gap = Gap(hole.first, hole.last, hole.first_time, hole.last_time, hole.count, _DAMAGED)
    payload = Payload(hole.last)
    payload.add(gap_record(gap, like.epoch), 0, _COPY)
    head = replace(
        like,
        version=frame.VERSION,
        codec=frame.best_codec(),
        length=frame.HEAD_LENGTH,
        flags=like.level << frame.LEVEL_SHIFT | (frame.EPOCH_START if is_start else 0),
        segment=segment,
        offset=offset,
        count=1,
        first_seq=hole.last,
        last_seq=hole.last,
        covers_from=hole.first,
        min_time=hole.first_time,
        max_time=hole.last_time,
        ordinal=_ordinal(hole, frames, index),
    )
    return frame.seal(head, Body(entries, b"", payload.sealed()))


def _ordinal(hole: Hole, frames: list[Head], index: int) -> int:
    """Such that the one record of a gap counts as the last of those it stands for: behind it nothing seems missing."""
    known = [scar.head for scar in hole.scars if isinstance(scar, Seen)]
    if index < len(frames):
        return max(0, frames[index].ordinal - 1)
    if known:
        return known[-1].ordinal + known[-1].count - 1
    return frames[-1].ordinal + frames[-1].count + hole.count - 1


def _missing_entries(survey: Survey, plan: _Plan) -> dict[bytes, bytes]:
    """Definitions that the frames refer to and that no frame of the file brings along, as other files have them."""
    there: set[bytes] = set()
    used: set[bytes] = set()

    def look(key: bytes) -> None:
        used.add(key)

    for head in plan.frames:
        body = survey.load(Seen(plan.file, head, None))
        if body is not None:
            there.update(body.entries)
            with contextlib.suppress(ValueError):
                decode(head, body.payload, look)
    found = {key: survey.definition(key) for key in used - there}
    return {key: d.document() for key, d in found.items() if d is not None and d.hash == key}


def _copy_state(survey: Survey, folder: Path) -> None:
    """The newest state, in slots of its own."""
    newest = survey.document()
    if newest is not None:
        slots = Slots(FolderDisk(folder), Tally())
        slots.write(newest[0] + 1, newest[1])
        slots.close()


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("xb") as new:
        shutil.copyfileobj(old, new, _COPY)
        new.flush()
        os.fsync(new.fileno())
