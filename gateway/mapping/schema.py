"""Pydantic models of what the user writes below `devices`, `templates` and in mapping files, and their JSON Schema.

Every field carries a full sentence: `headgate schema` and the error messages show it. Keys that only a driver knows
come from its `DeviceOptions` and `TagOptions`, composed here.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    create_model,
)

from gateway.mapping.mistakes import keys_of, show
from gateway.model import Deadband, RecordClass, WriteRules
from gateway.quantities import DurationRange, format_duration

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
NAME_PATTERN = re.compile(NAME)
RESERVED_DEVICES = frozenset({"status", "log", "request", "response"})
RESERVED_LEVELS = frozenset({"status", "set", "reply"})
TEXT_KEYS = frozenset({
    "address", "client_id", "driver", "gateway", "order", "password", "prefix", "server_name", "topic", "type", "url",
    "username", "version",
})  # fmt: skip
"""Keys whose value is text whatever it looks like."""

_M = TypeVar("_M", bound=BaseModel)

Every = Annotated[float, DurationRange("10ms", "1d")]
Silence = Annotated[float, DurationRange("100ms", "7d")]
On = Literal["change", "always"]


class Section(BaseModel):
    """What all models of the file share. `later`: keys of the plan whose part is not built yet."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)
    later: ClassVar[frozenset[str]] = frozenset()


def _number_to_text(value: Any) -> Any:
    return str(value) if type(value) in {int, float} else value


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise ValueError("expected text, a number, true or false. A parameter holds no keys and no lists")  # noqa: TRY004 - pydantic wants ValueError
    return value


def parse_deadband(value: Any) -> Deadband | None:
    """A deadband as the file writes it: `0.1` in engineering units, or `1%`. Raises ValueError with the cure."""
    return None if value is None else _deadband(str(value).strip(), isinstance(value, bool))


@lru_cache(maxsize=256)
def _deadband(text: str, is_bool: bool) -> Deadband:  # noqa: FBT001 - a key of the cache: True is not "True"
    percent = text.endswith("%")
    try:
        width = float(text.removesuffix("%"))
    except ValueError:
        width = -1.0
    if is_bool or not 0 < width < float("inf"):
        raise ValueError(
            f"'{text[:40]}' is no deadband. Write a number above 0 in the tag's unit (0.1), or percent (1%)"
        )
    return Deadband(width, percent)


def format_deadband(deadband: Deadband | None) -> str | None:
    """What `parse_deadband` reads."""
    return None if deadband is None else f"{deadband.width!r}{'%' if deadband.percent else ''}"


def _writable(value: Any) -> Any:
    if isinstance(value, dict | list) or value is None:
        raise ValueError(f"expected text, a number, true or false, got {show(value)}")
    return value


class WriteEntry(Section):
    """What may be written to a tag over MQTT, in engineering values."""

    min: float | None = Field(None, description="The least value that may be written; the tag's own min holds too.")
    max: float | None = Field(None, description="The greatest value that may be written; the tag's own max holds too.")
    values: list[
        Annotated[Any, BeforeValidator(_writable), WithJsonSchema({"type": ["boolean", "number", "string"]})]
    ] = Field(
        default_factory=list,
        min_length=1,
        description="The only values that may be written; without them any within the limits.",
    )
    every_s: Annotated[float, DurationRange("0s", "1d")] = Field(
        0.0,
        alias="every",
        description="The least time between two writes; one that comes sooner is refused.",
    )
    expires_s: Annotated[float, DurationRange("100ms", "1d")] | None = Field(
        None,
        alias="expires",
        description="How old a command may be that says when it was made.",
    )
    read_back: bool = Field(True, description="Whether the tag is read after the write, and the reply holds its value.")


def write_rules(entry: WriteEntry | None) -> WriteRules | None:
    """The rules that the key `write` of a tag means; None: it may not be written."""
    return None if entry is None else WriteRules(**{**entry.model_dump(), "values": tuple(entry.values)})


def format_write(rules: WriteRules | None) -> str:
    """The cell of a CSV list that reads back as these rules: `true`, JSON where they say something, or nothing."""
    if rules is None:
        return ""
    given = {
        "min": rules.min,
        "max": rules.max,
        "values": list(rules.values) or None,
        "every": format_duration(rules.every_s) if rules.every_s else None,
        "expires": None if rules.expires_s is None else format_duration(rules.expires_s),
        "read_back": None if rules.read_back else False,
    }
    said = {key: value for key, value in given.items() if value is not None}
    return orjson.dumps(said).decode() if said else "true"


