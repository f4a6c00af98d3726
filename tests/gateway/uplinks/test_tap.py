"""The live tap: what it publishes where, and what it spares when nobody listens."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.metrics import Metrics
from gateway.model import Batch, DeviceState
from gateway.uplinks.tap import Form, Tap

TS = 1795330000123


class ScriptedDoor:
    """Keeps what is published; `listeners` are topics somebody listens to."""

    def __init__(self) -> None:
        self.published = []
        self.listeners: set[str] = set()
        self.asked = 0

    def publish(self, topic, payload, *, qos, retain, properties):
        user = properties.user
        self.published.append(SimpleNamespace(topic=topic, payload=payload, qos=qos, retain=retain, user=user))

    def wanted(self, topic):
        self.asked += 1
        return topic in self.listeners


@pytest.fixture
def door():
    return ScriptedDoor()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def tap(door, metrics):
    def make(*forms: Form, packet_bytes: int = 1 << 20) -> Tap:
        return Tap(
            forms, gateway="plant7", prefix="headgate/plant7", door=door, packet_bytes=packet_bytes, metrics=metrics
        )

    return make


def test_a_batch_goes_to_who_listens_with_its_numbers_as_user_properties(tap, door, define):
    door.listeners.add("headgate/plant7/boiler")
    tap(Form("json")).batch(Batch(define("flow float64"), TS, [1.5]), 4711, "9f31c2-3")
    (message,) = door.published
    assert message.topic == "headgate/plant7/boiler"
    assert message.payload == b'{"ts":1795330000123,"seq":4711,"epoch":"9f31c2-3","values":{"flow":1.5}}'
    assert (message.qos, message.retain) == (1, False)
    assert message.user == (("gateway", "plant7"), ("device", "boiler"), ("epoch", "9f31c2-3"), ("seq", "4711"))


def test_a_batch_that_nobody_wants_is_not_even_encoded(tap, door, define, monkeypatch):
    live = tap(Form("json"))
    monkeypatch.setattr("gateway.uplinks.payload_json.to_json", lambda _: pytest.fail("encoded for nobody"))
    live.batch(Batch(define("flow float64"), TS, [1.5]), 1, "e")
    assert door.asked == 1
    assert door.published == []


def test_one_listener_of_one_tag_is_enough(tap, door, define):
    door.listeners.add("headgate/plant7/boiler/b")
    tap(Form("value", retain=False)).batch(Batch(define("a uint16", "b uint16"), TS, [1, 2]), 1, "e")
    assert [(m.topic, m.payload) for m in door.published] == [
        ("headgate/plant7/boiler/a", b"1"),
        ("headgate/plant7/boiler/b", b"2"),
    ]


def test_last_values_are_retained_although_nobody_listens(tap, door, define):
    tap(Form("value")).batch(Batch(define("a uint16"), TS, [1]), 1, "e")
    assert [(m.topic, m.payload, m.retain) for m in door.published] == [("headgate/plant7/boiler/a", b"1", True)]


def test_history_is_live_for_who_listens_where_it_says_what_it_is_and_never_retained(tap, door, define):
    live = tap(Form("value"), Form("json", retain=True))
    door.listeners |= {"headgate/plant7/boiler/flow", "headgate/plant7/boiler"}
    live.batch(Batch(define("flow float64"), TS, [1.5], is_history=True), 4711, "9f31c2-3")
    assert [(m.topic, m.retain) for m in door.published] == [("headgate/plant7/boiler", False)]
    assert b'"history":true' in door.published[0].payload


def test_no_more_topics_are_kept_than_the_bound(tap, door, define):
    live = tap(Form("json"))
    for n in range(3000):
        live.batch(Batch(define(f"t{n} float64"), TS, [1.5]), n, "9f31c2-3")
    assert len(live._forms[0].topics) <= 1024


def test_both_forms_at_once(tap, door, define):
    door.listeners.add("headgate/plant7/boiler")
    tap(Form("json"), Form("value")).batch(Batch(define("a uint16"), TS, [1]), 1, "e")
    assert [(m.topic, m.retain) for m in door.published] == [
        ("headgate/plant7/boiler", False),
        ("headgate/plant7/boiler/a", True),
    ]


def test_a_topic_of_ones_own_with_the_devices_fields(tap, door, define):
    door.listeners.add("hall/3/boiler")
    group = define("a uint16", hall="3")
    tap(Form("json", "hall/{hall}/{device}")).batch(Batch(group, TS, [1]), 1, "e")
    assert [m.topic for m in door.published] == ["hall/3/boiler"]


def test_status_of_gateway_and_devices_is_retained(tap, door):
    live = tap(Form("json"))
    live.online()
    live.device_changed(DeviceState("boiler", False, "timeout", TS))
    live.stopped()
    assert [(m.topic, m.payload, m.retain) for m in door.published] == [
        ("headgate/plant7/status", b'{"state":"online"}', True),
        ("headgate/plant7/boiler/status", b'{"state":"offline","cause":"timeout","since":1795330000123}', True),
        ("headgate/plant7/status", b'{"state":"stopped"}', True),
    ]


def test_what_does_not_fit_into_a_packet_is_skipped_and_counted(tap, door, define, metrics):
    tap(Form("value"), packet_bytes=1024).batch(Batch(define("a string"), TS, ["x" * 2000]), 1, "e")
    assert door.published == []
    assert metrics.counter("broker_tap_skipped_total").value == 1


def test_a_batch_too_large_for_one_packet_is_split(tap, door, define):
    door.listeners.add("headgate/plant7/boiler")
    names = [f"t{i} string" for i in range(8)]
    tap(Form("json"), packet_bytes=1024).batch(Batch(define(*names), TS, ["x" * 100] * 8), 1, "e")
    assert len(door.published) > 1
    assert all(len(m.payload) <= 1024 - 7 - 512 for m in door.published)
    assert b'"part":[1,' in door.published[0].payload
