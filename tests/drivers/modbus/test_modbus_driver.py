"""The driver as the frame sees it: batches, qualities, holes and how they heal, failures by scope. Time is virtual."""

import asyncio
import contextlib
import logging
import struct
from itertools import pairwise

import pytest

from drivers.modbus.driver import Driver
from drivers.modbus.options import DeviceOptions
from drivers.modbus.polling.holes import FIRST_PAUSE_S, LAST_PAUSE_S
from drivers.modbus.polling.poller import EXTRA_REQUESTS
from gateway.driver import LineKey, Simulates, find
from gateway.errors import DeviceError, LineError
from gateway.model import GOOD, Device, Tag


def device(name="boiler", url="tcp://host", **options):
    return Device(name=name, driver="modbus", url=url, options=DeviceOptions(**options))


def tags(*addresses, **keys):
    return [Tag(name=a, address=a, **keys) for a in addresses]


def registers(*numbers):
    return tags(*(f"holding:{n}" for n in numbers))


@pytest.fixture
def play(run, peer, clock, metrics):
    """Run `script(read)` on a driver with one group; `read()` gives {tag: value or bad quality}."""

    def runner(script, tags, *others, **options):
        async def main():
            mine = device(**options)
            (group,) = Driver.compile(mine, tags)
            driver = Driver([mine, *others], clock=clock, metrics=metrics, endpoint=peer.endpoint)

            async def read():
                peer.asked.clear()
                batch = await driver.read(group)
                check(batch, group)
                return told(batch)

            async with driver:
                read.driver, read.group = driver, group
                return await script(read)

        return run(main())

    return runner


def check(batch, group):
    """What every batch must be, whatever happened."""
    assert batch.group is group
    assert batch.index is None
    assert len(batch.values) == len(group.names)
    if isinstance(batch.quality, list):
        assert len(batch.quality) == len(group.names)
        assert len(set(batch.quality)) > 1
        assert all(
            (value is None) == (quality != GOOD) for value, quality in zip(batch.values, batch.quality, strict=True)
        )
        assert batch.raw is None
    elif batch.quality != GOOD:
        assert set(batch.values) == {None}


def told(batch):
    quality = batch.quality if isinstance(batch.quality, list) else [batch.quality] * len(batch.values)
    return {n: v if q == GOOD else str(q) for n, v, q in zip(batch.group.names, batch.values, quality, strict=True)}


def asked(peer):
    return [(a.address, a.count) for a in peer.asked]


# --- well ---


def test_a_batch_has_raw_values_in_the_order_of_the_file_one_quality_and_the_time_of_the_last_answer(
    run, peer, clock, metrics
):
    peer.registers = {0: 0x3FC0, 1: 0, 10: 0xFFFE}
    peer.bits = {3}
    peer.script = lambda asked: peer.later(0.25, peer.good(asked)) or []
    tags = [
        Tag(name="t", address="holding:10", type="int16", scale=0.1, offset=5),
        Tag(name="flow", address="holding:0", type="float32"),
        Tag(name="pump", address="coil:3"),
    ]

    async def main():
        (group,) = Driver.compile(device(), tags)
        async with Driver([device()], clock=clock, metrics=metrics, endpoint=peer.endpoint) as driver:
            batch = await driver.read(group)
        assert list(batch.values) == [-2, 1.5, True]
        assert isinstance(batch.values, list)
        assert batch.quality is GOOD
        assert batch.time == 1_700_000_000_500
        assert (
            batch.raw == struct.pack(">HH", 0x3FC0, 0) + b"".join(i.to_bytes(2) for i in range(2, 10)) + b"\xff\xfe\1"
        )

    run(main())


def test_equal_bytes_are_recognised_by_raw_and_other_bytes_too(run, peer, clock, metrics):
    async def main():
        (group,) = Driver.compile(device(), registers(1, 2, 400))
        async with Driver([device()], clock=clock, metrics=metrics, endpoint=peer.endpoint) as driver:
            first, second = await driver.read(group), await driver.read(group)
            peer.registers[400] = 9
            third = await driver.read(group)
        assert first.raw == second.raw != third.raw

    run(main())


