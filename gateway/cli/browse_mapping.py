"""The file that `headgate browse --mapping` writes: tags for all variables that can be read, ready to run.

Of a url it is a whole gateway file; of a device that stands in a file already, a mapping to name there. Nothing in it
can be written to: `write` stands in comments, for a person to decide.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.driver import Node

_LONGEST_SOURCE = 400
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_/.-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def gateway_file(
    name: str, driver: str, url: str, said: Mapping[str, str], tags: Sequence[tuple[Node, str]], out: Path
) -> Iterator[str]:
    """The lines of a gateway file with one device, reached like the command reached it."""
    yield f"# Made by headgate browse {_comment(url)}: {len(tags)} tags."
    yield "# `headgate check` says what will be asked; `headgate read` shows the values. To send them, add:"
    yield "# uplinks: {cloud: {url: mqtts://broker.example.com}}"
    yield "gateway: plant"
    yield "devices:"
    yield f"  {name}:"
    yield f"    driver: {driver}"
    yield f"    url: {quoted(url)}"
    for key, text in said.items():
        yield f"    {key}: {quoted(os.path.relpath(text, out.parent) if key == 'pki' else text)}"
    yield "    tags:"
    yield from (f"      {line}" for line in _tags(tags))


def mapping_file(driver: str, device: str, tags: Sequence[tuple[Node, str]]) -> Iterator[str]:
    """The lines of a mapping file, to be named by the device."""
    yield f"# Made by headgate browse of the device {_comment(device)}: {len(tags)} tags."
    yield f"driver: {driver}"
    yield "tags:"
    yield from (f"  {line}" for line in _tags(tags))


def _tags(tags: Sequence[tuple[Node, str]]) -> Iterator[str]:
    for node, path in tags:
        parts = [f"address: {quoted(node.address)}"]
        if node.type and not node.is_list and not node.choices:
            parts.append(f"type: {node.type}")
        if node.unit:
            parts.append(f"unit: {quoted(node.unit)}")
        parts.append(f"source: {quoted(path[-_LONGEST_SOURCE:])}")
        yield f"{_key(node.tag)}: {{{', '.join(parts)}}}{'  # write: true' if node.is_writable else ''}"


def _key(name: str) -> str:
    """A tag's name as a key: quoted where YAML would read something else than text."""
    return name if _PLAIN.fullmatch(name) and name.lower() not in _WORDS else f'"{name}"'


def quoted(text: str) -> str:
    """Any text as a YAML scalar in double quotes, with what does not print spelled out."""
    return f'"{"".join(map(_character, text))}"'


def _character(one: str) -> str:
    if one in '"\\':
        return f"\\{one}"
    if one.isprintable():
        return one
    number = ord(one)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
