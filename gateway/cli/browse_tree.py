"""The tree that `headgate browse` shows: paths, what of it is wanted, lines for people, documents for machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.driver import Node

_INDENT = "  "
_LONGEST_VALUE = 80


@dataclass(slots=True)
class Tree:
    """All nodes in the order told, each after the one that it hangs below. `is_cut`: there are more."""

    nodes: list[Node] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_cut: bool = False

    def paths(self) -> list[str]:
        """Where each node is, counted from the start, which is /."""
        paths: list[str] = []
        for node in self.nodes:
            if node.above < 0:
                paths.append("/")
            else:
                paths.append(f"{'' if node.above == 0 else paths[node.above]}/{plain(node.name)}")
        return paths

    def chosen(self, paths: Sequence[str], glob: str | None, *, is_variables: bool) -> list[bool]:
        """Which nodes are wanted: those with such a path, and only variables where nothing else is."""
        pattern = re.compile(translate(glob or "*"))
        return [
            (not is_variables or node.kind == "variable") and pattern.match(path) is not None
            for node, path in zip(self.nodes, paths, strict=True)
        ]

    def branches(self, chosen: Sequence[bool]) -> list[bool]:
        """The wanted ones, and those that they hang below."""
        kept = list(chosen)
        for i in range(len(kept) - 1, 0, -1):
            if kept[i]:
                kept[self.nodes[i].above] = True
        return kept

    def lines(self, kept: Sequence[bool]) -> Iterator[str]:
        """The tree for people: each node below its parent, further in."""
        below: dict[int, list[int]] = {}
        for i, node in enumerate(self.nodes):
            if kept[i]:
                below.setdefault(node.above, []).append(i)
        waiting = [(i, 0) for i in reversed(below.get(-1, []))]
        while waiting:
            i, level = waiting.pop()
            yield f"{_INDENT * level}{_line(self.nodes[i])}"
            waiting += [(child, level + 1) for child in reversed(below.get(i, []))]


def _line(node: Node) -> str:
    mark = {"object": "/", "method": "()"}.get(node.kind, "")
    parts = [f"{plain(node.name)}{mark}", plain(node.address)]
    if node.type or node.is_list or node.choices:
        parts.append(
            f"{'one of ' + '|'.join(map(plain, node.choices)) if node.choices else node.type}{'[]' * node.is_list}"
        )
    if node.unit:
        parts.append(f"[{plain(node.unit)}]")
    if not node.is_readable:
        parts.append("not readable")
    if node.is_writable:
        parts.append("writable")
    if node.quality is not None:
        parts.append(f"= {_value(node)}" if node.quality.level != "bad" else str(node.quality))
    if node.description:
        parts.append(f"# {plain(node.description)}")
    return "  ".join(parts)


def _value(node: Node) -> str:
    text = plain(node.value if isinstance(node.value, str) else repr(node.value))
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def plain(text: str) -> str:
    """A text of a stranger as one line: what could steer a terminal is spelled out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) if not text.isprintable() else text


def document(node: Node, path: str) -> dict[str, Any]:
    """A node for machines; what was not asked for is left out."""
    own: dict[str, Any] = {"path": path, "name": node.name, "kind": node.kind, "address": node.address}
    if node.tag:
        own["tag"] = node.tag
    for key in ("type", "unit", "description"):
        if getattr(node, key):
            own[key] = getattr(node, key)
    if node.is_list:
        own["list"] = True
    if node.choices:
        own["choices"] = list(node.choices)
    if node.is_writable:
        own["writable"] = True
    if not node.is_readable:
        own["readable"] = False
    if node.quality is not None:
        own |= {"value": node.value, "quality": str(node.quality)}
    return own
