"""The append log: what is read back after a kill, a power cut, damage, and a disk that refuses."""

import contextlib
import errno
import itertools
import random

import pytest

from gateway.journal.disk import FolderDisk
from gateway.journal.log import Log
from gateway.journal.logfile import BLOCK, FLUSHED, HEAD_LENGTH, LAST, File, Source, file_of, seal, seed_of
from gateway.journal.segment import Tally


def payload_of(number, size=None):
    return b"%d:" % number + random.Random(number).randbytes(300)[: number * 37 % 301 if size is None else size]


def opened(disk, tally=None):
    """The log of a disk, recovered, with the numbers and payloads that a snapshot and the logs hold."""
    log = Log(disk, tally or Tally())
    sources = log.recover()
    found = contents(sources)
    log.judge(sources)
    close(sources)
    kept = {name for name in disk.names() if name.endswith((".log", ".snapshot", ".new"))}
    assert kept == {file.name for file in log.files}
    return log, found


def contents(sources):
    found = {}
    for source in sources:
        for frame in source.frames():
            if source.file.kind == "log":
                assert frame.number not in found
                assert frame.payload == payload_of(frame.number, len(frame.payload) - len(b"%d:" % frame.number))
                found[frame.number] = frame.payload
            else:  # a snapshot of this test holds frames in pieces of a hundred
                for line in frame.payload.split(b"\0SPLIT\0")[:-1]:
                    found[int(line.partition(b":")[0])] = line
    return found


def close(sources):
    for source in sources:
        source.close()


def compact(log):
    """Replace everything by a snapshot of it, a step at a time."""
    sources, snapshot = log.roll()
    done = False
    try:
        yield
        pieces = [line + b"\0SPLIT\0" for line in contents(sources).values()]
        for at in range(0, len(pieces), 100):
            snapshot.add(b"".join(pieces[at : at + 100]))
            yield
        snapshot.add(b"", is_last=True)
        yield
        log.install(snapshot, sources)
        done = True
    finally:
        if not done:
            log.discard(snapshot)
        close(sources)


@pytest.fixture(params=["simulated", "folder"])
def disk(request, make_disk, tmp_path):
    return make_disk() if request.param == "simulated" else FolderDisk(tmp_path)


def test_frames_come_back_in_order_and_the_next_run_goes_on_behind_them(disk):
    log, found = opened(disk)
    assert found == {}
    for number in range(1, 50):
        log.append(number, payload_of(number))
        if not number % 7:
            log.flush()
    log.close()
    log, found = opened(disk)
    assert found == {n: payload_of(n) for n in range(1, 50)}
    assert log.last == 49
    log.append(50, payload_of(50))
    log.close()
    assert sorted(disk.names()) == ["00000001-0000000000000001.log", "00000002-0000000000000032.log"]
    assert list(opened(disk)[1]) == list(range(1, 51))


def test_many_small_frames_lie_close_together_between_two_flushes(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 1001):
        log.append(number, b"%d:" % number + bytes(150))
    log.flush()
    assert disk.written == 1000 * (HEAD_LENGTH + 150) + sum(len(b"%d:" % n) for n in range(1, 1001))
    assert [what for what, _ in disk.log].count("fdatasync") == 1


