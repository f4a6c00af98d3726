from __future__ import annotations

import math
from dataclasses import fields

import pytest

from gateway.broker.sys_topics import ROOT, Figures, SysTopics

MOSQUITTO = """
bytes/received bytes/sent clients/active clients/connected clients/disconnected clients/expired clients/inactive
clients/maximum clients/total messages/received messages/sent messages/stored publish/bytes/received publish/bytes/sent
publish/messages/dropped publish/messages/received publish/messages/sent shared_subscriptions/count
store/messages/bytes store/messages/count subscriptions/count uptime version messages/inflight
load/bytes/received load/bytes/sent load/connections load/messages/received load/messages/sent load/publish/dropped
load/publish/received load/publish/sent load/sockets
"""


def said(topics: SysTopics, now: float, **figures: int) -> dict[str, str]:
    return {topic.removeprefix(ROOT): text.decode() for topic, text in topics.say(Figures(**figures), now)}


def test_all_names_that_mosquitto_publishes_are_said_but_those_of_its_heap():
    expected = {"retained messages/count"}
    for name in MOSQUITTO.split():
        expected |= {f"{name}/{span}" for span in ("1min", "5min", "15min")} if "load" in name else {name}
    news = SysTopics("1.2", 0.0).say(Figures(), 0.0)
    assert {topic for topic, _ in news} == {ROOT + name for name in expected}


def test_each_figure_is_found_below_its_name():
    numbers = {field.name: 1_000 + at for at, field in enumerate(fields(Figures))}
    texts = said(SysTopics("1.2", 50.0), 61.7, **numbers)
    shown = set(texts.values())
    assert {str(number) for name, number in numbers.items() if name not in ("connections", "sockets")} <= shown
    assert texts["version"] == "headgate version 1.2"
    assert texts["uptime"] == "11 seconds"
    assert texts["clients/total"] == str(numbers["clients_connected"] + numbers["clients_disconnected"])
    assert texts["clients/active"] == texts["clients/connected"] == str(numbers["clients_connected"])
    assert texts["messages/stored"] == texts["store/messages/count"] == str(numbers["stored"])
    assert texts["publish/messages/dropped"] == str(numbers["publish_dropped"])
    assert texts["retained messages/count"] == str(numbers["retained"])


def test_only_what_changed_is_said_again():
    topics = SysTopics("1.2", 0.0)
    said(topics, 0.0, retained=3)
    assert said(topics, 0.9, retained=3) == {}
    assert said(topics, 1.0, retained=4) == {"uptime": "1 seconds", "retained messages/count": "4"}


def test_a_steady_rate_becomes_the_load_a_minute_the_short_average_first():
    topics = SysTopics("1.2", 0.0)
    for second in range(10, 610, 10):
        texts = said(topics, float(second), publish_received=50 * second)
    one, five, fifteen = (float(texts[f"load/publish/received/{span}"]) for span in ("1min", "5min", "15min"))
    assert one == pytest.approx(3_000, rel=0.001)
    assert five == pytest.approx(3_000 * (1 - math.exp(-2)), rel=0.001)
    assert fifteen == pytest.approx(3_000 * (1 - math.exp(-2 / 3)), rel=0.001)
    quiet = said(topics, 660.0, publish_received=30_000)
    assert float(quiet["load/publish/received/1min"]) == pytest.approx(3_000 * math.exp(-1), rel=0.001)


def test_a_clock_that_stands_still_divides_by_nothing():
    topics = SysTopics("1.2", 5.0)
    assert said(topics, 5.0, bytes_sent=9)["load/bytes/sent/1min"] == "0.00"
    assert said(topics, 4.0, bytes_sent=10)["bytes/sent"] == "10"
