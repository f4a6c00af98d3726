"""A queue against a plain list, worked by a machine that thinks of anything; and what it has found so far."""

import errno

import pytest


@pytest.mark.parametrize("persist", ["on_age", "always"])
def test_a_queue_behaves_as_a_plain_list_would(work, persist):
    work(examples=60, steps=40, persist=persist)


@pytest.mark.long
@pytest.mark.parametrize("persist", ["on_age", "always"])
@pytest.mark.timeout(3000)
def test_a_queue_behaves_as_a_plain_list_would_for_a_long_time(work, persist):
    work(examples=2000, steps=60, persist=persist, is_random=True)


# --- what it has found ------------------------------------------------------------------------------------------------


@pytest.fixture
def plant(virtual_bench, make_disk, proof):
    virtual_bench.segment_size = 32 * 1024
    limits = {"commit_interval_s": 1.0, "max_bytes": 4 * 32 * 1024 + 128 * 1024, "ram_bytes": 60_000}
    return proof.Plant(virtual_bench, make_disk(), proof.Witness("evicted"), **limits)


async def fill(plant, rounds):
    for _ in range(rounds):
        for _ in range(4):
            plant.append(6000)
        await plant.sleep(1.1)


@pytest.mark.parametrize("offset", range(8))
def test_a_loss_is_told_of_when_the_power_fails_between_the_slots_and_the_recycling(plant, run_virtual, offset):
    """A second segment was noted as lost and not recycled yet: what is on the disk of it comes, the rest is told of."""

    async def main():
        await plant.open(cloud=True)
        await fill(plant, 12)
        await plant.read("cloud", 1)
        log = plant.disk.log
        seen = len(log)
        while not any(name == "slots" and what == "pwrite" for what, name in log[seen:]):
            plant.disk.cut_at = plant.disk.operations + 1 + offset
            await fill(plant, 1)
            if plant.disk.is_off:
                break
        plant.cut(offset)
        await plant.open(cloud=True)
        await plant.read("cloud")
        plant.kill()

    run_virtual(main())


def test_what_one_holds_whose_uplink_is_gone_is_written_all_the_same(plant, run_virtual):
    async def main():
        await plant.open(cloud=True)
        await plant.close()
        await plant.open()
        plant.append()
        plant.append()
        plant.retire()
        plant.look()
        assert await plant.durable()
        plant.kill()
        await plant.open(cloud=True)
        assert len([record for record in await plant.read("cloud") if record.gap is None]) == 2
        plant.kill()

    run_virtual(main())


def test_numbers_that_were_only_reserved_are_no_damage_to_one_who_was_gone(plant, run_virtual):
    async def main():
        await plant.open(cloud=True)
        plant.append()
        await plant.durable()
        plant.kill()
        await plant.open()
        plant.retire()
        plant.cursor("other")
        await fill(plant, 9)
        plant.cursor("cloud")
        await plant.read("cloud")
        plant.kill()

    run_virtual(main())


def test_durability_is_reached_by_one_who_was_gone_while_nothing_was_kept(plant, run_virtual):
    async def main():
        await plant.open(cloud=True)
        plant.append()
        await plant.durable()
        plant.kill()
        await plant.open()
        plant.retire()
        for _ in range(4):
            plant.append()
        plant.cursor("cloud")
        assert await plant.durable(70)
        plant.kill()

    run_virtual(main())


def test_what_is_lost_at_a_stop_names_the_time_of_the_first_that_memory_could_not_hold(
    virtual_bench, make_disk, proof, run_virtual
):
    async def main():
        witness = proof.Witness("memory")
        it = proof.Plant(virtual_bench, make_disk(), witness, commit_interval_s=1.0, ram_bytes=20_000)
        await it.open(cloud=True)
        it.disk.fault = lambda what, name: OSError(errno.EIO, "broken") if name.endswith(".seg") else None
        for _ in range(10):
            it.append(4000)
            await it.sleep(1.0)
        await it.close()
        it.disk.repair()
        await it.open(cloud=True)
        (record,) = await it.read("cloud")
        assert record.gap.first_time == min(entry.time for entry in witness.entries.values())
        it.kill()

    run_virtual(main())


def test_slots_that_refuse_are_made_anew_at_once(plant, run_virtual):
    async def main():
        await plant.open(cloud=True)
        plant.append()
        await plant.durable()
        failed = []

        def fault(what, name):
            if (what, name) == ("pwrite", "slots") and not failed:
                failed.append(name)
                return OSError(errno.EIO, "broken")
            return None

        plant.disk.fault = fault
        await plant.read("cloud")
        plant.ack("cloud", plant.cursors["cloud"].position)
        await plant.close()
        assert failed
        await plant.open(cloud=True)
        assert await plant.read("cloud") == []
        plant.kill()

    run_virtual(main())


def test_one_who_holds_nothing_is_overtaken_and_nothing_is_damaged(plant, run_virtual):
    async def main():
        await plant.open(cloud=True, guest=False)
        await fill(plant, 8)
        await plant.read_and_ack("cloud")
        await fill(plant, 8)
        found = await plant.read("guest")
        assert [record.gap.cause for record in found if record.gap is not None] == ["overtaken"]
        plant.kill()

    run_virtual(main())


def test_one_who_is_away_twice_and_reads_nothing_between_is_told_of_both_times(plant, run_virtual):
    async def main():
        await plant.open(cloud=True)
        plant.append()
        await plant.durable()
        for _ in range(2):
            await plant.close()
            await plant.open(other=False)
            plant.retire()
            plant.append()
            plant.cursor("cloud")
        found = [record.gap for record in await plant.read("cloud") if record.gap is not None]
        assert {gap.cause for gap in found} == {"overtaken"}
        assert (found[0].first_seq, found[-1].last_seq) == (2, plant.queue.head)
        plant.kill()

    run_virtual(main())
