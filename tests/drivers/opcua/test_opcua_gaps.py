"""Gaps filled from history: exactly, in order, once, whatever the server's habits; against a scripted historian."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.faults import ServiceFault
from drivers.opcua.listening import gaps as gaps_module
from drivers.opcua.listening.gaps import Gaps, Span
from drivers.opcua.listening.history import Trail
from drivers.opcua.nodes.known import Known
from drivers.opcua.options import DeviceOptions
from drivers.opcua.plan import compile_groups
from drivers.opcua.values.codes import NAMES
from drivers.opcua.values.columns import ticks_of
from drivers.opcua.values.structures import Structures
from gateway.errors import LineError
from gateway.model import GOOD, Device, Tag

CODES = {name: high << 16 for high, name in NAMES.items()}
START = 1_700_000_000_000 - 30 * 86_400_000
"""Where the tests' time begins, in ms; a tenth of a ms is a tick of 1000."""


def at(ms):
    return ticks_of(0) + round((START + ms) * 10_000)


def moment(ticks):
    return ua.win_epoch_to_datetime(ticks)


class Historian:
    """A server that remembers: `data` has (ticks, value) or (ticks, value, code) by the node's identifier.

    `habits` change what it does, `faults` are raised in turn, `answers` replaces the result of a node.
    """

    line = "opc.tcp://historian:4840"
    namespaces = ()

    def __init__(self, data, *, most=1000, page=None, points=True, most_points=10**9, faults=()):
        self.data = data
        self.limits = SimpleNamespace(max_history_nodes=most)
        self.structures = Structures()
        self.page = page
        self.has_points = points
        self.most_points = most_points
        self.faults = list(faults)
        self.refused = {}
        self.fault_of = {}
        self.descending = False
        self.has_bounds = False
        self.repeats_point = False
        self.never_ends = False
        self.stamps = {"Source", "Server", "Both"}
        self.fault_above = None
        self.latency_s = 0.01
        self.lag = {}
        self.asked = []
        self.released = []
        self.points = {}
        self.numbers = iter(range(1, 10**9))
        self.broken = None
        self.most_at_once = self.at_once = 0

    async def fetch(self, request, *, timeout_s):
        assert timeout_s is None
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.latency_s)
            return self.answer(request)
        finally:
            self.at_once -= 1

    def answer(self, request):
        parameters = request.Parameters
        details = parameters.HistoryReadDetails
        nodes = [(node.NodeId.Identifier, node.ContinuationPoint) for node in parameters.NodesToRead]
        assert 0 < len(nodes) <= self.limits.max_history_nodes
        if parameters.ReleaseContinuationPoints:
            self.released += [point for _, point in nodes]
            for _, point in nodes:
                self.points.pop(point, None)
            return self.encode([ua.HistoryReadResult() for _ in nodes])
        assert not details.IsReadModified
        assert not details.ReturnBounds
        assert 0 < details.NumValuesPerNode * len(nodes) <= 5000
        self.asked.append((details, nodes, parameters))
        if self.broken is not None and len(self.asked) > self.broken:
            raise LineError("gone", cause="offline")
        if self.faults and (fault := self.faults.pop(0)):
            raise ServiceFault(CODES[fault], fault, "HistoryRead")
        if self.fault_above and len(nodes) > self.fault_above[0]:
            raise ServiceFault(CODES[self.fault_above[1]], self.fault_above[1], "HistoryRead")
        for node, _ in nodes:
            if name := self.fault_of.get(node):
                raise ServiceFault(CODES[name], name, "HistoryRead")
        return self.encode([self.result(node, point, details, parameters) for node, point in nodes])

    def encode(self, results):
        response = ua.HistoryReadResponse()
        response.Results = results
        return struct_to_binary(response)

    def result(self, node, point, details, parameters):
        name = self.refused.get(node, "")
        if parameters.TimestampsToReturn.name not in self.stamps:
            name = "BadTimestampNotSupported"
        rows = self.points.pop(point, None) if point else self.rows(node, details)
        if rows is None:
            name = "BadContinuationPointInvalid"
        if name:
            return ua.HistoryReadResult(StatusCode=ua.StatusCode(CODES[name]))
        return self.page_of(rows, details, parameters)

    def rows(self, node, details):
        start, end = (ua.datetime_to_win_epoch(t) for t in (details.StartTime, details.EndTime))
        now = asyncio.get_running_loop().time()
        rows = [row for row in self.data.get(node, ()) if now >= self.lag.get(row[0], 0)]
        inside = [row for row in rows if start <= row[0] < end]
        if self.has_bounds:
            inside = [row for row in rows if row[0] < start][-1:] + inside + [r for r in rows if r[0] >= end][:1]
        return inside[::-1] if self.descending else inside

    def page_of(self, rows, details, parameters):
        result = ua.HistoryReadResult()
        most = min(details.NumValuesPerNode, self.page or 10**9)
        page, rest = rows[:most], rows[most:]
        if self.never_ends:
            rest = rest or page
        if rest and self.has_points:
            if len(self.points) >= self.most_points:
                result.StatusCode = ua.StatusCode(CODES["BadNoContinuationPoints"])
                return result
            key = b"again" if self.repeats_point else str(next(self.numbers)).encode()
            self.points[key] = rest
            result.ContinuationPoint = key
        if not page:
            result.StatusCode = ua.StatusCode(CODES["GoodNoData"])
        elif rest and not self.has_points and self.page:
            result.StatusCode = ua.StatusCode(CODES["GoodMoreData"])
        result.HistoryData = ua.HistoryData(DataValues=[self.value(row, parameters) for row in page])
        return result

    def value(self, row, parameters):
        ticks, value, code = (*row, 0)[:3]
        both = parameters.TimestampsToReturn.name
        return ua.DataValue(
            ua.Variant(value),
            ua.StatusCode(code) if code else None,
            moment(ticks) if both in {"Source", "Both"} else None,
            moment(ticks + 50_000) if both == "Both" else moment(ticks) if both == "Server" else None,
        )


