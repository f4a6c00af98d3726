"""The driver's keys: each has a sentence that its README shows, and the sample has one of each sort."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

import drivers.opcua
from drivers.opcua.options import DeviceOptions, Policy, TagOptions
from gateway.config import load
from gateway.errors import FileError

FOLDER = Path(drivers.opcua.__file__).parent
README = (FOLDER / "README.md").read_text()
SAMPLE = (FOLDER / "sample.yaml").read_text()


@pytest.fixture(autouse=True)
def _password(monkeypatch):
    monkeypatch.setenv("PLC_PASSWORD", "secret")


@pytest.mark.parametrize("model", [DeviceOptions, TagOptions])
def test_every_key_has_a_sentence_and_the_readme_shows_it_with_its_default(model):
    for name, entry in model.model_json_schema()["properties"].items():
        sentence = entry["description"]
        assert re.fullmatch(r"[A-Z].+\.", sentence), name
        default = entry.get("default")
        shown = "" if default is None else f"`{default}`"
        assert f"| `{name}` | {shown} | {sentence} |\n" in README


def test_defaults_of_durations_are_written_as_the_file_writes_them():
    for name, entry in DeviceOptions.model_json_schema()["properties"].items():
        if "pattern" in entry and "default" in entry:
            assert getattr(DeviceOptions(**{name: entry["default"]}), name) == getattr(DeviceOptions(), name)


def test_the_readme_names_every_metric_and_no_other():
    code = "".join(path.read_text() for path in FOLDER.rglob("*.py"))
    counted = set(re.findall(r'metrics\.(?:counter|gauge)\(\s*"(opcua_\w+)"', code))
    assert set(re.findall(r"`(opcua_\w+)", README)) == counted


def test_the_readme_shows_the_very_sample():
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert shown == SAMPLE


def test_the_sample_is_right_in_every_key_and_address():
    config = load(FOLDER / "sample.yaml")
    assert [device.name for device in config.devices] == ["plc", "press"]
    for device in config.devices:
        names = {name for group in config.groups[device.name] for name in group.names}
        assert names == {tag.name for tag in device.tags}
    pushed = {device: {group.is_pushed for group in groups} for device, groups in config.groups.items()}
    assert pushed == {"plc": {True}, "press": {False}}


def test_the_sample_has_a_tag_of_each_sort():
    tags = [tag for device in load(FOLDER / "sample.yaml").devices for tag in device.tags]
    usual = TagOptions().model_dump()
    said = {key for tag in tags for key in usual if tag.options[key] != usual[key]}
    assert said >= {"sampling", "queue", "range_deadband", "enum", "index_range"}


def test_files_of_the_user_lie_beside_the_gateway_file(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(SAMPLE.replace("security: none", "security: none\n    pki: keys"))
    plc, press = load(path).devices
    assert plc.options.pki == tmp_path / "headgate-data/pki"
    assert press.options.pki == tmp_path / "keys"


@pytest.mark.parametrize(
    "said",
    [
        {"user_certificate": "a.pem"},
        {"user_key": "a.key"},
        {"username": "a", "user_certificate": "a.pem", "user_key": "a.key"},
        {"security": "Basic512"},
        {"timeout": "1ms"},
        {"watchdog": "5"},
        {"publish_requests": 0},
    ],
)
def test_a_device_that_contradicts_itself_is_refused(said):
    with pytest.raises(ValidationError):
        DeviceOptions(**said)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (('"ns=2;i=5001"', '"ns=2;i=x"'), "pulses"),
        (('"/Line1/*/Motor/Speed", unit: rpm', '"/Line1/*/Motor/Speed", write: true'), "wildcards"),
        (("opc.tcp://192.168.7.2", "tcp://192.168.7.2"), r"opc\.tcp"),
        (("opc.tcp://192.168.7.2", "opc.tcp://me:word@192.168.7.2"), "username"),
        (("mode: poll", 'root: "/Objects"'), "root"),
        (("type: float32, unit: kN", "order: CDAB"), "order"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_cure(tmp_path, change, text):
    path = tmp_path / "gateway.yaml"
    assert change[0] in SAMPLE
    path.write_text(SAMPLE.replace(*change))
    with pytest.raises(FileError, match=text) as caught:
        load(path)
    assert f"{path}:" in str(caught.value)


def test_devices_of_one_server_must_agree_on_the_connection(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(SAMPLE.replace("opc.tcp://192.168.7.2", "opc.tcp://10.0.0.9:4840"))
    with pytest.raises(FileError, match=r"opc\.tcp://10\.0\.0\.9:4840"):
        load(path)


def test_every_policy_of_the_library_can_be_named():
    from asyncua.crypto import security_policies

    known = {kind.URI.rpartition("#")[2].lower() for kind in security_policies.SecurityPolicy.__subclasses__()}
    assert len(known) >= 6
    assert {policy.lower() for policy in get_args(Policy)} - {"auto"} == known


def test_a_file_is_checked_without_the_protocol_library():
    code = (
        "import sys; from pathlib import Path; from gateway.config import load;"
        f"load(Path({str(FOLDER / 'sample.yaml')!r})); assert 'asyncua' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