def _claim_or_rules(value: Any) -> Any:
    """`true` is rules with nothing in them, `false` is none."""
    if isinstance(value, bool):
        return {} if value else None
    if value is None or not isinstance(value, dict | WriteEntry):
        got = "has no value" if value is None else f"expected true or false, got {show(value)}"
        no = isinstance(value, str) and value.lower() in {"no", "off"}
        raise ValueError(f"{got}. Write {'false' if no else 'true, or rules such as {min: 0, max: 100}'}")
    return value


class TagEntry(Section):
    """One tag, with the keys that every driver's tags have."""

    address: Annotated[str, BeforeValidator(_number_to_text, json_schema_input_type=str | int)] = Field(
        description="Where the tag lives in the device, in the words of its driver: holding:100 for Modbus."
    )
    type: str = Field(
        "", description="How the value is encoded in the device, float32 for example; the driver has a default."
    )
    order: str = Field("", description="Byte and word order of values of several registers: ABCD, CDAB, BADC or DCBA.")
    scale: float = Field(1.0, description="The raw value is multiplied by this number; default 1.")
    offset: float = Field(0.0, description="This number is added after scaling; default 0.")
    unit: Annotated[str, BeforeValidator(_number_to_text, json_schema_input_type=str)] = Field(
        "", max_length=64, description="Engineering unit of the value after scaling, m3/h for example."
    )
    quantity: str = Field(
        "", max_length=64, description="What is measured, in the words of Home Assistant: voltage, energy, temperature."
    )
    source: str | None = Field(
        None, max_length=400, description="Where the facts of this tag stand, said to people: document and page."
    )
    deadband: Annotated[
        Deadband | None,
        PlainValidator(parse_deadband),
        PlainSerializer(format_deadband, when_used="json"),
        WithJsonSchema(
            {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^[0-9.]+\s*%?$"}]}
        ),
    ] = Field(
        None,
        description="The least change that is sent, in engineering units (0.1) or percent of the last sent value (1%).",
    )
    max_silence_s: Silence | None = Field(
        None,
        alias="max_silence",
        description="A tag that is sent on change is sent at least this often (5m for example).",
    )
    on: On | None = Field(
        None,
        description="When a sample is sent: always (after each poll, the default) or on change; deadband means change.",
    )
    every_s: Every | None = Field(
        None, alias="every", description="How often the tag is polled; default: as its device says."
    )
    record_class: RecordClass | None = Field(
        None,
        alias="class",
        description="How much its samples matter: alarm, event, data (the default) or diag; a queue each.",
    )
    write: Annotated[WriteEntry | None, BeforeValidator(_claim_or_rules, json_schema_input_type=bool | WriteEntry)] = (
        Field(None, description="Whether the tag may be written over MQTT: true, or rules that say what and how often.")
    )
    min: float | None = Field(None, description="Values below this limit get the quality range.")
    max: float | None = Field(None, description="Values above this limit get the quality range.")
    decimals: int | None = Field(None, ge=0, le=15, description="How many digits after the point are sent.")


class DeviceDefaults(Section):
    """Keys of a device that a mapping file may set for all devices that use it; the device's own word wins."""

    every_s: Every = Field(
        1.0, alias="every", description="How often tags are polled that do not say it themselves; default 1s."
    )
    on: On | None = Field(
        None, description="When samples are sent of tags that do not say it themselves: change or always (the default)."
    )
    max_silence_s: Silence | None = Field(
        None,
        alias="max_silence",
        description="The longest silence of tags that are sent on change and do not say it themselves.",
    )
    record_class: RecordClass | None = Field(
        None, alias="class", description="The class of tags that do not say it themselves; default data."
    )


class DeviceEntry(DeviceDefaults):
    """One device, with the keys that every driver's devices have. Tags: here, in a mapping file, or in a profile."""

    driver: str = Field(description="The protocol the device speaks: the name of an installed driver.")
    url: str = Field(
        description="How the device is reached, tcp://10.0.0.5:502 for example; devices with one url share one line."
    )
    mapping: str | None = Field(
        None,
        description="A YAML or CSV file that holds the tags, relative to this file; tags written here are added to it.",
    )
    profile: str | None = Field(
        None, description="A mapping of the library by vendor/model, eastron/sdm630 for example, that holds the tags."
    )
    fields: dict[str, Annotated[str, BeforeValidator(_number_to_text, json_schema_input_type=str)]] = Field(
        default_factory=dict, description="Texts that topic templates may use, as {name}: site or line for example."
    )
    tags: dict[str, Any] = Field(
        default_factory=dict, description="The device's tags by name; in short form the value is the address alone."
    )


class PartEntry(DeviceDefaults):
    """A part of a device that is a device to everybody else; its tags are read together with those of the whole."""

    part_of: str = Field(description="The device that holds this part; what says how it is reached stands there.")
    mapping: str | None = Field(
        None, description="A YAML or CSV file that holds the tags, relative to this file; tags here are added to it."
    )
    fields: dict[str, Annotated[str, BeforeValidator(_number_to_text, json_schema_input_type=str)]] = Field(
        default_factory=dict, description="Texts that topic templates may use, as {name}: site or line for example."
    )
    tags: dict[str, Any] = Field(
        default_factory=dict, description="The part's tags by name; in short form the value is the address alone."
    )


class IdentifyEntry(Section):
    """What devices of a profile say of themselves; each key that is there must hold."""

    source: str = Field(description="Where that stands, as with a tag.")
    texts: dict[str, str] = Field(
        default_factory=dict,
        description="Regular expressions for the whole of its identity's texts by name: vendor, product, model.",
    )
    models: list[int] = Field(
        default_factory=list, description="Numbers of standard models of registers (SunSpec); one of them is there."
    )
    address: str | None = Field(None, description="Where a value stands that only such devices have.")
    type: str = Field("", description="How that value is encoded; uint16 for example.")
    length: int | None = Field(None, ge=1, description="How many characters it has, where it is a string.")
    values: list[int | str] = Field(default_factory=list, description="What it may be; of texts, regular expressions.")


class MappingEntry(DeviceDefaults):
    """A mapping file or profile: tags, and defaults for the devices that use it."""

    description: str | None = Field(None, description="What this mapping is for, said to people.")
    maker: str | None = Field(None, description="Who makes the devices that this mapping is for.")
    model: str | None = Field(None, description="The models that this mapping is for, in the words of their maker.")
    sources: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Where its facts come from, by a short name that the source of each tag begins with.",
    )
    identify: IdentifyEntry | None = Field(
        None, description="How such a device is told from others, for headgate probe to name this profile."
    )
    driver: str | None = Field(
        None, description="The driver this mapping is for; a device with another driver refuses it."
    )
    tags: dict[str, Any] = Field(description="The tags by name; in short form the value is the address alone.")


