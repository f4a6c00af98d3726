"""One life of a queue, short and with all that can happen in it; and the judgement of what is left of it afterwards."""

import contextlib

LIMITS = {"commit_interval_s": 1.0, "max_bytes": 4 * 32 * 1024 + 128 * 1024, "ram_bytes": 60_000}
SEGMENT = 32 * 1024
HOLDERS = ("fast", "slow", "late")


class Off(Exception):  # noqa: N818 - no error: the power is gone
    """The machine is off; go on with what it left."""


async def live(plant):
    """Appends of all kinds, commits, three cursors, backlog, eviction, an orderly and a sudden restart, forgetting."""
    plant.bench.segment_size = SEGMENT
    await plant.open(fast=True, slow=True, guest=False)
    await rounds(plant, 3, size=0)  # small batches of every shape: one frame each round
    plant.rewind("slow")
    await rounds(plant, 6, size=4000)  # rolls over segments, which the fast one lets go and the slow one holds
    await plant.close()
    check_power(plant)

    await plant.open(fast=True, slow=True, guest=False)
    await plant.read("slow", 5)
    plant.ack("slow", plant.cursors["slow"].position)
    await rounds(plant, 9, size=6000)  # full: the oldest records of the slow one give way
    plant.cursor("late")
    plant.append(600)
    plant.append()
    await plant.sleep(1.5)
    plant.kill()

    await plant.open(fast=True, slow=True, late=True)
    await plant.read("late")
    await plant.read_and_ack("slow", behind=3)
    plant.forget("slow")
    await rounds(plant, 4, size=6000, holders=("fast", "late"))
    for name in ("fast", "late"):
        await plant.read_and_ack(name)
    await plant.sleep(61)  # nothing to do: the cursors are stored
    plant.append()
    await plant.close()
    check_power(plant)


async def rounds(plant, count, *, size, holders=("fast",)):
    """Each round four batches, half of the rounds waiting for durability and half of them for the interval."""
    for k in range(count):
        for i in range(4):
            plant.append(size if i else 0)
        if k % 2:
            await plant.durable()
        else:
            await plant.sleep(1.1)
        check_power(plant)
        for name in holders:
            await plant.read_and_ack(name, behind=2)
        if "guest" in plant.cursors:
            await plant.read_and_ack("guest")


def check_power(plant):
    if plant.disk.is_off:
        raise Off


async def survive(plant):
    """Live until the power fails, if it does."""
    with contextlib.suppress(Off):
        await live(plant)


async def judge(plant, *, seed=None, is_strict=True):
    """Restart, with the power cut before where `seed` says how: everybody gets what he is owed, and life goes on.

    Where not `is_strict` the power may fail again meanwhile.
    """
    if plant.queue is not None:
        plant.kill()
    plant.disk.repair()
    if seed is not None:
        plant.disk = plant.disk.crash(seed)
    names = [name for name in HOLDERS if name in plant.witness.views]
    await plant.open(**dict.fromkeys(names, True))
    for name in names:
        await plant.read(name)
    plant.append(100)
    is_durable = await plant.durable()
    if is_strict and not is_durable:
        raise AssertionError("a disk that works does not make anything durable")
    for name in names:
        await plant.read_and_ack(name)
    await plant.close()