def plant(tags, *, every_s=1.0, remembers=True, device=None, **options):
    """Groups of one device with such tags, and what is known of each."""
    made = tuple(Tag(name=f"t{i}", address=f"ns=2;i={i}", every_s=every_s, type="int64") for i in range(tags))
    own = DeviceOptions(**options)
    device = Device(name=device or "plc", driver="opcua", url="opc.tcp://h", options=own, tags=made)
    groups = compile_groups(device, made)
    known = [Known(node=ua.NodeId(i, 2), access=5 if remembers else 1, type="int64", builtin=8) for i in range(tags)]
    return groups, known


def spans_of(groups, known, after, before):
    """The same gap for all."""
    pairs = [(group, position) for group in groups for position in range(len(group.tags))]
    return [Span(group, position, known[i], at(after), at(before)) for i, (group, position) in enumerate(pairs)]


def samples(batches):
    """(tag, ms, value) in the order in which they came."""
    found = []
    for batch in batches:
        assert batch.is_history
        assert batch.time == max(batch.times)
        index = range(len(batch.group.tags)) if batch.index is None else batch.index
        assert list(index) == sorted(set(index))
        found += [
            (batch.group.names[i], time - START, value)
            for i, time, value in zip(index, batch.times, batch.values, strict=True)
        ]
    return found


def by_tag(batches):
    found = {}
    for tag, ms, value in samples(batches):
        found.setdefault(tag, []).append((ms, value))
    return found


@pytest.fixture
def fill(run, clock, metrics):
    def go(server, spans, *, fills=1, reader=None, **options):
        async def main():
            gaps = Gaps(server, DeviceOptions(**options), clock=clock, metrics=metrics)
            batches = []
            for _ in range(fills):
                batches = [batch async for batch in gaps.fill(spans)]
                clock.skip(100)  # what was said a minute ago may be said again
            return batches if reader is None else await reader(gaps)

        return run(main())

    return go


def counter(values, period=1000, first=0):
    """A node that counts: k at k periods."""
    return [(at(first + k * period), k) for k in range(values)]


# --- exactly ----------------------------------------------------------------------------------------------------------


def test_what_lies_strictly_between_both_values_comes_once_and_in_order(fill, count):
    groups, known = plant(2)
    server = Historian({0: counter(100), 1: counter(100)})
    batches = fill(server, spans_of(groups, known, 10_000, 20_000))
    expected = [(k * 1000, k) for k in range(11, 20)]
    assert by_tag(batches) == {"t0": expected, "t1": expected}
    assert [batch.time - START for batch in batches] == [ms for ms, _ in expected]
    assert all(batch.index is None for batch in batches)
    assert all(batch.quality is GOOD for batch in batches)
    assert count("opcua_history_values_total") == 18
    assert count("opcua_history_unfilled_total") == 0


def test_ticks_below_a_microsecond_are_told_apart(fill):
    groups, known = plant(1)
    ticks = at(1000)
    server = Historian({0: [(ticks + 10 * k, k) for k in range(-3, 4)]})
    span = Span(groups[0], 0, known[0], ticks - 11, ticks + 11)
    assert [value for _, _, value in samples(fill(server, [span]))] == [-1, 0, 1]
    assert [v for _, _, v in samples(fill(server, [replace(span, after=ticks - 10, before=ticks + 10)]))] == [0]


def test_each_tag_has_a_gap_of_its_own(fill):
    groups, known = plant(3)
    server = Historian({i: counter(100) for i in range(3)})
    spans = [Span(groups[0], i, known[i], at(1000 * i), at(1000 * (i + 3))) for i in range(3)]
    assert by_tag(fill(server, spans)) == {
        f"t{i}": [((i + 1) * 1000, i + 1), ((i + 2) * 1000, i + 2)] for i in range(3)
    }


def test_two_gaps_of_one_tag_are_filled_one_after_the_other(fill):
    groups, known = plant(1)
    server = Historian({0: counter(100)})
    spans = [Span(groups[0], 0, known[0], at(a), at(b)) for a, b in ((1000, 4000), (50_000, 53_000))]
    assert [value for _, _, value in samples(fill(server, spans))] == [2, 3, 51, 52]


@pytest.mark.parametrize(
    ("after", "before"), [(5000, 5000), (5000, 4000), (5000, 5000.0001)], ids=["none", "negative", "one tick"]
)
def test_a_gap_without_room_is_none(fill, after, before):
    groups, known = plant(1)
    server = Historian({0: counter(10)})
    assert fill(server, spans_of(groups, known, after, before)) == []
    assert server.asked == []


def test_a_tag_that_was_never_heard_of_has_no_gap(fill):
    groups, known = plant(1)
    server = Historian({0: counter(10)})
    assert fill(server, [Span(groups[0], 0, known[0], 0, at(9000))]) == []
    assert server.asked == []


