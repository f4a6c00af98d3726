"""Thinning on the disk: several segments become one, whatever happens on the way. Payloads are lists of numbers."""

import contextlib
import itertools

import orjson
import pytest

from gateway.journal.frame import BLOCK, Body, Head
from gateway.journal.pool import Bounds
from gateway.journal.reader import Reader
from gateway.journal.rewrite import choose
from gateway.journal.segment import Segment, Tally
from gateway.journal.slots import FILE_SIZE
from gateway.journal.writer import Draft, Writer

SIZE = 8 * BLOCK
LIMIT = 8 * SIZE + FILE_SIZE
PER_FRAME = 10


class Keeper:
    firm = 0

    def __init__(self, floor=0):
        self.floor = floor
        self.lost = []

    def lose(self, heads):
        self.lost += heads

    def document(self):
        return b"%d %d" % (self.floor, max((h.last_seq for h in self.lost), default=0))


class Halver:
    """Keeps every second number that is left, one frame for up to `together`; remembers what was settled."""

    def __init__(self, together=4, share=2):
        self.together = together
        self.share = share
        self.heads, self.numbers, self.entries = [], [], {}
        self.settled = []

    def add(self, head, body):
        self.heads.append(head)
        self.entries |= body.entries
        self.numbers += orjson.loads(body.payload)
        if len(self.heads) == self.together:
            yield from self.end()

    def end(self):
        if self.heads:
            first, last = self.heads[0], self.heads[-1]
            kept = self.numbers[:: self.share]
            head = Head(
                store=first.store,
                start=first.start,
                first_seq=kept[0],
                last_seq=last.last_seq,
                covers_from=first.covers_from,
                count=len(kept),
                ordinal=first.ordinal,
                flags=first.flags & 2,
            )
            yield head, Body(self.entries, b"", orjson.dumps(kept))
            self.heads, self.numbers, self.entries = [], [], {}

    def settle(self, segments):
        self.settled.append(segments)


def draft(first, entries=None):
    last = first + PER_FRAME - 1
    head = Head(first_seq=first, last_seq=last, covers_from=first, count=PER_FRAME)
    return Draft(head, entries or {b"12345678": b"entry"}, orjson.dumps(list(range(first, last + 1))))


def opened(disk, *, full="thin", start=1, limit=LIMIT):
    writer = Writer(disk, segment_size=SIZE, max_bytes=limit, tally=Tally(), bounds=Bounds(full=full))
    recovered = writer.recover()
    writer.begin(store=0xABCDEF, start=start, first_seq=recovered.last_seq + 1)
    writer.save(b"0 0")
    return writer, recovered.last_seq


def work(writer, keeper, first, frames, made, *, slices=50, together=4):
    """Write frames, and after each do what the committer would do when there is time."""

    def make(level):
        made.append(Halver(together))
        return made[-1]

    for n in range(frames):
        writer.write([draft(first + n * PER_FRAME)], keeper)
        for _ in range(slices):
            if writer.wants_thinning(keeper.floor) and writer.thin(keeper, make):
                continue
            if writer.wants_spare(keeper.floor):
                writer.grow_spare()
            else:
                break


def read_all(disk, writer, seq=0, tally=None):
    """Every number that is there, by a reader as the spool has one; whether a hole showed."""
    reader, place, found = Reader(disk, lambda: writer.segments, tally or Tally()), None, []
    while (next_ := reader.after(seq, place)).head is not None:
        assert next_.head.covers_from <= seq + 1 or seq == 0, "a hole that no frame accounts for"
        assert next_.damaged is None
        found += [n for n in orjson.loads(next_.body.payload) if n > seq]
        seq, place = next_.head.last_seq, next_.place
        assert next_.body.entries in ({}, {b"12345678": b"entry"})
        assert next_.entries == {b"12345678": b"entry"} or place.offset > BLOCK
    return found, seq


