"""Setup writes: before the first read on a connection, after an outage, in order; and what a failing one costs."""

import asyncio

import pytest

from drivers.modbus.driver import Driver
from gateway.errors import DeviceError, FileError, LineError
from gateway.model import Device, Place

SETUP = [
    {"address": "holding:40", "type": "float32", "order": "CDAB", "value": 1.5},
    {"address": "coil:3", "value": True},
]
WRITES = [bytes.fromhex("10 0028 0002 04 0000 3FC0"), bytes.fromhex("05 0003 FF00")]
READ = bytes.fromhex("03 0000 0001")


@pytest.fixture
def play(session, make):
    """Run `script(driver, read)` with a device that wants setup writes."""

    def runner(script, setup=SETUP, **options):
        mine = make.device(setup=setup, timeout="100ms", **options)

        async def main(driver):
            (group,) = Driver.compile(mine, [make.tag("holding:0")])

            async def read():
                return make.told(await driver.read(group))

            return await script(driver, read)

        return session(main, mine)

    return runner


def test_the_writes_come_before_the_first_read_in_order_and_only_once(play, plc, count):
    async def script(driver, read):
        assert await read() == {"holding:0": 0}
        assert plc.asked == [*WRITES, READ]
        await read()
        assert plc.asked == [*WRITES, READ, READ]

    play(script)
    assert count("modbus_setup_writes_total", device="boiler") == 2
    assert count("modbus_setup_failures_total", device="boiler") == 0


def test_each_connection_has_them_anew(play, plc):
    async def script(driver, read):
        await read()
        await driver.__aexit__(None, None, None)
        await driver.__aenter__()
        plc.asked.clear()
        await read()
        assert plc.asked == [*WRITES, READ]

    play(script)


def test_a_device_that_returns_after_an_outage_has_them_anew(play, plc):
    async def script(driver, read):
        await read()
        plc.silent = {3}
        with pytest.raises(DeviceError):
            await read()
        plc.silent = set()
        plc.asked.clear()
        await read()
        assert plc.asked == [*WRITES, READ]

    play(script)


def test_a_device_that_answers_a_probe_after_an_outage_has_them_before_it_counts_as_back(session, make, plc):
    mine = make.device(setup=SETUP, timeout="100ms")

    async def script(driver):
        (group,) = Driver.compile(mine, [make.tag("holding:0")])
        await driver.read(group)
        plc.silent = {3}
        with pytest.raises(DeviceError):
            await driver.read(group)
        plc.silent, plc.refused = set(), {16: 6}
        with pytest.raises(DeviceError, match=r"setup 1 of boiler .* exception 6"):
            await driver.probe(mine)
        plc.refused = {}
        plc.asked.clear()
        await driver.probe(mine)
        assert plc.asked == [READ, *WRITES]
        await driver.read(group)
        assert plc.asked == [READ, *WRITES, READ]

    session(script, mine)


def test_commands_wait_for_the_setup_too_and_it_is_done_once(session, make, plc):
    mine = make.device(setup=SETUP)
    tag = make.tag("holding:0")

    async def script(driver):
        (group,) = Driver.compile(mine, [tag])
        await asyncio.gather(driver.write(mine, tag, 5), driver.read_tag(mine, tag), driver.read(group))
        assert plc.asked[:2] == WRITES
        assert plc.functions.count(16) == 1
        assert plc.functions.count(6) == 1

    session(script, mine)


def test_a_device_that_answers_in_part_was_never_gone(session, make, plc):
    plc.silent = {4}
    mine = make.device(setup=SETUP, timeout="100ms")

    async def script(driver):
        (group,) = Driver.compile(mine, [make.tag("holding:0"), make.tag("input:0")])
        for _ in range(2):
            with pytest.raises(DeviceError) as caught:
                await driver.read(group)
            assert caught.value.partial is not None
        assert plc.functions.count(5) == 1

    session(script, mine)


@pytest.mark.parametrize("code", [2, 6, 10])
def test_a_write_that_is_refused_makes_the_device_fail_with_its_text(play, plc, count, code):
    plc.refused = {5: code}

    async def script(driver, read):
        for _ in range(2):
            with pytest.raises(
                DeviceError, match=rf"^setup 2 of boiler \(unit 1\): coil:3 \(function 5\): exception {code}"
            ):
                await read()
        assert READ not in plc.asked
        plc.refused = {}
        plc.asked.clear()
        await read()
        assert plc.asked == [*WRITES, READ]  # all of them again: the device may have been off

    play(script)
    assert count("modbus_setup_failures_total", device="boiler") == 2


def test_a_device_that_is_silent_at_its_setup_is_silent(play, plc):
    plc.silent = {16}

    async def script(driver, read):
        with pytest.raises(DeviceError, match=r"setup 1 of boiler.*no answer within") as caught:
            await read()
        assert caught.value.cause == "timeout"
        assert plc.functions == [16]

    play(script)


def test_a_line_that_is_lost_at_a_setup_is_lost(play, plc):
    plc.special = {WRITES[0]: None}

    async def script(driver, read):
        with pytest.raises(LineError):
            await read()

    play(script)


def test_bits_of_a_register_may_be_set_up_too(play, plc):
    plc.holding = {7: 0xF000}

    async def script(driver, read):
        await read()
        assert plc.holding[7] == 0xF050

    play(script, [{"address": "holding:7.4-7", "value": 5}])


def test_texts_are_as_long_as_they_are(play, plc):
    async def script(driver, read):
        await read()
        assert plc.asked[0] == bytes.fromhex("10 0007 0002 04") + b"Abc\0"

    play(script, [{"address": "holding:7", "type": "string", "value": "Abc"}])


def test_a_device_without_setup_is_only_read(play, plc):
    async def script(driver, read):
        await read()
        assert plc.asked == [READ]

    play(script, [])


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"address": "input:3", "value": 1}, r"setup 1 (input:3): input:3 cannot be written: input registers are only"),
        ({"address": "nowhere", "value": 1}, "setup 1 (nowhere): 'nowhere' is no Modbus address"),
        ({"address": "holding:3", "value": 70000}, "setup 1 (holding:3): uint16 holds 0..65535, got 70000"),
        ({"address": "holding:3", "type": "int", "value": 1}, "setup 1 (holding:3): there is no type 'int'. Use int16"),
        ({"address": "coil:3", "value": "on"}, "setup 1 (coil:3): bool holds true or false, got 'on'"),
        ({"address": "holding:3.4-7", "value": 16}, "setup 1 (holding:3.4-7): a field of 4 bits holds 0..15, got 16"),
    ],
)
def test_a_setup_that_cannot_be_is_a_mistake_of_the_file(make, entry, reason):
    options = make.device(setup=[entry]).options
    mine = Device(name="b", driver="modbus", url="tcp://host", options=options, place=Place("plant.yaml", 4, 3))
    with pytest.raises(FileError) as caught:
        Driver.compile(mine, [make.tag("holding:0")])
    (mistake,) = caught.value.mistakes
    assert str(mistake).startswith(f"plant.yaml:4:3: {reason}")
