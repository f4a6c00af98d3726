"""Payloads: every record comes back value for value, type for type."""

import importlib.util
import math
import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal import frame
from gateway.journal.frame import Body, Head
from gateway.model import GOOD, Batch, Definition, Quality, bad, uncertain
from gateway.spool.columns import numbers_of
from gateway.spool.payload import Payload, decode
from gateway.spool.record import Gap, Message, Note, Record, Regime, gap_record

TIME = 1_795_330_000_123
SYNCED = 2


def definition(n, device="pump", types=None):
    return Definition(device, tuple(f"t{i}" for i in range(n)), types or ("float32",) * n, ("",) * n, (None,) * n)


def sealed(*records):
    """A payload of these records, and the head and the definitions that belong to it."""
    payload = Payload(records[0].seq)
    for record in records:
        assert payload.add(record, 7, 1 << 30)
    written = payload.sealed()
    assert len(written) + sum(map(len, payload.entries.values())) <= payload.size
    head = Head(first_seq=payload.first_seq, last_seq=payload.last_seq, count=payload.count, store=0xABCDEF, start=3)
    known = {key: Definition.from_document(entry) for key, entry in payload.entries.items()}
    return replace(head, clock=SYNCED), written, known


def round_trip(*records):
    head, written, known = sealed(*records)
    return decode(head, written, known.get)


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


