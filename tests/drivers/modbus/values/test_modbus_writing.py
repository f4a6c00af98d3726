"""Writing tags: by which function, what the device then holds, and what each answer or silence means."""

import asyncio
import random
import struct
from math import isnan

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.modbus.driver import Driver
from drivers.modbus.values.kinds import KINDS
from gateway.driver import Mirrors, Writes
from gateway.errors import DeviceError, ExpiredError, LineError, TagError


@pytest.fixture
def write(session, make, plc):
    """Write a value to a tag; gives the PDUs that were asked."""

    def runner(tag, value, **options):
        mine = make.device(**options)

        async def script(driver):
            await driver.write(mine, tag, value)
            return list(plc.asked)

        return session(script, mine)

    return runner


def test_the_driver_can_write():
    assert issubclass(Driver, Writes)
    assert issubclass(Driver, Mirrors)


# --- by which function ---


@pytest.mark.parametrize(
    ("address", "keys", "value", "asked"),
    [
        ("coil:5", {}, True, "05 0005 FF00"),
        ("coil:5", {}, 0, "05 0005 0000"),
        ("coil:5", {"write_function": "multiple"}, True, "0F 0005 0001 01 01"),
        ("coil:5", {"count": 3}, [True, False, True], "0F 0005 0003 01 05"),
        ("holding:7", {}, 5, "06 0007 0005"),
        ("holding:7", {"write_function": "single"}, 5, "06 0007 0005"),
        ("holding:7", {"write_function": "multiple"}, 5, "10 0007 0001 02 0005"),
        ("holding:7", {"type": "int16", "order": "BADC"}, -2, "06 0007 FEFF"),
        ("holding:7", {"type": "float32"}, 1.5, "10 0007 0002 04 3FC0 0000"),
        ("holding:7", {"type": "float32", "order": "CDAB"}, 1.5, "10 0007 0002 04 0000 3FC0"),
        ("holding:7", {"count": 1}, [5], "10 0007 0001 02 0005"),
        ("holding:7", {"count": 3}, [1, 2, 3], "10 0007 0003 06 0001 0002 0003"),
        ("holding:7", {"type": "string", "length": 4}, "AB", "10 0007 0002 04 4142 0000"),
        ("holding:7", {"type": "bits"}, [True] + [False] * 14 + [True], "06 0007 8001"),
        ("holding:7", {"type": "uint32", "time": "s"}, "1970-01-01T00:01:00Z", "10 0007 0002 04 0000 003C"),
        ("holding:7", {"enum": {3: "on"}}, "on", "06 0007 0003"),
        ("holding:7.3", {}, True, "16 0007 FFF7 0008"),
        ("holding:7.3", {}, False, "16 0007 FFF7 0000"),
        ("holding:7.3", {"order": "BADC"}, True, "16 0007 F7FF 0800"),
        ("holding:7.4-7", {}, 5, "16 0007 FF0F 0050"),
        ("holding:7.4-7", {"type": "int16"}, -1, "16 0007 FF0F 00F0"),
        ("holding:7.4-7", {"enum": {2: "hand"}}, "hand", "16 0007 FF0F 0020"),
        ("holding:7", {"type": "uint8"}, 200, "16 0007 FF00 00C8"),
        ("holding:7", {"type": "int8", "layout": "high"}, -1, "16 0007 00FF FF00"),
        ("input:3", {"write_address": "holding:7"}, 5, "06 0007 0005"),
        ("discrete:3", {"write_address": "coil:5"}, True, "05 0005 FF00"),
        ("input:3.2", {"write_address": "coil:5"}, True, "05 0005 FF00"),
        ("holding:7", {"write_address": "40002"}, 5, "06 0001 0005"),
        ("holding:7", {"write_function": "read_write"}, 5, "17 0007 0001 0007 0001 02 0005"),
        (
            "holding:7",
            {"type": "float32", "write_function": "read_write"},
            1.5,
            "17 0007 0002 0007 0002 04 3FC0 0000",
        ),
    ],
)
def test_a_value_takes_one_request_of_the_right_function(write, make, address, keys, value, asked):
    assert write(make.tag(address, **keys), value) == [bytes.fromhex(asked)]


