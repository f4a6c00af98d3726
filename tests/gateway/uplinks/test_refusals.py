"""What the server does not take: log and waits."""

import logging

import pytest

from gateway.metrics import Counter
from gateway.uplinks.reasons import blames_packet, needs_person, reason, verdict
from gateway.uplinks.refusals import Refusals


@pytest.fixture
def refusals():
    return Refusals("cloud", refused=Counter(), skipped=Counter(), dice=lambda: 1.0)


def test_a_refused_topic_is_named_once_and_once_when_it_goes_out_again(refusals, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(3):
        refusals.refuse("a/b", 0x87)
    refusals.accept("a/b")
    refusals.accept("a/b")
    assert [r.getMessage() for r in caplog.records] == [
        "uplink 'cloud': the server refuses 'a/b': not authorized (0x87). What waits stays",
        "uplink 'cloud': the server takes 'a/b' again",
    ]
    assert refusals._refused.value == 3


def test_another_reason_for_the_same_topic_is_news(refusals, caplog):
    refusals.refuse("a/b", 0x87)
    refusals.refuse("a/b", 0x97)
    assert len(caplog.records) == 2


def test_what_is_left_out_is_named_once_for_each_topic_and_counted(refusals, caplog):
    for topic in ("a", "a", "b", "a"):
        refusals.skip(topic, "too large")
    assert len(caplog.records) == 2
    assert refusals._skipped.value == 4


def test_what_is_remembered_for_the_log_is_bounded(refusals):
    for i in range(1000):
        refusals.refuse(f"t{i}", 0x87)
        refusals.skip(f"s{i}", "why")
    assert len(refusals.active) <= 256
    assert len(refusals._named) <= 256


def test_waits_double_to_a_minute_until_relieved(refusals):
    assert [refusals.next_wait_s() for _ in range(7)] == [2, 4, 8, 16, 32, 60, 60]
    refusals.relieved()
    assert refusals.next_wait_s() == 2


def test_reason_codes_have_words_and_a_meaning():
    assert reason(0x87) == "not authorized (0x87)"
    assert reason(0xF1) == "unknown reason (0xF1)"
    assert [verdict(c) for c in (0x80, 0x87, 0x97, 0x90, 0x95, 0x99)] == ["wait"] * 3 + ["hopeless"] * 3
    assert needs_person(0x86)
    assert not needs_person(0x88)
    assert blames_packet(0x95)
    assert not blames_packet(0x8B)