def test_bytes_that_are_no_such_value_are_bad_decode_for_that_tag_alone(play, peer):
    peer.registers = {0: 0x1234, 1: 0x00FF}

    async def script(read):
        assert await read() == {"holding:0": 1234, "holding:1": "bad:decode"}
        peer.registers[1] = 0x0042
        assert await read() == {"holding:0": 1234, "holding:1": 42}

    play(script, tags("holding:0", "holding:1", type="bcd16"))


def test_the_smoothest_read_is_one_request_for_each_block(play, peer):
    async def script(read):
        await read()
        assert asked(peer) == [(0, 124), (124, 76)]
        assert {a.unit for a in peer.asked} == {17}

    play(script, tags(*(f"holding:{2 * i}" for i in range(100)), type="float32"), unit=17)


# --- exceptions and holes ---


@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_hole_in_a_merged_block_costs_only_its_own_tag_in_the_very_same_read(play, peer, code):
    peer.holes = {7: code}

    async def script(read):
        wanted = {f"holding:{i}": i for i in range(16)} | {"holding:7": f"bad:exception:{code}"}
        assert await read() == wanted
        assert len(peer.asked) <= 9
        assert await read() == wanted
        assert (7, 1) not in asked(peer)  # remembered: nobody asks for it now
        assert len(peer.asked) <= 4

    play(script, registers(*range(16)))


def test_a_gap_that_may_not_be_read_costs_no_tag_at_all(play, peer):
    peer.holes = {5: 2}

    async def script(read):
        wanted = {"holding:0": 0, "holding:1": 1, "holding:8": 8, "holding:9": 9}
        assert await read() == wanted
        assert asked(peer) == [(0, 10), (0, 2), (8, 2)]
        assert await read() == wanted
        assert asked(peer) == [(0, 2), (8, 2)]

    play(script, registers(0, 1, 8, 9))


def test_a_device_that_takes_fewer_registers_than_asked_for_is_asked_for_fewer(play, peer):
    peer.script = lambda asked: peer.obey(asked) if asked.count <= 50 else [peer.refusal(asked, 3)]

    async def script(read):
        wanted = {f"holding:{i}": i for i in range(120)}
        assert await read() == wanted
        assert await read() == wanted
        assert asked(peer) == [(0, 30), (30, 30), (60, 30), (90, 30)]

    play(script, registers(*range(120)))


def test_several_holes_are_found_and_the_rest_is_well(play, peer):
    peer.holes = {3: 2, 11: 2, 12: 2, 30: 4}

    async def script(read):
        wanted = {f"holding:{i}": f"bad:exception:{peer.holes[i]}" if i in peer.holes else i for i in range(40)}
        assert await read() == wanted
        assert await read() == wanted

    play(script, registers(*range(40)))


def test_a_register_that_returns_is_read_again_and_the_large_request_comes_back(play, peer, clock):
    peer.holes = {7: 2}

    async def script(read):
        await read()
        peer.holes = {}
        assert (await read())["holding:7"] == "bad:exception:2"  # not yet tried
        clock.skip(FIRST_PAUSE_S)
        assert (await read())["holding:7"] == 7
        assert asked(peer) == [(0, 16)]
        await read()
        assert asked(peer) == [(0, 16)]
        assert read.driver._courses[read.group].survey is None

    play(script, registers(*range(16)))


def test_a_hole_is_tried_ever_more_rarely_and_costs_one_request_a_read_at_most(play, peer, clock):
    peer.holes = {7: 2}

    async def script(read):
        await read()
        steady = len(asked(peer)) and (await read()) and len(peer.asked)
        trials = []
        for second in range(3 * 3600):
            clock.skip(1)
            values = await read()
            assert values["holding:7"] == "bad:exception:2"
            assert values["holding:6"] == 6
            assert len(peer.asked) <= steady + 1
            if (7, 1) in asked(peer):
                trials.append(second)
        pauses = [b - a for a, b in pairwise(trials)]
        assert pauses[:4] == pytest.approx([20, 40, 80, 160], abs=5)
        assert max(pauses) == pytest.approx(LAST_PAUSE_S, abs=5)
        assert len(trials) < 30

    play(script, registers(*range(16)))


