"""The keys of a device and of a tag that only this driver knows, checked where the file comes in."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from drivers.modbus.frames.pdu import MAX_BITS, MAX_REGISTERS
from gateway.quantities import DurationRange


def _number(key: object) -> object:
    """A number that is the key of something: files and JSON know only text there."""
    try:
        return int(key, 0) if isinstance(key, str) else key
    except ValueError:
        raise ValueError(
            f"expected a whole number, got '{key}'. Write the number first, like {{0: off, 1: on}}"
        ) from None


def _sentinel(value: object) -> object:
    """Auto, or register contents as unsigned numbers."""
    if value == "auto":
        return value
    if isinstance(value, list) and all(type(word) is int and 0 <= word < 1 << 64 for word in value):
        return value
    raise ValueError(f"expected auto or a list of register contents, got {value!r}. Write it like [0x8000]")


Sentinel = Annotated[
    Literal["auto"] | list[int],
    PlainValidator(
        _sentinel, json_schema_input_type=Literal["auto"] | list[Annotated[int, Field(ge=0, le=(1 << 64) - 1)]]
    ),
]
"""What registers hold that have no value."""


class SetupWrite(BaseModel):
    """A write that a device needs before it is read. Values are raw, without scale and offset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field(description="Where to write: a coil or holding register, like holding:100.")
    type: str = Field(default="", description="How the value stands in its registers, like the type of a tag.")
    order: str = Field(default="", description="In which order its bytes go over the wire, like the order of a tag.")
    value: bool | int | float | str = Field(description="What to write, as the device is to hold it.")


