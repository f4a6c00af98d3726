"""Queues and the clock: samples taken in 1970 leave with their right time, whatever was stored, started or lost."""

import asyncio
import logging
import random

import pytest

from gateway.clock import RELEASED_MS
from gateway.metrics import Metrics
from gateway.model import CLASSES, Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.spool.record import Note, Regime
from gateway.spool.spool import Spool
from gateway.spool.timekeeper import Timekeeper
from gateway.spool.timeline import boot_bytes

TRUE = RELEASED_MS + 86_400_000 * 30  # wall time when virtual time is 0
ONE, TWO = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
GROUP = Definition("d", ("n",), ("uint16",), ("",), (None,))
LIMITS = Limits(commit_interval_s=0.5, max_bytes=8 << 20)


class Machine:
    """A machine whose clock is set by hand, on virtual time; it boots when told to."""

    def __init__(self):
        self.now = lambda: 0.0
        self.boot_id = ONE
        self._booted = 0.0
        self.boot(ONE)

    def boot(self, boot_id, wall_ms=0):
        """Begin anew, with a wall clock that shows `wall_ms`."""
        self.boot_id, self._booted = boot_id, self.now()
        self.is_synced = False
        self._offset = wall_ms - round(self.monotonic() * 1000)

    def sync(self, error_ms=0):
        """Learn the time."""
        self._offset = TRUE + round(self._booted * 1000) + error_ms
        self.is_synced = True

    def set_to(self, wall_ms):
        self._offset = wall_ms - round(self.monotonic() * 1000)

    def monotonic(self):
        return self.now() - self._booted

    def wall_ms(self):
        return round(self.monotonic() * 1000) + self._offset

    def state(self):
        return "synced" if self.is_synced else "unsynced"

    def true_ms(self):
        return TRUE + round(self.now() * 1000)


@pytest.fixture
def machine(virtual_clock):
    machine = Machine()
    machine.now = virtual_clock.monotonic
    return machine


class Shop:
    """Opens spools on one folder, takes samples, and knows when each was really taken."""

    def __init__(self, folder, machine, executor):
        self.folder = folder
        self.machine = machine
        self.executor = executor
        self.taken = []
        self.metrics = Metrics()

    async def queue(self, *, wait_s=600.0, **limits):
        """A queue by itself, begun by a process of its own."""
        keeper = Timekeeper(self.machine, wait_s=wait_s)
        queue = await Queue.open(
            self.folder,
            Limits(**({"commit_interval_s": 0.5, "max_bytes": 8 << 20} | limits)),
            clock=self.machine,
            metrics=self.metrics,
            segment_size=65536,
            writing=self.executor,
            reading=self.executor,
            timekeeper=keeper,
        )
        keeper.start()
        return queue

    async def spool(self, *classes, **options):
        return await Spool.open(
            self.folder,
            dict.fromkeys(CLASSES, LIMITS),
            classes=classes,
            clock=self.machine,
            metrics=self.metrics,
            writing=self.executor,
            **options,
        )

    async def sample(self, queue, n=1, every_s=1.0):
        for _ in range(n):
            self.taken.append(self.machine.true_ms())
            queue.append(Batch(GROUP, self.machine.wall_ms(), [len(self.taken)]))
            await asyncio.sleep(every_s)

    async def drain(self, queue, cursor):
        """All records, as an uplink gets them."""
        found = []
        while (records := queue.take(cursor, 7)) is None or records:
            if records is None:
                await queue.fetch(cursor, 7)
            else:
                found += map(queue.timed, records)
        return found

    def check(self, records, upto=None):
        """All were handed out, each with the time at which it was taken, within the error of a second."""
        assert [r.batch.values[0] for r in records] == list(range(1, len(self.taken) + 1))[:upto]
        for record, true in zip(records, self.taken, strict=False):
            assert record.regime is None
            assert abs(record.time - true) <= 1000


@pytest.fixture
def shop(tmp_path, machine, virtual_bench):
    return Shop(tmp_path / "spool", machine, virtual_bench.writing)


def gone(queue):
    """What is left when the process is killed."""
    queue._committer._is_closing = True
    queue._committer._silence()
    queue._timekeeper.stop()
    queue._store.release()


