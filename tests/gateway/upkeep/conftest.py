"""Stores as a gateway leaves them, made by the real queue on a real folder, and ways to hurt them."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.upkeep.folder import Part
from gateway.upkeep.survey import Seen, Survey

T0 = 1_795_330_000_000
SEGMENT = 64 * 1024


class Yard:
    """Makes a spool's folder. Record n was taken at T0 + n seconds."""

    t0 = T0

    def __init__(self, folder):
        self.folder = folder
        self.pump = Definition(
            "pump", ("flow", "state", "note"), ("float64", "uint16", "string"), ("m3/h", "", ""), (None, None, None)
        )

    def batch(self, n, *, weight=2400):
        return Batch(self.pump, T0 + 1000 * n, [n / 7, n % 65536, _noise(n, weight)])

    @asynccontextmanager
    async def opened(self, *, below="", segment_size=SEGMENT, **limits):
        defaults = {"commit_interval_s": 60.0, "max_bytes": 64 << 20, "min_free_bytes": 0}
        queue = await Queue.open(
            self.folder / below,
            Limits(**(defaults | limits)),
            clock=SystemClock(),
            metrics=Metrics(),
            segment_size=segment_size,
            record_class=below or "data",
        )
        try:
            yield queue
        finally:
            await queue.close()

    def fill(self, first, last, *, per_frame=4, uplinks=("cloud",), acknowledge=0, **limits):
        """One start of the store: records first to last, so many in a frame; the first uplink acknowledges some."""

        async def main():
            async with self.opened(**limits) as queue:
                cursors = [queue.cursor(name) for name in uplinks]
                start = None
                for n in range(first, last + 1):
                    seq = queue.append(self.batch(n))
                    start = start or seq
                    if (n - first + 1) % per_frame == 0:
                        await queue.durable()
                await queue.durable()
                if acknowledge:
                    queue.commit(cursors[0], start + acknowledge - 1)
                return start

        return asyncio.run(main())

    def survey(self, below=""):
        return Survey(Part(below or "data", self.folder / below))

    def heads(self, below=""):
        return [item.head for item in self.survey(below).walk() if isinstance(item, Seen)]

    def path_of(self, head):
        return self.folder / f"{head.segment:016x}.seg"

    def flip(self, head, at=200):
        """Flip a bit `at` bytes behind the start of a frame."""
        path = self.path_of(head)
        data = bytearray(path.read_bytes())
        data[head.offset + at] ^= 4
        path.write_bytes(data)

    def wipe(self, head):
        path = self.path_of(head)
        data = bytearray(path.read_bytes())
        data[head.offset : head.offset + head.extent] = bytes(head.extent)
        path.write_bytes(data)

    def bytes(self):
        """Every file of the folder with its content and time of change."""
        files = sorted(p for p in Path(self.folder).rglob("*") if p.is_file())
        return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def _noise(n, weight):
    state, text = n * 2654435761 + 1, []
    for _ in range(weight // 8):
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        text.append(f"{state >> 32:08x}")
    return "".join(text)


@pytest.fixture
def yard(tmp_path):
    return Yard(tmp_path / "spool")
