"""The account of a line's failed attempts, by itself: any number of patients, any cost, any order."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.acquisition.health import CREDIT, Patient, Ward

costs = st.floats(0.0, 100.0)
steps = st.lists(st.tuples(st.floats(0.0, 300.0), st.integers(0, 9), costs, st.booleans(), st.booleans()), max_size=60)
"""A pause; who is asked where none of the sick may be; what failing costs; whether it does; whether anybody is well."""


def play(patients, script):
    """Ask whoever may be asked: the sick in their turn, the healthy whenever they like. Gives the failed attempts."""
    ward, now, failed, worst = Ward(), 0.0, [], {}
    for pause, number, cost, fails, is_shared in script:
        now += pause
        patient = ward.next(now, is_shared=is_shared) or patients[number % len(patients)]
        in_turn = patient.is_sick
        if in_turn and now < ward.next_at(is_shared=is_shared):
            continue
        start = now
        if fails:
            now += cost
            ward.admit(patient, cost, now)
            worst[patient] = max(cost, worst.get(patient, 0.0))
            failed.append((start, now, cost, in_turn, is_shared))
        else:
            ward.dismiss(patient)
            patient.backoff.reset()
    return failed, sum(worst.values())


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10), steps)
def test_in_no_window_do_failures_take_more_than_a_tenth_and_a_few_attempts_of_each(n, script):
    failed, total = play([Patient() for _ in range(n)], script)
    for i in range(len(failed)):
        first, spent = failed[i][0], 0.0
        for _, last, cost, _, _ in failed[i:]:
            spent += cost
            assert spent <= (last - first) / 10 + (CREDIT + 1) * total + 1e-6


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10), steps)
def test_where_somebody_is_well_the_sick_wait_nine_times_what_the_last_failure_cost(n, script):
    failed, _ = play([Patient() for _ in range(n)], script)
    for (_, ended, cost, *_), (started, _, _, in_turn, is_shared) in pairwise(failed):
        if in_turn and is_shared:
            assert started >= ended + 9 * cost - 1e-6


def test_of_those_who_have_rested_the_one_asked_longest_ago_is_next():
    ward, patients = Ward(), [Patient(lambda: 1.0) for _ in range(3)]
    for i, patient in enumerate(patients):
        ward.admit(patient, 0.1, float(i))
    assert ward.next(2.5, is_shared=True) is None
    assert ward.next(10.0, is_shared=True) is patients[0]
    ward.admit(patients[0], 0.1, 10.0)
    assert ward.next(20.0, is_shared=True) is patients[1]
    ward.dismiss(patients[1])
    assert ward.next(20.0, is_shared=True) is patients[2]
    ward.dismiss(patients[2])
    ward.dismiss(patients[0])
    assert ward.next(1e9, is_shared=True) is None
    assert ward.next_at(is_shared=True) == float("inf")


def test_rests_double_from_one_second_to_thirty():
    ward, patient, now, rests = Ward(), Patient(lambda: 1.0), 0.0, []
    for _ in range(7):
        ward.admit(patient, 0.0, now)
        rests.append(ward.next_at(is_shared=True) - now)
        now += rests[-1]
    assert rests == pytest.approx([1, 2, 4, 8, 16, 30, 30])


def test_debts_of_a_burst_are_paid_before_anybody_sick_is_asked():
    ward, patients = Ward(), [Patient(lambda: 1.0) for _ in range(10)]
    for patient in patients:
        for _ in range(CREDIT + 1):
            ward.admit(patient, 1.0, 0.0)
    assert ward.opens_at(is_shared=False) >= 60.0


@pytest.mark.parametrize("is_shared", [True, False])
def test_devices_that_return_together_only_to_fail_together_take_no_more_than_their_tenth(is_shared):
    ward, patients, now, spent = Ward(), [Patient(lambda: 0.0) for _ in range(10)], 0.0, 0.0
    for _ in range(50):
        while (patient := ward.next(now, is_shared=is_shared)) is not None:
            ward.dismiss(patient)
            patient.backoff.reset()
        for patient in patients:
            if not patient.is_sick:
                now += 2.0
                spent += 2.0
                ward.admit(patient, 2.0, now)
        now = max(now, ward.next_at(is_shared=is_shared))
    assert spent <= now / 10 + (CREDIT + 1) * 10 * 2.0
    assert spent >= now / 10 - 10 * 2.0


def test_who_is_there_no_more_is_neither_asked_nor_saved_up_for():
    ward, gone, stays = Ward(), Patient(lambda: 1.0), Patient(lambda: 1.0)
    ward.admit(gone, 5.0, 0.0)
    ward.forget(gone)
    ward.forget(gone)
    assert ward.next_at(is_shared=True) == float("inf")
    ward.admit(stays, 1.0, 1000.0)
    ward.admit(stays, 1.0, 1001.0)
    ward.admit(stays, 1.0, 1002.0)
    assert ward.opens_at(is_shared=False) == pytest.approx(999.0 - 20.0 + 30.0)
