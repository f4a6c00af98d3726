"""Moments in, moments out."""

import pytest

from gateway.upkeep.moments import Span, iso, lasted, parse_moment

NOW = 1_795_330_000_123


@pytest.mark.parametrize(
    ("text", "ms", "is_local"),
    [
        ("now", NOW, False),
        ("1795330000123", NOW, False),
        ("-2h", NOW - 7_200_000, False),
        ("-90s", NOW - 90_000, False),
        ("1970-01-01T00:00:01Z", 1000, False),
        ("2026-11-22 07:46:40.123+01:00", NOW, False),
    ],
)
def test_moments_are_understood(text, ms, is_local):
    assert parse_moment(text, NOW) == (ms, is_local)


def test_a_zone_left_open_is_the_machines(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_moment("1970-01-01T09:00:00", NOW) == (0, True)
        assert parse_moment("1970-01-02", NOW) == (54_000_000, True)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "yesterday", "12", "-2", "-2y", "2026-13-01", "9" * 30, "0001-01-01"])
def test_what_is_no_moment_is_told_with_the_cure(text):
    try:
        parse_moment(text, NOW)
    except ValueError as error:
        assert "Write" in str(error)  # noqa: PT017 - some zones know the year 1


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (NOW, "2026-11-22T06:46:40.123Z"), (-1, ""), (1 << 62, "")],
)
def test_times_are_written_as_iso_or_not_at_all(ms, text):
    assert iso(ms) == text


def test_spans_hold_their_ends():
    span = Span(10, 20)
    assert [span.holds(t) for t in (9, 10, 20, 21)] == [False, True, True, False]
    assert [span.meets(a, b) for a, b in ((0, 9), (0, 10), (20, 30), (21, 30), (0, 99))] == [0, 1, 1, 0, 1]
    assert Span().is_all
    assert Span(None, 5).holds(-(1 << 60))


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (125, "2 min 5 s"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")]
)
def test_lengths_of_time_are_told_in_two_units(seconds, text):
    assert lasted(seconds) == text
