"""Thinning: what stays is what tells the most, and what goes is told of."""

import itertools
import math
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.model import GOOD, Batch, Definition, Quality, bad, uncertain
from gateway.spool.record import Gap, Note, Record, gap_record
from gateway.spool.thin import thin

GROUP = Definition("pump", ("a", "b", "c"), ("float64", "int32", "string"), ("",) * 3, (None,) * 3)
OTHER = Definition("fan", ("x",), ("float64",), ("",), (None,))
EPOCH = "abcdef-1"


def dense(seq, time, values, quality=GOOD, group=GROUP, times=None):
    return Record(seq, EPOCH, Batch(group, time, values, quality, None, times))


def samples(records):
    """(tag, seq, value, quality, source time) of all values that are there."""
    found = []
    for record in records:
        batch = record.batch
        if batch is None:
            continue
        for n, value in enumerate(batch.values):
            tag = n if batch.index is None else batch.index[n]
            quality = batch.quality if isinstance(batch.quality, str) else batch.quality[n]
            found.append((batch.group.device, tag, record.seq, value, quality, batch.times and batch.times[n]))
    return found


def test_of_each_tag_the_first_last_lowest_and_highest_stay():
    values = [5.0, 7.0, 1.0, 6.0, 9.0, 2.0, 3.0]
    records = [dense(n, 1000 * n, [value, 100 - n, "on"]) for n, value in enumerate(values, 1)]
    kept = thin(records, 60_000)
    by_tag = {tag: [seq for _, t, seq, *_ in samples(kept) if t == tag] for tag in range(3)}
    assert by_tag == {0: [1, 3, 5, 7], 1: [1, 7], 2: [1, 7]}
    (gap,) = [r.gap for r in kept if r.gap is not None]
    assert gap == Gap(2, 6, 2000, 6000, 3, "thinned")
    assert [r.seq for r in kept] == [1, 3, 5, 6, 7], "the gap stands where the last of those was that vanished"
    assert [r.is_thinned for r in kept] == [False, True, True, False, False]
    assert kept[1].batch.index == [0]
    assert kept[1].batch.time == 3000


def test_each_window_has_its_own():
    records = [dense(n, 1000 * n, [float(n), n, "on"]) for n in range(60)]
    kept = thin(records, 10_000)
    assert [seq for _, tag, seq, *_ in samples(kept) if tag == 0] == [n for n in range(60) if n % 10 in (0, 9)]


def test_text_stays_where_it_changes():
    texts = ["on", "on", "on", "off", "off", "on", "on", "on"]
    records = [dense(n, n, [0.0, 0, text]) for n, text in enumerate(texts)]
    assert [(seq, v) for _, tag, seq, v, *_ in samples(thin(records, 60_000)) if tag == 2] == [
        (0, "on"),
        (3, "off"),
        (5, "on"),
        (7, "on"),
    ]


def test_of_each_run_of_a_quality_the_first_and_last_stay():
    qualities = [GOOD] * 4 + [bad("timeout")] * 4 + [uncertain("nan")] * 3 + [GOOD] * 4
    records = [dense(n, n, [1.0 if q is GOOD else None, n, "on"], [q, GOOD, GOOD]) for n, q in enumerate(qualities)]
    kept = [(seq, quality) for _, tag, seq, _, quality, _ in samples(thin(records, 60_000)) if tag == 0]
    runs = [(0, GOOD), (3, GOOD), (4, bad("timeout")), (7, bad("timeout")), (8, uncertain("nan"))]
    assert kept == [*runs, (10, uncertain("nan")), (11, GOOD), (14, GOOD)]


def test_a_value_that_is_no_number_hides_no_extreme():
    values = [math.nan, 3.0, 9.0, None, -2.0, 4.0, math.nan]
    records = [dense(n, n, [value, 0, ""]) for n, value in enumerate(values)]
    kept = {seq for _, tag, seq, *_ in samples(thin(records, 60_000)) if tag == 0}
    assert {0, 2, 4, 6} <= kept


def test_source_times_and_sparse_batches_keep_what_belongs_together():
    records = [
        Record(n, EPOCH, Batch(GROUP, n, [float(-n), n], [GOOD, bad("stale")], [0, 1], [n + 10, n + 20]))
        for n in range(1, 9)
    ]
    kept = thin(records, 60_000)
    for _, tag, seq, value, quality, time in samples(kept):
        assert (value, quality, time) == ((-seq, GOOD, seq + 10), (seq, bad("stale"), seq + 20))[tag]
    assert {r.seq for r in kept if r.batch} == {1, 8}


def test_what_is_no_batch_stays_and_earlier_gaps_of_thinning_become_one():
    gap = gap_record(Gap(2, 5, 2, 5, 4, "damaged"), EPOCH)
    note = Record(6, EPOCH, None, "event", Note(6, "door", {"open": True}))
    earlier = gap_record(Gap(8, 12, 8, 12, 3, "thinned"), EPOCH)
    records = [dense(1, 1, [1.0, 1, ""]), gap, note, dense(7, 7, [1.0, 1, ""]), earlier, dense(13, 13, [1.0, 1, ""])]
    kept = thin([*records, dense(14, 14, [1.0, 1, ""])], 60_000)
    assert [r.seq for r in kept] == [1, 5, 6, 13, 14]
    assert kept[1] == gap
    assert kept[2] == note
    assert kept[3].gap == Gap(7, 13, 7, 13, 5, "thinned")