class DeviceOptions(BaseModel):
    """What a device may say over and above what every device says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: int = Field(
        default=1,
        ge=0,
        le=255,
        description="The unit identifier (slave address) that the device answers to, 0 to 255.",
    )
    timeout: Annotated[float, DurationRange("10ms", "1m")] = Field(
        default=1.0,
        description="How long an answer may take before its tags are bad:timeout; the longest of a line bounds its "
        "connecting too.",
        json_schema_extra={"default": "1s"},
    )
    request_gap: Annotated[float, DurationRange("0s", "10s")] = Field(
        default=0.0,
        description="How long the unit is left in peace after an answer before it is asked again, for devices that "
        "lose requests which come too fast.",
        json_schema_extra={"default": "0s"},
    )
    connect_delay: Annotated[float, DurationRange("0s", "1m")] = Field(
        default=0.0,
        description="How long to wait after connecting before the first request, for devices that lose it otherwise; "
        "the longest of a line counts.",
        json_schema_extra={"default": "0s"},
    )
    linger: Annotated[float, DurationRange("0s", "1h")] | None = Field(
        default=None,
        description="How long after the last answer the connection is closed, for devices that take one client only; "
        "0s closes it after each read, the shortest of a line counts; left out, it stays open.",
    )
    backup: str | None = Field(
        default=None,
        description="A second way to the same device, as tcp://HOST:PORT, used while the one of the url cannot be "
        "opened; devices of one line name the same.",
    )
    match: Literal["id", "order"] = Field(
        default="id",
        description="How an answer is known: by its transaction id, or, for gateways that return wrong ones, by coming "
        "next; then one request is under way at a time, and a silence costs the connection. One such device makes its "
        "line so.",
    )
    max_late: Annotated[float, DurationRange("10ms", "1h")] | None = Field(
        default=None,
        description="Serial lines, also over TCP: how long after its request an answer may come at the latest; after a "
        "silence the unit is not asked for so long, or until its late answer has come; left out, three timeouts.",
    )
    retries: int = Field(
        default=2,
        ge=0,
        le=10,
        description="Serial lines, also over TCP: how often a read is asked again at once whose answer came damaged; "
        "writes never are.",
    )
    max_in_flight: int = Field(
        default=1,
        ge=1,
        le=16,
        description="How many requests may be under way on the connection at once; the smallest of a line counts, and "
        "gateways to serial lines want 1.",
    )
    max_registers: int = Field(
        default=MAX_REGISTERS,
        ge=1,
        le=MAX_REGISTERS,
        description="How many registers one request may ask for, where the device takes fewer than the standard's 125.",
    )
    max_bits: int = Field(
        default=MAX_BITS,
        ge=1,
        le=MAX_BITS,
        description="How many coils or discrete inputs one request may ask for, where the device takes fewer than the "
        "standard's 2000.",
    )
    max_gap: int | None = Field(
        default=None,
        ge=0,
        le=MAX_BITS,
        description="How many registers or bits that no tag asks for may be read between two tags to save a request; "
        "left out, as many as pay for themselves; 0 reads nothing that was not asked for.",
    )
    setup: tuple[SetupWrite, ...] = Field(
        default_factory=tuple,
        max_length=64,
        description="Writes that the device gets before it is first read on a connection, and when it answers again "
        "after an outage: a list of {address, type, order, value}.",
    )
    bit_write: Literal["masked", "read_first"] = Field(
        default="masked",
        description="How some bits of a register are written: masked, by function 22, or, where the device refuses it, "
        "read_first: the register is read, changed and written back, and what another master changes in between is "
        "lost.",
    )


class TagOptions(BaseModel):
    """What a tag may say over and above what every tag says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int | None = Field(
        default=None,
        ge=1,
        le=2 * MAX_REGISTERS,
        description="How many characters (bytes) a string has; two stand in each register, one with layout low or "
        "high.",
    )
    encoding: Literal["ascii", "latin-1", "utf-8"] = Field(
        default="ascii",
        description="How the bytes of a string become text.",
    )
    layout: Literal["both", "low", "high"] = Field(
        default="both",
        description="Which bytes of each register a string or an 8-bit number is in: both (two characters), low or "
        "high (one); int8, uint8 and bcd8 are in the low byte unless it says high.",
    )
    padding: Literal["nul", "space"] = Field(
        default="nul",
        description="What a text that is written is filled up with to its length.",
    )
    count: int | None = Field(
        default=None,
        ge=1,
        le=MAX_BITS,
        description="How many values of the type stand side by side: the tag is a list of them.",
    )
    enum: dict[Annotated[int, BeforeValidator(_number)], str] = Field(
        default_factory=dict,
        max_length=1000,
        description="Texts for numbers, {0: off, 1: on}: the tag's value is the text; a number without one is "
        "published as text of digits with quality uncertain:range.",
    )
    sentinel: Sentinel = Field(
        default_factory=list,
        description="Register contents that mean that there is no value, [0x8000]: then the tag is null and "
        "bad:sentinel; auto is what SunSpec has for the type.",
    )
    time: Literal["s", "ms"] | None = Field(
        default=None,
        description="Makes a whole number a time in seconds or milliseconds since 1970, published as ISO 8601 text in "
        "UTC.",
    )
    year_from: int | None = Field(
        default=None,
        ge=0,
        le=9999,
        description="What the year of a datetime3 or datetime6 counts from; left out, 2000 for datetime3 and 0 for "
        "datetime6.",
    )
    scale_register: str | None = Field(
        default=None,
        description="The address of a register that holds the power of ten of the value, -10 to 10, as SunSpec has "
        "it; both are read together, and 0x8000 in it makes the tag bad:sentinel.",
    )
    write_address: str | None = Field(
        default=None,
        description="Where the tag is written when that is not where it is read.",
    )
    write_function: Literal["auto", "single", "multiple", "read_write"] = Field(
        default="auto",
        description="How the tag is written: single by function 5 or 6, multiple by 15 or 16, read_write by 23, which "
        "reads it back in the same request and fails when it does not hold the value; auto is single where one coil or "
        "register is enough, else multiple.",
    )

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        """Two numbers with one label could not be told apart when it is written."""
        seen: dict[str, int] = {}
        for number, label in self.enum.items():
            if label in seen:
                raise ValueError(f"enum: {seen[label]} and {number} are both '{label}'. Give each its own text")
            seen[label] = number
        return self
