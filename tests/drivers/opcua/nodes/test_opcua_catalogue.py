"""Addresses into nodes, types, enumerations, tags out of wildcards, and what is asked for it."""

import asyncio
import logging

import pytest
from asyncua import ua

from drivers.opcua import plan
from drivers.opcua.nodes.catalogue import Catalogue
from drivers.opcua.nodes.known import Known
from drivers.opcua.nodes.requests import attributes, content
from drivers.opcua.options import DeviceOptions
from gateway.errors import LineError
from gateway.model import Device, Tag

UNKNOWN, NO_MATCH = 0x80340000, 0x806F0000
HAS_SUBTYPE, HAS_PROPERTY = 45, 46


def device(tags, name="plc", **options):
    """A device with these addresses by tag name, or tags."""
    made = [tag if isinstance(tag, Tag) else Tag(name=own, address=tag) for own, tag in tags.items()]
    return Device(name=name, driver="opcua", url="opc.tcp://h", options=DeviceOptions(**options), tags=tuple(made))


class Case:
    """One device and its catalogue."""

    def __init__(self, server, tags, **options):
        self.server = server
        self.device = device(tags, **options)
        self.catalogue = Catalogue([self.device])
        self.compiled = plan.compile_groups(self.device, self.device.tags)
        self.learn()

    def learn(self, *, is_resumed=False):
        asyncio.run(self.catalogue.learn(self.server, is_resumed=is_resumed))
        self.groups = self.catalogue.regroup(self.device, getattr(self, "groups", self.compiled))
        return self

    def known(self):
        """By tag name."""
        pairs = [pair for group in self.groups for pair in zip(group.tags, self.catalogue.known(group), strict=True)]
        return {tag.name: own for tag, own in pairs}

    def types(self):
        return {name: own for group in self.groups for name, own in zip(group.names, group.types, strict=True)}


def kind(server, number, above, space=2):
    """A data type below another."""
    return server.add(f"T{number}", above, kind=64, node=ua.NodeId(number, space), reference=HAS_SUBTYPE)


# --- addresses --------------------------------------------------------------------------------------------------------


def test_a_namespace_is_found_by_its_uri_whatever_its_index_is(server):
    server.add("Level")
    case = Case(server, {"level": "nsu=urn:plant;s=Level"})
    assert case.known()["level"].node == ua.NodeId("Level", 2)
    server.namespaces = ("http://opcfoundation.org/UA/", "urn:plant", "urn:server")
    server.add("Level", space=1)
    case.learn()
    assert case.known()["level"].node == ua.NodeId("Level", 1)


def test_identifiers_of_every_kind_become_node_ids(server):
    tags = {
        "i": "ns=2;i=7", "s": "ns=2;s=a;b", "g": "ns=2;g=09087e75-8e5e-499b-954f-f2a9603db28a", "b": "ns=2;b=AQI=",
    }  # fmt: skip
    nodes = {name: own.node for name, own in Case(server, tags).known().items()}
    assert nodes["i"] == ua.NodeId(7, 2)
    assert nodes["s"] == ua.NodeId("a;b", 2)
    assert str(nodes["g"].Identifier) == "09087e75-8e5e-499b-954f-f2a9603db28a"
    assert nodes["b"] == ua.NodeId(b"\x01\x02", 2)


def test_a_path_of_full_names_is_translated_and_others_are_browsed(server):
    tank = server.add("Tank", server.add("Plant", kind=1), kind=1)
    server.add("Level", tank)
    case = Case(server, {"whole": "/2:Plant/2:Tank/2:Level", "bare": "/Plant/Tank/Level"})
    assert {own.node for own in case.known().values()} == {ua.NodeId("Plant/Tank/Level", 2)}
    assert server.count("Browse") == 3


