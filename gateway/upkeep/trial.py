"""The selftest: kill a writing process again and again, damage what it wrote, and see whether the spool keeps its word.

Everything happens in a folder of its own inside the one named, so on the same medium, and nothing of it stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from gateway.clock import SystemClock
from gateway.errors import RefusedError
from gateway.journal.frame import Head
from gateway.journal.segment import name_of
from gateway.metrics import Metrics
from gateway.model import Batch
from gateway.spool.queue import Queue
from gateway.upkeep.folder import Part
from gateway.upkeep.records import Wanted, frames
from gateway.upkeep.repair import repair
from gateway.upkeep.survey import Seen, Survey
from gateway.upkeep.trial_writer import LIMITS, SEGMENT_SIZE, UPLINK, batch
from gateway.upkeep.verify import Verified, verify

_NAME = "selftest-"
_START_S = 30.0
_LIFE_S = 0.6
_BURSTS = 4


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried, whether it held, and what was seen."""

    name: str
    is_ok: bool
    seen: str


def selftest(ground: Path, rounds: int, seed: int) -> Iterator[Check]:
    """Kill `rounds` times, then damage; `seed` decides when and where. Raises RefusedError where one cannot write."""
    dice = random.Random(seed)
    with _workshop(ground) as workshop:
        folder = workshop / "spool"
        last = 0
        for number in range(1, rounds + 1):
            said, last = _live_and_die(folder, last + 1, dice.uniform(0.05, _LIFE_S))
            yield _check_kill(folder, number, said, last)
            last = max(_numbers(folder), default=last)
        yield from _check_damage(folder, workshop, dice)


@contextmanager
def _workshop(ground: Path) -> Iterator[Path]:
    """A folder for the trial; one that a killed selftest left is removed first."""
    workshop = ground / f"{_NAME}{os.getpid()}"
    for leftover in ground.glob(f"{_NAME}*"):
        if not Path(f"/proc/{leftover.name.removeprefix(_NAME)}").exists():
            shutil.rmtree(leftover, ignore_errors=True)
    try:
        workshop.mkdir(mode=0o700)
    except OSError as error:
        raise RefusedError(f"{ground}: cannot be written ({error.strerror}). Run as who may write there") from error
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _live_and_die(folder: Path, first: int, life_s: float) -> tuple[int, int]:
    """Start a writer, let it say something, wait a moment, kill it: the first and last number it called durable."""
    command = [sys.executable, "-m", "gateway.upkeep.trial_writer", str(folder), str(first)]
    heard = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own
        assert process.stdout is not None  # noqa: S101 - it was asked for
        file = process.stdout.fileno()
        while heard.count(b"\n") < _BURSTS and select.select([file], [], [], _START_S)[0]:
            more = os.read(file, 4096)
            if not more:
                break
            heard += more
        time.sleep(life_s)
        process.kill()
        heard += process.stdout.read()
    lines = heard.split(b"\n")[:-1]  # behind the last newline stands what was cut off
    if len(lines) < _BURSTS:
        raise RefusedError(f"the selftest's writer does not come to write within {_START_S:.0f} s; see above")
    return first, int(lines[-1])


def _check_kill(folder: Path, number: int, first: int, last: int) -> Check:
    found = _numbers(folder)
    lost = [n for n in range(first, last + 1) if n not in found]
    damage = [d for d in verify(_survey(folder), Verified()) if d.kind != "torn"]
    twice = sum(count - 1 for count in found.values())
    seen = (
        f"{last - first + 1} records called durable, {len(lost)} of them lost, {twice} doubled, {len(damage)} damaged"
    )
    return Check(f"kill -9, round {number}", not lost and not damage and not twice, seen)


def _survey(folder: Path) -> Survey:
    return Survey(Part("data", folder))


def _numbers(folder: Path) -> dict[int, int]:
    """How often each record is there exactly as it was written."""
    found: dict[int, int] = {}
    for _, records in frames(_survey(folder), Wanted()):
        for record in records:
            number = _number(record.batch)
            if number is not None:
                found[number] = found.get(number, 0) + 1
    return found


def _number(found: Batch | None) -> int | None:
    """The number of a record, if it is as it was written."""
    if found is None or not isinstance(found.values[0], int):
        return None
    meant = batch(found.values[0])
    is_same = (
        list(found.values) == list(meant.values) and found.time == meant.time and found.group.hash == meant.group.hash
    )
    return found.values[0] if is_same else None


