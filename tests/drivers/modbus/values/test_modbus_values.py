"""Every sort of value through the driver: what is asked for, what is published, and what one flaw costs the others."""

import asyncio
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.modbus.driver import Driver
from gateway.errors import DeviceError
from gateway.model import Tag


@pytest.fixture
def read(session, make):
    """Read these tags, some times over; what each read told. `between` runs before each further read."""

    def runner(tags, *, times=1, between=lambda: None, **options):
        mine = make.device(**options)

        async def script(driver):
            found = []
            groups = Driver.compile(mine, tags)
            for i in range(times):
                if i:
                    between()
                told = {}
                for group in groups:
                    told |= make.told(await driver.read(group))
                found.append(told)
            return found[0] if times == 1 else found

        return session(script, mine)

    return runner


# --- scale registers ---


def test_a_value_is_multiplied_by_the_power_of_ten_that_was_read_with_it(read, make, plc):
    plc.holding = {83: 1234, 84: 0xFFFE, 85: 5, 86: 3}
    tags = [
        make.tag("holding:83", type="int16", scale_register="holding:84"),
        make.tag("holding:85", scale_register="holding:86"),
    ]
    assert read(tags) == {"holding:83": 12.34, "holding:85": 5000}
    assert plc.asked == [struct.pack(">BHH", 3, 83, 4)]  # one request for all four


def test_a_scale_register_feeds_many_tags_and_is_asked_for_once(read, make, plc):
    plc.holding = {10: 1, 11: 2, 12: 3, 20: 1}
    tags = [make.tag(f"holding:{n}", scale_register="holding:20") for n in (10, 11, 12)]
    assert read(tags) == {"holding:10": 10, "holding:11": 20, "holding:12": 30}
    assert len(plc.asked) == 1


def test_a_scale_register_that_is_far_away_is_read_in_the_same_read(read, make, plc):
    plc.holding, plc.input = {10: 7}, {500: 0xFFFF}
    assert read([make.tag("holding:10", scale_register="input:500")]) == {"holding:10": 0.7}
    assert plc.functions == [3, 4]


def test_a_scale_register_can_be_a_tag_too(read, make, plc):
    plc.holding = {10: 7, 11: 2}
    tags = [make.tag("holding:11", type="int16", name="exponent"), make.tag("holding:10", scale_register="holding:11")]
    assert read(tags) == {"exponent": 2, "holding:10": 700}


@pytest.mark.parametrize(("word", "quality"), [(0x8000, "bad:sentinel"), (11, "bad:decode"), (0xFFF5, "bad:decode")])
def test_an_exponent_that_is_none_leaves_no_value(read, make, plc, word, quality):
    plc.holding = {10: 7, 11: word, 12: 5}
    tags = [make.tag("holding:10", scale_register="holding:11"), make.tag("holding:12")]
    assert read(tags) == {"holding:10": (None, quality), "holding:12": 5}


def test_a_value_that_is_none_stays_none_whatever_the_exponent(read, make, plc):
    plc.holding = {10: 0x8000, 11: 1}
    tags = [make.tag("holding:10", type="int16", scale_register="holding:11", sentinel="auto")]
    assert read(tags) == {"holding:10": (None, "bad:sentinel")}


def test_a_list_is_multiplied_element_by_element(read, make, plc):
    plc.holding = {10: 1, 11: 2, 12: 0xFFFF}
    assert read([make.tag("holding:10", count=2, scale_register="holding:12")]) == {"holding:10": [0.1, 0.2]}


def test_a_scale_register_that_is_refused_costs_its_tags_and_no_others(read, make, plc):
    plc.holding, plc.holes = {10: 1, 12: 3, 30: 4}, {20}
    tags = [
        make.tag("holding:10", scale_register="holding:20"),
        make.tag("holding:12"),
        make.tag("holding:30", scale_register="holding:31"),
    ]
    wanted = {"holding:10": (None, "bad:exception:2"), "holding:12": 3, "holding:30": 4}
    assert read(tags, times=3) == [wanted] * 3


def test_a_value_that_is_refused_costs_nothing_beside_it(read, make, plc):
    plc.holding, plc.holes = {11: 1, 12: 3}, {10}
    tags = [make.tag(f"holding:{n}", scale_register="holding:11") for n in (10, 12)]
    assert read(tags, times=2) == [{"holding:10": (None, "bad:exception:2"), "holding:12": 30}] * 2