def test_a_server_that_cannot_translate_is_browsed(server):
    server.cannot_translate = True
    server.add("Level", server.add("Plant", kind=1))
    assert Case(server, {"level": "/2:Plant/2:Level"}).known()["level"].node == ua.NodeId("Plant/Level", 2)


def test_paths_begin_at_the_root_of_their_device(server):
    server.add("Level", server.add("Plant", kind=1))
    case = Case(server, {"level": "/Level", "all": "/*"}, root="nsu=urn:plant;s=Plant")
    assert set(case.known()) == {"level", "all/Level"}
    assert Case(server, {"level": "/Level"}, root="nsu=urn:gone;s=x").known()["level"] == Known(node=None, code=UNKNOWN)


def test_of_several_nodes_with_one_path_the_variable_of_the_first_namespace_is_taken(server, caplog):
    server.add("Level", node=ua.NodeId("object", 1), space=1, kind=1)
    server.add("Level", node=ua.NodeId("later", 2))
    server.add("Level", node=ua.NodeId("first", 1), space=1)
    assert Case(server, {"level": "/Level"}).known()["level"].node == ua.NodeId("first", 1)
    assert "device 'plc': level: several nodes have that path" in caplog.text


def test_an_address_that_leads_nowhere_is_a_bad_tag_and_said_once(server, caplog):
    server.add("Level")
    tags = {"good": "ns=2;s=Level", "gone": "ns=2;s=Gone", "strange": "nsu=urn:x;i=1", "path": "/Nothing/**"}
    case = Case(server, tags).learn().learn()
    known = case.known()
    assert known["strange"] == Known(node=None, code=UNKNOWN)
    assert known["path"] == Known(node=None, code=NO_MATCH)
    assert known["gone"].node == ua.NodeId("Gone", 2)  # it may be there later: who reads it is told
    assert case.types()["good"] == "float64"
    said = [record.getMessage() for record in caplog.records if record.name == "headgate.opcua"]
    assert len(said) == 3
    assert any("gone: BadNodeIdUnknown" in text for text in said)
    assert any("strange: BadNodeIdUnknown, the server has no namespace urn:x" in text for text in said)
    assert any("path: BadNoMatch" in text for text in said)


def test_many_bad_tags_are_one_line(server, caplog):
    Case(server, {f"t{i}": f"ns=2;i={i}" for i in range(100)})
    (said,) = [record.getMessage() for record in caplog.records if record.name == "headgate.opcua"]
    assert "t0, t1, t2, t3, t4 and 95 more: BadNodeIdUnknown" in said


def test_ten_thousand_tags_take_a_few_dozen_requests_within_the_limits(server):
    for i in range(10_000):
        server.add(f"V{i}")
    server.limits.max_nodes_per_read = server.most = 1000
    case = Case(server, {f"t{i}": f"nsu=urn:plant;s=V{i}" for i in range(10_000)})
    assert set(case.types().values()) == {"float64"}
    assert len(case.groups) == 10
    assert len(server.heard) == 30


def test_a_server_that_took_less_once_is_not_asked_for_more_again(server):
    nodes = [server.add(f"V{i}") for i in range(10_000)]
    server.most = 100
    values = asyncio.run(attributes(server, [(node, 14) for node in nodes]))
    assert {content(value, ua.NodeId) for value in values} == {ua.NodeId(11)}
    assert len(server.heard) < 250


def test_a_server_that_takes_less_than_it_says_is_asked_in_halves(server):
    for i in range(50):
        server.add(f"V{i}")
    server.most = 10
    case = Case(server, {f"t{i}": f"/2:V{i}" for i in range(50)})
    assert set(case.types().values()) == {"float64"}


# --- once a session ---------------------------------------------------------------------------------------------------


def test_a_session_that_was_taken_up_again_is_asked_nothing(server):
    server.add("Level")
    case = Case(server, {"level": "/Level"})
    count, groups = len(server.heard), case.groups
    case.learn(is_resumed=True)
    assert len(server.heard) == count
    assert all(one is other for one, other in zip(case.groups, groups, strict=True))