def test_groups_do_not_mix():
    records = [dense(n, n, [float(n)], group=OTHER) if n % 2 else dense(n, n, [float(n), n, ""]) for n in range(20)]
    kept = samples(thin(records, 60_000))
    assert {seq for device, tag, seq, *_ in kept if device == "fan"} == {1, 19}
    assert {seq for device, tag, seq, *_ in kept if device == "pump" and tag == 0} == {0, 18}


VALUES = st.one_of(
    st.integers(-5, 5),
    st.floats(allow_nan=True, width=32),
    st.booleans(),
    st.none(),
    st.sampled_from(["on", "off"]),
)
QUALITIES = st.sampled_from([GOOD, GOOD, GOOD, bad("timeout"), uncertain("nan")])


@st.composite
def histories(draw):
    records, time = [], 0
    is_plain = draw(st.booleans())
    for seq in range(1, draw(st.integers(2, 40))):
        time += draw(st.integers(0, 4000))
        tags = sorted(draw(st.sets(st.integers(0, 2), min_size=1)))
        if is_plain:
            records.append(dense(seq, time, [draw(st.floats(-9, 9)), draw(st.integers(-9, 9)), "x"]))
        else:
            quality = draw(st.one_of(QUALITIES, st.lists(QUALITIES, min_size=len(tags), max_size=len(tags))))
            values = [draw(VALUES) for _ in tags]
            times = draw(st.one_of(st.none(), st.just([time + n for n in range(len(tags))])))
            records.append(Record(seq, EPOCH, Batch(GROUP, time, values, quality, tags, times)))
    return records


def is_number(value):
    return isinstance(value, int | float) and value == value  # noqa: PLR0124 - NaN does not


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(histories(), st.sampled_from([1000, 10_000]))
def test_what_stays_is_the_true_first_last_lowest_and_highest(records, window):
    kept = thin(records, window)
    before, after = samples(records), samples(kept)
    assert {repr(s) for s in after} <= {repr(s) for s in before}, "nothing is made up"
    times = {r.seq: r.batch.time for r in records}
    for tag in range(3):
        for moment in {time // window for time in times.values()}:
            olds = [s for s in before if s[1] == tag and times[s[2]] // window == moment]
            news = [s for s in after if s[1] == tag and times[s[2]] // window == moment]
            if not olds:
                continue
            assert (repr(news[0]), repr(news[-1])) == (repr(olds[0]), repr(olds[-1]))
            numbers = [s[3] for s in olds if is_number(s[3]) and s[4].level != "bad"]
            left = [s[3] for s in news if is_number(s[3]) and s[4].level != "bad"]
            if numbers:
                assert (min(left), max(left)) == (min(numbers), max(numbers))
            for one, other in itertools.pairwise(olds):
                if one[4] != other[4]:
                    assert {one[2], other[2]} <= {s[2] for s in news}, "the ends of runs of a quality"
    _check_what_is_told(records, kept)


def _check_what_is_told(records, kept):
    gone = [r.seq for r in records if r.seq not in {k.seq for k in kept if k.batch is not None}]
    gaps = [r.gap for r in kept if r.gap is not None]
    assert [(g.first_seq, g.last_seq, g.count) for g in gaps] == ([(gone[0], gone[-1], len(gone))] if gone else [])
    seqs = [r.seq for r in kept]
    assert seqs == sorted(set(seqs))
    again = {r.seq: r for r in records}
    for record in kept:
        if record.batch is not None:
            old = again[record.seq]
            assert record.batch.time == old.batch.time
            assert record.is_thinned == (len(record.batch.values) < len(old.batch.values))


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_to_thin_twice_brings_nothing_back(records):
    once = thin(records, 10_000)
    assert {r.seq for r in thin(once, 10_000) if r.batch} <= {r.seq for r in once if r.batch}


def test_history_is_thinned_by_itself_and_keeps_what_there_is_to_say():
    """It stands between newer records: neither is the first or last of the other's window."""
    records = []
    for n in range(8):
        live = Batch(GROUP, 100_000 + n, [float(n), n, "on"])
        times, served = [10_000 + n, n, n], [20_000 + n, 0, 0]
        old = Batch(GROUP, 100_000, [100.0 + n, n, "on"], GOOD, None, times, None, served, is_history=True)
        records += [Record(2 * n + 1, EPOCH, live), Record(2 * n + 2, EPOCH, old)]
    kept = [r for r in thin(records, 60_000) if r.batch is not None]
    assert [r.seq for r in kept if not r.batch.is_history] == [1, 15]
    past = [r for r in kept if r.batch.is_history]
    assert [r.seq for r in past] == [2, 16]
    assert past[0].batch is records[1].batch
    (middle,) = thin([*records[1:2], Record(3, EPOCH, _spike(records[1].batch)), *records[3::2]], 60_000)[1:2]
    assert middle.batch.is_history
    assert (middle.batch.index, middle.batch.times, middle.batch.server_times) == ([0], [10_000], [20_000])


def _spike(batch):
    return replace(batch, values=[999.0, 0, "on"])


def test_a_good_value_with_a_status_of_its_own_counts_like_any_other():
    clamped = Quality("good:GoodClamped")
    values = [5.0, 7.0, 1.0, 6.0, 9.0, 2.0, 3.0]
    records = [dense(n, n, [value, 0, "on"], clamped) for n, value in enumerate(values, 1)]
    assert [seq for _, tag, seq, *_ in samples(thin(records, 60_000)) if tag == 0] == [1, 3, 5, 7]