def test_after_a_hole_every_part_still_has_its_exponent(read, make, plc):
    plc.holding, plc.holes = {n: n for n in range(40)} | {20: 0xFFFF}, {5}
    tags = [make.tag(f"holding:{n}", scale_register="holding:20") for n in range(40) if n != 20]
    wanted = {f"holding:{n}": n / 10 for n in range(40) if n != 20} | {"holding:5": (None, "bad:exception:2")}
    assert read(tags, times=3) == [wanted] * 3


def test_a_silent_scale_register_is_a_timeout_of_the_device_and_what_came_is_kept(session, make, plc):
    plc.holding, plc.silent = {10: 7, 12: 5}, {4}
    mine = make.device(timeout="100ms")
    tags = [make.tag("holding:10", scale_register="input:3"), make.tag("holding:12")]

    async def script(driver):
        (group,) = Driver.compile(mine, tags)
        with pytest.raises(DeviceError) as caught:
            await driver.read(group)
        assert make.told(caught.value.partial) == {"holding:10": (None, "bad:timeout"), "holding:12": 5}

    session(script, mine)


def test_each_group_reads_the_scale_register_itself(make):
    tags = [make.tag(f"holding:{n}", every_s=n, scale_register="holding:9") for n in (1, 2)]
    groups = Driver.compile(make.device(), tags)
    assert [g.names for g in groups] == [("holding:1",), ("holding:2",)]
    assert [[(b.request.address, b.request.count) for b in g.plan.blocks] for g in groups] == [[(1, 9)], [(2, 8)]]


def test_a_device_too_large_for_one_group_has_the_exponent_in_each(make, read, plc):
    plc.holding = {9: 1} | dict.fromkeys(range(10, 1400), 1)
    tags = [make.tag(f"holding:{n}", scale_register="holding:9") for n in range(10, 1400)]
    groups = Driver.compile(make.device(), tags)
    assert len(groups) == 2
    assert all(sum(s.hidden for b in g.plan.blocks for s in b.slots) == 1 for g in groups)
    assert set(read(tags).values()) == {10}


def test_what_is_scaled_by_a_register_is_a_float_to_whoever_stores_it(make):
    (group,) = Driver.compile(make.device(), [make.tag("holding:1", scale_register="holding:2")])
    assert group.types == ("float64",)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from(["uint16", "int32"]), st.sampled_from([None, 5, 30, 61, 400])),
        min_size=1,
        max_size=20,
    ),
    holes=st.sets(st.integers(0, 64), max_size=4),
    exponents=st.lists(st.sampled_from([0, 1, 0xFFFF, 0x8000]), min_size=4, max_size=4),
    most=st.sampled_from([125, 16]),
)
def test_whatever_is_refused_each_value_has_its_own_exponent_or_none(session, make, plc, found, holes, exponents, most):
    """Cuts, holes and scale registers near, far, shared and refused, against one value after the other."""
    plc.holding = {n: 3 * n for n in range(65)} | dict(zip([5, 30, 61, 400], exponents, strict=True))
    plc.holes = holes
    tags, wanted = [], {}
    for i, (at, kind, scale) in enumerate(found):
        own = {} if scale is None else {"scale_register": f"holding:{scale}"}
        tags.append(make.tag(f"holding:{at}", name=f"t{i}", type=kind, **own))
        size = 2 if kind == "int32" else 1
        number = int.from_bytes(plc.registers(3, at, size), signed=kind == "int32")
        exponent = 0 if scale is None else plc.holding[scale]
        if holes & {*range(at, at + size), scale}:
            wanted[f"t{i}"] = (None, "bad:exception:2")
        elif exponent == 0x8000:
            wanted[f"t{i}"] = (None, "bad:sentinel")
        else:
            wanted[f"t{i}"] = number / 10 if exponent == 0xFFFF else number * 10**exponent
    mine = make.device(max_registers=most)

    async def script(driver):
        (group,) = Driver.compile(mine, tags)
        for _ in range(12):
            told = make.told(await driver.read(group))
        assert told == wanted

    session(script, mine)


