import contextlib
import socket

import pytest

from gateway.demo import document, listener, table
from gateway.image import Sample
from gateway.model import GOOD, DeviceState, bad


def test_the_table_shows_value_unit_quality_and_age():
    samples = [
        Sample("boiler", "flow", 12.345678, GOOD, 1000, "m3/h"),
        Sample("boiler", "pump", True, GOOD, 1000, ""),
        Sample("meter", "power", None, bad("timeout"), 500, "W"),
        Sample("meter", "name", "A1", bad("startup"), 0, ""),
    ]
    states = {"meter": DeviceState("meter", False, "timeout", 0)}
    rows = [line.split() for line in table(samples, states, 2500).splitlines()]
    assert rows == [
        ["DEVICE", "TAG", "VALUE", "UNIT", "QUALITY", "AGE"],
        ["boiler", "flow", "12.34568", "m3/h", "good", "1.5", "s"],
        ["pump", "on", "good", "1.5", "s"],
        ["meter", "(offline)", "power", "-", "W", "bad:timeout", "2.0", "s"],
        ["name", "A1", "bad:startup", "-"],
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\x00\xff", "00ff"),
        ({"name": "r1", "steps": [1.5, True], "raw": b"\x01"}, '{"name":"r1","steps":[1.5,true],"raw":"01"}'),
        ([1, 2], "[1,2]"),
        ("a\x1b[2J", "a\\x1b[2J"),
    ],
)
def test_the_table_shows_lists_structures_and_bytes_as_they_are_published_and_no_escape_sequences(value, shown):
    row = table([Sample("a", "b", value, GOOD, 0, "")], {}, 0).splitlines()[1]
    assert row.split("  ")[0] == "a"
    assert f" {shown} " in row


def test_the_demo_has_a_broker_of_its_own_and_another_on_request():
    file = document({"a": {}}, "mqtt://127.0.0.1:0", None)
    assert file["broker"]["listen"] == "mqtt://127.0.0.1:0"
    assert "uplinks" not in file
    assert document({}, "x", "mqtt://h")["uplinks"] == {"broker": {"url": "mqtt://h"}}


def test_a_port_that_is_taken_is_left_to_whoever_has_it():
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # somebody has it: just as well
            other.bind(("127.0.0.1", 1883))
        assert listener() == "mqtt://127.0.0.1:0"
