"""`headgate schema`: complete, documented, and true to what `check` takes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import orjson
import pytest
import yaml

from gateway.cli import schema
from gateway.driver import find
from gateway.mapping.document import Places, read_yaml
from gateway.mapping.mistakes import Mistakes

EXAMPLES = Path(__file__).parents[3] / "mappings" / "examples"
DRIVERS = {name: find(name) for name in ("modbus", "opcua")}


@pytest.fixture(scope="module")
def gateway_file():
    return schema.gateway_file(DRIVERS)


def sections(document):
    """Every sub-schema that has properties, with its path."""
    stack = [("", document)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, dict):
            if "properties" in node and "const" not in str(node["properties"])[:60]:
                yield path, node
            stack += [(f"{path}/{key}", child) for key, child in node.items()]
        elif isinstance(node, list):
            stack += [(f"{path}/{i}", child) for i, child in enumerate(node)]


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": is_number,
    "integer": lambda v: is_number(v) and v == int(v),
}

KEYWORDS = {
    "$ref": lambda node, v, root: matches(root["$defs"][node["$ref"].rpartition("/")[2]], v, root),
    "type": lambda node, v, _: any(
        TYPES[kind](v) for kind in (node["type"] if isinstance(node["type"], list) else [node["type"]])
    ),
    "enum": lambda node, v, _: v in node["enum"],
    "const": lambda node, v, _: v == node["const"],
    "pattern": lambda node, v, _: not isinstance(v, str) or re.search(node["pattern"], v),
    "minimum": lambda node, v, _: not is_number(v) or v >= node["minimum"],
    "maximum": lambda node, v, _: not is_number(v) or v <= node["maximum"],
    "exclusiveMinimum": lambda node, v, _: not is_number(v) or v > node["exclusiveMinimum"],
    "items": lambda node, v, root: not isinstance(v, list) or all(matches(node["items"], i, root) for i in v),
    "required": lambda node, v, _: not isinstance(v, dict) or set(node["required"]) <= set(v),
    "minProperties": lambda node, v, _: not isinstance(v, dict) or len(v) >= node["minProperties"],
    "propertyNames": lambda node, v, root: (
        not isinstance(v, dict) or all(matches(node["propertyNames"], key, root) for key in v)
    ),
    "properties": lambda node, v, root: (
        not isinstance(v, dict)
        or all(matches(node["properties"][key], child, root) for key, child in v.items() if key in node["properties"])
    ),
    "additionalProperties": lambda node, v, root: (
        not isinstance(v, dict)
        or all(
            node["additionalProperties"] is True
            or (node["additionalProperties"] and matches(node["additionalProperties"], child, root))
            for key, child in v.items()
            if key not in node.get("properties", {})
        )
    ),
    "not": lambda node, v, root: not matches(node["not"], v, root),
    "anyOf": lambda node, v, root: any(matches(branch, v, root) for branch in node["anyOf"]),
    "allOf": lambda node, v, root: all(matches(branch, v, root) for branch in node["allOf"]),
    "if": lambda node, v, root: matches(node.get("then" if matches(node["if"], v, root) else "else", {}), v, root),
}


def matches(node, value, root):
    """Whether a value fits a schema: as much of JSON Schema 2020-12 as ours uses, written anew here."""
    return all(check(node, value, root) for keyword, check in KEYWORDS.items() if keyword in node)


def parsed(text, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    return read_yaml(path, places=Places(), mistakes=Mistakes(), text_keys=frozenset())


@pytest.mark.parametrize("make", [schema.gateway_file, schema.mapping_file])
def test_every_property_has_a_sentence(make):
    document = make(DRIVERS)
    lacking = [
        f"{path}.{key}"
        for path, node in sections(document)
        for key, child in node["properties"].items()
        if len(child.get("description", "")) < 15 and not path.endswith("/else")
    ]
    assert not lacking
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_descriptions_end_as_sentences_do(gateway_file):
    wrong = [
        (key, child["description"])
        for path, node in sections(gateway_file)
        for key, child in node["properties"].items()
        if "description" in child and not child["description"].endswith(".")
    ]
    assert not wrong


def test_every_reference_leads_somewhere(gateway_file):
    text = orjson.dumps(gateway_file).decode()
    for name in set(re.findall(r'"\$ref":"#/\$defs/([^"]+)"', text)):
        assert name in gateway_file["$defs"]


def test_the_keys_of_every_driver_are_in_it(gateway_file):
    text = orjson.dumps(gateway_file).decode()
    for model in [model for driver in DRIVERS.values() for model in (driver.DeviceOptions, driver.TagOptions)]:
        for name in model.model_fields:
            assert f'"{name}":' in text


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_fits(gateway_file, path):
    assert matches(gateway_file, yaml.safe_load(path.read_text()), gateway_file)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("{}", True),
        ("spool: {max_bytes: 1GiB, commit_interval: 100ms}", True),
        ("spool:", True),
        ("spool: {max_bytes: lots}", False),
        ("spol: {}", False),
        ("uplinks: {u: {url: mqtt://h, version: 5, tls: {verify: 'off'}}}", True),
        ("uplinks: {u: {url: [mqtt://h], password: '${env:A}'}}", True),
        ("uplinks: {u: {url: mqtt://h, password: geheim}}", False),
        ("uplinks: {u: {qos: 1}}", False),
        ("uplinks: {'u u': {url: mqtt://h}}", False),
        ("templates: {t: {parameters: {a: , b: {default: 1}}, device: {x: '${a}'}}}", True),
        ("templates: {t: {}}", False),
    ],
)
def test_sections_fit_or_not_as_check_would_say(gateway_file, tmp_path, text, fits):
    data = parsed(text, tmp_path) or {}
    data |= {"gateway": "g", "devices": {"d": {"driver": "modbus", "url": "tcp://h", "tags": {"a": "coil:1"}}}}
    assert matches(gateway_file, data, gateway_file) is fits


@pytest.mark.parametrize(
    ("device", "fits"),
    [
        ("{driver: modbus, url: x, tags: {a: {address: 40001, scale: 0.1, deadband: 1%, length: 3}}}", True),
        ("{driver: modbus, url: x, tags: {a/b: coil:1}}", True),
        ("{driver: modbus, url: x, unit: 1, every: 5s, on: change, mapping: a.csv}", True),
        ("{template: t, with: {a: 1}, every: 5s}", True),
        ("{template: t, instances: a.csv}", True),
        ("{part_of: d, every: 5s, tags: {a: coil:1}}", True),
        ("{part_of: d, url: x, tags: {a: coil:1}}", False),
        ("{driver: modbus, tags: {a: coil:1}}", False),
        ("{driver: profinet, url: x}", False),
        ("{driver: modbus, url: x, unti: 1}", False),
        ("{driver: modbus, url: x, unit: 999}", False),
        ("{driver: modbus, url: x, every: 5}", False),
        ("{driver: modbus, url: x, tags: {a: {adress: coil:1}}}", False),
        ("{driver: modbus, url: x, tags: {a: {address: coil:1, write: true}}}", True),
        ("{driver: modbus, url: x, tags: {a: {address: 40001, write: {min: 0, values: [1, on], every: 5s}}}}", True),
        ("{driver: modbus, url: x, tags: {a: {address: coil:1, write: maybe}}}", False),
        ("{driver: modbus, url: x, tags: {a: {address: coil:1, write: {minimum: 0}}}}", False),
        ("{driver: modbus, url: x, tags: {'a b': coil:1}}", False),
        ("{driver: modbus, url: x, tags: {a: 5}}", False),
    ],
)
def test_devices_fit_or_not_as_check_would_say(gateway_file, tmp_path, device, fits):
    data = parsed(f"gateway: g\ndevices: {{d: {device}}}\n", tmp_path)
    assert matches(gateway_file, data, gateway_file) is fits


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("driver: modbus\nunit: 3\nevery: 5s\ntags: {a: {address: coil:1}}", True),
        ("description: x\ntags: {a: coil:1}", True),
        ("driver: modbus\nurl: x\ntags: {a: coil:1}", False),
        ("driver: modbus\ntags: {a: {adress: coil:1}}", False),
        ("driver: modbus", False),
    ],
)
def test_mapping_files_have_a_schema_of_their_own(tmp_path, text, fits):
    document = schema.mapping_file(DRIVERS)
    assert matches(document, parsed(text, tmp_path), document) is fits


def test_the_command_prints_it(capsys):
    parser = argparse.ArgumentParser()
    schema.configure(parser)
    assert schema.run(parser.parse_args([])) == 0
    assert orjson.loads(capsys.readouterr().out)["title"] == "headgate gateway file"
    assert schema.run(parser.parse_args(["--mapping"])) == 0
    assert orjson.loads(capsys.readouterr().out)["title"] == "headgate mapping file"


def test_a_validator_of_others_agrees(gateway_file):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(gateway_file)
    validator = jsonschema.Draft202012Validator(gateway_file)
    for path in EXAMPLES.glob("*.yaml"):
        validator.validate(yaml.safe_load(path.read_text()))