# --- flaws ---


def test_a_sentinel_an_unknown_label_and_a_wrong_digit_cost_only_themselves(read, make, plc):
    plc.holding = {0: 0x8000, 1: 7, 2: 0x0A00, 3: 1, 4: 0}
    tags = [
        make.tag("holding:0", type="int16", sentinel=[0x8000]),
        make.tag("holding:1", enum={0: "off"}),
        make.tag("holding:2", type="bcd16"),
        make.tag("holding:3"),
        make.tag("holding:4", enum={0: "off"}),
    ]
    wanted = {
        "holding:0": (None, "bad:sentinel"),
        "holding:1": ("7", "uncertain:range"),
        "holding:2": (None, "bad:decode"),
        "holding:3": 1,
        "holding:4": "off",
    }
    assert read(tags) == wanted
    plc.holes = {20}
    assert read([*tags, make.tag("holding:20")]) == wanted | {"holding:20": (None, "bad:exception:2")}


@pytest.mark.parametrize(
    ("kind", "words", "other"),
    [
        ("int16", [0x8000], -5),
        ("uint16", [0xFFFF], 5),
        ("int32", [0x8000, 0], -5),
        ("uint32", [0xFFFF, 0xFFFF], 5),
        ("int64", [0x8000, 0, 0, 0], -5),
        ("uint64", [0xFFFF] * 4, 5),
        ("float32", [0x7FC0, 0], 1.5),
        ("float64", [0x7FF8, 0, 0, 0], 1.5),
        ("string", [0, 0], "AB"),
        ("bits", [0xFFFF], [False] * 16),
    ],
)
def test_auto_is_what_sunspec_says_where_nothing_is_implemented(read, make, plc, kind, words, other):
    from drivers.modbus.values.encode import encode
    from drivers.modbus.values.slots import locate

    own = {"length": 4} if kind == "string" else {}
    tag = make.tag("holding:0", type=kind, sentinel="auto", **own)
    plc.holding = dict(enumerate(words))
    assert read([tag]) == {"holding:0": (None, "bad:sentinel")}
    plc.store(0, encode(locate(tag, make.device().options).field, other))
    assert read([tag]) == {"holding:0": other}


def test_a_group_without_anything_special_is_not_looked_at_value_by_value(make):
    tags = [make.tag(f"holding:{2 * n}", type="float32") for n in range(62)]
    (group,) = Driver.compile(make.device(), [*tags, make.tag("holding:200.3"), make.tag("coil:5")])
    assert group.plan.judged == ()
    assert group.plan.scales == ()


def test_what_is_published_decides_the_type_that_is_stored(make):
    tags = [
        make.tag("holding:0", enum={0: "off"}),
        make.tag("holding:1", type="uint32", time="s"),
        make.tag("holding:3", count=4),
        make.tag("holding:7", type="datetime3"),
        make.tag("holding:10.4-7"),
        make.tag("holding:11.4-7", type="int16"),
        make.tag("holding:12", type="uint8"),
        make.tag("coil:0", count=4),
        make.tag("fifo:3"),
        make.tag("identity:vendor"),
        make.tag("status"),
        make.tag("status.3"),
    ]
    groups = Driver.compile(make.device(), tags)
    types = {name: kind for group in groups for name, kind in zip(group.names, group.types, strict=True)}
    assert list(types.values()) == [
        "string", "string", "list", "string", "uint16", "int16", "uint8", "list", "list", "string", "uint16", "bool",
    ]  # fmt: skip
    assert not any(group.is_numeric for group in groups)


# --- bits, lists, texts, times ---


