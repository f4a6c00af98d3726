"""What requests cost a line, how busy polling keeps it, and which tags to slow down first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.driver import Driver
from drivers.modbus.frames.pdu import Request
from drivers.modbus.lines.pace import REQUEST_COST, Pace
from drivers.modbus.lines.url import route_of
from drivers.modbus.options import DeviceOptions
from drivers.modbus.polling.budget import ENOUGH, charges, explain, span
from drivers.modbus.polling.plan import MAX_LINE_S
from gateway.driver import Explains, find
from gateway.model import Device, Tag

URL = "rtu:///dev/ttyX?baud=9600&parity=E"
SLOW = Pace.of(route_of(URL))


def device(name="meter", url=URL, **options):
    return Device(name=name, driver="modbus", url=url, options=DeviceOptions(**options))


def registers(*numbers, **keys):
    return [Tag(name=f"t{n}", address=f"holding:{n}", **keys) for n in numbers]


def groups_of(tags, **keys):
    return Driver.compile(device(**keys), tags)


# --- what a request costs ---


def test_the_worked_example_is_right():
    assert SLOW.character_s == pytest.approx(11 / 9600)
    assert SLOW.read_s(20, 0.01) * 1000 == pytest.approx(53 * 1.1458 + 10 + 4.01, abs=0.05)
    assert SLOW.worth(0.01) == (13, 202)


@pytest.mark.parametrize(
    ("url", "silence_ms"),
    [
        ("rtu:///dev/ttyX?baud=9600&parity=E", 3.5 * 11 / 9.6),
        ("rtu:///dev/ttyX?baud=19200&parity=N", 3.5 * 10 / 19.2),
        ("rtu:///dev/ttyX?baud=38400&parity=E", 1.75),
        ("rtu:///dev/ttyX?baud=115200&parity=E", 1.75),
        ("ascii:///dev/ttyX?baud=9600", 3.5 * 10 / 9.6),
        ("tcp://host", 0),
    ],
    ids=str,
)
def test_the_silence_between_frames_is_the_standards(url, silence_ms):
    assert Pace.of(route_of(url)).silence_s * 1000 == pytest.approx(silence_ms)


def test_ascii_takes_two_characters_a_byte():
    pace = Pace.of(route_of("ascii:///dev/ttyX?baud=9600&bits=7"))
    rest = 0.02 + pace.silence_s
    assert pace.read_s(10, 0.02) == pytest.approx((17 + 11 + 40) * 10 / 9600 + rest)
    assert pace.read_s(9, 0.02, bits=True) == pytest.approx((17 + 11 + 4) * 10 / 9600 + rest)


def test_reads_and_requests_are_counted_alike():
    assert SLOW.request_s(Request(1, 3, 0, 20), 0.01) == SLOW.read_s(20, 0.01)
    assert SLOW.request_s(Request(1, 1, 0, 20), 0.01) == SLOW.read_s(20, 0.01, bits=True)


def test_a_gap_is_read_up_to_what_another_request_costs_on_that_line():
    slow, fast = SLOW.worth(0.01)[0], Pace.of(route_of("rtu:///dev/ttyX?baud=115200")).worth(0.01)[0]
    assert slow < REQUEST_COST < fast
    for url, worth in ((URL, slow), ("rtu:///dev/ttyX?baud=115200", fast), ("tcp://host", REQUEST_COST)):
        one = groups_of(registers(0, 1 + worth), url=url)
        two = groups_of(registers(0, 2 + worth), url=url)
        assert [sum(group.requests for group in groups) for groups in (one, two)] == [1, 2]


def test_a_unit_that_wants_to_be_left_in_peace_makes_its_requests_dearer():
    assert SLOW.worth(0.01, 0.05)[0] > SLOW.worth(0.01)[0] + 15
    assert SLOW.worth(0.01, 0.004) == SLOW.worth(0.01)


# --- groups on a slow line ---


@given(st.sets(st.integers(0, 2000), min_size=1, max_size=80), st.sampled_from([1200, 9600, 115200]))
def test_a_group_leaves_a_serial_line_to_others_after_a_quarter_of_a_second(numbers, baud):
    url = f"rtu:///dev/ttyX?baud={baud}"
    pace = Pace.of(route_of(url))
    groups = groups_of(registers(*sorted(numbers)), url=url)
    for group in groups:
        took = sum(charge.line_s for charge in charges([group], pace))
        assert took <= MAX_LINE_S + 1e-9 or group.requests == 1
    assert sorted(name for group in groups for name in group.names) == sorted(f"t{n}" for n in numbers)


def test_on_a_network_a_group_may_be_as_large_as_before():
    groups = groups_of(registers(*range(0, 4000, 100)), url="tcp://host")
    assert [group.requests for group in groups] == [40]


# --- the budget ---


def test_each_request_is_told_with_its_registers_tags_and_line_time():
    tags = [*registers(0, 1, 5), Tag(name="c", address="coil:3", every_s=60.0)]
    said = explain(groups_of(tags), SLOW)
    assert said.plan == (
        "meter: every 1s: holding:0..5, 6 registers, 3 tags, 42.7 ms",
        "meter: every 1m: coil:3, 1 bit, 1 tag, 30.1 ms",
    )
    assert said.busy == pytest.approx(0.0427 + 0.0301 / 60, abs=1e-4)
    assert said.slow == ()


def test_on_a_network_nobody_can_tell():
    said = explain(groups_of(registers(0, 1), url="tcp://host"), Pace())
    assert said.plan == ("meter: every 1s: holding:0..1, 2 registers, 2 tags",)
    assert said.busy is None


def test_the_driver_explains_a_line_with_all_its_devices():
    driver = find("modbus")
    assert isinstance(driver, Explains)
    both = [device("a", unit=1), device("b", unit=2)]
    groups = [group for each in both for group in Driver.compile(each, registers(0, 1))]
    said = driver.explain(both, groups)
    assert len(said.plan) == 2
    assert said.busy == pytest.approx(2 * SLOW.read_s(2, 0.01))


def test_measured_turnaround_counts_where_there_is_one():
    (charge,) = charges(groups_of(registers(0), unit=3), SLOW, {3: 0.05})
    assert charge.line_s == pytest.approx(SLOW.read_s(1, 0.05))


def test_the_tags_that_relieve_most_are_slowed_down_first():
    tags = [
        *registers(0, every_s=0.1),  # one tag that costs 33 ms each 100 ms
        *registers(*range(100, 140), every_s=0.2),  # forty tags that cost 120 ms each 200 ms
        *registers(400, every_s=10.0),
    ]
    said = explain(groups_of(tags), SLOW)
    assert said.busy is not None
    assert said.busy > 0.9
    tags[0] = registers(0, every_s=0.05)[0]
    said = explain(groups_of(tags), SLOW)
    assert said.busy > 1.2
    assert said.slow == ("meter/t0: every 200ms",)


loads = st.lists(
    st.tuples(st.integers(0, 3000), st.sampled_from([0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0])),
    min_size=1,
    max_size=60,
    unique_by=lambda load: load[0],
)


@given(loads)
def test_what_is_proposed_would_do(found):
    tags = [registers(number, every_s=every_s)[0] for number, every_s in found]
    said = explain(groups_of(tags), SLOW)
    assert (said.busy > 1) == bool(said.slow)
    if not said.slow:
        return
    proposed = {}
    for text in said.slow:
        name, every = text.removeprefix("meter/").split(": every ")
        size = next(s for unit, s in (("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)) if every.endswith(unit))
        proposed[name] = float(every.rstrip("mshn")) * size
    slower = [registers(int(t.name[1:]), every_s=proposed.get(t.name, t.every_s))[0] for t in tags]
    assert all(new.every_s >= old.every_s for new, old in zip(slower, tags, strict=True))
    after = explain(groups_of(slower), SLOW)
    assert after.busy <= ENOUGH + 1e-9


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.05, "50ms"), (1, "1s"), (90, "90s"), (120, "2m"), (3600, "1h"), (2.5, "2.5s")]
)
def test_an_interval_is_written_as_in_the_file(seconds, text):
    assert span(seconds) == text


def test_tags_of_a_part_to_slow_down_are_named_as_in_the_file():
    tags = [
        Tag(name="flow", address=f"holding:{60 * i}", every_s=0.01, part=part) for i, part in enumerate(["", "pump"])
    ]
    found = explain(groups_of(tags), SLOW)
    assert {told.partition(":")[0] for told in found.slow} == {"meter/flow", "pump/flow"}
