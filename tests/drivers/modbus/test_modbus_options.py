"""The driver's own keys of the file, and that README and sample say the same."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import drivers.modbus
from drivers.modbus.driver import Driver
from drivers.modbus.options import DeviceOptions, TagOptions
from gateway.model import Device, Tag

FOLDER = Path(drivers.modbus.__file__).parent
README = (FOLDER / "README.md").read_text()
SAMPLE = (FOLDER / "sample.yaml").read_text()

OF_EVERY_DEVICE = {"driver", "url", "every", "tags"}
OF_EVERY_TAG = {"address", "type", "order", "scale", "unit", "deadband", "every"}


def test_the_defaults_suit_a_device_nothing_is_known_of():
    assert DeviceOptions().model_dump() == {
        "unit": 1,
        "timeout": 1.0,
        "request_gap": 0.0,
        "connect_delay": 0.0,
        "max_in_flight": 1,
        "max_registers": 125,
        "max_bits": 2000,
        "max_gap": None,
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


@pytest.mark.parametrize("keys", [{"length": 0}, {"length": 251}, {"encoding": "ebcdic"}, {"size": 4}])
def test_what_a_tag_cannot_say_is_refused(keys):
    with pytest.raises(ValidationError):
        TagOptions(**keys)


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
    for name, entry in yaml.safe_load(SAMPLE)["devices"].items():
        own = {key: value for key, value in entry.items() if key not in OF_EVERY_DEVICE}
        device = Device(name=name, driver="modbus", url=entry["url"], options=DeviceOptions(**own))
        Driver.line_key(device.url, device.options)
        tags = []
        for tag, keys in entry["tags"].items():
            options = {key: value for key, value in keys.items() if key not in OF_EVERY_TAG}
            TagOptions(**options)
            about = {key: keys.get(key, "") for key in ("address", "type", "order")}
            tags.append(Tag(name=tag, options=options, **about))
        groups = Driver.compile(device, tags)
        assert {n for g in groups for n in g.names} == set(entry["tags"])


def test_the_sample_has_a_tag_of_each_table():
    addresses = [t["address"] for d in yaml.safe_load(SAMPLE)["devices"].values() for t in d["tags"].values()]
    assert {a.partition(":")[0] for a in addresses if ":" in a} == {"holding", "input", "coil", "discrete"}