WAYS = [
    (name, order, count)
    for name, kind in KINDS.items()
    for order in (("ABCD", "CDAB", "BADC", "DCBA") if kind.wide else ("ABCD", "BADC"))
    for count in ((None, 3) if kind.is_number and kind.octets > 1 else (None,))
    if name not in ("bool", "string") and not name.startswith("datetime") and kind.octets > 1
]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_was_read_is_written_back_to_the_same_registers(session, make, plc, seed):
    """Through the whole driver, all types, orders and lists side by side, from any registers."""
    mine, dice = make.device(), random.Random(seed)
    tags = [
        make.tag(f"holding:{at * 20}", type=name, order=order, **({"count": count} if count else {}))
        for at, (name, order, count) in enumerate(WAYS)
    ]

    async def script(driver):
        (group,) = Driver.compile(mine, tags)
        digits = [dice.randrange(10) << 12 | dice.randrange(10) << 8 | dice.randrange(100) for _ in range(4)]
        before = {n: dice.choice([dice.randrange(65536), 0, *digits]) for n in range(20 * len(tags))}
        plc.holding = dict(before)
        told = make.told(await driver.read(group))
        plc.holding = {}
        for tag in tags:
            value = told[tag.name]
            if (
                isinstance(value, tuple)
                or (isinstance(value, float) and isnan(value))
                or (isinstance(value, list) and None in value)
            ):
                continue  # no value of that type, or none that a number can say
            await driver.write(mine, tag, value)
            assert {n: before[n] for n in plc.holding} == plc.holding
            assert await driver.read_tag(mine, tag) == value
            plc.holding = {}

    session(script, mine)


def test_bits_that_are_written_leave_their_neighbours_alone(write, make, plc):
    plc.holding = {7: 0xABCD}
    write(make.tag("holding:7.4-7"), 0)
    assert plc.holding[7] == 0xAB0D
    write(make.tag("holding:7", type="uint8", layout="high"), 0x12)
    assert plc.holding[7] == 0x120D


def test_without_function_22_a_register_is_read_changed_and_written_back(write, make, plc):
    plc.holding = {7: 0xABCD}
    assert write(make.tag("holding:7.4-7"), 1, bit_write="read_first") == [
        bytes.fromhex("03 0007 0001"),
        bytes.fromhex("06 0007 AB1D"),
    ]


@pytest.mark.parametrize(
    ("address", "keys", "value", "read"),
    [
        ("holding:7", {"enum": {1: "on"}}, 1, "on"),
        ("holding:7.4-7", {"enum": {1: "on"}}, 1.0, "on"),
        ("holding:7", {"type": "uint32", "time": "s"}, "2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05Z"),
        ("holding:7", {"type": "datetime6"}, "2026-01-02T03:04:05", "2026-01-02T03:04:05Z"),
        ("holding:7", {"type": "float32"}, 0.1, 0.10000000149011612),
        ("holding:7", {"type": "float32", "count": 2}, [0.1, 5], [0.1, 5.0]),
        ("holding:7", {"type": "int16"}, 5.0, 5),
        ("holding:7", {"type": "uint8", "layout": "high"}, 200, 200),
        ("holding:7.3", {"order": "BADC"}, 1, True),
        ("coil:7", {"enum": {0: "shut", 1: "open"}}, 1, "open"),
        ("coil:7", {"count": 3}, [1, 0, True], [True, False, True]),
        ("input:7", {"write_address": "holding:9", "enum": {1: "on"}}, 1, "on"),
        ("holding:7", {"scale_register": "holding:9"}, 1.5, 1.5),
    ],
)
def test_what_was_written_reads_as_the_driver_foretells(session, make, plc, address, keys, value, read):
    mine, tag = make.device(), make.tag(address, **keys)
    assert Driver.as_read(mine, tag, value) == read
    plc.holding[9] = 0xFFFF

    async def script(driver):
        await driver.write(mine, tag, value)
        plc.input[7] = plc.holding[9]
        assert await driver.read_tag(mine, tag) == read

    session(script, mine)


