"""The store on the loop: marks, flushes, snapshots beside the traffic, and a disk that refuses, stalls or fills up."""

import asyncio
import contextlib
import errno
import importlib.util
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.broker.client import Identity
from gateway.broker.message import Message
from gateway.broker.recovery import recover
from gateway.broker.store import Store
from gateway.journal.log import Log
from gateway.journal.segment import Tally
from gateway.metrics import Metrics

MIB = 1 << 20
AHEAD = 64 << 10  # zeros at the end of a log file


def _load():
    name = "headgate_tests_broker_stored"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("stored.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


stored = _load()


class Inline(Executor):
    """A writer thread that is none: what it is given is done at once. Virtual time and the disk agree then."""

    def submit(self, work, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as a real executor does
            future.set_exception(error)
        return future


@contextlib.asynccontextmanager
async def opened(disk, *, executor=None, metrics=None, **options):
    """A store on that disk, and what it found; closed at the end."""
    writing = executor or ThreadPoolExecutor(1)
    try:
        store, state = await Store.open(Path("store"), writing, metrics=metrics or Metrics(), disk=disk, **options)
        try:
            yield store, state
        finally:
            await store.close()
    finally:
        writing.shutdown()


async def until(condition, limit_s=20.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.001)


def found_on(disk):
    """What a start finds there."""
    logs = Log(disk.copy(), Tally())
    return stored.image(recover(logs)[0])


def operations(disk, what):
    return [name for done, name in disk.log if done == what]


def kept(topic="t", payload=b"x", origin=None):
    return Message(topic, payload, 1, True, origin=origin or Identity("pub"))


# --- marks ------------------------------------------------------------------------------------------------------------


def test_what_was_noted_is_written_once_flushed_and_the_owner_hears_of_it():
    async def main():
        disk, calls = stored.simulated_disk(), []
        async with opened(disk) as (store, state):
            assert (state.sessions, state.retained) == ([], [])
            store.on_written = lambda: calls.append(store.written)
            before = store.written
            store.retain(kept())
            mark = store.mark
            assert mark > store.written
            await asyncio.sleep(0)
            assert store.written == before, "nothing is handed over before the turn ends"
            store.flush()
            assert store.mark == mark + 1
            await until(lambda: store.written >= mark)
            assert calls == [mark]
            assert found_on(disk)[1]["t"][2] == b"x"

    asyncio.run(main())


def test_times_are_stored_as_the_wall_clock_says_them_also_after_it_was_set():
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk) as (store, _):
            store.ahead_s = 86_400.0  # the machine woke up a day in the past
            store.session(1, "c", None, 3600, 1000.0)
            store.session(2, "d", None, 3600, None)
            store.will(1, kept("w"), 1010.0)
            message = kept("t")
            message.expires_at = 1100.0
            store.retain(message)
        state, _ = recover(Log(disk.copy(), Tally()))
        assert {session.client_id: session.offline_since for session in state.sessions} == {"c": 87_400.0, "d": None}
        assert [session.will.due for session in state.sessions if session.will] == [87_410.0]
        assert [message.expires_at for message in state.retained] == [87_500.0]
        assert message.expires_at == 1100.0

    asyncio.run(main())


def test_a_turn_with_nothing_to_store_costs_nothing():
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk) as (store, _):
            store.flush()
            await asyncio.sleep(0.01)
        assert disk.log == []

    asyncio.run(main())


def test_turns_that_pass_while_the_writer_is_busy_become_one_frame():
    async def main():
        disk = stored.simulated_disk()
        gate, pwrite = threading.Event(), disk.pwrite

        def slow(file, data, at):
            gate.wait()
            pwrite(file, data, at)

        disk.pwrite = slow
        async with opened(disk) as (store, _):
            marks = []
            for k in range(50):
                store.retain(kept(f"t/{k}"))
                marks.append(store.mark)
                store.flush()
                await asyncio.sleep(0)
            assert marks == [1] + [2] * 49
            assert store.written == 0
            gate.set()
            await until(lambda: store.written == 2)
            assert len(operations(disk, "pwrite")) == 2
            assert len(found_on(disk)[1]) == 50

    asyncio.run(main())


