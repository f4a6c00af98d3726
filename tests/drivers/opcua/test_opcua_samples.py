"""What the server gave as samples of a batch: labels, qualities, times."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.nodes.known import Known
from drivers.opcua.options import DeviceOptions
from drivers.opcua.plan import compile_groups
from drivers.opcua.values.belief import FARTHEST, Belief
from drivers.opcua.values.columns import EPOCH, Columns, ticks_of
from drivers.opcua.values.samples import Finisher, labelled
from gateway.clock import RELEASED_MS, SystemClock
from gateway.metrics import Metrics
from gateway.model import GOOD, Device, Tag

NOW = RELEASED_MS + 1_000_000_000
LABELS = {0: "Off", 1: "On"}


class Clock(SystemClock):
    """Set, until it says otherwise."""

    worth = "synced"

    def state(self):
        return self.worth


class Bench:
    """A group of tags with these types, and its finisher."""

    def __init__(self, *types, labels=(), numbers=(), **options):
        tags = [
            Tag(name=f"t{n}", address=f"ns=2;i={n}", type=kind, options={"enum": "number"} if n in numbers else {})
            for n, kind in enumerate(types)
        ]
        device = Device(
            name="plc", driver="opcua", url="opc.tcp://x", options=DeviceOptions(**options), tags=tuple(tags)
        )
        (self.group,) = compile_groups(device, tags)
        self.absurd = Metrics().counter("absurd")
        known = [Known(node=n, labels=LABELS if n in labels else None) for n in range(len(types))]
        self.clock = Clock()
        self.finisher = Finisher(self.group, known, Belief(self.clock, self.absurd))

    def batch(self, values, codes=None, source=None, server=None, index=None, arrival=NOW, **more):
        count = len(values)
        columns = Columns([], values, codes or [0] * count, source or [0] * count, server or [0] * count)
        return self.finisher.batch(columns, arrival, index, **more)


def test_plain_good_numbers_pass_as_they_are():
    bench = Bench("float64", "int32", "bool")
    values = [1.5, 2, True]
    batch = bench.batch(values)
    assert batch.values is values
    assert batch.quality is GOOD
    assert (batch.group, batch.time, batch.index, batch.times) == (bench.group, NOW, None, None)
    assert bench.batch([math.nan, 2, True], codes=[0x480, 0, 0]).quality is GOOD


def test_each_value_has_the_quality_of_its_status_and_a_bad_one_is_none():
    batch = Bench("float64", "float64", "string", "float64").batch(
        [1.5, 2.5, "x", 3.5], codes=[0, 0x808C0000, 0x40900000, 0x00300000]
    )
    assert batch.values == [1.5, None, "x", 3.5]
    assert batch.quality == ["good", "bad:BadSensorFailure", "uncertain:UncertainLastUsableValue", "good:GoodClamped"]


def test_a_good_value_that_is_none_says_so():
    batch = Bench("float64", "string").batch([None, None], codes=[0, 0x40920000])
    assert batch.values == [None, None]
    assert batch.quality == ["bad:BadNoData", "bad:BadNoData"]


@pytest.mark.parametrize("index", [None, [1, 3]])
def test_a_numeric_tag_holds_numbers_only(index):
    bench = Bench("string", "float64", "", "int16")
    odd, quality = bench.finisher.judge(["x", [1.5], [2], "y"] if index is None else [[1.5], "y"], [0] * 4, index)
    if index is None:
        assert odd == ["x", None, [2], None]
        assert quality == [GOOD, "bad:decode", GOOD, "bad:decode"]
    else:
        assert odd == [None, None]
        assert quality == ["bad:decode"] * 2


@settings(deadline=None)
@given(st.lists(st.sampled_from([1, 1.5, True, "x", None, b"a", [1], {"a": 1}]), min_size=4, max_size=4), st.data())
def test_whatever_comes_numeric_tags_never_hold_anything_else(values, data):
    bench = Bench("float64", "string", "int16", "")
    codes = data.draw(st.lists(st.sampled_from([0, 0x80340000, 0x40900000]), min_size=4, max_size=4))
    before = list(values)
    judged, quality = bench.finisher.judge(values, codes)
    assert values == before, "what came is not changed"
    each = [quality] * 4 if isinstance(quality, str) else quality
    for place, (value, own) in enumerate(zip(judged, each, strict=True)):
        assert (value is None) is (own.level == "bad")
        assert value is None or place in (1, 3) or type(value) in (int, float, bool)


def test_an_enumeration_goes_by_its_names_unless_the_tag_wants_numbers():
    bench = Bench("string", "int32", "float64", labels=(0, 1), numbers=(1,))
    batch = bench.batch([1, 1, 1.5])
    assert batch.values == ["On", 1, 1.5]
    assert batch.quality is GOOD
    batch = bench.batch([7, 7, 1.5], codes=[0, 0, 0])
    assert batch.values == ["7", 7, 1.5]
    assert batch.quality == ["uncertain:range", GOOD, GOOD]
    batch = bench.batch([0], codes=[0x40900000], index=[0])
    assert (batch.values, batch.quality) == (["Off"], ["uncertain:UncertainLastUsableValue"])
    assert bench.batch([9], codes=[0x40900000], index=[0]).quality == ["uncertain:UncertainLastUsableValue"]
    assert bench.batch([0], codes=[0x80340000], index=[0]).values == [None]
    assert bench.batch([0], index=[1]).values == [0]


def test_arrays_of_an_enumeration_have_names_too():
    assert labelled([0, [1, 0]], LABELS) == (["Off", ["On", "Off"]], GOOD)
    assert labelled([0, 9], LABELS) == (["Off", "9"], "uncertain:range")
    assert labelled("x", LABELS) == (None, "bad:decode")


# --- times

AT = ticks_of(NOW - 5000)


@pytest.mark.parametrize(
    ("time", "source", "server", "expected"),
    [
        ("source", AT, AT + 70_000, NOW - 5000),
        ("server", AT, AT + 70_000, NOW - 4993),
        ("source", 0, AT, NOW - 5000),
        ("server", AT, 0, NOW - 5000),
    ],
)
def test_a_sample_has_the_time_that_the_options_name_or_the_other(time, source, server, expected):
    batch = Bench("float64", "float64", time=time).batch([1.5, 2.5], source=[source] * 2, server=[server] * 2)
    assert batch.times == [expected] * 2
    assert batch.time == NOW


def test_samples_without_any_time_have_that_of_their_arrival():
    bench = Bench("float64", "float64")
    assert bench.batch([1, 2]).times is None
    assert bench.batch([1, 2], source=[0, AT]).times == [NOW, NOW - 5000]
    assert bench.absurd.value == 0
    assert bench.batch([], index=[]).times is None


@pytest.mark.parametrize("wall", [0, 631_151_999_000, NOW + 86_400_001, -5])
def test_a_time_that_cannot_be_is_not_believed(wall):
    bench = Bench("float64", "float64", "float64")
    batch = bench.batch([1, 2, 3], source=[AT, ticks_of(wall), AT], server=[AT] * 3)
    assert batch.times == [NOW - 5000, NOW, NOW - 5000]
    assert bench.absurd.value == 1


@pytest.mark.parametrize("ticks", [-(2**63), 2**63 - 1, -1, 1])
def test_no_time_is_too_odd_to_be_looked_at(ticks):
    bench = Bench("float64")
    assert bench.batch([1], source=[ticks]).times == [NOW]
    assert bench.absurd.value == 1


@pytest.mark.parametrize("arrival", [5_000, NOW - 30 * 86_400_000])
def test_how_far_a_clock_is_ahead_is_not_asked_of_a_clock_that_is_not_set(arrival):
    bench = Bench("float64")
    bench.clock.worth = "unsynced"
    assert bench.batch([1], source=[AT], arrival=arrival).times == [NOW - 5000]
    assert bench.absurd.value == 0
    for ticks in (EPOCH + 5, FARTHEST + 1):
        assert bench.batch([1], source=[ticks], arrival=arrival).times == [arrival]
    assert bench.absurd.value == 2
    bench.clock.worth = "synced"
    assert bench.batch([1], source=[AT], arrival=arrival).times == [arrival]


def test_times_of_the_server_are_kept_where_they_are_asked_for():
    assert Bench("float64").batch([1], server=[AT]).server_times is None
    batch = Bench("float64", "float64", server_times=True).batch([1, 2], source=[AT] * 2, server=[AT, 0])
    assert batch.server_times == [NOW - 5000, 0]


def test_history_has_the_time_of_its_newest_value():
    bench = Bench("float64", "float64")
    batch = bench.batch([1, 2], source=[AT, AT - 10_000], index=[0, 1], is_history=True)
    assert (batch.time, batch.times, batch.is_history) == (NOW - 5000, [NOW - 5000, NOW - 5001], True)
    assert bench.batch([1], index=[0], is_history=True).time == NOW
    assert not bench.batch([1], index=[0]).is_history
