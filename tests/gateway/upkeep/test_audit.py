"""The account of each uplink: nothing is called safe that is not, and nothing lost that is safe."""

import asyncio
import random
import shutil

from gateway.model import Batch, Definition
from gateway.upkeep.audit import audit
from gateway.upkeep.moments import Span


def accounts(yard, span=None, uplink=None, below=""):
    survey = yard.survey(below)
    return {a.name: a for a in audit(survey, span or Span(), uplink, state=survey.state())}


def totals(account):
    return {fate if not cause else f"{fate}: {cause}": n for (fate, cause), n in account.totals.items() if n}


def test_what_is_acknowledged_and_what_waits_is_told_for_each_uplink(yard):
    yard.fill(1, 40, uplinks=("cloud", "plant"), acknowledge=13)
    found = accounts(yard)
    assert totals(found["cloud"]) == {"acknowledged": 13, "waiting": 27}
    assert totals(found["plant"]) == {"waiting": 40}
    assert all(a.is_complete for a in found.values())


def test_what_nobody_had_to_write_counts_as_acknowledged(yard):
    async def main():
        async with yard.opened() as queue:
            cursor = queue.cursor("cloud")
            for n in range(1, 11):
                queue.append(yard.batch(n))
            queue.commit(cursor, queue.head - 4)
            await queue.durable()

    asyncio.run(main())
    assert totals(accounts(yard)["cloud"])["waiting"] == 4
    assert totals(accounts(yard)["cloud"])["acknowledged"] == 6


def test_damage_is_a_loss_to_who_had_not_acknowledged_it(yard):
    start = yard.fill(1, 40, uplinks=("cloud", "plant"), acknowledge=18)
    yard.flip(yard.heads()[4], 300)  # records 17 to 20
    found = accounts(yard)
    assert totals(found["cloud"])["lost: damaged"] == 2
    assert totals(found["plant"])["lost: damaged"] == 4
    (hole,) = [r for r in found["plant"].ranges if r.fate == "lost"]
    assert (hole.first_seq, hole.last_seq) == (start + 16, start + 19)
    assert not found["cloud"].is_complete


def test_what_was_evicted_is_told_until_the_uplink_knows(yard):
    yard.fill(1, 400, max_bytes=4 * 64 * 1024 + 128 * 1024)
    account = accounts(yard)["cloud"]
    assert not account.is_complete
    parts = totals(account)
    assert parts["lost: evicted"] + parts["waiting"] == 400


def test_a_power_cut_leaves_unknown_numbers_not_losses(yard, tmp_path):
    async def main():
        async with yard.opened() as queue:
            queue.cursor("cloud")
            for n in range(1, 21):
                queue.append(yard.batch(n))
            await queue.durable()
            shutil.copytree(yard.folder, tmp_path / "cut")  # as the medium is, should the power fail now

    asyncio.run(main())
    yard.folder = tmp_path / "cut"
    yard.fill(21, 30)
    account = accounts(yard)["cloud"]
    assert account.is_complete
    parts = totals(account)
    assert parts["waiting"] == 30
    assert parts["unknown: between two starts"] > 1000


def test_a_clean_stop_leaves_nothing_unknown(yard):
    yard.fill(1, 20)
    yard.fill(21, 40)
    assert totals(accounts(yard)["cloud"]) == {"waiting": 40}


def test_the_times_of_a_range_bound_history_too(yard):
    async def main():
        async with yard.opened() as queue:
            queue.cursor("cloud")
            queue.append(yard.batch(10))
            queue.append(Batch(yard.pump, yard.t0 + 2000, [1.0], index=[0], is_history=True))
            queue.append(yard.batch(11))
            await queue.durable()

    asyncio.run(main())
    (found,) = accounts(yard)["cloud"].ranges
    assert (found.count, found.first_time, found.last_time) == (3, yard.t0 + 2000, yard.t0 + 11_000)


def test_a_time_range_counts_only_what_was_taken_then(yard):
    yard.fill(1, 40, acknowledge=10)
    span = Span(yard.t0 + 5_000, yard.t0 + 14_500)
    assert totals(accounts(yard, span)["cloud"]) == {"acknowledged": 6, "waiting": 4}


def test_one_uplink_can_be_asked_for(yard):
    yard.fill(1, 8, uplinks=("cloud", "plant"))
    assert list(accounts(yard, uplink="plant")) == ["plant"]


def test_a_store_without_a_state_is_audited_all_the_same(yard):
    yard.fill(1, 40)
    yard.flip(yard.heads()[2], 300)
    survey = yard.survey()
    (account,) = audit(survey, Span(), None, state=None)
    assert account.name == ""
    assert totals(account)["lost: damaged"] == 4


def test_every_number_has_exactly_one_fate(yard):
    start = yard.fill(1, 60, uplinks=("cloud", "plant"), acknowledge=21)
    for at in (2, 7, 8):
        yard.flip(yard.heads()[at], 300)
    for account in accounts(yard).values():
        numbers = [n for r in account.ranges for n in range(r.first_seq, r.last_seq + 1)]
        assert sorted(numbers) == list(range(start, start + 60))


def test_memory_dropped_while_the_disk_failed_is_lost_with_its_cause(yard):
    async def main():
        async with yard.opened(ram_bytes=1 << 20, commit_interval_s=3600.0) as queue:
            queue.cursor("cloud")
            for n in range(1, 400):
                queue.append(Batch(yard.pump, yard.t0 + n, [1.0, n, "x" * 9000]))
            await queue.durable()

    asyncio.run(main())
    account = accounts(yard)["cloud"]
    parts = totals(account)
    assert parts["lost: memory"] + parts["waiting"] == 399
    assert not account.is_complete


def test_islands_above_the_cursor_are_acknowledged(yard):
    async def main():
        async with yard.opened() as queue:
            cursor = queue.cursor("cloud")
            for n in range(1, 21):
                queue.append(yard.batch(n))
            await queue.durable()
            live = cursor.branch(10)
            queue.commit(live, 15)

    asyncio.run(main())
    account = accounts(yard)["cloud"]
    assert totals(account) == {"waiting": 15, "acknowledged": 5}
    assert [(r.fate, r.first_seq, r.last_seq) for r in account.ranges] == [
        ("waiting", 1, 10),
        ("acknowledged", 11, 15),
        ("waiting", 16, 20),
    ]


def test_what_was_thinned_is_a_loss_with_its_count_and_never_called_acknowledged(yard):
    names = tuple(f"t{i}" for i in range(20))
    fast = Definition("drive", names, ("float64",) * 20, ("",) * 20, (None,) * 20)
    dice = random.Random(1)

    async def main():
        async with yard.opened(max_bytes=8 * 64 * 1024 + 128 * 1024, full="thin", thin_s=30.0) as queue:
            queue.cursor("cloud")
            for n in range(1, 3000):
                queue.append(Batch(fast, yard.t0 + 50 * n, [dice.random() for _ in names]))
                if n % 20 == 0:
                    await queue.durable()
            await queue.durable()

    asyncio.run(main())
    heads = yard.heads()
    assert any(head.level for head in heads)
    account = accounts(yard)["cloud"]
    parts = totals(account)
    assert parts["lost: thinned"] > 0
    assert "acknowledged" not in parts
    assert not account.is_complete
    from gateway.upkeep.verify import Verified, verify

    assert [d for d in verify(yard.survey(), Verified()) if d.kind == "lost"] == []
