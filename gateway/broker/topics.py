"""Topic filters, and the trie that finds the subscriptions of a topic (MQTT 5.0, 4.7).

No recursion and no regular expression: a topic of 60,000 slashes costs no more than one of 64 levels. The trie is
compressed: levels that no other filter branches off from stand in one node and are compared by one call, so that a
thousand filters such as `a/+/a/+/…/a` cost a match a thousand steps, not 64 times as many.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, TypeVar

from gateway.broker.shared import SharedGroup

S = TypeVar("S", bound=Hashable)
"""Who subscribes: compared as a dictionary key."""
E = TypeVar("E")
"""What the subscriber wants of it: options, as the core keeps them."""

LEVELS = 64
"""How deep a filter may go. A topic may go deeper: its tail is then matched by `#` only."""

_SHARE = "$share/"


@dataclass(frozen=True, slots=True)
class Filter:
    """A valid topic filter. `text` is as the client wrote it; `plain` and `levels` lack `$share/NAME/`.

    `share`: the name of the shared subscription, None for a plain one. `has_wildcard`: there is a `+` or `#` in it.
    """

    text: str
    plain: str
    share: str | None
    levels: tuple[str, ...]
    has_wildcard: bool


class FullError(Exception):
    """The trie holds as many nodes as it may: the subscription is refused."""


def parse_filter(text: str, levels: int = LEVELS) -> Filter:
    """Take a filter apart. ValueError says what is wrong with it (4.7.1, 4.7.3, 4.8.2)."""
    share, plain = _split_share(text)
    if not plain:
        raise ValueError("a topic filter is at least one character long")  # [MQTT-4.7.3-1]
    if plain.count("/") >= levels:
        raise ValueError(f"the topic filter has more than {levels} levels")
    parts = tuple(plain.split("/"))
    has_wildcard = "+" in plain or "#" in plain
    if has_wildcard:
        _check_wildcards(plain, parts)
    return Filter(text, plain, share, parts, has_wildcard)


def _split_share(text: str) -> tuple[str | None, str]:
    if not text.startswith(_SHARE):
        return None, text
    share, slash, plain = text[len(_SHARE) :].partition("/")
    if not share:
        raise ValueError("the name of the shared subscription is empty")  # [MQTT-4.8.2-1]
    if "+" in share or "#" in share:
        raise ValueError("there is a wildcard in the name of the shared subscription")  # [MQTT-4.8.2-2]
    if not slash:
        raise ValueError("there is no topic filter behind the name of the shared subscription")  # [MQTT-4.8.2-2]
    return share, plain


def _check_wildcards(plain: str, parts: tuple[str, ...]) -> None:
    if "#" in plain[:-1] or (plain[-1] == "#" and parts[-1] != "#"):
        raise ValueError("'#' must be the last level, alone")  # [MQTT-4.7.1-1]
    if any("+" in part and part != "+" for part in parts):
        raise ValueError("'+' must be alone in its level")  # [MQTT-4.7.1-2]


class _Node(Generic[S, E]):
    """Levels that all filters below share: `run`, from the parent's node on. `#` is always a node of its own.

    `plain` and `shared` are the subscriptions whose filter ends here; None = nothing yet. `pick` takes the literal
    levels out of a topic's levels, to be compared with `texts`; None where the whole run is literal.
    """

    __slots__ = ("children", "pick", "plain", "run", "shared", "size", "texts")

    def __init__(self, run: tuple[str, ...]) -> None:
        self.children: dict[str, _Node[S, E]] | None = None
        self.plain: dict[S, E] | None = None
        self.shared: dict[str, SharedGroup[S, E]] | None = None
        self.set_run(run)

    def set_run(self, run: tuple[str, ...]) -> None:
        """Take other levels; the parent's dictionary is the caller's business."""
        self.run = run
        self.size = len(run)
        self.pick: Callable[[tuple[str, ...]], object] | None = None
        self.texts: object = run
        places = [at for at, level in enumerate(run) if level != "+"]
        if 0 < len(places) < len(run):
            self.pick = itemgetter(*places)
            self.texts = self.pick(run)
        elif not places:
            self.pick = _nothing
            self.texts = None

    def fits(self, levels: tuple[str, ...], at: int) -> bool:
        """Whether the run matches the topic's levels from there on."""
        end = at + self.size
        if end > len(levels):
            return False
        part = levels[at:end]
        return part == self.run if self.pick is None else self.pick(part) == self.texts

    def attach(self, child: _Node[S, E]) -> None:
        """Hang a node below this one, in the place of what began with the same level."""
        if self.children is None:
            self.children = {}
        self.children[child.run[0]] = child

    def detach(self, level: str) -> None:
        """Take a child off."""
        if self.children is not None:
            del self.children[level]
            if not self.children:
                self.children = None  # an emptied dictionary keeps its table


def _nothing(_: tuple[str, ...]) -> None:
    """All levels of the run are `+`: there is nothing to compare."""


