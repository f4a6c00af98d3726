"""The record that goes with each loss of the connection."""

import pytest

from gateway.uplinks.suspect import Suspect


def losses(suspect, count, *, seq=5, through=9, size=64000, code=0):
    for _ in range(count):
        suspect.lost(seq, through, size, code)
    return suspect


def test_one_or_two_losses_prove_nothing():
    assert not losses(Suspect(), 2).is_careful


def test_losses_with_different_records_prove_nothing():
    suspect = Suspect()
    for seq in range(20):
        suspect.lost(seq, seq + 5, 100, 0)
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
        aims.append(suspect.aim(5, 1 << 20))
        losses(suspect, 1, size=min(64000, aims[-1]))
    assert aims[:4] == [1 << 20, 32000, 16000, 8000]
    assert aims[-1] == 256
    assert suspect.aim(6, 1 << 20) == 1 << 20


def test_a_silent_server_never_costs_a_record():
    assert not losses(Suspect(), 1000).is_condemned(5)


@pytest.mark.parametrize(("code", "patience"), [(0x99, 3), (0x90, 3), (0x95, 12), (0x82, 12)])
def test_a_server_that_blames_the_record_gets_rid_of_it(code, patience):
    suspect = losses(Suspect(), patience - 1, code=code)
    assert suspect.is_careful
    assert not suspect.is_condemned(5)
    losses(suspect, 1, code=code)
    assert suspect.is_condemned(5)
    assert not suspect.is_condemned(6)


def test_care_lasts_until_all_that_were_in_flight_have_passed():
    suspect = losses(Suspect(), 3)
    suspect.passed(5)
    assert suspect.is_careful
    assert suspect.aim(5, 1000) == 1000
    suspect.passed(9)
    assert not suspect.is_careful


def test_the_next_suspect_starts_with_nothing_against_it():
    suspect = losses(Suspect(), 11, code=0x95)
    suspect.passed(5)
    losses(suspect, 1, seq=6, code=0x95)
    assert not suspect.is_condemned(6)
