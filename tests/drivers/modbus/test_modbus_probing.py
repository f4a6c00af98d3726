"""Who is there, who it is, and what it lets be read."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.driver import Driver
from drivers.modbus.options import DeviceOptions
from drivers.modbus.tools import sunspec
from drivers.modbus.tools.probing import AREAS, parse_area
from drivers.modbus.tools.serving import Cutter, exception, frame
from drivers.stream import Memory
from gateway.driver import Model, Peeks, Records, Replays
from gateway.errors import DeviceError, TagError
from gateway.metrics import Metrics
from gateway.model import Device, Tag, WriteRules


class Unit:
    """A device: holding registers by address; `most` at once; other functions by their request."""

    def __init__(self, registers=(), *, most=125, least=1, others=(), code=2):
        self.registers = dict(registers)
        self.most = most
        self.least = least
        self.others = dict(others)
        self.code = code
        self.asked = []

    def answer(self, pdu):
        self.asked.append(pdu)
        if pdu in self.others:
            return self.others[pdu]
        if pdu[0] != 3:
            return exception(pdu, 1)
        first, count = int.from_bytes(pdu[1:3]), int.from_bytes(pdu[3:5])
        if count > self.most:
            return exception(pdu, 3)
        span = range(first, first + count)
        if count < self.least or any(at not in self.registers for at in span):
            return exception(pdu, self.code)
        return bytes((3, 2 * count)) + b"".join(self.registers[at].to_bytes(2) for at in span)


class Line:
    """Units by number on a Modbus TCP connection; one that is not there is silent."""

    def __init__(self, **units):
        self.units = {int(name[1:]): unit for name, unit in units.items()}
        self.endpoint = Memory(self._accept)

    def _accept(self, stream):
        self.stream = stream
        self.cutter = Cutter("tcp")
        return self

    def on_data(self, data):
        for asked in self.cutter.receive(data):
            unit = self.units.get(asked.unit)
            if unit is not None and (pdu := unit.answer(asked.pdu)):
                self.stream.write(frame("tcp", asked, pdu))

    def on_lost(self, error):
        pass


def asking(run, clock, line, work, units=(1,), **options):
    """The driver of that line, opened, is handed to `work`."""
    devices = [
        Device(name=f"u{n}", driver="modbus", url="tcp://h", options=DeviceOptions(unit=n, timeout="100ms", **options))
        for n in units
    ]

    async def scene():
        async with Driver(devices, clock=clock, metrics=Metrics(), endpoint=line.endpoint) as driver:
            return await work(driver)

    return run(scene())


def words(text):
    return [int.from_bytes(text[i : i + 2]) for i in range(0, len(text), 2)]


def identity(*objects, more=0, following=0, code=1):
    body = b"".join(bytes((n, len(text))) + text for n, text in objects)
    return bytes((43, 14, code, 0x81, more, following, len(objects))) + body


def test_the_driver_offers_what_tools_ask_for():
    assert isinstance(Driver, Peeks)
    assert isinstance(Driver, Records)
    assert isinstance(Driver, Replays)


@pytest.mark.parametrize(
    ("unit", "answer"),
    [
        (Unit({0: 7}), "values"),
        (Unit(), "exception 2"),
        (Unit(code=4), "exception 4"),
        (Unit(code=10), None),
        (Unit(code=11), None),
        (None, None),
    ],
    ids=["values", "exception", "failure", "no path", "no answer", "silent"],
)
def test_whoever_answers_is_there_even_with_an_exception(run, clock, unit, answer):
    line = Line(**({} if unit is None else {"u1": unit}))
    found = asking(run, clock, line, lambda driver: driver.discover(1))
    assert (None if found is None else found.answer) == answer


def test_a_unit_that_knows_only_input_registers_is_found_when_asked_thoroughly(run, clock):
    class Shy(Unit):
        def answer(self, pdu):
            return b"\x04\x02\0\1" if pdu == b"\x04\0\0\0\1" else b""

    assert asking(run, clock, Line(u1=Shy()), lambda d: d.discover(1)) is None
    found = asking(run, clock, Line(u1=Shy()), lambda d: d.discover(1, thorough=True))
    assert found.answer == "values"


def test_the_device_says_who_it_is_in_several_answers(run, clock):
    unit = Unit(
        {0: 1},
        others={
            b"\x2b\x0e\1\0": identity((0, b"Maker"), more=0xFF, following=1),
            b"\x2b\x0e\1\1": identity((1, b"PC-12"), (2, b"v1.3\0")),
            b"\x2b\x0e\2\3": identity((4, b"Pump control"), (9, b"beyond"), code=2),
            b"\x11": b"\x11\x06\x2aPump\xff",
        },
    )
    found = asking(run, clock, Line(u1=unit), lambda d: d.discover(1))
    assert found.identity == {
        "vendor": "Maker",
        "product": "PC-12",
        "version": "v1.3",
        "name": "Pump control",
        "object 9": "beyond",
        "server id": "*Pump",
    }


def test_an_identity_that_goes_round_in_circles_ends(run, clock):
    circle = identity((0, b"Maker"), more=0xFF, following=0)
    unit = Unit({0: 1}, others={bytes((43, 14, code, n)): circle for code in (1, 2) for n in range(8)})
    found = asking(run, clock, Line(u1=unit), lambda d: d.discover(1))
    assert found.identity == {"vendor": "Maker"}
    assert len(unit.asked) < 10


def test_after_a_silence_nothing_more_is_asked(run, clock):
    class Mute(Unit):
        def answer(self, pdu):
            return super().answer(pdu) if pdu[0] == 3 else self.asked.append(pdu) or b""

    unit = Mute({0: 1})
    found = asking(run, clock, Line(u1=unit), lambda d: d.discover(1))
    assert found.answer == "values"
    assert [pdu[0] for pdu in unit.asked] == [3, 43]


def sunspec_registers(base):
    common = b"Fronius".ljust(32, b"\0") + b"Symo 10".ljust(32, b"\0") + b"opt".ljust(16) + b"1.2".ljust(16, b"\0")
    common += b"SN-4711".ljust(32, b"\0") + b"\0\1\x80\0"
    chain = (
        b"SunS" + b"\0\1\0\x42" + common + b"\0\x67\0\x32" + bytes(100) + b"\0\xa0\0\x08" + bytes(16) + b"\xff\xff\0\0"
    )
    return dict(enumerate(words(chain), base))


@pytest.mark.parametrize("base", sunspec.BASES)
def test_sunspec_is_found_at_each_base_with_its_chain_of_models(run, clock, base):
    found = asking(run, clock, Line(u1=Unit(sunspec_registers(base))), lambda d: d.discover(1))
    assert found.identity["vendor"] == "Fronius"
    assert found.identity["product"] == "Symo 10"
    assert found.identity["serial"] == "SN-4711"
    assert found.models == (
        Model(1, "common", f"holding:{base + 2}", 66),
        Model(103, "inverter, three phase, integers", f"holding:{base + 70}", 50),
        Model(160, "MPPT extension", f"holding:{base + 122}", 8),
    )


def test_a_chain_of_models_without_an_end_ends(run, clock):
    registers = dict.fromkeys(range(65536), 0) | dict(enumerate(words(b"SunS"), 0))
    registers |= {2 + 2 * i: 7 for i in range(200)}
    found = asking(run, clock, Line(u1=Unit(registers)), lambda d: d.discover(1))
    assert len(found.models) == sunspec.MOST_MODELS


@pytest.mark.parametrize(
    ("at", "head", "model"),
    [
        (40002, "00010042", Model(1, "common", "holding:40002", 66)),
        (40070, "fde80004", Model(65000, "", "holding:40070", 4)),
        (40070, "ffff0000", None),
        (40070, "00000000", None),
        (65000, "0067ffff", None),
    ],
)
def test_a_model_is_its_number_and_its_length(at, head, model):
    assert sunspec.model_at(at, bytes.fromhex(head)) == model


@given(st.binary(max_size=200))
def test_any_common_model_gives_texts_that_print(content):
    assert all(text.isprintable() and text for text in sunspec.identity(content).values())


# --- survey ---


def surveyed(run, clock, unit, area="holding:0-999", requests=5000, **options):
    line = Line(u1=unit)
    found = asking(run, clock, line, lambda d: d.survey(1, area, requests=requests), **options)
    cells = {}
    for patch in found.patches:
        first = int(patch.address.partition(":")[2])
        assert len(patch.data) == 2 * patch.count
        cells |= {first + i: word for i, word in enumerate(words(patch.data))}
    return cells, found


def test_an_area_that_can_be_read_takes_as_few_requests_as_there_can_be(run, clock):
    unit = Unit({at: at for at in range(1000)})
    cells, found = surveyed(run, clock, unit)
    assert cells == unit.registers
    assert (found.requests, found.rest, found.short) == (8, "", "")
    assert len(found.patches) == 1


def test_a_device_that_takes_less_than_125_is_understood(run, clock):
    unit = Unit({at: at for at in range(1000)}, most=40)
    cells, found = surveyed(run, clock, unit)
    assert cells == unit.registers
    assert found.requests < 60


def test_the_file_says_how_many_registers_a_device_takes(run, clock):
    unit = Unit({at: at for at in range(1000)}, most=40)
    _, found = surveyed(run, clock, unit, max_registers=40)
    assert found.requests == 25


def test_a_device_that_knows_only_pairs_is_understood(run, clock):
    unit = Unit({at: at for at in range(100, 160)}, least=2, most=20)
    cells, _ = surveyed(run, clock, unit)
    assert cells.keys() >= set(range(102, 158))


@settings(max_examples=25, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 199), st.integers(1, 30)), max_size=5), st.integers(1, 125))
def test_every_register_of_a_small_area_is_found(kit, islands, most):
    registers = {n: n ^ 0x5555 for first, count in islands for n in range(first, min(first + count, 200))}

    def run(coroutine):
        with asyncio.Runner(loop_factory=kit.VirtualLoop) as virtual:
            return virtual.run(coroutine)

    cells, found = surveyed(run, kit.VirtualClock(), Unit(registers, most=most), area="holding:0-199")
    assert cells == registers
    assert found.rest == ""


def test_an_island_in_a_large_area_is_met_and_read_from_its_beginning(run, clock):
    unit = Unit({at: at for at in range(11003, 11013)})
    cells, _ = surveyed(run, clock, unit, area="holding:10000-12000", requests=20000)
    assert cells == unit.registers


def test_a_survey_stops_with_its_requests_and_says_where_to_go_on(run, clock):
    unit = Unit({300: 1})
    cells, found = surveyed(run, clock, unit, area="holding:0-399", requests=100)
    assert cells == {}
    assert found.requests == 100
    rest = found.rest
    while rest:
        more, found = surveyed(run, clock, unit, area=rest, requests=100)
        cells, rest = cells | more, found.rest
    assert cells == {300: 1}


def test_a_survey_ends_where_the_device_knows_no_such_function(run, clock):
    unit = Unit()
    cells, found = surveyed(run, clock, unit, area="input:0-999")
    assert (cells, found.requests) == ({}, 1)
    assert "exception 1" in found.short


def test_a_survey_gives_a_silent_unit_up(run, clock):
    line = Line()
    found = asking(run, clock, line, lambda d: d.survey(1, "holding:0-999", requests=50), units=(1, 2))
    assert found.requests == 3
    assert "no answer" in found.short


def test_a_survey_only_reads(run, clock):
    unit = Unit({at: at for at in range(0, 1000, 7)})
    surveyed(run, clock, unit)
    assert {pdu[0] for pdu in unit.asked} <= {3, 4}


@pytest.mark.parametrize(
    ("area", "table", "first", "last"),
    [
        ("holding:0-999", "holding", 0, 999),
        ("input:100", "input", 100, 100),
        ("holding:0x10-0x1F", "holding", 16, 31),
        ("40001-40010", "holding", 0, 9),
        ("300101-300200", "input", 100, 199),
    ],
)
def test_an_area_is_written_as_addresses_are(area, table, first, last):
    found = parse_area(area)
    assert (found[0].name, *found[1:]) == (table, first, last)


@pytest.mark.parametrize(
    "area",
    ["holding:5-2", "coil:0-9", "holding:0-70000", "holding:a-b", "holding:3.1-9", "x", "40001-30010", "holding:5-"],
)
def test_a_wrong_area_is_refused(run, clock, area):
    with pytest.raises(ValueError, match=r"\. |registers"):
        asking(run, clock, Line(u1=Unit()), lambda d: d.survey(1, area, requests=5))


def test_the_areas_cover_every_register_of_both_tables():
    for table in ("holding", "input"):
        spans = [parse_area(area)[1:] for area in AREAS if area.startswith(table)]
        assert len({at for first, last in spans for at in range(first, last + 1)}) == 65536


# --- peek and the rest ---


def test_peek_gives_the_bytes_and_says_why_not(run, clock):
    unit = Unit({5: 0x1234, 6: 0x5678})
    patch = asking(run, clock, Line(u1=unit), lambda d: d.peek(1, "40006", 2))
    assert (patch.address, patch.count, patch.data.hex()) == ("holding:5", 2, "12345678")
    with pytest.raises(TagError, match=r"holding:9: exception 2"):
        asking(run, clock, Line(u1=unit), lambda d: d.peek(1, "holding:9", 1))
    with pytest.raises(DeviceError, match="headgate probe"):
        asking(run, clock, Line(), lambda d: d.peek(1, "holding:9", 1), units=(1, 2))


@pytest.mark.parametrize(
    ("address", "count"), [("holding:0", 0), ("holding:0", 126), ("holding:65535", 2), ("pump", 1)]
)
def test_a_peek_that_cannot_be_is_refused_before_it_is_sent(run, clock, address, count):
    unit = Unit()
    with pytest.raises(ValueError, match=r"\. "):
        asking(run, clock, Line(u1=unit), lambda d: d.peek(1, address, count))
    assert not unit.asked


@pytest.mark.parametrize(
    "ask",
    [lambda d: d.discover(256), lambda d: d.peek(-1, "holding:0", 1), lambda d: d.survey(999, "holding:0", requests=1)],
    ids=["discover", "peek", "survey"],
)
def test_a_unit_that_cannot_be_is_refused_before_it_is_asked(run, clock, ask):
    with pytest.raises(ValueError, match="Units go from 0 to 255"):
        asking(run, clock, Line(u1=Unit()), ask)


@pytest.mark.parametrize(
    ("url", "first", "count"),
    [
        ("tcp://h", "tcp://h", 1),
        ("rtu:///dev/x", "rtu:///dev/x?baud=9600&parity=N", 20),
        ("rtu:///dev/x?parity=E", "rtu:///dev/x?parity=E&baud=19200", 8),
        ("rtu:///dev/x?baud=4800", "rtu:///dev/x?baud=4800", 1),
        ("ascii:///dev/x?bits=7", "ascii:///dev/x?bits=7&baud=9600&parity=N", 20),
    ],
)
def test_settings_to_try_come_best_first(url, first, count):
    found = Driver.settings(url)
    assert (found[0], len(found), len(set(found))) == (first, count, count)


def test_units_to_try_are_those_that_are_usual():
    assert Driver.units("tcp://h")[:3] == (1, 255, 0)
    assert Driver.units("rtu:///dev/x")[:3] == (1, 2, 3)
    assert 0 not in Driver.units("rtu:///dev/x")


def test_a_line_without_a_file_has_its_units_and_its_timeout():
    driver = Driver.bare("tcp://h", [3, 4], timeout_s=0.25, clock=None, metrics=Metrics())
    assert driver.station(4).options.timeout == 0.25
    with pytest.raises(ValueError, match="unit 5"):
        driver.station(5)
    with pytest.raises(ValueError, match="no url"):
        Driver.bare("gopher://h", [1], timeout_s=None, clock=None, metrics=Metrics())


def test_what_will_be_written_can_be_spelt():
    device = Driver.bare("tcp://h", [1], timeout_s=None, clock=None, metrics=Metrics()).station(1)
    tag = Tag(name="x", address="holding:100", type="float32", order="CDAB", write=WriteRules())
    assert Driver.spell(device, tag, 1.5) == "10 00 64 00 02 04 00 00 3F C0"
    with pytest.raises(ValueError, match="holds"):
        Driver.spell(device, Tag(name="x", address="holding:100", type="int16"), 70000)