def test_what_is_noted_while_a_frame_ends_goes_with_the_mark_it_was_told(run_virtual):
    """The mark of an operation is that of the frame which holds it, whenever the writer comes back."""

    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, executor=Inline()) as (store, _):
            promised = {}
            for k in range(200):
                topic = f"t/{k}"
                store.retain(kept(topic))
                promised[topic] = store.mark
                if random.random() < 0.5:
                    store.flush()
                if random.random() < 0.5:
                    await asyncio.sleep(0)
                there = found_on(disk)[1]
                assert {topic for topic, mark in promised.items() if mark <= store.written} <= set(there)

    run_virtual(main())


def test_between_two_flushes_lies_the_commit_interval_and_idle_costs_none(run_virtual):
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, executor=Inline(), commit_interval_s=1.0) as (store, _):
            for k in range(1000):
                store.retain(kept(f"t/{k % 10}"))
                store.flush()
                await asyncio.sleep(0.01)
            assert 9 <= len(operations(disk, "fdatasync")) <= 11
            await asyncio.sleep(1)
            del disk.log[:]
            await asyncio.sleep(3600)
            assert disk.log == []

    run_virtual(main())


def test_with_sync_always_written_means_on_the_medium():
    async def main():
        disk = stored.simulated_disk()
        disk.gate = threading.Event()
        async with opened(disk, sync="always") as (store, _):
            store.retain(kept())
            mark = store.mark
            store.flush()
            await until(lambda: operations(disk, "pwrite"))
            await asyncio.sleep(0.02)
            assert store.written < mark
            disk.gate.set()
            await until(lambda: store.written >= mark)
            for seed in range(5):
                assert "t" in found_on(disk.crash(seed))[1]

    asyncio.run(main())


@pytest.mark.parametrize("sync", ["interval", "always"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_next_run_finds_it(sync, seed):
    """Random operations at random moments, snapshots beside them, several runs; and now and then what a kill leaves."""

    async def main():
        chance = random.Random(seed)
        disk, image, last_session = stored.simulated_disk(), ({}, {}), 0
        for _ in range(3):
            async with opened(disk, sync=sync, commit_interval_s=0.005, snapshot_at=3000) as (store, state):
                assert stored.image(state) == image
                model = stored.Model(store)
                stored.adopt(model, state)
                model.last_session = max(model.last_session, last_session)
                images = {store.written: image}
                for _ in range(150):
                    for _ in range(chance.randint(1, 5)):
                        stored.throw(chance, model)
                        images[store.mark] = model.image()
                    if chance.random() < 0.7:
                        store.flush()
                    if chance.random() < 0.3:
                        await asyncio.sleep(0.001)
                        store.flush()
                        written = store.written
                        there = found_on(disk)
                        assert there in [images[n] for n in range(written, written + 3) if n in images]
                image, last_session = model.image(), model.last_session
            assert len(disk.names_now) <= 10

    asyncio.run(main())


def test_a_thousand_sparse_messages_a_second_cost_the_card_a_twentieth_of_a_block_each(run_virtual):
    async def main():
        disk, metrics = stored.simulated_disk(), Metrics()
        async with opened(disk, executor=Inline(), metrics=metrics) as (store, _):
            store.session(1, "client", None, 3600, None)
            for n in range(1, 5001):
                message = Message("plant/area/line/tag", bytes(64), 1, False, origin=Identity("publisher"))
                store.message(message)
                store.queue(1, message.number, 1, False, ())
                store.send(1, message.number, n % 1000 + 1)
                store.flush()
                await asyncio.sleep(0.0005)
                store.done(1, n % 1000 + 1)
                store.flush()
                await asyncio.sleep(0.0005)
            written = metrics.counter("broker_store_bytes_written_total").value
            assert written / 5000 < 220
            assert len(operations(disk, "fdatasync")) <= 6

    run_virtual(main())


@pytest.mark.bench
def test_an_operation_costs_about_a_microsecond_at_most():
    notes = stored.Notes()
    messages = [Message("plant/area/line/tag", bytes(64), 1, False, origin=Identity("pub")) for _ in range(50_000)]
    for name, note in (
        ("message", notes.message),
        ("queue", lambda _: notes.queue(1, 5, 1, False, ())),
        ("send", lambda _: notes.send(1, 5, 7)),
        ("done", lambda _: notes.done(1, 7)),
    ):
        started = time.thread_time()
        for message in messages:
            note(message)
        took = (time.thread_time() - started) / len(messages)
        notes.take()
        print(f"{name}: {took * 1e6:.2f} us")
        assert took < 1.5e-6


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_the_disk_holds_little_more_than_what_is_alive(run_virtual):
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, executor=Inline(), snapshot_at=20_000) as (store, _):
            most = 0
            for k in range(3000):
                store.retain(kept(f"t/{k % 100}", b"%0100d" % k))
                store.flush()
                await asyncio.sleep(0.01)
                most = max(most, sum(len(file.cache) for file in disk.names_now.values()))
            live = 100 * 160
            assert most < 4 * max(live, 20_000) + 2 * AHEAD
        assert {topic: m[2] for topic, m in found_on(disk)[1].items()} == {
            f"t/{k % 100}": b"%0100d" % k for k in range(2900, 3000)
        }

    run_virtual(main())


def test_also_under_a_flood_the_log_does_not_outgrow_its_snapshots():
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, snapshot_at=100_000) as (store, _):
            lengths = []
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                for k in range(1000):
                    store.retain(kept(f"t/{k % 50}", b"%0100d" % k))
                mark = store.mark
                store.flush()
                assert not store.failure
                await until(lambda mark=mark: store.written >= mark)
                lengths.append(store._logs.log_bytes)
            print(f"{len(lengths)} frames, the log had {max(lengths)} bytes at most, {lengths[-1]} at the end")
            assert max(lengths) < 150 * 100_000

    asyncio.run(main())