def test_bits_lists_texts_and_times(read, make, plc):
    plc.holding = {0: 0xA5F3, 1: 0x00E1, 10: 1, 11: 2, 12: 3, 13: 0, 14: 0}
    plc.store(20, b"\0H\0i\0\0")
    plc.store(30, struct.pack(">I", 1767323045))
    plc.store(40, struct.pack(">6H", 2026, 1, 2, 3, 4, 5))
    plc.store(50, bytes((26, 1, 2, 3, 4, 5)))
    plc.coils = {3: True, 5: True}
    tags = [
        make.tag("holding:0.4-7"),
        make.tag("holding:0.12-15", type="int16"),
        make.tag("holding:0.0"),
        make.tag("holding:1", type="int8", name="low"),
        make.tag("holding:0", type="uint8", layout="high", name="high"),
        make.tag("holding:10", count=3),
        make.tag("holding:20", type="string", length=3, layout="low"),
        make.tag("holding:30", type="uint32", time="s"),
        make.tag("holding:40", type="datetime6"),
        make.tag("holding:50", type="datetime3"),
        make.tag("coil:3", count=3),
        make.tag("coil:4", enum={0: "shut", 1: "open"}),
    ]
    assert read(tags) == {
        "holding:0.4-7": 15,
        "holding:0.12-15": -6,
        "holding:0.0": True,
        "low": -31,
        "high": 0xA5,
        "holding:10": [1, 2, 3],
        "holding:20": "Hi",
        "holding:30": "2026-01-02T03:04:05Z",
        "holding:40": "2026-01-02T03:04:05Z",
        "holding:50": "2026-01-02T03:04:05Z",
        "coil:3": [True, False, True],
        "coil:4": "shut",
    }
    assert plc.functions == [3, 1]


# --- other functions ---

IDENTITY = bytes.fromhex("2B 0E 01 01 00 00 03 00 04") + b"ACME\1\2X1\2\x031.0"


def test_other_functions_give_tags_each_by_a_request_of_its_own(read, make, plc):
    plc.holding = {0: 5}
    plc.special = {
        bytes.fromhex("07"): bytes.fromhex("07 85"),
        bytes.fromhex("08 000B 0000"): bytes.fromhex("08 000B 1234"),
        bytes.fromhex("0B"): bytes.fromhex("0B 0000 0108"),
        bytes.fromhex("11"): b"\x11\x09\x01\xffPump 7\0",
        bytes.fromhex("14 07 06 0004 0007 0002"): bytes.fromhex("14 06 05 06 3FC00000"),
        bytes.fromhex("18 04DB"): bytes.fromhex("18 0006 0002 01B8 FFFF"),
        bytes.fromhex("2B 0E 01 00"): IDENTITY,
        bytes.fromhex("2B 0E 01 02"): bytes.fromhex("2B 0E 01 01 00 00 01 02 03") + b"1.0",
    }
    tags = [
        make.tag("holding:0"),
        make.tag("status"),
        make.tag("status.2"),
        make.tag("status", type="bits", name="all"),
        make.tag("diagnostic:11"),
        make.tag("counter"),
        make.tag("server"),
        make.tag("file:4:7", type="float32"),
        make.tag("fifo:1243", type="int16"),
        make.tag("identity:vendor"),
        make.tag("identity:version"),
    ]
    assert read(tags) == {
        "holding:0": 5,
        "status": 0x85,
        "status.2": True,
        "all": [True, False, True, False, False, False, False, True] + [False] * 8,
        "diagnostic:11": 0x1234,
        "counter": 0x0108,
        "server": "Pump 7",
        "file:4:7": 1.5,
        "fifo:1243": [440, -1],
        "identity:vendor": "ACME",
        "identity:version": "1.0",
    }
    assert len(plc.asked) == len(tags) - 2  # the three that the status feeds share its request


