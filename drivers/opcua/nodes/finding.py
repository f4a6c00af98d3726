"""Addresses of all kinds into nodes: ids as they are, full paths by translation, the rest by walking the tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncua import ua

from drivers.opcua.address import Address, NodeAddress, PathAddress, parse
from drivers.opcua.nodes.asking import Asks
from drivers.opcua.nodes.browsing import VARIABLE
from drivers.opcua.nodes.patterns import Found, Match, walk
from drivers.opcua.nodes.requests import BAD_NO_MATCH, translate
from drivers.opcua.nodes.resolving import node_of

BAD_NODE_UNKNOWN = 0x80340000
_BAD_SERVICE_UNSUPPORTED, _BAD_NOT_IMPLEMENTED = 0x800B0000, 0x80400000


@dataclass(frozen=True, slots=True)
class Wanted:
    """An address, and where its path begins; with wildcards it may be `most` nodes. Equal for two tags: same nodes."""

    root: str
    most: int
    address: Address


@dataclass(slots=True)
class Outcome:
    """The nodes of an address. `code` says why there is none; `note` what a person should know all the same."""

    matches: list[Match] = field(default_factory=list)
    code: int = 0
    note: str = ""


async def find_all(session: Asks, wanted: Sequence[Wanted]) -> dict[Wanted, Outcome]:
    """What each address leads to. Raises LineError."""
    found: dict[Wanted, Outcome] = {}
    paths: list[tuple[Wanted, ua.NodeId, PathAddress]] = []
    for one in wanted:
        if isinstance(one.address, NodeAddress):
            found[one] = _node(one.address, session.namespaces)
            continue
        root = parse(one.root)
        start = node_of(root, session.namespaces) if isinstance(root, NodeAddress) else None
        if start is None:
            found[one] = Outcome(code=BAD_NODE_UNKNOWN, note=f"there is no namespace of the root {one.root}")
        else:
            paths.append((one, start, one.address))
    whole = [path for path in paths if _is_whole(path[2])]
    targets = await translate(session, [(start, path) for _, start, path in whole])
    walked = [path for path in paths if not _is_whole(path[2])]
    for path, (node, code) in zip(whole, targets, strict=True):
        if code in (_BAD_SERVICE_UNSUPPORTED, _BAD_NOT_IMPLEMENTED):
            walked.append(path)
        else:
            matches = [] if node is None else [Match(node, (), 0, VARIABLE)]
            found[path[0]] = Outcome(matches, code)
    return found | await _walk(session, walked)


def _node(address: NodeAddress, namespaces: Sequence[str]) -> Outcome:
    node = node_of(address, namespaces)
    if node is None:
        return Outcome(code=BAD_NODE_UNKNOWN, note=f"the server has no namespace {address.namespace}")
    return Outcome([Match(node, (), 0, VARIABLE)])


def _is_whole(path: PathAddress) -> bool:
    """Whether every name says its namespace: then the server finds it by itself."""
    return not path.is_pattern and all(step.namespace is not None for step in path.steps)


async def _walk(session: Asks, paths: Sequence[tuple[Wanted, ua.NodeId, PathAddress]]) -> dict[Wanted, Outcome]:
    """All paths of one root are walked together."""
    together: dict[tuple[ua.NodeId, int], list[tuple[Wanted, PathAddress]]] = defaultdict(list)
    for one, start, path in paths:
        together[start, one.most].append((one, path))
    outcomes: dict[Wanted, Outcome] = {}
    for (start, most), group in together.items():
        found = await walk(session, start, [path for _, path in group], most=most)
        for (one, path), own in zip(group, found, strict=True):
            outcomes[one] = _many(own) if path.is_pattern else _one(own)
    return outcomes


def _many(found: Found) -> Outcome:
    """All matches of a path with wildcards, in an order that stays the same."""
    notes = []
    if found.beyond:
        notes.append(f"{found.beyond} nodes beyond max_matches are left out. Raise it, or say more of the path")
    if found.is_short:
        notes.append("not all of the tree could be looked at: the server refused, or it has too many nodes below")
    matches = sorted(found.matches, key=lambda match: match.names)
    return Outcome(matches, 0 if matches else BAD_NO_MATCH, "; ".join(notes))


def _one(found: Found) -> Outcome:
    """The one node of a path without wildcards: a variable if there is one, of the first namespace."""
    matches = sorted(found.matches, key=lambda match: (match.node_class != VARIABLE, match.namespace))
    note = "several nodes have that path; the one of the first namespace is taken. Write it with the index, like 2:Name"
    return Outcome(matches[:1], 0 if matches else BAD_NO_MATCH, note if len(matches) > 1 else "")