def test_what_was_not_learned_to_the_end_is_learned_in_the_resumed_session(server):
    server.add("Level")
    case = Case(server, {"level": "/Level"})
    usual = server.call

    async def lose(_request, **_):
        raise LineError("gone", cause="offline")

    server.call = lose
    with pytest.raises(LineError):
        case.learn()
    server.call = usual
    count = len(server.heard)
    case.learn(is_resumed=True)
    assert len(server.heard) > count
    assert case.known()["level"].node == ua.NodeId("Level", 2)


# --- types ------------------------------------------------------------------------------------------------------------

WORDS = {
    1: "bool", 2: "int8", 3: "uint8", 4: "int16", 5: "uint16", 6: "int32", 7: "uint32", 8: "int64", 9: "uint64",
    10: "float32", 11: "float64", 12: "string", 13: "", 14: "", 15: "", 21: "", 22: "",
    290: "float64", 294: "", 289: "uint32",
}  # fmt: skip


def test_built_in_types_and_those_of_the_standard_have_their_words(server):
    for number in WORDS:
        server.add(f"V{number}", data_type=ua.NodeId(number))
    case = Case(server, {f"t{number}": f"ns=2;s=V{number}" for number in WORDS})
    assert case.types() == {f"t{number}": word for number, word in WORDS.items()}
    assert case.known()["t290"].builtin == 11
    assert case.known()["t294"].builtin == 13
    assert server.count("Browse") == 0


def test_a_type_of_a_type_is_followed_up_to_the_built_in_one(server):
    above = ua.NodeId(10)
    for number in (1, 2, 3):
        above = kind(server, number, above)
    server.add("Level", data_type=above)
    case = Case(server, {"level": "ns=2;s=Level"})
    own = case.known()["level"]
    assert (own.type, own.builtin, own.data_type) == ("float32", 10, ua.NodeId(3, 2))
    count = server.count("Browse")
    for i in range(100):
        server.add(f"V{i}", data_type=above)
    assert len(set(Case(server, {f"t{i}": f"ns=2;s=V{i}" for i in range(100)}).types().values())) == 1
    assert server.count("Browse") == 2 * count


def test_types_that_go_round_in_a_circle_or_nowhere_are_told_by_the_value(server):
    one, other = ua.NodeId(1, 2), ua.NodeId(2, 2)
    kind(server, 1, other)
    kind(server, 2, one)
    server.add("A", data_type=one, value=ua.Variant(1, ua.VariantType.Int16))
    server.add("B", data_type=ua.NodeId(99, 2), value=ua.Variant("x", ua.VariantType.String))
    server.add("C", data_type=ua.NodeId(26), value=ua.Variant(1, ua.VariantType.UInt16))
    server.add("D", data_type=ua.NodeId(24), value=ua.Variant())
    case = Case(server, {name: f"ns=2;s={name}" for name in "ABCD"})
    assert case.types() == {"A": "int16", "B": "string", "C": "uint16", "D": ""}
    assert server.count("Browse") < 6


def test_abstract_types_of_the_standard_are_told_by_the_value_without_a_look_at_their_ancestors(server):
    for number in (24, 26, 27, 28):
        server.add(f"V{number}", data_type=ua.NodeId(number), value=ua.Variant(1, ua.VariantType.Byte))
    case = Case(server, {f"t{number}": f"ns=2;s=V{number}" for number in (24, 26, 27, 28)})
    assert set(case.types().values()) == {"uint8"}
    assert server.count("Browse") == 0


