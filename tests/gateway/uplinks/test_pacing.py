"""The bucket and the meter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uplinks.backlog import in_words
from gateway.uplinks.pacing import Bucket, Meter


@given(st.floats(1, 1e6), st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 3)), max_size=60))
def test_no_more_goes_through_than_the_rate_and_a_second_s_worth(rate, story):
    bucket, now, through, largest = Bucket(rate), 1000.0, 0, 0
    for values, pause in story:
        now += pause
        if not bucket.wait_s(now):
            bucket.take(values)
            through += values
            largest = max(largest, values)
        assert through <= rate * (now - 1000 + 1) + largest + 1e-3


def test_who_waits_as_long_as_told_may_go():
    bucket, now = Bucket(100.0), 0.0
    for _ in range(50):
        wait_s = bucket.wait_s(now)
        now += wait_s
        assert bucket.wait_s(now) == 0.0
        bucket.take(37)
    assert now == pytest.approx(49 * 0.37 - 1, abs=0.4)


def test_waits_are_never_so_short_that_they_cost_more_than_they_save():
    bucket = Bucket(1e6)
    bucket.wait_s(0.0)
    bucket.take(1_000_001)
    assert bucket.wait_s(0.0) == 0.02


def test_the_meter_knows_nothing_at_first_and_then_what_went_lately():
    meter = Meter()
    assert meter.look(0.0) == (0.0, 0.0)
    for second in range(1, 11):
        meter.add(2, 20)
        found = meter.look(float(second))
    assert found == (2.0, 20.0)
    for second in range(11, 41):
        meter.add(1, 5)
        found = meter.look(float(second))
    assert found == (1.0, 5.0), "what was long ago does not count"


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (99, "99 s"), (720, "12 min"), (12600, "3.5 h")])
def test_durations_in_words(seconds, text):
    assert in_words(seconds) == text
