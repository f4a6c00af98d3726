"""Collecting mistakes with a bound."""

from __future__ import annotations

import pytest

from gateway.errors import FileError
from gateway.mapping.mistakes import SHOWN, Mistakes, nearest, show
from gateway.model import Place


def told(mistakes):
    with pytest.raises(FileError) as raised:
        mistakes.check()
    return raised.value.mistakes


def test_no_mistakes_raise_nothing():
    Mistakes().check()


def test_mistakes_come_in_the_order_of_the_file_and_once():
    mistakes = Mistakes()
    for line in (3, 1, 3, 2):
        mistakes.add(Place("f", line, 1), "x")
    assert [m.place.line for m in told(mistakes)] == [1, 2, 3]


def test_beyond_a_bound_mistakes_are_counted_only():
    mistakes = Mistakes()
    for line in range(1, 10_001):
        mistakes.add(Place("f", line, 1), "x")
    found = told(mistakes)
    assert len(found) == SHOWN + 1
    assert found[-1].text == f"… and {10_000 - SHOWN} more mistakes. Mend these first, then check again"
    assert mistakes.is_full


def test_the_count_stays_last_when_mistakes_are_sorted_again():
    mistakes = Mistakes()
    for line in range(1, 10_001):
        mistakes.add(Place("f", line, 1), "x")
    assert FileError(told(mistakes)).mistakes[-1].text.startswith("…")


def test_warnings_stop_nothing():
    mistakes = Mistakes()
    mistakes.warn(Place("f", 2, 1), "b")
    mistakes.warn(Place("f", 1, 1), "a")
    mistakes.check()
    assert [w.text for w in mistakes.warnings] == ["a", "b"]


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("unti", ["unit", "url"], ". Did you mean 'unit'?"),
        ("Unit", ["unit"], ". Did you mean 'unit'?"),
        ("xyz", ["b", "a"], ". Known here: a, b"),
        ("xyz", [], ""),
        ("xyz", [f"k{i:02}" for i in range(99)], f". Known here: {', '.join(f'k{i:02}' for i in range(30))}, …"),
    ],
)
def test_the_nearest_known_word_is_suggested(word, known, said):
    assert nearest(word, known) == said


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"), ("x", "'x'"), ("y" * 50, f"'{'y' * 37}…'"), ({}, "keys and values"), ([1], "a list"),
        (None, "nothing"), (1.5, "1.5"), (10**60, str(10**60)[:40]),
    ],
)  # fmt: skip
def test_values_are_shown_short(value, shown):
    assert show(value) == shown