@pytest.mark.parametrize(
    ("rank", "value", "word", "told"),
    [
        (-1, 1.0, "float64", -1),
        (1, [1.0], "", 1),
        (0, [1.0], "", 0),
        (-2, 1.0, "float64", -1),
        (-3, 1.0, "float64", -1),
        (-3, [1.0, 2.0], "", 1),
        (-2, [[1.0], [2.0]], "", 2),
    ],
)
def test_arrays_have_no_word_and_an_open_rank_is_told_by_the_value(server, rank, value, word, told):
    server.add("V", rank=rank, value=ua.Variant(value, ua.VariantType.Double))
    case = Case(server, {"v": "ns=2;s=V"})
    assert (case.types()["v"], case.known()["v"].rank) == (word, told)


def test_the_type_of_a_value_is_known_though_the_library_cannot_decode_it(server):
    node = server.add("V", rank=-2, data_type=ua.NodeId(24), value=ua.Variant([[1, 2]], ua.VariantType.Int16))
    server.odd.add(node)
    known = Case(server, {"v": "ns=2;s=V"}).known()["v"]
    assert (known.builtin, known.rank) == (4, 2)


def test_a_value_that_nobody_understands_leaves_the_type_open(server, monkeypatch):
    server.add("V", rank=-2, data_type=ua.NodeId(24))

    async def fetch(_request, *, timeout_s):
        return b"\x01\x00\x7a\x02"

    monkeypatch.setattr(server, "fetch", fetch)
    known = Case(server, {"v": "ns=2;s=V"}).known()["v"]
    assert (known.builtin, known.rank) == (0, -2)


def test_a_list_of_an_enumeration_is_no_text(server):
    modes = kind(server, 7, ua.NodeId(29))
    texts = ua.Variant([ua.LocalizedText("Off"), ua.LocalizedText("On")])
    server.add("EnumStrings", modes, space=0, reference=HAS_PROPERTY, value=texts)
    server.add("V", data_type=modes, rank=1, value=ua.Variant([0, 1], ua.VariantType.Int32))
    case = Case(server, {"v": "ns=2;s=V"})
    assert (case.types()["v"], case.known()["v"].labels) == ("", {0: "Off", 1: "On"})


def test_access_says_whether_there_is_a_history(server):
    server.add("A", access=0x05)
    server.add("B", access=0x03)
    known = Case(server, {"a": "ns=2;s=A", "b": "ns=2;s=B"}).known()
    assert (known["a"].has_history, known["b"].has_history) == (True, False)
    assert known["b"].access == 3


# --- enumerations -----------------------------------------------------------------------------------------------------


def enumeration(server, number):
    return kind(server, number, ua.NodeId(29))


def test_enumerations_have_names_from_strings_values_or_their_definition(server):
    strings, values, defined = (enumeration(server, number) for number in (1, 2, 3))
    texts = [ua.LocalizedText("Off"), ua.LocalizedText("On")]
    many = [ua.EnumValueType(Value=10, DisplayName=ua.LocalizedText("Ten"))]
    server.add("EnumStrings", strings, space=0, reference=HAS_PROPERTY, value=ua.Variant(texts))
    server.add("EnumValues", values, space=0, reference=HAS_PROPERTY, value=ua.Variant(many))
    server.nodes[defined][23] = ua.Variant(ua.EnumDefinition(Fields=[ua.EnumField(Value=-1, Name="Minus")]))
    for name, own in (("a", strings), ("b", values), ("c", defined)):
        server.add(name, data_type=own)
    case = Case(server, {name: f"ns=2;s={name}" for name in "abc"})
    known = case.known()
    assert [known[name].labels for name in "abc"] == [{0: "Off", 1: "On"}, {10: "Ten"}, {-1: "Minus"}]
    assert {(own.type, own.builtin) for own in known.values()} == {("int32", 6)}
    assert set(case.types().values()) == {"string"}


def test_an_enumeration_by_number_is_published_as_a_number(server):
    own = enumeration(server, 1)
    server.add("EnumStrings", own, space=0, reference=HAS_PROPERTY, value=ua.Variant([ua.LocalizedText("Off")]))
    server.add("Mode", data_type=own)
    tag = Tag(name="mode", address="ns=2;s=Mode", options={"enum": "number"})
    assert Case(server, {"mode": tag}).types() == {"mode": "int32"}


