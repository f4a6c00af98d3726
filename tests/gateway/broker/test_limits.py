"""Connections, attempts, failed logins and rates: counted, bounded, forgotten."""

import pytest

from gateway.broker.limits import Failures, Gate, Meter, neighbourhood, plain_address
from gateway.broker.options import Limits
from gateway.mqtt.packets import Pingreq, Publish
from gateway.mqtt.reasons import Reason

NOW = 1_795_330_000.0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::"),
        ("2001:db8:1:2:bbbb::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_one_ipv6_network_counts_as_one_address(address, key):
    assert neighbourhood(address) == key


@pytest.mark.parametrize(
    ("said", "plain"), [("::ffff:192.0.2.7", "192.0.2.7"), ("192.0.2.7", "192.0.2.7"), ("2001:db8::1", "2001:db8::1")]
)
def test_ipv4_over_an_ipv6_socket_is_ipv4(said, plain):
    assert plain_address(said) == plain


def test_connections_are_bounded_in_total_and_room_comes_back():
    gate = Gate(Limits(connections=2))
    assert gate.enter("192.0.2.1", NOW) is None
    assert gate.enter("192.0.2.2", NOW) is None
    assert gate.enter("192.0.2.3", NOW) is Reason.SERVER_UNAVAILABLE
    gate.leave("192.0.2.1")
    assert gate.enter("192.0.2.3", NOW) is None
    assert gate.connections == 2


def test_connections_of_one_address_are_bounded_and_room_comes_back():
    gate = Gate(Limits(connections_per_address=2))
    assert gate.enter("192.0.2.1", NOW) is None
    assert gate.enter("192.0.2.1", NOW) is None
    assert gate.enter("192.0.2.1", NOW) is Reason.QUOTA_EXCEEDED
    assert gate.enter("192.0.2.2", NOW) is None
    gate.leave("192.0.2.1")
    assert gate.enter("192.0.2.1", NOW) is None


def test_connections_a_second_of_one_address_are_bounded_after_a_burst():
    gate = Gate(Limits(connects_per_s=10))
    came = [gate.enter("192.0.2.1", NOW) for _ in range(100)]
    assert came.count(None) == 21
    assert came[-1] is Reason.CONNECTION_RATE_EXCEEDED
    assert gate.enter("192.0.2.2", NOW) is None
    later = [gate.enter("192.0.2.1", NOW + 1.0) for _ in range(100)]
    assert later.count(None) == 10


def test_attempts_that_are_refused_for_want_of_room_count_for_the_rate():
    gate = Gate(Limits(connects_per_s=10, connections=1))
    gate.enter("192.0.2.1", NOW)
    reasons = [gate.enter("192.0.2.1", NOW) for _ in range(50)]
    assert reasons[0] is Reason.SERVER_UNAVAILABLE
    assert reasons[-1] is Reason.CONNECTION_RATE_EXCEEDED


def test_addresses_are_forgotten_when_they_have_been_quiet_and_their_number_is_bounded():
    gate = Gate(Limits(connects_per_s=10, connections=100_000))
    for n in range(20_000):
        gate.enter(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", NOW)
    assert len(gate._next) <= 16_384
    gate.tick(NOW + 1.0)
    assert gate._next == {}
    for n in range(20_000):
        gate.leave(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert gate._inside == {}


def test_only_so_many_that_were_refused_are_kept_to_be_told():
    gate = Gate(Limits())
    assert [gate.keep() for _ in range(65)] == [True] * 64 + [False]
    gate.release()
    assert gate.keep()


def test_each_failed_login_makes_the_next_refusal_later_up_to_a_bound():
    failures = Failures()
    delays = []
    for _ in range(8):
        delays.append(failures.failed("192.0.2.1", NOW))
        failures.told("192.0.2.1")
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert failures.failed("192.0.2.2", NOW) == 0.25


def test_failures_are_forgotten_after_ten_minutes():
    failures = Failures()
    for n in range(5):
        failures.failed("192.0.2.1", NOW + n)
        failures.told("192.0.2.1")
    failures.tick(NOW + 5)
    assert len(failures._seen) == 1
    failures.tick(NOW + 605)
    assert failures._seen == {}
    assert failures._waiting == {}
    assert failures.failed("192.0.2.1", NOW + 605) == 0.25


def test_an_address_with_many_refusals_waiting_is_not_looked_at():
    failures = Failures()
    for _ in range(32):
        assert not failures.is_blocked("192.0.2.1")
        failures.failed("192.0.2.1", NOW)
    assert failures.is_blocked("192.0.2.1")
    assert not failures.is_blocked("192.0.2.2")
    failures.told("192.0.2.1")
    assert not failures.is_blocked("192.0.2.1")


def test_the_table_of_failures_is_bounded():
    failures = Failures()
    for n in range(20_000):
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        failures.failed(address, NOW)
        failures.told(address)
    assert len(failures._seen) <= 16_384


def test_no_meter_is_needed_where_no_rate_is_set():
    assert not Meter.needed(Limits())
    assert Meter.needed(Limits(publish_per_s=1))
    assert Meter.needed(Limits(publish_bytes_per_s=1))


def test_a_meter_lets_a_second_pass_at_once_then_keeps_the_rate():
    meter = Meter(Limits(publish_per_s=100))
    packets = iter([Publish("t", b"x")] * 1000)
    now, passed = NOW, 0
    for _ in range(4):
        passed += len(list(meter.count(packets, now)))
        wait_s = meter.wait_s(now)
        assert 0 < wait_s <= 0.011
        now += wait_s + 1.0
    assert 390 <= passed <= 404 + 4
    assert 100 <= passed / 4 <= 102


def test_a_meter_counts_bytes_and_only_those_of_publishes():
    meter = Meter(Limits(publish_bytes_per_s=1000))
    assert len(list(meter.count(iter([Pingreq()] * 1000), NOW))) == 1000
    assert len(list(meter.count(iter([Publish("tttt", b"x" * 96)] * 1000), NOW))) == 11


def test_a_meter_that_says_wait_takes_nothing():
    meter = Meter(Limits(publish_per_s=1))
    packets = iter([Publish("t", b"x")] * 10)
    assert len(list(meter.count(packets, NOW))) == 2
    assert list(meter.count(packets, NOW)) == []
    assert len(list(packets)) == 8
