"""Records: what the spool keeps, and what it says where it could not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from gateway.model import GOOD, Batch, Quality

Cause = Literal["evicted", "refused", "thinned", "memory", "damaged", "overtaken", "too large"]
Kind = Literal["batch", "gap", "message", "event", "audit"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that are lost: from `first_seq` to `last_seq`, `count` of them. Times in ms, 0 where not known.

    Causes: `evicted` to keep within `max_bytes`; `refused` for the same reason, where the older ones matter more;
    `thinned`, so that of some only the remarkable values are left; dropped from `memory` while the disk failed;
    `damaged` on the disk; `overtaken`, by a cursor that holds nothing; `too large` for the disk.
    """

    first_seq: int
    last_seq: int
    first_time: int
    last_time: int
    count: int
    cause: Cause

    def after(self, seq: int) -> Gap:
        """The part above `seq`."""
        if seq < self.first_seq:
            return self
        return replace(self, first_seq=seq + 1, count=min(self.count, self.last_seq - seq))

    def joined(self, later: Gap) -> Gap:
        """This gap and one that follows it, as one."""
        return replace(
            self,
            last_seq=later.last_seq,
            first_time=self.first_time or later.first_time,
            last_time=later.last_time or self.last_time,
            count=self.count + later.count,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """Any MQTT message, kept as it came: published under its own topic. `time` is when it came, wall ms.

    `properties` is the MQTT 5 property field of its PUBLISH without the length in front, empty where there are none.
    """

    topic: str
    payload: bytes
    qos: Literal[0, 1, 2]
    retain: bool
    time: int
    properties: bytes = b""


@dataclass(frozen=True, slots=True)
class Note:
    """An event or an audit entry: something that happened at `time` (wall ms), by name, with JSON-able details."""

    time: int
    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Regime:
    """A stretch of a machine's boot during which wall time ran `offset` ms ahead of monotonic time, not synchronised.

    `is_plausible`: the clock at least did not show a time that has been before.
    """

    boot_id: bytes
    offset: int
    is_plausible: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the spool, unique by (epoch, seq): a batch, or in its place what `other` says.

    `regime`: the clock it was taken by, None for one that was synchronised. `is_thinned`: its batch was denser once.
    """

    seq: int
    epoch: str
    batch: Batch | None
    kind: Kind = "batch"
    other: Gap | Message | Note | None = None
    regime: Regime | None = None
    is_thinned: bool = False

    @property
    def gap(self) -> Gap | None:
        """The gap, where that is what it is."""
        return self.other if isinstance(self.other, Gap) else None

    @property
    def time(self) -> int:
        """Wall time in ms: the batch's, or the last known one of the gap."""
        if self.batch is not None:
            return self.batch.time
        if isinstance(self.other, Gap):
            return self.other.last_time
        return self.other.time if self.other is not None else 0


def gap_record(gap: Gap, epoch: str, regime: Regime | None = None) -> Record:
    """The record that stands for a gap; it bears the number of the last record lost, and the clock of its times."""
    return Record(gap.last_seq, epoch, None, "gap", gap, regime)


@lru_cache(maxsize=1024)
def quality_of(text: str) -> Quality:
    """The quality of that text as it was stored; the good one is the very object that others compare with."""
    return GOOD if text == GOOD else Quality(text)