def test_a_number_whose_variable_names_its_values_has_those_names(server):
    state = server.add("State", data_type=ua.NodeId(28), value=ua.Variant(1, ua.VariantType.UInt32))
    texts = [ua.LocalizedText("Closed"), ua.LocalizedText("Open")]
    server.add("EnumStrings", state, space=0, reference=HAS_PROPERTY, value=ua.Variant(texts))
    case = Case(server, {"state": "ns=2;s=State"})
    assert case.known()["state"].labels == {0: "Closed", 1: "Open"}
    assert case.types() == {"state": "string"}


def test_an_enumeration_without_names_is_a_number(server):
    server.add("Mode", data_type=enumeration(server, 1))
    case = Case(server, {"mode": "ns=2;s=Mode"})
    assert (case.types()["mode"], case.known()["mode"].labels) == ("int32", None)


# --- wildcards --------------------------------------------------------------------------------------------------------


def tanks(server, *names):
    plant = server.add("Plant", kind=1)
    for name in names:
        server.add("Level", server.add(name, plant, kind=1))


def test_wildcards_become_tags_named_after_what_they_stood_for(server):
    tanks(server, "Tank 1", "Tank 2")
    case = Case(server, {"level": "/Plant/*/Level", "deep": "/Plant/**"})
    assert set(case.known()) == {"level/Tank_1", "level/Tank_2", "deep/Tank_1/Level", "deep/Tank_2/Level"}
    (group,) = case.groups
    assert {tag.name: tag.address for tag in group.tags}["level/Tank_2"] == "nsu=urn:plant;s=Plant/Tank 2/Level"
    assert [str(item.address) for item in group.plan.items] == [tag.address for tag in group.tags]
    assert case.known()["level/Tank_1"].node == ua.NodeId("Plant/Tank 1/Level", 2)


def test_what_the_tag_says_holds_for_each_tag_it_becomes(server):
    tanks(server, "A", "B")
    tag = Tag(name="level", address="/Plant/*/Level", unit="m", scale=2.0, every_s=5.0, options={"queue": 3})
    (group,) = Case(server, {"level": tag}).groups
    assert (group.units, group.types, group.every_s) == (("m", "m"), ("float64", "float64"), 5.0)
    assert [item.queue for item in group.plan.items] == [3, 3]


def test_names_are_legal_and_the_same_ones_are_numbered_and_said(server, caplog):
    tanks(server, "Tänk", "Tünk", "status", "-", "x" * 100, "T_nk_2")
    case = Case(server, {"level": "/Plant/*/Level", "level/status_": "ns=2;s=Plant/status/Level"})
    assert set(case.known()) == {
        "level/T_nk", "level/T_nk_2", "level/T_nk_3", "level/status_", "level/status__2", "level/x",
        f"level/{'x' * 64}",
    }  # fmt: skip
    assert "two tags would be 'level/T_nk'" in caplog.text


def test_names_are_the_same_in_whatever_order_the_server_tells_them(server):
    tanks(server, "T nk", "T-nk", "T+nk")
    first = {name: own.node for name, own in Case(server, {"level": "/Plant/*/Level"}).known().items()}
    server.below[ua.NodeId("Plant", 2)].reverse()
    again = {name: own.node for name, own in Case(server, {"level": "/Plant/*/Level"}).known().items()}
    assert first == again


def test_a_pattern_without_a_match_stays_one_bad_tag_until_there_is_one(server):
    server.add("Plant", kind=1)
    case = Case(server, {"level": "/Plant/*/Level"})
    assert case.known() == {"level": Known(node=None, code=NO_MATCH)}
    tanks(server, "A")
    assert set(case.learn().known()) == {"level/A"}