def test_what_was_flushed_is_never_written_again(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    writes, pwrite = [], disk.pwrite
    disk.pwrite = lambda file, data, at: (any(data) and writes.append((at, len(data))), pwrite(file, data, at))
    flushed = 0
    for number in range(1, 40):
        log.append(number, payload_of(number))
        assert writes[-1][0] // BLOCK * BLOCK >= flushed
        if not number % 3:
            log.flush()
            flushed = -(-sum(writes[-1]) // BLOCK) * BLOCK


def test_where_little_is_written_room_is_made_ahead_and_most_flushes_write_into_blocks_that_are_there(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    longer, size = 0, 0
    for number in range(1, 201):
        log.append(number, payload_of(number))
        log.flush()
        longer += disk.size(log.files[0].name) > size
        size = disk.size(log.files[0].name)
    assert longer <= 200 * BLOCK // (64 * 1024) + 1
    assert len(opened(disk.copy())[1]) == 200
    disk.room = size
    with contextlib.suppress(OSError):
        for number in range(201, 220):
            log.append(number, payload_of(number))
            log.flush()
    assert 204 < number < 219
    assert list(opened(disk.copy())[1]) == list(range(1, number)), "room that is not there is not missed at once"


def test_a_flush_without_anything_new_costs_nothing(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    log.append(1, b"1:")
    log.flush()
    del disk.log[:]
    log.flush()
    assert disk.log == []


def test_the_layout_is_as_the_table_says():
    frame = seal(seed_of("log", 1), 0, 5, b"ab")
    assert frame[6:] == bytes.fromhex("00 02000000 0500000000000000 6162")
    assert frame.hex(" ") == "48 4c e8 75 4d 65 00 02 00 00 00 05 00 00 00 00 00 00 00 61 62"


def test_names_are_read_as_they_are_written():
    file = File(0x1F, 0x2BD, "snapshot")
    assert file_of(file.name) == file
    assert [file_of(n) for n in ("lock", "1-2.log", file.name + "~", "slots", "0000000000000001.seg")] == [None] * 5


def test_every_prefix_of_a_file_gives_every_whole_frame_in_it(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    places = []
    for number in range(1, 30):
        at = log.log_bytes
        log.append(number, payload_of(number, number))
        places.append((at, log.log_bytes))
        if number in (9, 10, 20):
            log.flush()
    name = log.files[0].name
    data = bytes(disk.names_now[name].cache)
    for cut in {n for at, end in places for n in range(at, end + 2)}:
        found = make_disk()
        found.put(name, data[:cut])
        log, frames = opened(found)
        assert list(frames) == [n for n, (_, end) in enumerate(places, 1) if end <= cut]
        assert not log.is_worn


class Promise:
    """What the owner of a log was told: written (the kernel has it) and durable (it is on the medium)."""

    def __init__(self, last=0):
        self.written = self.durable = last


def live(disk, promise, count, *, chance, flush_every, compact_every=0, step=3):
    """A run: append, flush and compact by turns, until the power fails."""
    log, found = opened(disk)
    assert list(found) == list(range(1, log.last + 1))
    promise.durable = promise.written = log.last
    compaction = None
    for k in range(1, count + 1):
        number = log.last + 1
        log.append(number, payload_of(number))
        promise.written = number
        if compaction is not None:
            for _ in range(step):
                if next(compaction, "over") == "over":
                    compaction = None
                    break
        elif compact_every and not k % compact_every:
            compaction = compact(log)
            next(compaction)
            promise.durable = promise.written
        if chance.random() < 1 / flush_every:
            log.flush()
            promise.durable = promise.written
    return log


@pytest.mark.parametrize("compact_every", [0, 9], ids=["no snapshots", "snapshots"])
@pytest.mark.parametrize("seed", range(4))
def test_wherever_the_power_fails_a_prefix_is_found_and_in_it_all_that_was_durable(make_disk, compact_every, seed):
    for cut_at in itertools.count(1):
        disk, promise = make_disk(cut_at=cut_at, seed=seed), Promise()
        with contextlib.suppress(OSError):
            live(disk, promise, 40, chance=random.Random(seed), flush_every=4, compact_every=compact_every)
        if not disk.is_off:
            assert cut_at > 40
            break
        for luck in range(3):
            _, found = opened(disk.crash(luck * 1000 + cut_at))
            assert list(found) == list(range(1, len(found) + 1))
            assert len(found) >= promise.durable
            assert len(found) <= promise.written + 1


@pytest.mark.parametrize("seed", range(3))
def test_nor_when_it_fails_again_in_the_next_runs(make_disk, seed):
    chance = random.Random(seed)
    for cut_at in range(3, 90, 5):
        disk, durable = make_disk(cut_at=cut_at, seed=seed), 0
        for _ in range(5):
            promise = Promise()
            with contextlib.suppress(OSError):
                live(disk, promise, 30, chance=chance, flush_every=4, compact_every=7)
            durable = max(durable, promise.durable)
            disk = disk.crash(chance.randrange(1 << 30))
            _, found = opened(disk.copy())
            assert list(found) == list(range(1, len(found) + 1))
            assert len(found) >= durable
            durable = len(found)
            disk.cut_at = chance.randrange(2, 60)


@pytest.mark.parametrize("compact_every", [0, 9], ids=["no snapshots", "snapshots"])
def test_a_kill_at_any_operation_loses_nothing_that_was_written(make_disk, compact_every):
    """What the kernel has survives: also in the middle of a snapshot."""
    disk, promise, seen = make_disk(), Promise(), []

    def look(what, name):
        seen.append((promise.written, disk.copy()))

    disk.fault = look
    live(disk, promise, 60, chance=random.Random(1), flush_every=4, compact_every=compact_every)
    assert len(seen) > 60
    for written, found in seen:
        assert len(opened(found)[1]) in (written, written + 1)


@pytest.mark.parametrize("seed", range(8))
def test_what_a_killed_run_left_in_the_kernels_memory_is_on_the_medium_before_anything_follows_it(make_disk, seed):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 9):
        log.append(number, payload_of(number))
    log, found = opened(disk)  # the process was killed, the machine goes on
    assert len(found) == 8
    log.append(9, payload_of(9))
    log.flush()
    assert list(opened(disk.crash(seed))[1]) == list(range(1, 10))


def test_a_disk_that_lies_about_flushes_does_lose_frames(make_disk):
    """The tests above can see a loss: without flushes they do."""
    lost = 0
    for seed in range(10):
        disk, promise = make_disk(cut_at=60, seed=seed), Promise()
        disk.liar = True
        with contextlib.suppress(OSError):
            live(disk, promise, 40, chance=random.Random(seed), flush_every=4)
        lost += len(opened(disk.crash(seed))[1]) < promise.durable
    assert lost


# --- the disk refuses -------------------------------------------------------------------------------------------------


def failing(operation, times=1, error=errno.EIO):
    left = [times]

    def fault(what, name):
        if what == operation and left[0]:
            left[0] -= 1
            return OSError(error, "the disk fails")
        return None

    return fault


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("seed", range(3))
def test_after_a_failure_all_since_the_last_flush_goes_to_a_new_file(make_disk, operation, seed):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 6):
        log.append(number, payload_of(number))
    log.flush()
    for number in range(6, 9):
        log.append(number, payload_of(number))
    failed = log.files[-1].name
    disk.fault = failing(operation)
    with pytest.raises(OSError, match="the disk fails"):
        log.append(9, payload_of(9)) if operation == "pwrite" else log.flush()
    assert log.is_failed
    assert log.kept_bytes
    del disk.log[:]
    last = log.last
    log.retry()
    assert not log.is_failed
    assert not log.kept_bytes
    assert failed not in {name for _, name in disk.log}, "asked again"
    log.append(last + 1, payload_of(last + 1))
    assert list(opened(disk.copy())[1]) == list(range(1, last + 2))
    disk.drop_cache()
    _, found = opened(disk.crash(seed))
    assert list(found)[:last] == list(range(1, last + 1))


def test_a_kill_while_the_new_file_is_written_finds_the_old_one(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 6):
        log.append(number, payload_of(number))
    disk.fault = failing("fdatasync")
    with pytest.raises(OSError, match="the disk fails"):
        log.flush()
    seen = []
    disk.fault = lambda what, name: seen.append((what, disk.copy()))
    log.retry()
    assert [what for what, _ in seen].count("pwrite") >= 5
    for _, found in seen:
        assert list(opened(found)[1]) == [1, 2, 3, 4, 5]


def test_failures_leave_no_files_behind_and_lose_nothing(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    log.append(1, payload_of(1))
    for error, operation in itertools.product(
        (errno.EIO, errno.ENOSPC), ("fdatasync", "pwrite", "rename", "sync_folder")
    ):
        disk.fault = failing("fdatasync")
        log.append(log.last + 1, payload_of(log.last + 1))
        with contextlib.suppress(OSError):
            log.flush()
        for _ in range(10):
            disk.fault = failing(operation, times=9, error=error)
            with pytest.raises(OSError, match="the disk fails"):
                log.retry()
            disk.fault = lambda what, name: None
            assert list(opened(disk.copy())[1]) == list(range(1, log.last + 1))
        log.retry()
        assert list(opened(disk.copy())[1]) == list(range(1, log.last + 1))
        assert len(log.files) == len(disk.names_now)
    assert len(disk.names_now) <= 9
    assert len(disk.handles) == 1


def test_a_full_disk_is_written_on_when_there_is_room_again(make_disk):
    disk = make_disk(room=5000)
    log, _ = opened(disk)
    number = 1
    with contextlib.suppress(OSError):
        while number < 1000:
            log.append(number, payload_of(number))
            number += 1
    assert 10 < number < 100
    for _ in range(3):
        with pytest.raises(OSError, match="no space"):
            log.retry()
        assert list(opened(disk.copy())[1]) == list(range(1, number))
    disk.room = 1 << 30
    log.retry()
    log.append(number + 1, payload_of(number + 1))
    log.flush()
    assert list(opened(disk.crash(1))[1]) == list(range(1, number + 2))


def test_a_snapshot_that_cannot_be_written_leaves_everything_as_it_was(make_disk):
    for operation in ("create", "pwrite", "fdatasync", "rename", "sync_folder"):
        disk = make_disk()
        log, _ = opened(disk)
        for number in range(1, 20):
            log.append(number, payload_of(number))
        log.flush()
        names = set(disk.names_now)
        disk.fault = failing(operation, times=9)
        with pytest.raises(OSError, match="the disk fails"):
            list(compact(log))
        disk.fault = lambda what, name: None
        assert set(disk.names_now) == names
        assert not log.is_failed
        log.append(20, payload_of(20))
        assert list(opened(disk.copy())[1]) == list(range(1, 21))
        list(compact(log))
        assert list(opened(disk.copy())[1]) == list(range(1, 21))
        assert [file_of(n).kind for n in disk.names_now] == ["snapshot"]


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_a_snapshot_takes_the_place_of_all_files_and_frames_go_on_meanwhile(disk):
    log, _ = opened(disk)
    for number in range(1, 300):
        log.append(number, payload_of(number))
    compaction = compact(log)
    next(compaction)
    for number in range(300, 303):
        next(compaction)
        log.append(number, payload_of(number))
    list(compaction)
    assert [file.kind for file in log.files] == ["snapshot", "log"]
    assert log.snapshot_bytes > 30_000
    assert log.log_bytes < 1500
    log.close()
    log, found = opened(disk)
    assert list(found) == list(range(1, 303))
    list(compact(log))
    assert len(disk.names()) == 1
    log, found = opened(disk)
    assert list(found) == list(range(1, 303))
    assert log.last == 302


def test_a_large_snapshot_is_flushed_in_parts(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 4001):
        log.append(number, payload_of(number, 300))
    log.flush()
    del disk.log[:]
    list(compact(log))
    unflushed = largest = 0
    for what, _ in disk.log:
        unflushed = 0 if what == "fdatasync" else unflushed + (what == "pwrite")
        largest = max(largest, unflushed)
    assert largest * 31_000 < 300_000


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged_log(make_disk, flush_at=(9, 10, 20)):
    disk = make_disk()
    log, _ = opened(disk)
    places = {}
    for number in range(1, 31):
        at = log.log_bytes
        log.append(number, payload_of(number))
        places[number] = (at, log.log_bytes)
        if number in flush_at:
            log.flush()
    log.flush()
    log.append(31, payload_of(31))
    return disk, log.files[0].name, places


@pytest.mark.parametrize("number", range(1, 31))
def test_a_bad_place_costs_the_frames_up_to_the_next_flush_and_is_told_from_a_torn_end(make_disk, number):
    disk, name, places = damaged_log(make_disk)
    at, end = places[number]
    for where in (at, at + 3, at + 7, at + 12, end - 1):
        found = disk.copy()
        found.names_now[name].cache[where] ^= 16
        tally = Tally()
        log, frames = opened(found, tally)
        behind = next(n for n in (10, 11, 21, 31) if n > number)
        assert list(frames) == [*range(1, number), *range(behind, 32)]
        assert log.is_worn
        assert tally.corrupt.value == 1
        assert log.last == 31


def test_damage_in_the_middle_does_not_stop_the_next_run_and_a_snapshot_sets_the_file_aside(make_disk):
    disk, name, places = damaged_log(make_disk)
    disk.names_now[name].cache[places[15][0] + 30] ^= 1
    log, _ = opened(disk)
    kept = [*range(1, 15), *range(21, 32)]
    log.append(32, payload_of(32))
    assert list(opened(disk.copy())[1]) == [*kept, 32]
    list(compact(log))
    assert not log.is_worn
    assert sorted(file_of(n).kind for n in disk.names_now) == ["bad", "snapshot"]
    tally = Tally()
    assert list(opened(disk, tally)[1]) == [*kept, 32]
    assert tally.corrupt.value == 0


def test_of_what_was_set_aside_the_newest_two_are_kept(make_disk):
    disk = make_disk()
    for round_ in range(5):
        log, _ = opened(disk)
        for number in range(log.last + 1, log.last + 6):
            log.append(number, payload_of(number))
            log.flush()
        log.close()
        disk.names_now[log.files[-1].name].cache[HEAD_LENGTH + 2] ^= 1
        log, _ = opened(disk)
        list(compact(log))
        log.close()
        assert sum(n.endswith(".bad") for n in disk.names_now) == min(2, round_ + 1)


def test_a_damaged_snapshot_gives_what_can_be_read_of_it_and_the_logs_behind(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 4001):
        log.append(number, payload_of(number, 300))
    list(compact(log))
    for number in range(4001, 4010):
        log.append(number, payload_of(number))
    log.flush()
    name = log.files[0].name
    size = disk.size(name)
    for at in (5, size // 2, size - 10):
        found = disk.copy()
        found.names_now[name].cache[at] ^= 1
        tally = Tally()
        log, frames = opened(found, tally)
        assert len(frames) >= 4009 - 1000
        assert list(frames)[-9:] == list(range(4001, 4010))
        assert log.is_worn
        assert tally.corrupt.value == 1
        log.append(4010, payload_of(4010))
        list(compact(log))
        log, again = opened(found)
        assert list(again) == [*frames, 4010]
        assert not log.is_worn


def test_a_damaged_snapshot_whose_logs_are_still_there_is_not_needed(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 20):
        log.append(number, payload_of(number))
    before = disk.copy()
    list(compact(log))
    for name, file in before.names_now.items():
        disk.put(name, bytes(file.cache))
    snapshot = log.files[0].name
    disk.put(snapshot, bytes(disk.names_now[snapshot].cache[:-3]))
    tally = Tally()
    log, found = opened(disk, tally)
    assert list(found) == list(range(1, 20))
    assert sorted(file_of(n).kind for n in disk.names_now) == ["bad", "log"]
    assert tally.corrupt.value == 1


def test_a_missing_file_in_the_middle_is_noticed(make_disk):
    disk = make_disk()
    for _ in range(3):
        log, _ = opened(disk)
        for number in range(log.last + 1, log.last + 4):
            log.append(number, payload_of(number))
        log.flush()
        log.close()
    disk.unlink(log.files[1].name)
    log, found = opened(disk)
    assert list(found) == [1, 2, 3, 7, 8, 9]
    assert log.is_worn
    assert log.last == 9


def test_a_block_that_cannot_be_read_is_damage_and_a_dying_card_is_given_up_soon(make_disk):
    disk, name, _ = damaged_log(make_disk)
    disk.bad_blocks = {(name, 0)}
    log, found = opened(disk)
    assert list(found) == [*range(10, 32)]
    assert log.is_worn
    reads = []

    def fault(what, where):
        if what == "pread":
            reads.append(where)
            return OSError(errno.EIO, "bad block")
        return None

    big = make_disk()
    big.put(name, bytes(1 << 20))
    big.fault = fault
    log, found = opened(big)
    assert found == {}
    assert len(reads) < 40


def test_a_frame_that_begins_a_block_by_chance_does_not_make_a_torn_end_whole(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 8):
        log.append(number, b"%d:" % number + bytes(BLOCK - HEAD_LENGTH - 2))
    file = disk.names_now[log.files[0].name]
    file.cache[2 * BLOCK + 50 : 2 * BLOCK + 60] = b"torn torn!"
    sources = Log(disk, Tally()).recover()
    assert [frame.number for frame in sources[0].frames()] == [1, 2]
    assert sources[0].lost_bytes == 0
    assert sources[0].torn_bytes > 4 * BLOCK


@pytest.mark.parametrize("damage", ["one bit", "all of it"])
def test_an_end_that_no_kill_leaves_like_that_is_told_and_set_aside(make_disk, caplog, damage):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 50):
        log.append(number, payload_of(number))
    log.flush()
    name = log.files[0].name
    cache = disk.names_now[name].cache
    if damage == "one bit":
        cache[log.log_bytes // 2] ^= 1
    else:
        cache[:] = random.Random(1).randbytes(len(cache))
    tally = Tally()
    log = Log(disk, tally)
    sources = log.recover()
    found = [frame.number for frame in sources[0].frames()]
    log.judge(sources)
    assert found == list(range(1, len(found) + 1))
    assert len(found) < 49
    assert (log.is_worn, tally.corrupt.value) == (True, 1)
    assert f"{name} is damaged" in caplog.text
    covered, snapshot = log.roll()
    for source in covered:
        for _ in source.frames():
            pass
    snapshot.add(b"", is_last=True)
    log.install(snapshot, covered)
    assert name.replace(".log", ".bad") in disk.names()


def test_a_block_that_landed_in_the_wrong_place_is_not_believed(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 9):
        log.append(number, payload_of(number))
        log.flush()
    cache = disk.names_now[log.files[0].name].cache
    for wrong, place in ((6, 2), (1, 4)):
        found = disk.copy()
        moved = found.names_now[log.files[0].name].cache
        moved[place * BLOCK : (place + 1) * BLOCK] = cache[wrong * BLOCK : (wrong + 1) * BLOCK]
        assert list(opened(found)[1]) == [n for n in range(1, 9) if n != place + 1]


def test_frames_count_one_after_the_other_or_not_at_all(make_disk):
    """A card that shows what a block held in an earlier life, under the same name, is not believed either."""
    file, seed = File(1, 1, "log"), seed_of("log", 1)
    one = seal(seed, 0, 1, b"one", FLUSHED)
    third = seal(seed, len(one), 3, b"three")
    earlier = seal(seed, BLOCK, 1, b"ONE", FLUSHED)
    disk = make_disk()
    disk.put(file.name, (one + third).ljust(BLOCK, b"\0") + earlier)
    source = Source(disk, file)
    assert [frame.payload for frame in source.frames()] == [b"one"]
    assert source.lost_bytes == 0


def test_frames_of_another_file_are_not_believed(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    for number in range(1, 10):
        log.append(number, payload_of(number))
    data = bytes(disk.names_now[log.files[0].name].cache)
    other = make_disk()
    other.put(File(2, 1, "log").name, data)
    assert opened(other)[1] == {}


def test_whatever_is_in_the_files_a_start_succeeds(make_disk):
    chance = random.Random(7)
    for round_ in range(150):
        disk = make_disk()
        with contextlib.suppress(OSError):
            live(disk, Promise(), 60, chance=chance, flush_every=5, compact_every=25, step=1 + round_ % 3)
        names = sorted(disk.names_now)
        for _ in range(chance.randint(1, 5)):
            name = chance.choice(names)
            cache = disk.names_now[name].cache
            at = chance.randrange(len(cache) + 1)
            what = chance.randrange(4)
            if what == 0:
                del cache[at:]
            elif what == 1:
                cache[at : at + 600] = bytes(len(cache[at : at + 600]))
            elif what == 2:
                cache[at : at + 40] = chance.randbytes(len(cache[at : at + 40]))
            else:
                cache[at:at] = chance.randbytes(chance.randint(1, 2000))
        log, found = opened(disk)
        assert list(found) == sorted(found)
        log.append(log.last + 1, payload_of(log.last + 1))
        list(compact(log))
        again, more = opened(disk)
        assert list(more) == [*found, again.last]


def test_a_number_that_was_skipped_costs_nothing_behind_it(make_disk):
    disk = make_disk()
    log, _ = opened(disk)
    for number in (1, 2, 4, 5):
        log.append(number, payload_of(number))
    log, found = opened(disk)
    assert list(found) == [1, 2, 4, 5]
    assert log.last == 5


def test_strangers_files_are_left_alone(make_disk):
    disk = make_disk()
    for name in ("lock", "notes.txt", "00000001-0000000000000001.log~"):
        disk.put(name, b"mine")
    log, _ = opened(disk)
    log.append(1, b"1:")
    list(compact(log))
    assert {"lock", "notes.txt", "00000001-0000000000000001.log~"} < set(disk.names_now)


def test_a_folder_that_cannot_be_listed_is_an_error(make_disk):
    disk = make_disk()
    disk.names = lambda: (_ for _ in ()).throw(OSError(errno.EIO, "no"))
    with pytest.raises(OSError, match="no"):
        Log(disk, Tally()).recover()


def test_a_snapshot_is_complete_only_with_its_last_frame(make_disk):
    disk = make_disk()
    file = File(3, 9, "snapshot")
    seed = seed_of("snapshot", 3)
    disk.put(file.name, seal(seed, 0, 1, b"a") + seal(seed, HEAD_LENGTH + 1, 2, b"b", LAST))
    source = Source(disk, file)
    assert [f.payload for f in source.frames()] == [b"a", b"b"]
    assert source.is_complete
    assert not source.is_damaged
    disk.put(file.name, seal(seed, 0, 1, b"a"))
    source = Source(disk, file)
    assert [f.payload for f in source.frames()] == [b"a"]
    assert source.is_damaged