def test_two_such_writes_at_once_never_undo_each_other(session, make, plc):
    mine = make.device(bit_write="read_first", max_in_flight=4)

    async def script(driver):
        await asyncio.gather(*(driver.write(mine, make.tag(f"holding:7.{bit}"), True) for bit in range(16)))
        assert plc.holding[7] == 0xFFFF

    session(script, mine)


def test_a_value_with_a_scale_register_is_divided_by_what_it_holds_now(write, make, plc):
    plc.holding = {9: 0xFFFE}
    tag = make.tag("holding:7", type="int16", scale_register="holding:9")
    assert write(tag, 12.34) == [bytes.fromhex("03 0009 0001"), bytes.fromhex("06 0007 04D2")]
    plc.asked.clear()
    plc.holding = {9: 1}
    assert write(tag, 50)[1:] == [bytes.fromhex("06 0007 0005")]


@pytest.mark.parametrize(
    ("exponent", "value", "reason"),
    [
        (0xFFFE, 0.125, r"the device holds multiples of 1e-2, got 0\.125\. The nearest are 0\.12 and 0\.13"),
        (2, 150, "the device holds multiples of 1e2, got 150. The nearest are 100 and 200"),
        (0x8000, 5, "the scale register holds no power of ten now"),
        (11, 5, "the scale register holds no power of ten now"),
        (0xFFFF, 4000, r"int16 holds -32768\.\.32767, got 40000"),
        (0, "much", "int16 holds whole numbers, got 'much'"),
    ],
)
def test_a_value_that_the_present_exponent_cannot_say_is_not_sent(session, make, plc, exponent, value, reason):
    plc.holding = {9: exponent}
    mine = make.device()

    async def script(driver):
        with pytest.raises(ValueError, match=reason):
            await driver.write(mine, make.tag("holding:7", type="int16", scale_register="holding:9"), value)
        assert plc.functions == [3]

    session(script, mine)


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        ({"type": "int16"}, 40000, r"int16 holds -32768\.\.32767, got 40000"),
        ({"enum": {0: "off"}}, "on", r"the enum knows off \(0\); got 'on'"),
        ({"type": "int16", "sentinel": [0x8000]}, -32768, "by which the device says that it has no value"),
        ({"count": 2}, [1], "the tag is a list of 2 values, got 1"),
        ({"type": "string", "length": 2}, "ABC", "the text has 3 bytes, its registers hold 2"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_before_anything_is_sent(session, make, plc, keys, value, reason):
    mine = make.device()

    async def script(driver):
        with pytest.raises(ValueError, match=reason):
            await driver.write(mine, make.tag("holding:7", **keys), value)
        assert plc.asked == []

    session(script, mine)


# --- what can never be written ---


@pytest.mark.parametrize(
    ("address", "keys", "reason"),
    [
        ("input:3", {}, "input:3 cannot be written: input registers are only read. Say where it is"),
        ("discrete:3", {}, "discrete:3 cannot be written: discrete inputs are only read"),
        ("status", {}, "status cannot be written: it is only read"),
        ("identity:vendor", {}, "identity:vendor cannot be written"),
        ("fifo:3", {}, "fifo:3 cannot be written"),
        ("file:4:7", {}, "file:4:7 cannot be written"),
        ("input:3", {"write_address": "input:4"}, "input:4 cannot be written: input registers are only read"),
        ("input:3", {"write_address": "coil:4"}, "write_address: coil:4 is one bit, uint16 needs registers"),
        ("coil:3", {"write_address": "holding:4"}, r"write_address: holding:4 has 16 bits, bool is one of them"),
        ("input:3", {"write_address": "there"}, "write_address: 'there' is no Modbus address"),
        ("holding:3", {"type": "float32", "write_address": "holding:65535"}, "write_address: float32 needs 2"),
        ("holding:3", {"count": 124}, "holding:3 has 124 registers, one request writes 123. Make a tag of each part"),
        ("holding:3", {"count": 122, "write_function": "read_write"}, "holding:3 has 122 registers, one request"),
        ("coil:3", {"count": 1969}, "coil:3 has 1969 coils, one request writes 1968"),
        ("holding:3", {"type": "int32", "write_function": "single"}, "single writes one register or coil, holding:3"),
        ("coil:3", {"write_function": "read_write"}, "function 23 writes registers, coil:3 is a coil"),
        ("holding:3.4", {"write_function": "single"}, "some bits of holding:3.4 are written by function 22"),
        ("holding:3", {"type": "uint8", "write_function": "multiple"}, "some bits of holding:3 are written by"),
    ],
)  # fmt: skip
def test_what_can_never_be_written_says_so_when_the_file_is_checked(make, address, keys, reason):
    with pytest.raises(ValueError, match=reason):
        Driver.check_write(make.device(), make.tag(address, **keys))


def test_unit_0_of_a_serial_line_is_nobody_who_could_answer(make):
    with pytest.raises(ValueError, match="unit 0 is all units of the line at once and nobody answers"):
        Driver.check_write(make.device(unit=0, url="rtu:///dev/ttyS7?baud=9600"), make.tag("holding:3"))
    Driver.check_write(make.device(unit=0), make.tag("holding:3"))


def test_the_largest_values_are_written_in_one_request(write, make, plc):
    write(make.tag("holding:0", count=123), list(range(123)))
    assert plc.functions == [16]
    assert [plc.holding[n] for n in range(123)] == list(range(123))
    plc.asked.clear()
    write(make.tag("coil:0", count=1968), [n % 3 == 0 for n in range(1968)])
    assert plc.functions == [15]
    assert plc.coils == {n: n % 3 == 0 for n in range(1968)}


# --- what the answer means ---


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (
            1,
            TagError,
            r"boiler \(unit 1\): holding:7 \(function 6\): exception 1 \(Illegal Function: The function code",
        ),
        (2, TagError, r"exception 2 \(Illegal Data Address: The data address"),
        (3, TagError, r"exception 3 \(Illegal Data Value: A value contained"),
        (4, DeviceError, r"exception 4 \(Server Device Failure.*: it cannot be known whether the write was done"),
        (5, DeviceError, "The server has accepted the request .* it cannot be known whether the write was done"),
        (6, TagError, r"exception 6 \(Server Device Busy"),
        (8, DeviceError, "Memory Parity Error.*: it cannot be known whether the write was done"),
        (10, TagError, "Gateway Path Unavailable.*: nothing was written"),
        (11, DeviceError, "Gateway Target.*: it cannot be known whether the write was done"),
        (77, DeviceError, "exception 77, which is the maker's own: it cannot be known whether the write was done"),
    ],
)
def test_an_exception_says_whether_the_tag_or_the_device_is_to_blame(session, make, plc, count, code, kind, text):
    plc.refused = {6: code}
    mine = make.device()

    async def script(driver):
        with pytest.raises(kind, match=text) as caught:
            await driver.write(mine, make.tag("holding:7"), 5)
        assert caught.value.cause == f"exception:{code}"
        assert plc.functions == [6]

    session(script, mine)
    assert count("modbus_writes_total", device="boiler") == 1
    assert count("modbus_write_failures_total", device="boiler", cause=f"exception:{code}") == 1