def test_the_oldest_segments_become_one_and_nothing_is_given_up(make_disk):
    disk, keeper, made = make_disk(), Keeper(), []
    writer, _ = opened(disk)
    work(writer, keeper, 1, 7 * 8 + 20, made)
    assert keeper.lost == []
    assert sum(len(f.cache) for f in disk.names_now.values()) <= LIMIT
    assert writer.allocated_bytes <= LIMIT
    found, last = read_all(disk, writer)
    assert last == (7 * 8 + 20) * PER_FRAME
    assert found == sorted(set(found))
    assert len(found) < last
    assert any(h.settled for h in made)
    assert [s.level for s in writer.segments] == sorted((s.level for s in writer.segments), reverse=True)
    assert not [h for h, (_, name) in disk.handles.items() if name.startswith("spare")]


def test_without_room_for_it_or_when_not_asked_for_nothing_is_thinned(make_disk):
    for full, limit in (("drop_oldest", LIMIT), ("thin", 3 * SIZE + FILE_SIZE)):
        disk, keeper = make_disk(), Keeper()
        writer, _ = opened(disk, full=full, limit=limit)
        work(writer, keeper, 1, 100, [])
        assert keeper.lost
        assert not any(s.level for s in writer.segments)


def test_acknowledged_records_make_thinning_unnecessary(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer, _ = opened(disk)
    for n in range(200):
        writer.write([draft(1 + n * PER_FRAME)], keeper)
        keeper.floor = max(0, (n - 8) * PER_FRAME)
        assert not writer.wants_thinning(keeper.floor)


def test_thinning_stops_when_the_link_is_back(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer, _ = opened(disk)
    for n in range(50):
        writer.write([draft(1 + n * PER_FRAME)], keeper)
        while writer.wants_spare(keeper.floor):
            writer.grow_spare()
    assert writer.thin(keeper, lambda level: Halver())
    names = set(disk.names_now)
    keeper.floor = 490
    assert writer.wants_thinning(keeper.floor)
    writer.thin(keeper, lambda level: Halver())
    assert not writer.wants_thinning(keeper.floor)
    assert set(disk.names_now) == names
    assert not any(s.level for s in writer.segments)


def test_records_are_thinned_four_times_at_most_and_then_given_up(make_disk):
    disk, keeper, made = make_disk(), Keeper(), []
    writer, _ = opened(disk)
    work(writer, keeper, 1, 8 * 150, made, together=2)
    assert max(s.level for s in writer.segments) == 4
    assert keeper.lost
    found, last = read_all(disk, writer, keeper.lost[-1].last_seq)
    assert last == 8 * 150 * PER_FRAME
    assert found == sorted(set(found))


def test_what_saves_too_little_is_not_tried_for_ever(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer, _ = opened(disk)
    tries = []

    def make(level):
        tries.append(level)
        return Halver(together=1, share=1)

    for n in range(120):
        writer.write([draft(1 + n * PER_FRAME)], keeper)
        for _ in range(50):
            if writer.wants_thinning(keeper.floor) and writer.thin(keeper, make):
                continue
            if not writer.wants_spare(keeper.floor):
                break
            writer.grow_spare()
    assert keeper.lost
    assert len(tries) > 10
    assert len(tries) <= 4 * len(writer.segments) + 4 * 120 / 8
    thinned = sum(1 for what, name in disk.log if what == "pwrite" and name.startswith("spare"))
    assert thinned <= len(tries) + 8, "a block is enough to see it"
    assert read_all(disk, writer, keeper.lost[-1].last_seq)[0] == list(range(keeper.lost[-1].last_seq + 1, 1201))


def test_a_damaged_segment_is_left_as_it_is(make_disk):
    disk, keeper, made = make_disk(), Keeper(), []
    writer, _ = opened(disk)
    for n in range(50):
        writer.write([draft(1 + n * PER_FRAME)], keeper)
    bad = writer.segments[3]
    disk.names_now[bad.name].cache[BLOCK + 140] ^= 4
    work(writer, keeper, 501, 40, made)
    assert any(h.settled for h in made)
    assert bad in writer.segments
    assert bad.level == 7
    assert keeper.lost == [] or keeper.lost[-1].last_seq < bad.first.first_seq


def test_a_roll_that_comes_too_soon_takes_what_is_done_by_then(make_disk):
    disk, keeper, made = make_disk(), Keeper(), []
    writer, _ = opened(disk)

    class Slow(Halver):
        """One frame a step: each takes longer than a slice."""

        def add(self, head, body):
            import time

            time.sleep(0.011)
            yield from super().add(head, body)

    def make(level):
        made.append(Slow())
        return made[-1]

    for n in range(120):
        writer.write([draft(1 + n * PER_FRAME)], keeper)
        for _ in range(3):
            if writer.wants_thinning(keeper.floor):
                writer.thin(keeper, make)
            elif writer.wants_spare(keeper.floor):
                writer.grow_spare()
    assert any(h.settled for h in made)
    read_all(disk, writer, keeper.lost[-1].last_seq if keeper.lost else 0)


@pytest.mark.parametrize("together", [2, 4, 8])
def test_readers_find_their_way_whatever_becomes_of_the_segment_they_were_in(make_disk, together):
    """Readers that stand anywhere, with a place, see every number above theirs that is left, and no hole."""
    disk, keeper, made = make_disk(), Keeper(), []
    writer, _ = opened(disk)
    work(writer, keeper, 1, 40, made)
    assert not any(s.level for s in writer.segments)
    reader = Reader(disk, lambda: writer.segments, Tally())
    places, seq, place = [(0, None)], 0, None
    while (found := reader.after(seq, place)).head is not None:
        seq, place = found.head.last_seq, found.place
        places.append((seq, place))
    work(writer, keeper, 401, 30, made, together=together)
    assert any(s.level for s in writer.segments)
    for start, place in places:
        found = reader.after(start, place)
        assert found.head.covers_from <= start + 1, "no hole"
        assert found.head.last_seq > start


def test_a_reader_in_the_middle_of_a_walk_begins_again_with_the_new_list(make_disk):
    disk, keeper, made = make_disk(), Keeper(), []
    writer, _ = opened(disk)
    work(writer, keeper, 1, 40, made)
    position = writer.segments[1].first.last_seq
    read, pread = [], disk.pread

    def thinned_meanwhile(file, size, offset):
        if not read and disk.handles[file][1] == writer.segments[1].name and offset >= BLOCK:
            read.append(1)
            work(writer, keeper, 401, 30, made)
            assert any(s.level for s in writer.segments)
        return pread(file, size, offset)

    disk.pread = thinned_meanwhile
    found = Reader(disk, lambda: writer.segments, Tally()).after(position)
    assert read
    assert found.head.covers_from <= position + 1


def thin_to_the_end(writer, keeper):
    while writer.thin(keeper, lambda level: Halver()):
        pass


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync", "rename"])
def test_a_failing_disk_ends_the_attempt_and_takes_nothing(make_disk, operation):
    disk, keeper = make_disk(), Keeper()
    writer, _ = opened(disk)
    for n in range(50):
        writer.write([draft(1 + n * PER_FRAME)], keeper)
        while writer.wants_spare(keeper.floor):
            writer.grow_spare()
    before = read_all(disk, writer)
    disk.fault = lambda what, name: OSError(5, "broken") if what == operation else None
    with pytest.raises(OSError, match="broken"):
        thin_to_the_end(writer, keeper)
    disk.fault = lambda what, name: None
    assert read_all(disk, writer) == before
    assert not [h for h, (_, name) in disk.handles.items() if name.startswith("spare")]
    work(writer, keeper, 501, 40, [])
    _, last = read_all(disk, writer, keeper.lost[-1].last_seq if keeper.lost else 0)
    assert last == 900
    assert disk.asked_again == [], "blocks that failed once are not written again"


def test_the_segment_that_was_rewritten_counts_starts_and_ordinals_as_before(make_disk):
    disk, keeper, made = make_disk(), Keeper(), []
    writer, _ = opened(disk)
    work(writer, keeper, 1, 20, made)
    writer.close()
    for start in (2, 3):
        writer, last = opened(disk, start=start)
        work(writer, keeper, last + 1, 20, made)
        writer.close()
    writer, last = opened(disk, start=4)
    work(writer, keeper, last + 1, 30, made)
    assert any(s.level for s in writer.segments)
    reader, seq, place, heads = Reader(disk, lambda: writer.segments, Tally()), 0, None, []
    while (found := reader.after(seq, place)).head is not None:
        heads.append(found.head)
        seq, place = found.head.last_seq, found.place
    assert [h.ordinal for h in heads] == [h.first_seq - 1 for h in heads]
    assert [h.start for h in heads] == [
        1 + (h.first_seq > 200) + (h.first_seq > 400) + (h.first_seq > 600) for h in heads
    ]
    assert [h.first_seq for h in heads if h.flags & 2] == [1, 201, 401, 601]
    writer.close()
    again, _ = opened(disk.crash(1), start=5)
    assert [(s.id, s.level) for s in again.segments] == [(s.id, s.level) for s in writer.segments]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_that_was_not_thinned_away_wherever_the_power_fails(make_disk, seed):
    """Of what was durable, a number is there, or it is one that thinning may take."""
    reached = 0
    for cut_at in itertools.count(110):
        disk, keeper, durable = make_disk(cut_at=cut_at, seed=seed), Keeper(), 0
        writer, _ = opened(disk)
        with contextlib.suppress(OSError):
            for n in range(60):
                work(writer, keeper, 1 + n * PER_FRAME, 1, [])
                durable = writer.written
        if not disk.is_off:
            break
        reached += any(s.level for s in writer.segments)
        found_disk = disk.crash(seed * 1000 + cut_at)
        writer, _ = opened(found_disk, start=2)
        found, last = read_all(found_disk, writer)
        assert last >= durable
        assert found == sorted(set(found))
        missing = set(range(1, durable + 1)) - set(found)
        assert not {n for n in missing if n % 16 == 1}, "every 16th survives four rounds at least"
        fresh = [n for n in missing if n > durable - 8 * PER_FRAME]
        assert not fresh, "what is new is not thinned"
        work(writer, Keeper(), last + 1, 30, [])
        read_all(found_disk, writer)
    assert reached > 10, "the power failed behind a thinning often enough"


def test_the_longest_run_of_one_level_is_chosen_and_of_equals_the_less_thinned():
    def row(*levels, end=SIZE):
        return [Segment(n, SIZE, end, level=level) for n, level in enumerate(levels)]

    def chosen(segments):
        found, is_copy = choose(segments, SIZE)
        return [s.id for s in found], is_copy

    assert chosen(row(1, 1, 0, 0, 0)) == ([2, 3, 4], False)
    assert chosen(row(1, 1, 0, 0)) == ([2, 3], False)
    assert chosen(row(1, 0, 7, 0, 0)) == ([3, 4], False)
    assert chosen(row(4, 4, 3, 2, 1, 7, 7)) == ([], False)
    assert chosen([]) == ([], False)
    assert chosen(row(2, 1, 1, 0, 0, 0, end=SIZE // 2)) == ([1, 2], True)
    assert chosen(row(4, 4, 4, 4, end=SIZE // 3)) == ([0, 1, 2], True)
    assert chosen(row(7, 7, 0, 0, end=BLOCK)) == ([2, 3], False)
    full, half = Segment(1, SIZE, SIZE, level=1), Segment(2, SIZE, SIZE // 2, level=1)
    assert chosen([full, half, half, half]) == ([2, 2], True)


def test_thinned_segments_that_are_half_empty_are_put_together_before_more_is_thinned(make_disk):
    disk, keeper, made = make_disk(), Keeper(), []
    writer, _ = opened(disk)

    class Tiny(Halver):
        def __init__(self, level):
            super().__init__(together=1000, share=8)
            self.level = level

    def make(level):
        made.append(Tiny(level))
        return made[-1]

    for n in range(120):
        writer.write([draft(1 + n * PER_FRAME)], keeper)
        while (writer.wants_thinning(keeper.floor) and writer.thin(keeper, make)) or (
            writer.wants_spare(keeper.floor) and writer.grow_spare() is None
        ):
            pass
    assert {h.level for h in made} == {0}
    assert max(s.level for s in writer.segments) == 1
    found, last = read_all(disk, writer)
    assert last == 1200
    assert len(found) >= 150, "an eighth, and what is not thinned yet"
    writer.close()
    again, _ = opened(disk.copy(), start=2)
    assert read_all(disk, again)[0] == found
