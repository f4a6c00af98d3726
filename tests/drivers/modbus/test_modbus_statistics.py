"""Counts and turnaround of units: right within a step, forgetting, of fixed size, and few rows of metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.lines.statistics import Statistics


@pytest.fixture
def statistics(metrics):
    return Statistics("bus", {1, 2}, metrics)


def test_what_was_counted_is_found_under_line_and_unit(statistics, count):
    statistics.tallies[1].requests.value += 3
    statistics.tallies[2].requests.value += 1
    statistics.tallies[2].crc_errors.value += 1
    assert count("modbus_requests_total") == 4
    assert count("modbus_requests_total", line="bus", unit="1") == 3
    assert count("modbus_crc_errors_total", unit="2") == 1


def test_a_unit_that_never_answered_has_no_turnaround_and_its_gauges_say_nought(statistics, count):
    assert statistics.turnaround(1) is None
    assert statistics.turnaround(77) is None
    assert count("modbus_turnaround_seconds", unit="1") == 0
    assert "none answered" in repr(statistics)


def test_units_that_no_device_has_share_one_row(statistics, metrics):
    before = len(list(metrics))
    assert statistics.tallies[3] is statistics.tallies[247]
    for unit in range(3, 248):
        statistics.tallies[unit].timeouts.value += 1
    rows = [(labels["unit"], value) for name, labels, value in metrics if name == "modbus_timeouts_total" and value]
    assert rows == [("other", 245)]
    assert len(list(metrics)) - before < 10


@given(st.lists(st.floats(20e-6, 60), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_that_of_the_sorted_list_within_five_percent(kit, times, share):
    tally = Statistics("bus", {1}, kit.Metrics()).tallies[1]
    for seconds in times:
        tally.note(seconds)
    exact = sorted(times)[max(0, -int(-share * len(times) // 1) - 1)]
    assert tally.turnaround(share) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, 1e9, float("inf")])
def test_times_beyond_the_table_are_counted_at_its_ends(statistics, seconds):
    statistics.tallies[1].note(seconds)
    assert 15e-6 < statistics.turnaround(1) < 100


def test_what_was_long_ago_is_forgotten_and_nothing_grows(statistics, count):
    tally = statistics.tallies[1]
    for _ in range(100_000):
        tally.note(1.0)
    for _ in range(3000):
        tally.note(0.01)
    assert statistics.turnaround(1) == pytest.approx(0.01, rel=0.05)
    for _ in range(10_000):
        tally.note(0.01)
    assert tally.turnaround(0.99) == pytest.approx(0.01, rel=0.05)
    assert count("modbus_turnaround_seconds", quantile="0.5") == pytest.approx(0.01, rel=0.05)
    assert sum(tally._steps) < 2 * 1000
    assert "ms" in repr(statistics)
