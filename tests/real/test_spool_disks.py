"""The spool on real file systems that fill up, turn read-only, fail, and stall. Needs root, mount and loop devices."""

import asyncio
import contextlib
import fcntl
import logging
import os
import random
import shutil
import struct
import subprocess
import time

import pytest

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue

GROUP = Definition("pump", ("n", "text"), ("uint32", "string"), ("", ""), (None, None))
NOISE = random.Random(1).randbytes(1 << 20)
SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN: from then on everything fails with EIO


class Card:
    """A file system of its own, on a loop device or in memory, that can be broken and put in again."""

    def __init__(self, folder, size):
        self.folder = folder / "card"
        self.image = folder / "image"
        self.size = size
        self.folder.mkdir()
        self.devices = []

    def mount_memory(self):
        """A tmpfs."""
        self._run("mount", "-t", "tmpfs", "-o", f"size={self.size}", "headgate-test", str(self.folder))

    def mount_disk(self):
        """An ext4 on a loop device; what was there before is still there."""
        if not self.image.exists():
            with self.image.open("wb") as image:
                image.truncate(self.size)
            self._run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(self.image))
        device = self._run("losetup", "--find", "--show", str(self.image)).strip()
        self.devices.append(device)
        self._run("mount", "-o", "errors=remount-ro,noatime", device, str(self.folder))

    def swap(self):
        """Take it out, however broken, check it, and put it in again: below those who still have files open."""
        self._run("umount", "--lazy", str(self.folder))
        subprocess.run(["e2fsck", "-f", "-y", str(self.image)], capture_output=True, check=False)
        self.mount_disk()

    def turn_read_only(self):
        """As ext4 does when it finds an error of its own."""
        name = self.devices[-1].rpartition("/")[2]
        with open(f"/sys/fs/ext4/{name}/trigger_fs_error", "w") as trigger:  # noqa: PTH123 - no file of ours
            trigger.write("test")

    def fail(self):
        """As if the device were gone: EIO for everything."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", 2))
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def stalled(self):
        """Whoever writes hangs in the kernel until this ends."""
        self._run("fsfreeze", "--freeze", str(self.folder))
        try:
            yield
        finally:
            self._run("fsfreeze", "--unfreeze", str(self.folder))

    def fill(self):
        """Another program takes all that is left."""
        with (self.folder / "other").open("wb", buffering=0) as other, contextlib.suppress(OSError):
            while True:
                other.write(NOISE)
        with (self.folder / "other").open("ab", buffering=0) as other, contextlib.suppress(OSError):
            while True:
                other.write(b"\0")

    def clear(self):
        (self.folder / "other").unlink()

    def away(self):
        while subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True, check=False).returncode == 0:
            pass
        for device in self.devices:
            subprocess.run(["losetup", "-d", device], capture_output=True, check=False)

    def _run(self, *command):
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path, "LC_ALL": "C"}
        )
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout


@pytest.fixture
def card(need, tmp_path):
    """`card(size)` makes a card; mount it by one of its methods. Skips, with the reason, where that is not allowed."""
    need("mount", "umount", "losetup", "mkfs.ext4", "e2fsck", "fsfreeze")
    if os.geteuid() != 0:
        pytest.skip("mounting file systems needs root")
    cards = []

    def make(size, kind):
        it = Card(tmp_path, size)
        cards.append(it)
        try:
            getattr(it, f"mount_{kind}")()
        except OSError as error:
            pytest.skip(f"file systems cannot be mounted here: {error}")
        return it

    yield make
    for it in cards:
        it.away()


class Station:
    """A queue on a card, fed and emptied, that remembers what was called durable."""

    def __init__(self, card, **limits):
        self.card = card
        self.limits = Limits(**({"commit_interval_s": 0.05, "min_free_bytes": 0, "max_bytes": 16 << 20} | limits))
        self.n = 0
        self.durable = set()
        self.got = {}
        self.told = []
        self.numbers = {}

    async def __aenter__(self):
        self.queue = await Queue.open(self.card.folder / "spool", self.limits, clock=SystemClock(), metrics=Metrics())
        self.cursor = self.queue.cursor("cloud")
        return self

    async def __aexit__(self, *_):
        await self.queue.close()

    def append(self, count=1, size=1000):
        for _ in range(count):
            self.n += 1
            at = self.n * 64 % 500_000
            self.numbers[self.queue.append(Batch(GROUP, 1_795_330_000_000 + self.n, [self.n, text(at, size)]))] = self.n

    async def feed(self, seconds, *, rate=200, size=1000):
        """Append at that rate."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.append(max(1, rate // 50), size)
            await asyncio.sleep(0.02)
            self.look()

    def look(self):
        """Take the queue by its word."""
        durable = self.queue.status().durable
        self.durable |= {n for seq, n in self.numbers.items() if seq <= durable}

    async def until(self, condition, what, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for: {what}; {self.queue.status()}"
            await asyncio.sleep(0.01)
            self.look()

    async def drain(self):
        """Read and acknowledge all there is; nothing durable may be missing untold, and nothing comes out of order."""
        last = 0
        while True:
            records = self.queue.take(self.cursor, 500)
            if records is None:
                await self.queue.fetch(self.cursor, 500)
                continue
            if not records:
                break
            for record in records:
                assert record.seq > last
                last = record.seq
                if record.gap is not None:
                    self.told.append(record.gap)
                else:
                    n, value = record.batch.values
                    assert value == text(n * 64 % 500_000, len(value))
                    self.got[n] = record.seq
            self.queue.commit(self.cursor, last)
        told = {n for seq, n in self.numbers.items() if any(gap.first_seq <= seq <= gap.last_seq for gap in self.told)}
        assert not self.durable - set(self.got) - told, "what was durable came, or was told of"
        assert not set(self.got) & told, "and nothing that came was told of as lost"


def text(at, size):
    return NOISE[at : at + size // 2].hex()


def said(caplog, words):
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def test_a_file_system_that_others_fill_costs_nothing_that_is_durable_and_recovers_by_itself(card, caplog):
    caplog.set_level(logging.INFO)
    it = card(16 << 20, "memory")

    async def main():
        async with Station(it, max_bytes=12 << 20) as station:
            await station.feed(0.5)
            await station.until(lambda: station.queue.status().durable == station.queue.head, "durability")
            it.fill()
            await station.feed(4, rate=1000)  # 4 MB: more than the files that are there
            assert station.queue.status().state in ("full", "ok"), "the files that are there go round"
            allocated = station.queue.status().allocated_bytes
            assert station.queue.status().ram_bytes < 16 << 20
            it.clear()
            await station.drain()
            await station.until(lambda: station.queue.status().state == "ok", "to be well again")
            await station.feed(1)
            await station.until(lambda: station.queue.status().durable == station.queue.head, "durability")
            await station.drain()
            assert max(station.got) == station.n
            assert {gap.cause for gap in station.told} <= {"evicted"}
            assert station.queue.status().allocated_bytes >= allocated
        assert len(said(caplog, "the spool is full")) <= 1, "not at each commit"

    asyncio.run(main())


def test_a_start_on_a_full_file_system_keeps_all_in_memory_until_there_is_room(card, caplog):
    caplog.set_level(logging.INFO)
    it = card(8 << 20, "memory")
    (it.folder / "spool").mkdir()
    (it.folder / "spool" / "lock").touch()
    it.fill()

    async def main():
        async with Station(it, max_bytes=4 << 20) as station:
            await station.feed(1.3)
            status = station.queue.status()
            assert status.state == "degraded"
            assert status.durable == 0
            it.clear()
            await station.until(lambda: station.queue.status().state == "ok", "to be well again", 60)
            await station.until(lambda: station.queue.status().durable == station.queue.head, "durability")
            await station.drain()
            assert sorted(station.got) == list(range(1, station.n + 1))
            assert not station.told
        assert len(said(caplog, "the spool's disk fails")) == 1
        assert len(said(caplog, "the spool's disk works again")) == 1

    asyncio.run(main())


@pytest.mark.parametrize("how", ["turn_read_only", "fail"])
def test_a_file_system_that_turns_read_only_or_fails_costs_nothing_and_is_used_again_when_it_is_back(card, caplog, how):
    caplog.set_level(logging.INFO)
    it = card(64 << 20, "disk")

    async def main():
        async with Station(it) as station:
            await station.feed(1)
            await station.until(lambda: station.queue.status().durable == station.queue.head, "durability")
            getattr(it, how)()
            await station.feed(2.5)
            status = station.queue.status()
            assert status.state == ("readonly" if how == "turn_read_only" else "degraded")
            assert status.durable < station.queue.head
            it.swap()
            await station.until(lambda: station.queue.status().state == "ok", "to be well again", 60)
            await station.until(lambda: station.queue.status().durable == station.queue.head, "durability")
            await station.drain()
            assert sorted(station.got) == list(range(1, station.n + 1))
            assert not station.told
            before = len(station.got)
        assert len(said(caplog, "the spool's disk fails")) == 1
        assert len(said(caplog, "the spool's disk works again")) == 1
        async with Station(it) as again:
            again.append(5)
            await again.queue.durable()
            await again.drain()
            assert len(again.got) == 5, f"all {before} were acknowledged"

    asyncio.run(main())


def test_what_was_durable_when_the_device_failed_comes_after_a_restart(card):
    it = card(64 << 20, "disk")

    async def main():
        async with Station(it) as station:
            await station.feed(1)
            await station.queue.durable()
            station.look()
            it.fail()
            await station.feed(0.5)
        it.swap()
        async with Station(it) as again:
            again.numbers, again.durable, again.n = station.numbers, station.durable, station.n
            await again.drain()
            assert set(range(1, max(station.durable) + 1)) <= set(again.got)

    asyncio.run(main())


async def stall(it, seconds):
    """A disk that stalls: what memory may hold is held, the rest is dropped and told of; the loop does not notice."""
    ram = 1 << 20
    delays = []

    async def metronome():
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            delays.append(time.perf_counter() - before - 0.005)

    async with Station(it, ram_bytes=ram) as station:
        await station.feed(1)
        await station.queue.durable()
        station.look()
        ticking = asyncio.create_task(metronome())
        most = 0
        with it.stalled():
            for _ in range(round(seconds * 2)):
                await station.feed(0.5, rate=1000)
                most = max(most, station.queue.status().ram_bytes)
            busy = station.queue.busy_s
        ticking.cancel()
        assert busy > seconds / 2, "the writer did hang"
        assert most <= ram + 20_000
        await station.until(lambda: station.queue.status().state == "ok", "to be well again", 60)
        await station.until(lambda: station.queue.status().durable == station.queue.head, "durability")
        await station.drain()
        assert {gap.cause for gap in station.told} == {"memory"}
        assert max(station.got) == station.n
    delays.sort()
    p99 = delays[len(delays) * 99 // 100]
    print(f"\ndisk stalled {seconds} s: loop p99 {p99 * 1000:.1f} ms, max {delays[-1] * 1000:.1f} ms, memory {most} B")
    return p99


def test_a_disk_that_stalls_costs_no_memory_and_does_not_stop_the_loop(card):
    assert asyncio.run(stall(card(64 << 20, "disk"), 4)) < 0.5


@pytest.mark.long
def test_a_disk_that_stalls_half_a_minute_keeps_memory_flat_and_the_loop_quick(card):
    assert asyncio.run(stall(card(64 << 20, "disk"), 30)) < 0.02


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_a_store_of_a_gigabyte_opens_at_once(tmp_path):
    limits = Limits(max_bytes=1200 << 20, commit_interval_s=60, commit_bytes=1 << 20, ram_bytes=64 << 20)
    if shutil.disk_usage(tmp_path).free < 3 << 30:
        pytest.skip("needs 3 GiB of room")

    async def fill():
        queue = await Queue.open(tmp_path / "spool", limits, clock=SystemClock(), metrics=Metrics())
        queue.cursor("cloud")
        n = 0
        while queue.status().used_bytes < 1 << 30:
            for _ in range(200):
                n += 1
                queue.append(Batch(GROUP, n, [n, text(n * 64 % 500_000, 60_000)]))
            await queue.durable()
        await queue.close()

    async def reopen():
        began = time.perf_counter()
        queue = await Queue.open(tmp_path / "spool", limits, clock=SystemClock(), metrics=Metrics())
        took = time.perf_counter() - began
        used = queue.status().used_bytes
        await queue.close()
        return took, used

    asyncio.run(fill())
    warm, used = asyncio.run(reopen())
    with contextlib.suppress(OSError), open("/proc/sys/vm/drop_caches", "w") as drop:  # noqa: PTH123 - no file of ours
        drop.write("3")
    cold, _ = asyncio.run(reopen())
    print(f"\n{used >> 20} MiB open in {warm * 1000:.0f} ms, with nothing in the page cache in {cold * 1000:.0f} ms")
    assert cold < 0.2