def test_a_device_that_refuses_function_22_is_told_what_to_do(session, make, plc):
    plc.refused = {22: 1}
    mine = make.device()

    async def script(driver):
        with pytest.raises(TagError, match=r"Devices that refuse it take bit_write: read_first$"):
            await driver.write(mine, make.tag("holding:7.3"), value=True)

    session(script, mine)


def test_a_write_that_nobody_answers_is_never_sent_again(session, make, plc):
    plc.silent = {6}
    mine = make.device(timeout="100ms")

    async def script(driver):
        with pytest.raises(DeviceError, match=r"no answer within 0\.1 s: it cannot be known whether") as caught:
            await driver.write(mine, make.tag("holding:7"), 5)
        assert caught.value.cause == "timeout"
        await asyncio.sleep(10)
        assert plc.functions == [6]

    session(script, mine)


def test_a_connection_that_is_lost_under_a_write_leaves_it_unknown(session, make, plc):
    plc.special = {bytes.fromhex("06 0007 0005"): None}
    mine = make.device()

    async def script(driver):
        with pytest.raises(LineError, match="it cannot be known whether the write was done"):
            await driver.write(mine, make.tag("holding:7"), 5)

    session(script, mine)


def test_an_answer_that_repeats_something_else_leaves_it_unknown(session, make, plc):
    plc.special = {bytes.fromhex("06 0007 0005"): bytes.fromhex("06 0007 0006")}
    mine = make.device()

    async def script(driver):
        with pytest.raises(DeviceError, match="it cannot be known whether the write was done") as caught:
            await driver.write(mine, make.tag("holding:7"), 5)
        assert caught.value.cause == "decode"

    session(script, mine)


