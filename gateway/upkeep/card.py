"""What the medium below a folder can do: how fast it makes things durable, and whether that can be true.

Measured as the journal writes: one block of 4 KiB after the other into a file that is allocated already, each with a
flush; then large pieces, for the speed of the medium. The file lies in the folder itself, and is removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import RefusedError

_BLOCK = 4096
_AREA = 8 << 20
_PIECE = 1 << 20
_SHARE = 0.05  # of the time that flushing may take
_INTERVALS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_NAME = "bench-"

_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_ROTATING_S = 0.002  # a plate at 15,000 turns a minute comes round every 4 ms
_FLASH_CARD_S = 0.0002  # programming a page of flash alone takes longer
_DISK_S = 0.00001  # no bus carries a command there and back that fast


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """What lies below a folder, as the system says: file system, block device, whether it turns."""

    file_system: str
    device: str
    is_rotating: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Flushes of one block each per second, their times in seconds, and bytes per second in large pieces."""

    flushes: int
    flushes_per_s: float
    p50_s: float
    p99_s: float
    longest_s: float
    bytes_per_s: float


def measure(folder: Path, seconds: float, *, advance: Callable[[int], None]) -> Speed:
    """Measure for so many seconds, `advance` told the ms gone by. Raises RefusedError where nothing can be written."""
    path = folder / f"{_NAME}{os.getpid()}"
    for leftover in folder.glob(f"{_NAME}*"):  # of a run that was killed
        with suppress(OSError):
            leftover.unlink()
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for offset in range(0, _AREA, _PIECE):
                os.pwrite(file, bytes(_PIECE), offset)
            os.fdatasync(file)
            times = _flushes(file, seconds * 0.7, advance)
            speed = _stream(file, seconds * 0.3, advance)
        finally:
            os.close(file)
            path.unlink()
    except OSError as error:
        raise RefusedError(f"{folder}: cannot be written ({error.strerror}). Make room, or run as who may") from error
    times.sort()
    return Speed(
        flushes=len(times),
        flushes_per_s=len(times) / sum(times),
        p50_s=times[len(times) // 2],
        p99_s=times[len(times) * 99 // 100],
        longest_s=times[-1],
        bytes_per_s=speed,
    )


def _flushes(file: int, seconds: float, advance: Callable[[int], None]) -> list[float]:
    """How long each flush of one fresh block took. Contents differ, so that no card can save itself the work."""
    times: list[float] = []
    offset, told = 0, 0
    start = now = time.perf_counter()
    while now < start + seconds or not times:
        os.pwrite(file, os.urandom(_BLOCK), offset)
        began = time.perf_counter()
        os.fdatasync(file)
        now = time.perf_counter()
        times.append(now - began)
        told = _tell(now - start, told, advance)
        offset = (offset + _BLOCK) % _AREA
    return times


def _stream(file: int, seconds: float, advance: Callable[[int], None]) -> float:
    """Bytes per second in pieces of a MiB, each flushed."""
    piece = os.urandom(_PIECE)
    done, told = 0, 0
    start = now = time.perf_counter()
    while now < start + seconds or not done:
        os.pwrite(file, piece, done % _AREA)
        os.fdatasync(file)
        done += _PIECE
        now = time.perf_counter()
        told = _tell(now - start, told, advance)
    return done / (now - start)


def _tell(gone_s: float, told_ms: int, advance: Callable[[int], None]) -> int:
    """Tell the whole ms since the last telling; return all told. A fast flush takes less than one, and many add up."""
    gone_ms = int(gone_s * 1000)
    advance(gone_ms - told_ms)
    return gone_ms


def medium(folder: Path, *, system: Path = Path("/")) -> Medium:
    """What the system says of the medium below a folder; empty where it says nothing. `system` is the root to ask."""
    number = folder.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    file_system = ""
    with suppress(OSError):
        for line in (system / "proc/self/mountinfo").read_text().splitlines():
            fields, _, rest = line.partition(" - ")
            if fields.split()[2] == name:
                file_system = rest.split()[0]
    device, is_rotating = "", False
    with suppress(OSError):
        where = (system / "sys/dev/block" / name).resolve(strict=True)
        device = where.name
        queue = where / "queue" if (where / "queue").is_dir() else where.parent / "queue"
        is_rotating = (queue / "rotational").read_text().strip() == "1" and not device.startswith(("loop", "vd", "dm-"))
    return Medium(file_system=file_system, device=device, is_rotating=is_rotating)


def suspicion(found: Medium, speed: Speed) -> str | None:
    """Why the medium cannot have done what it says, if so. A clean record proves nothing: only a power cut does."""
    if found.file_system in _MEMORY:
        return f"{found.file_system} is memory: nothing here survives a power cut"
    if found.is_rotating and speed.p50_s < _ROTATING_S:
        kind, least = "a rotating disk", _ROTATING_S
    elif found.device.startswith("mmcblk") and speed.p50_s < _FLASH_CARD_S:
        kind, least = "a flash card", _FLASH_CARD_S
    elif speed.p50_s < _DISK_S:
        kind, least = "any disk", _DISK_S
    else:
        return None
    return (
        f"a flush takes {speed.p50_s * 1000:.3f} ms, and no {kind.split(' ', 1)[1]} does that in less than"
        f" {least * 1000:g} ms: a cache answers in its place. What is told as stored may be lost at a power cut;"
        " turn its write cache off, or take another medium"
    )


def advice(speed: Speed) -> float:
    """The shortest sensible commit interval in seconds: even slow flushes take a twentieth of the time at most."""
    return next((s for s in _INTERVALS if speed.p99_s <= s * _SHARE), _INTERVALS[-1])