@pytest.mark.parametrize("before", [2**63 - 1, 2_650_467_743_990_000_000, at(33 * 86_400_000)])
def test_a_gap_that_ends_in_a_future_that_no_clock_can_mean_is_counted_and_not_read(fill, count, before):
    groups, known = plant(1)
    server = Historian({0: counter(10)})
    assert fill(server, [Span(groups[0], 0, known[0], at(1000), before)]) == []
    assert server.asked == []
    assert count("opcua_history_unfilled_total", cause="clock") == 1


def test_a_gap_is_read_though_our_clock_is_not_set_yet(fill, clock, monkeypatch):
    groups, known = plant(1)
    monkeypatch.setattr(clock, "wall_ms", lambda: 5_000)
    monkeypatch.setattr(clock, "state", lambda: "unsynced")
    server = Historian({0: counter(10)})
    assert by_tag(fill(server, [Span(groups[0], 0, known[0], at(1000), at(4000))]))


def test_nodes_without_history_and_devices_that_want_none_are_not_asked(fill):
    server = Historian({0: counter(10)})
    groups, known = plant(1, remembers=False)
    assert fill(server, spans_of(groups, known, 0, 5000)) == []
    groups, known = plant(1, history="off")
    known = [replace(known[0], access=5)]
    assert fill(server, spans_of(groups, known, 0, 5000)) == []
    assert server.asked == []


def test_status_and_null_are_told_as_live_ones_are(fill):
    groups, known = plant(1)
    rows = [(at(1000), 1, 0x40900000), (at(2000), None, 0x808C0000), (at(3000), 3, 0x00000401), (at(4000), 4)]
    batches = fill(Historian({0: rows}), spans_of(groups, known, 0, 5000))
    told = [
        (batch.values[0], batch.quality if isinstance(batch.quality, str) else batch.quality[0]) for batch in batches
    ]
    assert told == [(1, "uncertain:UncertainLastUsableValue"), (None, "bad:BadSensorFailure"), (3, "good"), (4, "good")]


def test_an_array_part_is_asked_for_as_it_is_subscribed(fill):
    tag = Tag(name="a", address="ns=2;i=0", options={"index_range": "1:2"})
    device = Device(name="plc", driver="opcua", url="opc.tcp://h", options=DeviceOptions(), tags=(tag,))
    (group,) = compile_groups(device, [tag])
    server = Historian({0: counter(5)})
    fill(server, [Span(group, 0, Known(node=ua.NodeId(0, 2), access=5), at(0), at(4000))])
    assert {node.IndexRange for _, _, parameters in server.asked for node in parameters.NodesToRead} == {"1:2"}


@pytest.mark.parametrize(
    ("options", "times", "servers"),
    [
        ({}, [1000], None),
        ({"server_times": True}, [1000], [1005]),
        ({"time": "server"}, [1005], None),
    ],
)
def test_times_are_whose_the_device_says(fill, options, times, servers):
    groups, known = plant(1, **options)
    (batch,) = fill(Historian({0: [(at(1000), 1)]}), spans_of(groups, known, 0, 2000))
    assert [time - START for time in batch.times] == times
    assert (batch.server_times and [time - START for time in batch.server_times]) == servers


