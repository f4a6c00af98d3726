"""A small gateway over the real spool, to be killed: appends, reads, acknowledges, and says each thing once it is so.

    spool_worker.py FOLDER FIRST PERSIST     until it is killed
    spool_worker.py FOLDER FIRST drain       reads what there is, acknowledges it, and stops

Lines on stdout, written at once: `D class n` durable up to n; `H cursor class epoch seq n` handed out;
`G cursor class first last cause` a gap; `K cursor class seq` about to be acknowledged.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.spool import Spool

CLASSES = ("alarm", "data")
GROUPS = {
    name: Definition("pump", ("n", "text"), ("uint32", "string"), ("", ""), (None, None), record_class=name)
    for name in CLASSES
}
LAGS = {("cloud", "alarm"): 1, ("cloud", "data"): 20, ("slow", "alarm"): 10, ("slow", "data"): 200}
TEXT = random.Random(1).randbytes(60_000).hex()


def say(lines):
    os.write(1, "".join(f"{line}\n" for line in lines).encode())


class Worker:
    def __init__(self, spool, n):
        self.spool = spool
        self.n = dict.fromkeys(CLASSES, n)
        self.dice = random.Random(n)
        self.cursors = {
            (name, kind): queue.cursor(name) for kind, queue in spool.queues.items() for name in ("cloud", "slow")
        }

    def append(self, kind):
        self.n[kind] += 1
        n = self.n[kind]
        at = n * 64 % 100_000
        self.spool.queues[kind].append(Batch(GROUPS[kind], 1_795_330_000_000 + n, [n, TEXT[at : at + n % 900]]))

    async def feed(self):
        """In bursts; half of them are waited for."""
        while True:
            for _ in range(self.dice.randrange(1, 40)):
                self.append("data")
            self.append("alarm")
            if self.dice.random() < 0.5:
                await self.spool.durable()
                say(f"D {kind} {self.n[kind]}" for kind in CLASSES)
            else:
                await asyncio.sleep(self.dice.random() * 0.03)

    async def drink(self, name, kind, lag):
        """Read on, and acknowledge all but the last `lag` records."""
        queue, cursor, recent = self.spool.queues[kind], self.cursors[name, kind], []
        while True:
            records = queue.take(cursor, 50)
            if records is None:
                await queue.fetch(cursor, 50)
                continue
            if not records:
                if lag == 0:
                    return
                await asyncio.sleep(0.01)
                continue
            say(line_of(name, kind, record) for record in records)
            recent += records
            if len(recent) > lag:
                seq = recent[len(recent) - lag - 1].seq
                recent = recent[len(recent) - lag :] if lag else []
                say([f"K {name} {kind} {seq}"])
                queue.commit(cursor, seq)
            await asyncio.sleep(0)


def line_of(name, kind, record):
    if record.gap is not None:
        return f"G {name} {kind} {record.gap.first_seq} {record.gap.last_seq} {record.gap.cause}"
    n, text = record.batch.values
    at = n * 64 % 100_000
    assert text == TEXT[at : at + n % 900]
    return f"H {name} {kind} {record.epoch} {record.seq} {n}"


async def main(folder, first, how):
    persist = "on_age" if how == "drain" else how
    limits = Limits(commit_interval_s=0.05, max_bytes=24 << 20, persist=persist, min_free_bytes=0)
    spool = await Spool.open(
        Path(folder),
        dict.fromkeys(("alarm", "event", "data", "diag"), limits),
        classes=CLASSES,
        clock=SystemClock(),
        metrics=Metrics(),
        clock_wait_s=0.0,
    )
    worker = Worker(spool, int(first))
    say(["S"])
    async with asyncio.TaskGroup() as group:
        if how != "drain":
            group.create_task(worker.feed())
        for name, kind in worker.cursors:
            lag = 0 if how == "drain" else LAGS[name, kind]
            group.create_task(worker.drink(name, kind, lag))
    await spool.close()


asyncio.run(main(*sys.argv[1:]))
