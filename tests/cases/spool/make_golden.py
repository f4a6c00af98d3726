"""Makes a golden store: `python make_golden.py NAME` writes NAME.zip and NAME.json beside itself.

NAME is format-1, format-2 and so on, or history: the store of format 2 with what it can hold since there is history.
Run it once, with the code that writes that format, and keep what it made for ever: later versions must read it. The
JSON tells what the store holds: `stored` are all records in their frames, `cursors` the numbers and kinds of what each
uplink is still owed. Values stand in it as JSON where that is exact, else as {"float": bits in hex}, {"int": decimal},
{"bytes": hex}, {"text": JSON escapes}, {"long": SHA-256 of a long text}, {"list": [...]} and {"object": [[key, value],
...]}.
"""

import asyncio
import json
import math
import random
import secrets
import shutil
import struct
import sys
import tempfile
import zipfile
from hashlib import sha256
from itertools import chain
from pathlib import Path

from gateway.journal.disk import FolderDisk
from gateway.journal.segment import Scanner, Segment, Tally
from gateway.metrics import Metrics
from gateway.model import GOOD, Batch, Definition, Quality, bad, uncertain
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue

try:
    from gateway.spool.payload import decode
except ImportError:  # format 1
    from gateway.spool.record import decode

SEGMENT_SIZE = 64 * 1024
STARTS = 2
NAN = struct.unpack(">d", bytes.fromhex("7ff8000000000123"))[0]


class Clock:
    """Stands at 1970 during the first start, and is synchronised in the second."""

    boot_id = "5f2c1e0a-9c1b-4c57-8d54-0123456789ab"

    def __init__(self, start):
        self.start = start
        self.ticks = 0

    def wall_ms(self):
        return (90_000 if self.start == 0 else 1_795_330_000_000) + self.ticks

    def monotonic(self):
        self.ticks += 1
        return 60 + 1000 * self.start + self.ticks / 1000

    def state(self):
        return ("unsynced", "synced")[self.start]


PUMP = Definition(
    "pump",
    ("flow", "level", "state", "running", "total", "offset"),
    ("float32", "float64", "uint16", "bool", "uint64", "int64"),
    ("m3/h", "m", "", "", "m3", ""),
    (None, 2, None, None, None, None),
    {"site": "north"},
)
TEXTS = Definition("plc", ("name", "blob", "list", "any"), ("string", "bytes", "json", "json"), ("",) * 4, (None,) * 4)
WIDE = Definition("meter", tuple(f"line/v{i}" for i in range(40)), ("float64",) * 40, ("V",) * 40, (None,) * 40)


def batches(start):
    """Some of everything, in order."""
    draw = random.Random(start)
    time = Clock(start).wall_ms()
    f32 = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    for n in range(12):
        time += 1000
        yield Batch(PUMP, time, [f32 + n, draw.gauss(5, 1), n % 3, n % 2 == 0, 2**64 - 1 - n, -n])
        yield Batch(WIDE, time, [draw.gauss(230, 5) for _ in range(40)])
    yield Batch(PUMP, time, [NAN, math.inf, 7, None, 2**70, -(2**63)], uncertain("nan"))
    yield Batch(PUMP, time, [None] * 6, bad("timeout"))
    qualities = [GOOD, bad("exception:2"), GOOD, uncertain("range"), GOOD, Quality("bad:odd")]
    yield Batch(PUMP, time, [1.5, None, 3, True, 5, -6], qualities)
    yield Batch(PUMP, time, [-0.0, 5e-324], GOOD, [0, 1], [time - 5, time + 7])
    yield Batch(PUMP, time, [9, False], [GOOD, bad("stale")], [2, 3])
    yield Batch(PUMP, time, [], GOOD, [])
    yield Batch(TEXTS, time, ["grün ☃ 😀", b"\x00\xff", [1, [2.5, None], {"a": "b"}], {"o": NAN, "": [b"x"]}])
    yield Batch(TEXTS, time, ["\ud800 broken", b"", [], 10**30])
    yield Batch(TEXTS, time, ["", "not bytes", True, None])
    for n in range(3):  # more than a segment holds, so that there are several
        yield Batch(TEXTS, time + n, [draw.randbytes(9000).hex(), n], GOOD, [0, 3])
    yield Batch(WIDE, time, [230.0 + n for n in range(40)], GOOD, None, [time - n for n in range(40)])


def later(start):
    """What came into format 2 when it had been there for a while: history, and a server's times beside a source's."""
    time = Clock(1).wall_ms()
    for n in range(4):
        at = time - 3_600_000 + 1000 * n
        yield Batch(PUMP, at, [0.5 + n, n], GOOD, [0, 2], [at, at - 40], None, [at + 3, 0], is_history=True)
        yield Batch(PUMP, time + n, [1.5 + n, 5.0], Quality("good:GoodClamped"), [0, 1], None, None, [time + n, 0])
        yield Batch(WIDE, time + n, [230.0 + n] * 40, GOOD, None, [time - n - k for k in range(40)])
        served = [time - k for k in range(40)]
        yield Batch(WIDE, time + n, [231.0 + n] * 40, GOOD, None, [time - n] * 40, None, served)
    yield Batch(TEXTS, time, [None, start], bad("BadSensorFailure"), [0, 3], None, None, None, is_history=True)