def test_while_a_snapshot_is_made_the_writer_thread_serves_others():
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, snapshot_at=1 << 40) as (store, _):
            for k in range(20_000):
                store.retain(kept(f"t/{k}", b"%064d" % k))
            store.flush()
            await until(lambda: store.written)
        executor, waits = ThreadPoolExecutor(1), []
        async with opened(disk, executor=executor, snapshot_at=1_000_000) as (store, _):
            loop = asyncio.get_running_loop()
            while not any(name.endswith(".snapshot") for name in disk.names_now):
                started = loop.time()
                await loop.run_in_executor(executor, int)
                waits.append(loop.time() - started)
                store.retain(kept("t/0"))
                store.flush()
                await asyncio.sleep(0.001)
        assert len(waits) > 20
        waits.sort()
        print(
            f"a job of others waited {waits[len(waits) // 2] * 1e3:.2f} ms (median), {waits[-1] * 1e3:.1f} ms at most"
        )
        assert waits[len(waits) // 2] < 0.02
        assert len(found_on(disk)[1]) == 20_000

    asyncio.run(main())


def test_a_snapshot_that_cannot_be_written_harms_nobody_and_is_tried_again(run_virtual, caplog):
    async def main():
        disk = stored.simulated_disk()
        disk.fault = lambda what, name: (
            OSError(errno.ENOSPC, "no space") if what == "create" and name.endswith(".new") else None
        )
        async with opened(disk, executor=Inline(), snapshot_at=5000) as (store, _):
            for k in range(100):
                store.retain(kept("t", b"%0100d" % k))
                store.flush()
                await asyncio.sleep(1)
                assert not store.failure
            assert len([r for r in caplog.records if "no snapshot" in r.message]) == 1
            disk.fault = lambda what, name: None
            for k in range(700):
                store.retain(kept("t", b"%0100d" % k))
                store.flush()
                await asyncio.sleep(1)
            assert sum(len(file.cache) for file in disk.names_now.values()) < 20_000 + AHEAD

    with caplog.at_level(logging.WARNING):
        run_virtual(main())


def test_a_mistake_of_ours_in_a_snapshot_harms_nobody_either(run_virtual, caplog):
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, executor=Inline(), snapshot_at=5000) as (store, _):
            store._logs.install = lambda snapshot, covered: 1 // 0
            for k in range(100):
                store.retain(kept("t", b"%0100d" % k))
                store.flush()
                await asyncio.sleep(1)
                assert not store.failure
            del store._logs.install
            await asyncio.sleep(600)
            store.retain(kept("t", b"last"))
            store.flush()
            await asyncio.sleep(10)
            assert store._logs.snapshot_bytes
        assert found_on(disk)[1]["t"][2] == b"last"

    with caplog.at_level(logging.WARNING):
        run_virtual(main())
    assert [r.exc_info is not None for r in caplog.records] == [True]


