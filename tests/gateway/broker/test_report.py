"""Lines that an operator can trust and a disk can bear."""

import json

import pytest

from gateway.broker.report import Report
from gateway.metrics import Metrics


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(network):
    with network.reported() as lines:
        yield lines


def test_a_line_names_event_client_address_and_reason(clock, lines):
    report = Report(clock, Metrics())
    report.say("login_refused", client_id="meter7", address="10.0.0.9", reason="wrong password")
    assert lines == ['event=login_refused client=meter7 address=10.0.0.9 reason="wrong password"']


@pytest.mark.parametrize(
    "client_id",
    [
        "x\nevent=login_refused client=admin address=127.0.0.1 reason=x",
        'x" reason="all is well',
        "x address=127.0.0.1",
        "x=1",
        "\x1b[31mred",
        "\u2028line",
        "\u202eright to left",
        "ünïcode",
        "",
        "-",
        "back\\slash",
    ],
)
def test_no_client_identifier_forges_a_line_or_a_field(clock, lines, client_id):
    Report(clock, Metrics()).say("denied", client_id=client_id, address="10.0.0.9", reason="no")
    (line,) = lines
    assert line.isascii()
    assert line.isprintable()
    head, _, rest = line.partition(" client=")
    value, end = json.JSONDecoder().raw_decode(rest)
    assert (head, value, rest[end:]) == ("event=denied", client_id, " address=10.0.0.9 reason=no")


def test_a_very_long_value_is_cut(clock, lines):
    Report(clock, Metrics()).say("denied", client_id="x" * 65535, address="a", reason="y z" * 65535)
    assert len(lines[0]) < 600


def test_an_event_of_one_client_is_said_once_in_a_while_and_the_rest_is_counted(clock, lines):
    metrics = Metrics()
    report = Report(clock, metrics)
    for _ in range(50):
        report.say("denied", client_id="c", address="10.0.0.9", reason="no")
    report.say("denied", client_id="c", address="10.0.0.10", reason="no")
    report.say("dropped", client_id="c", address="10.0.0.9", reason="no")
    assert [line.split()[0] for line in lines] == ["event=denied", "event=denied", "event=dropped"]
    assert metrics.counter("broker_report_suppressed_total").value == 49
    clock.now += 11
    report.say("denied", client_id="c", address="10.0.0.9", reason="no")
    assert lines[-1] == "event=denied client=c address=10.0.0.9 reason=no suppressed=49"


def test_a_few_clients_of_an_address_are_named_and_the_others_counted(clock, lines):
    metrics = Metrics()
    report = Report(clock, metrics)
    for n in range(50):
        report.say("denied", client_id=f"c{n}", address="10.0.0.9", reason="no")
    assert [line.split()[1] for line in lines] == [f"client=c{n}" for n in range(8)]
    assert metrics.counter("broker_report_suppressed_total").value == 42
    clock.now += 11
    report.say("denied", client_id="later", address="10.0.0.9", reason="no")
    report.say("denied", client_id="c0", address="10.0.0.9", reason="no")
    assert lines[8:] == [
        "event=denied client=later address=10.0.0.9 reason=no suppressed=42",
        "event=denied client=c0 address=10.0.0.9 reason=no",
    ]


def test_who_has_no_name_is_told_apart_by_what_is_wrong(clock, lines):
    report = Report(clock, Metrics())
    for reason in ("expired", "revoked", "expired"):
        report.say("tls_failed", address="10.0.0.9", reason=reason)
    assert [line.split()[-1] for line in lines] == ["reason=expired", "reason=revoked"]


def test_what_was_left_out_is_said_even_if_nothing_follows(clock, lines):
    report = Report(clock, Metrics())
    for _ in range(5):
        report.say("denied", client_id="c", address="10.0.0.9", reason="no")
    report.tick()
    assert len(lines) == 1
    clock.now += 11
    report.tick()
    assert lines[1:] == ["event=denied address=10.0.0.9 suppressed=4"]
    report.tick()
    assert len(lines) == 2
    assert report._seen == {}


def test_many_addresses_at_once_do_not_flood_the_log_nor_the_memory(clock, lines):
    metrics = Metrics()
    report = Report(clock, metrics)
    for n in range(20_000):
        report.say("denied", client_id="c", address=f"10.0.{n >> 8}.{n & 255}", reason="no")
    assert len(lines) == 100
    assert len(report._seen) <= 4_096
    assert metrics.counter("broker_report_suppressed_total").value == 19_900
    clock.now += 1
    report.say("denied", client_id="c", address="new", reason="no")
    assert lines[-1].startswith("event=denied client=c address=new")


def test_a_percent_sign_is_no_format(clock, lines):
    Report(clock, Metrics()).say("denied", client_id="%s%d", address="fe80::1%eth0", reason="100%")
    assert lines == ['event=denied client="%s%d" address=fe80::1%eth0 reason=100%']
