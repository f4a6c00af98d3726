"""What a queue may take, when it writes, and what gives way when it is full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Full: TypeAlias = Literal["drop_oldest", "drop_newest", "thin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one queue. Sizes in bytes, times in seconds.

    `max_bytes` of disk, `ram_bytes` of memory for records. A record that nobody has acknowledged is written when it is
    `commit_interval_s` old (`persist: on_age`), or every record is (`always`). A commit of more than `commit_bytes` is
    cut into several frames.

    Below `min_free_bytes` of the file system no new file is made, and what holds nothing needed is given back.

    What was acknowledged stays on the disk, as far as it was written, for `keep_s` and up to `keep_bytes`, whichever
    ends first (0: not asked for; both 0: its room is used again at once), and never longer than `max_bytes` allows.

    `full`: when there is no other room, the oldest records go (`drop_oldest`), or new ones are not taken
    (`drop_newest`), or of the oldest only the first, last, lowest and highest value of each tag per `thin_s` stay.
    """

    max_bytes: int = 1 << 30
    ram_bytes: int = 16 << 20
    commit_interval_s: float = 1.0
    commit_bytes: int = 256 << 10
    persist: Literal["on_age", "always"] = "on_age"
    min_free_bytes: int = 64 << 20
    keep_s: float = 0.0
    keep_bytes: int = 0
    full: Full = "drop_oldest"
    thin_s: float = 30.0
