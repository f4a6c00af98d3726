"""The driver's own keys of the file, and that README and sample say the same."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

import drivers.modbus
from drivers.modbus.options import DeviceOptions, TagOptions
from drivers.modbus.values.address import parse
from gateway.config import load

FOLDER = Path(drivers.modbus.__file__).parent
README = (FOLDER / "README.md").read_text()
SAMPLE = (FOLDER / "sample.yaml").read_text()

TAG_DEFAULTS = TagOptions().model_dump()


def test_the_defaults_suit_a_device_nothing_is_known_of():
    assert DeviceOptions().model_dump() == {
        "unit": 1,
        "timeout": 1.0,
        "request_gap": 0.0,
        "connect_delay": 0.0,
        "linger": None,
        "backup": None,
        "match": "id",
        "max_late": None,
        "retries": 2,
        "max_in_flight": 1,
        "max_registers": 125,
        "max_bits": 2000,
        "max_gap": None,
        "setup": (),
        "bit_write": "masked",
    }


@pytest.mark.parametrize(
    ("text", "seconds"), [("100ms", 0.1), ("1s", 1.0), ("1.5s", 1.5), ("0.5m", 30.0), ("1m", 60.0)]
)
def test_a_duration_is_a_number_and_its_unit(text, seconds):
    assert DeviceOptions(timeout=text).timeout == pytest.approx(seconds)


@pytest.mark.parametrize("value", [1, 1.5, True, None, "", "1", "s", "1 s", "-1s", "1h30m", "1e3s", ".5s", "1S"])
def test_a_duration_without_a_unit_or_of_another_form_is_refused_with_the_cure(value):
    with pytest.raises(
        ValidationError,
        match=r"(no duration\. Write a number and its unit,|no value\. Write a duration) such as 100ms, 1s",
    ):
        DeviceOptions(timeout=value)


@pytest.mark.parametrize(
    "keys",
    [
        {"unit": -1},
        {"unit": 256},
        {"timeout": "0s"},
        {"timeout": "61s"},
        {"request_gap": "11s"},
        {"connect_delay": "1h"},
        {"linger": "61m"},
        {"linger": 5},
        {"match": "address"},
        {"max_in_flight": 0},
        {"max_in_flight": 17},
        {"max_registers": 0},
        {"max_registers": 126},
        {"max_bits": 2001},
        {"max_gap": -1},
        {"slave": 1},
    ],
)
def test_what_cannot_be_is_refused(keys):
    with pytest.raises(ValidationError):
        DeviceOptions(**keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"length": 0},
        {"length": 251},
        {"encoding": "ebcdic"},
        {"layout": "middle"},
        {"padding": "x"},
        {"count": 0},
        {"enum": {"a": "b"}},
        {"enum": {0: "off", 1: "off"}},
        {"enum": ["off", "on"]},
        {"sentinel": 4},
        {"sentinel": [-1]},
        {"sentinel": [1 << 64]},
        {"sentinel": ["0x8000"]},
        {"sentinel": [True]},
        {"sentinel": "none"},
        {"time": "us"},
        {"year_from": -1},
        {"write_function": 6},
        {"size": 4},
    ],
    ids=str,
)
def test_what_a_tag_cannot_say_is_refused(keys):
    with pytest.raises(ValidationError):
        TagOptions(**keys)


def test_an_enum_is_written_with_the_numbers_that_manuals_have():
    assert TagOptions(enum={"0": "off", "0x10": "on", "-1": "never"}).enum == {0: "off", 16: "on", -1: "never"}


def test_a_sentinel_is_auto_or_what_registers_hold():
    assert TagOptions(sentinel="auto").sentinel == "auto"
    assert TagOptions(sentinel=[0x8000, 0xFFFF]).sentinel == [0x8000, 0xFFFF]


@pytest.mark.parametrize("entry", [{"address": "coil:1"}, {"value": 1}, {"address": "coil:1", "value": None}, "coil:1"])
def test_a_setup_write_needs_an_address_and_a_value(entry):
    with pytest.raises(ValidationError):
        DeviceOptions(setup=[entry])


def test_options_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        DeviceOptions().unit = 2


@pytest.mark.parametrize("model", [DeviceOptions, TagOptions])
def test_every_key_has_a_sentence_and_the_readme_shows_it_with_its_default(model):
    for name, entry in model.model_json_schema()["properties"].items():
        sentence = entry["description"]
        assert re.fullmatch(r"[A-Z].+\.", sentence), name
        default = entry.get("default")
        shown = "" if default is None else f"`{default}`"
        assert f"| `{name}` | {shown} | {sentence} |\n" in README


def test_defaults_of_durations_are_written_as_the_file_writes_them():
    properties = DeviceOptions.model_json_schema()["properties"]
    for name in ("timeout", "request_gap", "connect_delay"):
        entry = properties[name]
        assert entry["type"] == "string"
        assert re.match(entry["pattern"], entry["default"])
        assert getattr(DeviceOptions(**{name: entry["default"]}), name) == getattr(DeviceOptions(), name)


def test_the_readme_shows_the_very_sample():
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert shown == SAMPLE


def test_the_sample_is_right_in_every_key_and_address():
    config = load(FOLDER / "sample.yaml")
    assert [device.name for device in config.devices] == ["boiler", "inverter", "slow_meter"]
    for device in config.devices:
        names = {name for group in config.groups[device.name] for name in group.names}
        assert names == {tag.name for tag in device.tags}


def test_the_sample_has_a_tag_of_each_table_and_of_each_sort():
    tags = [tag for device in load(FOLDER / "sample.yaml").devices for tag in device.tags]
    tables = {parse(tag.address).table.name for tag in tags}
    assert tables >= {"holding", "input", "coil", "discrete", "identity"}
    said = {key for tag in tags for key in TagOptions.model_fields if tag.options[key] != TAG_DEFAULTS[key]}
    assert said >= {"length", "count", "enum", "sentinel", "time", "scale_register", "write_address"}
