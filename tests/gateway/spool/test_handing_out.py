"""Handing out, while the writer gives up what is being read: that is told of as given up, at once and without fail."""

import asyncio
from concurrent.futures import Executor, Future

import pytest

LIMITS = {"commit_interval_s": 1.0, "max_bytes": 4 * 32 * 1024 + 128 * 1024, "ram_bytes": 200_000}


class SlowExecutor(Executor):
    """Does its work at once, and while `is_slow` does not say so before it is told to `finish`."""

    def __init__(self):
        self.is_slow = False
        self.unsaid = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        result = fn(*args, **kwargs)
        if self.is_slow:
            self.unsaid.append((future, result))
        else:
            future.set_result(result)
        return future

    def finish(self):
        self.is_slow = False
        for future, result in self.unsaid:
            future.set_result(result)
        self.unsaid.clear()


class MeanwhileExecutor(SlowExecutor):
    """A reading thread that is held up: of what it is asked first, until something else is done."""

    meanwhile = None

    def submit(self, fn, /, *args, **kwargs):
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
def bench(virtual_bench):
    virtual_bench.segment_size = 32 * 1024
    virtual_bench.writing, virtual_bench.reading = SlowExecutor(), MeanwhileExecutor()
    return virtual_bench


async def fill(plant, rounds):
    """Each round takes a segment."""
    for _ in range(rounds):
        for _ in range(4):
            plant.append(9000)
        await plant.sleep(1.1)


async def fill_up(plant):
    """Until the next segment takes the place of the oldest."""
    while plant.queue._store.writer.left(0):
        await fill(plant, 1)
    assert not plant.queue.status().evicted


async def read_while_it_fills(plant, *, is_slow):
    """What the cursor gets while a segment more is written; where `is_slow`, the writer does not come to an end."""

    def write_more():
        plant.bench.writing.is_slow = is_slow
        for _ in range(4):
            plant.append(9000)
        plant.queue._committer.urge(plant.queue.head)

    plant.bench.reading.meanwhile = write_more
    found = await asyncio.wait_for(plant.read("cloud"), 60)
    assert bool(plant.bench.writing.unsaid) == is_slow
    plant.bench.writing.finish()
    await plant.sleep(1.1)
    assert plant.queue.status().evicted == 4, "counted once"
    return [(r.gap.cause, r.gap.count) for r in found if r.gap is not None], sum(r.gap is None for r in found)


@pytest.mark.parametrize("is_slow", [False, True], ids=["told", "not told yet"])
def test_what_is_given_up_while_it_is_read_is_not_told_of_as_damaged(bench, make_disk, proof, run_virtual, is_slow):
    async def main():
        plant = proof.Plant(bench, make_disk(), proof.Witness("evicted"), **LIMITS)
        await plant.open(cloud=True)
        await fill_up(plant)
        gaps, count = await read_while_it_fills(plant, is_slow=is_slow)
        assert gaps == [("evicted", 4)]
        assert count == len(plant.witness.seqs) - 4
        plant.kill()

    run_virtual(main())


@pytest.mark.parametrize("is_slow", [False, True], ids=["told", "not told yet"])
def test_what_is_given_up_of_an_earlier_start_while_it_is_read_is_told_of(
    bench, make_disk, proof, run_virtual, is_slow
):
    """Between two starts numbers may be missing without a word: here they may not."""

    async def main():
        plant = proof.Plant(bench, make_disk(), proof.Witness("evicted"), **LIMITS)
        await plant.open(cloud=True)
        await fill(plant, 1)
        await plant.close()
        await plant.open(cloud=True)
        await fill_up(plant)
        gaps, count = await read_while_it_fills(plant, is_slow=is_slow)
        assert gaps == [("evicted", 4)]
        assert count == len(plant.witness.seqs) - 4
        plant.kill()

    run_virtual(main())
