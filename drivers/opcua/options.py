"""The keys of a device and of a tag that only this driver knows, checked where the file comes in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from gateway.quantities import DurationRange
from gateway.secrets import BASE, Secret

Policy = Literal[
    "auto", "none", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss", "Basic256", "Basic128Rsa15"
]
"""Security policies, by the last part of their URI. The last two are deprecated, taken only where they are named."""


def _path(value: object, info: ValidationInfo) -> object:
    """A path of the file, relative to the file."""
    if isinstance(value, str | Path) and str(value):
        base = Path(info.context[BASE]) if info.context else Path()
        return base / value
    return value


File = Annotated[Path, BeforeValidator(_path, json_schema_input_type=str)]


class DeviceOptions(BaseModel):
    """What a device may say over and above what every device says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["subscribe", "poll"] = Field(
        default="subscribe",
        description="Whether the server tells of changes (subscribe) or is asked at each interval (poll).",
    )
    security: Policy = Field(
        default="auto",
        description="The security policy; auto takes the strongest that both sides have, and none, which is neither "
        "signed nor encrypted, must be named.",
    )
    security_mode: Literal["sign_and_encrypt", "sign"] = Field(
        default="sign_and_encrypt",
        description="Whether messages are signed and encrypted or only signed.",
    )
    username: str | None = Field(default=None, description="The user to log in as; without it the login is anonymous.")
    password: Secret | None = Field(default=None, description="The user's password, by reference.")
    user_certificate: File | None = Field(
        default=None, description="A certificate to log in with in place of a user name, PEM or DER."
    )
    user_key: File | None = Field(default=None, description="The private key of user_certificate, PEM.")
    pki: File = Field(
        default=Path("headgate-data/pki"),
        validate_default=True,
        description="The folder with the gateway's own certificate and those of the servers it trusts.",
        json_schema_extra={"default": "headgate-data/pki"},
    )
    application_uri: str | None = Field(
        default=None,
        description="The gateway's name in its certificate; left out, what the certificate says, and "
        "urn:HOST:headgate where it is made.",
    )
    trust: Literal["approved", "first_use"] = Field(
        default="approved",
        description="Which server certificates are trusted: only approved ones (headgate trust), or whichever comes "
        "first, from then on only that.",
    )
    timeout: Annotated[float, DurationRange("100ms", "5m")] = Field(
        default=10.0,
        description="How long an answer of the server may take before the connection is given up.",
        json_schema_extra={"default": "10s"},
    )
    keep_alive: Annotated[float, DurationRange("500ms", "10m")] = Field(
        default=5.0,
        description="How long a subscription may be silent before the server says that it lives; twice that and the "
        "timeout without a word, and the connection is given up.",
        json_schema_extra={"default": "5s"},
    )
    session_timeout: Annotated[float, DurationRange("10s", "1d")] = Field(
        default=600.0,
        description="How long the server is asked to keep the session and its subscriptions while the link is down.",
        json_schema_extra={"default": "10m"},
    )
    publish_requests: int = Field(
        default=3,
        ge=1,
        le=20,
        description="How many publish requests wait at the server at once; more for links with a long round trip.",
    )
    max_per_call: int = Field(
        default=1000,
        ge=1,
        le=10000,
        description="How many nodes one request names at most, where the server does not say less.",
    )
    watchdog: Annotated[float, DurationRange("1s", "1d")] | None = Field(
        default=60.0,
        description="How often subscribed tags that were silent so long are read to see whether the server forgot "
        "them; null never asks.",
        json_schema_extra={"default": "1m"},
    )
    history: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether what was missed is read from the server's history, for the tags that have one.",
    )
    max_history: Annotated[float, DurationRange("1s", "30d")] = Field(
        default=86400.0,
        description="How far back history is read after an outage at most.",
        json_schema_extra={"default": "1d"},
    )
    time: Literal["source", "server"] = Field(
        default="source",
        description="Whose time a sample has: the source's (the server's where it gives none), or the server's.",
    )
    server_times: bool = Field(
        default=False, description="Whether the server's time of each value is kept beside the source's."
    )
    root: str = Field(
        default="i=85",
        description="The node that browse paths begin at, as a node id; the Objects folder unless it is said.",
    )
    max_matches: int = Field(
        default=10000,
        ge=1,
        le=100000,
        description="How many tags one address with wildcards may become; what is beyond is left out and said.",
    )

    @model_validator(mode="after")
    def _identity_is_one(self) -> Self:
        """A login is anonymous, by name, or by certificate."""
        if (self.user_certificate is None) != (self.user_key is None):
            raise ValueError("user_certificate and user_key go together. Write both, or take both out")
        if self.username is not None and self.user_certificate is not None:
            raise ValueError("username and user_certificate are two logins. Take one of them out")
        if self.username is None and self.password is not None:
            raise ValueError("a password without a username. Write the username, or take the password out")
        return self


class TagOptions(BaseModel):
    """What a tag may say over and above what every tag says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampling: Annotated[float, DurationRange("0s", "1d")] | None = Field(
        default=None,
        description="How often the server looks at the value; left out, as every says; 0s is as fast as it can.",
    )
    queue: int | None = Field(
        default=None,
        ge=1,
        le=100000,
        description="How many values the server keeps between two messages; left out, those of 10 s, 10 to 1000.",
    )
    range_deadband: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="The least change the server tells of, in percent of the node's EURange.",
    )
    trigger: Literal["status", "value", "timestamp"] = Field(
        default="value",
        description="What the server tells of: a new status, also a new value, or also a new source time of the same "
        "value.",
    )
    index_range: str | None = Field(
        default=None,
        pattern=r"^\d+(:\d+)?(,\d+(:\d+)?)*$",
        description="The part of an array that is read and written, counted from 0: 2, 1:3, or 0:1,0:1 for a matrix.",
    )
    enum: Literal["name", "number"] = Field(
        default="name",
        description="Whether a value of an enumeration is published by its name or as its number.",
    )
