"""Paths with wildcards, and names without namespace, found by browsing: level by level, each node once, all at once.

All paths of one root are a tree of steps, so that what they share is walked once: ten thousand paths through a thousand
tanks browse each tank once. A `**` step loops on itself; at the end of a path it stands for one level or more, within
it for none or more. Wildcards do not enter properties, which would drown the values; a plain name does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncua import ua

from drivers.opcua.address import PathAddress, Step
from drivers.opcua.nodes.asking import Asks
from drivers.opcua.nodes.browsing import VARIABLE, Browser, Reference

MAX_LEVELS = 100
MAX_NODES = 250_000
"""So many references are looked at for the paths of one root; what is beyond is not found, and said."""


@dataclass(frozen=True, slots=True)
class Match:
    """A node that a path led to. `names` are the browse names that wildcards stood for."""

    node: ua.NodeId
    names: tuple[str, ...]
    namespace: int
    node_class: int


@dataclass(slots=True)
class Found:
    """What one path led to, at most as many as were wanted. `beyond` counts the rest, `is_short`: not all was seen."""

    matches: list[Match] = field(default_factory=list)
    beyond: int = 0
    is_short: bool = False


@dataclass(slots=True, eq=False)
class _Fork:
    """A place in the tree of steps: where each way leads from here, and the paths that end here."""

    plain: dict[str, list[tuple[int | None, _Fork]]] = field(default_factory=dict)
    wild: list[tuple[Step, re.Pattern[str], _Fork]] = field(default_factory=list)
    deep: _Fork | None = None
    is_deep: bool = False
    ends: list[int] = field(default_factory=list)

    @property
    def leads_on(self) -> bool:
        """Whether anything below a node that is here could match."""
        return bool(self.plain or self.wild or self.deep is not None or self.is_deep)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A node of the server at a fork, with the names that wildcards stood for on the way."""

    fork: _Fork
    names: tuple[str, ...]


async def walk(session: Asks, root: ua.NodeId, paths: Sequence[PathAddress], *, most: int) -> list[Found]:
    """What each path leads to from `root`; of each `most` matches at most. Raises LineError."""
    start, found = _tree(paths), [Found() for _ in paths]
    browser = Browser(session=session)
    left = MAX_NODES
    here: dict[ua.NodeId, list[_Arrival]] = {root: [_Arrival(start, ())]}
    seen: set[tuple[ua.NodeId, int]] = {(root, id(start))}
    for _ in range(MAX_LEVELS):
        nodes = list(here)
        listings = await browser.below(nodes, most=left)
        left -= sum(len(listing.references) for listing in listings)
        unseen = [node for node, listing in zip(nodes, listings, strict=True) if listing.is_cut or listing.code]
        _mark(found, [arrival for node in unseen for arrival in here[node]])
        there: dict[ua.NodeId, list[_Arrival]] = {}
        for node, listing in zip(nodes, listings, strict=True):
            for child in listing.references:
                for arrival in _step(here[node], child):
                    if (child.node, id(arrival.fork)) in seen:
                        continue
                    seen.add((child.node, id(arrival.fork)))
                    _end(arrival, child, paths, found, most)
                    if arrival.fork.leads_on:
                        there.setdefault(child.node, []).append(arrival)
        here = there
        if not here:
            return found
    _mark(found, [arrival for arrivals in here.values() for arrival in arrivals])
    return found


def _tree(paths: Sequence[PathAddress]) -> _Fork:
    """The steps of all paths, what they share once."""
    start = _Fork()
    for number, path in enumerate(paths):
        fork = start
        for step in path.steps:
            fork = _way(fork, step)
        fork.ends.append(number)
    return start


def _way(fork: _Fork, step: Step) -> _Fork:
    """The fork that a step leads to, made where there is none yet."""
    if step.is_deep:
        if fork.deep is None:
            fork.deep = _Fork(is_deep=True)
        return fork.deep
    if step.is_pattern:
        for known, _, leads_to in fork.wild:
            if known == step:
                return leads_to
        fork.wild.append((step, expression(step.name), _Fork()))
        return fork.wild[-1][2]
    ways = fork.plain.setdefault(step.name, [])
    for namespace, leads_to in ways:
        if namespace == step.namespace:
            return leads_to
    ways.append((step.namespace, _Fork()))
    return ways[-1][1]


def _step(arrivals: Sequence[_Arrival], child: Reference) -> list[_Arrival]:
    """Where a child is, whose parent is at these forks."""
    onward: list[_Arrival] = []
    for arrival in arrivals:
        forks = [arrival.fork] if arrival.fork.deep is None else [arrival.fork, arrival.fork.deep]
        for fork in forks:
            for namespace, leads_to in fork.plain.get(child.name, ()):
                if namespace in (None, child.namespace):
                    onward.append(_Arrival(leads_to, arrival.names))
            if child.is_property:
                continue
            for step, pattern, leads_to in fork.wild:
                if step.namespace in (None, child.namespace) and pattern.fullmatch(child.name):
                    onward.append(_Arrival(leads_to, (*arrival.names, child.name)))
            if fork.is_deep:
                onward.append(_Arrival(fork, (*arrival.names, child.name)))
    return onward


def _end(arrival: _Arrival, child: Reference, paths: Sequence[PathAddress], found: list[Found], most: int) -> None:
    """Note the child for the paths that end where it is; wildcards find variables only."""
    for number in arrival.fork.ends:
        if paths[number].is_pattern and child.node_class != VARIABLE:
            continue
        if len(found[number].matches) < most:
            found[number].matches.append(Match(child.node, arrival.names, child.namespace, child.node_class))
        else:
            found[number].beyond += 1


def _mark(found: list[Found], arrivals: Sequence[_Arrival]) -> None:
    """Note that not all was seen for the paths that go on here."""
    forks, seen = [arrival.fork for arrival in arrivals], set[int]()
    while forks:
        fork = forks.pop()
        if id(fork) in seen:
            continue
        seen.add(id(fork))
        forks += [leads_to for ways in fork.plain.values() for _, leads_to in ways]
        forks += [leads_to for _, _, leads_to in fork.wild]
        forks += [fork.deep] if fork.deep is not None else []
        for number in fork.ends:
            found[number].is_short = True


def expression(pattern: str) -> re.Pattern[str]:
    """A name's pattern, compiled; `&` before a character makes it plain. It takes no longer than the name is long."""
    parts = [""]
    for character in re.findall(r"&.|[^&]", pattern, re.DOTALL):
        if character == "*":
            parts.append("")
        else:
            parts[-1] += "." if character == "?" else re.escape(character[-1])
    first, *middle = parts
    if not middle:
        return re.compile(first, re.DOTALL)
    last = middle.pop()
    return re.compile(f"{first}{''.join(f'(?>.*?{part})' for part in middle)}.*{last}", re.DOTALL)