def heads(queue):
    """The heads of all frames on the disk."""
    found, place, position = [], None, 0
    while (at := queue._store.reader.after(position, place)).head is not None:
        found.append(at.head)
        place, position = at.place, at.head.last_seq
    return found


# --- from memory, and from the disk ---------------------------------------------------------------------------------


def test_samples_of_1970_in_memory_have_their_right_time(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue(commit_interval_s=3600)
        cursor = queue.cursor("u")
        await shop.sample(queue, 20)
        machine.sync()
        await shop.sample(queue, 20)
        shop.check(await shop.drain(queue, cursor))
        await queue.close()

    run_virtual(main())


@pytest.mark.parametrize("is_stored", [False, True])
def test_history_that_came_in_1970_keeps_the_time_it_had(shop, machine, run_virtual, is_stored):
    async def main():
        queue = await shop.queue()
        cursor = queue.cursor("u")
        true = machine.true_ms()
        queue.append(Batch(GROUP, machine.wall_ms(), [1]))
        past = [Batch(GROUP, true - 60_000 + n, [n], times=[true - 60_000 + n], is_history=True) for n in range(5)]
        for batch in past:
            queue.append(batch)
        if is_stored:
            await queue.durable()
            assert {(head.min_time, head.max_time) for head in heads(queue)} == {(0, 0)}
        machine.sync()
        await asyncio.sleep(5)
        live, *old = await shop.drain(queue, cursor)
        assert abs(live.time - true) <= 1000
        assert [record.time for record in old] == [batch.time for batch in past]
        assert [record.batch.times for record in old] == [batch.times for batch in past]
        assert {record.regime for record in old} == {None}
        await queue.close()

    run_virtual(main())


@pytest.mark.parametrize("when", ["before the time was known", "after it was known"])
def test_samples_of_1970_on_the_disk_have_their_right_time_after_a_restart(shop, machine, run_virtual, when):
    async def main():
        queue = await shop.queue()
        queue.cursor("u")
        await shop.sample(queue, 20)
        if when == "before the time was known":
            await queue.close()
            queue = await shop.queue()
            queue.cursor("u")
        machine.sync()
        await shop.sample(queue, 20)
        if when == "after it was known":
            await queue.close()
            queue = await shop.queue()
        shop.check(await shop.drain(queue, queue.cursor("u")))
        await queue.close()

    run_virtual(main())


def test_the_next_boot_gives_the_records_of_the_one_before_their_right_time(shop, machine, run_virtual):
    async def main():
        for boot, offset in ((ONE, 0), (TWO, 5_000_000)):
            machine.boot(boot, offset)
            queue = await shop.queue()
            queue.cursor("u")
            await shop.sample(queue, 10)
            machine.sync()
            await shop.sample(queue, 10)
            await queue.close()
        machine.boot("00000000-0000-4000-8000-000000000003")
        queue = await shop.queue(wait_s=0.0)
        shop.check(await shop.drain(queue, queue.cursor("u")))
        await queue.close()

    run_virtual(main())


def test_a_power_cut_right_after_the_time_was_known_does_not_lose_it(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue()
        queue.cursor("u")
        await shop.sample(queue, 10)
        await queue.durable()
        machine.sync()
        await asyncio.sleep(2.1)  # no record, no acknowledgement: nothing but the clock gives cause to write
        gone(queue)
        machine.boot(TWO)
        queue = await shop.queue(wait_s=0.0)
        shop.check(await shop.drain(queue, queue.cursor("u")))
        await queue.close()

    run_virtual(main())


def test_a_boot_that_never_knew_the_time_is_flagged_for_ever(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue()
        queue.cursor("u")
        await shop.sample(queue, 10)
        await queue.close()
        machine.boot(TWO)
        machine.sync()
        queue = await shop.queue()
        await shop.sample(queue, 10)
        records = await shop.drain(queue, queue.cursor("u"))
        assert [r.regime for r in records[:10]] == [Regime(boot_bytes(ONE), 0, is_plausible=False)] * 10
        assert [r.time for r in records[:10]] == [t - TRUE for t in shop.taken[:10]]
        shop.taken = shop.taken[10:]
        assert [abs(r.time - t) <= 1000 for r, t in zip(records[10:], shop.taken, strict=True)] == [True] * 10
        await queue.close()

    run_virtual(main())


def test_a_clock_that_goes_on_after_a_reboot_is_believed_and_noted_as_such(shop, machine, run_virtual):
    async def main():
        machine.sync()
        queue = await shop.queue()
        queue.cursor("u")
        await shop.sample(queue, 3)
        await queue.close()
        machine.boot(TWO, machine.true_ms() - 200)
        queue = await shop.queue()
        cursor = queue.cursor("u")
        await shop.sample(queue, 3)
        records = await shop.drain(queue, cursor)
        assert [r.regime is None for r in records] == [True] * 3 + [False] * 3
        assert all(r.regime.is_plausible for r in records[3:])
        await queue.durable()
        assert [head.clock for head in heads(queue)][-1] == 1
        await queue.close()

    run_virtual(main())


def test_a_clock_that_was_set_back_to_the_last_shutdown_is_not(shop, machine, run_virtual):
    async def main():
        machine.sync()
        queue = await shop.queue()
        queue.cursor("u")
        await shop.sample(queue, 30)
        await queue.close()
        machine.boot(TWO, machine.true_ms() - 20_000)
        queue = await shop.queue()
        assert queue.is_waiting_for_clock
        await queue.close()

    run_virtual(main())


# --- frames ---------------------------------------------------------------------------------------------------------


def test_frames_are_cut_where_the_clock_changes_and_each_head_tells_the_clock_of_its_records(
    shop, machine, run_virtual
):
    async def main():
        queue = await shop.queue(commit_interval_s=3600)
        queue.cursor("u")
        await shop.sample(queue, 5)
        machine.set_to(10_000_000)
        await shop.sample(queue, 6)
        machine.sync()
        await shop.sample(queue, 7)
        await queue.durable()
        found = heads(queue)
        offsets = [0, 10_000_000 - 5000 - 1_000_000, TRUE]
        assert [(h.clock, h.count) for h in found] == [(0, 5), (0, 6), (2, 7)]
        assert [h.wall - h.monotonic for h in found] == offsets
        assert [h.boot_id for h in found] == [boot_bytes(ONE)] * 3
        assert [h.max_time - h.min_time for h in found] == [4000, 5000, 6000]
        await queue.close()

    run_virtual(main())


def test_a_step_is_noticed_with_the_first_batch_after_it(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue(commit_interval_s=3600)
        cursor = queue.cursor("u")
        await shop.sample(queue, 3, every_s=0.01)
        machine.sync()
        await shop.sample(queue, 3, every_s=0.01)
        records = queue.take(cursor, 10)
        assert [r.regime is None for r in records] == [False] * 3 + [True] * 3
        await queue.close()

    run_virtual(main())


def test_batches_whose_time_is_expected_cost_no_look_at_the_clock(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue(commit_interval_s=3600)
        queue.cursor("u")
        machine.wall_ms, wall_ms, looks = (lambda: looks.append(0) or wall_ms()), machine.wall_ms, []
        for _ in range(100):
            queue.append(Batch(GROUP, wall_ms(), [1]))
        assert not looks
        queue.append(Batch(GROUP, wall_ms() + 5000, [1]))
        assert len(looks) == 1
        await queue.close()

    run_virtual(main())


# --- gaps -----------------------------------------------------------------------------------------------------------


def test_what_was_dropped_from_memory_in_1970_is_told_with_its_right_time(shop, machine, run_virtual, make_disk):
    async def main():
        queue = await shop.queue(ram_bytes=20_000, commit_interval_s=3600)
        queue._store.writer.write = refuse
        cursor = queue.cursor("u")
        await shop.sample(queue, 200, every_s=0.01)
        machine.sync()
        await asyncio.sleep(2.1)
        gap = (await shop.drain(queue, cursor))[0].gap
        assert gap.cause == "memory"
        assert abs(gap.first_time - shop.taken[0]) <= 1000
        assert abs(gap.last_time - shop.taken[gap.last_seq - gap.first_seq]) <= 1000
        gone(queue)

    def refuse(*_args):
        raise OSError(5, "no")

    run_virtual(main())


def test_a_gap_over_two_clocks_claims_no_time_of_the_first(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue(ram_bytes=20_000, commit_interval_s=3600)
        queue._store.writer.write = refuse
        cursor = queue.cursor("u")
        await shop.sample(queue, 20, every_s=0.01)
        machine.sync()
        await shop.sample(queue, 200, every_s=0.01)
        gap = (await shop.drain(queue, cursor))[0].gap
        assert gap.count > 20
        assert gap.first_time == 0 or gap.first_time >= shop.taken[20] - 1000
        assert abs(gap.last_time - shop.taken[gap.last_seq - gap.first_seq]) <= 1000
        gone(queue)

    def refuse(*_args):
        raise OSError(5, "no")

    run_virtual(main())


def test_what_was_evicted_before_the_time_was_known_claims_no_time(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue(max_bytes=1 << 20, commit_interval_s=0.1)
        cursor = queue.cursor("u")
        group = Definition("d", ("t",), ("string",), ("",), (None,))
        for n in range(200):
            text = random.Random(n).randbytes(9000).hex()
            queue.append(Batch(group, machine.wall_ms(), [text]))
            await queue.durable()
        machine.sync()
        await asyncio.sleep(2.1)
        queue._window.release(queue.head)
        gap = (await shop.drain(queue, cursor))[0].gap
        assert gap.cause == "evicted"
        assert (gap.first_time, gap.last_time) == (0, 0)
        await queue.close()

    run_virtual(main())


# --- waiting --------------------------------------------------------------------------------------------------------


def test_records_wait_for_the_clock_and_leave_with_the_right_time_as_soon_as_it_is_known(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue()
        cursor = queue.cursor("u")
        await shop.sample(queue, 5)
        assert queue.is_waiting_for_clock
        reading = asyncio.ensure_future(queue.read(cursor, 100))
        await shop.sample(queue, 5)
        assert not reading.done()
        before = machine.monotonic()
        machine.sync()
        records = [queue.timed(record) for record in await reading]
        assert machine.monotonic() - before <= 2.0
        shop.check(records)
        await queue.close()

    run_virtual(main())


def test_records_do_not_wait_for_ever(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue(wait_s=600.0)
        cursor = queue.cursor("u")
        await shop.sample(queue, 1)
        before = machine.monotonic()
        (record,) = await queue.read(cursor, 100)
        assert 600.0 <= machine.monotonic() - before <= 602.0
        assert not queue.timed(record).regime.is_plausible
        assert not queue.is_waiting_for_clock
        await shop.sample(queue, 1)
        assert len(queue.take(cursor, 1)) == 1
        await queue.close()

    run_virtual(main())


def test_while_nobody_asks_the_wait_does_not_run_out(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue(wait_s=600.0)
        cursor = queue.cursor("u")
        await shop.sample(queue, 5, every_s=3600)  # the link is down, and the time servers are behind it
        assert queue.take(cursor, 10) == []
        machine.sync()
        await asyncio.sleep(2.1)
        shop.check([queue.timed(record) for record in queue.take(cursor, 10)])
        await queue.close()

    run_virtual(main())


def test_a_clock_that_may_be_right_keeps_nobody_waiting(shop, machine, run_virtual):
    async def main():
        machine.boot(ONE, machine.true_ms())
        queue = await shop.queue()
        cursor = queue.cursor("u")
        await shop.sample(queue, 1)
        assert not queue.is_waiting_for_clock
        assert len(queue.take(cursor, 10)) == 1
        await queue.close()

    run_virtual(main())


def test_alarms_never_wait(shop, run_virtual):
    async def main():
        spool = await shop.spool("alarm", "event", "diag")
        for name, queue in spool.queues.items():
            cursor = queue.cursor("u")
            await shop.sample(queue, 1)
            assert len(queue.take(cursor, 10)) == (name == "alarm")
            assert queue.is_waiting_for_clock is (name != "alarm")
            assert spool.may_send(name) is (name == "alarm")
        assert spool.clock_worth == "unsynced"
        await spool.close()

    run_virtual(main())


# --- corrections ----------------------------------------------------------------------------------------------------


def corrections(records):
    notes = [r.other for r in records if r.kind == "event" and isinstance(r.other, Note)]
    return [note.fields for note in notes if note.name == "clock"]


def test_what_was_sent_with_a_wrong_time_is_corrected_by_an_event(shop, machine, run_virtual):
    async def main():
        spool = await shop.spool("event", clock_wait_s=0.0)
        data, events = spool.queues["data"], spool.queues["event"]
        cursor, listener = data.cursor("u"), events.cursor("u")
        await shop.sample(data, 5)
        sent = await shop.drain(data, cursor)
        assert [r.regime.is_plausible for r in sent] == [False] * 5
        machine.sync()
        await asyncio.sleep(2.1)
        (told,) = corrections(await shop.drain(events, listener))
        assert (told["boot_id"], told["state"]) == (ONE, "synced")
        for record, true in zip(sent, shop.taken, strict=True):
            assert abs(record.time + told["offset_ms"] - true) <= 1000
        assert told["clock_ms"] == sent[0].regime.offset
        machine.sync(error_ms=5000)
        await asyncio.sleep(2.1)
        assert corrections(await shop.drain(events, listener)) == []
        await spool.close()

    run_virtual(main())


def test_the_correction_comes_before_the_batch_that_made_us_look(shop, machine, run_virtual):
    async def main():
        spool = await shop.spool(clock_wait_s=0.0)
        data = spool.queues["data"]
        cursor = data.cursor("u")
        await shop.sample(data, 1)
        await shop.drain(data, cursor)
        machine.sync()
        await shop.sample(data, 1, every_s=0.0)
        event, batch = await shop.drain(data, cursor)
        assert (event.kind, batch.kind) == ("event", "batch")
        assert batch.seq == event.seq + 1 == data.head
        await spool.close()

    run_virtual(main())


def test_the_correction_is_told_though_the_process_was_started_anew_meanwhile(shop, machine, run_virtual):
    async def main():
        spool = await shop.spool(clock_wait_s=0.0)
        data = spool.queues["data"]
        cursor = data.cursor("u")
        await shop.sample(data, 5)
        await data.durable()
        await shop.drain(data, cursor)
        await asyncio.sleep(0.1)
        gone(data)
        machine.sync()
        spool = await shop.spool(clock_wait_s=0.0)
        data = spool.queues["data"]
        (told,) = corrections(await shop.drain(data, data.cursor("u")))
        assert told["boot_id"] == ONE
        await spool.close()

    run_virtual(main())


def test_nothing_is_corrected_where_nothing_was_sent_wrong(shop, machine, run_virtual):
    async def main():
        spool = await shop.spool()
        data = spool.queues["data"]
        cursor = data.cursor("u")
        await shop.sample(data, 5)
        machine.sync()
        await shop.sample(data, 5)
        records = await shop.drain(data, cursor)
        assert corrections(records) == []
        shop.check(records)
        await spool.close()

    run_virtual(main())


def test_that_the_clock_was_set_is_logged(shop, machine, run_virtual, caplog):
    async def main():
        queue = await shop.queue()
        machine.sync()
        await asyncio.sleep(2.1)
        machine.is_synced = False
        await asyncio.sleep(2.1)
        await queue.close()

    caplog.set_level(logging.INFO, "headgate.spool")
    run_virtual(main())
    told = [r.getMessage() for r in caplog.records if "the clock is" in r.getMessage()]
    assert len(told) == 2
    assert told[0].startswith("the clock is synchronised now and was set by +")
    assert told[0].endswith(", it was not synchronised, and shows what cannot be")
    assert told[1] == "the clock is not synchronised now, it was synchronised"


# --- lag ------------------------------------------------------------------------------------------------------------


def test_how_long_records_wait_is_known_though_the_time_is_not(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue()
        queue.cursor("u")
        await shop.sample(queue, 30)
        machine.sync()
        await asyncio.sleep(2.1)
        (cursor,) = queue.status().cursors
        assert abs(cursor.lag_s - 32) < 1
        await queue.close()
        machine.is_synced = False
        queue = await shop.queue()
        await asyncio.sleep(100)
        (cursor,) = queue.status().cursors
        assert abs(cursor.lag_s - 132) < 5
        await queue.close()

    run_virtual(main())


def test_what_was_stored_in_1970_is_not_taken_for_sixty_years_old(shop, machine, run_virtual):
    async def main():
        queue = await shop.queue()
        queue.cursor("u")
        await shop.sample(queue, 30)
        await queue.close()
        machine.boot(TWO)
        machine.sync()
        queue = await shop.queue()
        (cursor,) = queue.status().cursors
        assert (cursor.lag_records, cursor.lag_s) == (30, 0.0)
        await queue.close()

    run_virtual(main())
