"""The process that a selftest kills: appends records and says which of them are durable, until it is dead.

Run as `python -m gateway.upkeep.trial_writer FOLDER N`: the first record bears number N. Says one line for each burst,
`<number of its last record>`, after `durable()` returned and not before.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue

UPLINK = "selftest"
SEGMENT_SIZE = 256 * 1024
LIMITS = Limits(max_bytes=1 << 30, commit_interval_s=0.005, persist="always", min_free_bytes=0)
"""Far more than a trial writes: nothing is given up for want of room."""

_BURST = 25
_GROUP = Definition(
    "selftest", ("number", "text", "wave"), ("uint64", "string", "float64"), ("", "", "V"), (None, None, None)
)


def batch(number: int) -> Batch:
    """The record of that number: the same in the process that writes it and in the one that checks it."""
    wave = (number * 2654435761 % (1 << 32)) / 7
    return Batch(_GROUP, 1_700_000_000_000 + number, [number, f"{wave:x<200}" if number % 3 else None, wave])


async def main(folder: Path, number: int) -> None:
    """Append for ever. Whoever started us ends us, or has gone himself."""
    parent = os.getppid()
    queue = await Queue.open(
        folder, LIMITS, clock=SystemClock(), metrics=Metrics(), segment_size=SEGMENT_SIZE, record_class="data"
    )
    queue.cursor(UPLINK)
    while os.getppid() == parent:
        for _ in range(_BURST):
            queue.append(batch(number))
            number += 1
        await queue.durable()
        sys.stdout.write(f"{number - 1}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