def test_a_hole_that_heals_leaves_no_mark_when_another_one_comes(play, peer, clock):
    async def script(read):
        for hole in (7, 3, 7):
            peer.holes = {hole: 2, 500: 2}
            wanted = {f"holding:{i}": i for i in range(16)} | {f"holding:{hole}": "bad:exception:2"}
            assert await read() == wanted | {"holding:500": "bad:exception:2"}
            peer.holes = {500: 2}
            clock.skip(LAST_PAUSE_S)
            assert (await read())[f"holding:{hole}"] == hole
            clock.skip(LAST_PAUSE_S)
            await read()

    play(script, registers(*range(16), 500))


def test_a_device_that_refuses_everything_while_it_starts_ends_up_with_its_large_requests(play, peer, clock):
    async def script(read):
        peer.script = lambda asked: [peer.refusal(asked, 4)]
        for _ in range(5):
            assert set((await read()).values()) == {"bad:exception:4"}
            assert len(peer.asked) <= 1 + EXTRA_REQUESTS
            clock.skip(1)
        peer.script = peer.obey
        for _ in range(60):
            clock.skip(1)
            values = await read()
        assert values == {f"holding:{i}": i for i in range(100)}
        assert asked(peer) == [(0, 100)]

    play(script, registers(*range(100)))


def test_the_search_for_holes_is_bounded_and_goes_on_in_the_next_read(play, peer):
    peer.holes = dict.fromkeys(range(0, 120, 2), 2)

    async def script(read):
        for _ in range(20):
            values = await read()
            answered = sum(isinstance(value, int) for value in values.values())
            assert len(peer.asked) <= answered + EXTRA_REQUESTS + 1
        assert values == {f"holding:{i}": "bad:exception:2" if i % 2 == 0 else i for i in range(120)}

    play(script, registers(*range(120)))


def test_a_group_without_any_readable_tag_still_asks_so_that_a_dead_device_is_noticed(play, peer):
    peer.holes = {5: 2}

    async def script(read):
        for _ in range(3):
            assert await read() == {"holding:5": "bad:exception:2"}
            assert asked(peer) == [(5, 1)]
        peer.script = lambda _: []
        with pytest.raises(DeviceError, match="no answer within 1 s") as caught:
            await read()
        assert caught.value.partial is None

    play(script, registers(5))


def test_exception_1_leaves_the_block_alone_and_is_not_searched(play, peer, clock):
    peer.script = lambda asked: [peer.refusal(asked, 1)] if asked.function == 4 else [peer.good(asked)]

    async def script(read):
        wanted = {"holding:0": 0, "input:0": "bad:exception:1", "input:1": "bad:exception:1"}
        assert await read() == wanted
        assert len(peer.asked) == 2
        assert await read() == wanted
        assert asked(peer) == [(0, 1)]
        peer.script = peer.obey
        clock.skip(FIRST_PAUSE_S)
        assert (await read())["input:1"] == 1

    play(script, tags("holding:0", "input:0", "input:1"))


@pytest.mark.parametrize("code", [5, 6, 8, 99])
def test_a_block_that_is_busy_is_asked_for_again_with_the_next_read(play, peer, code):
    peer.script = lambda asked: [peer.refusal(asked, code)] if asked.address == 200 else [peer.good(asked)]

    async def script(read):
        for _ in range(3):
            assert await read() == {"holding:0": 0, "holding:200": f"bad:exception:{code}"}
            assert asked(peer) == [(0, 1), (200, 1)]
        peer.script = peer.obey
        assert await read() == {"holding:0": 0, "holding:200": 200}
        assert read.driver._courses[read.group].survey is None

    play(script, registers(0, 200))


