"""Which profiles fit a device that was found."""

import asyncio

import pytest

from gateway.driver import Finding, Model
from gateway.mapping.identify import Sign, fits, signs
from gateway.mapping.schema import IdentifyEntry

METER = Finding(1, "values", {"vendor": "Waterworks", "product": "WW-7"}, (Model(203, "", "holding:2", 105),))


def entry(**fields):
    return IdentifyEntry.model_validate({"source": "the test", **fields})


def fit(value=None, **fields):
    asked = []

    async def look(address, kind, length):
        asked.append((address, kind, length))
        return value

    found = asyncio.run(fits(Sign("w/w", "modbus", entry(**fields)), METER, look))
    return found, asked


@pytest.mark.parametrize(
    ("fields", "value", "expected"),
    [
        ({}, None, False),
        ({"texts": {"vendor": "Waterworks"}}, None, True),
        ({"texts": {"vendor": "Water"}}, None, False),
        ({"texts": {"vendor": "Water.*", "product": "WW-[0-9]"}}, None, True),
        ({"texts": {"vendor": "Water.*", "model": ".+"}}, None, False),
        ({"texts": {"vendor": "(("}}, None, False),
        ({"models": [201, 203]}, None, True),
        ({"models": [201]}, None, False),
        ({"address": "holding:11", "type": "uint16", "values": [1648, 1650]}, 1648, True),
        ({"address": "holding:11", "type": "uint16", "values": [1648]}, 7, False),
        ({"address": "holding:11", "type": "uint16", "values": [1648]}, None, False),
        ({"address": "holding:11", "type": "string", "length": 8, "values": ["WW-.*"]}, "WW-7", True),
        ({"address": "holding:11", "type": "string", "length": 8, "values": ["XX.*"]}, "WW-7", False),
    ],
)
def test_every_sign_of_a_profile_must_hold(fields, value, expected):
    assert fit(value, **fields)[0] is expected


def test_the_device_is_only_asked_where_nothing_else_speaks_against_it():
    assert fit(1, texts={"vendor": "Other"}, address="holding:1", values=[1])[1] == []
    assert fit(1, texts={"vendor": "Water.*"}, address="holding:1", type="uint16", values=[1])[1] == [
        ("holding:1", "uint16", None)
    ]


def test_signs_come_from_the_library_and_what_has_none_or_is_damaged_is_left_out(tmp_path):
    folder = tmp_path / "maker"
    folder.mkdir()
    (folder / "good.yaml").write_text("driver: modbus\nidentify: {source: s, models: [1]}\ntags: {x: holding:1}\n")
    (folder / "none.yaml").write_text("tags: {x: holding:1}\n")
    (folder / "wrong.yaml").write_text("identify: {models: nonsense}\ntags: {}\n")
    (folder / "torn.yaml").write_text("identify: [\n")
    assert [(sign.profile, sign.driver) for sign in signs(tmp_path)] == [("maker/good", "modbus")]


def test_the_library_itself_has_signs():
    assert any(sign.profile.startswith("sunspec/") for sign in signs())
