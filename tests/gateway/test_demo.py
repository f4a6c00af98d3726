from gateway.demo import document, table
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


def test_without_an_uplink_the_demo_publishes_nothing():
    assert document({"a": {}}, None) == {"gateway": "demo", "devices": {"a": {}}}
    assert document({}, "mqtt://h")["uplinks"] == {"broker": {"url": "mqtt://h"}}
