"""Every block and every file is ruined in every way: a start succeeds, what is whole comes back, nothing wrong does."""

import random
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.frame import BLOCK
from gateway.journal.segment import Scanner, Segment, Tally, name_of, number_of

SIZE = 8 * BLOCK
LIMITS = {"commit_interval_s": 1.0, "max_bytes": 64 * SIZE}


class Ruin:
    """A store of two runs, ten segments and some thirty frames; to be copied, ruined and read."""

    def __init__(self, bench, disk, proof, run):
        bench.segment_size = SIZE
        self.bench = bench
        self.proof = proof
        self.run = run
        self.witness = proof.Witness("damaged", is_damaged=True)
        self.plant = proof.Plant(bench, disk, self.witness, **LIMITS)
        run(self._fill())
        self.disk = self.plant.disk.copy()
        self.frames = [head for name in sorted(self.segments()) for head in self._heads(name)]

    async def _fill(self):
        await self.plant.open(cloud=True, other=True)
        for k in range(14):
            await self._round(k)
        await self.plant.read("cloud", 9)
        self.plant.ack("cloud", self.plant.cursors["cloud"].position)
        await self.plant.close()
        await self.plant.open(cloud=True, other=True)
        for k in range(14):
            await self._round(k)
        self.plant.kill()

    async def _round(self, k):
        for i in range(3):
            self.plant.append(6000 if (k + i) % 5 == 0 else 0)
        await self.plant.sleep(1.1)

    def segments(self):
        return [name for name in self.disk.names_now if number_of(name)]

    def _heads(self, name):
        segment = Segment(number_of(name), SIZE, SIZE, is_old=True)
        return list(Scanner(self.disk, Tally()).heads(self.disk.open(name), segment))

    def blocks(self):
        """All blocks that a frame stands in, as (file, number)."""
        return [(name_of(h.segment), (h.offset + at) // BLOCK) for h in self.frames for at in range(0, h.extent, BLOCK)]

    def check(self, disk, touched):
        """Read the ruined disk: `touched` are blocks, by file and number, that may have lost what they held."""
        self.run(self._check(disk, touched))

    async def _check(self, disk, touched):
        hurt = [head for head in self.frames if touched & set(self._places(head))]
        lost = {seq for head in hurt for seq in range(head.first_seq, head.last_seq + 1)}
        queue = await self.bench.open(disk, **LIMITS)
        try:
            for name, acked in (("cloud", self.witness.views["cloud"].acked), ("other", 0)):
                found = await self.bench.drain(queue, queue.cursor(name), commit=False)
                self._compare(name, acked, found, lost, hurt)
            first = queue.append(self.bench.batch(1))
            assert first > self.witness.seqs[-1], "no number is used twice"
            await queue.durable()
        finally:
            await queue.close()

    def _places(self, head):
        return [(name_of(head.segment), (head.offset + at) // BLOCK) for at in range(0, head.extent, BLOCK)]

    def _compare(self, name, acked, found, lost, hurt):
        view = self.witness.views[name]
        view.position, view.acked = -1, acked
        self.witness.handed(name, found)
        got = {record.seq for record in found if record.gap is None}
        told = [record.gap for record in found if record.gap is not None]
        whole = {seq for seq in self.witness.seqs if seq > acked} - lost
        assert whole <= got, "what is whole comes back"
        for seq in sorted(seq for seq in lost - got if seq > acked and seq in self.witness.entries):
            if self._can_be_told(seq, hurt):
                assert any(gap.first_seq <= seq <= gap.last_seq for gap in told), f"the loss of {seq} is told"

    def _can_be_told(self, seq, hurt):
        """Whether a whole frame of the same start comes behind."""
        firsts = [head.first_seq for head in self.frames]
        at = bisect_left(firsts, seq + 1) - 1
        return any(head.start == self.frames[at].start and head not in hurt for head in self.frames[at + 1 :])


@pytest.fixture
def ruin(virtual_bench, make_disk, proof, run_virtual):
    return Ruin(virtual_bench, make_disk(), proof, run_virtual)


def cache(disk, name):
    return disk.names_now[name].cache


def put(disk, place, data):
    name, number = place
    cache(disk, name)[number * BLOCK : (number + 1) * BLOCK] = data


def get(disk, place):
    name, number = place
    return bytes(cache(disk, name)[number * BLOCK : (number + 1) * BLOCK])


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


RUINS = {
    "zeroed": lambda disk, place, other: put(disk, place, bytes(BLOCK)),
    "overwritten": lambda disk, place, other: put(disk, place, random.Random(place[1]).randbytes(BLOCK)),
    "head flipped": lambda disk, place, other: put(disk, place, flipped(get(disk, place), 37)),
    "body flipped": lambda disk, place, other: put(disk, place, flipped(get(disk, place), 300)),
    "half written": lambda disk, place, other: put(disk, place, get(disk, place)[:2048] + bytes(2048)),
    "duplicated": lambda disk, place, other: put(disk, place, get(disk, other)),
    "unreadable": lambda disk, place, other: disk.bad_blocks.add(place),
}


def test_the_store_to_be_ruined_is_whole(ruin):
    assert len(ruin.segments()) >= 6
    assert len(ruin.frames) >= 28
    assert {head.start for head in ruin.frames} == {1, 2}
    ruin.check(ruin.disk.copy(), set())


@pytest.mark.parametrize("how", RUINS)
def test_a_ruined_block_costs_its_frame_and_no_other(ruin, how):
    blocks = ruin.blocks()
    for n, place in enumerate(blocks):
        disk = ruin.disk.copy()
        RUINS[how](disk, place, blocks[n - 3])
        ruin.check(disk, {place})


@pytest.mark.parametrize("distance", [1, 2, 8, 11])
def test_swapped_blocks_cost_their_frames_and_no_others(ruin, distance):
    blocks = ruin.blocks()
    for one, two in zip(blocks, blocks[distance:], strict=False):
        disk = ruin.disk.copy()
        first, second = get(disk, one), get(disk, two)
        put(disk, one, second)
        put(disk, two, first)
        ruin.check(disk, {one, two})


@pytest.mark.parametrize(
    "how", ["cut short", "missing", "empty", "swapped", "doubled above", "doubled below", "garbage"]
)
def test_a_ruined_file_costs_its_frames_and_no_others(ruin, how):
    names = sorted(ruin.segments())
    for n, name in enumerate(names):
        disk = ruin.disk.copy()
        other = names[n - 1]
        everything = {place for place in ruin.blocks() if place[0] == name}
        if how == "cut short":
            at = BLOCK * (n % 7) + 123
            disk.put(name, bytes(cache(disk, name)[:at]))
            touched = {place for place in everything if (place[1] + 1) * BLOCK > at}
        elif how == "missing":
            disk.unlink(name)
            touched = everything
        elif how == "empty":
            disk.put(name, b"")
            touched = everything
        elif how == "swapped":
            one, two = bytes(cache(disk, name)), bytes(cache(disk, other))
            disk.put(name, two)
            disk.put(other, one)
            touched = everything | {place for place in ruin.blocks() if place[0] == other}
        elif how == "garbage":
            disk.put(name, random.Random(n).randbytes(SIZE))
            touched = everything
        else:
            number = 0 if how == "doubled below" else 1000 + n
            disk.put(name_of(number), bytes(cache(disk, name)))
            touched = set()
        ruin.check(disk.copy(), touched)


@pytest.mark.parametrize("slot", [0, 1, 2], ids=["first", "second", "both"])
@pytest.mark.parametrize(
    "how", ["zeroed", "flipped", "cut short", "swapped", "missing", "unreadable", "garbage", "old"]
)
def test_ruined_slots_cost_no_record_and_move_no_cursor_forward(ruin, how, slot):
    disk = ruin.disk.copy()
    half = len(cache(disk, "slots")) // 2
    slots = [bytes(cache(disk, "slots")[:half]), bytes(cache(disk, "slots")[half:])]
    for n in (0, 1) if slot == 2 else (slot,):
        if how == "zeroed":
            slots[n] = bytes(half)
        elif how == "flipped":
            slots[n] = flipped(slots[n], 150)
        elif how == "garbage":
            slots[n] = random.Random(n).randbytes(half)
        elif how == "old":
            slots[n] = slots[1 - n]
    disk.put("slots", b"".join(reversed(slots) if how == "swapped" else slots))
    if how == "cut short":
        disk.put("slots", b"".join(slots)[: half * slot // 2 + 500])
    elif how == "missing":
        disk.unlink("slots")
    elif how == "unreadable":
        disk.bad_blocks |= {("slots", block) for block in range(0 if slot != 1 else half // BLOCK, 2 * half // BLOCK)}
    ruin.check(disk, set())


def test_whatever_is_ruined_at_once_the_rest_comes_back(ruin):
    blocks, names = ruin.blocks(), sorted(ruin.segments())

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(
        ruins=st.lists(
            st.tuples(st.sampled_from(sorted(RUINS)), *[st.sampled_from(blocks)] * 2), min_size=2, max_size=7
        ),
        missing=st.sets(st.sampled_from(names), max_size=2),
        slots=st.none() | st.binary(max_size=200),
    )
    def check(ruins, missing, slots):
        disk = ruin.disk.copy()
        for how, place, other in ruins:
            RUINS[how](disk, place, other)
        for name in missing:
            disk.unlink(name)
        if slots is not None:
            disk.put("slots", slots)
        ruin.check(disk, {place for _, place, _ in ruins} | {place for place in blocks if place[0] in missing})

    check()
