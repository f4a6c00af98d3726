import pytest

from gateway.acquisition.deadband import Report
from gateway.model import GOOD, Batch, Deadband, Device, Quality, ScanGroup, Tag, bad, uncertain


def group(*tags, types=None):
    types = types or ["float32"] * len(tags)
    return ScanGroup.of(Device(name="d", driver="x", url=""), tags, types=types, every_s=1.0, plan=None)


def change(name="t", **options):
    return Tag(name=name, address="", on="change", **options)


def sent(report, g, values, quality=GOOD, now=0.0, raw=None):
    out = report(Batch(g, 0, values, quality, raw=raw), now)
    if out is None:
        return None
    index = range(len(g.names)) if out.index is None else out.index
    return {g.names[i]: out.values[k] for k, i in enumerate(index)}


def test_a_tag_that_is_always_sent_is_always_sent():
    g = group(Tag(name="t", address=""))
    report = Report(g)
    batch = Batch(g, 0, [1.0])
    assert report(batch, 0.0) is batch
    assert report(batch, 1.0) is batch


def test_an_unchanged_value_is_sent_once():
    g = group(change())
    report = Report(g)
    assert sent(report, g, [1.0]) == {"t": 1.0}
    assert sent(report, g, [1.0]) is None
    assert sent(report, g, [1.5]) == {"t": 1.5}


def test_the_band_lies_around_the_last_sent_value_so_that_slow_drift_is_seen():
    g = group(change(deadband=Deadband(1.0)))
    report = Report(g)
    seen = [sent(report, g, [v]) for v in (10.0, 10.6, 11.0, 11.2, 11.9, 12.3)]
    assert seen == [{"t": 10.0}, None, None, {"t": 11.2}, None, {"t": 12.3}]


def test_a_percent_band_grows_with_the_value():
    g = group(change(deadband=Deadband(10, percent=True)))
    report = Report(g)
    assert [sent(report, g, [v]) for v in (100.0, 109.0, 112.0, 122.0)] == [{"t": 100.0}, None, {"t": 112.0}, None]


def test_a_negative_value_has_a_percent_band_too():
    g = group(change(deadband=Deadband(10, percent=True)))
    report = Report(g)
    assert [sent(report, g, [v]) for v in (-100.0, -105.0, -111.0)] == [{"t": -100.0}, None, {"t": -111.0}]


def test_only_what_changed_is_sent_beside_what_is_always_sent():
    g = group(change("a"), Tag(name="b", address=""), change("c"))
    report = Report(g)
    sent(report, g, [1.0, 2.0, 3.0])
    assert sent(report, g, [1.0, 2.0, 4.0]) == {"b": 2.0, "c": 4.0}


def test_a_silent_tag_beats_after_its_maximum_silence():
    g = group(change(max_silence_s=60.0))
    report = Report(g)
    times = [now for now in range(0, 200, 10) if sent(report, g, [1.0], now=float(now)) is not None]
    assert times == [0, 60, 120, 180]


def test_the_heartbeat_counts_from_the_last_sent_value():
    g = group(change(max_silence_s=60.0))
    report = Report(g)
    sent(report, g, [1.0], now=0.0)
    sent(report, g, [2.0], now=50.0)
    assert sent(report, g, [2.0], now=70.0) is None
    assert sent(report, g, [2.0], now=110.0) == {"t": 2.0}


def test_equal_raw_bytes_are_not_looked_at_but_still_beat():
    g = group(change(max_silence_s=60.0))
    report = Report(g)
    sent(report, g, [1.0], raw=b"a", now=0.0)
    assert sent(report, g, [9.0], raw=b"a", now=1.0) is None
    assert sent(report, g, [9.0], raw=b"a", now=61.0) == {"t": 9.0}


def test_a_change_of_quality_is_sent_even_when_the_value_stays():
    g = group(change())
    report = Report(g)
    sent(report, g, [1.0])
    assert sent(report, g, [1.0], [uncertain("nan")]) == {"t": 1.0}
    assert sent(report, g, [1.0]) == {"t": 1.0}


@pytest.mark.parametrize("on", ["always", "change"])
def test_an_outage_is_sent_once_and_its_end_once(on):
    g = group(Tag(name="a", address="", on=on), Tag(name="b", address="", on=on))
    report = Report(g)
    assert sent(report, g, [1.0, 2.0]) == {"a": 1.0, "b": 2.0}
    assert sent(report, g, [None, None], bad("timeout")) == {"a": None, "b": None}
    assert sent(report, g, [None, None], bad("timeout"), now=9.0) is None
    assert sent(report, g, [None, None], bad("offline"), now=10.0) == {"a": None, "b": None}
    assert sent(report, g, [1.0, 2.0], now=11.0) == {"a": 1.0, "b": 2.0}


def test_an_outage_beats_as_well():
    g = group(change("a", max_silence_s=60.0), change("b"))
    report = Report(g)
    sent(report, g, [None, None], bad("timeout"), now=0.0)
    assert sent(report, g, [None, None], bad("timeout"), now=30.0) is None
    assert sent(report, g, [None, None], bad("timeout"), now=60.0) == {"a": None}