@pytest.mark.parametrize("code", [5, 6])
def test_a_device_that_is_busy_altogether_is_not_ready(play, peer, code):
    peer.script = lambda asked: [peer.refusal(asked, code)]

    async def script(read):
        with pytest.raises(DeviceError) as caught:
            await read()
        assert caught.value.cause == f"exception:{code}"
        assert caught.value.partial is None

    play(script, registers(0, 200))


def test_a_device_that_refuses_all_in_its_makers_own_words_answers_all_the_same(play, peer):
    peer.script = lambda asked: [peer.refusal(asked, 99)]

    async def script(read):
        assert await read() == {"holding:0": "bad:exception:99", "holding:200": "bad:exception:99"}

    play(script, registers(0, 200))


@pytest.mark.parametrize("code", [10, 11])
def test_a_gateway_that_does_not_reach_the_unit_means_the_device_failed(play, peer, code):
    peer.script = lambda asked: [peer.refusal(asked, code)]

    async def script(read):
        with pytest.raises(DeviceError) as caught:
            await read()
        assert caught.value.cause == f"exception:{code}"
        assert caught.value.partial is None
        assert asked(peer) == [(0, 1)]  # the rest is spared

    play(script, registers(0, 200))


# --- silence ---


def test_silence_before_any_answer_is_a_device_error_that_names_device_unit_function_and_address(play, peer, count):
    peer.script = lambda _: []

    async def script(read):
        with pytest.raises(DeviceError) as caught:
            await read()
        assert str(caught.value) == "boiler (unit 3): holding:0..4 (function 3): no answer within 1 s"
        assert caught.value.cause == "timeout"
        assert caught.value.partial is None

    play(script, registers(0, 4, 200), unit=3)
    assert count("modbus_failures_total", device="boiler", cause="timeout") == 1


def test_what_was_answered_before_a_silence_is_kept_and_the_silent_block_goes_last(play, peer):
    silent = {100}
    peer.script = lambda asked: [] if asked.address in silent else [peer.good(asked)]

    async def script(read):
        with pytest.raises(DeviceError) as caught:
            await read()
        assert asked(peer) == [(0, 1), (100, 1)]
        check(caught.value.partial, read.group)
        assert told(caught.value.partial) == {
            "holding:0": 0,
            "holding:100": "bad:timeout",
            "holding:200": "bad:timeout",
        }
        with pytest.raises(DeviceError) as caught:
            await read()
        assert asked(peer) == [(0, 1), (200, 1), (100, 1)]
        assert told(caught.value.partial) == {"holding:0": 0, "holding:100": "bad:timeout", "holding:200": 200}
        silent.clear()
        assert await read() == {"holding:0": 0, "holding:100": 100, "holding:200": 200}
        assert await read() == {"holding:0": 0, "holding:100": 100, "holding:200": 200}
        assert asked(peer) == [(0, 1), (100, 1), (200, 1)]

    play(script, registers(0, 100, 200))


def test_a_first_block_that_is_always_silent_does_not_hide_the_others(play, peer):
    peer.script = lambda asked: [] if asked.address == 0 else [peer.good(asked)]

    async def script(read):
        with pytest.raises(DeviceError) as caught:
            await read()
        assert caught.value.partial is None
        with pytest.raises(DeviceError) as caught:
            await read()
        assert told(caught.value.partial) == {"holding:0": "bad:timeout", "holding:100": 100}

    play(script, registers(0, 100))


def test_registers_a_device_is_always_silent_about_are_found_and_left_out(play, peer, clock):
    peer.script = lambda asked: [] if asked.address <= 103 < asked.address + asked.count else [peer.good(asked)]
    wanted = {"holding:0": 0} | {f"holding:{100 + i}": 100 + i for i in range(8)} | {"holding:103": "bad:timeout"}

    async def script(read):
        for _ in range(12):
            try:
                values = await read()
            except DeviceError as error:
                values = told(error.partial)
            assert values["holding:0"] == 0
        assert values == wanted
        before = asyncio.get_running_loop().time()
        assert await read() == wanted
        assert asyncio.get_running_loop().time() == before  # no second is lost any more
        for _ in range(200):  # trials cost a second each, and no value but its own
            clock.skip(5)
            assert await read() == wanted
        peer.script = peer.obey
        for _ in range(3):
            clock.skip(LAST_PAUSE_S)
            values = await read()
        assert values == wanted | {"holding:103": 103}
        assert asked(peer) == [(0, 1), (100, 8)]

    play(script, registers(0, *range(100, 108)))


