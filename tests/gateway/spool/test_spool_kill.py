"""A real process on a real folder is killed with SIGKILL again and again: nothing it called durable is missing."""

import asyncio
import signal
import subprocess
import sys
from itertools import pairwise

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue

PROGRAM = """
import asyncio, sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue

async def main(folder, n):
    limits = Limits(commit_interval_s=0.002, max_bytes=64 << 20)
    spool = await Queue.open(Path(folder), limits, clock=SystemClock(), metrics=Metrics(), segment_size=65536)
    group = Definition("pump", ("n",), ("uint32",), ("",), (None,))
    cursor = spool.cursor("cloud")
    while True:
        for _ in range(20):
            n += 1
            spool.append(Batch(group, 0, [n]))
        await spool.durable()
        print(n, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_sigkill_takes_nothing_that_was_called_durable(tmp_path):
    folder, said = tmp_path / "spool", 0
    for round_ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(said + 1000)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(5 + 7 * round_):
            said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said = int((process.stdout.read().split() or [said])[-1])
        process.wait()
        process.stdout.close()
        found = asyncio.run(read(folder))
        assert found[-1] >= said
        assert found == sorted(set(found))
        holes = [(a, b) for a, b in pairwise(found) if b != a + 1]
        assert len(holes) == round_, "each start skips some on purpose, and nothing else is missing"


async def read(folder):
    limits = Limits(max_bytes=64 << 20)
    spool = await Queue.open(folder, limits, clock=SystemClock(), metrics=Metrics(), segment_size=65536)
    cursor, found = spool.cursor("cloud"), []
    while True:
        records = spool.take(cursor, 1000)
        if records is None:
            await spool.fetch(cursor, 1000)
        elif records:
            assert all(r.gap is None for r in records)
            found += [r.batch.values[0] for r in records]
        else:
            break
    await spool.close()
    return found