# --- in parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "habits",
    [
        {},
        {"page": 7},
        {"points": False},
        {"page": 7, "points": False},
        {"page": 1},
        {"most": 2},
        {"most": 1, "page": 3, "points": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("has_bounds", [False, True], ids=["", "bounds"])
def test_a_long_gap_comes_whole_however_a_server_cuts_it(fill, count, habits, has_bounds):
    groups, known = plant(3)
    server = Historian({i: counter(400) for i in range(3)}, **habits)
    server.has_bounds = has_bounds
    batches = fill(server, spans_of(groups, known, 0, 399_000))
    expected = [(k * 1000, k) for k in range(1, 399)]
    assert by_tag(batches) == {f"t{i}": expected for i in range(3)}
    assert [batch.time - START for batch in batches] == [ms for ms, _ in expected]
    assert server.points == {}
    assert count("opcua_history_unfilled_total") == 0
    assert server.most_at_once <= 2


def test_many_values_come_in_windows_and_few_are_held_at_once(run, clock, metrics, monkeypatch):
    monkeypatch.setattr(gaps_module, "_LEAST_WINDOW", 200)
    groups, known = plant(4)
    server = Historian({i: counter(3000) for i in range(4)})
    held = []

    async def main():
        gaps = Gaps(server, DeviceOptions(), clock=clock, metrics=metrics)
        history = gaps._history
        batches = []
        async for batch in gaps.fill(spans_of(groups, known, 0, 2_999_000)):
            held.append(history.found)
            batches.append(batch)
        return batches

    batches = run(main())
    expected = [(k * 1000, k) for k in range(1, 2999)]
    assert by_tag(batches) == {f"t{i}": expected for i in range(4)}
    assert [batch.time for batch in batches] == sorted(batch.time for batch in batches)
    assert max(held) <= 600
    assert len({details.StartTime for details, _, _ in server.asked}) > 10


def test_a_window_that_is_fuller_than_thought_is_handed_on_in_parts(run, clock, metrics, monkeypatch):
    monkeypatch.setattr(gaps_module, "_LEAST_WINDOW", 100)
    groups, known = plant(2, every_s=60.0)
    server = Historian({i: counter(6000, period=10) for i in range(2)}, page=50)
    held = []

    async def main():
        gaps = Gaps(server, DeviceOptions(), clock=clock, metrics=metrics)
        batches = []
        async for batch in gaps.fill(spans_of(groups, known, 0, 59_990)):
            held.append(gaps._history.found)
            batches.append(batch)
        return batches

    found = by_tag(run(main()))
    assert found == {f"t{i}": [(k * 10, k) for k in range(1, 5999)] for i in range(2)}
    assert max(held) <= 400


def test_windows_become_shorter_where_there_is_more_than_was_thought(fill, count, monkeypatch):
    monkeypatch.setattr(gaps_module, "_LEAST_WINDOW", 100)
    groups, known = plant(1)
    server = Historian({0: counter(6000, period=100)})
    assert len(samples(fill(server, spans_of(groups, known, 0, 599_900)))) == 5998
    ends = sorted({details.EndTime for details, _, _ in server.asked})
    assert (ends[-2] - ends[-3]) * 2 < ends[1] - ends[0]
    assert count("opcua_history_requests_total") == len(server.asked)


def test_a_gap_of_sparse_values_takes_few_requests(fill):
    groups, known = plant(10, max_history="30d")
    day = 86_400_000
    server = Historian({i: [(at(day * k), k) for k in range(20)] for i in range(10)})
    batches = fill(server, spans_of(groups, known, 0, 19 * day))
    assert {len(found) for found in by_tag(batches).values()} == {18}
    assert len(server.asked) < 80


def test_groups_are_filled_side_by_side(fill):
    groups, known = plant(2500)
    assert len(groups) == 3
    server = Historian({i: counter(20) for i in range(2500)}, most=700)
    batches = fill(server, spans_of(groups, known, 3000, 9000))
    assert Counter(tag for tag, _, _ in samples(batches)) == dict.fromkeys([f"t{i}" for i in range(2500)], 5)
    assert {len(batch.values) for batch in batches} == {1000, 500}


def test_a_tag_that_comes_more_often_begins_new_batches_and_time_never_goes_back(fill):
    groups, known = plant(2)
    server = Historian({0: counter(40, period=250), 1: counter(10)})
    batches = fill(server, spans_of(groups, known, 0, 9000))
    assert [batch.time for batch in batches] == sorted(batch.time for batch in batches)
    assert Counter(tag for tag, _, _ in samples(batches)) == {"t0": 35, "t1": 8}


# --- habits of servers ------------------------------------------------------------------------------------------------


def test_the_newest_first_is_put_in_order(fill):
    groups, known = plant(2)
    server = Historian({i: counter(100) for i in range(2)}, page=9)
    server.descending = True
    expected = [(k * 1000, k) for k in range(1, 90)]
    assert by_tag(fill(server, spans_of(groups, known, 0, 90_000))) == {"t0": expected, "t1": expected}
    server.has_points = False
    assert by_tag(fill(server, spans_of(groups, known, 0, 90_000))) == {"t0": expected, "t1": expected}


def test_two_values_of_one_time_stay_both_and_in_their_order(fill):
    groups, known = plant(1)
    rows = [(at(1000), 1), (at(2000), 2), (at(2000), 7), (at(2000), 2), (at(3000), 3)]
    batches = fill(Historian({0: rows}), spans_of(groups, known, 0, 4000))
    assert samples(batches) == [("t0", 1000, 1), ("t0", 2000, 2), ("t0", 2000, 7), ("t0", 3000, 3)]


@pytest.mark.parametrize("points", [True, False])
@pytest.mark.parametrize("page", [2, 3])
def test_two_values_of_one_time_survive_the_end_of_a_page(fill, page, points):
    groups, known = plant(1)
    rows = [(at(1000), 1), (at(2000), 2), (at(2000), 7), (at(3000), 3), (at(4000), 4)]
    batches = fill(Historian({0: rows}, page=page, points=points), spans_of(groups, known, 0, 5000))
    assert [value for _, _, value in samples(batches)] == [1, 2, 7, 3, 4]


def test_what_comes_when_newer_values_are_out_is_thrown_away_and_counted():
    trail = Trail(node=None, part=None, position=0, after=0, before=100, edge=0)
    trail.found = [(20, 0, "b", 0, 0), (10, 0, "a", 0, 0)]
    assert [row[0] for row in trail.settle()] == [10, 20]
    trail.found = [(15, 0, "late", 0, 0), (20, 0, "b", 0, 0), (30, 0, "c", 0, 0)]
    assert [row[0] for row in trail.settle()] == [30]
    assert (trail.late, trail.count) == (1, 3)


def test_so_many_values_of_one_time_come_and_of_more_of_them_it_is_said_that_some_are_missing():
    trail = Trail(node=None, part=None, position=0, after=0, before=100, edge=0)
    trail.found = [(20, 0, k % 64, 0, 0) for k in range(200)]
    assert [row[2] for row in trail.settle()] == list(range(64))
    assert not trail.doubt
    trail.found = [(20, 0, 64, 0, 0), (30, 0, 65, 0, 0)]
    assert [row[2] for row in trail.settle()] == [65]
    assert trail.doubt == "crowded"


def test_what_lies_outside_is_dropped_and_counted(fill, count):
    groups, known = plant(1)

    class Babbler(Historian):
        def result(self, node, point, details, parameters):
            result = super().result(node, point, details, parameters)
            result.HistoryData.DataValues += [self.value((at(ms), 99), parameters) for ms in (-60_000, 900_000)]
            return result

    server = Babbler({0: counter(10)})
    assert by_tag(fill(server, spans_of(groups, known, 2000, 6000))) == {"t0": [(3000, 3), (4000, 4), (5000, 5)]}
    assert count("opcua_history_dropped_total") == 2


def test_a_point_that_comes_again_ends_and_the_rest_is_asked_for_by_time(fill, count):
    groups, known = plant(1)
    server = Historian({0: counter(100)}, page=10)
    server.repeats_point = True
    batches = fill(server, spans_of(groups, known, 0, 99_000))
    assert by_tag(batches) == {"t0": [(k * 1000, k) for k in range(1, 99)]}
    assert len(server.asked) < 30


def test_a_server_that_never_ends_is_given_up_and_its_point_released(fill, count):
    groups, known = plant(1)
    server = Historian({0: counter(10)})
    server.never_ends = True
    batches = fill(server, spans_of(groups, known, 0, 9000))
    assert by_tag(batches) == {"t0": [(k * 1000, k) for k in range(1, 9)]}
    assert len(server.asked) < 30
    assert server.points == {}
    assert server.released
    assert count("opcua_history_unfilled_total", cause="continuation") == 1


def test_more_values_at_one_time_than_a_server_gives_are_left_and_counted(fill, count):
    groups, known = plant(1)
    rows = [(at(1000), k) for k in range(30)] + [(at(2000), 99)]
    server = Historian({0: rows}, page=10, points=False)
    batches = fill(server, spans_of(groups, known, 0, 3000))
    assert [value for _, _, value in samples(batches)] == [*range(10), 99]
    assert len(server.asked) < 10
    assert count("opcua_history_unfilled_total", cause="crowded") == 1


def test_a_server_that_knows_no_parts_of_a_millisecond_is_read_on_too(fill):
    groups, known = plant(1)

    class Coarse(Historian):
        def answer(self, request):
            details = request.Parameters.HistoryReadDetails
            if details.StartTime is not None:
                details.StartTime = details.StartTime.replace(microsecond=details.StartTime.microsecond // 1000 * 1000)
            return super().answer(request)

    server = Coarse({0: counter(20)}, page=1, points=False)
    assert by_tag(fill(server, spans_of(groups, known, 0, 19_000))) == {"t0": [(k * 1000, k) for k in range(1, 19)]}


def test_a_server_that_gives_the_same_for_ever_is_given_up(fill, count):
    groups, known = plant(1)

    class Parrot(Historian):
        def result(self, node, point, details, parameters):
            result = super().result(node, None, details, parameters)
            result.HistoryData = ua.HistoryData(DataValues=[self.value((at(1000), 1), parameters)])
            result.StatusCode = ua.StatusCode(CODES["GoodMoreData"])
            return result

    server = Parrot({0: counter(20)})
    assert by_tag(fill(server, spans_of(groups, known, 0, 19_000))) == {"t0": [(1000, 1)]}
    assert len(server.asked) < 10
    assert count("opcua_history_unfilled_total", cause="continuation") == 1


def test_a_server_with_few_continuation_points_is_asked_for_less_at_once(fill, count):
    groups, known = plant(8)
    server = Historian({i: counter(50) for i in range(8)}, page=10, most_points=3)
    batches = fill(server, spans_of(groups, known, 0, 49_000))
    assert by_tag(batches) == {f"t{i}": [(k * 1000, k) for k in range(1, 49)] for i in range(8)}
    assert count("opcua_history_unfilled_total") == 0


def test_a_server_without_continuation_points_is_asked_for_shorter_times(fill, count):
    groups, known = plant(1)
    server = Historian({0: counter(50)}, page=10, most_points=0)
    batches = fill(server, spans_of(groups, known, 0, 49_000))
    assert by_tag(batches) == {"t0": [(k * 1000, k) for k in range(1, 49)]}
    assert count("opcua_history_unfilled_total") == 0


@pytest.mark.parametrize("name", ["BadTooManyOperations", "BadResponseTooLarge", "BadHistoryOperationUnsupported"])
def test_a_server_that_bears_fewer_nodes_than_it_says_gets_fewer(fill, count, name):
    groups, known = plant(10)
    server = Historian({i: counter(20) for i in range(10)})
    server.fault_above = (3, name)
    batches = fill(server, spans_of(groups, known, 0, 19_000))
    assert by_tag(batches) == {f"t{i}": [(k * 1000, k) for k in range(1, 19)] for i in range(10)}
    assert count("opcua_history_unfilled_total") == 0


def test_one_node_that_spoils_every_request_is_found_and_left_out(fill, count):
    groups, known = plant(16)
    server = Historian({i: counter(20) for i in range(16)})
    server.fault_of = {11: "BadNodeIdUnknown"}
    batches = fill(server, spans_of(groups, known, 0, 19_000))
    assert set(by_tag(batches)) == {f"t{i}" for i in range(16)} - {"t11"}
    assert count("opcua_history_unfilled_total", cause="BadNodeIdUnknown") == 1


@pytest.mark.parametrize("stamps", [{"Source"}, {"Server"}])
def test_a_server_with_one_sort_of_times_is_asked_for_that(fill, stamps):
    groups, known = plant(3, server_times=True)
    server = Historian({i: counter(20) for i in range(3)})
    server.stamps = stamps
    batches = fill(server, spans_of(groups, known, 0, 19_000))
    assert by_tag(batches) == {f"t{i}": [(k * 1000, k) for k in range(1, 19)] for i in range(3)}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_a_server_has_and_does_each_value_comes_once(kit, data):
    tags = data.draw(st.integers(1, 4))
    rows = {
        i: sorted(
            {(at(ms * 10), ms) for ms in data.draw(st.lists(st.integers(-5, 300), max_size=60))},
        )
        for i in range(tags)
    }
    habits = {
        "page": data.draw(st.sampled_from([None, 1, 2, 7])),
        "points": data.draw(st.booleans()),
        "most": data.draw(st.sampled_from([1, 2, 1000])),
    }
    server = Historian(rows, **habits)
    server.descending = habits["page"] != 1 and data.draw(st.booleans())  # of one value nobody can tell
    server.has_bounds = habits["page"] != 1 and data.draw(st.booleans())
    groups, known = plant(tags, every_s=data.draw(st.sampled_from([0.01, 1.0, 60.0])))
    bounds = [sorted(data.draw(st.tuples(st.integers(0, 3000), st.integers(0, 3000)))) for _ in range(tags)]
    spans = [Span(groups[0], i, known[i], at(a), at(b)) for i, (a, b) in enumerate(bounds)]

    async def main():
        gaps = Gaps(server, DeviceOptions(), clock=kit.VirtualClock(), metrics=kit.Metrics())
        return [batch async for batch in gaps.fill(spans)]

    with asyncio.Runner(loop_factory=kit.VirtualLoop) as virtual:
        found = by_tag(virtual.run(main()))
    expected = {
        f"t{i}": [(ms * 10, ms) for _, ms in rows[i] if bounds[i][0] < ms * 10 < bounds[i][1]] for i in range(tags)
    }
    assert found == {tag: values for tag, values in expected.items() if values}
    assert server.points == {}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["BadHistoryOperationUnsupported", "BadUserAccessDenied", "BadNotReadable", "BadNodeIdUnknown"]
)
def test_a_node_that_is_refused_is_not_asked_again_in_this_session_and_said_once(fill, count, caplog, name):
    groups, known = plant(3)
    server = Historian({i: counter(20) for i in range(3)})
    server.refused = {1: name}
    batches = fill(server, spans_of(groups, known, 0, 19_000), fills=3)
    assert set(by_tag(batches)) == {"t0", "t2"}
    asked = [node for _, nodes, _ in server.asked for node, _ in nodes]
    assert asked.count(1) == 1
    assert asked.count(0) == 3
    assert count("opcua_history_unfilled_total", cause=name) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{server.line}: the gap is not filled from history throughout: {name} (1 tags); the first is plc/t1"
    ]


def test_a_new_session_asks_again(fill):
    groups, known = plant(1)
    server = Historian({0: counter(20)})
    server.refused = {0: "BadUserAccessDenied"}

    async def read(gaps):
        server.refused = {}
        spans = spans_of(groups, known, 0, 3000)
        before = [batch async for batch in gaps.fill(spans)]
        gaps.forget()
        return before, [batch async for batch in gaps.fill(spans)]

    before, after = fill(server, spans_of(groups, known, 0, 3000), reader=read)
    assert before == []
    assert by_tag(after) == {"t0": [(1000, 1), (2000, 2)]}


@pytest.mark.parametrize("name", ["BadNoData", "BadNoDataAvailable"])
def test_no_data_for_one_time_says_nothing_of_another(fill, count, name):
    groups, known = plant(1)
    server = Historian({0: counter(20)})
    server.refused = {0: name}

    async def read(gaps):
        server.refused = {}
        return [batch async for batch in gaps.fill(spans_of(groups, known, 0, 3000))]

    assert by_tag(fill(server, spans_of(groups, known, 0, 3000), reader=read)) == {"t0": [(1000, 1), (2000, 2)]}


@pytest.mark.parametrize("name", ["BadHistoryOperationUnsupported", "BadServiceUnsupported"])
def test_a_server_without_history_refuses_a_few_times_and_is_not_asked_again(fill, count, name):
    groups, known = plant(600)
    server = Historian({}, most=1000)
    server.fault_above = (0, name)
    fill(server, spans_of(groups, known, 0, 19_000), fills=2)
    assert len(server.asked) < 20
    assert count("opcua_history_unfilled_total", cause=name) == 1200


def test_a_failure_that_may_pass_is_counted_and_tried_again_the_next_time(fill, count):
    groups, known = plant(1)
    server = Historian({0: counter(20)})
    server.refused = {0: "BadUnexpectedError"}

    async def read(gaps):
        server.refused = {}
        return [batch async for batch in gaps.fill(spans_of(groups, known, 0, 3000))]

    assert by_tag(fill(server, spans_of(groups, known, 0, 3000), reader=read)) == {"t0": [(1000, 1), (2000, 2)]}
    assert count("opcua_history_unfilled_total", cause="BadUnexpectedError") == 1


@pytest.mark.parametrize("body", [b"", b"\x01\x00\x9b\x02" + b"\0" * 24 + b"\xff\xff\xff\x7f"])
def test_an_answer_that_is_none_is_a_failure_of_these_tags_alone(fill, count, body):
    groups, known = plant(4)

    class Liar(Historian):
        def encode(self, results):
            return body if self.asked else super().encode(results)

    server = Liar({i: counter(20) for i in range(4)})
    assert fill(server, spans_of(groups, known, 0, 19_000)) == []
    assert count("opcua_history_unfilled_total", cause="decode") == 4
    assert len(server.asked) < 20


def test_an_answer_about_other_nodes_than_asked_is_not_believed(fill, count):
    groups, known = plant(2)

    class Miscounter(Historian):
        def encode(self, results):
            return super().encode(results[:1] * 3)

    assert fill(Miscounter({i: counter(20) for i in range(2)}), spans_of(groups, known, 0, 19_000)) == []
    assert count("opcua_history_unfilled_total", cause="decode") == 2


def test_a_historian_that_does_not_answer_costs_two_waits_and_not_the_line(fill, count, clock):
    groups, known = plant(50)
    server = Historian({i: counter(20) for i in range(50)}, most=5)
    server.latency_s = 1e6
    took = {}

    async def read(gaps):
        began = clock.monotonic()
        found = [batch async for batch in gaps.fill(spans_of(groups, known, 0, 19_000))]
        took["s"] = clock.monotonic() - began
        return found

    assert fill(server, [], reader=read, timeout="1s") == []
    assert took["s"] < 10
    assert count("opcua_history_unfilled_total", cause="timeout") == 50


# --- bounds and ends --------------------------------------------------------------------------------------------------


def test_more_than_max_history_is_cut_counted_and_said(fill, count, caplog):
    groups, known = plant(2, max_history="10s")
    server = Historian({i: counter(100) for i in range(2)})
    batches = fill(server, spans_of(groups, known, 0, 60_000))
    assert by_tag(batches) == {f"t{i}": [(k * 1000, k) for k in range(51, 60)] for i in range(2)}
    assert count("opcua_history_cut_total") == 2
    assert "the gap of 2 tags is longer than max_history" in caplog.text


def test_a_line_that_is_lost_says_so_and_what_is_left_can_be_filled_later(run, clock, metrics, monkeypatch, count):
    monkeypatch.setattr(gaps_module, "_LEAST_WINDOW", 100)
    groups, known = plant(2)
    server = Historian({i: counter(1000) for i in range(2)})
    server.broken = 9

    async def main():
        gaps = Gaps(server, DeviceOptions(), clock=clock, metrics=metrics)
        batches = []
        filling = gaps.fill(spans_of(groups, known, 0, 999_000))
        try:
            async for batch in filling:
                batches.append(batch)  # noqa: PERF401 - what came before the error counts
        except LineError:
            server.broken = None
        assert server.broken is None
        first, left = len(batches), gaps.left
        batches += [batch async for batch in gaps.fill(left)]
        return first, batches, gaps.left

    first, batches, left = run(main())
    assert 0 < first < len(batches)
    assert by_tag(batches) == {f"t{i}": [(k * 1000, k) for k in range(1, 999)] for i in range(2)}
    assert left == ()
    assert count("opcua_history_unfilled_total", cause="unfinished") == 2


def test_who_closes_early_gets_the_rest_later_and_the_server_is_told(run, clock, metrics, monkeypatch):
    monkeypatch.setattr(gaps_module, "_LEAST_WINDOW", 100)
    groups, known = plant(2, every_s=60.0)
    server = Historian({i: counter(3000, period=100) for i in range(2)}, page=20)

    async def main():
        gaps = Gaps(server, DeviceOptions(), clock=clock, metrics=metrics)
        batches, spans = [], spans_of(groups, known, 0, 299_900)
        while spans:
            async with aclosing(gaps.fill(spans)) as filling:
                async for batch in filling:
                    batches.append(batch)
                    if len(batches) % 30 == 0:
                        break
            assert server.points == {}
            spans = gaps.left
        return batches

    batches = run(main())
    assert by_tag(batches) == {f"t{i}": [(k * 100, k) for k in range(1, 2999)] for i in range(2)}
    assert server.released


def test_what_a_server_gave_to_its_end_is_not_released_again(fill):
    groups, known = plant(2)
    server = Historian({i: counter(50) for i in range(2)}, page=20)
    fill(server, spans_of(groups, known, 0, 49_000))
    assert server.asked[-1][1][0][1], "it was read with continuation points"
    assert server.released == []


def test_what_a_server_refused_to_go_on_with_is_not_released_either(fill, count):
    groups, known = plant(1)
    server = Historian({0: counter(50)}, page=20)
    first = server.result
    refusal = ua.HistoryReadResult(StatusCode=ua.StatusCode(CODES["BadUserAccessDenied"]))
    server.result = lambda node, point, *more: refusal if point else first(node, point, *more)
    fill(server, spans_of(groups, known, 0, 49_000))
    assert count("opcua_history_unfilled_total", cause="BadUserAccessDenied") == 1
    assert server.released == []


def test_a_server_that_served_some_tags_is_asked_for_others_though_it_refuses_many(fill, count):
    groups, known = plant(8)
    server = Historian({i: counter(5) for i in range(8)})
    server.fault_of = dict.fromkeys(range(1, 6), "BadHistoryOperationUnsupported")
    batches = fill(server, spans_of(groups, known, 0, 4000))
    assert set(by_tag(batches)) == {"t0", "t6", "t7"}
    assert count("opcua_history_unfilled_total", cause="BadHistoryOperationUnsupported") == 5


def test_more_values_at_one_time_than_many_tags_have_room_for_are_asked_for_alone(fill):
    groups, known = plant(200)
    data = {i: [(at(1000), k) for k in range(30)] + [(at(1500), 30)] for i in range(200)}
    found = by_tag(fill(Historian(data, points=False), spans_of(groups, known, 0, 2000)))
    assert len(found) == 200
    assert {tuple(value for _, value in rows) for rows in found.values()} == {tuple(range(31))}


def test_a_tag_without_data_for_the_time_is_no_failure(fill, count):
    groups, known = plant(2)
    server = Historian({0: counter(5)})
    server.refused[1] = "BadNoData"
    assert set(by_tag(fill(server, spans_of(groups, known, 0, 4000)))) == {"t0"}
    assert count("opcua_history_unfilled_total", cause="BadNoData") == 0


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("page", [1, 2, None])
def test_who_closes_between_values_of_one_time_gets_the_rest_later_and_none_twice(run, clock, metrics, page, stop):
    groups, known = plant(1)
    rows = [(at(1000), 1), (at(2000), 2), (at(2000), 7), (at(2000), 8), (at(3000), 3), (at(4000), 4)]
    server = Historian({0: rows}, page=page)

    async def main():
        gaps = Gaps(server, DeviceOptions(), clock=clock, metrics=metrics)
        batches, spans = [], spans_of(groups, known, 0, 5000)
        while spans:
            async with aclosing(gaps.fill(spans)) as filling:
                async for batch in filling:
                    batches.append(batch)
                    if len(batches) % stop == 0:
                        break
            spans = gaps.left
        return batches

    assert [value for _, _, value in samples(run(main()))] == [1, 2, 7, 8, 3, 4]


def test_of_two_gaps_of_one_tag_what_was_left_of_each_is_filled_later(run, clock, metrics):
    groups, known = plant(1)
    server = Historian({0: counter(100)})
    spans = [Span(groups[0], 0, known[0], at(a), at(b)) for a, b in ((1000, 5000), (50_000, 53_000))]

    async def main():
        gaps = Gaps(server, DeviceOptions(), clock=clock, metrics=metrics)
        async with aclosing(gaps.fill(spans)) as batches:
            found = [await anext(batches)]
        return found + [batch async for batch in gaps.fill(gaps.left)]

    assert [value for _, _, value in samples(run(main()))] == [2, 3, 4, 51, 52]


def test_who_is_cancelled_leaves_nothing_behind(run, clock, metrics):
    groups, known = plant(2)
    server = Historian({i: counter(3000) for i in range(2)}, page=5)

    async def main():
        gaps = Gaps(server, DeviceOptions(), clock=clock, metrics=metrics)

        async def read():
            async for _ in gaps.fill(spans_of(groups, known, 0, 2_999_000)):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.35)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    run(main())
    assert server.released
    assert server.points == {}