def test_what_function_23_reads_back_must_be_what_was_written(session, make, plc):
    plc.special = {bytes.fromhex("17 0007 0001 0007 0001 02 0005"): bytes.fromhex("17 02 0004")}
    mine = make.device()

    async def script(driver):
        with pytest.raises(TagError, match="the write was answered, but the device does not hold the value"):
            await driver.write(mine, make.tag("holding:7", write_function="read_write"), 5)

    session(script, mine)


def test_a_write_goes_before_the_polls_that_wait(session, make, plc):
    mine = make.device()
    polled = [make.tag(f"holding:{n * 200}") for n in range(20)]

    async def script(driver):
        (group,) = Driver.compile(mine, polled)
        poll = asyncio.create_task(driver.read(group))
        await asyncio.sleep(0)
        await driver.write(mine, make.tag("holding:7"), 5)
        assert struct.pack(">BHH", 6, 7, 5) in plc.asked[:3]
        await poll

    session(script, mine)


# --- values at the edge of what can be said ---


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ({"type": "uint32", "time": "s"}, "0001-01-01T00:00:00+23:59"),
        ({"type": "uint32", "time": "s"}, "9999-12-31T23:59:59-23:59"),
        ({"type": "datetime6"}, "0001-01-01T00:00:00+01:00"),
        ({"type": "float64", "scale_register": "holding:99"}, 1e308),
        ({"type": "int64", "scale_register": "holding:99"}, 1e308),
        ({"enum": {1: "on"}, "count": 2}, [True, 1]),
    ],
)
def test_what_no_register_can_say_is_refused_before_anything_is_written(write, make, plc, keys, value):
    plc.holding[99] = 0xFFF6  # ten to the power of -10
    with pytest.raises(ValueError, match=r"."):
        write(make.tag("holding:7", **keys), value)
    assert [pdu for pdu in plc.asked if pdu[0] not in (3, 4)] == []


@pytest.mark.parametrize(
    ("address", "keys"),
    [("holding:7", {}), ("coil:7", {}), ("holding:7.3", {}), ("holding:7.3", {"bit_write": "read_first"})],
)
def test_what_is_not_wanted_any_more_is_not_written(session, make, plc, address, keys):
    mine = make.device(**keys)

    async def script(driver):
        with pytest.raises(ExpiredError, match="nothing was sent"):
            await driver.write(mine, make.tag(address), 1, is_wanted=lambda: False)
        assert [pdu for pdu in plc.asked if pdu[0] != 3] == []
        await driver.write(mine, make.tag(address), 1, is_wanted=lambda: True)
        return len([pdu for pdu in plc.asked if pdu[0] != 3])

    assert session(script, mine) == 1