def test_a_part_of_good_values_says_good_for_all():
    g = group(change("a"), change("b"))
    report = Report(g)
    sent(report, g, [1.0, None], [GOOD, bad("exception:2")])
    out = report(Batch(g, 0, [2.0, None], [GOOD, bad("exception:2")]), 1.0)
    assert out.quality is GOOD
    assert list(out.index) == [0]


def test_booleans_strings_and_lists_are_compared_as_they_are():
    g = group(change("a"), change("b"), change("c"), types=["bool", "string", "bits"])
    report = Report(g)
    sent(report, g, [True, "x", [1, 2]])
    assert sent(report, g, [True, "x", [1, 2]]) is None
    assert sent(report, g, [False, "y", [1, 3]]) == {"a": False, "b": "y", "c": [1, 3]}


def test_source_times_travel_with_their_values():
    g = group(change("a"), change("b"))
    report = Report(g)
    report(Batch(g, 5, [1.0, 2.0], times=[1, 2]), 0.0)
    out = report(Batch(g, 9, [1.0, 3.0], times=[6, 7]), 0.0)
    assert list(out.times) == [7]


def test_a_sparse_batch_is_judged_by_its_own_positions():
    g = group(change("a"), change("b"))
    report = Report(g)
    sent(report, g, [1.0, 2.0])
    assert report(Batch(g, 0, [2.0], index=[1]), 1.0) is None
    assert list(report(Batch(g, 0, [2.5], index=[1]), 1.0).values) == [2.5]


def test_values_with_one_quality_that_is_not_bad_are_no_outage():
    """An OPC UA server may say of all values that they are good but clamped, or of uncertain worth: they change on."""
    g = group(change("a"), change("b"))
    for quality in (Quality("good:GoodClamped"), uncertain("UncertainLastUsableValue")):
        report = Report(g)
        assert sent(report, g, [1.0, 1.0], quality) == {"a": 1.0, "b": 1.0}
        assert sent(report, g, [1.0, 2.0], quality) == {"b": 2.0}
        assert sent(report, g, [1.0, 2.0], quality) is None
        assert sent(report, g, [1.0, 2.0]) == {"a": 1.0, "b": 2.0}, "that they are simply good now is news"


@pytest.mark.parametrize("odd", [None, "on", [1.0]])
def test_a_group_of_numbers_that_turns_out_to_hold_something_else_is_compared_all_the_same(odd):
    g = group(change("a"), change("b"))
    report = Report(g)
    sent(report, g, [1.0, 2.0])
    assert sent(report, g, [1.0, odd]) == {"b": odd}
    assert sent(report, g, [1.0, odd]) is None
    assert sent(report, g, [1.5, odd]) == {"a": 1.5}


def test_the_times_of_servers_and_the_mark_of_history_travel_with_their_values():
    g = group(change("a"), change("b"))
    report = Report(g)
    report(Batch(g, 5, [1.0, 2.0]), 0.0)
    out = report(Batch(g, 6, [1.0, 3.0], GOOD, None, [1, 2], None, [3, 4], is_history=True), 1.0)
    assert (out.index, out.times, out.server_times, out.is_history) == ([1], [2], [4], True)


def pushed(*tags):
    device = Device(name="d", driver="x", url="")
    return ScanGroup.of(device, tags, types=["float64"] * len(tags), every_s=1.0, plan=None, is_pushed=True)


def test_of_a_pushed_group_it_is_known_when_and_what_to_say_again():
    g = pushed(Tag(name="a", address="", max_silence_s=100.0), change("b", max_silence_s=1000.0), change("c"))
    report = Report(g)
    assert report.next_beat == float("inf")
    assert report(Batch(g, 0, [1.0, 2.0, 3.0]), 0.0) is not None
    at = report.next_beat
    assert 90 <= at <= 100
    assert report.overdue(at - 11) == []
    assert report.overdue(at) == [0]
    report.note(Batch(g, 0, [1.0], GOOD, [0]), at)
    assert report.next_beat == pytest.approx(2 * at)
    report(Batch(g, 0, [5.0, 2.0, 3.0]), at + 20)
    assert report.next_beat == pytest.approx(2 * at + 20), "it was heard of meanwhile"
    assert report.overdue(1000.0) == [0, 1], "what has no max_silence is never said again"


def test_what_was_said_again_is_what_a_deadband_lies_around():
    g = pushed(change("a", deadband=Deadband(1.0), max_silence_s=10.0))
    report = Report(g)
    report(Batch(g, 0, [10.0]), 0.0)
    report.note(Batch(g, 0, [10.9], GOOD, [0]), 10.0)
    assert report(Batch(g, 0, [11.5]), 11.0) is None
    assert report(Batch(g, 0, [12.0]), 12.0) is not None


def test_a_polled_group_has_its_max_silence_to_the_second():
    g = group(Tag(name="a", address="", max_silence_s=100.0))
    batch = Batch(g, 0, [1.0])
    assert Report(g)(batch, 0.0) is batch
