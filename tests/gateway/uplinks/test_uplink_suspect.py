"""The record that goes with each loss of the connection."""

import pytest

from gateway.uplinks.suspect import Suspect

FIVE = ("data", 5)


def losses(suspect, count, *, key=FIVE, company=(("data", 7), ("data", 9)), size=64000, code=0):
    for _ in range(count):
        suspect.lost(key, company, size, code)
    return suspect


def test_one_or_two_losses_prove_nothing():
    assert not losses(Suspect(), 2).is_careful


def test_losses_with_different_records_prove_nothing():
    suspect = Suspect()
    for seq in range(20):
        losses(suspect, 1, key=("data", seq))
    assert not suspect.is_careful


def test_records_of_two_classes_with_the_same_number_are_two():
    suspect = Suspect()
    for n in range(20):
        losses(suspect, 1, key=("alarm" if n % 2 else "data", 5))
    assert not suspect.is_careful


def test_the_third_loss_with_the_same_record_makes_careful_and_is_told_once():
    suspect = Suspect()
    notable = []
    for _ in range(6):
        losses(suspect, 1)
        notable.append(suspect.is_notable)
    assert suspect.is_careful
    assert notable == [False, False, True, False, False, False]


def test_parts_grow_smaller_while_being_alone_does_not_help():
    suspect = losses(Suspect(), 3)
    aims = []
    for _ in range(10):
        aims.append(suspect.aim(FIVE, 1 << 20))
        losses(suspect, 1, size=min(64000, aims[-1]))
    assert aims[:4] == [1 << 20, 32000, 16000, 8000]
    assert aims[-1] == 256
    assert suspect.aim(("data", 6), 1 << 20) == suspect.aim(("alarm", 5), 1 << 20) == 1 << 20


def test_a_silent_server_never_costs_a_record():
    assert not losses(Suspect(), 1000).is_condemned(FIVE)


@pytest.mark.parametrize(("code", "patience"), [(0x99, 3), (0x90, 3), (0x95, 12), (0x82, 12)])
def test_a_server_that_blames_the_record_gets_rid_of_it(code, patience):
    suspect = losses(Suspect(), patience - 1, code=code)
    assert suspect.is_careful
    assert not suspect.is_condemned(FIVE)
    losses(suspect, 1, code=code)
    assert suspect.is_condemned(FIVE)
    assert not suspect.is_condemned(("data", 6))
    assert not suspect.is_condemned(("alarm", 5))


def test_care_lasts_until_all_that_were_in_flight_have_passed():
    suspect = losses(Suspect(), 3, company=[FIVE, ("data", 9), ("alarm", 2)])
    suspect.passed("data", 4, 5)
    assert suspect.is_careful
    assert suspect.aim(FIVE, 1000) == 1000
    suspect.passed("data", 100, 200)
    assert len(suspect._company) == 2, "what was behind them, in another lane, says nothing"
    suspect.passed("alarm", 0, 2)
    assert suspect.is_careful
    suspect.passed("data", 5, 12)
    assert not suspect.is_careful


def test_the_next_suspect_starts_with_nothing_against_it():
    suspect = losses(Suspect(), 11, code=0x95)
    suspect.passed("data", 0, 5)
    losses(suspect, 1, key=("data", 6), code=0x95)
    assert not suspect.is_condemned(("data", 6))
