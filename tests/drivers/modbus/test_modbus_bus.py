"""One line, one request at a time: silences, order, patience, echo, writes, broadcasts, and the end of a connection."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.frames import requests
from drivers.modbus.frames.pdu import Request
from drivers.modbus.lines.exchange import EXPIRED
from drivers.modbus.lines.transport import transport_of
from drivers.modbus.lines.url import route_of
from drivers.modbus.options import DeviceOptions
from gateway.errors import LineError

ONE = Request(1, 3, 0, 1)
TWO = Request(1, 3, 1, 1)
PAIR = Request(1, 3, 2, 2)
OTHER = Request(2, 3, 0, 1)
GONE = Request(9, 3, 0, 1)
VALUE = {ONE: b"\x20\x00", TWO: b"\x20\x80", PAIR: b"\x21\x00\x21\x80", OTHER: b"\x40\x00"}
FRAMINGS = ("rtu", "ascii")


@pytest.fixture(params=FRAMINGS)
def wire(request, wire_kit):
    return wire_kit.Wire(request.param)


@pytest.fixture
def play(run, wire, wire_kit, clock, metrics):
    """Run `script(bus, fetch)` on an open line; `fetch` gives the answers."""

    def runner(script, **options):
        async def main():
            bus = wire_kit.bus_on(wire, clock=clock, metrics=metrics, **options)

            async def fetch(*asked, gap_s=0.0, urgent=False, timeout_s=0.5):
                return (await bus.fetch(asked, timeout_s=timeout_s, gap_s=gap_s, urgent=urgent)).answers

            await bus.open()
            try:
                return await script(bus, fetch)
            finally:
                await bus.close()

        return run(main())

    return runner


def now():
    return asyncio.get_running_loop().time()


def silent(wire, *units):
    wire.units -= set(units)


# --- the line ---


def test_requests_go_one_after_the_other_with_a_silence_between(play, wire):
    async def script(bus, fetch):
        assert await asyncio.gather(fetch(ONE, PAIR), fetch(OTHER)) == [[VALUE[ONE], VALUE[PAIR]], [VALUE[OTHER]]]
        assert "open, <dialogue idle" in repr(bus)

    play(script)
    assert [heard.unit for heard in wire.asked] == [1, 1, 2]
    for earlier, later in zip(wire.asked, wire.asked[1:], strict=False):
        answered = wire.answers[earlier.number]
        size = len(wire.frame(later.unit, later.pdu))
        began = later.at - size * wire.character_s
        spoke = earlier.at + wire.turnaround_s + answered[3] * wire.character_s
        assert began - spoke >= 3.5 * wire.character_s - 1e-9


def test_above_19200_baud_the_silence_gets_no_shorter(play, wire):
    wire.character_s = 11 / 115200

    async def script(_, fetch):
        await fetch(ONE, PAIR)

    play(script)
    size = len(wire.frame(1, PAIR.pdu)) * wire.character_s
    spoke = wire.asked[0].at + wire.turnaround_s + wire.answers[0][3] * wire.character_s
    assert wire.asked[1].at - size - spoke == pytest.approx(0.00175, abs=1e-5)


def test_timeout_is_the_units_own_time_whatever_the_line_takes(play, wire):
    wide = Request(1, 3, 0, 60)  # takes longer on this line than the timeout
    wire.turnaround_s = 0.09

    async def script(_, fetch):
        (answer,) = await fetch(wide, timeout_s=0.1)
        assert len(answer) == 120
        began = now()
        (answer,) = await fetch(GONE, timeout_s=0.1)
        line_s = (len(wire.frame(9, GONE.pdu)) + len(wire.frame(9, bytes(4)))) * wire.character_s
        assert (answer.cause, answer.act) == ("timeout", "unit")
        assert now() - began == pytest.approx(0.1 + line_s + 3.5 * wire.character_s, abs=0.001)

    play(script)


def test_urgent_goes_before_what_waits_and_after_what_was_urgent_before(play, wire):
    async def script(_, fetch):
        polls = [asyncio.create_task(fetch(ONE, PAIR, ONE)), asyncio.create_task(fetch(OTHER))]
        await asyncio.sleep(0.001)
        await asyncio.gather(fetch(Request(1, 3, 40, 1), urgent=True), fetch(Request(1, 3, 41, 1), urgent=True), *polls)

    play(script)
    assert [int.from_bytes(heard.pdu[1:3]) for heard in wire.asked] == [0, 40, 41, 2, 0, 0]


def test_what_is_not_wanted_any_more_when_its_turn_comes_is_never_sent(play, wire):
    async def script(bus, fetch):
        poll = asyncio.create_task(fetch(ONE, PAIR))
        await asyncio.sleep(0.001)
        asked = {"timeout_s": 0.5, "gap_s": 0.0, "urgent": True}
        late = await bus.fetch([Request(1, 3, 40, 1)], **asked, is_wanted=lambda: False)
        good = await bus.fetch([Request(1, 3, 41, 1)], **asked, is_wanted=lambda: True)
        await poll
        return late.answers, [type(answer) for answer in good.answers]

    assert play(script) == ([EXPIRED], [bytes])
    assert [int.from_bytes(heard.pdu[1:3]) for heard in wire.asked] in ([0, 2, 41], [0, 41, 2])


def test_a_flood_of_urgent_requests_does_not_starve_the_polls(play):
    async def script(_, fetch):
        async def flood(at):
            while True:
                await fetch(Request(1, 3, at, 1), urgent=True)

        floods = [asyncio.create_task(flood(at)) for at in (40, 41, 42)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(3.0):
            found = await fetch(ONE)
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        return found

    assert play(script) == [VALUE[ONE]]


def test_who_becomes_urgent_during_the_silence_still_goes_first(play, wire):
    async def script(_, fetch):
        await fetch(ONE)
        poll = asyncio.create_task(fetch(PAIR))
        await asyncio.sleep(0.001)  # the line is not free yet
        await fetch(OTHER, urgent=True)
        await poll

    play(script)
    assert [heard.unit for heard in wire.asked] == [1, 2, 1]


def test_a_gap_is_kept_for_its_unit_and_the_others_go_on(play, wire):
    async def script(_, fetch):
        await asyncio.gather(fetch(ONE, PAIR, gap_s=0.4), fetch(OTHER))

    play(script)
    assert [heard.unit for heard in wire.asked] == [1, 2, 1]
    assert wire.asked[2].at - wire.asked[0].at > 0.4


def test_a_read_that_is_cancelled_keeps_its_place_until_its_answer_came(play, wire, count):
    async def script(_, fetch):
        reading = asyncio.create_task(fetch(ONE, PAIR))
        waiting = asyncio.create_task(fetch(TWO))
        await asyncio.sleep(0.001)
        reading.cancel()
        waiting.cancel()
        assert await fetch(OTHER) == [VALUE[OTHER]]
        assert reading.cancelled()

    play(script)
    assert [heard.unit for heard in wire.asked] == [1, 2]
    assert count("modbus_noise_bytes_total") == 0


# --- silence ---


def test_after_a_silence_the_unit_is_left_alone_and_the_others_go_on(play, wire, count):
    silent(wire, 1)

    async def script(_, fetch):
        began = now()
        one, pair = await fetch(ONE, PAIR)
        assert (one.cause, one.text, pair) == ("timeout", "no answer within 0.5 s", None)
        (again,) = await fetch(ONE)
        assert again.cause == "timeout"
        assert "may still come" in again.text
        assert await fetch(OTHER) == [VALUE[OTHER]]
        wire.units.add(1)
        await asyncio.sleep(began + 1.45 - now())
        assert (await fetch(ONE))[0].cause == "timeout"
        await asyncio.sleep(began + 1.55 - now())
        assert await fetch(ONE) == [VALUE[ONE]]

    play(script)
    assert [heard.unit for heard in wire.asked] == [1, 2, 1]
    assert count("modbus_timeouts_total", unit="1") == 1


def test_who_is_urgent_waits_for_a_unit_that_owes_an_answer(play, wire):
    silent(wire, 1)

    async def script(_, fetch):
        began = now()
        await fetch(ONE)
        wire.units.add(1)
        assert await fetch(PAIR, urgent=True) == [VALUE[PAIR]]
        assert now() - began == pytest.approx(1.5, abs=0.1)

    play(script)


def test_max_late_is_the_units_own(play, wire):
    silent(wire, 1)

    async def script(_, fetch):
        await fetch(ONE)
        wire.units.add(1)
        await asyncio.sleep(0.2)
        assert await fetch(ONE) == [VALUE[ONE]]

    play(script, max_late_s={1: 0.6})


def test_a_late_answer_is_counted_ends_the_rest_and_never_becomes_a_value(play, wire, count):
    def late(heard):
        wire.loop.call_later(0.8, wire.say, wire.frame(1, wire.answer(1, heard.pdu)))
        return []

    wire.instead[0] = late

    async def script(_, fetch):
        assert (await fetch(ONE))[0].cause == "timeout"
        assert (await fetch(TWO))[0].cause == "timeout"
        await asyncio.sleep(0.4)
        assert await fetch(TWO) == [VALUE[TWO]]

    play(script)
    assert count("modbus_late_answers_total", unit="1") == 1
    assert count("modbus_foreign_answers_total") == 0


def test_a_unit_that_answers_other_requests_of_the_read_is_waited_for(play, wire):
    """Some devices do not answer for registers they do not have: that is no outage."""
    wire.instead[1] = lambda _: []

    async def script(_, fetch):
        one, pair = await fetch(ONE, PAIR)
        assert one == VALUE[ONE]
        assert pair.cause == "timeout"
        assert await fetch(ONE) == [VALUE[ONE]]

    play(script)


def test_silence_of_all_units_ends_the_connection_and_one_dead_unit_does_not(play, wire):
    silent(wire, 2)

    async def script(bus, fetch):
        for _ in range(12):
            assert (await fetch(OTHER))[0].cause == "timeout"
            assert await fetch(ONE) == [VALUE[ONE]]
            await asyncio.sleep(2)
        silent(wire, 1)
        await fetch(OTHER)
        await fetch(ONE)
        await asyncio.sleep(2)
        with pytest.raises(LineError, match="nothing was answered 3 times in a row") as caught:
            await fetch(ONE)
        assert caught.value.cause == "timeout"
        assert "closed" in repr(bus)

    play(script, units=frozenset({1, 2}))


def test_a_scan_of_units_that_are_not_there_does_not_cost_the_connection(play, wire):
    silent(wire, *range(2, 40))

    async def script(_, fetch):
        for unit in range(2, 40):
            assert (await fetch(Request(unit, 3, 0, 1)))[0].cause == "timeout"
        assert await fetch(ONE) == [VALUE[ONE]]
        silent(wire, 1)
        await fetch(ONE)
        for unit in range(2, 12):
            await fetch(Request(unit, 3, 0, 1))

    play(script, units=frozenset({1}))


def test_hints_say_what_was_heard_instead(play, wire):
    silent(wire, 1, 2, 3)
    wire.before[0].append(lambda _: wire.say(b"\xff" * 7, delay_s=0.2))
    wire.before[1].append(lambda _: wire.say(wire.frame(7, b"\3\2\0\0")))

    async def script(_, fetch):
        assert "but 7 bytes that are none: do baud, parity and stop bits fit?" in (await fetch(ONE))[0].text
        assert "but unit 7 answered: is it unit: 7?" in (await fetch(OTHER))[0].text
        wire.echo = True
        assert "only our own request came back" in (await fetch(Request(3, 3, 0, 1)))[0].text

    play(script, units=frozenset(range(1, 9)))


@given(
    heard=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.tuples(st.integers(0, 3), st.integers(0, 6), st.binary(max_size=6)).map(
                lambda part: (part[0], bytes((part[1],)) + part[2])
            ),
        ),
        max_size=6,
    ),
    framing=st.sampled_from(FRAMINGS),
)
def test_whatever_is_heard_the_line_goes_on(kit, wire_kit, heard, framing):
    """Bytes, and frames of any content with a right checksum: nothing breaks, and a unit that is asked answers."""
    wire, crashes = wire_kit.Wire(framing), []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: crashes.append(context))
        bus = wire_kit.bus_on(wire, clock=kit.VirtualClock(), metrics=kit.Metrics())
        await bus.open()
        for part in heard:
            wire.say(part if isinstance(part, bytes) else wire.frame(*part))
        await bus.fetch([ONE, PAIR], timeout_s=0.5, gap_s=0)
        await asyncio.sleep(5)
        assert (await bus.fetch([ONE, PAIR], timeout_s=0.5, gap_s=0)).answers == [VALUE[ONE], VALUE[PAIR]]
        await bus.close()

    with asyncio.Runner(loop_factory=kit.VirtualLoop) as runner:
        runner.run(main())
    assert not crashes


def test_a_line_that_is_never_quiet_fails_and_does_not_hang(play, wire):
    async def script(_, fetch):
        async def babble():
            while True:
                wire.receiver.on_data(b"\xa5")
                await asyncio.sleep(0.001)

        babbling = asyncio.create_task(babble())
        await asyncio.sleep(0.1)
        silent(wire, 1)
        began = now()
        assert (await fetch(ONE))[0].cause == "timeout"
        assert now() - began < 2
        babbling.cancel()

    play(script)


# --- damage ---


def flip(wire, *places):
    for at in places:
        wire.at_byte[at] = lambda byte: bytes((byte[0] ^ 1,))


def test_a_damaged_answer_is_asked_for_again_at_once(play, wire, count):
    async def script(_, fetch):
        assert await fetch(ONE) == [VALUE[ONE]]
        flip(wire, wire.bytes + wire.answers[0][3] - 4)
        began = now()
        assert await fetch(ONE) == [VALUE[ONE]]
        assert now() - began < 0.2

    play(script)
    assert len(wire.asked) == 3
    assert count("modbus_crc_errors_total", unit="1") == 1
    assert count("modbus_noise_bytes_total") == wire.answers[0][3]


@pytest.mark.parametrize("retries", [0, 2])
def test_an_answer_that_is_always_damaged_is_given_up_after_the_retries(play, wire, retries):
    async def script(_, fetch):
        await fetch(ONE)
        size = wire.answers[0][3]
        flip(wire, *(wire.bytes + n * size + size - 4 for n in range(10)))
        one, pair = await fetch(ONE, PAIR)
        assert one.cause == "decode"
        assert "damaged" in one.text
        assert pair is None

    play(script, retries={1: retries})
    assert len(wire.asked) == 2 + retries


def test_a_write_is_never_sent_twice(play, wire):
    write = requests.write_registers(1, 30, b"\0\7")

    async def script(_, fetch):
        await fetch(ONE)
        flip(wire, wire.bytes + 3)
        (answer,) = await fetch(write)
        assert answer.cause in ("decode", "timeout")

    play(script)
    assert [heard.pdu[0] for heard in wire.asked] == [3, 16]
    assert wire.words[1, 30] == 7


# --- copies ---


def test_equal_values_are_asked_for_twice_once_and_believed_from_then_on(play, wire):
    wire.words = {(1, 0): 0, (1, 1): 0}

    async def script(_, fetch):
        for _ in range(5):
            assert await fetch(ONE, TWO) == [b"\0\0", b"\0\0"]
        await asyncio.sleep(5)
        wire.words = {(1, 0): 7, (1, 1): 7}
        assert await fetch(TWO, ONE) == [b"\0\7", b"\0\7"]

    play(script)
    assert len(wire.asked) == 10 + 1 + 2 + 1


def test_a_copy_of_the_last_answer_is_not_the_next_ones(play, wire, count):
    said = []
    wire.after[0].append(lambda _: said.append(wire.frame(1, wire.answer(1, ONE.pdu))))
    wire.before[1].append(lambda _: wire.say(said[0]))

    async def script(_, fetch):
        assert await fetch(ONE, TWO, PAIR) == [VALUE[ONE], VALUE[TWO], VALUE[PAIR]]

    play(script)
    assert len(wire.asked) == 3
    assert count("modbus_repeated_answers_total") == 1


def test_what_is_remembered_is_bounded(play, wire):
    async def script(bus, fetch):
        for i in range(600):
            await fetch(Request(1, 3, i % 60, 1 + i // 60 % 10))
        unit = bus._dialogue._units[1]
        assert len(unit._heard) <= 64
        assert len(unit._last) <= 512
        for _ in range(50):
            unit.owe(ONE, now() + 5, ours=False)
        assert len(unit.owed) <= 8

    play(script)


# --- echo, writes, broadcasts ---


@pytest.mark.parametrize("echo", ["auto", "on"])
def test_an_echo_is_no_answer_and_is_found_out(play, wire, echo, count):
    wire.echo = True

    async def script(bus, fetch):
        assert await fetch(ONE, PAIR) == [VALUE[ONE], VALUE[PAIR]]
        assert "echo on" in repr(bus)
        assert await fetch(requests.write_register(1, 30, b"\0\7")) == [b""]
        assert wire.words[1, 30] == 7
        silent(wire, 1)
        (answer,) = await fetch(requests.write_register(1, 31, b"\0\7"))
        assert answer.cause == "timeout"
        assert "only our own request came back" in answer.text

    play(script, echo=echo)
    assert count("modbus_noise_bytes_total") == 0


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("alive", [False, True])
@pytest.mark.parametrize(
    "write", [requests.write_register(1, 30, b"\0\7"), requests.write_coil(1, 30, on=True)], ids=["register", "coil"]
)
def test_the_first_thing_on_a_line_may_be_a_write_and_its_echo_is_not_believed(play, wire, echo, alive, write):
    wire.echo = echo
    if not alive:
        silent(wire, 1)

    async def script(_, fetch):
        (answer,) = await fetch(write, urgent=True)
        assert (answer == b"") is alive
        assert ((1, 30) in wire.words) is alive

    play(script)
    assert [heard.pdu[0] for heard in wire.asked] == [1 if write.function == 5 else 3, write.function][: 1 + alive]


def test_an_echo_that_is_gone_for_long_is_expected_no_more(play, wire):
    wire.echo = True

    async def script(bus, fetch):
        await fetch(ONE)
        wire.echo = False
        await fetch(PAIR)
        assert "echo on" in repr(bus)
        await fetch(ONE, PAIR)
        assert "echo off" in repr(bus)
        assert await fetch(requests.write_register(1, 30, b"\0\7")) == [b""]

    play(script)


def test_a_broadcast_is_not_answered_and_gets_its_time(play, wire):
    async def script(_, fetch):
        began = now()
        assert await fetch(requests.write_register(0, 30, b"\0\7")) == [b""]
        assert now() - began >= 0.1
        (answer,) = await fetch(Request(0, 3, 0, 1))
        assert answer.cause == "config"
        assert "unit 0 is everybody" in answer.text

    play(script)
    assert len(wire.asked) == 1


# --- the connection ---


def test_unplugging_fails_what_is_under_way_and_what_waits(play, wire):
    async def script(bus, fetch):
        reading = [asyncio.create_task(fetch(ONE, PAIR)), asyncio.create_task(fetch(OTHER))]
        await asyncio.sleep(0.001)
        wire.lose()
        for result in await asyncio.gather(*reading, return_exceptions=True):
            assert isinstance(result, LineError)
        with pytest.raises(LineError, match="unplugged"):
            await fetch(ONE)
        await bus.open()
        assert await fetch(ONE) == [VALUE[ONE]]

    play(script)
    assert wire.opened == 2


def test_a_line_that_ended_while_it_was_idle_is_opened_again(play, wire):
    async def script(_, fetch):
        await fetch(ONE)
        wire.lose()
        assert await asyncio.gather(fetch(ONE), fetch(OTHER)) == [[VALUE[ONE]], [VALUE[OTHER]]]

    play(script)
    assert wire.opened == 2


def test_a_line_lingers_and_dozes(play, wire):
    async def script(bus, fetch):
        await fetch(ONE)
        await asyncio.sleep(1.5)
        await fetch(ONE)
        await asyncio.sleep(2.5)
        assert "closed" in repr(bus)
        assert await fetch(ONE) == [VALUE[ONE]]

    play(script, linger_s=2.0)
    assert wire.opened == 2


def test_who_gives_up_before_anything_was_sent_leaves_a_line_that_is_closed_in_time(play, wire):
    async def script(bus, fetch):
        await fetch(ONE, gap_s=9.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fetch(ONE, gap_s=9.0), 1.0)
        await asyncio.sleep(2.001)
        assert "closed" in repr(bus)

    play(script, linger_s=2.0)
    assert len(wire.asked) == 1


def test_beside_a_register_that_never_changes_one_that_does_is_asked_once_a_read(play, wire):
    async def script(_, fetch):
        for n in range(20):
            wire.words[1, 1] = n
            began = now()
            assert await fetch(ONE, TWO) == [VALUE[ONE], n.to_bytes(2)]
            if n > 2:  # by then it is known as one that changes: its request waits until no second answer can come
                assert now() - began < 0.15

    play(script)
    assert len(wire.asked) <= 42


def test_a_master_that_asks_while_a_request_waits_to_be_sent_again_spoils_it_too(play, wire):
    wire.at_byte[4] = lambda byte: bytes((byte[0] ^ 1,))  # the answer comes damaged

    async def script(_, fetch):
        asked = asyncio.create_task(fetch(ONE, gap_s=0.3))
        await asyncio.sleep(0.6)
        assert len(wire.asked) == 1
        wire.say(wire.frame(1, TWO.pdu))
        wire.say(wire.frame(1, b"\3\2" + VALUE[TWO]), delay_s=0.25)
        (failure,) = await asked
        assert "another master asked the unit" in failure.text

    play(script, timeout_s=1.0)
    assert len(wire.asked) == 1


def test_what_a_unit_owes_outlives_the_connection(play, wire):
    silent(wire, 1)

    async def script(bus, fetch):
        await fetch(ONE)
        await bus.close()
        await bus.open()
        assert "may still come" in (await fetch(ONE))[0].text

    play(script)
    assert len(wire.asked) == 1


def test_connect_delay_passes_before_the_first_request(play, wire):
    async def script(_, fetch):
        await fetch(ONE)

    play(script, connect_delay_s=2.0)
    assert wire.asked[0].at > 1002


def test_a_closed_bus_says_so_and_leaves_no_timer(run, wire, wire_kit, clock, metrics):
    async def main():
        bus = wire_kit.bus_on(wire, clock=clock, metrics=metrics)
        with pytest.raises(LineError, match="not connected"):
            await bus.fetch([ONE], timeout_s=1, gap_s=0)
        await bus.open()
        silent(wire, 1)
        reading = asyncio.create_task(bus.fetch([ONE], timeout_s=5, gap_s=0))
        await asyncio.sleep(0.2)
        await bus.close()
        with pytest.raises(LineError, match="closed by us"):
            await reading
        assert all(timer.cancelled() for timer in asyncio.get_running_loop()._scheduled)

    run(main())


# --- which transport, and what is counted ---


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("tcp://10.0.0.5", "client"),
        ("rtu+tcp://10.0.0.5:4001", "bus"),
        ("ascii+tcp://10.0.0.5:4001?baud=9600&echo=on", "bus"),
        ("rtu:///dev/ttyUSB0?baud=9600", "bus"),
        ("ascii:///dev/ttyUSB0", "bus"),
    ],
)
def test_the_framing_of_the_url_decides_the_transport(url, kind, clock, metrics):
    wishes = [DeviceOptions(unit=1, max_late="2s", retries=1), DeviceOptions(unit=2)]
    transport = transport_of(route_of(url), wishes, gaps={1: 0.0, 2: 0.0}, clock=clock, metrics=metrics)
    assert repr(transport).startswith(f"<modbus {kind} ")


def test_requests_exceptions_and_turnaround_are_counted_by_unit(play, wire, count):
    async def script(bus, fetch):
        await fetch(ONE, PAIR, Request(1, 3, 70, 1))
        assert bus.statistics.turnaround(1) == pytest.approx(wire.turnaround_s, rel=0.1)

    play(script)
    assert count("modbus_requests_total", unit="1") == 3
    assert count("modbus_exceptions_total", unit="1") == 1