def test_a_device_that_does_not_know_a_function_costs_that_tag_alone(read, make, plc):
    plc.holding, plc.refused = {0: 5}, {43: 1, 7: 1}
    tags = [make.tag("holding:0"), make.tag("identity:vendor"), make.tag("status.1")]
    wanted = {"holding:0": 5, "identity:vendor": (None, "bad:exception:1"), "status.1": (None, "bad:exception:1")}
    assert read(tags, times=2) == [wanted] * 2


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 8, 10, 11, 77])
def test_whatever_a_device_says_to_other_functions_costs_only_their_tags_and_they_come_back(
    session, make, plc, clock, code
):
    mine = make.device(timeout="100ms")
    others = ["identity:vendor", "fifo:3", "status.0", "status.2", "diagnostic:11", "file:1:2"]
    tags = [make.tag("holding:0"), *map(make.tag, others)]
    plc.holding = {0: 5}
    plc.refused = dict.fromkeys((43, 24, 7, 8, 20), code)
    plc.special = {
        bytes.fromhex("07"): bytes.fromhex("07 85"),
        bytes.fromhex("08 000B 0000"): bytes.fromhex("08 000B 1234"),
        bytes.fromhex("14 07 06 0001 0002 0001"): bytes.fromhex("14 04 03 06 0007"),
        bytes.fromhex("18 0003"): bytes.fromhex("18 0004 0001 01B8"),
        bytes.fromhex("2B 0E 01 00"): IDENTITY,
    }

    async def script(driver):
        (group,) = Driver.compile(mine, tags)
        for _ in range(30):
            try:
                told = make.told(await driver.read(group))
            except DeviceError as error:
                told = make.told(error.partial)
            clock.skip(7)
            assert told["holding:0"] == 5
            assert {told[name] for name in others} == {(None, f"bad:exception:{code}")}
        plc.refused = {}
        for _ in range(60):
            told = make.told(await driver.read(group))
            clock.skip(60)
        assert told == {
            "holding:0": 5,
            "identity:vendor": "ACME",
            "fifo:3": [440],
            "status.0": True,
            "status.2": True,
            "diagnostic:11": 0x1234,
            "file:1:2": 7,
        }

    session(script, mine)


def test_an_object_that_the_device_does_not_have_is_no_value(read, make, plc):
    """It begins at its first object then, and that is another one."""
    plc.special = {bytes.fromhex("2B 0E 03 80"): b"\x2b\x0e\x03" + IDENTITY[3:]}
    assert read([make.tag("identity:128")]) == {"identity:128": (None, "bad:decode")}


def test_a_queue_that_contradicts_itself_is_no_value(read, make, plc):
    plc.special = {bytes.fromhex("18 0001"): bytes.fromhex("18 0004 0002 01B8")}
    assert read([make.tag("fifo:1")]) == {"fifo:1": (None, "bad:decode")}


# --- one tag by itself ---


def test_a_tag_is_read_by_itself_with_its_scale_register(session, make, plc):
    plc.holding = {83: 1234, 84: 0xFFFE, 300: 0xFFFF, 5: 9}
    mine = make.device()
    near = make.tag("holding:83", scale_register="holding:84")
    far = make.tag("holding:83", scale_register="holding:300")

    async def script(driver):
        assert await driver.read_tag(mine, make.tag("holding:5")) == 9
        assert await driver.read_tag(mine, near) == 12.34
        assert plc.asked[1:] == [struct.pack(">BHH", 3, 83, 2)]
        assert await driver.read_tag(mine, far) == 123.4
        assert len(plc.asked) == 4
        assert await driver.read_tag(mine, make.tag("coil:0")) is False

    session(script, mine)


def test_a_tag_read_by_itself_goes_before_the_polls_that_wait(session, make, plc):
    mine = make.device()
    polled = [Tag(name=f"t{n}", address=f"holding:{n * 200}") for n in range(20)]

    async def script(driver):
        (group,) = Driver.compile(mine, polled)
        poll = asyncio.create_task(driver.read(group))
        await asyncio.sleep(0)
        await driver.read_tag(mine, make.tag("holding:7"))
        assert struct.pack(">BHH", 3, 7, 1) in plc.asked[:3]
        await poll

    session(script, mine)


def test_what_cannot_be_read_by_itself_says_why(session, make, plc):
    from gateway.errors import TagError

    mine = make.device(timeout="100ms")
    plc.holding = {0: 0x000A, 1: 0x8000}

    async def script(driver):
        with pytest.raises(TagError, match=r"boiler \(unit 1\): holding:0 holds no bcd16"):
            await driver.read_tag(mine, make.tag("holding:0", type="bcd16"))
        assert await driver.read_tag(mine, make.tag("holding:1", sentinel=[0x8000])) is None
        plc.holes = {9}
        with pytest.raises(
            TagError, match=r"boiler \(unit 1\): holding:9 \(function 3\): exception 2 \(Illegal Data A"
        ):
            await driver.read_tag(mine, make.tag("holding:9"))
        plc.silent = {3}
        with pytest.raises(DeviceError, match=r"holding:9 \(function 3\): no answer within") as caught:
            await driver.read_tag(mine, make.tag("holding:9"))
        assert caught.value.cause == "timeout"

    session(script, mine)
