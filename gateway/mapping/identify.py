"""Which profiles of the library fit a device that was found: by what it says of itself, or by a value it holds."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from gateway.driver import Finding
from gateway.mapping.document import Places, read_yaml
from gateway.mapping.mistakes import Mistakes
from gateway.mapping.profiles import library, profiles
from gateway.mapping.schema import TEXT_KEYS, IdentifyEntry
from gateway.model import Value

Look: TypeAlias = Callable[[str, str, int | None], Awaitable[Value]]
"""Reads the value at an address, of a type, a string with its length; None where there is none."""


@dataclass(frozen=True, slots=True)
class Sign:
    """How devices of a profile are told from others."""

    profile: str
    driver: str
    entry: IdentifyEntry


def signs(folder: Path | None = None) -> list[Sign]:
    """The signs of all profiles that have some, by name. What cannot be read has none: `check` tells of it."""
    root = folder or library()
    found = []
    for name in profiles(root):
        data = read_yaml(root / f"{name}.yaml", places=Places(), mistakes=Mistakes(), text_keys=TEXT_KEYS) or {}
        try:
            entry = IdentifyEntry.model_validate(data["identify"])
        except (KeyError, ValidationError):
            continue
        found.append(Sign(name, str(data.get("driver", "")), entry))
    return found


async def fits(sign: Sign, finding: Finding, look: Look) -> bool:
    """Whether everything the profile says of its devices holds for this one; a profile that says nothing fits none."""
    entry = sign.entry
    if not (entry.texts or entry.models or entry.address):
        return False
    if any(not _is_like(pattern, finding.identity.get(name, "")) for name, pattern in entry.texts.items()):
        return False
    if entry.models and not {model.number for model in finding.models} & set(entry.models):
        return False
    if entry.address is None:
        return True
    value = await look(entry.address, entry.type, entry.length)
    if isinstance(value, str):
        return any(_is_like(str(wanted), value) for wanted in entry.values)
    return value is not None and value in entry.values


def _is_like(pattern: str, text: str) -> bool:
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error:
        return False