def others():
    """Records that are no batches; format 1 had none."""
    from gateway.spool.record import Message, Note

    time = Clock(1).wall_ms()
    yield "message", Message("site/a", b"\x00\n\xff", 1, retain=True, time=time, properties=b"\x01\x01")
    yield "message", Message("site/grün", b"", 0, retain=False, time=time + 1)
    yield "event", Note(time + 2, "clock set", {"by_s": math.inf, "from": [1, None, b"x"]})
    yield "audit", Note(time + 3, "write", {"tag": "pump/flow", "value": 2**70})


def exact(value):
    """A value in JSON that tells everything."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, str):
        return {"text": value} if len(value) < 1000 else {"long": sha256(value.encode()).hexdigest()}
    if isinstance(value, list):
        return {"list": [exact(v) for v in value]}
    return {"object": [[exact(k), exact(v)] for k, v in value.items()]}


def told(record):
    """A record in JSON."""
    row = {"seq": record.seq, "epoch": record.epoch, "kind": record.kind}
    if record.batch is not None:
        batch = record.batch
        row |= {
            "device": batch.group.device,
            "names": list(batch.group.names),
            "time": batch.time,
            "values": [exact(value) for value in batch.values],
            "quality": batch.quality if isinstance(batch.quality, str) else list(batch.quality),
            "index": None if batch.index is None else list(batch.index),
            "times": None if batch.times is None else list(batch.times),
        }
        row |= {"history": True} if getattr(batch, "is_history", False) else {}
        served = getattr(batch, "server_times", None)
        row |= {} if served is None else {"server_times": list(served)}
    elif record.gap is not None:
        gap = record.gap
        row |= {"first_seq": gap.first_seq, "last_seq": gap.last_seq, "count": gap.count, "cause": gap.cause}
        row |= {"first_time": gap.first_time, "last_time": gap.last_time}
    elif record.kind == "message":
        message = record.other
        row |= {"time": message.time, "topic": message.topic, "qos": message.qos, "retain": message.retain}
        row |= {"payload": exact(message.payload), "properties": exact(message.properties)}
    else:
        row |= {"time": record.time, "name": record.other.name, "fields": exact(record.other.fields)}
    return row


async def opened(folder, start):
    limits = Limits(commit_interval_s=3600, max_bytes=1 << 20, commit_bytes=16 << 10)
    return await Queue.open(folder, limits, clock=Clock(start), metrics=Metrics(), segment_size=SEGMENT_SIZE)


async def fill(folder, batches):
    """Two starts. `cloud` has acknowledged a part of the first, `tap` holds nothing."""
    for start in range(STARTS):
        queue = await opened(folder, start)
        cloud = queue.cursor("cloud")
        queue.cursor("tap", holds=False)
        if start == 1 and hasattr(queue, "add"):  # since format 2
            for kind, content in others():
                queue.add(content, kind)
        for n, batch in enumerate(batches(start)):
            seq = queue.append(batch)
            if n % 5 == 4:
                await queue.durable()
            if start == 0 and n == 9:
                queue.commit(cloud, seq - 3)
        if start == 0:
            queue.append(Batch(TEXTS, 91_000, [random.Random(9).randbytes(80_000).hex(), 1], GOOD, [0, 3]))
        await queue.close()


def stored(folder):
    """All records of all frames, oldest first."""
    disk = FolderDisk(folder)
    found, known = [], {}
    for name in sorted(disk.names()):
        if not name.endswith(".seg"):
            continue
        segment = Segment(int(name[:16], 16), SEGMENT_SIZE, SEGMENT_SIZE)
        scanner = Scanner(disk, Tally())
        file = disk.open(name)
        for head in scanner.heads(file, segment):
            body = scanner.load(file, segment, head)
            known |= {key: Definition.from_document(entry) for key, entry in body.entries.items()}
            found += [told(record) for record in decode(head, body.payload, known.get)]
        disk.close(file)
    return found


async def owed(folder, name):
    """What a cursor is handed at the next start."""
    queue = await opened(folder, STARTS - 1)
    cursor = queue.cursor(name, holds=name == "cloud")
    found = []
    while True:
        records = queue.take(cursor, 1000)
        if records is None:
            await queue.fetch(cursor, 1000)
        elif not records:
            break
        else:
            found += records
    await queue.close()
    return [[record.seq, record.epoch, record.kind] for record in found]


def main():
    name = sys.argv[1]
    content = batches if name.startswith("format-") else lambda start: chain(batches(start), later(start))
    here = Path(__file__).parent
    secrets.randbits = lambda bits: 0x9F31C2
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "spool"
        asyncio.run(fill(folder, content))
        (folder / "lock").unlink(missing_ok=True)
        with zipfile.ZipFile(here / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.iterdir()):
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)
        expected = {"stored": stored(folder), "cursors": {}}
        for cursor in ("cloud", "tap"):
            copy = Path(temporary) / cursor
            shutil.copytree(folder, copy)
            expected["cursors"][cursor] = asyncio.run(owed(copy, cursor))
        (here / f"{name}.json").write_text(json.dumps(expected, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
