"""The payload of frames of format 1, read only: one JSON object.

    {"groups": ["<hash, 16 hex>", ...],  definitions the records below refer to; they lie in the frame's dictionary
     "records": [
       [seq, age, group, time, values],                                            a batch, dense, all good
       [seq, age, group, time, values, quality, index, times, wrapped],            any other batch
       [seq, age, -1, [first_seq, last_seq, first_time, last_time, count, cause]]  a gap
     ]}

`seq` counts from the frame's first seq; `age` is how many ms before the frame's anchor the record was appended; `group`
is a position in `groups`. Values of a `wrapped` batch are wrapped as `objects` tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from gateway.journal.frame import Head
from gateway.model import Batch, Definition
from gateway.spool.objects import unwrap
from gateway.spool.record import Gap, Record, Regime, gap_record, quality_of

_GAP = -1


def decode(
    head: Head, payload: bytes, lookup: Callable[[bytes], Definition | None], regime: Regime | None
) -> list[Record]:
    """The records of a frame; see `payload.decode`.

    Raises ValueError, KeyError, TypeError, IndexError or RecursionError on anything that format 1 did not write.
    """
    epoch = head.epoch
    document = orjson.loads(payload)
    groups = [lookup(bytes.fromhex(key)) for key in document["groups"]]
    records = []
    for row in document["records"]:
        seq = head.first_seq + row[0]
        if row[2] >= 0:
            group = groups[row[2]]
            if group is None:
                records.append(gap_record(Gap(seq, seq, row[3], row[3], 1, "damaged"), epoch, regime))
            else:
                records.append(Record(seq, epoch, _rebuilt(group, row), regime=regime))
        elif row[2] == _GAP:
            records.append(gap_record(Gap(*row[3]), epoch, regime))
    return records


def _rebuilt(group: Definition, row: list[Any]) -> Batch:
    if len(row) == 5:
        return Batch(group, row[3], row[4])
    _, _, _, time, values, quality, index, times, wrapped = row
    if wrapped:
        values = [unwrap(v) for v in values]
    known = quality_of(quality) if isinstance(quality, str) else [quality_of(q) for q in quality]
    return Batch(group, time, values, known, index, times)
