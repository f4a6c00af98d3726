"""Messages, events and audit entries beside batches: the same numbers, the same promises, and they come back equal."""

import asyncio
import signal
import subprocess
import sys

import pytest

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.spool.record import Message, Note

NOW = 1_795_330_000_000

CONTENTS = [
    ("message", Message("plant7/boiler", b'{"flow":1.5}', 1, False, NOW)),
    ("message", Message("a/ä/€", bytes(range(256)), 2, True, NOW + 1, b"\x26\x00\x01k\x00\x01v")),
    ("message", Message("empty", b"", 0, True, NOW + 2)),
    ("event", Note(NOW + 3, "clock", {"boot_id": "x", "offset_ms": -5})),
    ("event", Note(NOW + 4, "empty", {})),
    (
        "audit",
        Note(NOW + 5, "write", {"tag": "pump", "value": True, "by": ["é", None, 1.5], "old": {"a": {"b": 2**63}}}),
    ),
]


async def appended(bench, queue):
    """A batch, one of each kind, and a batch again; gives their numbers."""
    numbers = [queue.append(bench.batch(1))]
    numbers += [queue.add(content, kind) for kind, content in CONTENTS]
    numbers.append(queue.append(bench.batch(2)))
    await queue.durable()
    return numbers


def check(records):
    assert [r.kind for r in records] == ["batch", *(kind for kind, _ in CONTENTS), "batch"]
    assert [r.other for r in records[1:-1]] == [content for _, content in CONTENTS]
    assert [r.time for r in records[1:-1]] == [content.time for _, content in CONTENTS]
    assert all(r.batch is None and r.gap is None for r in records[1:-1])
    assert [r.seq for r in records] == list(range(records[0].seq, records[0].seq + len(records)))


def test_all_kinds_are_handed_out_from_memory_in_their_order(bench):
    async def main():
        async with bench.opened() as queue:
            cursor = queue.cursor("cloud")
            numbers = await appended(bench, queue)
            records = await bench.drain(queue, cursor)
            assert [r.seq for r in records] == numbers == list(range(1, len(CONTENTS) + 3))
            check(records)

    asyncio.run(main())


def test_all_kinds_come_back_equal_after_a_restart(bench):
    async def main():
        async with bench.opened() as queue:
            queue.cursor("cloud")
            await appended(bench, queue)
        async with bench.opened() as queue:
            check(await bench.drain(queue, queue.cursor("cloud")))

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(4))
def test_all_kinds_that_were_called_durable_survive_a_power_cut(bench, make_disk, seed):
    async def main():
        disk = make_disk()
        queue = await bench.open(disk)
        queue.cursor("cloud")
        await appended(bench, queue)
        for kind, content in CONTENTS:
            queue.add(content, kind)  # these may be lost
        bench.abandon(queue)
        async with bench.opened(disk.crash(seed)) as queue:
            check((await bench.drain(queue, queue.cursor("cloud")))[: len(CONTENTS) + 2])

    asyncio.run(main())


PROGRAM = """
import asyncio, sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.spool.record import Message, Note

async def main(folder):
    limits = Limits(commit_interval_s=0.002, max_bytes=64 << 20)
    queue = await Queue.open(Path(folder), limits, clock=SystemClock(), metrics=Metrics(), segment_size=65536)
    queue.cursor("cloud")
    n = 0
    while True:
        for _ in range(10):
            n += 1
            queue.add(Message(f"t/{n}", b"p%d" % n, 1, False, n), "message")
            queue.add(Note(n, "e", {"n": n}), "event")
            queue.add(Note(n, "a", {"n": n}), "audit")
        await queue.durable()
        print(n, flush=True)

asyncio.run(main(sys.argv[1]))
"""


def test_sigkill_takes_no_kind_that_was_called_durable(tmp_path):
    folder = tmp_path / "spool"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(40):
            said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said = int((process.stdout.read().split() or [said])[-1])
    records = asyncio.run(read(folder))
    whole = [
        (kind, content)
        for n in range(1, said + 1)
        for kind, content in (
            ("message", Message(f"t/{n}", b"p%d" % n, 1, False, n)),
            ("event", Note(n, "e", {"n": n})),
            ("audit", Note(n, "a", {"n": n})),
        )
    ]
    assert [(r.kind, r.other) for r in records][: len(whole)] == whole


async def read(folder):
    limits = Limits(max_bytes=64 << 20)
    queue = await Queue.open(folder, limits, clock=SystemClock(), metrics=Metrics(), segment_size=65536)
    cursor, found = queue.cursor("cloud"), []
    while (records := queue.take(cursor, 1000)) is None or records:
        if records is None:
            await queue.fetch(cursor, 1000)
        else:
            found += records
    await queue.close()
    return found


def test_the_memory_of_messages_counts_and_what_is_too_much_leaves_a_gap(bench):
    async def main():
        queue = await bench.open(ram_bytes=100_000, commit_interval_s=3600.0)
        cursor = queue.cursor("cloud")
        for n in range(100):
            queue.add(Message("t", bytes(4000), 1, False, NOW + n), "message")
        for n in range(10):
            queue.add(Note(NOW + n, "n", {"text": "x" * 4000}), "event")
        assert queue.status().ram_bytes <= 100_000
        first, *others = await bench.drain(queue, cursor, commit=False)
        assert first.gap.cause == "memory"
        assert first.gap.first_time == NOW
        assert first.gap.count + len(others) == 110
        assert 10 < len(others) < 30
        bench.abandon(queue)

    asyncio.run(main())


def test_with_nobody_to_read_no_kind_is_kept(bench):
    async def main():
        async with bench.opened() as queue:
            assert [queue.add(content, kind) for kind, content in CONTENTS] == list(range(1, len(CONTENTS) + 1))
            assert queue.status().ram_bytes == 0

    asyncio.run(main())
