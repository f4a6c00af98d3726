"""Several devices on one line, some of them sick: what the others lose, and when the sick are found again."""

import logging
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.acquisition.health import CREDIT, LONGEST_REST_S
from gateway.model import GOOD, bad

START = 1000.0
quick = settings(
    deadline=None,
    max_examples=50,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


timeouts = st.floats(0.05, 20.0)
outages = st.lists(st.floats(1.0, 200.0), min_size=1, max_size=5)
"""How long a device is in turn well and silent; the last lasts for ever."""


def is_down(stretches, now):
    """Whether a device of those outages is silent `now`."""
    left, down = now - START, False
    for length in stretches:
        left -= length
        if left < 0:
            return down
        down = not down
    return down


def failed_within(bus, first, last):
    return sum(a.cost for a in bus.failed if a.start >= first and a.end <= last)


@quick
@given(st.lists(st.tuples(timeouts, outages), min_size=1, max_size=12), st.booleans())
def test_failed_attempts_never_take_more_than_a_tenth_of_the_time_and_a_few_timeouts(play, devices, probes):
    def script(bus):
        bus.silent = lambda device, _group, now: is_down(devices[int(device)][1], now)
        bus.timeout = {str(i): timeout for i, (timeout, _) in enumerate(devices)}
        return bus.line({str(i): [("a", 4.0), ("b", 20.0)] for i in range(len(devices))}, probes=probes)

    bus, _ = play(script, 800)
    allowance = (CREDIT + 1) * sum(timeout for timeout, _ in devices)
    for i, first in enumerate(bus.failed):
        for last in bus.failed[i:]:
            spent, window = failed_within(bus, first.start, last.end), last.end - first.start
            assert spent <= window / 10 + allowance + 1e-6


@quick
@given(st.lists(st.tuples(timeouts, outages), min_size=1, max_size=8), st.booleans())
def test_while_anybody_is_well_no_sick_device_is_asked_sooner_than_nine_times_what_the_last_failure_cost(
    play, devices, probes
):
    def script(bus):
        bus.silent = lambda device, _group, now: device != "well" and is_down(devices[int(device)][1], now)
        bus.timeout = {str(i): timeout for i, (timeout, _) in enumerate(devices)}
        groups = {str(i): [("a", 5.0)] for i in range(len(devices))}
        return bus.line({"well": [("a", 4.0)]} | groups, probes=probes)

    bus, _ = play(script, 800)
    is_sick, failed = set(), None
    for asked in bus.asked:
        if asked.device in is_sick and failed is not None and asked.start > START + 2:
            assert asked.start >= failed.end + 9 * failed.cost - 1e-6
        if asked.good:
            is_sick.discard(asked.device)
        else:
            is_sick.add(asked.device)
            failed = asked


@quick
@given(st.lists(timeouts, min_size=1, max_size=8), st.floats(100.0, 500.0), st.booleans())
def test_a_device_that_answers_again_is_found_within_the_time_that_is_promised(play, timeout, back_at, probes):
    def script(bus):
        bus.silent = lambda device, _group, now: device != "well" and (device != "0" or now < START + back_at)
        bus.timeout = {str(i): t for i, t in enumerate(timeout)}
        groups = {str(i): [("a", 10.0)] for i in range(len(timeout))}
        return bus.line({"well": [("a", 10.0)]} | groups, probes=probes)

    promised = LONGEST_REST_S + 20 * sum(timeout) + 0.1 * (len(timeout) + 1)
    bus, found = play(script, back_at + promised + max(timeout))
    first = min(a.start for a in bus.of("0", "a") if a.good)
    assert first <= START + back_at + promised
    assert [s.online for s in found.states if s.device == "0"][-1]


def test_one_dead_device_among_ten_costs_the_healthy_no_poll_where_there_is_room_for_a_timeout(play):
    def script(bus):
        bus.silent = lambda device, _group, _now: device == "dead"
        bus.timeout = {"dead": 0.4}
        return bus.line({"dead": [("a", 1.0)]} | {f"d{i}": [("a", 1.0)] for i in range(9)})

    bus, found = play(script, 600)
    assert found.metric("line_missed_polls_total") == found.metric("device_missed_polls_total", device="dead") == 0
    for i in range(9):
        times = [a.start for a in bus.of(f"d{i}")]
        assert len(times) >= 599
        assert max(b - a for a, b in pairwise(times)) <= 1.0 + 0.4 + 0.05 * 9


def test_one_dead_device_among_ten_costs_the_healthy_nothing_beyond_each_timeout(play):
    def script(bus):
        bus.silent = lambda device, _group, _now: device == "dead"
        bus.timeout = {"dead": 2.0}
        return bus.line({"dead": [("a", 1.0)]} | {f"d{i}": [("a", 1.0)] for i in range(9)})

    bus, found = play(script, 600)
    assert len(bus.of("dead")) <= 2 + 600 / 30 + 5
    for i in range(9):
        missed = found.metric("device_missed_polls_total", device=f"d{i}")
        assert missed <= 2 * len(bus.of("dead"))
        inside = [(a.start, b.start) for a, b in pairwise(bus.of(f"d{i}"))]
        for first, then in inside:
            timeouts_between = sum(first <= a.start < then for a in bus.of("dead"))
            assert then - first <= 1.0 + 2.0 * timeouts_between + 0.5


def test_the_sick_take_turns_on_a_line_that_is_always_busy(play):
    def script(bus):
        bus.takes = 0.3
        bus.silent = lambda device, _group, _now: device.startswith("dead")
        groups = {f"d{i}": [("a", 0.5)] for i in range(3)}
        return bus.line({f"dead{i}": [("a", 1.0)] for i in range(4)} | groups)

    bus, _ = play(script, 1000)
    turns = [a.device for a in bus.asked if a.device.startswith("dead")][4:]
    assert len(turns) >= 1000 / 13
    assert all(len({*turns[i : i + 4]}) == 4 for i in range(len(turns) - 4))


def test_a_cabinet_whose_power_returns_is_read_again_at_once_whoever_is_asked_first(play):
    def script(bus):
        bus.silent = lambda _device, _group, now: START + 200 <= now < START + 300
        return bus.line({f"d{i}": [("a", 1.0)] for i in range(10)})

    _, found = play(script, 400)
    returned = [s.since for s in found.states if s.online][10:]
    assert len(returned) == 10
    assert max(returned) - min(returned) <= 1000 + 10 * 100
    assert min(returned) <= 1_795_330_000_000 + (START + 300 + 30) * 1000


def test_the_many_groups_of_a_device_that_returns_do_not_cost_a_fast_one_its_period(play):
    def script(bus):
        bus.timeout = {"slow": 0.1}
        bus.silent = lambda device, _group, now: device == "slow" and START + 20 < now < START + 100
        return bus.line({"fast": [("a", 0.2)], "slow": [(f"g{i}", 60.0) for i in range(40)]})

    bus, found = play(script, 200)
    back = min(a.start for a in bus.of("slow") if a.good and a.start > START + 100)
    assert len([a for a in bus.of("slow") if back < a.start < back + 4 and a.group != "probe"]) == 40
    assert found.metric("device_missed_polls_total", device="fast") == 0


def test_when_everything_is_due_at_once_alarms_are_read_first(play):
    lines = []

    def script(bus):
        bus.refuses = True
        lines.append(bus)
        return bus.line({"a": [("data", 1.0), ("alarm", 1.0, "alarm")], "b": [("more", 1.0)]})

    def repair():
        lines[0].refuses = False

    bus, _ = play(script, 40, (5, repair))
    assert [a.group for a in bus.asked[:3]] == ["alarm", "data", "more"]


def test_a_hiccup_of_a_device_that_is_alone_on_its_line_is_got_over_in_a_second(play):
    def script(bus):
        bus.silent = lambda _device, _group, now: START + 100 <= now < START + 100.5
        return bus.line({"a": [("a", 1.0)]})

    bus, _ = play(script, 200)
    assert len(bus.failed) == 1
    assert len([a for a in bus.of("a", "a") if a.good]) >= 197


@pytest.mark.parametrize("probes", [True, False])
def test_a_sick_device_is_asked_with_its_probe_or_else_with_its_first_group(play, probes):
    def script(bus):
        bus.silent = lambda device, _group, now: device == "b" and now < START + 100
        return bus.line({"a": [("a", 1.0)], "b": [("first", 5.0), ("second", 5.0)]}, probes=probes)

    bus, found = play(script, 200)
    asked = [a.group for a in bus.of("b") if START + 10 < a.start < START + 100]
    assert set(asked) == {"probe"} if probes else set(asked) <= {"first", "second"}
    assert found.metric("device_probes_total", device="b") >= len(asked)
    good = [a for a in bus.of("b") if a.good]
    assert {a.group for a in good[: 2 + probes]} == {"first", "second"} | ({"probe"} if probes else set())
    assert good[1 + probes].end - good[0].start < 1.0  # the others were hurried


def test_a_device_that_answers_its_probe_and_nothing_else_stays_offline_and_is_told_of_once(play, caplog):
    caplog.set_level(logging.INFO, "headgate.line")

    def script(bus):
        bus.silent = lambda device, group, now: device == "b" and group != "probe" and now > START + 50
        return bus.line({"a": [("a", 1.0)], "b": [("x", 1.0)]})

    bus, found = play(script, 1000)
    assert [s.online for s in found.states if s.device == "b"] == [True, False]
    assert len(bus.of("b", "x")) <= 50 + 6 + 1000 / 30
    told = [r.getMessage() for r in caplog.records if "device 'b'" in r.getMessage()]
    assert len(told) == 2
    assert "device 'b' is offline (timeout) on bus: b: no answer; asking" in told[1]


def test_devices_that_answer_their_probes_together_and_then_fall_silent_take_no_more_than_their_tenth(play):
    def script(bus):
        bus.timeout = {f"d{i}": 5.0 for i in range(10)}
        bus.silent = lambda device, group, _now: device != "well" and group != "probe"
        return bus.line({"well": [("a", 1.0)]} | {f"d{i}": [("a", 20.0)] for i in range(10)})

    bus, _ = play(script, 6000)
    spent = sum(a.cost for a in bus.failed)
    assert spent <= 600 + (CREDIT + 1) * 10 * 5.0
    assert spent >= 400  # what they may have they get


@pytest.mark.parametrize("probes", [True, False])
def test_a_group_that_alone_is_silent_rests_and_its_device_stays_online(play, probes, caplog):
    caplog.set_level(logging.INFO, "headgate.line")

    def script(bus):
        bus.silent = lambda device, group, now: device == "b" and group == "mute" and now < START + 500
        return bus.line({"a": [("a", 1.0)], "b": [("mute", 1.0), ("x", 1.0), ("y", 1.0)]}, probes=probes)

    bus, found = play(script, 600)
    changes = [s.online for s in found.states if s.device == "b"]
    assert changes.count(False) <= 2
    assert changes[-1]
    assert len([a for a in bus.of("b", "x") if a.good]) >= 570
    assert len([a for a in bus.of("b", "y") if a.good]) >= 570
    mute = [b for b in found.sent if b.group.names == ("mute",)]
    assert bad("timeout") in [b.quality for b in mute]
    assert mute[-1].quality is GOOD
    assert len(bus.of("b", "mute")) >= 90  # it is polled as usual after its return
    told = [r.getMessage() for r in caplog.records if "mute" in r.getMessage()]
    assert [("its other groups go on" in text, "answers again" in text) for text in told] == [
        (True, False),
        (False, True),
    ]


def test_a_group_answered_in_part_rests_while_the_others_of_its_device_keep_their_period(play):
    def script(bus):
        bus.partial.add("part")
        bus.silent = lambda _device, group, _now: group == "part"
        return bus.line({"b": [("part", 1.0), ("x", 1.0)]})

    bus, found = play(script, 300)
    assert [s.online for s in found.states] == [True]
    assert len(bus.of("b", "x")) >= 290
    assert 300 / 30 <= len(bus.of("b", "part")) <= 20
    assert {b.quality for b in found.sent} == {GOOD}
    (health,) = found.line.health()
    assert (health.state, health.resting, health.ask_again_s) == ("online", 1, None)


def test_a_group_that_rests_is_left_alone_while_its_whole_device_is_silent(play):
    def script(bus):
        bus.partial.add("part")
        bus.silent = lambda _device, group, now: group == "part" or START + 50 < now < START + 250
        return bus.line({"b": [("part", 1.0), ("x", 1.0)]})

    bus, _ = play(script, 300)
    assert {a.group for a in bus.asked if START + 55 < a.start < START + 250} == {"probe"}
    assert [a for a in bus.of("b", "part") if a.start > START + 250]
    assert len(bus.of("b", "x")) >= 50 + 20 - 5


def test_a_lost_line_makes_nobody_sick(play):
    def script(bus):
        bus.refuses = True
        return bus.line({f"d{i}": [("a", 1.0)] for i in range(5)})

    bus = None

    found_early = []

    def late(fresh):
        nonlocal bus
        bus = fresh
        found_early.append(script(fresh))
        return found_early[0]

    def repair():
        bus.refuses = False

    busy = []
    _, found = play(late, 100, (39, lambda: busy.append(found_early[0].line.status().busy)), (40, repair))
    assert busy == [0.0]
    assert found.metric("device_probes_total") == 0
    back = [s.since for s in found.states if s.online]
    assert len(back) == 5
    assert max(back) - min(back) < 1000


def test_health_says_since_when_a_device_is_sick_and_when_it_is_asked_again(play):
    def script(bus):
        bus.silent = lambda device, _group, now: device == "b" and now > START + 100
        return bus.line({"a": [("a", 1.0)], "b": [("x", 1.0)], "never": []})

    _, found = play(script, 200)
    well, sick, never = found.line.health()
    assert (well.state, well.failures, well.ask_again_s) == ("online", 0, None)
    assert (sick.state, sick.cause) == ("offline", "timeout")
    assert sick.since == pytest.approx(1_795_330_000_000 + (START + 102) * 1000, abs=1100)
    assert sick.failures >= 5
    assert 0 <= sick.ask_again_s <= 30
    assert (never.state, never.since) == ("unknown", None)


def test_status_says_how_busy_a_line_is_and_how_much_of_that_is_for_nothing(play):
    def script(bus):
        bus.takes = 0.25
        bus.timeout = {"b": 3.0}
        bus.silent = lambda device, _group, _now: device == "b"
        return bus.line({"a": [("a", 0.5)], "b": [("x", 1.0)]})

    bus, found = play(script, 600)
    status = found.line.status()
    assert (status.name, status.connected) == ("bus", False)
    assert status.busy == pytest.approx(0.5 * 0.9 + 0.1, abs=0.1)
    assert status.sick == pytest.approx(0.1, abs=0.06)
    assert found.metric("line_sick_seconds_total") == pytest.approx(failed_within(bus, 0, 1e9))
    assert found.metric("device_failures_total", device="b") == len(bus.failed)
    assert status.missed == found.metric("device_missed_polls_total", device="a") > 0