_Injure: TypeAlias = Callable[[bytearray, Head, random.Random], None]


def _flip(data: bytearray, at: int, dice: random.Random) -> None:
    data[at] ^= 1 << dice.randrange(8)


def _hurt_body(data: bytearray, head: Head, dice: random.Random) -> None:
    _flip(data, head.offset + head.length + dice.randrange(head.body_length), dice)


def _hurt_head(data: bytearray, head: Head, dice: random.Random) -> None:
    _flip(data, head.offset + dice.randrange(head.length), dice)


def _wipe(data: bytearray, head: Head, _dice: random.Random) -> None:
    data[head.offset : head.offset + head.extent] = bytes(head.extent)


_INJURIES: Mapping[str, _Injure] = {
    "a flipped bit in a frame": _hurt_body,
    "a flipped bit in a frame's head": _hurt_head,
    "a frame of zeros": _wipe,
}


def _check_damage(folder: Path, workshop: Path, dice: random.Random) -> Iterator[Check]:
    """Injure a copy in one place: verify finds it, a start hands out all the rest, a repair cleans up."""
    copy = workshop / "copy"
    for what, injure in _INJURIES.items():
        shutil.copytree(folder, copy)
        kept, victim = _injure(copy, injure, dice)
        found = [d for d in verify(_survey(copy), Verified()) if d.is_serious]
        is_it = [(d.first_seq, d.last_seq, d.count) for d in found] == [
            (victim.first_seq, victim.last_seq, victim.count)
        ]
        yield Check(f"{what}: verify finds it and nothing else", is_it, f"{len(found)} damaged places, 1 was made")
        mended = [m for m in repair(Part("data", copy), advance=lambda _: None) if m.gaps]
        left = [d for d in verify(_survey(copy), Verified()) if d.is_serious]
        is_kept = set(_numbers(copy)) == kept
        seen = f"{len(mended)} file written anew, {len(left)} damaged places left"
        yield Check(f"{what}: a repair keeps all else", len(mended) == 1 and not left and is_kept, seen)
        shutil.rmtree(copy)
        shutil.copytree(folder, copy)
        kept, victim = _injure(copy, injure, dice)
        with _quiet():
            yield asyncio.run(_check_start(copy, what, kept))
        shutil.rmtree(copy)


def _injure(copy: Path, injure: _Injure, dice: random.Random) -> tuple[set[int], Head]:
    """Damage one frame: the records that are whole still, and the victim.

    It has neighbours of the same start. At the border of two starts, numbers that were never used join what is lost.
    """
    survey = _survey(copy)
    heads = [item.head for item in survey.walk() if isinstance(item, Seen)]
    trios = zip(heads, heads[1:], heads[2:], strict=False)
    victim = dice.choice([head for before, head, after in trios if before.epoch == head.epoch == after.epoch])
    kept = set()
    for seen, records in frames(survey, Wanted()):
        if (seen.head.segment, seen.head.offset) != (victim.segment, victim.offset):
            kept |= {n for record in records if (n := _number(record.batch)) is not None}
    path = copy / name_of(victim.segment)
    data = bytearray(path.read_bytes())
    injure(data, victim, dice)
    path.write_bytes(data)
    return kept, victim


@contextmanager
def _quiet() -> Iterator[None]:
    """The spool says what is damaged: here that is no news."""
    log = logging.getLogger("headgate")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


async def _check_start(copy: Path, what: str, kept: set[int]) -> Check:
    """Open the injured copy as a gateway does, and read it to the end."""
    queue = await Queue.open(
        copy, LIMITS, clock=SystemClock(), metrics=Metrics(), segment_size=SEGMENT_SIZE, record_class="data"
    )
    try:
        cursor = queue.cursor(UPLINK)
        final = queue.append(batch(0))
        found: list[int | None] = []
        gaps = 0
        while cursor.position < final:
            for record in await queue.read(cursor, 1000):
                gaps += record.gap is not None
                if record.batch is not None and record.seq != final:
                    found.append(_number(record.batch))
    finally:
        await queue.close()
    seen = f"{len(found)} of {len(kept)} whole records handed out, {gaps} gap told"
    return Check(
        f"{what}: a start hands out all else", len(found) == len(kept) and set(found) == kept and gaps == 1, seen
    )