types = st.sampled_from(["float32", "float64", "uint16", "uint64", "int16", "bool", "string", "json"])
usual = {
    "float32": floats32,
    "float64": st.floats(),
    "uint16": st.integers(0, 2**16 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "bool": st.booleans(),
    "string": text,
    "json": st.none(),
}
TIMES = st.integers(-(2**53), 2**53)


@st.composite
def groups(draw):
    n = draw(st.integers(1, 8))
    device = draw(st.sampled_from(["pump", "valve"]))
    return definition(n, device, tuple(draw(st.lists(types, min_size=n, max_size=n))))


@st.composite
def batches(draw, known):
    """Batches of some of these groups: most of them as declared, some not."""
    group = draw(known)
    n = len(group.names)
    index = draw(st.none() | st.sets(st.integers(0, n - 1)).map(sorted))
    places = range(n) if index is None else index
    k = len(places)
    found = [draw(usual[group.types[at]] | (values if draw(st.integers(0, 9)) == 0 else st.none())) for at in places]
    return Batch(
        group,
        draw(TIMES),
        draw(st.sampled_from([list, tuple]))(found),
        draw(qualities | st.lists(qualities, min_size=k, max_size=k)),
        index,
        draw(st.none() | st.lists(TIMES, min_size=k, max_size=k)),
        draw(st.none() | st.binary()),
        draw(st.none() | st.lists(TIMES, min_size=k, max_size=k)),
        is_history=draw(st.booleans()),
    )


@st.composite
def frames(draw):
    known = st.sampled_from(draw(st.lists(groups(), min_size=1, max_size=3)))
    return draw(st.lists(batches(known), min_size=1, max_size=12))


@settings(deadline=None, max_examples=150)
@given(frames(), st.integers(0, 2**63))
def test_batches_come_back_exactly_as_they_were(given_batches, first):
    records = [Record(first + 2 * k, "abcdef-3", b, is_thinned=k % 3 == 0) for k, b in enumerate(given_batches)]
    found = round_trip(*records)
    assert [(r.seq, r.is_thinned) for r in found] == [(r.seq, r.is_thinned) for r in records]
    for record, back in zip(records, found, strict=True):
        assert (back.epoch, back.kind, back.gap, back.regime) == ("abcdef-3", "batch", None, None)
        batch = back.batch
        assert same(list(record.batch.values), batch.values)
        assert batch.time == record.batch.time
        assert batch.quality == record.batch.quality
        assert type(batch.quality) is type(record.batch.quality)
        assert batch.index == record.batch.index
        assert batch.times == record.batch.times
        assert (batch.server_times, batch.is_history) == (record.batch.server_times, record.batch.is_history)
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


def test_values_of_any_kind_come_back_from_dense_and_sparse_batches_of_one_shape():
    draw = random.Random(1)
    group = definition(6, types=("float32", "float64", "uint16", "bool", "string", "int32"))
    rows = [
        [draw.randrange(1000) / 8, draw.gauss(0, 1), draw.randrange(9), draw.random() < 0.5, draw.choice("abc"), -k]
        for k in range(20)
    ]
    dense = [Batch(group, TIME + k, row) for k, row in enumerate(rows)]
    sparse = [Batch(group, TIME + k, row[1::2], GOOD, [1, 3, 5]) for k, row in enumerate(rows)]
    mixed = [batch for pair in zip(dense, sparse, strict=True) for batch in pair]
    found = round_trip(*(Record(seq, "abcdef-3", batch) for seq, batch in enumerate(mixed, 1)))
    assert [(r.batch.values, r.batch.index, r.batch.time) for r in found] == [
        (b.values, b.index, b.time) for b in mixed
    ]


def test_what_does_not_change_costs_next_to_nothing():
    draw = random.Random(2)
    batch = Batch(definition(100, types=("float64",) * 100), TIME, [draw.random() for _ in range(100)])
    one, many = (
        len(zlib.compress(sealed(*(Record(seq, "abcdef-3", batch) for seq in range(count)))[1], 1)) for count in (1, 60)
    )
    assert many < one + 1000


def test_a_second_of_a_thousand_samples_with_the_cursors_fits_into_two_blocks():
    path = Path(__file__).parents[2] / "bench" / "spool_data.py"
    spec = importlib.util.spec_from_file_location("spool_data", path)
    data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(data)
    document = random.Random(3).randbytes(400)
    for batches in data.seconds(count=5):
        _, written, _ = sealed(*(Record(seq, "abcdef-3", batch) for seq, batch in enumerate(batches, 1)))
        assert len(frame.seal(Head(), Body({}, document, written))) <= 2 * frame.BLOCK


def test_a_short_float_takes_four_bytes_and_one_that_is_not_takes_eight():
    short, long = [n + 0.5 for n in range(100)], [math.sqrt(2 + n * n) for n in range(100)]
    as_declared, as_found = (
        len(sealed(Record(1, "abcdef-3", Batch(definition(100), TIME, row)))[1]) for row in (short, long)
    )
    assert as_found - as_declared == 400


def test_one_odd_value_does_not_change_how_the_next_batches_of_the_group_are_stored():
    group = definition(100)
    plain = Batch(group, TIME, [n + 0.5 for n in range(100)])
    usual_length = len(sealed(Record(1, "abcdef-3", plain))[1])
    for odd in (None, 2**70, "text", math.nan, 1):
        (back,) = round_trip(Record(1, "abcdef-3", Batch(group, TIME, [odd, *plain.values[1:]])))
        assert same(back.batch.values[0], odd)
        assert len(sealed(Record(1, "abcdef-3", plain))[1]) <= usual_length + 4
    for large in (2**70, 5, 2**64 - 1, -(2**63), -1):
        (back,) = round_trip(Record(1, "abcdef-3", Batch(group, TIME, [large] * 100)))
        assert back.batch.values == [large] * 100
    assert len(sealed(Record(1, "abcdef-3", Batch(group, TIME, [2**62] * 100)))[1]) < usual_length + 500


def test_a_gap_comes_back():
    gap = Gap(10, 2**64 - 1, TIME, TIME + 5, 12, "memory")
    assert round_trip(gap_record(gap, "abcdef-3"), Record(20, "abcdef-3", Batch(definition(1), TIME, [1])))[0] == (
        gap_record(gap, "abcdef-3")
    )


def test_messages_events_and_audit_entries_come_back_among_batches():
    records = [
        Record(1, "abcdef-3", Batch(definition(2), TIME, [1.5, 2.5])),
        Record(
            2,
            "abcdef-3",
            None,
            "message",
            Message("a/b", b"\x00\n\xff", 2, retain=True, time=TIME, properties=b"\x01\x01"),
        ),
        Record(3, "abcdef-3", None, "event", Note(TIME + 1, "clock set", {"by_s": math.inf, "from": [1, None, b"x"]})),
        Record(4, "abcdef-3", None, "message", Message("ü", b"", 0, retain=False, time=TIME)),
        Record(5, "abcdef-3", None, "audit", Note(TIME + 2, "write", {})),
        Record(6, "abcdef-3", Batch(definition(2), TIME, [2.5, 3.5])),
    ]
    found = round_trip(*records)
    assert [replace(r, batch=None) for r in found] == [replace(r, batch=None) for r in records]
    assert [r.batch.values for r in found if r.batch is not None] == [[1.5, 2.5], [2.5, 3.5]]


def test_what_was_taken_by_a_clock_that_was_not_synchronised_says_so():
    boot = bytes(range(16))
    head, written, known = sealed(
        Record(1, "abcdef-3", Batch(definition(1), 5_000, [1.0])),
        Record(2, "abcdef-3", None, "event", Note(6_000, "start", {})),
    )
    for clock, is_plausible in ((0, False), (1, True)):
        unsure = replace(head, clock=clock, boot_id=boot, monotonic=3_000, wall=10_000)
        regimes = [record.regime for record in decode(unsure, written, known.get)]
        assert regimes == [Regime(boot, 7_000, is_plausible=is_plausible)] * 2
    assert [record.regime for record in decode(replace(head, clock=SYNCED), written, known.get)] == [None, None]


def test_a_kind_of_a_later_version_is_skipped_and_what_is_around_it_is_read():
    payload = Payload(1)
    message = Message("a", b"first", 0, retain=False, time=TIME)
    for seq in (1, 2, 3):
        payload.add(Record(seq, "abcdef-3", None, "message", replace(message, payload=b"%d" % seq)), 0, 1 << 20)
    payload._rows[1] = (-77, *payload._rows[1][1:])
    found = decode(Head(first_seq=1, clock=SYNCED), payload.sealed(), {}.get)
    assert [(r.seq, r.other.payload) for r in found] == [(1, b"1"), (3, b"3")]


def test_what_stands_beside_nothing_in_a_batch_does_not_stop_the_writer():
    group = definition(3)
    records = [
        Record(1, "abcdef-3", Batch(group, TIME, [1.0, 2.0, 3.0], [GOOD, bad("stale")])),
        Record(2, "abcdef-3", Batch(group, TIME, [1.0, 2.0], GOOD, [0, 1, 2], [TIME])),
        Record(3, "abcdef-3", Batch(group, TIME, [1.0, 2.0, 3.0, 4.0, 5.0])),
        Record(4, "abcdef-3", Batch(group, 10**30, [1.0], GOOD, [99], [-(10**30)])),
        Record(5, "abcdef-3", Batch(group, TIME, [None, 2, 3.0, "4", 5.0])),
        Record(6, "abcdef-3", Batch(group, TIME, [1.0, 2.0], GOOD, [0], server_times=[8, 9])),
        Record(7, "abcdef-3", Batch(group, TIME, [1.0, 2.0], server_times=[TIME, TIME + 1])),
    ]
    found = [record.batch for record in round_trip(*records)]
    assert [batch.values for batch in found[:4]] == [[1.0, 2.0], [1.0], [1.0, 2.0, 3.0, 4.0, 5.0], [1.0]]
    assert found[0].quality == [GOOD, bad("stale")]
    assert (found[1].index, found[1].times) == ([0], [TIME])
    assert found[3].index == [99]
    assert found[4].values == [None, 2, 3.0, "4", 5.0]
    assert (found[5].values, found[5].server_times) == ([1.0], [8])
    assert found[6].server_times == [TIME, TIME + 1]


def test_many_qualities_are_counted_and_come_back():
    qualities = [Quality(f"bad:exception:{n}") for n in range(100)]
    batches = [Batch(definition(1), TIME, [None], quality) for quality in qualities]
    found = round_trip(*(Record(seq, "abcdef-3", batch) for seq, batch in enumerate(batches)))
    assert [record.batch.quality for record in found] == qualities


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
    found = decode(Head(first_seq=1, clock=SYNCED), payload.sealed(), known.get)
    assert [r.kind for r in found] == ["batch", "gap", "batch"]
    assert found[1].gap == Gap(2, 2, TIME, TIME, 1, "damaged")


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_refused_with_a_value_error_and_nothing_else(data):
    for codec in (1, 2):
        with pytest.raises(ValueError):
            decode(Head(codec=codec), data, lambda key: None)


def a_bit_of_everything():
    group = definition(4, types=("float64", "uint16", "string", "bool"))
    return sealed(
        Record(1, "abcdef-3", Batch(group, TIME, [1.5, 2, "x", True])),
        Record(2, "abcdef-3", Batch(group, TIME, [2.5, 3, "y", None], [GOOD, GOOD, bad("stale"), GOOD])),
        Record(3, "abcdef-3", Batch(group, TIME, [4.5], GOOD, [0], [TIME])),
        Record(4, "abcdef-3", None, "message", Message("a", b"bytes", 1, retain=False, time=TIME)),
        gap_record(Gap(5, 9, 0, TIME, 5, "memory"), "abcdef-3"),
    )


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_touched_bytes_are_read_otherwise_or_refused_with_a_value_error_and_nothing_else(data):
    head, written, known = a_bit_of_everything()
    touched = bytearray(written)
    for _ in range(data.draw(st.integers(1, 4))):
        touched[data.draw(st.integers(0, len(touched) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(touched) - 1))
    try:
        found = decode(head, bytes(touched[:cut]), known.get)
    except ValueError:
        return
    assert len(found) <= len(written) // 48
    assert sum(len(r.batch.values) for r in found if r.batch is not None) <= len(written)


@pytest.mark.parametrize("column", ["_codes", "_times", "_streams", "_blobs", "_shapes"])
def test_a_payload_with_too_few_of_anything_is_refused(column):
    payload = Payload(1)
    batch = Batch(definition(2), TIME, [True, False], [GOOD, bad("stale")], [0, 1], [TIME, TIME + 1])
    payload.add(Record(1, "abcdef-3", batch), 0, 1 << 20)
    payload.add(Record(2, "abcdef-3", None, "message", Message("a", b"bytes", 1, retain=False, time=TIME)), 0, 1 << 20)
    whole = getattr(payload, column)
    if column == "_streams":
        whole[0][0] = whole[0][0][:1]
    elif column == "_shapes":
        (shape,) = whole
        payload._shapes = {shape._replace(places=shape.places[:1]): 0}
    else:
        whole[-1:] = [whole[-1][:-1]] if column == "_blobs" else []
    with pytest.raises(ValueError, match="cannot be read"):
        decode(Head(first_seq=1), payload.sealed(), {key: definition(2) for key in payload.entries}.get)


def test_a_payload_of_another_length_is_refused():
    head, written, known = a_bit_of_everything()
    for data in (written[:-1], written + b"\0", written[:4], b""):
        with pytest.raises(ValueError, match="cannot be read"):
            decode(head, data, known.get)


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


def test_who_does_not_know_of_servers_times_still_reads_the_sources_times():
    """They stand behind those of all sources: what an earlier version takes, batch by batch, is what it took before."""
    group = definition(2)
    own, served = [[1, 2], [5, 6]], [[1000, 2000], [3000, 4000]]
    plain = [Batch(group, TIME, [1.0, 2.0], times=own[n]) for n in range(2)]
    with_servers = [replace(batch, server_times=served[n]) for n, batch in enumerate(plain)]
    sections = []
    for batches in (plain, with_servers):
        _, written, _ = sealed(*(Record(n, "abcdef-3", batch) for n, batch in enumerate(batches, 1)))
        at, found = 0, []
        for _ in range(16):
            (length,) = struct.unpack_from("<I", written, at)
            found.append(written[at + 4 : at + 4 + length])
            at += 4 + length
        sections.append(numbers_of(found[7]))
    assert sections[0] == [1, 2, 5, 6]
    assert sections[1] == [1, 2, 5, 6, 1000, 2000, 3000, 4000]


def test_a_heads_times_reach_back_to_the_oldest_of_history():
    payload = Payload(1)
    payload.add(Record(1, "e", Batch(definition(2), TIME, [1, 2])), 0, 1 << 20)
    old = Batch(definition(2), TIME - 500, [1, 2], times=[TIME - 9000, TIME - 500], is_history=True)
    payload.add(Record(2, "e", old), 0, 1 << 20)
    assert (payload.min_time, payload.max_time) == (TIME - 9000, TIME)


def test_a_head_tells_no_times_where_history_stands_beside_those_of_a_clock_that_was_wrong():
    """It would be mended as a whole, and what is right already would be looked for elsewhere."""
    regime = Regime(bytes(16), 0, is_plausible=False)
    payload = Payload(1)
    payload.add(Record(1, "e", Batch(definition(1), 5000, [1]), regime=regime), 0, 1 << 20)
    assert (payload.min_time, payload.max_time) == (5000, 5000)
    payload.add(Record(2, "e", Batch(definition(1), TIME, [1], is_history=True), regime=regime), 0, 1 << 20)
    payload.add(Record(3, "e", Batch(definition(1), 6000, [1]), regime=regime), 0, 1 << 20)
    assert (payload.min_time, payload.max_time) == (0, 0)


def test_a_payload_refuses_what_would_make_it_too_long_but_always_takes_the_first():
    payload = Payload(1)
    batch = Batch(definition(1), TIME, ["x" * 1000])
    assert payload.add(Record(1, "e", batch), 0, 100)
    size = payload.size
    assert not payload.add(Record(2, "e", batch), 0, 100)
    assert (payload.count, payload.last_seq, payload.size) == (1, 1, size)
    assert payload.add(Record(2, "e", batch), 0, 4000)
    assert len(payload.sealed()) + sum(map(len, payload.entries.values())) <= payload.size
