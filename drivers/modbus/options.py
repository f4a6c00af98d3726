"""The keys of a device and of a tag that only this driver knows, checked where the file comes in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from drivers.modbus.pdu import MAX_BITS, MAX_REGISTERS
from gateway.quantities import DurationRange


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


class TagOptions(BaseModel):
    """What a tag may say over and above what every tag says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int | None = Field(
        default=None,
        ge=1,
        le=2 * MAX_REGISTERS,
        description="How many characters (bytes) a string has; two stand in each register.",
    )
    encoding: Literal["ascii", "latin-1", "utf-8"] = Field(
        default="ascii",
        description="How the bytes of a string become text.",
    )
