from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.acquisition.schedule import NEVER, Schedule, first_due


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


def drain(schedule, now):
    order = []
    while (i := schedule.pop(now)) is not None:
        order.append(i)
    return order


def test_of_what_is_due_the_earliest_deadline_goes_first():
    schedule = Schedule([10.0, 1.0, 5.0], [0.0, 3.0, 1.0])
    assert drain(schedule, 3.5) == [1, 2, 0]  # deadlines 4, 6 and 10


def test_at_equal_deadlines_an_alarm_goes_before_data():
    schedule = Schedule([1.0, 1.0, 0.5], [0.0, 0.0, 0.5], [2, 0, 1])
    assert drain(schedule, 0.7) == [1, 2, 0]


def test_a_parked_entry_is_due_again_when_it_is_hurried_or_rejoins():
    schedule = Schedule([1.0, 1.0], [0.0, 0.0])
    schedule.park(0)
    schedule.park(1)
    assert drain(schedule, 5.0) == []
    assert schedule.next_due == float("inf")
    schedule.resume(6.0)
    assert drain(schedule, 6.0) == []
    schedule.hurry(0, 6.2)
    schedule.rejoin(1, 6.2)
    assert drain(schedule, 6.2) == [0]
    assert drain(schedule, 7.0) == [0, 1]
    assert schedule.missed == 0


def test_an_entry_without_a_grid_is_due_when_it_is_called_and_once():
    never = float("inf")
    schedule = Schedule([1.0, never], [0.0, never])
    schedule.call(1, 5.0, 1.0)
    schedule.call(1, 3.0, 0.2)
    assert [schedule.pop(3.5) for _ in range(3)] == [0, 1, None]  # deadlines 1.0 and 3.2
    assert drain(schedule, 100.0) == [0]
    schedule.call(1, 101.0, 1.0)
    schedule.call(1, never, 1.0)
    assert drain(schedule, 200.0) == [0]


def test_missed_polls_are_told_for_each_entry():
    schedule = Schedule([1.0, 1.0, 5.0], [0.0, 0.5, 0.0])
    drain(schedule, 0.5)
    drain(schedule, 4.2)
    assert [schedule.missed_of([i]) for i in range(4)] == [3, 2, 0, 0]
    assert schedule.missed == schedule.missed_of(range(3)) == 5


@given(st.lists(st.floats(0.05, 20.0), min_size=1, max_size=8), st.floats(0.01, 0.5))
def test_whoever_waits_is_served_though_the_line_has_too_much_to_do(periods, takes):
    schedule, now, served = Schedule(periods, [0.0] * len(periods)), 0.0, [[0.0] for _ in periods]
    while now < 200.0:
        i = schedule.pop(now)
        if i is None:
            now = max(now, schedule.next_due)
            continue
        served[i].append(now)
        now += takes
    for period, times in zip(periods, served, strict=True):
        # It falls due within a period, its deadline comes a period later, and before it go at most once all others.
        assert max(b - a for a, b in pairwise([*times, now])) <= 2 * period + takes * len(periods) + 0.02


def test_what_is_stale_does_not_heap_up():
    never = float("inf")
    schedule = Schedule([3600.0, 3600.0, never], [5000.0, 5000.0, never])
    for k in range(1000):
        schedule.hurry(k % 2, 4000.0 - k)
        schedule.call(2, 4500.0 + k % 7, 1.0)
        if k % 10 == 0:
            schedule.park(k % 2)
        assert len(schedule._later) + len(schedule._ready) <= 2 * 3 + 17
        assert schedule.next_due == min(schedule._due)


def test_an_entry_goes_on_in_another_schedule_where_it_stood():
    before = Schedule([1.0, 10.0, 1.0, NEVER], [0.25, 3.0, 0.0, NEVER])
    for now in (0.0, 0.25, 5.25):
        while before.pop(now) is not None:
            pass
    before.park(2)
    after = Schedule([7.0, 1.0, 10.0, 1.0, NEVER], [100.0] * 4 + [NEVER])
    for i, j in ((1, 0), (2, 1), (3, 2)):
        after.adopt(i, before, j)
    assert after.missed_of([1]) == before.missed_of([0]) > 0
    assert after.next_due == 6.25
    assert after.pop(6.25) == 1
    assert after.pop(13.0) in (1, 2)
    assert {after.pop(13.0), after.pop(13.0)} <= {1, 2, None}
    assert after.pop(99.0) in (1, 2)
    after.rejoin(3, 99.0)
    assert after.pop(100.0) is not None
