"""What a test of the spool needs again and again."""

import asyncio
import random
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from functools import cache

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue


class InlineExecutor(Executor):
    """A writer thread that is none: work is done at once, so that virtual time and the disk agree."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as a real executor does
            future.set_exception(error)
        return future


@cache
def heavy(n, size):
    return random.Random(n).randbytes(size // 2).hex()


class Bench:
    """Opens spools on one folder, makes batches, and reads cursors empty."""

    segment_size = 64 * 1024

    def __init__(self, folder):
        self.folder = folder
        self.group = Definition("pump", ("flow", "state"), ("float32", "uint16"), ("m3/h", ""), (None, None))
        self.texts = Definition("pump", ("text", "state"), ("string", "uint16"), ("", ""), (None, None))
        self.clock = SystemClock()
        self.metrics = Metrics()
        self.writing = self.reading = None

    def batch(self, n, *, size=0):
        """The batch number `n`; `size` makes it that many bytes heavier, and hard to compress."""
        if not size:
            return Batch(self.group, 1_795_330_000_000 + n, [float(n), n])
        return Batch(self.texts, 1_795_330_000_000 + n, [heavy(n, size), n])

    @asynccontextmanager
    async def opened(self, disk=None, **limits):
        spool = await self.open(disk, **limits)
        try:
            yield spool
        finally:
            await spool.close()

    async def open(self, disk=None, **limits):
        defaults = {"commit_interval_s": 0.01, "max_bytes": 64 << 20}
        return await Queue.open(
            self.folder,
            Limits(**(defaults | limits)),
            clock=self.clock,
            metrics=self.metrics,
            disk=disk,
            segment_size=self.segment_size,
            writing=self.writing,
            reading=self.reading or self.writing,
        )

    def abandon(self, spool):
        """What is left of a process that was killed: nothing more is written, and its lock is free."""
        spool._committer._is_closing = True
        spool._committer._silence()
        spool._timekeeper.stop()
        spool._store.release()

    async def drain(self, spool, cursor, *, commit=True):
        """All records that are there, without waiting for new ones."""
        found = []
        while True:
            records = spool.take(cursor, 100)
            if records:
                found += records
                if commit:
                    spool.commit(cursor, records[-1].seq)
            elif records is None:
                await spool.fetch(cursor, 100)
            else:
                return found

    @staticmethod
    def numbers(records):
        """The second value of each batch; a gap as its cause and what it covers."""
        return [
            r.batch.values[1] if r.batch is not None else (r.gap.cause, r.gap.first_seq, r.gap.last_seq, r.gap.count)
            for r in records
        ]

    @staticmethod
    async def until(condition, what, seconds=10):
        """Wait for a condition, with a deadline."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, f"waited in vain for: {what}"
            await asyncio.sleep(0.001)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "spool")


@pytest.fixture
def virtual_bench(tmp_path, virtual_clock):
    """A bench on virtual time, for use inside `run_virtual`."""
    bench = Bench(tmp_path / "spool")
    bench.clock = virtual_clock
    bench.writing = InlineExecutor()
    return bench


@pytest.fixture
def work(virtual_bench, virtual_clock, virtual_loop, make_disk, simulated, proof, machine):
    """`work(examples=…, steps=…, persist=…)` lets the machine work so many queues."""

    def make_plant(**limits):
        plant = proof.Plant(virtual_bench, make_disk(), proof.Witness("evicted", "memory"), **limits)
        plant.torn = lambda: simulated.TornError(5, "input/output error")
        plant.refused = lambda: OSError(5, "input/output error")
        return plant

    def run(*, examples, steps, persist="on_age", is_random=False, phases=tuple(Phase)):
        with asyncio.Runner(loop_factory=virtual_loop) as runner:
            virtual_clock.now = runner.get_loop().time
            run_state_machine_as_test(
                lambda: machine.Machine(make_plant, runner, persist),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    derandomize=not is_random,
                    database=None,
                    phases=phases,
                    suppress_health_check=list(HealthCheck),
                ),
            )

    return run
