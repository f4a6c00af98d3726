"""The power fails at every operation of the disk in turn: what was durable is handed out, in order, at least once."""

import asyncio
import itertools

import pytest


class Witness:
    """What the outside world knows: what was called durable, and what the uplinks acknowledged."""

    def __init__(self):
        self.durable = 0
        self.acked = {"fast": 0, "slow": 0}
        self.appended = 0


async def work(bench, disk, witness, *, rounds):
    """Append, wait for durability, read, acknowledge; the slow uplink lags behind and disk segments go round."""
    spool = await bench.open(disk, commit_interval_s=60.0, max_bytes=bench.max_bytes, ram_bytes=30_000)
    try:
        fast, slow = spool.cursor("fast"), spool.cursor("slow")
        for _ in range(rounds):
            for _ in range(4):
                witness.appended += 1
                spool.append(bench.batch(witness.appended, size=1500))
            waiting = asyncio.ensure_future(spool.durable())
            while not waiting.done() and not disk.is_off:  # noqa: ASYNC110 - the disk knows no events
                await asyncio.sleep(0)
            if not waiting.done():
                waiting.cancel()
                return
            witness.durable = witness.appended
            for cursor, behind in ((fast, 0), (slow, bench.lag)):
                for record in await bench.drain(spool, cursor, commit=False):
                    if record.batch is not None and record.batch.values[1] <= witness.appended - behind:
                        witness.acked[cursor.name] = max(witness.acked[cursor.name], record.batch.values[1])
                        spool.commit(cursor, record.seq)
                cursor.rewind()
    finally:
        bench.abandon(spool)


async def verify(bench, disk, witness):
    async with bench.opened(disk, max_bytes=bench.max_bytes) as spool:
        for name, acked in witness.acked.items():
            records = await bench.drain(spool, spool.cursor(name))
            found = [r.batch.values[1] for r in records if r.batch is not None]
            lost = {n for r in records if r.gap is not None for n in range(r.gap.first_seq, r.gap.last_seq + 1)}
            assert found == sorted(set(found)), "in order, each once"
            missing = set(range(acked + 1, witness.durable + 1)) - set(found)
            assert missing <= (lost if bench.may_lose else set())
            causes = {r.gap.cause for r in records if r.gap is not None and r.gap.first_seq <= witness.durable}
            assert causes <= ({"evicted"} if bench.may_lose else set()), "nothing else is told of, nor falsely"
        return spool


def cut(bench, make_disk, cut_at, seed, rounds):
    disk, witness = make_disk(cut_at=cut_at, seed=seed), Witness()

    async def main():
        await work(bench, disk, witness, rounds=rounds)

    asyncio.run(main())
    return disk, witness


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.timeout(300)
def test_nothing_durable_is_lost_wherever_the_power_fails(virtual_bench, make_disk, seed):
    from gateway.clock import SystemClock

    bench = virtual_bench
    bench.clock, bench.lag, bench.may_lose, bench.max_bytes = SystemClock(), 60, False, 6 * 64 * 1024 + 131072
    for cut_at in itertools.count(1 + seed, 2):
        disk, witness = cut(bench, make_disk, cut_at, seed, rounds=60)
        if not disk.is_off:
            assert cut_at > 120
            break
        asyncio.run(verify(bench, disk.crash(seed + cut_at), witness))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.timeout(300)
def test_what_is_given_up_for_want_of_room_is_reported_wherever_the_power_fails(virtual_bench, make_disk, seed):
    from gateway.clock import SystemClock

    bench = virtual_bench
    bench.clock, bench.lag, bench.may_lose, bench.max_bytes = SystemClock(), 500, True, 3 * 64 * 1024 + 131072
    for cut_at in itertools.count(1 + 2 * seed, 4):
        disk, witness = cut(bench, make_disk, cut_at, seed, rounds=60)
        if not disk.is_off:
            assert cut_at > 120
            break
        asyncio.run(verify(bench, disk.crash(seed + cut_at), witness))


def test_the_witness_sees_a_disk_that_lies(virtual_bench, make_disk):
    from gateway.clock import SystemClock

    bench = virtual_bench
    bench.clock, bench.lag, bench.may_lose, bench.max_bytes = SystemClock(), 60, False, 6 * 64 * 1024 + 131072
    disk, witness = make_disk(cut_at=80), Witness()
    disk.liar = True

    async def main():
        await work(bench, disk, witness, rounds=60)

    asyncio.run(main())
    with pytest.raises(AssertionError):
        asyncio.run(verify(bench, disk.crash(1), witness))
