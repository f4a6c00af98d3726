"""Records: what they say of themselves."""

from dataclasses import replace

from gateway.model import GOOD, Batch, Definition, bad
from gateway.spool.record import Gap, Message, Note, Record, gap_record, quality_of

TIME = 1_795_330_000_123


def test_the_part_of_a_gap_above_a_position():
    gap = Gap(10, 20, 1, 2, 11, "evicted")
    assert gap.after(5) is gap
    assert gap.after(14) == replace(gap, first_seq=15, count=6)
    assert gap.joined(Gap(21, 30, 3, 4, 5, "evicted")) == Gap(10, 30, 1, 4, 16, "evicted")


def test_every_kind_of_record_knows_its_time():
    group = Definition("pump", ("a",), ("float32",), ("",), (None,))
    assert Record(1, "abcdef-3", Batch(group, TIME, [1.0])).time == TIME
    assert gap_record(Gap(1, 2, 5, TIME, 2, "memory"), "abcdef-3").time == TIME
    assert Record(1, "abcdef-3", None, "message", Message("a/b", b"", 1, retain=False, time=TIME)).time == TIME
    assert Record(1, "abcdef-3", None, "event", Note(TIME, "start", {})).time == TIME


def test_only_a_gap_is_a_gap_and_it_bears_the_number_of_the_last_one_lost():
    gap = Gap(1, 7, 5, TIME, 2, "memory")
    assert (gap_record(gap, "abcdef-3").seq, gap_record(gap, "abcdef-3").gap) == (7, gap)
    assert Record(1, "abcdef-3", None, "event", Note(TIME, "start", {})).gap is None


def test_the_good_quality_comes_back_as_the_very_object_that_others_compare_with():
    assert quality_of("good") is GOOD
    assert quality_of("bad:timeout") == bad("timeout")
    assert type(quality_of("bad:odd")) is type(GOOD)
