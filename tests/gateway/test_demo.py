import contextlib
import socket

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
