"""Structures: what a server tells of them, asked once, and what their bytes mean then [Part 6 5.2.6 to 5.2.8]."""

import asyncio
import re
import struct
from types import SimpleNamespace

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import extensionobject_to_binary, struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.faults import ServiceFault
from drivers.opcua.values import structures as module
from drivers.opcua.values.layouts import MAX_FIELDS, Layout, Member, read_structure
from drivers.opcua.values.parsing import parse_read
from drivers.opcua.values.standard import standard_layout, standard_type
from drivers.opcua.values.structures import Structures
from drivers.opcua.values.variants import Decoder
from gateway.errors import LineError

SPACES = ("http://opcfoundation.org/UA/", "urn:plant")
PLAIN, OPTIONAL, UNION, DERIVED, DERIVED_UNION = map(ua.StructureType, range(5))
INT16, INT32, DOUBLE, STRING, BYTES, STRUCTURE = (ua.NodeId(n) for n in (4, 6, 11, 12, 15, 22))


class TypeServer:
    """A session with a server of data types: `types` by name, with their definition and the type above them."""

    def __init__(self):
        self.namespaces = SPACES
        self.limits = SimpleNamespace(max_nodes_per_read=7, max_nodes_per_browse=7, max_nodes_per_translate=7)
        self.types = {}
        self.asked = []
        self.fault = None

    def add(self, name, definition, above=STRUCTURE):
        self.types[name] = definition, above
        return ua.NodeId(name, 1)

    def structure(self, name, *fields, kind=PLAIN, above=STRUCTURE):
        """Fields are (name, data type), (name, data type, rank) or (name, data type, rank, is optional)."""
        made = [
            ua.StructureField(Name=own[0], DataType=own[1], ValueRank=(*own, -1)[2], IsOptional=(*own, -1, False)[3])
            for own in fields
        ]
        return self.add(name, ua.StructureDefinition(ua.NodeId(f"{name}.bin", 1), above, kind, made), above)

    def enumeration(self, name, **numbers):
        fields = [ua.EnumField(value, Name=label) for label, value in numbers.items()]
        return self.add(name, ua.EnumDefinition(fields), ua.NodeId(29))

    async def call(self, request, *, timeout_s=None):
        name = type(request).__name__
        self.asked.append(name)
        if self.fault is not None:
            raise self.fault
        response = getattr(ua, name.replace("Request", "Response"))()
        if name == "BrowseRequest":
            response.Results = [self.above(node) for node in request.Parameters.NodesToBrowse]
        elif name == "ReadRequest":
            response.Results = [self.read(node) for node in request.Parameters.NodesToRead]
        else:
            missing = ua.StatusCode(ua.StatusCodes.BadNoMatch)
            response.Results = [ua.BrowsePathResult(missing) for _ in request.Parameters.BrowsePaths]
        return response

    def above(self, asked):
        name = asked.NodeId.Identifier
        target = None
        if asked.ReferenceTypeId.Identifier == 38 and str(name).removesuffix(".bin") in self.types:
            target = ua.NodeId(name.removesuffix(".bin"), 1)
        elif asked.ReferenceTypeId.Identifier == 45 and name in self.types:
            target = self.types[name][1]
        result = ua.BrowseResult()
        if target is not None:
            found = ua.ReferenceDescription(asked.ReferenceTypeId, False, target)
            result.References = [found]
        return result

    def read(self, asked):
        definition = self.types.get(asked.NodeId.Identifier, (None,))[0]
        if asked.AttributeId != 23 or definition is None:
            return ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadAttributeIdInvalid))
        return ua.DataValue(ua.Variant(definition, ua.VariantType.ExtensionObject))


@pytest.fixture
def server():
    return TypeServer()


def body(name, data):
    """An extension object with the binary encoding of a type."""
    head = ua.ua_binary.nodeid_to_binary(ua.NodeId(f"{name}.bin", 1))
    return head + b"\x01" + struct.pack("<i", len(data)) + data


def response(*objects):
    own = struct_to_binary(ua.ReadResponse())[:-8]
    values = b"".join(b"\x01\x16" + one for one in objects)
    return own + struct.pack("<i", len(objects)) + values + b"\xff\xff\xff\xff"


