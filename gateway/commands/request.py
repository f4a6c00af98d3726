"""What a command says, read from its payload. Pure.

    true                                                the bare value, as JSON or as plain text: `auto`, `on`
    {"value":1,"id":"7f","expires":"5s","ts":17953…}    the same with a name, and how long it is good for

`expires` counts from `ts` (ms since 1970) where there is one, else from the command's arrival. Keys that are not known
are refused: `expire` for `expires` would be a command that never expires. So is a key that stands there twice: of two
values nobody knows which one was meant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import orjson

from gateway.errors import HeadgateError
from gateway.model import Value
from gateway.quantities import parse_duration

LARGEST = 16 * 1024
"""Bytes of a payload: a command writes one tag."""

_LONGEST_ID = 128
_SHOWN = 60
_KEYS = frozenset({"value", "id", "expires", "ts"})
_NESTED = "expected text, a number, true, false, or a list of these, got one inside another"

Code: TypeAlias = Literal[
    "invalid",
    "unknown",
    "not_writable",
    "range",
    "retained",
    "expired",
    "repeated",
    "clock",
    "rate",
    "busy",
    "offline",
    "stopping",
    "audit",
    "refused",
    "timeout",
    "failed",
    "read_back",
]
"""Why a command was not carried out, for machines; README says what each means.

Up to `audit` nothing was sent to the device. `refused`: the device said no. `timeout`, `failed`: it cannot be known
whether it was done. `read_back`: it was acknowledged, but the tag does not hold the value, or could not be read.
"""


class RefusalError(HeadgateError):
    """A command is not carried out, or not as it was meant. Text and `details` are told to who sent it."""

    def __init__(self, code: Code, text: str, details: Mapping[str, Value] | None = None) -> None:
        super().__init__(text)
        self.code: Code = code
        self.details = details or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command's words. `text` is the payload as it stands where it is no object, so that `5` can be a string too."""

    value: Any
    text: str | None = None
    id: str | int | None = None
    expires_s: float | None = None
    made_ms: int | None = None


def parse(payload: bytes) -> Request:
    """The request that a payload is. Raises RefusalError (`invalid`)."""
    if len(payload) > LARGEST:
        raise RefusalError("invalid", f"{len(payload)} bytes are too many: a command has at most {LARGEST}")
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise RefusalError("invalid", "the payload is no text. Send a value, or an object with `value`") from None
    if not text.strip():
        raise RefusalError("invalid", "the payload is empty. Send a value, or an object with `value`")
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        if text.lstrip().startswith(("{", "[")):
            raise RefusalError("invalid", f"the payload is no JSON: {show(text)}") from None
        return Request(value=text, text=text)
    if isinstance(value, dict):
        _refuse_twice(payload)
        return _described(value)
    _refuse_nested(value)
    return Request(value=value, text=None if isinstance(value, str) else text)


def _described(given: dict[str, Any]) -> Request:
    strange = sorted(given.keys() - _KEYS)
    if strange:
        raise RefusalError("invalid", f"unknown key {show(strange[0])}. Known here: expires, id, ts, value")
    for each in given.values():
        _refuse_nested(each)
    if "value" not in given:
        raise RefusalError("invalid", 'there is no `value`. Send a bare value, or {"value": …}')
    return Request(
        value=given["value"],
        id=_id(given.get("id")),
        expires_s=_expires(given.get("expires")),
        made_ms=_made(given.get("ts")),
    )


def _refuse_twice(payload: bytes) -> None:
    """Raises RefusalError where an object has a key twice, of which its parser silently takes the last."""
    try:
        pairs = json.loads(payload, object_pairs_hook=list, parse_int=str, parse_float=str)
    except RecursionError:
        raise RefusalError("invalid", _NESTED) from None
    keys = [key for key, _ in pairs]
    again = next((key for key in keys if keys.count(key) > 1), None)
    if again is not None:
        raise RefusalError("invalid", f"{show(again)} stands there twice. Say once what is meant")


def _refuse_nested(given: Any) -> None:
    """Raises RefusalError where something is neither plain nor a list of what is: no tag holds it."""
    parts = given if isinstance(given, list) else (given,)
    if any(isinstance(part, list | dict) for part in parts):
        raise RefusalError("invalid", _NESTED)


def _id(given: Any) -> str | int | None:
    if given is None or type(given) is int:
        return given
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_ID:
        raise RefusalError("invalid", f"an `id` is a text of 1 to {_LONGEST_ID} characters, or a whole number")
    return given


def _expires(given: Any) -> float | None:
    if given is None:
        return None
    try:
        return parse_duration(given if isinstance(given, str) else str(given))
    except ValueError as error:
        raise RefusalError("invalid", f"`expires`: {error}") from None


def _made(given: Any) -> int | None:
    if given is None:
        return None
    if type(given) is not int or given < 0:
        raise RefusalError("invalid", f"`ts` is ms since 1970 as a whole number, got {show(given)}")
    return given


def show(value: Any) -> str:
    """A value as an answer names it, short."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # orjson stops at 64 bits
        text = str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