def test_tags_beyond_max_matches_are_left_out_and_counted(server, caplog):
    tanks(server, *(f"T{i}" for i in range(9)))
    assert len(Case(server, {"level": "/Plant/*/Level"}, max_matches=5).known()) == 5
    assert "4 nodes beyond max_matches are left out" in caplog.text


def test_groups_that_grow_too_large_are_cut(server):
    for i in range(2500):
        server.add(f"V{i}")
    case = Case(server, {"all": "/**"})
    assert [len(group.tags) for group in case.groups] == [1000, 1000, 500]
    assert sum(len(case.catalogue.known(group)) for group in case.groups) == 2500


# --- groups -----------------------------------------------------------------------------------------------------------


def test_groups_stay_the_same_objects_where_nothing_changed(server):
    tanks(server, "A", "B")
    case = Case(server, {"level": "/Plant/*/Level", "plain": "ns=2;s=Plant/A/Level"})
    groups = case.groups
    case.learn()
    assert all(one is other for one, other in zip(case.groups, groups, strict=True))


def test_a_group_whose_types_the_file_has_right_stays_the_compiled_one(server):
    server.add("Level")
    case = Case(server, {"level": Tag(name="level", address="ns=2;s=Level", type="float64")})
    assert case.groups[0] is case.compiled[0]


def test_other_types_or_other_tags_make_another_group_from_the_compiled_ones(server):
    tanks(server, "A", "B")
    case = Case(server, {"level": "/Plant/*/Level"})
    former = case.groups
    server.nodes[ua.NodeId("Plant/A/Level", 2)][14] = ua.NodeId(4)
    assert case.learn().types() == {"level/A": "int16", "level/B": "float64"}
    assert case.groups[0] is not former[0]
    server.add("Level", server.add("C", ua.NodeId("Plant", 2), kind=1))
    assert list(case.learn().known()) == ["level/A", "level/B", "level/C"]
    assert len(case.catalogue.known(case.groups[0])) == 3


def test_a_group_that_was_never_regrouped_is_known_as_the_file_has_it(server):
    server.add("Level")
    own = device({"level": "ns=2;s=Level", "all": "/**"})
    catalogue = Catalogue([own])
    asyncio.run(catalogue.learn(server, is_resumed=False))
    (group,) = plan.compile_groups(own, own.tags)
    assert [known.node for known in catalogue.known(group)] == [ua.NodeId("Level", 2)] * 2


def test_a_tag_is_found_by_its_name_and_before_any_group_by_its_address(server):
    tanks(server, "A")
    case = Case(server, {"level": "/Plant/*/Level", "one": "/Plant/A/Level"})
    (expanded,) = [tag for group in case.groups for tag in group.tags if tag.name == "level/A"]
    assert case.catalogue.find(case.device, expanded).node == ua.NodeId("Plant/A/Level", 2)
    catalogue = Catalogue([case.device])
    assert catalogue.find(case.device, case.device.tags[1]) == Known(node=None, code=UNKNOWN)
    asyncio.run(catalogue.learn(server, is_resumed=False))
    assert catalogue.find(case.device, case.device.tags[1]).node == ua.NodeId("Plant/A/Level", 2)


def test_two_devices_of_one_server_keep_their_tags_apart(server):
    server.add("Level")
    one, other = device({"t": "ns=2;s=Level"}, name="one"), device({"t": "ns=2;s=Gone"}, name="other")
    catalogue = Catalogue([one, other])
    asyncio.run(catalogue.learn(server, is_resumed=False))
    for own in (one, other):
        catalogue.regroup(own, plan.compile_groups(own, own.tags))
    assert catalogue.find(one, one.tags[0]).type == "float64"
    assert catalogue.find(other, other.tags[0]).type == ""


def test_what_was_said_is_not_said_for_ever(server, caplog):
    case = Case(server, {"gone": "ns=2;s=Gone"})
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        case.learn().learn()
    assert caplog.text == ""
