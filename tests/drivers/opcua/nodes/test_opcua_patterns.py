"""Paths with wildcards and names without namespace: what they lead to, and how little is asked for it."""

import asyncio
from fnmatch import fnmatchcase

import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.address import parse
from drivers.opcua.nodes import patterns
from drivers.opcua.nodes.patterns import expression, walk

OBJECTS = ua.NodeId(85)


@pytest.fixture
def plant(server):
    """Plant/Tank1..3 with Level and Pump/Speed each, Plant/Spare/Level."""
    top = server.add("Plant", kind=1, reference=35)
    for i in (1, 2, 3):
        tank = server.add(f"Tank{i}", top, kind=1)
        level = server.add("Level", tank)
        server.add("EURange", level, reference=46, space=0)
        pump = server.add("Pump", tank, kind=1)
        server.add("Speed", pump)
    server.add("Level", server.add("Spare", top, kind=1))
    return server


def found(server, *paths, most=1000):
    """What each path leads to, as the identifiers of the nodes and what wildcards stood for."""
    outcomes = asyncio.run(walk(server, OBJECTS, [parse(path) for path in paths], most=most))
    return [[(str(match.node.Identifier), match.names) for match in outcome.matches] for outcome in outcomes]


def test_a_name_without_namespace_is_found_in_any(plant):
    assert found(plant, "/Plant/Tank1/Level") == [[("Plant/Tank1/Level", ())]]
    assert found(plant, "/2:Plant/Tank1/Level", "/1:Plant/Tank1/Level") == [[("Plant/Tank1/Level", ())], []]


def test_a_star_is_any_part_of_one_name(plant):
    (tanks,) = found(plant, "/Plant/Tank*/Level")
    assert tanks == [(f"Plant/Tank{i}/Level", (f"Tank{i}",)) for i in (1, 2, 3)]
    assert found(plant, "/Plant/*/Level")[0][3] == ("Plant/Spare/Level", ("Spare",))
    assert found(plant, "/Plant/Tank?/Pump/Sp*")[0][2] == ("Plant/Tank3/Pump/Speed", ("Tank3", "Speed"))


def test_two_stars_are_any_number_of_levels(plant):
    (speeds,) = found(plant, "/Plant/**/Speed")
    assert speeds == [(f"Plant/Tank{i}/Pump/Speed", (f"Tank{i}", "Pump")) for i in (1, 2, 3)]
    assert len(found(plant, "/**/Level")[0]) == 4
    assert found(plant, "/Plant/Spare/**/Level") == [[("Plant/Spare/Level", ())]]


def test_two_stars_at_the_end_are_all_variables_below_and_no_property(plant):
    (everything,) = found(plant, "/Plant/**")
    assert len(everything) == 7
    assert ("Plant/Tank1/Pump/Speed", ("Tank1", "Pump", "Speed")) in everything
    assert not any("EURange" in node for node, _ in everything)


def test_a_property_is_found_by_its_name_and_not_by_wildcards(plant):
    assert found(plant, "/Plant/Tank1/Level/EURange") == [[("Plant/Tank1/Level/EURange", ())]]
    assert len(found(plant, "/Plant/*/Level/EURange")[0]) == 3
    assert found(plant, "/Plant/Tank1/Level/*") == [[]]


def test_wildcards_find_variables_and_a_plain_path_may_lead_to_an_object(plant):
    assert found(plant, "/Plant/*") == [[]]
    assert found(plant, "/Plant/Spare") == [[("Plant/Spare", ())]]


def test_what_leads_nowhere_finds_nothing(plant):
    assert found(plant, "/Plant/Tank9/Level", "/Nothing/**", "/Plant/Tank1/Level/Deeper") == [[], [], []]


def test_what_paths_share_is_browsed_once(plant):
    tags = [f"/Plant/Tank{i}/{name}" for i in (1, 2, 3) for name in ("Level", "Pump/Speed")]
    assert [len(matches) for matches in found(plant, *tags, "/Plant/*/Level", "/Plant/Tank1/*")] == [1] * 6 + [4, 1]
    asked = [one.NodeId for request in plant.heard for one in request.Parameters.NodesToBrowse]
    assert len(asked) == len(set(asked))