class Trie(Generic[S, E]):
    """All subscriptions by filter. One per subscriber and filter text.

    `generation` grows with every change: what was remembered of `match` holds while it stays. `nodes` are at most
    three for a filter, some 0.5 KB each; `nodes_maximum` bounds them. None is kept that serves no filter.
    """

    __slots__ = ("_levels", "_root", "count", "generation", "nodes", "nodes_maximum", "shared_count")

    def __init__(self, levels: int = LEVELS, nodes_maximum: int = 1_000_000) -> None:
        self._levels = levels
        self._root: _Node[S, E] = _Node(("",))
        self.generation = 0
        self.count = 0
        self.shared_count = 0
        self.nodes = 0
        self.nodes_maximum = nodes_maximum

    def add(self, filter_: Filter, session: S, entry: E) -> bool:
        """Add a subscription, or replace its entry. Whether it existed. FullError where there is no room for it."""
        node = self._reach(filter_.levels)
        if filter_.share is None:
            if node.plain is None:
                node.plain = {}
            existed = session in node.plain
            node.plain[session] = entry
        else:
            if node.shared is None:
                node.shared = {}
            group = node.shared.get(filter_.share)
            if group is None:
                group = node.shared[filter_.share] = SharedGroup(filter_)
            existed = group.put(session, entry)
            self.shared_count += not existed
        self.count += not existed
        self.generation += 1
        return existed

    def remove(self, filter_: Filter, session: S) -> bool:
        """Remove a subscription. Whether it existed."""
        path = self._path(filter_.levels)
        if path is None:
            return False
        node = path[-1]
        if filter_.share is None:
            existed = self._remove_plain(node, session)
        else:
            existed = self._remove_shared(node, filter_.share, session)
            self.shared_count -= existed
        if not existed:
            return False
        self.count -= 1
        self.generation += 1
        self._prune(path)
        return True

    def group(self, filter_: Filter) -> SharedGroup[S, E] | None:
        """The shared subscription of that name and filter, if it has members."""
        path = self._path(filter_.levels)
        if path is None or path[-1].shared is None or filter_.share is None:
            return None
        return path[-1].shared.get(filter_.share)

    def match(self, topic: str) -> tuple[list[tuple[S, E]], list[SharedGroup[S, E]]]:
        """The subscriptions that match a topic: plain ones, one pair for each filter; and shared ones.

        The cost depends on the topic's levels and on filters that match a beginning of it, not on how many there are.
        """
        plain: list[tuple[S, E]] = []
        shared: list[SharedGroup[S, E]] = []
        levels = tuple(topic.split("/", self._levels))
        end = len(levels)
        todo = [(self._root, 0)]
        hides = topic[:1] == "$"  # [MQTT-4.7.2-1] wildcards on the first level do not see it
        while todo:
            node, at = todo.pop()
            if at == end:
                _collect(node, plain, shared)
            children = node.children
            if children is None:
                continue
            for first in () if at == end else (levels[at],) if hides else (levels[at], "+"):
                child = children.get(first)
                if child is not None and (child.size == 1 or child.fits(levels, at)):
                    todo.append((child, at + child.size))
            if hides:
                hides = False
            elif (child := children.get("#")) is not None:
                _collect(child, plain, shared)
        return plain, shared

    def _reach(self, levels: tuple[str, ...]) -> _Node[S, E]:
        """The node of a filter, made where it is missing."""
        if len(levels) > self._levels:
            raise ValueError(f"the topic filter has more than {self._levels} levels")
        if self.nodes + 3 > self.nodes_maximum and self._path(levels) is None:  # three: split, hang, hang #
            raise FullError(f"{self.nodes} nodes of topic filters are held already")
        node = self._root
        for part in (levels[:-1], ("#",)) if levels[-1] == "#" else (levels,):
            rest = part
            while rest:
                child = node.children.get(rest[0]) if node.children else None
                if child is None:
                    child = _Node(rest)
                    node.attach(child)
                    self.nodes += 1
                common = _common(child.run, rest)
                node = child if common == child.size else self._split(node, child, common)
                rest = rest[common:]
        return node

    def _split(self, parent: _Node[S, E], child: _Node[S, E], at: int) -> _Node[S, E]:
        """Cut a node's run in two; the upper part is a node of its own now."""
        upper: _Node[S, E] = _Node(child.run[:at])
        child.set_run(child.run[at:])
        upper.attach(child)
        parent.attach(upper)
        self.nodes += 1
        return upper

    def _path(self, levels: tuple[str, ...]) -> list[_Node[S, E]] | None:
        """The nodes from the root down to the filter's own; None where there is none."""
        path = [self._root]
        at = 0
        while at < len(levels):
            children = path[-1].children
            child = children.get(levels[at]) if children else None
            if child is None or child.run != levels[at : at + child.size]:
                return None
            path.append(child)
            at += child.size
        return path

    @staticmethod
    def _remove_plain(node: _Node[S, E], session: S) -> bool:
        if node.plain is None or session not in node.plain:
            return False
        del node.plain[session]
        if not node.plain:
            node.plain = None
        return True

    @staticmethod
    def _remove_shared(node: _Node[S, E], share: str, session: S) -> bool:
        group = node.shared.get(share) if node.shared else None
        if node.shared is None or group is None or not group.drop(session):
            return False
        if not len(group):
            del node.shared[share]
        if not node.shared:
            node.shared = None
        return True

    def _prune(self, path: list[_Node[S, E]]) -> None:
        """From the last node of a path up: take off what is empty, join what does not branch any more."""
        while len(path) > 1:
            node = path.pop()
            parent = path[-1]
            if node.plain or node.shared:
                return
            if node.children is None:
                parent.detach(node.run[0])
                self.nodes -= 1
                continue
            child = next(iter(node.children.values()))
            if len(node.children) == 1 and child.run[0] != "#":
                child.set_run(node.run + child.run)
                parent.attach(child)
                self.nodes -= 1
            return


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many levels two runs begin with alike."""
    count = 0
    for mine, others in zip(one, other, strict=False):
        if mine != others:
            break
        count += 1
    return count


def _collect(node: _Node[S, E], plain: list[tuple[S, E]], shared: list[SharedGroup[S, E]]) -> None:
    if node.plain:
        plain.extend(node.plain.items())
    if node.shared:
        shared.extend(node.shared.values())
