"""Records: every batch comes back value for value, type for type."""

import json
import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.frame import Head
from gateway.model import GOOD, Batch, Definition, Quality, bad, uncertain
from gateway.spool.record import Gap, Payload, Record, decode, gap_record

TIME = 1_795_330_000_123


def definition(n, device="pump"):
    return Definition(device, tuple(f"t{i}" for i in range(n)), ("float32",) * n, ("",) * n, (None,) * n)


def round_trip(*records):
    payload = Payload(records[0].seq)
    for record in records:
        assert payload.add(record, 7, 1 << 30)
    head = Head(first_seq=payload.first_seq, last_seq=payload.last_seq, count=payload.count, store=0xABCDEF, start=3)
    known = {key: Definition.from_document(entry) for key, entry in payload.entries.items()}
    return decode(head, payload.sealed(), known.get)


def same(a, b):
    """Equal, of the same type, and NaN is NaN, bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return a == b


floats32 = st.floats(width=32)
text = st.text() | st.text(st.characters(min_codepoint=0xD7FE, max_codepoint=0xE001))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**63 - 2, 2**64 + 2)
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | floats32
    | text
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)
qualities = st.sampled_from([GOOD, bad("timeout"), bad("exception:2"), uncertain("nan"), Quality("bad:new one")])


@st.composite
def batches(draw):
    n = draw(st.integers(1, 8))
    group = definition(n)
    index = draw(st.none() | st.sets(st.integers(0, n - 1), min_size=1).map(sorted))
    k = n if index is None else len(index)
    return Batch(
        group,
        draw(st.integers(0, 2**53)),
        draw(st.lists(values, min_size=k, max_size=k)),
        draw(qualities | st.lists(qualities, min_size=k, max_size=k)),
        index,
        draw(st.none() | st.lists(st.integers(0, 2**53), min_size=k, max_size=k)),
        draw(st.none() | st.binary()),
    )


@settings(deadline=None)
@given(st.lists(batches(), min_size=1, max_size=5), st.integers(0, 2**63))
def test_batches_come_back_exactly_as_they_were(given_batches, first):
    records = [Record(first + 2 * k, "abcdef-3", b) for k, b in enumerate(given_batches)]
    found = round_trip(*records)
    assert [r.seq for r in found] == [r.seq for r in records]
    for record, back in zip(records, found, strict=True):
        assert (back.epoch, back.kind, back.gap) == ("abcdef-3", "batch", None)
        batch = back.batch
        assert same(list(record.batch.values), batch.values)
        assert batch.time == record.batch.time
        assert batch.quality == record.batch.quality
        assert type(batch.quality) is type(record.batch.quality)
        assert batch.index == record.batch.index
        assert batch.times == record.batch.times
        assert batch.raw is None, "raw is not stored"
        assert type(batch.group) is Definition
        assert batch.group.hash == record.batch.group.hash
        assert batch.group.names == record.batch.group.names


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        struct.unpack(">d", bytes.fromhex("7ff8000000000123"))[0],
        math.inf,
        -math.inf,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        struct.unpack(">f", struct.pack(">f", 0.1))[0],
        1.0,
        1,
        True,
        False,
        None,
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
        pytest.param(10**5000, id="10**5000"),
        "",
        "null",
        "grün ☃ 😀",
        "\ud800 broken",
        "nul \x00 in it",
        b"",
        b"\x00\xff",
        [],
        {},
        [None, math.nan, [b"x"]],
        {"f": "7ff8"},
        {"o": 1, "null": None},
        {"a": {"b": math.inf}},
    ],
)
@pytest.mark.parametrize("beside", [[], [None], [math.nan, None], ["null"]])
def test_each_value_comes_back_alone_and_beside_others(value, beside):
    batch = Batch(definition(1 + len(beside)), TIME, [value, *beside])
    (back,) = round_trip(Record(5, "abcdef-3", batch))
    assert same(batch.values, back.batch.values)


def test_a_plain_batch_takes_the_fast_path_and_comes_back_with_the_good_quality_itself():
    payload = Payload(5)
    payload.add(Record(5, "abcdef-3", Batch(definition(2), TIME, (1.5, None))), 7, 1 << 20)
    assert json.loads(payload.sealed())["records"] == [[0, 7, 0, TIME, [1.5, None]]]
    (back,) = round_trip(Record(5, "abcdef-3", Batch(definition(2), TIME, (1.5, None))))
    assert back.batch.quality is GOOD


def test_a_gap_comes_back():
    gap = Gap(10, 2**64 - 1, TIME, TIME + 5, 12, "memory")
    assert round_trip(gap_record(gap, "abcdef-3"), Record(20, "abcdef-3", Batch(definition(1), TIME, [1])))[0] == (
        gap_record(gap, "abcdef-3")
    )


def test_a_definition_is_written_once_and_told_from_another_by_its_content():
    one, again, other = definition(2), definition(2), definition(2, "valve")
    payload = Payload(1)
    for seq, group in enumerate((one, again, other, one), 1):
        payload.add(Record(seq, "abcdef-3", Batch(group, TIME, [1, 2])), 0, 1 << 20)
    assert set(payload.entries) == {one.hash, other.hash}


def test_a_record_whose_definition_is_lost_is_a_gap_and_the_others_are_read():
    one, other = definition(2), definition(2, "valve")
    payload = Payload(1)
    for seq, group in enumerate((one, other, one), 1):
        payload.add(Record(seq, "abcdef-3", Batch(group, TIME, [1, 2])), 0, 1 << 20)
    known = {one.hash: one}
    found = decode(Head(first_seq=1), payload.sealed(), known.get)
    assert [r.kind for r in found] == ["batch", "gap", "batch"]
    assert found[1].gap == Gap(2, 2, TIME, TIME, 1, "damaged")


def test_a_kind_of_a_later_version_is_skipped():
    records = b'{"groups":[],"records":[[0,1,-7,{"what":"ever"}],[1,1,-1,[1,2,3,4,2,"memory"]]]}'
    (found,) = decode(Head(first_seq=1), records, lambda key: None)
    assert found.gap == Gap(1, 2, 3, 4, 2, "memory")


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_refused_with_a_value_error_and_nothing_else(data):
    with pytest.raises(ValueError):
        decode(Head(), data, lambda key: None)


@pytest.mark.parametrize(
    "document",
    [
        b"[]",
        b"{}",
        b'{"groups":[],"records":[[]]}',
        b'{"groups":[],"records":[[0,0,0,0,[]]]}',
        b'{"groups":["zz"],"records":[]}',
        b'{"groups":["00"],"records":[[0,0,0,0,[],"good",null,null]]}',
        b'{"groups":["00"],"records":[[0,0,0,0,[{"x":1}],"good",null,null,1]]}',
        b'{"groups":[],"records":[["a",0,0]]}',
        b'{"groups":[],"records":[[0,0,-1,[1]]]}',
    ],
)
def test_a_payload_of_another_shape_is_refused(document):
    with pytest.raises(ValueError, match="cannot be read"):
        decode(Head(), document, lambda key: definition(1))


def test_what_no_driver_may_hand_over_does_not_stop_the_writer():
    deep = current = []
    for _ in range(2000):
        current.append([])
        current = current[0]

    class Odd:
        def __str__(self):
            return "odd"

    batch = Batch(definition(4), TIME, [deep, Odd(), {1: 2}, bytearray(b"x")])
    (back,) = round_trip(Record(1, "abcdef-3", batch))
    assert back.batch.values[1:] == ["odd", {1: 2}, b"x"]


def test_nonsense_in_the_time_of_a_batch_does_not_reach_the_head():
    payload = Payload(1)
    payload.add(Record(1, "abcdef-3", Batch(definition(1), 10**30, [1])), 0, 1 << 20)
    payload.add(Record(2, "abcdef-3", Batch(definition(1), -(10**30), [1])), 0, 1 << 20)
    assert payload.max_time == 1 << 62
    assert payload.min_time == -(1 << 62)


def test_a_payload_refuses_what_would_make_it_too_long_but_always_takes_the_first():
    payload = Payload(1)
    batch = Batch(definition(1), TIME, ["x" * 1000])
    assert payload.add(Record(1, "e", batch), 0, 100)
    size = payload.size
    assert not payload.add(Record(2, "e", batch), 0, 100)
    assert (payload.count, payload.last_seq, payload.size) == (1, 1, size)
    assert payload.add(Record(2, "e", batch), 0, 4000)
    assert len(payload.sealed()) + sum(map(len, payload.entries.values())) <= payload.size


def test_the_part_of_a_gap_above_a_position():
    gap = Gap(10, 20, 1, 2, 11, "evicted")
    assert gap.after(5) is gap
    assert gap.after(14) == replace(gap, first_seq=15, count=6)
    assert gap.joined(Gap(21, 30, 3, 4, 5, "evicted")) == Gap(10, 30, 1, 4, 16, "evicted")
