"""Names of tags out of names of nodes, and the symbols of units."""

import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.nodes.naming import RESERVED, Names, joined, level
from drivers.opcua.nodes.units import CEFACT, code_of, symbol_of
from gateway.mapping.schema import NAME_PATTERN, RESERVED_LEVELS


@settings(deadline=None)
@given(st.text(max_size=100) | st.sampled_from(["status", "set", "reply", "", "...", "_x", "a" * 65, "a" * 63 + ".b"]))
def test_any_name_becomes_a_legal_level(name):
    own = level(name)
    assert NAME_PATTERN.fullmatch(own)
    assert own not in RESERVED_LEVELS


@settings(deadline=None)
@given(st.from_regex(NAME_PATTERN, fullmatch=True))
def test_a_legal_name_stays_nearly_as_it_is(name):
    assert name.startswith(level(name).rstrip("_"))


def test_the_reserved_levels_are_those_of_the_file():
    assert RESERVED == RESERVED_LEVELS


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "a_2", "a_3", "x" * 64, "x" * 62 + "_2", "d/a"]), max_size=40))
def test_names_are_all_different_and_legal(wanted):
    names = Names(["b"])
    taken = [names.take(name) for name in wanted]
    assert len({*taken, "b"}) == len(taken) + 1
    assert all(NAME_PATTERN.fullmatch(part) for name in taken for part in name.split("/"))


def test_the_first_keeps_its_name_and_the_others_are_numbered():
    names = Names()
    assert [names.take(joined(["Tank 1", "Level"])) for _ in range(3)] == [
        "Tank_1/Level",
        "Tank_1/Level_2",
        "Tank_1/Level_3",
    ]


def unit(number=0, shown=None, uri=CEFACT):
    return ua.EUInformation(
        NamespaceUri=uri, UnitId=number, DisplayName=None if shown is None else ua.LocalizedText(shown)
    )


@pytest.mark.parametrize(
    ("number", "code"),
    [(4408652, "CEL"), (20529, "P1"), (13384, "4H"), (5067848, "MTH"), (0, ""), (-1, ""), (1 << 40, ""), (0x2E2E, "")],
)
def test_a_unit_id_spells_a_code(number, code):
    assert code_of(number) == code


def test_a_unit_is_what_the_server_shows_else_the_symbol_of_its_code():
    assert symbol_of(unit(4408652, " deg C ")) == "deg C"
    assert symbol_of(unit(4408652, "x" * 65)) == symbol_of(unit(4408652, "")) == symbol_of(unit(4408652)) == "°C"
    assert symbol_of(unit(int.from_bytes(b"MQH"), "")) == "m³/h"
    assert symbol_of(unit(4408652, "", "urn:own")) == ""
    assert symbol_of(unit(int.from_bytes(b"ZZZ"), "")) == ""
    assert symbol_of(unit()) == ""
    assert symbol_of(unit(1, "x" * 65)) == ""
    assert symbol_of(unit(1, "a\nb")) == ""
