"""Wall time, monotonic time, boot id, and whether the clock is synchronised. The one room that reads a clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, Protocol

ClockState = Literal["synced", "unsynced"]

RELEASED_MS = 1_793_491_200_000
"""Wall time is later than this, 2026-11-01: this program did not exist before. Moved on with each release."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIMESYNC_FLAG = Path("/run/systemd/timesync/synchronized")
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class Clock(Protocol):
    """What other rooms may ask about time. Tests pass one that they move by hand."""

    @property
    def boot_id(self) -> str:
        """Identity of this boot of the machine, stable until the next one."""
        ...

    def wall_ms(self) -> int:
        """Wall time, ms since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, counted through suspend where the system can (CLOCK_BOOTTIME)."""
        ...

    def state(self) -> ClockState:
        """Whether wall time can be believed."""
        ...


class SystemClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        try:
            self.boot_id = _BOOT_ID.read_text().strip()
        except OSError:  # not Linux, or a sandbox without /proc: one id for this process is the honest answer
            self.boot_id = f"process-{time.time_ns():x}"
        self._source = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def wall_ms(self) -> int:
        """Wall time, ms since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.clock_gettime(self._source)

    def state(self) -> ClockState:
        """`synced` when timesyncd says so or the kernel clock is disciplined (adjtimex(2) is not TIME_ERROR)."""
        if _TIMESYNC_FLAG.exists():
            return "synced"
        return "synced" if 0 <= _adjtimex() < _TIME_ERROR else "unsynced"


def _adjtimex() -> int:
    """The kernel's clock state by adjtimex(2) with modes 0, which reads and changes nothing; -1 where it refuses."""
    import ctypes  # noqa: PLC0415 - a megabyte, and only needed where no time service leaves its flag

    buffer = ctypes.create_string_buffer(512)  # struct timex is 208 bytes on 64-bit Linux, 128 on 32-bit
    try:
        return int(ctypes.CDLL(None, use_errno=True).adjtimex(buffer))
    except (OSError, AttributeError):  # no libc with adjtimex: we cannot know, so we do not claim
        return _TIME_ERROR
