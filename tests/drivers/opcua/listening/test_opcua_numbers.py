"""Sequence numbers of one subscription, alone: tables, and a machine against a server that keeps what it likes."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from drivers.opcua.listening.numbers import LAST_NUMBER, MOST_MISSING, Numbers, following, steps


def _begun(last=10):
    numbers = Numbers()
    numbers.last, numbers.is_fresh = last, False
    return numbers


def test_the_number_after_the_last_one_is_1():
    assert following(LAST_NUMBER) == 1
    assert following(0) == 1
    assert steps(1, LAST_NUMBER) == 1
    assert steps(LAST_NUMBER, 1) == LAST_NUMBER - 1


def test_messages_in_order_go_on_at_once_across_the_last_number():
    numbers = _begun(LAST_NUMBER - 2)
    assert [numbers.take(n, n) for n in (LAST_NUMBER - 1, LAST_NUMBER, 1, 2)] == [
        [LAST_NUMBER - 1],
        [LAST_NUMBER],
        [1],
        [2],
    ]
    assert numbers.settle_debts(10) == [LAST_NUMBER - 1, LAST_NUMBER, 1, 2]
    assert not numbers.lost + numbers.jumps


def test_messages_that_overtook_others_wait_for_them_across_the_last_number():
    numbers = _begun(LAST_NUMBER - 1)
    assert numbers.take(2, "c") == []
    assert numbers.take(1, "b") == []
    assert numbers.missing() == [LAST_NUMBER]
    assert numbers.take(LAST_NUMBER, "a") == ["a", "b", "c"]
    assert numbers.missing() == []


def test_a_keep_alive_repeats_the_next_number_and_does_not_use_it_up():
    numbers = _begun(10)
    for _ in range(3):
        numbers.keep_alive(11)
    assert numbers.missing() == []
    assert numbers.take(11, "a") == ["a"]
    assert numbers.owed == 1


def test_a_keep_alive_of_a_later_number_shows_what_is_missing():
    numbers = _begun(10)
    numbers.keep_alive(13)
    assert numbers.missing() == [11, 12]


def test_a_keep_alive_after_the_last_number_was_sent_shows_that_one_as_missing():
    numbers = _begun(LAST_NUMBER - 1)
    numbers.keep_alive(1)
    assert numbers.missing() == [LAST_NUMBER]


@pytest.mark.parametrize("late", [10, 9, 5])
def test_a_keep_alive_that_was_overtaken_means_nothing(late):
    numbers = _begun(10)
    numbers.keep_alive(late)
    assert numbers.missing() == []
    assert numbers.take(11, "a") == ["a"]


def test_a_message_asked_for_again_is_a_double_when_it_comes_by_itself_after_all():
    numbers = _begun(10)
    assert numbers.take(12, "b") == []
    assert numbers.retaken(11, "a") == ["a", "b"]
    assert numbers.take(11, "a") == []
    assert numbers.last == 12
    assert not numbers.jumps


def test_a_message_asked_for_again_out_of_order_waits_like_any_other():
    numbers = _begun(10)
    numbers.take(13, "c")
    assert numbers.retaken(12, "b") == []
    assert numbers.take(12, "b") == []
    assert numbers.retaken(11, "a") == ["a", "b", "c"]


def test_a_message_given_up_is_a_double_when_it_comes_after_all():
    numbers = _begun(10)
    numbers.take(12, "b")
    assert numbers.give_up(11) == ["b"]
    assert numbers.lost == 1
    assert numbers.take(11, "a") == []
    assert numbers.owed == 2


def test_only_what_is_next_can_be_given_up():
    numbers = _begun(10)
    numbers.take(13, "c")
    assert numbers.give_up(12) == []
    assert numbers.missing() == [11, 12]


@pytest.mark.parametrize("first", [2, 5, 5000, LAST_NUMBER])
def test_where_the_server_begins_to_count_is_its_own_choice(first):
    numbers = Numbers()
    found = numbers.take(first, "a")
    while not found:
        found = numbers.give_up(numbers.missing()[0])
    assert found == ["a"]
    assert (numbers.lost, numbers.jumps) == (0, 0)
    assert numbers.take(following(first), "b") == ["b"]


def test_a_server_that_begins_anew_is_followed_and_nothing_that_came_is_dropped():
    numbers = _begun(5000)
    numbers.take(5003, "later")
    assert numbers.take(1, "first") == ["later", "first"]
    assert numbers.jumps == 1
    assert numbers.take(2, "second") == ["second"]
    assert numbers.missing() == []


def test_a_leap_beyond_all_holes_is_no_hole():
    numbers = _begun(10)
    assert numbers.take(10 + MOST_MISSING + 1, "far") == ["far"]
    assert numbers.jumps == 1


def test_a_keep_alive_shows_that_the_very_first_messages_are_missing_and_where_a_server_begins_far_away():
    numbers = Numbers()
    numbers.keep_alive(3)
    assert numbers.missing() == [1, 2]
    far = Numbers()
    far.keep_alive(90_000)
    assert far.missing() == []
    assert far.take(90_000, "a") == ["a"]
    assert not far.jumps


def test_a_message_without_a_number_goes_on_and_is_not_acknowledged():
    numbers = _begun(10)
    assert numbers.take(0, "a") == ["a"]
    assert numbers.owed == 0
    assert numbers.take(11, "b") == ["b"]


def test_acknowledgements_are_taken_in_portions_and_can_be_owed_again():
    numbers = _begun(0)
    for n in range(1, 6):
        numbers.take(n, n)
    assert numbers.settle_debts(3) == [1, 2, 3]
    numbers.owe_again([1, 2, 3])
    assert sorted(numbers.settle_debts(10)) == [1, 2, 3, 4, 5]
    assert numbers.owed == 0


class Link(RuleBasedStateMachine):
    """A server sends messages; they come late, or not at all; it keeps some of those that are not acknowledged."""

    def __init__(self):
        super().__init__()
        self.next = LAST_NUMBER - 5
        self.numbers = _begun(self.next - 1)
        self.kept = {}
        self.flying = []
        self.sent = []
        self.got = []
        self.acknowledged = set()

    @rule(is_lost=st.booleans())
    def send(self, is_lost):
        message = (self.next, len(self.sent))
        self.sent.append(message)
        self.kept[self.next] = message
        if not is_lost:
            self.flying.append(message)
        self.next = following(self.next)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def arrive(self, data):
        message = self.flying.pop(data.draw(st.integers(0, min(2, len(self.flying) - 1))))
        self.got += self.numbers.take(message[0], message)

    @rule()
    def keep_alive(self):
        self.numbers.keep_alive(self.next)

    @rule()
    def acknowledge(self):
        for number in self.numbers.settle_debts(100):
            self.kept.pop(number, None)
            self.acknowledged.add(number)

    @precondition(lambda self: self.kept)
    @rule()
    def evict(self):
        del self.kept[next(iter(self.kept))]

    @precondition(lambda self: self.numbers.missing())
    @rule()
    def republish(self):
        number = self.numbers.missing()[0]
        if number in self.kept:
            self.got += self.numbers.retaken(number, self.kept[number])
        elif not any(n == number for n, _ in self.flying):
            self.got += self.numbers.give_up(number)

    @invariant()
    def in_order_and_once(self):
        assert self.got == sorted(set(self.got), key=lambda message: message[1])

    @invariant()
    def nothing_passed_over_that_the_server_still_had(self):
        if self.got:
            passed = [m for m in self.sent if m[1] < self.got[-1][1] and m not in set(self.got)]
            assert all(number not in self.kept for number, _ in passed)
            assert len(passed) <= self.numbers.lost
        assert not self.numbers.jumps

    @invariant()
    def everything_delivered_is_acknowledged_or_owed(self):
        owed = {*self.numbers._owed}
        assert all(number in self.acknowledged or number in owed for number, _ in self.got)

    def teardown(self):
        """When the link is quiet all is there that can be."""
        for message in deque(self.flying):
            self.got += self.numbers.take(message[0], message)
        self.numbers.keep_alive(self.next)
        while missing := self.numbers.missing():
            number = missing[0]
            if number in self.kept:
                self.got += self.numbers.retaken(number, self.kept[number])
            else:
                self.got += self.numbers.give_up(number)
        self.in_order_and_once()
        assert len(self.sent) - len(self.got) == self.numbers.lost
        assert self.numbers.waiting == 0


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