# --- a store that lags ------------------------------------------------------------------------------------------------


def lagging(values, seconds, late):
    """A counter whose last values come into the store some seconds after the test's begin."""
    server = Historian({0: counter(values)})
    server.lag = {ticks: 1000 + seconds for ticks, _ in server.data[0][-late:]}
    return server


@pytest.mark.parametrize("seconds", [0.9, 2.5])
def test_the_newest_values_are_waited_for_where_the_node_counts(fill, count, seconds):
    groups, known = plant(1)
    batches = fill(lagging(60, seconds, 5), spans_of(groups, known, 0, 60_000))
    assert by_tag(batches) == {"t0": [(k * 1000, k) for k in range(1, 60)]}
    assert count("opcua_history_unfilled_total") == 0


def test_a_short_gap_of_which_nothing_is_in_the_store_yet_is_waited_for(fill):
    groups, known = plant(1, every_s=0.1)
    batches = fill(lagging(5, 0.9, 5), spans_of(groups, known, 0, 5000))
    assert by_tag(batches) == {"t0": [(k * 1000, k) for k in range(1, 5)]}


def test_what_does_not_come_is_counted_and_said(fill, count, caplog):
    groups, known = plant(1)
    batches = fill(lagging(60, 100, 5), spans_of(groups, known, 0, 60_000))
    assert by_tag(batches) == {"t0": [(k * 1000, k) for k in range(1, 55)]}
    assert count("opcua_history_unfilled_total", cause="late") == 1
    assert "late (1 tags); the first is plc/t0" in caplog.text