def test_a_trial_that_is_silent_again_takes_no_value_from_the_blocks_after_it(play, peer, clock):
    silent = {100}
    peer.script = lambda asked: [] if asked.address in silent else [peer.good(asked)]

    async def script(read):
        for _ in range(6):
            with contextlib.suppress(DeviceError):
                await read()
        assert await read() == {"holding:0": 0, "holding:100": "bad:timeout", "holding:200": 200}
        assert asked(peer) == [(0, 1), (200, 1)]
        silent.add(200)
        with pytest.raises(DeviceError):
            await read()
        silent.remove(200)
        clock.skip(FIRST_PAUSE_S)
        assert await read() == {"holding:0": 0, "holding:100": "bad:timeout", "holding:200": 200}
        assert asked(peer) == [(0, 1), (100, 1), (200, 1)]

    play(script, registers(0, 100, 200))


def test_a_device_that_was_gone_for_long_is_read_in_large_requests_when_it_is_back(play, peer):
    async def script(read):
        peer.script = lambda _: []
        for _ in range(9):
            with pytest.raises(DeviceError):
                await read()
        peer.script = peer.obey
        assert await read() == {f"holding:{i}": i for i in (*range(10), *range(100, 110))}
        await read()
        assert asked(peer) == [(0, 10), (100, 10)]

    play(script, registers(*range(10), *range(100, 110)), device("other", unit=2))


def test_a_device_that_falls_silent_in_the_midst_of_bisecting_is_a_device_error(play, peer):
    def script_of_peer(asked):
        return [peer.refusal(asked, 2)] if asked.count > 4 else []

    peer.script = script_of_peer

    async def script(read):
        with pytest.raises(DeviceError, match="no answer") as caught:
            await read()
        assert caught.value.partial is None
        peer.script = peer.obey
        assert await read() == {f"holding:{i}": i for i in range(8)}

    play(script, registers(*range(8)))


def test_an_answer_that_does_not_fit_is_a_device_error_with_cause_decode(play, peer):
    peer.script = lambda asked: [peer.frame(asked, b"\x04\x02\x00\x00")]

    async def script(read):
        with pytest.raises(DeviceError, match="does not fit the question: 04 02 00 00") as caught:
            await read()
        assert caught.value.cause == "decode"

    play(script, registers(0))


def test_with_more_in_flight_answers_that_come_after_a_silence_still_count(play, peer):
    peer.script = lambda asked: [] if asked.address == 0 else [peer.good(asked)]

    async def script(read):
        with pytest.raises(DeviceError) as caught:
            await read()
        assert told(caught.value.partial) == {"holding:0": "bad:timeout", "holding:100": 100, "holding:200": 200}

    play(script, registers(0, 100, 200), max_in_flight=3)


# --- lost lines ---


def test_a_lost_line_is_a_line_error_at_once_and_entering_again_reads_again(run, peer, clock, metrics):
    async def main():
        (group,) = Driver.compile(device(), registers(0))
        driver = Driver([device()], clock=clock, metrics=metrics, endpoint=peer.endpoint)
        peer.script = lambda _: [None]
        async with driver:
            with pytest.raises(LineError, match="closed by the peer"):
                await driver.read(group)
        peer.script = peer.obey
        async with driver:
            assert (await driver.read(group)).values == [0]
        assert "boiler" in repr(driver)

    run(main())


# --- one line, several devices ---


def test_the_careful_value_counts_where_devices_of_a_line_differ(clock, metrics):
    driver = Driver(
        [
            device("a", unit=1, timeout="2s", connect_delay="1s", max_in_flight=4, request_gap="30ms"),
            device("b", unit=2, timeout="5s", connect_delay="3s", max_in_flight=2),
            device("c", unit=1, request_gap="10ms", max_in_flight=8),
        ],
        clock=clock,
        metrics=metrics,
    )
    client = driver._client
    assert (client._timeout_s, client._connect_delay_s, client._max_in_flight) == (5.0, 3.0, 2)
    assert client._units == {1, 2}
    assert driver._gaps == {1: 0.03, 2: 0.0}