def read(server, *objects, structures=None):
    structures = structures or Structures()
    if structures.decoder.namespaces != SPACES:
        structures.begin(SPACES)
    return asyncio.run(structures.parsed(parse_read, response(*objects), server)).values


def text(value):
    return struct.pack("<i", len(value)) + value.encode()


# --- what a definition means


def test_a_structure_is_a_dict_of_its_fields(server):
    server.structure(
        "Pump", ("speed", DOUBLE), ("name", STRING), ("raw", BYTES), ("steps", INT16, 1), ("none", INT16, 1)
    )
    data = struct.pack("<d", 1.5) + text("P1") + text("\x01\x7f") + struct.pack("<i2h", 2, 3, -4) + b"\xff" * 4
    assert read(server, body("Pump", data)) == [
        {"speed": 1.5, "name": "P1", "raw": "017f", "steps": [3, -4], "none": None}
    ]


def test_floats_of_a_structure_have_the_digits_they_deserve():
    layout = Layout(members=[Member("one", 10), Member("row", 10, 1)])
    value = read_structure(Decoder(), layout, struct.pack("<fi2f", 0.1, 2, 0.2, 0.3), 0)
    assert value == {"one": 0.1, "row": [0.2, 0.3]}


def test_the_server_is_asked_once_for_each_type(server):
    server.structure("Pump", ("speed", DOUBLE))
    structures = Structures()
    for _ in range(3):
        assert read(server, body("Pump", struct.pack("<d", 2)), structures=structures) == [{"speed": 2}]
    assert server.asked.count("ReadRequest") == 1
    structures.begin(SPACES)
    assert read(server, body("Pump", struct.pack("<d", 2)), structures=structures) == [{"speed": 2}]
    assert server.asked.count("ReadRequest") == 2


def test_optional_fields_are_there_where_the_mask_says(server):
    fields = [("a", INT16, -1, True), ("b", INT16), ("c", STRING, -1, True), ("d", INT16, 1, True)]
    server.structure("Some", *fields, kind=OPTIONAL)
    masks = {
        0: ({"b": 7}, struct.pack("<h", 7)),
        1: ({"a": 1, "b": 7}, struct.pack("<2h", 1, 7)),
        2: ({"b": 7, "c": "x"}, struct.pack("<h", 7) + text("x")),
        5: ({"a": 1, "b": 7, "d": [2]}, struct.pack("<2hih", 1, 7, 1, 2)),
    }
    bodies = [body("Some", struct.pack("<I", mask) + data) for mask, (_, data) in masks.items()]
    assert read(server, *bodies) == [value for value, _ in masks.values()]


def test_a_union_is_its_one_field(server):
    server.structure("Either", ("number", DOUBLE), ("text", STRING), kind=UNION)
    bodies = [b"\0\0\0\0", struct.pack("<Id", 1, 2.5), struct.pack("<I", 2) + text("x")]
    assert read(server, *(body("Either", data) for data in bodies)) == [{}, {"number": 2.5}, {"text": "x"}]
    (unknown,) = read(server, body("Either", struct.pack("<Id", 3, 2.5)))
    assert unknown["body"].startswith("03000000")


def test_structures_hold_structures_enumerations_and_matrices(server):
    mode = server.enumeration("Mode", Off=0, On=1)
    level = server.add("Level", None, DOUBLE)  # a name of its own for a Double
    point = server.structure("Point", ("x", DOUBLE), ("mode", mode))
    server.structure(
        "Plant", ("at", point), ("all", point, 1), ("modes", mode, 1), ("level", level), ("grid", INT16, 2),
        ("cubes", point, 2), ("any", ua.NodeId(24)), ("number", ua.NodeId(26)), ("object", STRUCTURE),
    )  # fmt: skip
    one = struct.pack("<di", 1.5, 1)
    data = one + struct.pack("<i", 2) + one + struct.pack("<di", 2.5, 9) + struct.pack("<i2i", 2, 0, 1)
    data += struct.pack("<d", 7) + struct.pack("<3i6h", 2, 2, 3, *range(6)) + struct.pack("<3i", 2, 1, 1) + one
    data += b"\x0c" + text("x") + b"\x03\x05" + body("Point", one)
    assert read(server, body("Plant", data)) == [
        {
            "at": {"x": 1.5, "mode": "On"},
            "all": [{"x": 1.5, "mode": "On"}, {"x": 2.5, "mode": 9}],
            "modes": ["Off", "On"],
            "level": 7.0,
            "grid": [[0, 1, 2], [3, 4, 5]],
            "cubes": [[{"x": 1.5, "mode": "On"}]],
            "any": "x",
            "number": 5,
            "object": {"x": 1.5, "mode": "On"},
        }
    ]


