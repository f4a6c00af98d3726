from collections import Counter

import pytest

from gateway.acquisition.schedule import Schedule, first_due


def test_entries_come_in_the_order_of_their_due_times():
    schedule = Schedule([1.0, 1.0, 1.0], [0.5, 0.2, 0.9])
    assert [schedule.pop(1.0) for _ in range(4)] == [1, 0, 2, None]
    assert schedule.next_due == pytest.approx(1.2)


def test_polls_that_a_busy_line_missed_are_counted_and_never_made_up_for():
    schedule = Schedule([1.0], [0.0])
    assert schedule.pop(0.0) == 0
    assert schedule.pop(5.4) == 0
    assert schedule.pop(5.4) is None
    assert schedule.missed == 4  # the points 2, 3, 4 and 5 passed; 1 is the one read late
    assert schedule.next_due == pytest.approx(6.0)


def test_the_grid_does_not_drift_when_polls_are_late():
    schedule = Schedule([0.1], [0.0])
    for k in range(1000):
        assert schedule.pop(k * 0.1 + 0.03) == 0
    assert schedule.missed == 0
    assert schedule.next_due == pytest.approx(100.0)


def test_a_hurried_entry_comes_early_and_keeps_its_grid():
    schedule = Schedule([3600.0, 1.0], [10.0, 0.0])
    assert schedule.pop(10.0) == 1
    schedule.hurry(0, 5.0)
    assert schedule.pop(10.0) == 0
    assert schedule.pop(10.0) is None  # the reading serves the grid point of the same moment as well
    assert schedule.missed == 10  # of entry 1 alone: an entry that was hurried missed nothing


def test_hurrying_never_delays():
    schedule = Schedule([1.0], [2.0])
    schedule.hurry(0, 3.0)
    assert schedule.next_due == 2.0


def test_after_a_pause_everything_is_due_once_and_nothing_is_called_missed():
    schedule = Schedule([1.0, 10.0], [0.0, 4.0])
    schedule.resume(100.5)
    assert {schedule.pop(100.5), schedule.pop(100.5)} == {0, 1}
    assert schedule.pop(100.5) is None
    assert schedule.missed == 0
    assert schedule.next_due == pytest.approx(101.0)


def test_a_schedule_without_entries_is_never_due():
    assert Schedule([], []).pop(1e9) is None


def test_first_due_times_of_equal_periods_are_spread_over_the_period():
    due = [first_due(i, 0.1, 77.7) for i in range(100)]
    slots = Counter(round(at, 3) for at in due)
    assert len(slots) in (10, 11)
    assert max(slots.values()) <= 12
    assert min(due) >= 77.7
    assert max(due) < 77.7 + 0.1 + 0.01


def test_lines_that_started_apart_share_their_slots():
    assert all(
        first_due(i, 1.0, 5.0 + i / 7) * 100 == pytest.approx(round(first_due(i, 1.0, 5.0 + i / 7) * 100))
        for i in range(50)
    )


def test_a_tag_read_once_an_hour_is_first_read_within_two_seconds():
    assert all(first_due(i, 3600.0, 0.0) < 2.01 for i in range(1000))
