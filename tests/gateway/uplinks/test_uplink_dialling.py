"""Where to connect next, in which version, after which wait."""

import pytest

from gateway.uplinks.dialling import LONGEST_S, STABLE_AFTER_S, Dialling
from gateway.uplinks.options import Server

A, B, C = (Server(host, 1883, secure=False) for host in "abc")


def dialling(*servers, version="5", will_qos=1, dice=lambda: 1.0):
    return Dialling(servers or (A,), version, will_qos=will_qos, dice=dice)


def test_servers_are_tried_in_turn_and_only_a_round_waits():
    d = dialling(A, B, C)
    story = []
    for _ in range(7):
        server = d.attempt.server.host
        story.append((server, d.failed(0, hung_up=False)))
    assert story == [("a", 0), ("b", 0), ("c", 2), ("a", 0), ("b", 0), ("c", 4), ("a", 0)]


def test_waits_double_to_a_minute_and_are_drawn_from_one_second_on():
    d = dialling()
    assert [d.failed(0, hung_up=False) for _ in range(8)] == [2, 4, 8, 16, 32, 60, 60, 60]
    d = dialling(dice=lambda: 0.0)
    assert [d.failed(0, hung_up=False) for _ in range(3)] == [1, 1, 1]
    d = dialling(dice=lambda: 0.5)
    assert [d.failed(0, hung_up=False) for _ in range(3)] == [1.5, 2.5, 4.5]


def test_waits_never_overflow_however_long_the_outage():
    d = dialling()
    assert max(d.failed(0, hung_up=False) for _ in range(5000)) == LONGEST_S


def test_after_a_loss_the_first_server_is_asked_first():
    d = dialling(A, B)
    d.failed(0, hung_up=False)
    assert d.attempt.server == B
    d.lost(1000.0)
    assert d.attempt.server == A


def test_only_a_connection_that_held_makes_the_waits_short_again():
    d = dialling()
    for _ in range(4):
        d.failed(0, hung_up=False)
    assert d.lost(STABLE_AFTER_S - 1) == 32
    assert d.lost(STABLE_AFTER_S) == 2


def test_a_server_that_refuses_mqtt_5_is_asked_for_3_1_1_at_once():
    d = dialling(A, B)
    assert d.failed(0x84, hung_up=False) == 0
    assert (d.attempt.server, d.attempt.version) == (A, "3.1.1")
    d.failed(0, hung_up=False)
    assert (d.attempt.server, d.attempt.version) == (B, "5")


def test_a_server_that_refuses_3_1_1_too_is_not_asked_at_once_for_ever():
    d = dialling()
    d.failed(0x84, hung_up=False)
    assert d.failed(0x84, hung_up=False) == 2


def test_what_was_learned_of_a_server_is_forgotten_with_the_connection():
    d = dialling()
    d.failed(0x84, hung_up=False)
    d.lost(100.0)
    assert d.attempt.version == "5"


def test_a_server_that_hangs_up_is_asked_with_the_other_version_next_time():
    d = dialling()
    versions = []
    for _ in range(4):
        versions.append(d.attempt.version)
        assert d.failed(0, hung_up=True) > 0
    assert versions == ["5", "3.1.1", "5", "3.1.1"]


def test_who_asked_for_3_1_1_gets_nothing_else():
    d = dialling(version="3.1.1")
    for _ in range(3):
        d.failed(0, hung_up=True)
        assert d.attempt.version == "3.1.1"


def test_a_will_the_server_cannot_take_asks_for_less():
    d = dialling()
    assert d.failed(0x9A, hung_up=False) == 0
    assert (d.attempt.will_retain, d.attempt.will_qos) == (False, 1)
    assert d.failed(0x9B, hung_up=False) == 0
    assert (d.attempt.will_retain, d.attempt.will_qos) == (False, 0)
    assert d.failed(0x9A, hung_up=False) == 2


@pytest.mark.parametrize("code", [0x86, 0x87, 0x88, 0x89])
def test_any_other_refusal_waits(code):
    assert dialling().failed(code, hung_up=False) == 2


def test_a_server_that_has_spoken_mqtt_5_is_not_asked_for_less_when_it_hangs_up():
    d = dialling()
    d.lost(1000.0)
    for _ in range(3):
        d.failed(0, hung_up=True)
        assert d.attempt.version == "5"