def test_a_store_that_forgot_the_beginning_is_counted(fill, count):
    groups, known = plant(1)
    server = Historian({0: counter(60)[30:]})
    fill(server, spans_of(groups, known, 0, 60_000))
    assert count("opcua_history_unfilled_total", cause="forgotten") == 1


def test_nobody_waits_where_the_history_reaches_up_to_the_live_values(fill, clock):
    groups, known = plant(3)
    took = {}

    async def read(gaps):
        began = clock.monotonic()
        found = [batch async for batch in gaps.fill(spans_of(groups, known, 0, 60_000))]
        took["s"] = clock.monotonic() - began
        return found

    fill(Historian({i: counter(60) for i in range(3)}), [], reader=read)
    assert took["s"] < 0.5


def test_a_gap_that_ended_long_ago_is_not_waited_for(fill, clock):
    groups, known = plant(2)
    server = Historian({0: counter(10), 1: counter(1000)})
    spans = [Span(groups[0], 0, known[0], at(0), at(60_000)), Span(groups[0], 1, known[1], at(900_000), at(1_000_000))]
    took = {}

    async def read(gaps):
        began = clock.monotonic()
        found = [batch async for batch in gaps.fill(spans)]
        took["s"] = clock.monotonic() - began
        return found

    fill(server, [], reader=read)
    assert took["s"] < 0.9
