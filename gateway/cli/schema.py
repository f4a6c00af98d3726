"""`headgate schema`: the JSON Schema (2020-12) of the gateway file, or of mapping files, with every installed driver.

Editors use it: put `# yaml-language-server: $schema=gateway.schema.json` at the head of the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.driver import Driver

SUMMARY = "print the JSON Schema of the gateway file, for editors"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--mapping", action="store_true", help="of mapping files and profiles instead")


def run(args: argparse.Namespace) -> int:
    """Print the schema. Exit code 0."""
    import orjson

    from gateway.driver import find, installed

    drivers = {name: find(name) for name in installed()}
    document = mapping_file(drivers) if args.mapping else gateway_file(drivers)
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    return 0


def gateway_file(drivers: Mapping[str, type[Driver]]) -> dict[str, Any]:
    """The schema of a gateway file, composed with these drivers' keys."""
    from gateway.config import GatewayFile
    from gateway.mapping.schema import NAME, RESERVED_DEVICES, PartEntry, TemplateEntry, TemplateUse, device_model
    from gateway.settings.broker import BrokerSection
    from gateway.settings.spool import SpoolSection
    from gateway.settings.uplinks import UplinkSection

    devices = {name: device_model(name, driver.DeviceOptions) for name, driver in drivers.items()}
    refs, definitions = _definitions(
        {"file": GatewayFile, "spool": SpoolSection, "uplink": UplinkSection, "broker": BrokerSection}
        | {"template": TemplateEntry, "use": TemplateUse, "part": PartEntry}
        | {f"device {name}": model for name, model in devices.items()},
        drivers,
    )
    definitions["Device"] = {
        "type": "object",
        "if": {"required": ["template"]},
        "then": refs["use"],
        "else": {
            "if": {"required": ["part_of"]},
            "then": refs["part"],
            "else": {
                "required": ["driver", "url"],
                "properties": {"driver": {"enum": sorted(drivers)}},
                "allOf": [_when(name, refs[f"device {name}"]) for name in drivers],
            },
        },
    }
    root: dict[str, Any] = definitions.pop("GatewayFile")
    sections = root["properties"]
    names = {"pattern": f"^{NAME}$"}
    sections["gateway"] |= names
    sections["spool"] |= {"anyOf": [refs["spool"], {"type": "null"}]}
    sections["broker"] |= {"anyOf": [refs["broker"], {"type": "null"}]}
    sections["uplinks"] |= {"anyOf": [_named(refs["uplink"], names), {"type": "null"}]}
    sections["templates"] |= {"anyOf": [_named(refs["template"], names), {"type": "null"}]}
    sections["devices"] |= _named({"$ref": "#/$defs/Device"}, names | {"not": {"enum": sorted(RESERVED_DEVICES)}})
    return {"$schema": _DIALECT, **root, "title": "headgate gateway file", "$defs": definitions}


def mapping_file(drivers: Mapping[str, type[Driver]]) -> dict[str, Any]:
    """The schema of a mapping file or profile; it is strict where the file names its driver."""
    from gateway.mapping.schema import mapping_model

    models = {name: mapping_model(name, driver.DeviceOptions) for name, driver in drivers.items()}
    refs, definitions = _definitions({f"mapping {name}": model for name, model in models.items()}, drivers)
    return {
        "$schema": _DIALECT,
        "title": "headgate mapping file",
        "type": "object",
        "required": ["tags"],
        "properties": {
            "driver": {"enum": sorted(drivers), "description": "The driver this mapping is for."},
            "tags": {"type": "object", "description": "The tags by name."},
        },
        "allOf": [_when(name, refs[f"mapping {name}"]) for name in drivers],
        "$defs": definitions,
    }


def _definitions(
    models: Mapping[str, Any], drivers: Mapping[str, type[Driver]]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """References by the keys of `models`, and the definitions they refer to, tags of every driver included."""
    from pydantic.json_schema import GenerateJsonSchema, models_json_schema

    from gateway.mapping.schema import NAME, tag_model

    class Untitled(GenerateJsonSchema):
        """Without the titles that repeat each key."""

        def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
            return False

    tags = {f"tag {name}": tag_model(name, driver.TagOptions) for name, driver in drivers.items()}
    every = {**models, **tags}
    found, document = models_json_schema(
        [(model, "validation") for model in every.values()], ref_template="#/$defs/{model}", schema_generator=Untitled
    )
    refs: dict[str, Any] = {key: found[model, "validation"] for key, model in every.items()}
    definitions: dict[str, Any] = document["$defs"]
    for key, model in models.items():
        kind, _, driver = key.partition(" ")
        if kind in {"device", "mapping"}:
            entry = {"if": {"type": "object"}, "then": refs[f"tag {driver}"], "else": {"type": "string"}}
            level = f"{NAME}(/{NAME})*"
            own = definitions[found[model, "validation"]["$ref"].rpartition("/")[2]]
            own["properties"]["tags"] |= _named(entry, {"pattern": f"^{level}$"})
    return refs, definitions


def _named(entry: Any, names: Any) -> dict[str, Any]:
    """An object whose keys are names and whose values are entries."""
    return {"type": "object", "propertyNames": names, "additionalProperties": entry}


def _when(driver: str, then: Any) -> dict[str, Any]:
    return {"if": {"properties": {"driver": {"const": driver}}, "required": ["driver"]}, "then": then}