def test_devices_of_one_line_are_read_over_one_connection_each_by_its_unit(run, peer, clock, metrics):
    async def main():
        boiler, meter = device("boiler", unit=1), device("meter", unit=2)
        driver = Driver([boiler, meter], clock=clock, metrics=metrics, endpoint=peer.endpoint)
        async with driver:
            for mine in (boiler, meter, boiler):
                (group,) = Driver.compile(mine, registers(5))
                assert (await driver.read(group)).values == [5]
        assert [a.unit for a in peer.asked] == [1, 2, 1]
        assert peer.opened == 1

    run(main())


# --- what is logged ---


def test_a_hole_is_told_once_when_it_is_found_and_once_when_it_is_back(play, peer, clock, caplog):
    peer.holes = {7: 2}

    async def script(read):
        for _ in range(200):
            clock.skip(5)
            await read()
        peer.holes = {}
        for _ in range(200):
            clock.skip(5)
            await read()

    with caplog.at_level(logging.INFO, "headgate.modbus"):
        play(script, registers(*range(8)))
    cut, hole, back = (r.getMessage() for r in caplog.records)
    assert cut.startswith("boiler: asked for in parts, for in one piece they fail (exception 2 (Illegal Data Address")
    assert cut.endswith(": holding:0..7")
    assert hole.startswith("boiler: left out from now on, and tried again now and then (exception 2 (Illegal Data")
    assert hole.endswith(": holding:7")
    assert back == "boiler: answers again: holding:7"


def test_many_holes_are_one_line(play, peer, caplog):
    peer.script = lambda asked: [peer.refusal(asked, 2)]

    async def script(read):
        await read()

    with caplog.at_level(logging.INFO, "headgate.modbus"):
        play(script, registers(*range(10)))
    assert [r.getMessage().rpartition(": ")[2] for r in caplog.records] == [
        "holding:0..9",
        "holding:0, holding:1, holding:2, holding:3, holding:4 and 5 more",
    ]


# --- the door ---


def test_the_driver_is_found_by_its_entry_point_and_can_simulate():
    assert find("modbus") is Driver
    assert isinstance(Driver, Simulates)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("tcp://10.0.0.5", "tcp://10.0.0.5:502"),
        ("tcp://10.0.0.5:502", "tcp://10.0.0.5:502"),
        ("tcp://10.0.0.5:502/", "tcp://10.0.0.5:502"),
        ("TCP://PLC.Example:1502", "tcp://plc.example:1502"),
        ("tcp://[fe80::1]", "tcp://[fe80::1]:502"),
    ],
)
def test_urls_of_the_same_line_have_the_same_key(url, port):
    assert Driver.line_key(url, DeviceOptions()) == LineKey(port)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("10.0.0.5", "'10.0.0.5' is no url of a Modbus device. Use tcp://HOST[:502]"),
        ("http://10.0.0.5", "is no url of a Modbus device"),
        ("", "'' is no url"),
        ("tcp://", "must hold a host and a port and nothing else. Use tcp://HOST[:502]"),
        ("tcp://:502", "must hold a host"),
        ("tcp://host:0", "must hold a host and a port"),
        ("tcp://host:70000", "Port out of range 0-65535. Use tcp://HOST[:502]"),
        ("tcp://host:abc", "Use tcp://HOST[:502]"),
        ("tcp://host/unit/1", "nothing else"),
        ("tcp://host?unit=1", "nothing else"),
        ("tcp://user@host", "knows no login"),
        ("tcp://[::1", "Use tcp://HOST[:502]"),
    ],
)
def test_a_url_that_cannot_be_used_says_why_and_what_to_write(url, reason):
    with pytest.raises(ValueError) as caught:
        Driver.line_key(url, DeviceOptions())
    assert reason in str(caught.value)