def test_a_circle_of_references_ends(plant):
    plant.below.setdefault(ua.NodeId("Plant/Spare", 2), []).append((35, ua.NodeId("Plant", 2)))
    plant.below[ua.NodeId("Plant/Spare", 2)].append((35, ua.NodeId("Plant/Spare", 2)))
    assert len(found(plant, "/**")[0]) == 7
    assert plant.count("Browse") < 10


def test_a_node_under_two_parents_is_one_tag_of_a_pattern(plant):
    plant.below[ua.NodeId("Plant/Spare", 2)].append((35, ua.NodeId("Plant/Tank1/Level", 2)))
    (levels,) = found(plant, "/Plant/*/Level")
    assert sorted(node for node, _ in levels) == ["Plant/Spare/Level", *(f"Plant/Tank{i}/Level" for i in (1, 2, 3))]


def test_matches_beyond_what_is_wanted_are_counted(plant):
    (outcome,) = asyncio.run(walk(plant, OBJECTS, [parse("/**/Level")], most=3))
    assert (len(outcome.matches), outcome.beyond, outcome.is_short) == (3, 1, False)


def test_paths_are_told_apart_from_those_where_the_server_refused_to_show_all(plant):
    plant.refused[ua.NodeId("Plant/Tank2", 2)] = 0x801F0000
    paths = [parse(path) for path in ("/Plant/*/Level", "/Plant/Tank1/Level", "/Plant/Tank2/Level", "/Plant/**/Speed")]
    outcomes = asyncio.run(walk(plant, OBJECTS, paths, most=10))
    assert [(len(own.matches), own.is_short) for own in outcomes] == [(3, True), (1, False), (0, True), (2, True)]


def test_a_walk_ends_at_its_bound_and_says_so(plant, monkeypatch):
    monkeypatch.setattr(patterns, "MAX_NODES", 4)
    (outcome,) = asyncio.run(walk(plant, OBJECTS, [parse("/Plant/**")], most=1000))
    assert outcome.is_short
    assert len(outcome.matches) < 7


def test_a_walk_ends_at_its_depth_and_says_so(server, monkeypatch):
    monkeypatch.setattr(patterns, "MAX_LEVELS", 3)
    above = OBJECTS
    for i in range(6):
        above = server.add(f"D{i}", above)
    (outcome,) = asyncio.run(walk(server, OBJECTS, [parse("/**")], most=1000))
    assert (len(outcome.matches), outcome.is_short) == (3, True)


def test_ten_thousand_paths_through_a_hundred_tanks_take_a_few_requests(server):
    for i in range(100):
        tank = server.add(f"Tank{i}", kind=1)
        for k in range(100):
            server.add(f"V{k}", tank)
    paths = [f"/Tank{i}/V{k}" for i in range(100) for k in range(100)]
    assert all(len(matches) == 1 for matches in found(server, *paths))
    assert server.count("Browse") < 10


names = st.text(alphabet="ab*?&.[", min_size=0, max_size=12)


@settings(deadline=None)
@given(st.text(alphabet="ab*?.", min_size=1, max_size=10), st.text(alphabet="ab.*?", max_size=12))
def test_a_pattern_means_what_it_means_to_a_shell(pattern, name):
    assert bool(expression(pattern).fullmatch(name)) is fnmatchcase(name, pattern)


@settings(deadline=None)
@given(names)
def test_any_escaped_name_matches_itself_alone(name):
    escaped = "".join(f"&{character}" if character in "*?&" else character for character in name)
    assert expression(escaped).fullmatch(name)
    assert not expression(escaped).fullmatch(f"{name}x")


def test_a_pattern_of_many_stars_takes_no_longer_for_a_long_name():
    assert not expression("*a" * 30 + "b").fullmatch("a" * 512)