def test_after_damage_the_start_makes_a_snapshot_soon(run_virtual):
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, executor=Inline(), sync="always") as (store, _):
            for k in range(10):
                store.retain(kept(f"t/{k}"))
                store.flush()
                await asyncio.sleep(0.01)
        (name,) = disk.names_now
        disk.names_now[name].cache[3 * 4096 + 40] ^= 1
        metrics = Metrics()
        async with opened(disk, executor=Inline(), metrics=metrics) as (store, state):
            assert {m.topic for m in state.retained} == {f"t/{k}" for k in range(10) if k != 3}
            assert metrics.counter("broker_store_corrupt_total").value == 1
            await asyncio.sleep(1)
            assert sorted(name.rpartition(".")[2] for name in disk.names_now) == ["bad", "snapshot"]
        assert len(found_on(disk)[1]) == 9

    run_virtual(main())


def test_starts_that_store_little_do_not_pile_up_files(run_virtual):
    async def main():
        disk = stored.simulated_disk()
        for k in range(40):
            async with opened(disk, executor=Inline()) as (store, state):
                assert len(state.retained) == k
                store.retain(kept(f"t/{k}"))
                store.flush()
                await asyncio.sleep(1)
            assert len(disk.names_now) <= 10

    run_virtual(main())


# --- the disk refuses -------------------------------------------------------------------------------------------------


def failing(*operations, error=errno.EIO, times=1 << 30):
    left = [times]

    def fault(what, name):
        if what in operations and left[0]:
            left[0] -= 1
            return OSError(error, os.strerror(error))
        return None

    return fault


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync"])
def test_a_disk_that_fails_once_is_written_elsewhere_and_nobody_notices(run_virtual, operation, caplog):
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, executor=Inline()) as (store, _):
            for k in range(5):
                if k == 2:
                    disk.fault = failing(operation, times=1)
                store.retain(kept(f"t/{k}"))
                mark = store.mark
                store.flush()
                await asyncio.sleep(1.5)
                assert store.written >= mark
                assert not store.failure
            disk.drop_cache()
            assert len(found_on(disk.crash(1))[1]) == 5
        assert [r.levelname for r in caplog.records] == ["WARNING"]

    with caplog.at_level(logging.WARNING):
        run_virtual(main())