def test_a_field_that_may_be_of_a_derived_type_says_which_it_is(server):
    point = server.structure("Point", ("x", DOUBLE))
    server.structure("Far", ("x", DOUBLE), ("y", DOUBLE), above=point)
    server.structure("Wide", ("p", point, -1, True), ("q", point), ("n", INT32, -1, True), kind=DERIVED)
    data = body("Far", struct.pack("<2d", 1, 2)) + struct.pack("<d", 3) + b"\x04\x05\x00"
    assert read(server, body("Wide", data)) == [{"p": {"x": 1, "y": 2}, "q": {"x": 3}, "n": 5}]
    server.structure("Or", ("p", point, -1, True), ("q", point), kind=DERIVED_UNION)
    bodies = [body("Or", b"\1\0\0\0" + body("Far", struct.pack("<2d", 1, 2))), body("Or", struct.pack("<Id", 2, 3))]
    assert read(server, *bodies) == [{"p": {"x": 1, "y": 2}}, {"q": {"x": 3}}]


def test_a_structure_may_hold_itself(server):
    tree = ua.NodeId("Tree", 1)
    server.structure("Tree", ("n", INT16), ("below", tree, 1))
    leaf = struct.pack("<hi", 2, 0)
    value = {"n": 1, "below": [{"n": 2, "below": []}, {"n": 2, "below": []}]}
    assert read(server, body("Tree", struct.pack("<hi", 1, 2) + leaf * 2)) == [value]


# --- what a server does not say


def test_a_type_that_the_server_does_not_describe_stays_bytes(server):
    server.add("Old", None)
    bodies = [body("Old", b"\1\2"), body("Nobody", b"\3")]
    assert read(server, *bodies) == [
        {"type": "nsu=urn:plant;s=Old.bin", "body": "0102"},
        {"type": "nsu=urn:plant;s=Nobody.bin", "body": "03"},
    ]
    count = len(server.asked)
    structures = Structures()
    read(server, *bodies, structures=structures)
    asked = len(server.asked)
    read(server, *bodies, structures=structures)
    assert len(server.asked) == asked > count


def test_a_structure_with_a_field_that_nobody_describes_stays_bytes(server):
    old = server.add("Old", None)
    server.structure("Pump", ("speed", DOUBLE), ("old", old))
    (value,) = read(server, body("Pump", struct.pack("<dh", 1, 2)))
    assert value == {"type": "nsu=urn:plant;s=Pump.bin", "body": struct.pack("<dh", 1, 2).hex()}


def test_a_field_of_a_type_that_leads_nowhere_is_not_guessed(server):
    server.structure("Pump", ("flag", ua.NodeId("Nowhere", 1)))
    (value,) = read(server, body("Pump", b"\x01\x01"))  # as a Variant it would be true
    assert value == {"type": "nsu=urn:plant;s=Pump.bin", "body": "0101"}


def test_structures_of_the_standard_are_read_from_servers_that_describe_none(server):
    objects = [
        ua.Range(-1, 99.5),
        ua.EUInformation("urn:units", 4_408_652, ua.LocalizedText("°C"), ua.LocalizedText("degree Celsius")),
        ua.Argument("a", ua.NodeId(6), 1, [3], ua.LocalizedText("x")),
        ua.AxisInformation(
            ua.EUInformation(), ua.Range(0, 1), ua.LocalizedText("t"), ua.AxisScaleEnumeration.Log, [1.5]
        ),
    ]
    values = read(server, *map(extensionobject_to_binary, objects))
    assert values[0] == {"Low": -1, "High": 99.5}
    assert values[1]["DisplayName"] == "°C"
    assert values[2] == {"Name": "a", "DataType": "i=6", "ValueRank": 1, "ArrayDimensions": [3], "Description": "x"}
    assert values[3]["AxisScaleType"] == "Log"
    assert values[3]["EURange"] == {"Low": 0, "High": 1}


