"""The proof is proved: each promise is broken on purpose, and the checks of faults and of the machine see it."""

import errno
import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import Phase

from gateway.journal import compression, frame
from gateway.journal.writer import Writer
from gateway.spool import commit, drops, store
from gateway.spool.cursor import Cursor, Mark


class Found(Exception):  # noqa: N818 - no error: what the checks are for
    """A check saw that the word was not kept."""


@pytest.fixture
def search(virtual_bench, proof, scenario, run_virtual):
    """`search(disks)` runs the scenario on each disk and judges it, until a check sees something."""

    def check(disks):
        for n, disk in enumerate(disks):
            plant = proof.Plant(virtual_bench, disk, proof.Witness("evicted", "memory"), **scenario.LIMITS)

            async def main(plant=plant, disk=disk, seed=n):
                try:
                    await scenario.survive(plant)
                    await scenario.judge(plant, seed=seed)
                except AssertionError as error:
                    raise Found(str(error)) from error
                finally:
                    if plant.queue is not None:
                        virtual_bench.abandon(plant.queue)
                if disk.asked_again:
                    raise Found(f"{disk.asked_again[0]} although that file had failed before")

            run_virtual(main())

    return check


@pytest.fixture
def cuts(make_disk):
    """Disks whose power fails, at every other operation."""
    return lambda start=5, **lies: (lying(make_disk(cut_at=n, seed=n), **lies) for n in range(start, 110, 2))


@pytest.fixture
def faults(make_disk):
    """Disks that refuse one operation, each in turn; soon after that the power fails."""

    def make():
        for n in range(9, 100):
            disk = make_disk(cut_at=n + 4, seed=n)
            disk.break_at(n, lambda: OSError(errno.EIO, "input/output error"))
            yield disk

    return make


def lying(disk, *, about=()):
    disk.lies = set(about)
    return disk


def test_the_checks_find_nothing_where_nothing_is_broken(search, cuts, make_disk):
    search(itertools.islice(cuts(start=7), 0, None, 6))
    search([make_disk()])


@pytest.mark.parametrize("what", ["fdatasync", "sync_folder"])
def test_a_spool_that_does_not_sync_is_seen(search, cuts, what):
    with pytest.raises(Found):
        search(cuts(start=25, about=[what]))


def test_a_spool_that_acknowledges_before_the_sync_is_seen(search, faults, monkeypatch):
    def settle(self, staged, left):
        if not staged or self._active is None:
            return
        self.written = self._active.last_seq = staged[-1].last_seq
        self._active.first, self._active.end = self._active.first or staged[0], self._offset
        self.ordinal, self._unsynced = self.ordinal + self._unsynced, 0
        for _ in staged:
            left.popleft()
        staged.clear()
        self._disk.fdatasync(self._file)

    monkeypatch.setattr(Writer, "_settle", settle)
    with pytest.raises(Found):
        search(faults())


def test_a_spool_without_checksums_is_seen_on_a_disk_that_tears(search, cuts, monkeypatch):
    monkeypatch.setattr(frame, "zlib", SimpleNamespace(crc32=lambda _data: 0))
    monkeypatch.setattr(compression, "ZLIB", compression.Codec(bytes, bytes))
    monkeypatch.setattr(compression, "zstd", lambda: None)
    with pytest.raises(Found):
        search(cuts())


def test_a_spool_that_asks_again_after_a_failed_sync_is_seen(search, faults, simulated, monkeypatch):
    sync = simulated.SimulatedDisk.fdatasync

    def twice(self, file):
        try:
            sync(self, file)
        except OSError:
            sync(self, file)

    monkeypatch.setattr(simulated.SimulatedDisk, "fdatasync", twice)
    monkeypatch.setattr(simulated.SimulatedDisk, "_watch", lambda *_: None)  # what is lost gives it away, too
    with pytest.raises(Found):
        search(faults())


def test_a_spool_that_goes_on_in_a_file_that_failed_is_seen(search, faults, monkeypatch):
    monkeypatch.setattr(Writer, "_abandon", lambda _self: None)
    with pytest.raises(Found):
        search(faults())


def test_a_cursor_ahead_of_what_is_acknowledged_is_seen(search, cuts, monkeypatch):
    def mark(self):
        return Mark(self.name, self.holds, max(self.position, self.committed), self.losses)

    monkeypatch.setattr(Cursor, "mark", mark)
    with pytest.raises(Found):
        search(cuts(start=61))


def test_recycling_a_segment_before_the_slots_say_so_is_seen(search, cuts, monkeypatch):
    roll = Writer._roll

    def hasty(self, keeper):
        self.save = lambda _document: None
        try:
            roll(self, keeper)
        finally:
            del self.save
        self.save(keeper.document())

    monkeypatch.setattr(Writer, "_roll", hasty)
    with pytest.raises(Found):
        search(cuts(start=55))


def test_giving_up_records_without_a_word_is_seen(search, cuts, monkeypatch):
    monkeypatch.setattr(commit, "lose", lambda losses, *_: losses)
    monkeypatch.setattr(drops, "lose", lambda losses, *_: losses)
    with pytest.raises(Found):
        search(cuts(start=65))


def test_numbers_that_are_not_reserved_are_seen(search, cuts, monkeypatch):
    begin = store._begin

    def careless(recovered):
        return replace(begin(recovered), ceiling=recovered.last_seq + store.RESERVE)

    monkeypatch.setattr(store, "_begin", careless)
    with pytest.raises(Found, match="used twice"):
        search(cuts(start=80))


@pytest.mark.parametrize("broken", ["cursor ahead", "no word", "no sync"])
def test_the_machine_sees_it_as_well(work, simulated, monkeypatch, broken):
    if broken == "cursor ahead":
        monkeypatch.setattr(Cursor, "mark", lambda self: Mark(self.name, self.holds, self.position, self.losses))
    elif broken == "no word":
        monkeypatch.setattr(commit, "lose", lambda losses, *_: losses)
        monkeypatch.setattr(drops, "lose", lambda losses, *_: losses)
    else:
        monkeypatch.setattr(simulated.SimulatedDisk, "fdatasync", lambda *_: None)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        work(examples=100, steps=40, phases=(Phase.generate,))
