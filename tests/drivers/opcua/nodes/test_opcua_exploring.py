"""The tree of a server as it is told to the command browse."""

import asyncio

import pytest
from asyncua import ua

from drivers.opcua.exploring import Explorer
from drivers.opcua.options import DeviceOptions
from gateway.driver import Extras
from gateway.errors import DeviceError

CEFACT = "http://www.opcfoundation.org/UA/units/un/cefact"


@pytest.fixture
def plant(server):
    """Plant with Tank1 and Tank2: Level (with a unit), Reset(), Maker (a property), and the Server object."""
    server.add("Server", kind=1, node=ua.NodeId(2253), space=0)
    server.add("ServerStatus", ua.NodeId(2253), node=ua.NodeId(2256), space=0)
    top = server.add("Plant", kind=1, reference=35)
    for i in (1, 2):
        tank = server.add(f"Tank {i}", top, kind=1)
        level = server.add("Level", tank, access=3, more={5: ua.LocalizedText("how full")})
        unit = ua.EUInformation(NamespaceUri=CEFACT, UnitId=4408652, DisplayName=ua.LocalizedText())
        server.add("EngineeringUnits", level, reference=46, space=0, value=ua.Variant(unit))
        server.add("Reset", tank, kind=4)
        server.add("Maker", tank, reference=46)
    return server


def explored(server, start="", depth=None, most=1000, **extras):
    """All that is told, in order."""

    async def main():
        explorer = Explorer(server, DeviceOptions(), extras=Extras(**extras), most=most)
        return [some async for some in explorer.walk(start, depth)]

    return asyncio.run(main())


def nodes(server, **options):
    return [node for some in explored(server, **options) for node in some.nodes]


def test_the_tree_is_told_level_by_level_parents_first(plant):
    told = nodes(plant)
    assert [(node.above, node.kind, node.name) for node in told] == [
        (-1, "object", "Objects"),
        (0, "object", "Server"),
        (0, "object", "Plant"),
        (2, "object", "Tank 1"),
        (2, "object", "Tank 2"),
        (3, "variable", "Level"),
        (3, "method", "Reset"),
        (3, "property", "Maker"),
        (4, "variable", "Level"),
        (4, "method", "Reset"),
        (4, "property", "Maker"),
    ]
    assert [node.address for node in told[:4]] == [
        "i=85", "i=2253", "nsu=urn:plant;s=Plant", "nsu=urn:plant;s=Plant/Tank 1",
    ]  # fmt: skip
    assert [node.tag for node in told if node.tag] == ["Plant/Tank_1/Level", "Plant/Tank_2/Level"]


def test_below_the_server_object_is_told_only_where_one_starts_there(plant):
    assert [node.name for node in nodes(plant, start="i=2253")] == ["Server", "ServerStatus"]
    assert nodes(plant, start="i=2253")[1].tag == "ServerStatus"


def test_what_every_server_has_becomes_a_tag_only_where_one_starts_there(plant):
    aliases = plant.add("Aliases", kind=1, node=ua.NodeId(23470), space=0)
    plant.add("LastChange", aliases, node=ua.NodeId(32852), space=0)
    assert [node.tag for node in nodes(plant) if node.name == "LastChange"] == [""]
    assert [node.tag for node in nodes(plant, start="i=23470") if node.name == "LastChange"] == ["LastChange"]


@pytest.mark.parametrize(("depth", "count"), [(0, 1), (1, 3), (2, 5), (3, 11), (9, 11), (None, 11)])
def test_a_depth_is_kept(plant, depth, count):
    assert len(nodes(plant, depth=depth)) == count


def test_one_may_start_at_a_path_or_a_node(plant):
    assert [node.name for node in nodes(plant, start="/Plant/Tank 1")] == ["Tank 1", "Level", "Reset", "Maker"]
    level = nodes(plant, start="nsu=urn:plant;s=Plant/Tank 1/Level")
    assert [(node.name, node.kind, node.tag) for node in level] == [("Level", "variable", "Level")]


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("/Nothing", "'/Nothing' leads nowhere: BadNoMatch"),
        ("nsu=urn:x;i=1", "leads nowhere: the server has no namespace urn:x"),
        ("ns=2;s=Gone", "'ns=2;s=Gone' cannot be browsed: BadNodeIdUnknown"),
    ],
)
def test_a_start_that_is_not_there_is_refused(plant, start, reason):
    with pytest.raises(DeviceError, match=f"{reason}.* Begin further up") as refused:
        explored(plant, start=start)
    assert str(refused.value).startswith("opc.tcp://h:4840: ")
    with pytest.raises(ValueError, match="is no address"):
        explored(plant, start="Plant")


def test_each_node_is_told_once_however_many_ways_lead_to_it(plant):
    plant.below[ua.NodeId("Plant/Tank 2", 2)].append((35, ua.NodeId("Plant", 2)))
    plant.below[ua.NodeId("Plant/Tank 2", 2)].append((35, ua.NodeId("Plant/Tank 1/Level", 2)))
    assert len(nodes(plant)) == 11


def test_no_more_nodes_are_told_than_wanted(plant):
    some = explored(plant, most=6)
    assert sum(len(part.nodes) for part in some) == 6
    assert [part.is_cut for part in some] == [False] * (len(some) - 1) + [True]
    assert not any(part.is_cut for part in explored(plant, most=11))


def test_what_was_asked_of_what_is_known_grows_to_all(plant):
    some = explored(plant)
    assert all(part.asked <= part.known for part in some)
    assert some[-1].asked == some[-1].known


def test_a_branch_that_the_server_does_not_show_is_a_note(plant):
    plant.refused[ua.NodeId("Plant/Tank 1", 2)] = 0x801F0000
    notes = [note for part in explored(plant) for note in part.notes]
    assert notes == ["nsu=urn:plant;s=Plant/Tank 1 cannot be looked below: BadUserAccessDenied"]


def test_details_are_type_unit_access_and_description(plant):
    plain, level = (next(n for n in nodes(plant, details=is_asked) if n.name == "Level") for is_asked in (False, True))
    assert (plain.type, plain.unit, plain.is_writable) == ("", "", False)
    assert (level.type, level.unit, level.is_readable, level.is_writable) == ("float64", "°C", True, True)
    assert level.description == "how full"


def test_values_come_with_their_qualities(plant):
    plant.nodes[ua.NodeId("Plant/Tank 2/Level", 2)].pop(13)
    found = [(node.value, node.quality) for node in nodes(plant, values=True) if node.name == "Level"]
    assert found == [(1.5, "good"), (None, "bad:BadAttributeIdInvalid")]


def test_five_thousand_variables_take_a_few_requests(server):
    for f in range(5):
        folder = server.add(f"F{f}", kind=1)
        for i in range(1000):
            server.add(f"V{i}", folder)
    assert len(nodes(server, details=True, most=10_000)) == 5006
    assert server.count("Browse") < 25
    assert len(server.heard) < 80