def test_the_librarys_table_is_read_without_a_fault():
    found = [standard_layout(kind.data_type) for kind in ua.extension_objects_by_typeid.values()]
    assert sum(layout is not None for layout in found) > 320
    assert standard_type(ua.NodeId(886)) == ua.NodeId(884)
    assert standard_type(ua.NodeId(886, 1)) is None
    assert standard_layout(ua.NodeId(884, 1)) is None


def test_a_refusal_of_the_whole_question_leaves_bytes_and_a_lost_link_is_told(server):
    server.structure("Pump", ("speed", DOUBLE))
    server.fault = ServiceFault(0x800B0000, "BadServiceUnsupported", "Browse")
    structures = Structures()
    one = body("Pump", struct.pack("<d", 2))
    assert read(server, one, structures=structures)[0]["body"] == "0000000000000040"
    server.fault = LineError("gone", cause="offline")
    structures = Structures()
    with pytest.raises(LineError):
        read(server, one, structures=structures)
    server.fault = None
    assert read(server, one, structures=structures) == [{"speed": 2}], "nothing was noted that is not known"


# --- bounds


def test_a_definition_without_end_is_not_learned(server):
    server.structure("Wide", *((f"f{n}", INT16) for n in range(MAX_FIELDS + 1)))
    deep = DOUBLE
    for n in range(module._LEVELS + 3):
        deep = server.structure(f"T{n}", ("x", deep))
    (wide,) = read(server, body("Wide", b"\1\2" * (MAX_FIELDS + 1)))
    assert set(wide) == {"type", "body"}
    (last,) = read(server, body(f"T{n}", struct.pack("<d", 1)))
    assert set(last) == {"type", "body"}
    (inner,) = read(server, body("T3", struct.pack("<d", 1)))
    assert inner == {"x": {"x": {"x": {"x": 1}}}}


def test_types_are_looked_at_up_to_a_number(server, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 5)
    kinds = [server.structure(f"P{n}", ("x", DOUBLE)) for n in range(9)]
    server.structure("All", *((f"p{n}", kind) for n, kind in enumerate(kinds)))
    (value,) = read(server, body("All", bytes(72)))
    assert set(value) == {"type", "body"}


def test_a_structure_of_nothing_is_not_made_a_million_times(monkeypatch):
    monkeypatch.setattr("drivers.opcua.values.variants.MOST_VALUES", 20_000)
    empty = Layout()
    hundred = Layout(members=[Member(f"a{n}", 0, layout=empty) for n in range(100)])
    million = Layout(members=[Member(f"b{n}", 0, layout=hundred) for n in range(100)])
    assert len(read_structure(Decoder(), hundred, b"", 0)) == 100
    with pytest.raises(ValueError, match="values in one message"):
        read_structure(Decoder(), million, b"", 0)
    values = Layout(members=[Member("x", 23, 1)])
    assert len(read_structure(Decoder(), values, struct.pack("<i", 4990) + bytes(4990), 0)["x"]) == 4990
    with pytest.raises(ValueError, match="values in one message"):
        read_structure(Decoder(), values, struct.pack("<i", 5001) + bytes(5001), 0)
    itself = Layout()
    itself.members.append(Member("x", 0, layout=itself))
    with pytest.raises(ValueError, match="too deep"):
        read_structure(Decoder(), itself, b"", 0)


@pytest.mark.parametrize("deep", [20, 33, 99, 400, 3000])
@pytest.mark.parametrize("kind", [22, 24])
def test_structures_in_structures_end_before_the_stack_does(deep, kind):
    """Each with a head of its own, which takes the most calls; what is too deep stays bytes."""
    decoder = Decoder(SPACES)
    decoder.layouts[1, "s", "Box.bin"] = Layout(members=[Member("x", kind, 1)])
    data = body("Box", struct.pack("<i", 0))
    for _ in range(deep):
        data = body("Box", struct.pack("<i", 1) + (b"\x16" if kind == 24 else b"") + data)

    def far_down(calls):
        return far_down(calls - 1) if calls else decoder.variant(b"\x16" + data, 0)

    value, end = far_down(400)
    assert end == len(data) + 1
    depth = 0
    while value.get("x"):
        (value,) = value["x"]
        depth += 1
    assert depth == deep if deep <= 20 else 20 < depth < 100
    assert (value == {"x": []}) is (depth == deep)