class ParameterEntry(Section):
    """One parameter of a template."""

    default: Annotated[
        Any, BeforeValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})
    ] = Field(None, description="The value where none is given; without it one must be given.")
    description: str | None = Field(None, description="What the parameter is for, said to people.")


class TemplateEntry(Section):
    """A device with holes: `${name}` anywhere in `device` is filled from `with` or from a column of a CSV file."""

    parameters: dict[str, ParameterEntry | None] = Field(
        default_factory=dict, description="The parameters by name; each may have a default and a description."
    )
    device: dict[str, Any] = Field(
        description="A device as it stands below devices, with ${name} where a parameter goes."
    )


class TemplateUse(Section):
    """A device, or a fleet of devices, made from a template. Other keys of a device may stand beside and win."""

    model_config = ConfigDict(extra="allow")

    template: str = Field(description="The name of the template, from the section templates.")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="Values of the template's parameters."
    )
    instances: str | None = Field(
        None, description="A CSV file with a line for each device: the column name, and one for each parameter."
    )


@cache
def tag_model(driver: str, options: type[BaseModel]) -> type[TagEntry]:
    """The model of a tag of the driver of that name with these TagOptions."""
    return _compose(f"{driver}.tag", TagEntry, options)


@cache
def device_model(driver: str, options: type[BaseModel]) -> type[DeviceEntry]:
    """The model of a device of the driver of that name with these DeviceOptions."""
    return _compose(f"{driver}.device", DeviceEntry, options)


@cache
def mapping_model(driver: str, options: type[BaseModel]) -> type[MappingEntry]:
    """The model of a mapping file for devices of the driver of that name with these DeviceOptions."""
    return _compose(f"{driver}.mapping", MappingEntry, options)


def _compose(name: str, ours: type[_M], options: type[BaseModel]) -> type[_M]:
    """Our keys and the driver's in one model. Raises TypeError when the driver claims a key that is ours."""
    both = set(keys_of(ours)) & set(keys_of(options))
    if both:
        raise TypeError(
            f"{options.__module__}.{options.__qualname__} claims keys of every driver: {', '.join(sorted(both))}"
        )
    return create_model(name, __base__=(options, ours), __doc__=ours.__doc__)  # type: ignore[arg-type]