@pytest.mark.parametrize("sync", ["interval", "always"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_goes_on_failing_is_said_once_and_tried_ever_more_rarely(run_virtual, caplog, sync, error):
    async def main():
        disk, calls = stored.simulated_disk(), []
        async with opened(disk, executor=Inline(), sync=sync) as (store, _):
            store.retain(kept("before"))
            store.flush()
            await asyncio.sleep(2)
            store.on_written = lambda: calls.append((store.written, store.failure))
            disk.fault = failing("pwrite", "fdatasync", "create", error=error)
            store.retain(kept("during"))
            mark = store.mark
            store.flush()
            await asyncio.sleep(0.1)
            assert store.written < mark
            assert os.strerror(error) in store.failure
            assert store.mark == 0, "nothing waits for a disk that does not work"
            assert calls[-1] == (store.written, store.failure)
            del disk.log[:]
            for k in range(600):
                store.unretain(f"nothing/{k}")
                store.flush()
                await asyncio.sleep(1)
            assert 10 <= len(operations(disk, "create")) <= 20
            assert list(found_on(disk)[1]) == ["before"]
            disk.fault = lambda what, name: None
            store.retain(kept("after"))
            store.flush()
            await asyncio.sleep(61)
            assert store.failure == ""
            assert store.written >= mark
            assert store.mark == store.written + 1
            assert calls[-1] == (store.written, "")
            assert sorted(found_on(disk)[1]) == ["after", "before", "during"]
            assert sorted(found_on(disk.crash(3))[1]) == ["after", "before", "during"] or sync == "interval"

    with caplog.at_level(logging.INFO, "headgate.broker"):
        run_virtual(main())
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1
    assert [r.message for r in caplog.records][-1] == "the broker's store works again"


def test_beyond_its_bound_a_failing_store_is_given_up_for_this_run(run_virtual, caplog):
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, executor=Inline()) as (store, _):
            store.retain(kept("before"))
            store.flush()
            await asyncio.sleep(2)
            disk.fault = failing("pwrite", "fdatasync", "create")
            for k in range(200):
                store.retain(kept(f"t/{k}", bytes(100_000)))
                store.flush()
                await asyncio.sleep(0.01)
                assert store._waiting < 9 * MIB
            assert "given up" in store.failure
            assert (store._waiting, store._chunks) == (0, [])
            disk.fault = lambda what, name: None
            del disk.log[:]
            store.retain(kept("after"))
            store.flush()
            await asyncio.sleep(3600)
            assert disk.log == []
            assert "given up" in store.failure
        assert list(found_on(disk)[1]) == ["before"]
        assert not disk.handles

    with caplog.at_level(logging.ERROR):
        run_virtual(main())
    assert len([r for r in caplog.records if "given up" in r.message]) == 1


def test_a_disk_that_stalls_leaves_memory_bounded_and_all_is_stored_when_it_comes_back(caplog):
    async def main():
        disk = stored.simulated_disk()
        gate, pwrite = threading.Event(), disk.pwrite

        def stalled(file, data, at):
            gate.wait()
            pwrite(file, data, at)

        disk.pwrite = stalled
        async with opened(disk) as (store, _):
            calls = []
            store.on_written = lambda: calls.append(store.failure)
            k = 0
            while not store.failure:
                store.retain(kept(f"t/{k}", bytes(1_000_000)))
                store.flush()
                k += 1
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert k < 75, "that many megabytes wait at most"
            assert "waits for its disk" in calls[0]
            gate.set()
            await until(lambda: not store.failure)
            assert store.written == store.mark - 1
            assert len(found_on(disk)[1]) == k
            assert calls[-1] == ""

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())


def test_a_stall_that_never_ends_is_no_reason_to_grow_for_ever(caplog):
    async def main():
        disk = stored.simulated_disk()
        gate, pwrite = threading.Event(), disk.pwrite
        disk.pwrite = lambda file, data, at: (gate.wait(), pwrite(file, data, at))
        async with opened(disk) as (store, _):
            for k in range(200):
                store.retain(kept(f"t/{k}", bytes(1_000_000)))
                store.flush()
                await asyncio.sleep(0)
                assert store._waiting < 74 * MIB
            assert "given up" in store.failure
            gate.set()

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())


def test_a_mistake_of_ours_in_the_writer_thread_is_said_and_the_store_goes_on(run_virtual, caplog):
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, executor=Inline()) as (store, _):
            append = store._logs.append

            def broken(number, payload):
                store._logs.append = append
                raise ValueError("a bug")

            store.retain(kept("before"))
            store.flush()
            await asyncio.sleep(0.1)
            store._logs.append = broken
            store.retain(kept("lost"))
            store.flush()
            await asyncio.sleep(0.1)
            assert "a bug" in store.failure
            await asyncio.sleep(2)
            assert store.failure == ""
            store.retain(kept("kept"))
            store.flush()
            await asyncio.sleep(0.1)
            assert sorted(found_on(disk)[1]) == ["before", "kept"]

    with caplog.at_level(logging.ERROR):
        run_virtual(main())
    assert [r.exc_info is not None for r in caplog.records] == [True]


