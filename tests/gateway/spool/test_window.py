"""The window: against a plain list that does the same, slowly."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.model import Batch, Definition
from gateway.spool.record import Gap, Record
from gateway.spool.window import Window, footprint

NUMBERS = Definition("d", ("a",), ("float32",), ("",), (None,))
TEXT = Definition("d", ("a",), ("string",), ("",), (None,))


def record(seq):
    return Record(seq, "e-1", Batch(NUMBERS, 1000 + seq, [seq]))


class Model(RuleBasedStateMachine):
    """Each entry: (first number it stands for, last number, size, time, how many were lost)."""

    def __init__(self):
        super().__init__()
        self.window = Window(7)
        self.entries = []
        self.base = self.head = 7

    @rule(size=st.integers(1, 100), n=st.integers(1, 40))
    def append(self, size, n):
        for _ in range(n):
            self.head += 1
            self.window.append(record(self.head), size, float(self.head))
            self.entries.append((self.head, self.head, size, float(self.head), 0))

    @precondition(lambda self: not self.entries)
    @rule()
    def skip(self):
        self.head += 1
        self.base = self.head
        assert self.window.skip() == self.head

    @rule(data=st.data())
    def release(self, data):
        seq = data.draw(st.sampled_from([self.base, *(e[1] for e in self.entries)]))
        self.window.release(seq)
        self.entries = [e for e in self.entries if e[1] > seq]
        self.base = max(self.base, seq)

    @rule(data=st.data(), most=st.integers(0, 2000))
    def shrink(self, data, most):
        seq = data.draw(st.integers(self.base, self.head))
        self.window.shrink(seq, most)
        while self.entries and self.entries[0][1] <= seq and sum(e[2] for e in self.entries) > most:
            self.base = self.entries.pop(0)[1]

    @rule(data=st.data(), most=st.integers(0, 2000))
    def drop(self, data, most):
        seq = data.draw(st.sampled_from([self.base, *(e[1] for e in self.entries)]))
        first = last = next((i for i, e in enumerate(self.entries) if e[1] > seq), len(self.entries))
        held = sum(e[2] for e in self.entries)
        while held > most and last < len(self.entries) - 1:
            held -= self.entries[last][2]
            last += 1
        gap = self.window.drop(seq, most, "e-1")
        gone = self.entries[first:last]
        records = sum(not e[4] for e in gone)
        assert (gap is None) == (records == 0)
        if gap is not None:
            assert (gap.first_seq, gap.last_seq, gap.count) == (gone[0][0], gone[-1][1], records)
        if gone:
            lost = sum(e[4] or 1 for e in gone)
            self.entries[first:last] = [(gone[0][0], gone[-1][1], 300, gone[0][3], lost)]

    @rule(data=st.data(), n=st.integers(1, 30))
    def after(self, data, n):
        seq = data.draw(st.integers(0, self.head))
        found = self.window.after(seq, n)
        if seq < self.base:
            assert found is None
            return
        expected = [e for e in self.entries if e[1] > seq]
        assert [r.seq for r in found] == [e[1] for e in expected[:n]]
        for r, (first, last, _, _, lost) in zip(found, expected, strict=False):
            assert (r.gap is None) == (lost == 0)
            if r.gap is not None:
                assert (r.gap.first_seq, r.gap.last_seq, r.gap.count) == (first, last, lost)
        assert self.window.time_after(seq) == (expected[0][3] if expected else None)
        record = self.window.record_after(seq)
        assert (record.seq if record else None) == (expected[0][1] if expected else None)

    @rule(data=st.data(), most=st.integers(1, 1000))
    def pending(self, data, most):
        seq = data.draw(st.integers(self.base, self.head))
        records, times = self.window.pending(seq, most)
        expected, size = [], 0
        for e in self.entries:
            if e[1] > seq and size < most:
                expected.append(e)
                size += e[2]
        assert [r.seq for r in records] == [e[1] for e in expected]
        assert times == [e[3] for e in expected]

    @invariant()
    def bytes_are_right(self):
        assert self.window.bytes == sum(e[2] for e in self.entries)
        assert (self.window.base, self.window.head) == (self.base, self.head)


TestWindow = Model.TestCase
TestWindow.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_gap_that_grows_keeps_its_beginning():
    window = Window(0)
    for seq in range(1, 11):
        window.append(record(seq), 1000, float(seq))
    assert window.drop(2, 5000, "e-1") == Gap(3, 7, 1003, 1007, 5, "memory")
    assert window.drop(2, 3300, "e-1") == Gap(3, 9, 1003, 1009, 2, "memory")
    assert [r.seq for r in window.after(0, 10)] == [1, 2, 9, 10]
    assert window.after(0, 10)[2].gap == Gap(3, 9, 1003, 1009, 7, "memory")


def test_the_footprint_grows_with_what_a_batch_holds():
    small = footprint(Batch(NUMBERS, 0, [1.0]))
    assert footprint(Batch(NUMBERS, 0, [1.0] * 100)) >= small + 99 * 32
    assert footprint(Batch(NUMBERS, 0, [1.0], raw=bytes(500))) >= small + 500
    times = list(range(100))
    assert footprint(Batch(NUMBERS, 0, [1.0] * 100, times=times)) >= small + 2 * 99 * 32
    assert footprint(Batch(NUMBERS, 0, [1.0] * 100, times=times, server_times=times)) >= small + 3 * 99 * 32
    assert footprint(Batch(TEXT, 0, ["x" * 10_000])) >= 10_000
    assert footprint(Batch(TEXT, 0, [{"a": ["x" * 5_000, b"y" * 5_000]}])) >= 10_000
