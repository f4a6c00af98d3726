"""Everything that a disk is asked to do is refused, torn or cut short in turn: the queue keeps its word."""

import errno
import itertools

import pytest

KINDS = {"eio": errno.EIO, "enospc": errno.ENOSPC, "erofs": errno.EROFS, "torn": errno.EIO}
TIMES = {"once": 1, "six times": 6, "for good": 1 << 60, "once, and soon the power": 1}
FEWEST = 90
FIRST = {("eio", "once"), ("torn", "once"), ("enospc", "six times"), ("erofs", "for good")}
FIRST |= {("torn", "for good"), ("eio", "once, and soon the power")}
REST = [(kind, how) for kind in KINDS for how in TIMES if (kind, how) not in FIRST]


@pytest.fixture
def plant(virtual_bench, proof, scenario):
    """`plant(disk, *causes)`: a plant for the scenario; gaps of these causes are to be expected."""

    def make(disk, *causes):
        return proof.Plant(virtual_bench, disk, proof.Witness("evicted", *causes), **scenario.LIMITS)

    return make


@pytest.fixture
def failure(simulated):
    """`failure(kind)` makes errors of that kind."""

    def make(kind):
        error = simulated.TornError if kind == "torn" else OSError
        return lambda: error(KINDS[kind], kind)

    return make


def test_the_scenario_has_all_that_can_happen_in_it(plant, make_disk, scenario, run_virtual):
    it = plant(make_disk())
    run_virtual(scenario.live(it))
    done = {what for what, _ in it.disk.log}
    assert done == {"create", "pwrite", "fdatasync", "sync_folder", "rename", "unlink"}
    assert it.witness.gaps, "something was evicted"
    assert FEWEST < it.disk.operations < 400
    assert len(it.witness.epochs) == 3
    assert {entry.content[0] for entry in it.witness.entries.values()} > {"message", "event", "audit"}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 20))])
def test_nothing_durable_is_lost_when_the_power_fails_at_any_operation(plant, make_disk, scenario, run_virtual, seed):
    async def main(it):
        await scenario.survive(it)
        await scenario.judge(it, seed=seed * 1000 + cut_at)

    for cut_at in itertools.count(1):
        disk = make_disk(cut_at=cut_at, seed=seed)
        run_virtual(main(plant(disk)))
        if not disk.is_off:
            assert cut_at > FEWEST
            break


@pytest.mark.parametrize("cut_at", range(9, FEWEST, 20))
def test_nor_when_it_fails_again_at_any_operation_of_the_restart(plant, make_disk, scenario, run_virtual, cut_at):
    async def main(it):
        await scenario.survive(it)
        it.kill()
        it.disk = it.disk.crash(cut_at)
        it.disk.cut_at = again
        await scenario.judge(it, is_strict=False)
        is_over = not it.disk.is_off
        it.disk.cut_at = 0
        await scenario.judge(it, seed=again)
        return is_over

    for again in itertools.count(1):
        if run_virtual(main(plant(make_disk(cut_at=cut_at, seed=1)))):
            assert again > 5
            break


@pytest.mark.parametrize(
    ("kind", "how"), [*sorted(FIRST), *(pytest.param(*pair, marks=pytest.mark.long) for pair in REST)]
)
def test_nothing_durable_is_lost_when_any_operation_fails(plant, make_disk, scenario, failure, run_virtual, kind, how):
    async def main(it):
        await scenario.survive(it)
        disk.cut_at = 0
        await scenario.judge(it, seed=fail_at if fail_at % 2 or disk.is_off else None)
        assert not disk.asked_again, "a file that refused a write or a flush is not used again"

    for fail_at in itertools.count(1):
        disk = make_disk(seed=fail_at)
        if "power" in how:
            disk.cut_at = fail_at + 1 + fail_at % 7
        disk.break_at(fail_at, failure(kind), times=TIMES[how])
        run_virtual(main(plant(disk, "memory")))
        if disk.operations < fail_at:
            assert fail_at > FEWEST
            break


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["pwrite", "fdatasync"])
def test_what_failed_to_be_written_is_written_from_memory_to_another_file(
    virtual_bench, make_disk, proof, failure, run_virtual, kind, what
):
    async def main():
        it = proof.Plant(virtual_bench, make_disk(), proof.Witness(), commit_interval_s=1.0)
        await it.open(cloud=True)
        it.append()
        await it.sleep(1.1)
        failed = []

        def fault(operation, name):
            if operation == what and name.endswith(".seg") and not failed:
                failed.append(name)
                return failure(kind)()
            return None

        it.disk.fault = fault
        it.append()
        it.disk.log.clear()
        await it.sleep(1.1)
        assert failed
        touched = [name for operation, name in it.disk.log if operation in ("pwrite", "fdatasync")]
        assert failed[0] not in touched[touched.index(failed[0]) + (1 if what == "pwrite" else 2) :]
        assert it.queue.status().durable == it.witness.seqs[-1], "within the same commit"
        it.cut(7)
        await it.open(cloud=True)
        assert len(await it.read("cloud")) == 2
        await it.close()

    run_virtual(main())


def test_a_disk_that_fails_is_not_asked_all_the_time_and_is_used_again_when_it_works(
    virtual_bench, make_disk, proof, failure, run_virtual, caplog
):
    async def main():
        it = proof.Plant(virtual_bench, make_disk(), proof.Witness(), commit_interval_s=1.0)
        await it.open(cloud=True)
        it.disk.break_at(it.disk.operations + 1, failure("eio"), times=1 << 60)
        for _ in range(600):
            it.append()
            await it.sleep(1.0)
        asked = it.disk.operations
        assert asked < 200, "for ten minutes"
        assert it.queue.status().state == "degraded"
        it.disk.repair()
        for _ in range(70):
            it.append()
            await it.sleep(1.0)
        assert it.queue.status().state == "ok"
        it.cut(3)
        await it.open(cloud=True)
        assert len(await it.read("cloud")) >= 669
        await it.close()

    caplog.set_level("INFO")
    run_virtual(main())
    assert sum("the spool's disk fails" in record.message for record in caplog.records) == 1
    assert sum("the spool's disk works again" in record.message for record in caplog.records) == 1