def test_a_folder_that_cannot_be_read_is_a_store_that_has_failed(caplog):
    async def main():
        disk = stored.simulated_disk()

        def names():
            raise OSError(errno.EACCES, "Permission denied")

        disk.names = names
        async with opened(disk) as (store, state):
            assert (state.sessions, state.retained) == ([], [])
            assert "Permission denied" in store.failure
            store.retain(kept())
            store.flush()
            assert store.mark == 0
        assert disk.log == []

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert len(caplog.records) == 1


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_writes_what_was_noted_and_brings_it_to_the_medium():
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk) as (store, _):
            for k in range(3):
                store.retain(kept(f"t/{k}"))
                store.flush()
            store.retain(kept("not even flushed"))
            mark = store.mark
        assert store.written >= mark
        assert len(found_on(disk.crash(9))[1]) == 4
        assert not disk.handles

    asyncio.run(main())


def test_closing_in_the_middle_of_a_snapshot_leaves_it_for_the_next_run():
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, snapshot_at=1000) as (store, _):
            for k in range(3000):
                store.retain(kept(f"t/{k}"))
            store.flush()
            await until(lambda: any(name.endswith(".new") for name in disk.names_now))
        assert not any(name.endswith((".new", ".snapshot")) for name in disk.names_now)
        assert not disk.handles
        assert len(found_on(disk)[1]) == 3000

    asyncio.run(main())


def test_closing_over_a_failing_disk_says_what_that_means_and_comes_to_its_end(caplog):
    async def main():
        disk = stored.simulated_disk()
        async with opened(disk, sync="always") as (store, _):
            store.retain(kept("before"))
            store.flush()
            await until(lambda: store.written)
            disk.fault = failing("pwrite", "fdatasync", "create")
            store.retain(kept("lost"))
            mark = store.mark
        assert store.written < mark
        disk.fault = lambda what, name: None
        assert list(found_on(disk)[1]) == ["before"]

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert [r.message for r in caplog.records if "are lost" in r.message]


def test_the_folder_is_made_for_its_owner_alone(tmp_path):
    async def main():
        folder = tmp_path / "spool" / "broker"
        with ThreadPoolExecutor(1) as writing:
            store, _ = await Store.open(folder, writing, metrics=Metrics())
            store.retain(kept())
            await store.close()
            assert folder.stat().st_mode & 0o777 == 0o700
            assert [p.stat().st_mode & 0o777 for p in folder.iterdir()] == [0o600]
            store, state = await Store.open(folder, writing, metrics=Metrics())
            assert [m.topic for m in state.retained] == ["t"]
            await store.close()

    asyncio.run(main())


PROGRAM = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from gateway.broker.message import Message
from gateway.broker.store import Store
from gateway.metrics import Metrics

async def main(folder, n):
    with ThreadPoolExecutor(1) as writing:
        store, state = await Store.open(
            Path(folder), writing, metrics=Metrics(), commit_interval_s=0.02, snapshot_at=20000
        )
        store.session(1, "client", None, 3600, None)
        said = 0
        marks = []
        while True:
            for _ in range(3):
                n += 1
                store.retain(Message(f"t/{n % 50}", b"%d" % n, 1, True))
                message = Message("q", b"%d" % n, 1, False)
                store.message(message)
                store.queue(1, message.number, 1, False, ())
                if n > 30:
                    store.drop(1, message.number - 60)
            marks.append((store.mark, n))
            store.flush()
            await asyncio.sleep(0)
            while marks and marks[0][0] <= store.written:
                said = marks.pop(0)[1]
            print(said, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_sigkill_takes_nothing_that_was_called_written(tmp_path):
    folder, said = tmp_path / "store", 0
    for round_ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(said)], stdout=subprocess.PIPE, text=True
        )
        while int(process.stdout.readline()) <= said:
            pass
        for _ in range(100 + 300 * round_):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said = max(map(int, process.stdout.read().split()), default=said)
        process.wait()
        process.stdout.close()
        state = asyncio.run(read(folder))
        values = {m.topic: int(m.payload) for m in state.retained}
        newest = max(values.values())
        assert newest >= said
        assert newest % 3 == said % 3, "a frame counts whole or not at all"
        assert values == {f"t/{n % 50}": n for n in range(newest - 49, newest + 1) if n > 0}
        (session,) = state.sessions
        assert int(session.queue[-1].message.payload) == newest
        said = newest


async def read(folder):
    with ThreadPoolExecutor(1) as writing:
        store, state = await Store.open(folder, writing, metrics=Metrics())
        await store.close()
    return state
