"""Whether a value may be written to a tag, as the file has it. Pure. Values are engineering values throughout."""

from __future__ import annotations

from math import isclose
from typing import Any

from gateway.commands.request import RefusalError, Request, show
from gateway.model import Tag, Value, WriteRules

_WORDS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_NUMBERS = ("int", "uint", "float", "bcd")

_CLOSE, _CLOSE_HALF = 2**-22, 2**-10
"""How far a float that was read back may be from the one that was written, relatively: float32 and float16 round."""


def permitted(request: Request, tag: Tag, kind: str, rules: WriteRules, *, is_told: bool = False) -> Value:
    """The value to write. `kind`: the type that the tag's samples have, which `is_told` by the device, not the file.

    Raises RefusalError (`invalid`, `range`).
    """
    if is_told and kind.startswith("string"):
        value = _told(request, tag, rules)
    else:
        value = _of_kind(request, kind, tag.type or "string")
    _check(value, tag, rules)
    return value


def _told(request: Request, tag: Tag, rules: WriteRules) -> Value:
    """The value for a tag that reads as text by what its device told: `5` is a text, or a number of an enumeration.

    Where numbers say what may be written it is the latter, and must be held to them; else its driver knows.
    """
    value: Value = request.value
    if value is None:
        raise RefusalError("invalid", "null cannot be written")
    bounds = (tag.min, tag.max, rules.min, rules.max, *rules.values)
    if isinstance(value, list) or request.text is None or any(isinstance(bound, int | float) for bound in bounds):
        return value
    return request.text


def _of_kind(request: Request, kind: str, stored: str) -> Value:
    """The value as its type wants it: `on` is true for a bool, `5` a text for a string.

    What reads as a text and is `stored` as something else, a label for example, may be written as that, too.
    """
    value = request.value
    if value is None:
        raise RefusalError("invalid", "null cannot be written")
    if kind.startswith("bool"):
        return _bool(value)
    if kind.startswith(_NUMBERS):
        return _number(value, kind)
    if kind.startswith("string") and stored.startswith("string"):
        text = value if isinstance(value, str) else request.text
        if text is None:
            raise RefusalError("invalid", f"expected text, got {show(value)}")
        return text
    if isinstance(value, bool) and kind.startswith("string"):
        raise RefusalError("invalid", f"expected text or a number, got {show(value)}")
    known: Value = value  # what other types take is their driver's to say
    return known


def _bool(value: Any) -> bool:
    word = value.strip() if isinstance(value, str) else str(value)
    found = _WORDS.get(word.lower())
    if found is None or isinstance(value, float):
        raise RefusalError("invalid", f"expected true or false, got {show(value)}")
    return found


def _number(value: Any, kind: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusalError("invalid", f"expected a number, got {show(value)}")
    if kind.startswith("float") or isinstance(value, int):
        return value
    if value != int(value):
        raise RefusalError("invalid", f"expected a whole number, got {show(value)}")
    return int(value)


def _check(value: Value, tag: Tag, rules: WriteRules) -> None:
    if rules.values:
        if not any(_is_same(value, listed) for listed in rules.values):
            allowed = ", ".join(show(listed) for listed in rules.values)
            raise RefusalError("range", f"{show(value)} is none of {allowed}")
        return
    for each in value if isinstance(value, list) else (value,):
        if isinstance(each, int | float) and not isinstance(each, bool):
            _check_number(each, tag, rules)
        elif isinstance(each, str) and any(bound is not None for bound in (tag.min, tag.max, rules.min, rules.max)):
            # The name of a number, perhaps of one beyond the limits: only its driver knows.
            raise RefusalError("invalid", f"min and max hold numbers: write the number that {show(each)} stands for")


def _check_number(value: float, tag: Tag, rules: WriteRules) -> None:
    for low in (tag.min, rules.min):
        if low is not None and value < low:
            raise RefusalError("range", f"{show(value)} is below {low:g}")
    for high in (tag.max, rules.max):
        if high is not None and value > high:
            raise RefusalError("range", f"{show(value)} is above {high:g}")


def _is_same(value: Value, listed: Value) -> bool:
    """Whether a value is one of the file's; `on` and 1 mean true where the value is a bool."""
    if isinstance(value, bool) and not isinstance(listed, bool):
        return _WORDS.get(str(listed).lower()) is value
    return isinstance(value, bool) == isinstance(listed, bool) and value == listed


def holds(read: Value, written: Value, kind: str) -> bool:
    """Whether a tag that reads `read` holds what was `written`, both as the device has them."""
    if isinstance(read, float) or isinstance(written, float):
        numbers = isinstance(read, int | float) and isinstance(written, int | float)
        near = _CLOSE_HALF if kind == "float16" else _CLOSE
        return numbers and isclose(read, written, rel_tol=near, abs_tol=1e-30)  # type: ignore[arg-type]
    if isinstance(read, str) and isinstance(written, str):
        return read.rstrip("\0 ") == written.rstrip("\0 ")
    return read == written
