"""The power fails at every write, flush, rename and sync in turn: what was called durable is there, in order."""

import contextlib
import itertools

import pytest

from gateway.journal.frame import BLOCK, Head
from gateway.journal.reader import Reader
from gateway.journal.segment import Tally
from gateway.journal.slots import FILE_SIZE
from gateway.journal.writer import Draft, Writer

SIZE = 4 * BLOCK
LIMIT = 5 * SIZE + FILE_SIZE


class Ledger:
    """An owner that acknowledges and loses, and whose document says both."""

    firm = 0

    def __init__(self, floor=0, lost=0):
        self.floor = floor
        self.lost = lost

    def lose(self, heads):
        self.lost = max(self.lost, heads[-1].last_seq)

    def document(self):
        return b"%d %d" % (self.floor, self.lost)

    @classmethod
    def of(cls, document):
        return cls(*map(int, document.split())) if document else cls()


class Promise:
    """What the owner was told before the power failed."""

    def __init__(self):
        self.written = set()
        self.ledger = Ledger()


def run(disk, promise, first, count, *, step, acks):
    """One run of the program: write `count` frames of `step` records, acknowledging some, until the power fails."""
    writer = Writer(disk, segment_size=SIZE, max_bytes=LIMIT, tally=Tally())
    recovered = writer.recover()
    promise.ledger = ledger = Ledger.of(recovered.document)
    writer.begin(store=1, start=first, first_seq=first)
    writer.save(ledger.document())
    for k in range(count):
        at = first + k * step
        head = Head(first_seq=at, last_seq=at + step - 1, covers_from=at, count=step)
        writer.write([Draft(head, {b"12345678": b"entry"}, b"%d" % at)], ledger)
        promise.written |= set(range(at, at + step))
        if acks:
            ledger.floor = max(ledger.floor, at - acks)
        if writer.wants_spare(ledger.floor):
            writer.grow_spare()
    return writer


def check(disk, promise):
    """Reopen and look: all that was promised and neither acknowledged nor given up is read, once and in order."""
    writer = Writer(disk, segment_size=SIZE, max_bytes=LIMIT, tally=Tally())
    ledger = Ledger.of(writer.recover().document)
    reader, place, seq, found = Reader(disk, lambda: writer.segments, Tally()), None, 0, []
    while (next_ := reader.after(seq, place)).head is not None:
        assert next_.body.payload == b"%d" % next_.head.first_seq
        found += range(max(seq + 1, next_.head.first_seq), next_.head.last_seq + 1)
        seq, place = next_.head.last_seq, next_.place
    assert found == sorted(set(found))
    gone = max(ledger.floor, ledger.lost)
    assert not {n for n in promise.written if n > gone} - set(found)
    assert ledger.floor <= promise.ledger.floor
    return found


@pytest.mark.parametrize("acks", [0, 6], ids=["nobody acknowledges", "acknowledged six later"])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_durable_is_lost_wherever_the_power_fails(make_disk, acks, seed):
    for cut_at in itertools.count(1):
        disk, promise = make_disk(cut_at=cut_at, seed=seed), Promise()
        with contextlib.suppress(OSError):
            run(disk, promise, 1, 40, step=2, acks=acks)
        if not disk.is_off:
            assert cut_at > 100
            break
        check(disk.crash(seed * 1000 + cut_at), promise)


@pytest.mark.parametrize("seed", range(3))
def test_nor_when_it_fails_again_while_the_next_run_has_begun(make_disk, seed):
    for cut_at in range(1, 150, 7):
        disk, promise = make_disk(cut_at=cut_at, seed=seed), Promise()
        with contextlib.suppress(OSError):
            run(disk, promise, 1, 40, step=2, acks=0)
        for again in range(1, 30):
            second, later = disk.crash(seed), Promise()
            second.cut_at = again
            later.written |= promise.written
            with contextlib.suppress(OSError):
                run(second, later, max(promise.written, default=0) + 3, 5, step=1, acks=0)
            check(second.crash(again), later)


@pytest.mark.parametrize("seed", range(5))
def test_a_disk_that_lies_about_flushes_does_lose_records(make_disk, seed):
    """The tests above can see a loss: without flushes they do."""
    disk, promise = make_disk(cut_at=90, seed=seed), Promise()
    disk.liar = True
    with contextlib.suppress(OSError):
        run(disk, promise, 1, 40, step=2, acks=0)
    with pytest.raises(AssertionError):
        check(disk.crash(seed), promise)