@pytest.mark.parametrize(
    "shape", [(2**20, 2**20), (-1, -1), (-2, -3), (2**31 - 1,), (3, 3), (2**31 - 1,) * 9000, (1,) * 300]
)
def test_dimensions_of_a_field_are_no_reason_to_make_room(shape):
    layout = Layout(members=[Member("x", 3, rank=2)])
    data = struct.pack(f"<i{len(shape)}i", len(shape), *shape) + bytes(8)
    with pytest.raises(ValueError, match="dimensions"):
        read_structure(Decoder(), layout, data, 0)


# --- any definition

KINDS = {1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 11: "d", 12: "", 15: ""}


@st.composite
def layouts(draw, depth=2):
    members = []
    for n in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from([*KINDS, 0] if depth else [*KINDS]))
        inner = draw(layouts(depth=depth - 1)) if kind == 0 else None
        rank = draw(st.sampled_from([-1, -1, 1, 2]))
        members.append(Member(f"m{n}", kind, rank, draw(st.booleans()), None, inner))
    return Layout(draw(st.sampled_from(["structure", "optional", "union"])), members)


@st.composite
def filled(draw, layout):
    """A value of a layout, and its bytes."""
    value, data = {}, b""
    members, head = layout.members, b""
    if layout.kind == "union":
        chosen = draw(st.integers(0, len(members)))
        members, head = members[chosen - 1 : chosen] if chosen else [], struct.pack("<I", chosen)
    elif layout.kind == "optional":
        open_ones = [member for member in members if member.is_optional]
        given_ones = [member for member in open_ones if draw(st.booleans())]
        head = struct.pack("<I", sum(1 << open_ones.index(member) for member in given_ones))
        members = [member for member in members if not member.is_optional or member in given_ones]
    for member in members:
        value[member.name], more = draw(field_of(member))
        data += more
    return value, head + data


@st.composite
def field_of(draw, member):
    if member.rank < 1:
        return draw(one_of(member))
    if member.rank == 1:
        parts = draw(st.lists(one_of(member), max_size=3))
        return [value for value, _ in parts], struct.pack("<i", len(parts)) + b"".join(data for _, data in parts)
    rows, columns = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    parts = [draw(one_of(member)) for _ in range(rows * columns)]
    values = [value for value, _ in parts]
    data = struct.pack("<3i", 2, rows, columns) + b"".join(data for _, data in parts)
    return [values[at : at + columns] for at in range(0, len(values), columns)], data


@st.composite
def one_of(draw, member):
    if member.layout is not None:
        return draw(filled(member.layout))
    letter = KINDS[member.kind]
    if letter:
        low, high = (0, 1) if letter == "?" else (-100, 100) if letter.islower() else (0, 200)
        value = draw(st.booleans() if letter == "?" else st.integers(low, high))
        return (float(value) if letter == "d" else value), struct.pack("<" + letter, value)
    value = draw(st.text(max_size=4))
    raw = value.encode()
    return (value if member.kind == 12 else raw.hex()), struct.pack("<i", len(raw)) + raw


@settings(max_examples=150, deadline=None)
@given(layouts().flatmap(lambda layout: st.tuples(st.just(layout), filled(layout))))
def test_any_structure_reads_as_it_was_filled(drawn):
    layout, (value, data) = drawn
    try:
        read = read_structure(Decoder(), layout, data, 0)
    except ValueError as error:
        fault = str(error)
    else:
        assert read == value
        return
    assert re.search("elements in|dimensions", fault), "an array of structures without any bytes is held for a lie"


@settings(max_examples=200, deadline=None)
@given(layout=layouts(), data=st.binary(max_size=60))
def test_any_bytes_are_a_structure_or_refused(layout, data):
    try:
        read_structure(Decoder(), layout, data, 0)
    except (ValueError, struct.error, IndexError):
        return
