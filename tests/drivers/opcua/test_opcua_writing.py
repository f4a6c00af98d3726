"""What a write sends, what refusals mean, and how what is written reads back: against a server of a few lines."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.driver import Driver
from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.known import Known
from drivers.opcua.values.codes import NAMES
from drivers.opcua.values.structures import Structures
from drivers.opcua.writing import Writer
from gateway.clock import SystemClock
from gateway.commands.limits import holds
from gateway.driver import Mirrors, Writes
from gateway.errors import DeviceError, ExpiredError, LineError, TagError
from gateway.metrics import Metrics
from gateway.model import Device, Tag

CODES = {name: high << 16 for high, name in NAMES.items()}
DEVICE = Device(name="plc", driver="opcua", url="opc.tcp://plc:4840")
LABELS = {0: "Off", 1: "Auto", 2: "Hand"}


class Server:
    """Holds one value; `result` is what a write gets, `fault` what every request does."""

    namespaces = ("http://opcfoundation.org/UA/", "urn:plc")

    def __init__(self):
        self.structures = Structures()
        self.held = ua.DataValue(ua.Variant(0, ua.VariantType.Int16))
        self.result = "Good"
        self.fault = None
        self.sent = []

    async def call(self, request, *, timeout_s=None):
        assert timeout_s is None
        self.sent.append(request)
        self._fail()
        (node,) = request.Parameters.NodesToWrite
        if self.result == "Good":
            self.held = node.Value
        return SimpleNamespace(Results=[ua.StatusCode(CODES[self.result])])

    async def fetch(self, request, *, timeout_s):
        assert timeout_s == 10
        self.sent.append(request)
        self._fail()
        return struct_to_binary(ua.ReadResponse(Results=[self.held]))

    def _fail(self):
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.fault:
            raise ServiceFault(CODES[self.fault], self.fault, "Write")


class Desk:
    """A writer, its server, and the one node there is."""

    def __init__(self):
        self.server = Server()
        self.known = Known(node=ua.NodeId("n", 2), builtin=4)
        self.writer = Writer(self.server, self)

    def find(self, device, tag):
        assert (device, tag.name) == (DEVICE, "t")
        return self.known

    def be(self, **known):
        self.known = replace(self.known, **known)

    def tag(self, **options):
        return Tag(name="t", address="ns=2;s=n", options=options)

    async def write(self, value, is_wanted=lambda: True, **options):
        await self.writer.write(DEVICE, self.tag(**options), value, is_wanted)

    async def read(self, **options):
        return await self.writer.read(DEVICE, self.tag(**options))

    def as_read(self, value, **options):
        return self.writer.as_read(DEVICE, self.tag(**options), value)


@pytest.fixture
def desk():
    return Desk()


def test_the_driver_fulfils_the_protocols():
    assert issubclass(Driver, Writes)
    assert issubclass(Driver, Mirrors)
    driver = Driver([DEVICE], clock=SystemClock(), metrics=Metrics())
    assert driver.as_read(DEVICE, Tag(name="t", address="i=1"), 5) == 5  # nothing is known without a connection


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_write_is_the_value_in_the_nodes_type_and_nothing_else(desk, run):
    run(desk.write(5))
    (request,) = desk.server.sent
    (node,) = request.Parameters.NodesToWrite
    assert (node.NodeId, node.AttributeId, node.IndexRange) == (ua.NodeId("n", 2), ua.AttributeIds.Value, None)
    assert struct_to_binary(node.Value) == bytes.fromhex("01 04 0500")  # mask 1: a value, no status and no times


def test_the_part_of_an_array_goes_with_it(desk, run):
    desk.be(builtin=6, rank=1)
    run(desk.write([7, 8], index_range="1:2"))
    (node,) = desk.server.sent[0].Parameters.NodesToWrite
    assert node.IndexRange == "1:2"
    assert node.Value.Value.Value == [7, 8]
    run(desk.read(index_range="1:2"))
    assert desk.server.sent[1].Parameters.NodesToRead[0].IndexRange == "1:2"


def test_a_read_takes_no_value_from_a_cache_and_asks_for_no_times(desk, run):
    run(desk.read())
    parameters = desk.server.sent[0].Parameters
    assert parameters.MaxAge == 0
    assert parameters.TimestampsToReturn is ua.TimestampsToReturn.Neither
    assert parameters.NodesToRead[0].AttributeId == ua.AttributeIds.Value


@pytest.mark.parametrize("builtin", [0, 24])
@pytest.mark.parametrize(
    ("held", "value", "kind"),
    [
        (ua.Variant(1.5, ua.VariantType.Float), 3, ua.VariantType.Float),
        (ua.Variant(1, ua.VariantType.Byte), 3, ua.VariantType.Byte),
        (ua.Variant("a", ua.VariantType.String), "b", ua.VariantType.String),
        (ua.Variant(), 3, ua.VariantType.Int32),
        (ua.Variant(), 2.5, ua.VariantType.Double),
    ],
)
def test_a_node_of_any_type_keeps_the_type_that_its_value_has(desk, run, builtin, held, value, kind):
    desk.be(builtin=builtin, rank=-2)
    desk.server.held = ua.DataValue(held)
    run(desk.write(value))
    read, write = desk.server.sent
    assert isinstance(read, ua.ReadRequest)
    assert write.Parameters.NodesToWrite[0].Value.Value.VariantType is kind
    assert desk.as_read(value) == value


def test_what_a_node_of_any_type_holds_and_nobody_understands_is_not_overwritten(desk, run):
    async def fetch(_request, *, timeout_s):
        return b"\x01\x00\x7a\x02"

    desk.be(builtin=24, rank=-2)
    desk.server.fetch = fetch
    with pytest.raises(TagError, match="cannot be understood"):
        run(desk.write(3))
    assert desk.server.sent == []


def test_a_structure_in_a_node_of_any_type_is_not_overwritten(desk, run):
    desk.be(builtin=24, rank=-2)
    desk.server.held = ua.DataValue(ua.Variant(ua.Range(0.0, 1.0), ua.VariantType.ExtensionObject))
    with pytest.raises(ValueError, match="structure cannot be written"):
        run(desk.write(3))
    assert len(desk.server.sent) == 1


@pytest.mark.parametrize("value", [40_000, "x", 2.5, [1], None])
def test_what_does_not_fit_is_said_before_anything_is_sent(desk, run, value):
    with pytest.raises(ValueError, match=r"Int16|one value"):
        run(desk.write(value))
    assert desk.server.sent == []


@pytest.mark.parametrize(("word", "meant"), [("on", True), (" OFF", False), ("1", True), ("false", False), (1, True)])
def test_a_bool_takes_the_words_of_commands(desk, run, word, meant):
    desk.be(builtin=1)
    run(desk.write(word))
    assert run(desk.read()) is meant
    assert desk.as_read(word) is meant


# --- whether it is wanted ---------------------------------------------------------------------------------------------


def test_what_is_not_wanted_any_more_is_not_sent(desk, run):
    with pytest.raises(ExpiredError):
        run(desk.write(5, is_wanted=lambda: False))
    assert desk.server.sent == []


def test_that_is_asked_last_of_all(desk, run):
    desk.be(builtin=24)
    desk.server.held = ua.DataValue(ua.Variant(1, ua.VariantType.Int32))
    asked = []

    def is_wanted():
        asked.append(len(desk.server.sent))
        return True

    run(desk.write(5, is_wanted=is_wanted))
    assert asked == [1]
    assert len(desk.server.sent) == 2


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("BadTypeMismatch", "data type"),
        ("BadNotWritable", "AccessLevel"),
        ("BadUserAccessDenied", "Log in as a user who may"),
        ("BadOutOfRange", "min and max"),
        ("BadWriteNotSupported", "index_range"),
        ("BadIndexRangeNoData", "shorter"),
        ("BadNodeIdUnknown", "headgate browse"),
        ("BadLocked", "another client"),
    ],
)
def test_a_refusal_names_the_tag_the_code_and_the_cure(desk, run, name, cure):
    for as_fault in (False, True):
        desk.server.result, desk.server.fault = ("Good", name) if as_fault else (name, None)
        with pytest.raises(TagError, match=cure) as caught:
            run(desk.write(5))
        assert str(caught.value).startswith(f"plc/t (ns=2;s=n): {name}: ")
        assert caught.value.cause == name


@pytest.mark.parametrize("name", ["BadTimeout", "BadDeviceFailure", "BadCommunicationError", "BadInternalError"])
def test_where_a_server_tried_it_cannot_be_known_whether_it_was_done(desk, run, name):
    desk.server.result = name
    with pytest.raises(DeviceError, match=f"{name}.*it cannot be known whether the write was done"):
        run(desk.write(5))


@pytest.mark.parametrize("name", ["GoodClamped", "GoodCompletesAsynchronously", "Uncertain"])
def test_what_is_not_bad_is_done(desk, run, name):
    desk.server.result = name
    run(desk.write(5))


def test_an_answer_without_a_result_is_no_success(desk, run):
    async def nothing(_request):
        return SimpleNamespace(Results=[])

    desk.server.call = nothing
    with pytest.raises(DeviceError, match="cannot be known"):
        run(desk.write(5))


def test_a_lost_line_goes_through_and_says_what_that_means(desk, run):
    desk.server.fault = LineError("no answer within 10 s", cause="timeout")
    with pytest.raises(LineError, match="no answer within 10 s: it cannot be known whether") as caught:
        run(desk.write(5))
    assert caught.value.cause == "timeout"
    with pytest.raises(LineError):
        run(desk.read())


def test_a_tag_without_a_node_says_why(desk, run):
    desk.be(node=None, code=CODES["BadNoMatch"])
    with pytest.raises(TagError, match="BadNoMatch: nothing lies at the end of that path"):
        run(desk.write(5))
    with pytest.raises(TagError, match="BadNoMatch") as caught:
        run(desk.read())
    assert caught.value.cause == "BadNoMatch"
    assert desk.server.sent == []
    assert desk.as_read(5) == 5


@pytest.mark.parametrize("name", ["BadSensorFailure", "BadNotReadable"])
def test_a_bad_value_is_not_read(desk, run, name):
    desk.server.held = ua.DataValue(ua.Variant(5, ua.VariantType.Int16), ua.StatusCode(CODES[name]))
    with pytest.raises(TagError, match=name):
        run(desk.read())
    desk.server.fault = name
    with pytest.raises(TagError, match=name):
        run(desk.read())


def test_an_uncertain_value_is_read(desk, run):
    code = ua.StatusCode(CODES["UncertainLastUsableValue"])
    desk.server.held = ua.DataValue(ua.Variant(5, ua.VariantType.Int16), code)
    assert run(desk.read()) == 5


@pytest.mark.parametrize("body", [b"", b"\x01\x00\x7a\x02"])
def test_an_answer_that_is_none_is_an_error_of_the_tag(desk, run, body):
    async def fetch(_request, *, timeout_s):
        return body

    desk.server.fetch = fetch
    with pytest.raises(TagError, match="cannot be understood"):
        run(desk.read())


# --- how it reads back ------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
SCALARS = {
    1: st.booleans(),
    2: st.integers(-128, 127),
    3: st.integers(0, 255),
    4: st.integers(-(2**15), 2**15 - 1),
    5: st.integers(0, 2**16 - 1),
    6: st.integers(-(2**31), 2**31 - 1),
    7: st.integers(0, 2**32 - 1),
    8: st.integers(-(2**63), 2**63 - 1),
    9: st.integers(0, 2**64 - 1),
    10: st.floats(width=32, allow_nan=False, allow_infinity=False) | st.floats(-3e38, 3e38) | st.integers(-99, 99),
    11: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-99, 99),
    12: TEXT,
    13: st.datetimes(datetime(1700, 1, 1), datetime(9999, 1, 1), timezones=st.timezones()).map(datetime.isoformat),  # noqa: DTZ001 - the zone is drawn
    14: st.uuids().map(str),
    15: st.binary(max_size=20).map(bytes.hex),
    17: st.integers(0, 2**32 - 1).map("ns=1;i={}".format),
    19: st.sampled_from(["Good", "BadSensorFailure", "UncertainLastUsableValue"]),
    20: st.builds("{}:{}".format, st.integers(0, 1), TEXT.filter(bool)),
    21: TEXT,
}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_is_written_reads_back_as_it_is_said_to(kit, data):
    desk = Desk()
    builtin = data.draw(st.sampled_from(sorted(SCALARS)))
    is_array = data.draw(st.booleans())
    desk.be(builtin=builtin, rank=1 if is_array else -1)
    one = SCALARS[builtin]
    value = data.draw(st.lists(one, max_size=4) if is_array else one)

    async def main():
        await desk.write(value)
        return await desk.read()

    with asyncio.Runner(loop_factory=kit.VirtualLoop) as virtual:
        found = virtual.run(main())
    meant = desk.as_read(value)
    assert found == meant
    assert type(found) is type(meant)
    assert holds(found, meant, "")


def test_a_float_reads_back_as_it_rounds(desk, run):
    desk.be(builtin=10)
    run(desk.write(0.1))
    assert run(desk.read()) == desk.as_read(0.1) == struct.unpack("f", struct.pack("f", 0.1))[0] != 0.1


@pytest.mark.parametrize("given", ["Hand", 2, "2"])
def test_an_enumeration_is_written_by_name_or_number_and_read_as_it_is_published(desk, run, given):
    desk.be(builtin=6, labels=LABELS)
    run(desk.write(given))
    assert desk.server.held.Value.Value == 2
    assert run(desk.read()) == desk.as_read(given) == "Hand"
    assert run(desk.read(enum="number")) == desk.as_read(given, enum="number") == 2


def test_a_name_that_the_enumeration_has_not_is_refused(desk, run):
    desk.be(builtin=6, labels=LABELS)
    with pytest.raises(ValueError, match=r"Off \(0\), Auto \(1\), Hand \(2\)"):
        run(desk.write("Up"))
    with pytest.raises(ValueError, match="is no name"):
        desk.as_read("Up")


@pytest.mark.parametrize("builtin", [12, 21])
def test_a_text_that_a_server_keeps_as_none_reads_as_an_empty_one(desk, run, builtin):
    desk.be(builtin=builtin)
    kind = ua.VariantType(builtin)
    desk.server.held = ua.DataValue(ua.Variant(None if builtin == 12 else ua.LocalizedText(), kind))
    assert run(desk.read()) == desk.as_read("") == ""


def test_a_time_reads_back_in_utc(desk, run):
    desk.be(builtin=13)
    run(desk.write("2026-11-02T12:00:00.5+02:00"))
    assert run(desk.read()) == desk.as_read("2026-11-02T12:00:00.5+02:00") == "2026-11-02T10:00:00.5Z"
